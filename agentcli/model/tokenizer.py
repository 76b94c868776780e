"""Tokenizers for tiktoken encodings and Hugging Face files.

Both kinds make two guarantees. Ordinary text never becomes a special token: ``encode`` treats
``<|im_end|>`` in a user's file as ten ordinary characters, and only ``encode_template``, for text
written by the program, recognises special tokens. And ``StreamDecoder`` never emits part of a
character, because it decodes the bytes of the tokens incrementally.
"""

from __future__ import annotations

import base64
import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tiktoken
import tokenizers

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.tokenizer_json import (
    bytes_of,
    decoder_kind,
    mark_control_tokens,
    strips_first_space,
)
from agentcli.model.tokenizer_pickle import read_encoding
from agentcli.text import encodable

# A control character never merges with the text after it, so it can stand in for preceding text.
_SEPARATOR = "\x02"

# nanochat numbers these after the merges, in this order.
NANOCHAT_SPECIAL = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


class Tokenizer(ABC):
    """Converts text to token ids and back.

    Attributes:
        vocab_size: One more than the highest id; some ids below it may be unused.
        special: Maps the text of each special token to its id.
        bos_id: The id of the beginning-of-sequence token.
        eos_id: The id of the end-of-sequence token.
        prompt_prefix: The ids that every new prompt starts with (often just ``bos_id``).
    """

    vocab_size: int
    special: Mapping[str, int]
    bos_id: int | None
    eos_id: int | None
    prompt_prefix: tuple[int, ...]

    @property
    def named(self) -> Mapping[str, str]:
        """Special tokens by the names that chat templates use, such as ``eos_token``."""
        texts = {token: text for text, token in self.special.items()}
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        return {name: texts[token] for name, token in ids.items() if token is not None}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode ordinary text, in which nothing is a special token."""

    def prompt(self, text: str) -> list[int]:
        """Encode a text that the model shall continue: ``prompt_prefix``, then the text."""
        return [*self.prompt_prefix, *self.encode(text)]

    def encode_inner(self, text: str) -> list[int]:
        """Encode ordinary text that continues other text, without adding a leading space."""
        return self.encode(text)

    @abstractmethod
    def encode_template(self, text: str, *, inner: bool = False) -> list[int]:
        """Encode text written by the program, recognising special tokens.

        ``inner`` if it continues other text, see ``encode_inner``.
        """

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token: a special token's text, nothing for an unused id."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write files that ``load_tokenizer`` can read."""

    def special_id(self, text: str) -> int:
        """Return the id of a special token.

        Raises:
            ModelError: there is no such special token.
        """
        try:
            return self.special[text]
        except KeyError:
            raise ModelError(f"the tokenizer has no special token {text!r}") from None

    def characters(self, token: int) -> int:
        """Return how many characters begin in a token; it may be the end of one."""
        return sum(byte & 0xC0 != 0x80 for byte in self.token_bytes(token))

    def decode(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """Decode tokens to text; bytes that are not valid UTF-8 become U+FFFD."""
        stream = self.stream(skip_special=skip_special)
        return "".join([*(stream.push(token) for token in tokens), stream.finish()])

    def stream(self, *, skip_special: bool = False, inner: bool = False) -> StreamDecoder:
        """Return a decoder; ``inner`` if the tokens continue other text, see ``encode_inner``."""
        return StreamDecoder(self, skip_special=skip_special, inner=inner)

    # SentencePiece adds a space before the first word, which decoding must remove.
    strips_first_space = False


class StreamDecoder:
    """Decodes tokens one by one; ``push`` holds back the bytes of an incomplete character."""

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special: bool = False, inner: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = frozenset(tokenizer.special.values()) if skip_special else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space and not inner

    def push(self, token: int) -> str:
        """Return the characters that this token completes, if any."""
        if token in self._skip:
            return ""
        data = self._tokenizer.token_bytes(token)
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """Return the rest: U+FFFD if the tokens ended within a character."""
        return self._utf8.decode(b"", final=True)


class TiktokenTokenizer(Tokenizer):
    """A tiktoken encoding: byte-pair merges by rank, and a pattern that splits text first."""

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        pattern: str,
        special: Mapping[str, int],
        *,
        bos: str | None = None,
        eos: str | None = None,
        name: str = "agentcli",
    ) -> None:
        self._encoding = tiktoken.Encoding(
            name, pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens=dict(special)
        )
        self._ranks = dict(ranks)
        self._pattern = pattern
        self.special = dict(special)
        self.vocab_size = 1 + max((*self._ranks.values(), *self.special.values()))
        self._bytes = [b""] * self.vocab_size
        for data, token in self._ranks.items():
            self._bytes[token] = data
        for text, token in self.special.items():
            self._bytes[token] = text.encode()
        self.bos_id = None if bos is None else self.special_id(bos)
        self.eos_id = None if eos is None else self.special_id(eos)
        self.prompt_prefix = () if self.bos_id is None else (self.bos_id,)

    @classmethod
    def nanochat(cls, ranks: Mapping[bytes, int], pattern: str) -> TiktokenTokenizer:
        """Return an encoding with nanochat's nine special tokens after the merges."""
        special = {text: len(ranks) + i for i, text in enumerate(NANOCHAT_SPECIAL)}
        return cls(ranks, pattern, special, bos="<|bos|>", eos="<|assistant_end|>")

    @property
    def ranks(self) -> Mapping[bytes, int]:
        return self._ranks

    @property
    def pattern(self) -> str:
        return self._pattern

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_template(self, text: str, *, inner: bool = False) -> list[int]:
        return self._encoding.encode(text, allowed_special="all")

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def save(self, folder: Path) -> None:
        """Write tokenizer.tiktoken (base64 and rank, one per line) and tokenizer_config.json."""
        ordered = sorted(self._ranks.items(), key=lambda item: item[1])
        lines = (f"{base64.b64encode(data).decode()} {rank}\n" for data, rank in ordered)
        (folder / "tokenizer.tiktoken").write_text("".join(lines), encoding="ascii")
        names = {token: text for text, token in self.special.items()}
        settings = {
            "pattern": self._pattern,
            "special_tokens": dict(self.special),
            "bos_token": None if self.bos_id is None else names[self.bos_id],
            "eos_token": None if self.eos_id is None else names[self.eos_id],
        }
        text = json.dumps(settings, indent=1, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TiktokenTokenizer:
        """Read the files written by ``save``.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        path = folder / "tokenizer.tiktoken"
        settings = read_json(folder / "tokenizer_config.json")
        try:
            ranks = {}
            for line in path.read_text(encoding="ascii").splitlines():
                data, rank = line.split()
                ranks[base64.b64decode(data, validate=True)] = int(rank)
            return cls(
                ranks,
                settings["pattern"],
                settings["special_tokens"],
                bos=settings.get("bos_token"),
                eos=settings.get("eos_token"),
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: no readable tokenizer ({error!r})") from None


class HfTokenizer(Tokenizer):
    """A Hugging Face tokenizer with byte-level or SentencePiece-like (byte fallback) tokens.

    Args:
        data: The content of tokenizer.json.
        settings: The content of tokenizer_config.json.

    Raises:
        CheckpointError: the tokenizer is invalid, or of a kind whose tokens have no known bytes.
    """

    def __init__(self, data: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        data = mark_control_tokens(data)
        self._json = json.dumps(data, ensure_ascii=False)
        self._settings = dict(settings or {})
        try:
            self._ordinary = tokenizers.Tokenizer.from_str(self._json)
            self._template = tokenizers.Tokenizer.from_str(self._json)
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"tokenizer.json: {error}") from None
        for tokenizer in (self._ordinary, self._template):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._ordinary.encode_special_tokens = True
        added = self._template.get_added_tokens_decoder()
        self.special = {token.content: i for i, token in added.items() if token.special}
        vocab = self._template.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocab.values())
        kind = decoder_kind(data)
        self._bytes = [b""] * self.vocab_size
        for text, token in vocab.items():
            # Added tokens are plain text, except runs of spaces, which Gemma adds as U+2581.
            literal = token in added and (added[token].special or kind == "byte_level")
            self._bytes[token] = text.encode() if literal else bytes_of(text, kind)
        self.strips_first_space = strips_first_space(data)
        self.bos_id = self._id_of(self._settings.get("bos_token"))
        self.eos_id = self._id_of(self._settings.get("eos_token"))
        self.prompt_prefix = self._prefix()

    @property
    def named(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for name, token in self._settings.items():
            text = token.get("content") if isinstance(token, Mapping) else token
            if name.endswith("_token") and isinstance(text, str):
                found[name] = text
        return found

    def encode(self, text: str) -> list[int]:
        return self._encoded(self._ordinary, text, inner=False)

    def encode_inner(self, text: str) -> list[int]:
        return self._encoded(self._ordinary, text, inner=True)

    def encode_template(self, text: str, *, inner: bool = False) -> list[int]:
        return self._encoded(self._template, text, inner=inner)

    def _encoded(self, tokenizer: tokenizers.Tokenizer, text: str, *, inner: bool) -> list[int]:
        separated = inner and self.strips_first_space
        text = encodable(_SEPARATOR + text if separated else text)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        if not separated:
            return ids
        at = next(i for i, token in enumerate(ids) if self._bytes[token].endswith(b"\x02"))
        return ids[at + 1 :]

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self._json, encoding="utf-8")
        text = json.dumps(self._settings, indent=1, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> HfTokenizer:
        settings = folder / "tokenizer_config.json"
        return cls(
            read_json(folder / "tokenizer.json"),
            read_json(settings) if settings.exists() else None,
        )

    def _id_of(self, token: Any) -> int | None:
        """Return the id of a token in the settings, which is a text or an object with one."""
        text = token.get("content") if isinstance(token, Mapping) else token
        return self._template.token_to_id(text) if isinstance(text, str) else None

    def _prefix(self) -> tuple[int, ...]:
        """Return the tokens added before a text, without those that some files add after it."""
        if "add_bos_token" in self._settings:
            wanted = self._settings["add_bos_token"] and self.bos_id is not None
            return (self.bos_id,) if wanted and self.bos_id is not None else ()
        text = self._template.encode("x", add_special_tokens=False).ids
        whole = self._template.encode("x", add_special_tokens=True).ids
        for start in range(len(whole) - len(text) + 1):
            if whole[start : start + len(text)] == text:
                return tuple(whole[:start])
        return ()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a model folder, of any kind.

    Raises:
        CheckpointError: it is missing, damaged or unsafe.
    """
    if (folder / "tokenizer.json").exists():
        return HfTokenizer.load(folder)
    if (folder / "tokenizer.tiktoken").exists():
        return TiktokenTokenizer.load(folder)
    if (folder / "tokenizer.pkl").exists():
        return load_nanochat_pickle(folder / "tokenizer.pkl")
    raise CheckpointError(
        f"{folder}: no tokenizer",
        hint="expected tokenizer.json, tokenizer.tiktoken or tokenizer.pkl",
    )


def load_nanochat_pickle(path: Path) -> TiktokenTokenizer:
    """Read nanochat's pickled tiktoken Encoding without executing anything in it.

    Raises:
        CheckpointError: the file refers to other classes, or holds something else.
    """
    ranks, special, pattern = read_encoding(path)
    bos = next((text for text in ("<|bos|>", "<|endoftext|>") if text in special), None)
    eos = "<|assistant_end|>" if "<|assistant_end|>" in special else bos
    return TiktokenTokenizer(ranks, pattern, special, bos=bos, eos=eos)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or is not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return data
