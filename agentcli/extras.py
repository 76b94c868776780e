"""The extras of this installation: how one that is missing is added."""

from __future__ import annotations

import os
import shlex
import shutil
import sys


def install(extra: str) -> str:
    """The command that adds an extra.

    Wherever agentcli was installed from (a clone, an address, an index), pip keeps the one that is
    there and adds what it lacks; so it must be the pip of this very Python, not another's.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "pip")
    pip = "pip" if shutil.which("pip") == beside else f"{shlex.quote(sys.executable)} -m pip"
    return f"{pip} install 'agentcli[{extra}]'"
