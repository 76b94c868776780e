"""The user's own programs, outside the sandbox: MCP servers, hooks, commands that print a key.

Covers: they get no key or other secret from agentcli's environment unless the user names it.
Does not cover: what they do. They run with the user's rights, as the user has configured them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from agentcli.errors import ConfigError
from agentcli.sandbox import bwrap

_PASSED = (
    *("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
)


def output_of(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    time_s: float,
    own: Mapping[str, str] | None = None,
) -> str:
    """Run a program of the user's and return what it prints; blocks.

    ``own`` adds variables to its environment. Bytes that are not UTF-8 become surrogates.

    Raises:
        OSError: it cannot be started, failed, or took longer than ``time_s`` seconds.
    """
    try:
        ended = subprocess.run(
            list(argv),
            env={**environment(environ), **(own or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=time_s,
            text=True,
            errors="surrogateescape",
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} took more than {time_s:g} s") from error
    except ValueError as error:  # a zero byte
        raise OSError(str(error)) from error
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()
        why = f": {said[-1]}" if said else ""
        raise OSError(f"{argv[0]} ended with exit code {ended.returncode}{why}")
    return ended.stdout


def without_network(argv: Sequence[str]) -> list[str]:
    """The command line that runs a program with a private loopback and no other network.

    Raises:
        ConfigError: bubblewrap, which this takes, is not installed.
    """
    program = bwrap.program()
    if program is None:
        raise ConfigError("offline is set, and only bubblewrap could keep it off the network")
    return [program, "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent", "--", *argv]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environ`` that such a program gets."""
    return {
        name: value for name, value in environ.items() if name in _PASSED or name.startswith("LC_")
    }
