"""What the user's own programs are given that run outside the sandbox: MCP servers and hooks.

Covers: no key or other secret of agentcli's environment reaches them unless the user names it.
Does not cover: what they do. They run with the user's rights, as he has configured them.
"""

from __future__ import annotations

from collections.abc import Mapping

_PASSED = (
    *("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Of ``environ``, what such a program gets."""
    return {
        name: value for name, value in environ.items() if name in _PASSED or name.startswith("LC_")
    }
