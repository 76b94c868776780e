"""How to install a missing extra of agentcli."""

from __future__ import annotations

import os
import shlex
import shutil
import sys


def install(extra: str) -> str:
    """The command that installs an extra.

    pip keeps the installed agentcli, wherever it came from (a clone, a URL, an index), and adds
    what is missing. It must be the pip of the running Python.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "pip")
    pip = "pip" if shutil.which("pip") == beside else f"{shlex.quote(sys.executable)} -m pip"
    return f"{pip} install 'agentcli[{extra}]'"
