"""Builds ``kernels.c``. Imports no torch: the process that starts the compiler must not load it."""

from __future__ import annotations

import hashlib
import platform
import shutil
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")
_INCLUDED = Path(__file__).with_name("products.h")
_OPTIONS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")


def compiler() -> str | None:
    """Return the path of a C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def library_name() -> str:
    """Return the name of the library's file, unique to the sources, options and processor."""
    sources = SOURCE.read_bytes() + _INCLUDED.read_bytes()
    made_of = sources + "\0".join((*_OPTIONS, _processor())).encode()
    return f"kernels-{hashlib.sha256(made_of).hexdigest()[:16]}.so"


def build_commands(compiler: str, output: Path) -> list[tuple[str, ...]]:
    """Return the commands that build ``output`` (a .so file), to be run in order.

    Linking without -fopenmp leaves out the compiler's OpenMP runtime; torch's is used, with its
    threads.
    """
    middle = str(output.with_suffix(".o"))
    return [
        (compiler, *_OPTIONS, "-c", str(SOURCE), "-o", middle),
        (compiler, "-shared", middle, "-o", str(output)),
    ]


@cache
def _processor() -> str:
    """Return what determines ``-march=native`` on this machine."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(names)}))
