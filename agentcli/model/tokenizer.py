"""Tokenizers: text to token ids and back, for tiktoken encodings and Hugging Face files.

Two promises hold for both. Ordinary text never becomes a special token: ``encode`` treats
``<|im_end|>`` in a user's file as the ten characters it is; only ``encode_template``, for text
that the program wrote, recognises special tokens. And ``StreamDecoder`` never emits half a
character. Both follow from working on bytes: every token has its bytes, text is their UTF-8.
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

# A control character merges with nothing: what follows it is within a text.
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
    """``special`` maps the text of each special token to its id.

    ``vocab_size`` is one more than the highest id; some ids below it may have no token.
    ``prompt_prefix`` are the ids that every fresh prompt starts with (often one: bos).
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
        """Ordinary text: never yields a special token."""

    def encode_inner(self, text: str) -> list[int]:
        """Ordinary text that continues other text: no space is put before it."""
        return self.encode(text)

    @abstractmethod
    def encode_template(self, text: str) -> list[int]:
        """Text that the program wrote: special tokens in it become their ids."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; of a special token, its text; empty for an id without token."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes files that ``load_tokenizer`` reads back."""

    def special_id(self, text: str) -> int:
        """Raises ModelError if there is no such special token."""
        try:
            return self.special[text]
        except KeyError:
            raise ModelError(f"the tokenizer has no special token {text!r}") from None

    def decode(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """Bytes that are no UTF-8 become U+FFFD."""
        stream = self.stream(skip_special=skip_special)
        return "".join([*(stream.push(token) for token in tokens), stream.finish()])

    def stream(self, *, skip_special: bool = False) -> StreamDecoder:
        return StreamDecoder(self, skip_special=skip_special)

    # SentencePiece puts a space before the first word, which decoding takes away again.
    strips_first_space = False


class StreamDecoder:
    """Text of tokens as they come. ``push`` holds back the bytes of an unfinished character."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip = frozenset(tokenizer.special.values()) if skip_special else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space

    def push(self, token: int) -> str:
        """The characters that this token completes, perhaps none."""
        if token in self._skip:
            return ""
        data = self._tokenizer.token_bytes(token)
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What is left: U+FFFD if the tokens ended within a character."""
        return self._utf8.decode(b"", final=True)


class TiktokenTokenizer(Tokenizer):
    """Byte-pair encoding as tiktoken does it: ranks of merges and a pattern that splits text."""

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
        """Adds nanochat's nine special tokens after the merges."""
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

    def encode_template(self, text: str) -> list[int]:
        return self._encoding.encode(text, allowed_special="all")

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def save(self, folder: Path) -> None:
        """tokenizer.tiktoken (base64 and rank a line) and tokenizer_config.json."""
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
        """Raises CheckpointError for files that are missing or damaged."""
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
    """A Hugging Face ``tokenizer.json`` with byte-level or SentencePiece-like (byte fallback)
    tokens."""

    def __init__(self, data: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        """``data`` is the content of tokenizer.json, ``settings`` of tokenizer_config.json.

        Raises CheckpointError for kinds of tokenizers that have no bytes per token.
        """
        data = mark_control_tokens(data)
        self._json = json.dumps(data, ensure_ascii=False)
        self._settings = dict(settings or {})
        try:
            self._ordinary = tokenizers.Tokenizer.from_str(self._json)
            self._template = tokenizers.Tokenizer.from_str(self._json)
        except Exception as error:  # the library raises no narrower class
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
            literal = token in added
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
        ids: list[int] = self._ordinary.encode(text, add_special_tokens=False).ids
        return ids

    def encode_inner(self, text: str) -> list[int]:
        if not self.strips_first_space:
            return self.encode(text)
        ids = self.encode(_SEPARATOR + text)
        at = next(i for i, token in enumerate(ids) if self._bytes[token].endswith(b"\x02"))
        return ids[at + 1 :]

    def encode_template(self, text: str) -> list[int]:
        ids: list[int] = self._template.encode(text, add_special_tokens=False).ids
        return ids

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
        """Files give a token as text or as an object with its content."""
        text = token.get("content") if isinstance(token, Mapping) else token
        return None if text is None else self._template.token_to_id(text)

    def _prefix(self) -> tuple[int, ...]:
        """What the file puts before a text. Behind it, some files put an end token: not wanted."""
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
    """Reads the tokenizer of a model folder, whichever kind it is.

    Raises CheckpointError if there is none, or if it is damaged or unsafe.
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
    """Reads nanochat's pickled tiktoken Encoding without running anything in it.

    Raises CheckpointError for files that need more than that, or hold something else.
    """
    ranks, special, pattern = read_encoding(path)
    bos = next((text for text in ("<|bos|>", "<|endoftext|>") if text in special), None)
    eos = "<|assistant_end|>" if "<|assistant_end|>" in special else bos
    return TiktokenTokenizer(ranks, pattern, special, bos=bos, eos=eos)


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError if the file is missing or holds no JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return data
