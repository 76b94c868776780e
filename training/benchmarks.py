"""Turns public benchmarks of faults made by people into tasks for evaluate.py.

    python -m training.benchmarks humanevalfix humanevalpack.jsonl --out DIR
    python -m training.benchmarks quixbugs CHECKOUT --out DIR

HumanEvalFix (164 faults, Python part, ``humanevalpack.jsonl`` of bigcode-project/octopack;
Muennighoff et al. 2023, arXiv:2308.07124): a task is the function with its docstring in a module,
and its checks in a test file, one test for each assertion. QuixBugs (40 algorithms with a fault in
one line, jkoppel/QuixBugs; Lin et al. 2017): the program and its tests. Tasks that its own authors
skip as too slow are left out. Neither is part of this repository or of the training data.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.cases import Task, write

REQUESTS = (
    "tests fail, fix it",
    "The tests are failing. Please find the bug and fix it.",
    "{name} gives wrong results, can you repair it?",
    "There is a bug in {name}. Fix it so that the tests pass.",
    "pytest is red, please fix",
    "Some tests of {name} fail. Make them pass.",
)


def humanevalfix(path: Path) -> Iterator[tuple[str, Task]]:
    """Yield (name, task) for each fault in the file."""
    for line in path.read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        name = record["entry_point"]
        number = int(record["task_id"].partition("/")[2])
        module = name if name != "solution" else "answer"
        right, wrong = (
            (record["prompt"] + record[key]).strip("\n") + "\n"
            for key in ("canonical_solution", "buggy_solution")
        )
        tests = _tests(record["test"], module, name, _functions(right))
        yield f"humanevalfix-{number:03}", _task(module, name, wrong, right, tests)


def _functions(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def _tests(source: str, module: str, name: str, functions: list[str]) -> str:
    """The checks as a test file: a test for each assertion, if there is nothing else."""
    tree = ast.parse(source)
    check = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check")
    other = [
        node
        for node in tree.body
        if node is not check
        and not (isinstance(node, ast.Expr) and ast.unparse(node.value).startswith("check("))
    ]
    body = [node for node in check.body if not _says_nothing(node)]
    alone = all(isinstance(node, ast.Assert) for node in body)
    groups = [[node] for node in body] if alone else [body]
    parts = [f"from {module} import {', '.join(functions)}", *(ast.unparse(node) for node in other)]
    for number, group in enumerate(groups, 1):
        lines = "\n".join(ast.get_source_segment(source, node) or "" for node in group)
        if not alone:
            lines = "\n".join(ast.unparse(node) for node in group)
        called = f"test_{name}_{number}" if alone else f"test_{name}"
        parts.append(f"def {called}():\n{textwrap.indent(lines, '    ')}")
    given = check.args.args[0].arg
    if given != name:
        parts.insert(1, f"{given} = {name}")
    return "\n\n\n".join(parts) + "\n"


def _says_nothing(node: ast.stmt) -> bool:
    """Whether a statement of the checks is ``pass``, a comment in a string or ``assert True``."""
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assert(test=ast.Constant(value=True)):
            return True
    return False


def quixbugs(checkout: Path) -> Iterator[tuple[str, Task]]:
    """Yield (name, task) for each program of a checkout."""
    number = 0
    for program in sorted((checkout / "python_programs").glob("*.py")):
        name = program.stem
        tests = checkout / "python_testcases" / f"test_{name}.py"
        if not tests.exists():
            continue
        number += 1
        cases = checkout / "json_testcases" / f"{name}.json"
        text = _standalone(tests.read_text(), name, cases)
        right = (checkout / "correct_python_programs" / program.name).read_text()
        task = _task(name, name, program.read_text(), right, text)
        if "import Node" in text or "import Node" in program.read_text():
            task.files["node.py"] = (checkout / "python_programs" / "node.py").read_text()
        yield f"quixbugs-{number:03}", task


def _standalone(tests: str, name: str, cases: Path) -> str:
    """The tests without the options of the benchmark's own ``conftest.py``."""
    tree = ast.parse(tests)
    body: list[ast.stmt] = []
    for node in tree.body:
        text = ast.unparse(node)
        if text.startswith("if pytest.use_correct"):
            node = ast.parse(f"from {name} import {name}").body[0]
        elif "import load_json_testcases" in text:
            continue
        elif "load_json_testcases(" in text:
            found = [json.loads(line) for line in cases.read_text().splitlines() if line.strip()]
            node = ast.parse(f"testdata = {found!r}").body[0]
        elif isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.If) and "pytest.skip" in ast.unparse(inner):
                    inner.test = ast.parse(
                        ast.unparse(inner.test).replace("not pytest.run_slow and ", ""),
                        mode="eval",
                    ).body
        body.append(node)
    return ast.unparse(ast.Module(body, [])) + "\n"


def _task(module: str, name: str, wrong: str, right: str, tests: str) -> Task:
    # The words depend on the name alone, so that they do not change with the order of tasks.
    request = random.Random(name).choice(REQUESTS).format(name=name)
    files = {f"{module}.py": wrong, f"test_{module}.py": tests}
    return Task("repair", request, files, files_after={**files, f"{module}.py": right})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("benchmark", choices=("humanevalfix", "quixbugs"))
    parser.add_argument("source", type=Path, help="humanevalpack.jsonl, or a checkout of QuixBugs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    read = humanevalfix if args.benchmark == "humanevalfix" else quixbugs
    for name, task in read(args.source):
        write(task, args.out / name)


if __name__ == "__main__":
    main()
