"""Reports errors of the command line: one line on stderr, details in a file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from agentcli import __version__
from agentcli.folders import log_file
from agentcli.text import escape


def show_error(text: str) -> None:
    """Print one line; control characters are escaped, since errors quote files and servers."""
    _line(f"agentcli: error: {text}")


def show_note(text: str) -> None:
    """Print a note on stderr."""
    _line(f"agentcli: note: {text}")


def _line(text: str) -> None:
    with contextlib.suppress(OSError):
        print(escape(" ".join(text.split())), file=sys.stderr, flush=True)


def log_to_file() -> None:
    """Log warnings of all libraries to a file, since stderr belongs to the run."""
    file = log_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler: logging.Handler = logging.FileHandler(
            file, encoding="utf-8", errors="backslashreplace", delay=True
        )
    except OSError:
        handler = logging.NullHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s: %(message)s"))
    logging.raiseExceptions = False
    logging.getLogger().addHandler(handler)


def save_traceback() -> str:
    """Save the traceback of the current exception to a file; returns the line to print."""
    kind, error, _ = sys.exc_info()
    told = f"internal error: {kind.__name__ if kind else ''}: {error}. This is a bug"
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (log_file().parent, Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"agentcli {__version__}, Python {sys.version}\n\n")
                traceback.print_exc(file=file)
            return f"{told}; the traceback is in {path}"
        except OSError:
            continue
    return f"{told}; the traceback could not be saved"
