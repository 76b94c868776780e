"""``python -m agentcli``."""

import sys

from agentcli.cli.main import main

sys.exit(main())
