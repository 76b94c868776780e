"""Packs the corpus for the training machine: as compressed text, which is tokenised there.

    python -m training.pack pack --cache DIR --data training/data      # the best 250 MB of text
    python -m training.pack pack --cache DIR --data training/data2 --part 2        # the next 250
    python -m training.pack tokens --data training/data --out DIR      # where it is trained on

Text compresses better than its tokens (about 6:1 against 4:1), and the vocabulary may still change.
Part 2 holds what did not fit into part 1, for a second sitting. ``tokens`` writes ``code.npy`` and
``held.npy``: uint16, each document after a ``<|bos|>``, in random order.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from training.tokenizer import load

SEPARATOR = "\0"  # no Python source holds one
PIECES = 16
HELD_BYTES = 2_000_000
# The standard library is the best part of the corpus, so its share may be larger.
STDLIB_SHARE = 5
# Text rather than binary data: four literal context bits, no position bits; window 64 MiB.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26, "lc": 4, "lp": 0, "pb": 0}]


def read_packages(path: Path) -> dict[str, list[str]]:
    """The texts by package, in the order of the file."""
    packages: dict[str, list[str]] = defaultdict(list)
    with path.open() as lines:
        for line in lines:
            record = json.loads(line)
            # A file's path tells the model what the file may be about.
            packages[record["package"]].append(f"# {record['path']}\n{record['text']}")
    return packages


def part_of(packages: dict[str, list[str]], total: int, part: int) -> dict[str, list[str]]:
    """Part 1 is as much of each package as fits into ``total``, part 2 of what is left, ..."""
    for _ in range(part - 1):
        taken = {name: set(texts) for name, texts in limited(packages, total).items()}
        packages = {
            name: [text for text in texts if text not in taken[name]]
            for name, texts in packages.items()
        }
    return limited(packages, total)


def limited(packages: dict[str, list[str]], total: int) -> dict[str, list[str]]:
    """At most ``total`` characters in all, by applying the same limit to each package."""
    low, high = 0, 1 << 30
    while high - low > 1000:
        limit = (low + high) // 2
        size = sum(len(text) for texts in _cut(packages, limit).values() for text in texts)
        low, high = (limit, high) if size <= total else (low, limit)
    return _cut(packages, low)


def _cut(packages: dict[str, list[str]], limit: int) -> dict[str, list[str]]:
    kept: dict[str, list[str]] = {}
    for name, texts in packages.items():
        left = limit * (STDLIB_SHARE if name == "python" else 1)
        kept[name] = []
        for text in texts:
            left -= len(text)
            if left >= 0:
                kept[name].append(text)
    return kept


def pack(cache: Path, data: Path, megabytes: float, part: int) -> None:
    data.mkdir(parents=True, exist_ok=True)
    packages = part_of(read_packages(cache / "train.jsonl"), int(megabytes * 1e6), part)
    held = limited(read_packages(cache / "held.jsonl"), HELD_BYTES)
    # Files of a package stay together, as they resemble each other; piece sizes are balanced.
    pieces: list[list[str]] = [[] for _ in range(PIECES)]
    sizes = [0] * PIECES
    for texts in sorted(packages.values(), key=lambda texts: -sum(map(len, texts))):
        smallest = sizes.index(min(sizes))
        pieces[smallest] += sorted(texts)
        sizes[smallest] += sum(map(len, texts))
    jobs = [(data / f"code-{i:02}.xz", texts) for i, texts in enumerate(pieces)]
    jobs.append((data / "held.xz", [text for texts in held.values() for text in texts]))
    with ProcessPoolExecutor(max_workers=2) as pool:
        written = list(pool.map(_compress, jobs))
    print(f"{sum(sizes) / 1e6:.1f} MB of text in {sum(written) / 2**20:.1f} MiB")


def _compress(job: tuple[Path, Sequence[str]]) -> int:
    path, texts = job
    data = SEPARATOR.join(texts).encode()
    path.write_bytes(lzma.compress(data, format=lzma.FORMAT_XZ, filters=FILTERS))
    return path.stat().st_size


def tokens(data: Path, out: Path, seed: int = 1) -> None:
    """Decompress and tokenise with all cores; takes a few seconds on sixteen."""
    out.mkdir(parents=True, exist_ok=True)
    for name, pattern in (("code", "code-*.xz"), ("held", "held.xz")):
        paths = sorted(data.glob(pattern))
        with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
            documents = [ids for piece in pool.map(_tokenise, paths) for ids in piece]
        random.Random(seed).shuffle(documents)
        joined = np.concatenate(documents)
        np.save(out / f"{name}.npy", joined)
        print(f"{name}: {len(documents)} documents, {len(joined)} tokens")


def _tokenise(path: Path) -> list[np.ndarray[tuple[int], np.dtype[np.uint16]]]:
    tokenizer = load()
    bos = tokenizer.special_id("<|bos|>")
    texts = lzma.decompress(path.read_bytes()).decode().split(SEPARATOR)
    return [np.array([bos, *tokenizer.encode(text)], dtype=np.uint16) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["pack", "tokens"])
    parser.add_argument("--data", type=Path, required=True, help="ignored by git: others' code")
    parser.add_argument("--cache", type=Path, help="of corpus.py")
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--megabytes", type=float, default=250, help="of text to pack")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.command == "pack" and args.cache:
        pack(args.cache, args.data, args.megabytes, args.part)
    elif args.command == "tokens" and args.out:
        tokens(args.data, args.out)
    else:
        parser.error("pack needs --cache, tokens needs --out")


if __name__ == "__main__":
    main()
