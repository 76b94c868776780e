"""Collects real functions with recorded behaviour: the raw material of generated projects.

    python -m training.functions --corpus train.jsonl --out training/data/functions.xz

It takes module-level functions of permissively licensed packages that need only builtins, a few
pure modules of the standard library and each other. It calls them with guessed inputs in a process
with limits, and keeps those whose results are plain, reproducible values that vary with the input.

There is one record per line: ``{"package", "name", "source", "imports", "needs", "calls",
"raises"}``. ``needs`` are the sources of helpers and constants that precede the function; ``calls``
are pairs of argument text and result text; ``raises`` are pairs of argument text and exception
name.
"""

from __future__ import annotations

import argparse
import ast
import copy
import io
import json
import lzma
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from training.candidates import Candidate, candidates

MAX_TEXT = 90  # characters of one argument list or result


WANTED_CALLS = 7


BATCH_SECONDS = 120


POOLS: dict[str, list[object]] = {
    "int": [0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 25, 42, 60, 100, 255, 365, 1000, 1234, -1, -3],
    "float": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.25, 10.0, 99.9, -1.0, 0.1],
    "bool": [True, False],
    "str": [
        "hello",
        "Hello World",
        "a",
        "",
        "abc",
        "foo_bar",
        "fooBar",
        "foo-bar",
        "a,b,c",
        "1.2.3",
        "key=value",
        "  padded  ",
        "12",
        "3.5",
        "path/to/file.txt",
        "/usr/lib",
        "user@example.com",
        "http://example.com/a?b=1",
        "one two three",
        "UPPER",
        "line1\nline2",
        "x",
        "2024-01-15",
        "10:30",
        "racecar",
        "#ff8800",
        "a-b_c d",
        "100%",
        "[1, 2]",
        "true",
        "None",
        "test.py",
    ],
    "list_int": [
        [1, 2, 3],
        [3, 1, 2],
        [],
        [5],
        [1, 1, 2],
        [10, 20, 30, 40],
        [0, -1, 4],
        [2, 4, 6, 8],
    ],
    "list_str": [
        ["a", "b", "c"],
        ["foo", "bar"],
        [],
        ["x"],
        ["b", "a", "b"],
        ["one", "two", "three"],
    ],
    "list_float": [[1.0, 2.0, 3.0], [0.5, 1.5], [2.5]],
    "list_pair": [[(1, 2), (3, 4)], [("a", 1), ("b", 2)], [(0, 5), (3, 8), (10, 12)]],
    "list_list": [[[1, 2], [3, 4]], [[1], [2, 3]], [[1, 2, 3], [4, 5, 6]], []],
    "tuple": [(1, 2), (3, 4, 5), (0, 0), (2, 3), (255, 128, 0), ("a", "b")],
    "dict": [{"a": 1, "b": 2}, {}, {"x": "y"}, {"a": {"b": 1}}, {"name": "Ann", "age": 3}],
    "dict_list": [{"a": ["b"], "b": []}, {"a": ["b", "c"], "b": ["c"], "c": []}],
    "set": [{1, 2}, {2, 3}, {"a"}],
    "bytes": [b"abc", b"", b"\x00\x01", b"hello"],
    "none": [None],
}


ANNOTATIONS = {
    "int": ["int"],
    "float": ["float", "int"],
    "bool": ["bool"],
    "str": ["str"],
    "bytes": ["bytes"],
    "dict": ["dict", "dict_list"],
    "Dict": ["dict"],
    "Mapping": ["dict"],
    "set": ["set"],
    "tuple": ["tuple"],
    "Tuple": ["tuple"],
    "list": ["list_int", "list_str"],
    "List": ["list_int", "list_str"],
    "Sequence": ["list_int", "list_str"],
    "Iterable": ["list_int", "list_str"],
    "list[str]": ["list_str"],
    "List[str]": ["list_str"],
    "list[int]": ["list_int"],
    "list[float]": ["list_float"],
    "Iterable[str]": ["list_str"],
}


NAMES = {
    "str": "s text string name line word path key url value filename prefix suffix char c ch"
    " token title msg message label pattern sep delimiter expr src source"
    " raw data content code tag date",
    "int": "n i j k m x y count size index num number width height length start end stop step"
    " limit offset depth level min max a b base year month day hour minute second"
    " bits total page seconds",
    "list_int": "values items lst seq data xs numbers nums arr array sequence iterable elements l"
    " it samples shape list1 list2 series scores",
    "list_str": "words lines names parts args keys tokens strings paths columns fields labels argv",
    "float": "alpha beta t ratio rate value x y z radius angle lat lon r g p q",
    "dict": "d mapping options config params kwargs settings obj headers metadata data attrs env",
    "list_pair": "pairs intervals points ranges edges spans",
    "list_list": "matrix grid rows table board lists nested",
    "tuple": "point color rgb size pos version interval pair shape",
    "dict_list": "graph deps dependencies tree adjacency",
    "bool": "flag strict reverse verbose force inclusive",
}  # fmt: skip


HINTS: dict[str, list[str]] = {}


for _kind, _names in NAMES.items():
    for _name in _names.split():
        HINTS.setdefault(_name, []).append(_kind)


class _TimeUp(BaseException):
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise _TimeUp


def record(candidate: Candidate, rng: random.Random) -> dict[str, Any] | None:
    """Call a candidate and record its behaviour; None if that is not usable."""
    scope: dict[str, Any] = {"__name__": "module"}
    text = "\n".join(["from __future__ import annotations", *candidate.imports, *candidate.needs])
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        exec(compile(f"{text}\n{candidate.source}\n", "<candidate>", "exec"), scope)
        return _record(candidate, scope[candidate.name], rng)
    except (Exception, _TimeUp):
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _record(candidate: Candidate, function: Any, rng: random.Random) -> dict[str, Any] | None:
    arguments = candidate.node.args
    names = arguments.args
    required = len(names) - len(arguments.defaults)
    pools = [_pools(argument, candidate.node) for argument in names]
    calls: dict[str, str] = {}
    raises: dict[str, str] = {}
    good: list[tuple[str, ...]] = []  # kinds of arguments that worked
    for attempt in range(120):
        if len(calls) >= WANTED_CALLS:
            break
        if attempt == 60 and not calls:
            return None
        count = required if rng.random() < 0.6 else rng.randint(required, len(names))
        if good and rng.random() < 0.7:
            kinds = rng.choice(good)
        else:
            kinds = tuple(rng.choice(pool) for pool in pools[: max(1, count)])
        values = [_vary(rng, rng.choice(POOLS[kind])) for kind in kinds]
        text = ", ".join(map(repr, values))
        if len(text) > MAX_TEXT or text in calls:
            continue
        try:
            result = function(*copy.deepcopy(values))
        except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            if isinstance(error, ValueError) and len(raises) < 2 and good:
                raises[text] = type(error).__name__
            continue
        shown = _plain(result)
        if shown is None or _plain(function(*copy.deepcopy(values))) != shown:
            continue
        calls[text] = shown
        good.append(kinds)
    results = list(calls.values())
    if len(calls) < 3 or len(set(results)) < 2:
        return None
    if len(set(results)) < 3 and not set(results) <= {"True", "False"}:
        return None
    return {
        "name": candidate.name,
        "source": candidate.source,
        "imports": candidate.imports,
        "needs": candidate.needs,
        "calls": list(calls.items()),
        "raises": [item for item in raises.items() if item[0] not in calls],
    }


def _pools(argument: ast.arg, node: ast.FunctionDef) -> list[str]:
    if argument.annotation is not None:
        text = ast.unparse(argument.annotation)
        for key in (text, text.split("[")[0], text.split("|")[0].strip(), text.split(".")[-1]):
            if key in ANNOTATIONS:
                return ANNOTATIONS[key]
    kinds = list(HINTS.get(argument.arg, ()))
    for n in ast.walk(node):
        if (
            isinstance(n, ast.Attribute)
            and isinstance(n.value, ast.Name)
            and n.value.id == argument.arg
        ):
            for kind, methods in (
                (
                    "str",
                    "split strip lower upper startswith endswith replace find join encode isdigit",
                ),
                ("dict", "items keys values get update"),
                ("list_int", "append extend sort pop index count"),
                ("set", "union intersection"),
            ):
                if n.attr in methods.split():
                    return [kind]
    name = argument.arg
    if name.endswith("s") and name[:-1] in HINTS:
        kinds += ["list_str", "list_int"]
    for part in name.split("_"):
        kinds += HINTS.get(part, [])
    return kinds or ["int", "str", "list_int", "list_str", "float", "dict", "tuple", "list_list"]


def _vary(rng: random.Random, value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.randint(0, 50)
    if isinstance(value, list) and value and isinstance(value[0], int) and rng.random() < 0.5:
        return [rng.randint(0, 20) for _ in range(rng.randint(1, 6))]
    return value


def _plain(value: object) -> str | None:
    """The text of a value that a test can compare with; None for anything else."""
    if value is None or (isinstance(value, str | bytes) and not value):
        return "None" if value is None else repr(value)
    if isinstance(value, float) and value != value:
        return None
    text = repr(value)
    if len(text) > MAX_TEXT or "\\x" in text or "\\u" in text:
        return None
    try:
        same = ast.literal_eval(text) == value and type(ast.literal_eval(text)) is type(value)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return None
    return text if same else None


def mine_aside(records: list[dict[str, str]], seed: int, timeout: float) -> list[dict[str, Any]]:
    """Run ``mine`` in a forked child, which may hang or crash without harm."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            found = mine(records, seed)
            with os.fdopen(writer, "w") as file:
                json.dump(found, file)
        finally:
            os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + timeout
    text = b""
    with os.fdopen(reader, "rb", buffering=0) as file:
        while (left := deadline - time.monotonic()) > 0 and select.select([file], [], [], left)[0]:
            piece = file.read(1 << 16)
            if not piece:
                break
            text += piece
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        found = json.loads(text)
    except ValueError:
        return []
    # Strings always have the same hashes in this process; elsewhere the order of sets differs.
    return [item for item in found if "set(" not in item["source"] or "sorted(" in item["source"]]


def mine(records: list[dict[str, str]], seed: int) -> list[dict[str, Any]]:
    """All usable functions of some files. It must run in its own process, as it sets limits."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    sys.stdout = sys.stderr = io.StringIO()
    signal.signal(signal.SIGALRM, _stop)
    sys.setrecursionlimit(400)
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for entry in records:
        try:
            for candidate in candidates(entry["text"]):
                result = record(candidate, rng)
                if result is not None:
                    found.append({"package": entry["package"], **result})
        except (SyntaxError, RecursionError, MemoryError, _TimeUp):
            continue
    return found


def _mine_all(
    batches: list[list[dict[str, str]]], folder: Path, workers: int, deadline: float
) -> None:
    """Run each batch in its own process, which is killed if it hangs in C code."""

    def job(index: int) -> None:
        text = json.dumps(mine(batches[index], index))
        partial = folder / f"{index}.part"
        partial.write_text(text)
        partial.replace(folder / f"{index:05}.json")

    context = get_context("fork")
    waiting = list(range(len(batches)))
    running: dict[Any, float] = {}
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < workers:
            process = context.Process(target=job, args=(waiting.pop(),))
            process.start()
            running[process] = time.monotonic()
        time.sleep(0.05)
        for process, began in list(running.items()):
            if process.is_alive() and time.monotonic() - began > BATCH_SECONDS:
                process.kill()
            if not process.is_alive():
                process.join()
                del running[process]
    for process in running:
        process.kill()


def is_stable(item: dict[str, Any]) -> bool:
    """Whether the calls give the same results in another process, with other string hashes."""
    signal.signal(signal.SIGALRM, _stop)
    warnings.simplefilter("ignore")
    scope: dict[str, Any] = {"__name__": "module"}
    head = ["from __future__ import annotations", *item["imports"], *item["needs"]]
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        exec(compile("\n".join([*head, item["source"]]), "<function>", "exec"), scope)
        pairs = [(f"{item['name']}({text})", result) for text, result in item["calls"]]
        return all(_plain(eval(call, scope)) == result for call, result in pairs)
    except (Exception, _TimeUp):
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    entries = [json.loads(line) for line in args.corpus.open()]
    random.Random(1).shuffle(entries)
    batches = [entries[i : i + 100] for i in range(0, len(entries), 100)]
    with tempfile.TemporaryDirectory() as folder:
        _mine_all(batches, Path(folder), args.workers, time.monotonic() + args.seconds)
        seen: set[str] = set()
        kept: list[dict[str, Any]] = []
        for path in sorted(Path(folder).glob("*.json")):
            for item in json.loads(path.read_text()):
                if item["source"] not in seen:
                    seen.add(item["source"])
                    kept.append(item)
    print(f"{len(kept)} before the second look", flush=True)
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        stable = list(pool.map(is_stable, kept, chunksize=200))
    kept = [item for item, good in zip(kept, stable, strict=True) if good]
    kept.sort(key=lambda item: (item["package"], item["name"]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(args.out, "wt", encoding="utf-8") as file:
        for item in kept:
            file.write(json.dumps(item) + "\n")
    print(f"{len(kept)} functions, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
