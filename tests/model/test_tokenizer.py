"""Tokenizers: no special tokens from ordinary text, no half characters, files and pickles."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, processors

from agentcli.errors import CheckpointError, ModelError
from agentcli.model.tokenizer import (
    NANOCHAT_SPECIAL,
    HfTokenizer,
    TiktokenTokenizer,
    Tokenizer,
    load_tokenizer,
)
from tests.model.families import save_tokenizer

PATTERN = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""  # noqa: E501
RANKS = {bytes([i]): i for i in range(256)} | {
    data: 256 + i for i, data in enumerate([b"he", b"ll", b"hell", b"hello", b" w", b"\xc3\xa4"])
}


def nanochat() -> TiktokenTokenizer:
    return TiktokenTokenizer.nanochat(RANKS, PATTERN)


def byte_level(folder: Path) -> HfTokenizer:
    save_tokenizer(folder)
    return HfTokenizer.load(folder)


def sentencepiece(**options: Any) -> HfTokenizer:
    """As in Llama 2 and Mistral: spaces as U+2581, and bytes without a token as <0xAB>."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{i:02X}>": 3 + i for i in range(256)}
    for piece in ("\u2581", "h", "e", "l", "o", "he", "ll", "\u2581h", "\u2581hello", "hello"):
        vocab[piece] = len(vocab)
    merges = [("h", "e"), ("l", "l"), ("\u2581", "h")]
    core = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return HfTokenizer(json.loads(core.to_str()), {"bos_token": "<s>", **options})


def gemma() -> HfTokenizer:
    """No space is added or stripped; runs of spaces and newlines are added tokens."""
    runs = ["\u2581\u2581", "\n\n"]
    vocab = {text: i for i, text in enumerate(["<pad>", "<eos>", "<bos>", *runs, "\u2581", "\n"])}
    vocab |= {f"<0x{i:02X}>": len(vocab) + i for i in range(256)}
    merges = [("\u2581", "\u2581"), ("\n", "\n")]
    core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "\u2581")
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    core.add_special_tokens(["<pad>", "<eos>", "<bos>"])
    core.add_tokens([tokenizers.AddedToken(run, normalized=False) for run in runs])
    return HfTokenizer(json.loads(core.to_str()), {"bos_token": "<bos>", "eos_token": "<eos>"})


@pytest.fixture(params=["nanochat", "byte_level", "sentencepiece", "gemma"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    if request.param == "nanochat":
        return nanochat()
    if request.param == "byte_level":
        return byte_level(tmp_path)
    return sentencepiece() if request.param == "sentencepiece" else gemma()


TEXTS = [
    "hello world",
    " two  spaces\n\n\ttabs",
    "Grüße, 你好, 🧑‍🚀 naïve",
    "code: if (a<b) { return 0; }",
    "<|bos|> <s> </s> <|assistant_end|> <pad> <unk>",
    "\ufffd is itself",
]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_without_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_stream_equals_decode_and_never_halves_a_character(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream()
    said = ""
    for token in tokenizer.encode(text):
        said += stream.push(token)
        assert text.startswith(said)
    assert said + stream.finish() == text


@settings(max_examples=200)
@given(st.text())
def test_any_text(text: str) -> None:
    tokenizer = nanochat()
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < len(RANKS)
    assert tokenizer.decode(ids) == text


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    """They stand for the stray bytes of files that are almost UTF-8."""
    for encode in (tokenizer.encode, tokenizer.encode_inner, tokenizer.encode_template):
        assert tokenizer.decode(encode("a\udcffb")) == "a\ufffdb"


def test_broken_bytes_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    first = tokenizer.encode("🧑")[:-1]
    stream = tokenizer.stream()
    text = "".join(stream.push(token) for token in first)
    assert text.strip() == ""
    assert stream.finish() == "\ufffd"


def test_templates_have_special_tokens() -> None:
    tokenizer = nanochat()
    ids = tokenizer.encode_template("<|user_start|>hello<|user_end|>")
    assert ids[0] == tokenizer.special_id("<|user_start|>")
    assert ids[-1] == tokenizer.special_id("<|user_end|>")
    assert tokenizer.decode(ids, skip_special=True) == "hello"
    assert tokenizer.decode(ids) == "<|user_start|>hello<|user_end|>"
    with pytest.raises(ModelError, match="no special token"):
        tokenizer.special_id("<|none|>")


def test_nanochat_numbers_its_special_tokens_after_the_merges() -> None:
    tokenizer = nanochat()
    assert [tokenizer.special[name] for name in NANOCHAT_SPECIAL] == list(range(262, 271))
    assert tokenizer.vocab_size == 271
    assert tokenizer.prompt_prefix == (262,) and tokenizer.bos_id == 262
    assert tokenizer.eos_id == tokenizer.special_id("<|assistant_end|>")


@pytest.mark.parametrize("mark", ["<tool_call>", "<|fim_prefix|>", "<\uff5cUser\uff5c>"])
def test_control_tokens_not_marked_special(tmp_path: Path, mark: str) -> None:
    """Qwen's and DeepSeek's files do not mark these, but text must not produce them."""
    save_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    data = json.loads(file.read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"].append({"id": 264, "content": mark, "special": False, **plain})
    file.write_text(json.dumps(data))
    tokenizer = load_tokenizer(tmp_path)
    assert 264 not in tokenizer.encode(f"a {mark} b")
    assert 264 in tokenizer.encode_template(f"a {mark} b")
    assert tokenizer.special_id(mark) == 264


def test_prefix_and_spaces_of_sentencepiece() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.prompt_prefix == (1,)
    assert sentencepiece(add_bos_token=False).prompt_prefix == ()
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"
    rest = tokenizer.stream(inner=True)
    assert "".join(map(rest.push, tokenizer.encode("hello"))) == " hello"


def test_decode_equals_the_library(tmp_path: Path) -> None:
    for ours in (byte_level(tmp_path), sentencepiece(), gemma()):
        for text in TEXTS:
            ids = ours.encode(text)
            assert ours.decode(ids) == ours._template.decode(ids, skip_special_tokens=False)


def test_files_round_trip(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    tokenizer.save(folder)
    again = load_tokenizer(folder)
    text = "hello wörld"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.special == tokenizer.special
    assert (again.bos_id, again.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert again.prompt_prefix == tokenizer.prompt_prefix


def make_pickle(folder: Path) -> Path:
    """Save a pickle as nanochat does."""
    special = {name: len(RANKS) + i for i, name in enumerate(NANOCHAT_SPECIAL)}
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=special
    )
    path = folder / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(encoding))
    return path


def test_nanochat_pickle(tmp_path: Path) -> None:
    make_pickle(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("hello wä") == nanochat().encode("hello wä")
    assert tokenizer.special == nanochat().special and tokenizer.eos_id == 266


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(CheckpointError, match=r"wants to load posix\.mkdir: refused"):
        load_tokenizer(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({"a": 1}), pickle.dumps([1])])
def test_damaged_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.pkl"):
        load_tokenizer(tmp_path)


def test_truncated_pickle(tmp_path: Path) -> None:
    path = make_pickle(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_tokenizer(tmp_path)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
