"""Finds small repairs that people made, by comparing consecutive releases of packages.

    python -m training.releases fetch --cache DIR [--packages N]    # with pip; goes on if stopped
    python -m training.releases build --cache DIR --out training/data/fixes.xz

A repair has a few lines in one function that is otherwise unchanged, no other change near it, and
an effect on what the code does. It becomes a JSON line with an excerpt of the newer file (imports
and whole definitions) and the same excerpt in which only this change is undone. Packages that are
held out, or whose own metadata names no accepted licence, are left out; ``fixes.tsv`` beside the
output says what was used.
"""

from __future__ import annotations

import argparse
import difflib
import json
import lzma
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from training.clean import Seen, clean, shingles
from training.corpus import HERE, MAX_SEEN_HELD, read_archive, read_packages
from training.edits import Text, is_redesign, is_repair, knowable, substitution
from training.excerpt import excerpt, undone
from training.licences import licence_of

RELEASES, MAX_WHEEL = 14, 1_500_000  # of one package; bytes
MAX_REPEATED = 2  # the same substitution in one release; more is a rename
APART = 6  # lines between two changes of a file
TESTS = re.compile(
    r"(^|/)(tests?|testing|docs?|examples?|benchmarks?|thirdparty\w*|_click)/"
    r"|(^|/)(test_\w*|\w+_tests?|conftest|setup|_*compat\w*|six)\.py$"
)
WORD = re.compile(r"[A-Za-z_]\w*")
FINAL = re.compile(r"\d+(\.\d+)*(\.post\d+)?")
PIP = ["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
PIP += ["--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.11"]


@dataclass(frozen=True)
class Change:
    """``old`` lines were replaced by ``new`` ones, which start after ``start`` lines."""

    path: str
    start: int
    old: Text
    new: Text


@dataclass(frozen=True, order=True)
class Fix:
    package: str
    path: str
    version: str  # the newer one
    before: str
    after: str


@dataclass
class Found:
    """What one package gave."""

    package: str
    licence: str = ""
    versions: str = ""
    fixes: list[Fix] = field(default_factory=list)


def fetch(package: str, cache: Path) -> None:
    """Download the newest releases, each time asking pip for one older than the last."""
    folder = cache / "wheels" / package
    folder.mkdir(parents=True, exist_ok=True)
    known = _versions(folder)
    wanted = f"{package}<{known[0]}" if known else package
    for _ in range(RELEASES - len(known)):
        with tempfile.TemporaryDirectory(dir=cache) as temp:
            command = [sys.executable, *PIP, "-d", temp, wanted]
            subprocess.run(command, check=False, capture_output=True, timeout=240)
            wheel = next(Path(temp).glob("*.whl"), None)
            if wheel is None:
                return
            version = wheel.name.split("-")[1]
            wanted = f"{package}<{version}"
            if wheel.stat().st_size <= MAX_WHEEL:
                wheel.rename(folder / f"{version}.whl")


def _versions(folder: Path) -> list[str]:
    names = [_version(path) for path in folder.iterdir() if path.suffix in (".whl", ".gz")]
    return sorted({name for name in names if FINAL.fullmatch(name)}, key=_order)


def _version(path: Path) -> str:
    return path.name.removesuffix(".whl").removesuffix(".tar.gz")


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _successive(old: str, new: str) -> bool:
    """Whether the major version is the same, or the next where it is a year."""
    was, now = _order(old)[0], _order(new)[0]
    return was == now or (now >= 20 and now == was + 1)


def _read(folder: Path, version: str) -> tuple[str, dict[str, str]]:
    """The metadata and the Python files of a wheel, or of an sdist that was put beside them."""
    wheel = folder / f"{version}.whl"
    metadata, pairs = read_archive(wheel if wheel.exists() else folder / f"{version}.tar.gz")
    files = {path.removeprefix("src/").removeprefix("lib/"): data for path, data in pairs}
    kept = {path: data for path, data in files.items() if not TESTS.search(path)}
    return metadata, {path: data.decode("utf-8", "replace") for path, data in kept.items()}


def changes(path: str, old: str, new: str) -> list[Change]:
    """The changed lines of a file."""
    was = [line.rstrip() for line in old.split("\n")]
    now = [line.rstrip() for line in new.split("\n")]
    matcher = difflib.SequenceMatcher(None, was, now)
    return [
        Change(path, c, tuple(was[a:b]), tuple(now[c:d]))
        for kind, a, b, c, d in matcher.get_opcodes()
        if kind != "equal"
    ]


def _small(change: Change) -> bool:
    if not change.old or not change.new:
        return len(change.old) + len(change.new) <= 2
    return len(change.old) <= 3 and len(change.new) <= 4


def _near(change: Change, other: Change) -> bool:
    first, second = sorted((change, other), key=lambda c: c.start)
    return change is not other and second.start - first.start - len(first.new) < APART


def compare(
    package: str, version: str, old: dict[str, str], new: dict[str, str], held: Seen | None = None
) -> Iterator[Fix]:
    """Yield the repairs between two versions of a package's files."""
    shared = sorted(path for path in old.keys() & new.keys() if old[path] != new[path])
    files = {path: changes(path, old[path], new[path]) for path in shared}
    repeated = Counter(
        substitution(_stripped(c.old), _stripped(c.new)) for some in files.values() for c in some
    )
    was, now = _words(old), _words(new)
    for path, some in files.items():
        likely = [change for change in some if _small(change)]
        if not likely or clean(path, new[path].encode()) is None:
            continue
        for change in likely:
            lines = _stripped(change.old), _stripped(change.new)
            edit = substitution(*lines)
            if repeated[edit] > MAX_REPEATED or not is_repair(*lines):
                continue
            if is_redesign(*edit, was, now):
                continue
            others = [other for other in some if other is not change]
            if any(_near(change, other) for other in others):
                continue
            pair = _pair(new[path], change, [other.start for other in others])
            if pair is None or not knowable(*pair, *edit):
                continue
            if held is None or held.share(shingles(pair[1])) <= MAX_SEEN_HELD:
                yield Fix(package, path, version, *pair)


def _words(files: dict[str, str]) -> set[str]:
    return {word for text in files.values() for word in WORD.findall(text)}


def _stripped(lines: Text) -> Text:
    return tuple(line.strip() for line in lines)


def _pair(text: str, change: Change, others: list[int]) -> tuple[str, str] | None:
    lines = [line.rstrip() for line in text.split("\n")]
    start, end = change.start, change.start + len(change.new)
    numbers = excerpt(lines, start, end, zlib.crc32(f"{change.path}:{start}".encode()), others)
    return None if numbers is None else undone(lines, numbers, start, end, change.old)


def fixes(package: str, cache: Path, held: Path | None = None) -> Found:
    """All repairs in the releases of one package, if it may be trained on."""
    found = Found(package)
    folder = cache / "wheels" / package
    seen: set[tuple[str, str]] = set()
    last: dict[str, str] = {}
    used: list[str] = []
    for version in _versions(folder):
        metadata, files = _read(folder, version)
        licence, allowed = licence_of(package, metadata)
        if not allowed:
            last = {}
            continue
        found.licence = licence
        used.append(version)
        if len(used) > 1 and not _successive(used[-2], version):
            last = {}
        for fix in compare(package, version, last, files, _held(held)):
            edit = _edit(fix)
            if edit not in seen:
                seen.add(edit)
                found.fixes.append(fix)
        last = files
    found.versions = f"{used[0]} - {used[-1]}" if used else ""
    return found


def _edit(fix: Fix) -> tuple[str, str]:
    """What was changed, wherever it is: a release branch repeats the repairs of another."""
    rows = changes(fix.path, fix.before, fix.after)
    return "\n".join(line for c in rows for line in c.old), "\n".join(
        line for c in rows for line in c.new
    )


@lru_cache(maxsize=1)
def _held(path: Path | None) -> Seen | None:
    if path is None:
        return None
    held = Seen()
    for line in path.read_text().splitlines():
        held.add(shingles(json.loads(line)["text"]))
    return held


def distinct(found: list[Fix]) -> list[Fix]:
    """Without repetitions, and without changes that were made both ways."""
    before = {fix.before for fix in found}
    after = {fix.after for fix in found}
    seen: set[str] = set()
    kept = []
    for fix in sorted(found):
        if fix.before not in after and fix.after not in before and fix.before not in seen:
            seen.add(fix.before)
            kept.append(fix)
    return kept


def build(cache: Path, out: Path, held: Path | None) -> None:
    names = sorted(name for name in _allowed() if (cache / "wheels" / name).is_dir())
    with ProcessPoolExecutor(max_workers=2) as pool:
        count = len(names)
        results = []
        for found in pool.map(fixes, names, [cache] * count, [held] * count):
            print(found.package, found.versions, len(found.fixes), file=sys.stderr, flush=True)
            results.append(found)
    kept = distinct([fix for found in results for fix in found.fixes])
    out.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(fix)) + "\n" for fix in kept)
    out.write_bytes(lzma.compress(text.encode()))
    counts = Counter(fix.package for fix in kept)
    lines = ["package\tversions\tlicence\trecords"]
    for found in results:
        if found.versions:
            row = (found.package, found.versions, found.licence, str(counts[found.package]))
            lines.append("\t".join(row))
    out.with_suffix(".tsv").write_text("\n".join(lines) + "\n")
    print(f"{len(kept)} repairs of {len(counts)} packages")


def _allowed() -> list[str]:
    """The packages that are not held out and that pip can download."""
    return [p.name for p in read_packages() if not p.held and p.form not in ("stdlib", "installed")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["fetch", "build"])
    parser.add_argument("--cache", type=Path, required=True, help="outside the repository")
    parser.add_argument("--packages", type=int, default=20, help="how many to fetch")
    parser.add_argument("--held", type=Path, help="held.jsonl of corpus.py: leave out its copies")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "fixes.xz")
    args = parser.parse_args()
    if args.command == "build":
        build(args.cache, args.out, args.held)
        return
    names = _allowed()[: args.packages]
    args.cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(fetch, names, [args.cache] * len(names)))


if __name__ == "__main__":
    main()
