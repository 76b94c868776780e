"""The command ``agentcli``: turns every outcome into an exit code and at most one error line.

This module imports little, so that ``main`` handles Ctrl+C from the start.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

INTERRUPTED = 130
READER_GONE = 141  # as a shell reports SIGPIPE
# A full disk, a quota, a limit of file sizes, a broken device. Journals have their own errors.
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code of the table in docs/command-line.md."""
    # Imports leave hardly any garbage; looking for it costs a tenth of the start-up time.
    gc.set_threshold(50_000, 20, 50)
    # agentcli needs no pydantic plugins, and looking for them takes 15 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        _fill_closed()
        code = _guarded(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = READER_GONE
    finally:
        _drain()
    if arguments is None:
        # Everything has been closed by its owner. An ordinary exit would spend a tenth of a second
        # tearing down the imported SDKs.
        import logging

        logging.shutdown()
        os._exit(code)
    return code


def unsupported(platform: str) -> str:
    """Why agentcli cannot run on a platform (``sys.platform``); empty if it can."""
    if platform.startswith("win"):
        return (
            "Windows itself is not supported: it lacks the sandbox that tools run in. "
            "Run agentcli inside WSL (wsl --install, then use its Linux shell)"
        )
    return ""


def _guarded(arguments: list[str] | None) -> int:
    from agentcli.cli.errors import save_traceback, show_error
    from agentcli.errors import AgentCLIError

    if complaint := unsupported(sys.platform):
        show_error(complaint)
        return 2
    if sys.stdout is None:
        show_error("cannot write the output: stdout is closed")
        return 5
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
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Click makes an exit of it
            raise end.__context__ from None
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and _is_of_output(error):
            show_error(f"cannot write the output: {error.strerror}")
        else:
            show_error(save_traceback())
        return 5


def _fill_closed() -> None:
    """Open closed standard streams, lest the next file opened (a journal) get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _is_of_output(error: OSError) -> bool:
    """Whether an error came from writing the output, which then is often still in the buffer."""
    if error.filename is None and error.errno in _OUTPUT_ERRORS:
        return True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            return True
    return False


def _drain() -> None:
    """Drop output that cannot be written; Python would report it again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


if __name__ == "__main__":
    sys.exit(main())
