"""The command shown to a user to install a missing extra."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from agentcli.extras import install


def test_it_is_the_pip_of_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside = os.path.dirname(sys.executable)
    (tmp_path / "pip").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{beside}")
    assert install("mcp") == f"{shlex.quote(sys.executable)} -m pip install 'agentcli[mcp]'"
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    assert install("mcp") == "pip install 'agentcli[mcp]'"
