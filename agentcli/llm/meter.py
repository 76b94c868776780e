"""Counts tokens for one model, with one of OpenAI's vocabularies or by an estimate.

The vocabularies are part of the package; nothing is downloaded. The counts that a provider
reports calibrate later estimates for its model.
"""

from __future__ import annotations

import functools
import lzma
from pathlib import Path

import tiktoken

from agentcli.llm.tokens import Count, estimate, message_tokens, vocabulary_of
from agentcli.messages import Message

_BOUNDS = (0.25, 4.0)
"""Limits of the calibration factor."""
_FOLDER = Path(__file__).parent / "vocabularies"

_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDING}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {"o200k_base": _O200K, "cl100k_base": _CL100K}


@functools.cache
def vocabulary(name: str) -> tiktoken.Encoding:
    """Load a vocabulary. The first call takes 0.25 s, so make it in a thread."""
    return tiktoken.Encoding(
        name, pat_str=_PATTERNS[name], mergeable_ranks=_ranks(name), special_tokens={}
    )


def _ranks(name: str) -> dict[bytes, int]:
    data = lzma.decompress((_FOLDER / f"{name}.xz").read_bytes())
    count = int.from_bytes(data[:4], "big")
    at = 4 + count
    ranks: dict[bytes, int] = {}
    for rank, length in enumerate(data[4 : 4 + count]):
        ranks[data[at : at + length]] = rank
        at += length
    return ranks


class Meter:
    """Counts tokens for one model, calibrated by its provider's reports."""

    def __init__(self, model: str = "") -> None:
        self._vocabulary = vocabulary_of(model)
        self._count: Count = estimate
        self._factor, self._constant = 1.0, 0.0

    @property
    def sharper(self) -> bool:
        """Whether ``sharpen`` would have an effect."""
        return self._vocabulary is not None and self._count is estimate

    def sharpen(self) -> None:
        """Use the model's own vocabulary from now on. Slow at first, so call it in a thread."""
        if self._vocabulary is not None:
            encode = vocabulary(self._vocabulary).encode_ordinary
            self._count = lambda text: len(encode(text))
            self._factor, self._constant = 1.0, 0.0

    def text(self, text: str) -> float:
        """The tokens of a text, not calibrated."""
        return self._count(text)

    def message(self, message: Message) -> float:
        """The tokens of a message, not calibrated."""
        return message_tokens(message, self._count)

    def corrected(self, tokens: float) -> int:
        """The calibrated tokens of a message."""
        return round(tokens * self._factor)

    def request(self, tokens: float) -> int:
        """The calibrated tokens of a whole request."""
        return max(1, round(tokens * self._factor + self._constant))

    def report(self, counted: float, reported: int) -> None:
        """Calibrate: the provider ``reported`` so many tokens for a request ``counted`` here."""
        if counted > 0 and reported > 0:
            least, most = _BOUNDS
            self._factor = min(max(reported / counted, least), most)
            # An excess beyond the bounds is constant, such as the server's own system prompt.
            self._constant = max(0.0, reported - counted * self._factor)
