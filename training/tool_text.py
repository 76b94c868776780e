"""Makes text in the shapes of tool output from real code, only to train the vocabulary.

These are listings, grep hits, JSON of calls and results, test runs, tracebacks, diffs and
instructions. The model itself is tuned on real runs of the tools (trajectories).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence

NAME = re.compile(r"[A-Za-z_]\w{2,}")
ERRORS = ["AssertionError", "TypeError", "NameError", "KeyError", "IndexError", "ValueError"]
ERRORS += ["AttributeError", "ZeroDivisionError", "UnboundLocalError", "ImportError"]
REQUESTS = [
    "The tests fail. Please find the fault in {0} and fix it.",
    "tests fail, fix it",
    "Where is the function {0} defined?",
    "What is the value of {0}?",
    "How many tests are there in {1}? Which of them fails?",
    "Rename {0} to {1} everywhere and keep the tests passing.",
    "hey, {0} returns the wrong result since yesterday, can you have a look? thanks!",
    "pytest says {0} is broken; don't change the tests",
    "I've got an off-by-one error in {0}, I think. It should return {1} instead of None.",
    "Add a docstring to {0}. Fix the bug in {1} so that the failing test passes.",
    "I fixed {0} in {1}: the comparison was reversed. All tests pass now.",
    "The function {0} is defined in line 12 of {1}.py.",
    "I cannot do this: it is outside of what I can do. Configure a provider or a local model.",
]


def tool_texts(codes: Sequence[str], seed: int) -> Iterator[str]:
    """Yield one text in a random shape for about every third file."""
    rng = random.Random(seed)
    shapes: list[Callable[[random.Random, list[str], list[str]], str]]
    shapes = [_listing, _listing, _call, _call, _grep, _pytest, _pytest, _diff, _request]
    for code in codes:
        names = NAME.findall(code[:4000])
        if rng.random() > 0.35 or len(names) < 8:
            continue
        lines = code.splitlines()
        start = rng.randrange(len(lines))
        yield rng.choice(shapes)(rng, lines[start : start + rng.randrange(5, 80)], names)


def _path(rng: random.Random, names: list[str]) -> str:
    name = "_".join(rng.sample(names, rng.choice([1, 1, 2]))).lower()
    folder = rng.choice(["src/", "tests/", "tests/test_", "", "lib/", "test_"])
    return f"{folder}{name}.py"


def _listing(rng: random.Random, lines: list[str], names: list[str]) -> str:
    first = rng.choice([1, 1, rng.randrange(1, 400)])
    return "".join(f"{first + i}\t{line}\n" for i, line in enumerate(lines))


def _call(rng: random.Random, lines: list[str], names: list[str]) -> str:
    """Arguments and results as JSON."""
    path, count = _path(rng, names), rng.randrange(1, 12)
    old = "\n".join(lines[:count])
    new = old.replace(rng.choice(names), rng.choice(names))
    calls: list[dict[str, object]] = [
        {"path": path},
        {"path": path, "offset": rng.randrange(200), "limit": 100},
        {"path": path, "old": old, "new": new},
        {"path": path, "content": "\n".join(lines)},
        {"pattern": rng.choice(names), "path": "."},
        {"command": f"python -m pytest -q {path}"},
    ]
    name = rng.choice(["edit_file", "read_file", "write_file", "grep", "run_tests"])
    return json.dumps({"name": name, "arguments": rng.choice(calls[2:4] + calls)})


def _grep(rng: random.Random, lines: list[str], names: list[str]) -> str:
    hits = sorted(rng.sample(range(len(lines)), min(len(lines), 12)))
    return "".join(f"{_path(rng, names)}:{i + 1}:{lines[i]}\n" for i in hits)


def _pytest(rng: random.Random, lines: list[str], names: list[str]) -> str:
    path, test, error = _path(rng, names), f"test_{rng.choice(names).lower()}", rng.choice(ERRORS)
    number, a, b = rng.randrange(1, 150), rng.randrange(100), rng.randrange(100)
    passed, failed = rng.randrange(40), rng.randrange(1, 5)
    shown = "\n".join(f"    {line}" for line in lines[:6])
    bar = "=" * rng.randrange(20, 35)
    detail = f"assert {a} == {b}" if error == "AssertionError" else rng.choice(names)
    return (
        f"{bar} test session starts {bar}\ncollected {passed + failed} items\n\n{path} "
        f"{'.' * passed}{'F' * failed}{' ' * 30}[100%]\n\n{bar} FAILURES {bar}\n"
        f"{'_' * 30} {test} {'_' * 30}\n\n    def {test}():\n{shown}\n>       assert "
        f"{rng.choice(names)}({a}) == {b}\nE       {detail}\nE        +  where {a} = "
        f"{rng.choice(names)}({a})\n\n{path}:{number}: {error}\n"
        f'Traceback (most recent call last):\n  File "{path}", line {number}, in {test}\n'
        f"{shown}\n{error}: {detail}\n{bar} short test summary info {bar}\n"
        f"FAILED {path}::{test} - {error}: {detail}\n{bar} {failed} failed, {passed} passed in "
        f"0.{rng.randrange(99):02}s {bar}\n1 failed, {passed} passed in 0.12s\n"
    )


def _diff(rng: random.Random, lines: list[str], names: list[str]) -> str:
    path, number = _path(rng, names), rng.randrange(300)
    body = "".join(f"{rng.choice('   +-')}{line}\n" for line in lines[:25])
    return f"--- a/{path}\n+++ b/{path}\n@@ -{number},7 +{number},8 @@\n{body}"


def _request(rng: random.Random, lines: list[str], names: list[str]) -> str:
    chosen = rng.sample(REQUESTS, 6)
    return "\n".join(text.format(*rng.sample(names, 2)) for text in chosen)
