"""Reads nanochat's pickled tiktoken Encoding without executing anything in it.

A pickle can call any class it names. This unpickler allows only the one class that such a file
needs, replaced by a stand-in that just keeps the state, and refuses all others.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from agentcli.errors import CheckpointError


class _PickledEncoding:
    """Stands in for tiktoken.core.Encoding and keeps its state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _EncodingUnpickler(pickle.Unpickler):
    """Allows only ``Encoding``, replaced by its stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("tiktoken.core", "Encoding"), ("tiktoken", "Encoding")}:
            return _PickledEncoding
        raise CheckpointError(f"tokenizer.pkl wants to load {module}.{name}: refused")

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError("tokenizer.pkl refers to objects outside itself: refused")


def read_encoding(path: Path) -> tuple[dict[bytes, int], dict[str, int], str]:
    """Return the merge ranks, the special tokens and the pattern of a pickled Encoding.

    Raises:
        CheckpointError: the file refers to other classes, is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            state = _unpickle_state(file)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(f"{path}: damaged ({error!r})") from None
    return _encoding_parts(path, state)


def _encoding_parts(
    path: Path, state: Mapping[str, Any]
) -> tuple[dict[bytes, int], dict[str, int], str]:
    """Return the parts of an encoding after checking their types."""
    ranks, special = state.get("mergeable_ranks"), state.get("special_tokens")
    pattern = state.get("pat_str")
    if (
        isinstance(pattern, str)
        and isinstance(ranks, dict)
        and isinstance(special, dict)
        and all(isinstance(k, bytes) and isinstance(v, int) for k, v in ranks.items())
        and all(isinstance(k, str) and isinstance(v, int) for k, v in special.items())
    ):
        return ranks, special, pattern
    raise CheckpointError(f"{path}: holds no tiktoken encoding")


def _unpickle_state(file: IO[bytes]) -> dict[str, Any]:
    loaded = _EncodingUnpickler(file).load()
    state = loaded.state if isinstance(loaded, _PickledEncoding) else None
    if not isinstance(state, dict):
        raise CheckpointError("tokenizer.pkl holds no tiktoken encoding of its own")
    return state
