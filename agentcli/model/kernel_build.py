"""How ``kernels.c`` becomes a library. Needs no torch: who starts processes does not load it."""

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
    """A C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def library_name() -> str:
    """Of the file to build: other sources and other processors have others."""
    sources = SOURCE.read_bytes() + _INCLUDED.read_bytes()
    made_of = sources + "\0".join((*_OPTIONS, _processor())).encode()
    return f"kernels-{hashlib.sha256(made_of).hexdigest()[:16]}.so"


def build_commands(compiler: str, output: Path) -> list[tuple[str, ...]]:
    """To run one after the other; two, so that the compiler's own OpenMP is not linked: the
    functions are found in the one that torch brings, with its threads. ``output`` ends in .so."""
    middle = str(output.with_suffix(".o"))
    return [
        (compiler, *_OPTIONS, "-c", str(SOURCE), "-o", middle),
        (compiler, "-shared", middle, "-o", str(output)),
    ]


@cache
def _processor() -> str:
    """What ``-march=native`` stands for here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(names)}))
