"""Builds the Python corpus: fetch packages, check licences, clean, drop duplicates, hold out.

    python -m training.corpus fetch --cache DIR     # with pip, which must reach a package index
    python -m training.corpus build --cache DIR     # writes DIR/{train,held}.jsonl, sources.tsv

Only the list of packages (packages.txt) and the table of what was used belong in the repository
(sources.tsv: name, version, licence, part, files, bytes, or why it was refused).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from training.clean import Seen, clean, shingles
from training.licences import licence_of

HERE = Path(__file__).parent
# Copies from held-out code are refused more strictly than copies within the training part.
MAX_SEEN, MAX_SEEN_HELD = 0.5, 0.15
# Bytes of text kept from one package, so that no package dominates the style.
MAX_PACKAGE_BYTES = 14_000_000
# Standard-library modules that are held out in addition to packages.
HELD_STDLIB = {"statistics", "textwrap", "shlex", "fractions", "heapq", "difflib", "graphlib"}


@dataclass(frozen=True)
class Package:
    name: str
    form: str  # sdist | wheel | installed | stdlib
    held: bool = False


@dataclass
class Source:
    """One package as found: what it is, and its cleaned files (path, text)."""

    package: Package
    version: str = ""
    licence: str = ""
    refused: str = ""
    files: list[tuple[str, str]] = field(default_factory=list)


def read_packages(path: Path = HERE / "packages.txt") -> list[Package]:
    packages = [Package("python", "stdlib")]
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, form, *rest = line.split()
            packages.append(Package(name, form, rest == ["held"]))
    return packages


def fetch(package: Package, cache: Path) -> bool:
    """Download a package's sdist or else its wheel; return False if neither is available."""
    folder = cache / "dl" / package.name
    if package.form in ("stdlib", "installed") or any(folder.glob("*")):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    binary = [*pip, "--only-binary", ":all:", package.name]
    # Without isolation, pip does not install a build system just to read a name and a version.
    source = [*pip, "--no-build-isolation", "--no-binary", ":all:", package.name]
    commands = [source, binary] if package.form == "sdist" else [binary]
    return any(_succeeds(command) for command in commands)


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=240)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def load(package: Package, cache: Path) -> Source:
    """Read, check and clean one package."""
    source = Source(package)
    if package.form == "stdlib":
        source.version, source.licence = sys.version.split()[0], "PSF-2.0"
        pairs = _folder(Path(sysconfig.get_paths()["stdlib"]))
    elif package.form == "installed":
        dist = importlib.metadata.distribution(package.name)
        metadata, pairs = dist.read_text("METADATA") or "", _installed(dist)
        _check(source, dist.version, metadata)
    else:
        archives = sorted((cache / "dl" / package.name).glob("*"))
        if not archives:
            source.refused = "not fetched"
            return source
        metadata, pairs = read_archive(archives[0])
        _check(source, _field(metadata, "Version"), metadata)
    if not source.refused:
        cleaned = ((path, clean(path, data)) for path, data in pairs)
        kept = [(path, text) for path, text in cleaned if text]
        # A random but fixed order, so that a limit keeps a sample, not just the first folders.
        source.files = sorted(kept, key=lambda file: zlib.crc32(file[0].encode()))
    return source


def _check(source: Source, version: str, metadata: str) -> None:
    source.version = version
    source.licence, allowed = licence_of(source.package.name, metadata)
    source.refused = "" if allowed else "licence"


def _field(metadata: str, name: str) -> str:
    lines = (line for line in metadata.splitlines() if line.startswith(f"{name}:"))
    return next(lines, ":").split(":", 1)[1].strip()


def read_archive(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    if path.suffix == ".whl":
        archive = zipfile.ZipFile(path)
        names = sorted(archive.namelist())
        meta = next(name for name in names if name.endswith(".dist-info/METADATA"))
        pairs = ((name, archive.read(name)) for name in names if name.endswith(".py"))
        return archive.read(meta).decode("utf-8", "replace"), pairs
    found: list[tuple[str, bytes]] = []
    metadata = ""
    with tarfile.open(path) as tar:  # read only: nothing is extracted to disk
        for member in tar:
            inner = member.name.partition("/")[2]
            if not member.isfile() or not (inner == "PKG-INFO" or inner.endswith(".py")):
                continue
            stream = tar.extractfile(member)
            data = stream.read() if stream else b""
            if inner == "PKG-INFO":
                metadata = data.decode("utf-8", "replace")
            else:
                found.append((inner, data))
    return metadata, iter(sorted(found))


def _folder(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root).as_posix(), path.read_bytes()


def _installed(dist: importlib.metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    for file in sorted(dist.files or [], key=str):
        if file.suffix == ".py":
            yield str(file), Path(str(file.locate())).read_bytes()


def build(cache: Path, table: Path) -> None:
    packages = sorted(read_packages(), key=lambda package: not package.held)  # held out first
    held, seen, rows = Seen(), Seen(), []
    with (
        ProcessPoolExecutor(max_workers=2) as pool,
        (cache / "train.jsonl").open("w") as train,
        (cache / "held.jsonl").open("w") as evaluation,
    ):
        for source in pool.map(load, packages, [cache] * len(packages)):
            kept = {True: 0, False: 0}
            for path, text in source.files:
                marks = shingles(text)
                is_held = source.package.held or _is_held_module(source.package, path)
                if seen.share(marks) > MAX_SEEN or kept[is_held] > MAX_PACKAGE_BYTES:
                    continue
                if not is_held and held.share(marks) > MAX_SEEN_HELD:
                    continue
                (held if is_held else seen).add(marks)
                kept[is_held] += len(text)
                record = {"package": source.package.name, "path": path, "text": text}
                (evaluation if is_held else train).write(json.dumps(record) + "\n")
            for part, size in (("held", kept[True]), ("train", kept[False])):
                if size or (source.refused and part == "train"):
                    p = source.package
                    reason = source.refused or part
                    rows.append((p.name, source.version, source.licence, reason, str(size)))
            print(rows[-1] if rows else source, file=sys.stderr, flush=True)
    lines = ["name\tversion\tlicence\tpart\tbytes"] + ["\t".join(row) for row in sorted(rows)]
    table.write_text("\n".join(lines) + "\n")


def _is_held_module(package: Package, path: str) -> bool:
    module = path.rpartition("/")[2].removesuffix(".py").removeprefix("test_").lstrip("_")
    return package.form == "stdlib" and module in HELD_STDLIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["fetch", "build"])
    parser.add_argument("--cache", type=Path, required=True, help="outside the repository")
    parser.add_argument("--table", type=Path, default=HERE / "sources.tsv")
    args = parser.parse_args()
    if args.command == "build":
        build(args.cache, args.table)
        return
    packages = read_packages()
    with ThreadPoolExecutor(max_workers=4) as pool:
        fetched = pool.map(fetch, packages, [args.cache] * len(packages))
        for package, found in zip(packages, fetched, strict=True):
            if not found:
                print(f"{package.name}: cannot be fetched", file=sys.stderr)


if __name__ == "__main__":
    main()
