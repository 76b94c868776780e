"""Trains the embedded model's vocabulary: byte-level BPE for code as a terminal agent sees it.

    python -m training.tokenizer train --corpus train.jsonl    # writes agentcli/embedded/
    python -m training.tokenizer measure --corpus held.jsonl   # bytes per token

A small model edits by copying, and copies best if the same code has the same tokens everywhere: in
a file (``\\n`` and ``"``), in a numbered listing (``12\\t    code``) and in the JSON of a call
(``\\\\n`` and ``\\"``). So the pattern keeps line ends, quotes and their escaped forms as separate
units, one for one, and joins neither them nor punctuation with the name that follows.

Files: ``tokenizer.tiktoken`` (base64 token and rank per line, in tiktoken's format) and
``tokenizer_config.json`` (pattern and special tokens), as read by ``agentcli.model.tokenizer``.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tokenizers

from agentcli.llm.nanochat_format import SPECIAL_TOKENS
from agentcli.model.tokenizer import TiktokenTokenizer
from training.tool_text import tool_texts

HOME = Path(__file__).parent.parent / "agentcli" / "embedded"
VOCAB_SIZE = 8192
# Unused ids, so that a later vocabulary can assign them without moving any other.
RESERVED = 19
TOOL_ROUNDS = 6  # each makes tool output from a third of the files
MERGED = VOCAB_SIZE - len(SPECIAL_TOKENS) - RESERVED  # 256 bytes and the merges

UNITS = [
    r' ?(?:\\")+',  # quotes in JSON ...
    r"\\+[nrtbdsw]?",  # ... and escapes, one token for the one of the raw text
    r' ?"+',
    r" ?[\p{L}_]+",  # a name, with its underscores
    r"\p{N}{1,2}",
    r' ?[^\s\p{L}\p{N}_"\\]+',
    r"\n",
    r"\t+",
    r" +",  # indentation, whole
    r"\s",
]
PATTERN = "|".join(UNITS)


def train(texts: Iterator[str]) -> dict[bytes, int]:
    """Train the vocabulary: token bytes → rank (which is the id), the 256 single bytes first."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=MERGED, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    model.train_from_iterator(texts, trainer)
    to_byte = {char: byte for byte, char in _byte_chars().items()}
    vocab = sorted(model.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(to_byte[char] for char in token) for token, _ in vocab]
    single = [bytes([value]) for value in range(256)]
    ranks = single + [token for token in merged if len(token) > 1]
    if len(set(ranks)) != MERGED:
        raise ValueError(f"{len(set(ranks))} tokens instead of {MERGED}: too little text")
    return {token: rank for rank, token in enumerate(ranks)}


def _byte_chars() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, as used by the tokenizers library."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    return table | {byte: chr(256 + i) for i, byte in enumerate(others)}


def save(ranks: dict[bytes, int], folder: Path) -> None:
    names = [*SPECIAL_TOKENS, *(f"<|reserved_{i}|>" for i in range(RESERVED))]
    special = {name: len(ranks) + i for i, name in enumerate(names)}
    tokenizer = TiktokenTokenizer(ranks, PATTERN, special, bos="<|bos|>", eos="<|assistant_end|>")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)


def load(folder: Path = HOME) -> TiktokenTokenizer:
    return TiktokenTokenizer.load(folder)


def read_texts(corpus: Path, limit: int, seed: int = 1) -> list[str]:
    """Read about ``limit`` bytes of documents, at most a fiftieth of them from one package."""
    taken: Counter[str] = Counter()
    texts = []
    with corpus.open() as file:
        lines = file.readlines()
    random.Random(seed).shuffle(lines)
    for line in lines:
        record = json.loads(line)
        if taken[record["package"]] < limit // 50 and taken.total() < limit:
            taken[record["package"]] += len(record["text"])
            texts.append(record["text"])
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["train", "measure"])
    parser.add_argument("--corpus", type=Path, required=True, help="a .jsonl of corpus.py")
    parser.add_argument("--out", type=Path, default=HOME)
    parser.add_argument("--bytes", type=int, default=40_000_000, help="of code to learn from")
    args = parser.parse_args()
    texts = read_texts(args.corpus, args.bytes)
    if args.command == "train":
        # A small share is enough to learn the shapes; their names come from the code.
        shapes = [text for seed in range(TOOL_ROUNDS) for text in tool_texts(texts, seed=seed)]
        save(train(iter(texts + shapes)), args.out)
    tokenizer = load(args.out)
    for kind, sample in (("code", texts[:2000]), ("tools", list(tool_texts(texts[:2000], seed=2)))):
        size = sum(len(text.encode()) for text in sample)
        tokens = sum(len(tokenizer.encode(text)) for text in sample)
        print(f"{kind}: {size / tokens:.3f} bytes/token over {size} bytes")


if __name__ == "__main__":
    main()
