"""The command ``agentcli``: turns whatever happens into an exit code and at most one line.

Little is imported before ``main`` is entered, so that Ctrl+C is quiet from the first moment.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code of the table in README.md."""
    try:
        return _guarded(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()


def unsupported(platform: str) -> str:
    """Why agentcli cannot run on a platform (``sys.platform``); empty where it can."""
    if platform.startswith("win"):
        return (
            "Windows itself is not supported, for it lacks the sandbox that tools run in. "
            "Run agentcli inside WSL (wsl --install, then use its Linux shell)"
        )
    return ""


def _guarded(arguments: list[str] | None) -> int:
    from agentcli.cli.errors import save_traceback, show_error
    from agentcli.errors import AgentCLIError

    if complaint := unsupported(sys.platform):
        show_error(complaint)
        return 2
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from agentcli.cli.app import call

        code = call(arguments)
        sys.stdout.flush()
        return code
    except AgentCLIError as error:
        show_error(error.line())
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception:
        show_error(save_traceback())
        return 5


def _reader_left() -> int:
    # Whoever read our output has enough. Python would complain once more at its exit.
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(devnull, stream.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
