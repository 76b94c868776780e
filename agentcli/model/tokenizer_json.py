"""Reads the bytes of tokens and the control tokens from a Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentcli.errors import CheckpointError

# Added tokens that models treat as control tokens, although files do not mark them as special.
_TOOL_TAGS = ("tool_call", "tool_response", "tools", "think")
_BRACKET_TAGS = ("AVAILABLE_TOOLS", "TOOL_RESULTS", "INST", "SYSTEM_PROMPT", "THINK")
CONTROL_TOKENS = frozenset(
    [
        *(f"<{slash}{tag}>" for tag in _TOOL_TAGS for slash in ("", "/")),
        *(f"[{slash}{tag}]" for tag in _BRACKET_TAGS for slash in ("", "/")),
        *("[TOOL_CALLS]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]"),
    ]
)
# Such as <|fim_prefix|>; DeepSeek writes wide bars, and U+2581 between words.
_CONTROL = re.compile("<[|\uff5c][\\w\u2581]+[|\uff5c]>")


def mark_control_tokens(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of tokenizer.json with all control tokens marked as special."""
    added = [
        {**token, "special": True} if _is_control(str(token.get("content"))) else token
        for token in data.get("added_tokens") or ()
    ]
    return {**data, "added_tokens": added}


def _is_control(text: str) -> bool:
    return text in CONTROL_TOKENS or _CONTROL.fullmatch(text) is not None


def _components(part: Any) -> list[dict[str, Any]]:
    """Return the parts of a component, with nested sequences flattened."""
    if not part:
        return []
    if part.get("type") == "Sequence":
        inner = part.get("decoders") or part.get("pretokenizers") or part.get("normalizers") or ()
        return [leaf for child in inner for leaf in _components(child)]
    return [part]


def decoder_kind(data: Mapping[str, Any]) -> str:
    """Return how tokens spell bytes: "byte_level" or "byte_fallback".

    Raises:
        CheckpointError: the decoder is not supported.
    """
    kinds = {part["type"] for part in _components(data.get("decoder"))}
    if "ByteLevel" in kinds:
        return "byte_level"
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        return "byte_fallback"
    raise CheckpointError(f"tokenizer.json: unknown decoder {sorted(kinds) or 'none'}")


def strips_first_space(data: Mapping[str, Any]) -> bool:
    """Whether the decoder removes a space at the start of the text."""
    for part in _components(data.get("decoder")):
        if part["type"] == "Strip" and part.get("content") == " " and part.get("start"):
            return True
        if part["type"] == "Metaspace":
            return bool(part.get("prepend_scheme", "always") != "never")
    return False


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's mapping of printable characters to bytes, without spaces or controls."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    rest = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update((chr(0x100 + i), byte) for i, byte in enumerate(rest))
    return alphabet


_ALPHABET = _byte_alphabet()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def bytes_of(text: str, kind: str) -> bytes:
    """Return the bytes that a token of the vocabulary stands for; ``kind`` as ``decoder_kind``."""
    if kind == "byte_level":
        if all(char in _ALPHABET for char in text):
            return bytes(_ALPHABET[char] for char in text)
        return text.encode()
    if match := _BYTE_TOKEN.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace("\u2581", " ").encode()
