"""Shows the text of samples: side by side on a terminal, otherwise one after another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Any, Protocol

from agentcli.text import escape


class Samples(Protocol):
    """Shows samples while they are generated."""

    def write(self, row: int, text: str) -> None:
        """Show more text of a sample."""
        ...

    def close(self) -> None:
        """Finish: no more text follows."""
        ...


def open_samples(count: int) -> Samples:
    """Choose by stdout and by the number of samples."""
    terminal = sys.stdout.isatty()
    if count == 1:
        return OneSample(sys.stdout, terminal=terminal)
    return Columns(count) if terminal else Labelled(count, sys.stdout)


class OneSample:
    """One sample's text as it arrives; on a terminal, control characters are escaped."""

    def __init__(self, out: IO[str], *, terminal: bool) -> None:
        self._out = out
        self._terminal = terminal
        self._last = "\n"

    def write(self, row: int, text: str) -> None:
        self._out.write(escape(text) if self._terminal else text)
        self._out.flush()
        self._last = text[-1]

    def close(self) -> None:
        if self._last != "\n":
            self._out.write("\n")
            self._out.flush()


class Labelled:
    """The first sample as it arrives, then the others, each below a line with its number."""

    def __init__(self, count: int, out: IO[str]) -> None:
        self._out = out
        self._texts = [""] * count
        self._first = OneSample(out, terminal=False)
        self._head(0)

    def write(self, row: int, text: str) -> None:
        if row == 0:
            self._first.write(row, text)
        else:
            self._texts[row] += text

    def close(self) -> None:
        self._first.close()
        for row, text in enumerate(self._texts[1:], start=1):
            self._head(row)
            if text:
                after = OneSample(self._out, terminal=False)
                after.write(row, text)
                after.close()

    def _head(self, row: int) -> None:
        self._out.write(f"=== sample {row + 1} of {len(self._texts)} ===\n")
        self._out.flush()


class Columns:
    """One column per sample; until the end, only as many of the last lines as fit."""

    def __init__(self, count: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._texts = [""] * count
        self._live = Live(
            console=self._console, refresh_per_second=10, transient=True, get_renderable=self._tail
        )
        self._live.start()

    def write(self, row: int, text: str) -> None:
        self._texts[row] += escape(text)

    def close(self) -> None:
        self._live.stop()
        self._console.print(self._table(self._texts))

    def _tail(self) -> Any:
        rows = max(self._console.height - 2, 4)
        width = max(self._console.width // len(self._texts) - 3, 8)
        return self._table([_last_lines(text, rows, width) for text in self._texts])

    @staticmethod
    def _table(texts: Sequence[str]) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=True, show_edge=False)
        for number in range(len(texts)):
            table.add_column(str(number + 1), ratio=1, overflow="fold")
        table.add_row(*map(Text, texts))
        return table


def _last_lines(text: str, rows: int, width: int) -> str:
    """The end of a text that takes about ``rows`` lines of ``width`` cells."""
    kept: list[str] = []
    used = 0
    for line in reversed(text.split("\n")):
        used += 1 + len(line) // width
        if used > rows:
            break
        kept.append(line)
    return "\n".join(reversed(kept)) or text[-rows * width :]
