"""What the user says who wants a repair, and how places are named."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence

from agentcli.llm.compact import compact
from training import wording
from training.complaints import complaint, fields
from training.projects import Case
from training.trajectories import Conversation

SYMPTOM = [
    "{call} returns {got} instead of {want}",
    "{call} gives {got}, should be {want}",
    "Why does {call} return {got}? I expect {want}. Please fix.",
    "{call} should be {want} but is {got}",
    "expected {want} from {call}, got {got}. fix",
    "I call {call} and get {got}. It must be {want}.",
    "{call} == {got}?? must be {want}",
    "{call} [should give|must return|has to be] {want}, [but gives|not|and not] {got}",
    "[why is|how can] {call} [{got}|be {got}]? [it should be|must be] {want}",
    "[I get|we get|it gives] {got} for {call}, [expected|should be] {want} [, fix|, please fix|]",
    "{call} [->|=>] {got} [(wrong)|(should be {want})|but {want} is right]",
    "{got} is [wrong|not right] for {call}, [make it|it should be] {want}",
    "[got|actual] {got}, [want|expected] {want}: {call} [, fix|]",
    "with {call} [I'd expect|the result should be] {want}. [It is|I get] {got}. [Fix it.|]",
]


def request(
    talk: Conversation,
    case: Case,
    rng: random.Random,
    held: bool,
    texts: Sequence[str] | None = None,
) -> bool:
    """Adds the user's message; True if it holds the tests' output already."""
    run = case.run
    path, fault = case.faults[0]
    exact: list[str] = [path]
    draw = rng.random()
    if texts is not None:
        talk.user(wording.spoken(rng, wording.phrase(rng, texts, held), fix=True))
        return False
    if rng.random() < 0.35:
        words = fields(case, rng, _symptom(case))
        exact += [value for name, value in words.items() if name in ("f", "call", "got", "want")]
        text = complaint(rng, words, held)
    elif draw < 0.42:
        text = wording.phrase(rng, wording.REPAIRS["fix"], held)
    elif draw < 0.50:
        text = wording.phrase(rng, wording.REPAIRS["fix_file"], held, path=path)
    elif draw < 0.62:
        name = enclosing(case.project.files[path], fault.line)
        if name is None:
            text = wording.phrase(rng, wording.REPAIRS["fix"], held)
        else:
            exact.append(name)
            text = wording.phrase(rng, wording.REPAIRS["fix_function"], held, f=name, path=path)
    elif draw < 0.72 and run.failed:
        file, test = run.failed[0]
        test = test.split("[")[0].rpartition(".")[2]
        exact += [file, test]
        text = wording.phrase(rng, wording.REPAIRS["fix_test"], held, test=test, testfile=file)
    elif draw < 0.80:
        symptom = _symptom(case)
        if symptom is None:
            error = run.message.strip()
            exact.append(error)
            lines = (
                wording.REPAIRS["fix"]
                if error.startswith("File ")
                else wording.REPAIRS["fix_error"]
            )
            text = wording.phrase(rng, lines, held, error=error)
        else:
            exact += list(symptom.values())
            text = wording.phrase(rng, SYMPTOM, held, **symptom)
    else:
        output = _pasted(case, rng)
        exact.append(output)
        text = wording.phrase(rng, wording.REPAIRS["fix_pasted"], held, output=output)
        talk.user(wording.spoken(rng, text, exact=exact, fix=True))
        return True
    talk.user(wording.spoken(rng, text, exact=exact, fix=True))
    return False


def _pasted(case: Case, rng: random.Random) -> str:
    """Output as people paste it: the whole report, or a part of it."""
    assert case.run.text is not None
    lines = case.run.text.split("\n")
    draw = rng.random()
    if draw < 0.35:
        lines = compact("run_tests", f"tests failed\n$ x\n{case.run.text}").split("\n")[1:]
    elif draw < 0.55:
        found = [i for i, line in enumerate(lines) if line.startswith("____")]
        if found:
            end = found[1] if len(found) > 1 else len(lines)
            lines = [line for line in lines[found[0] : end] if not line.startswith("====")]
    elif draw < 0.7:
        lines = [line for line in lines if line.startswith(("E  ", "FAILED", "ERROR"))] or lines
    if len(lines) > 40:
        lines = lines[:40]
    return "\n".join(line[:160] for line in lines).strip("\n")


def _symptom(case: Case) -> dict[str, str] | None:
    """The call of the first failed assertion, what it gave, and what was wanted."""
    frames = case.run.frames
    found = re.fullmatch(r"assert (.+) == (.+)", case.run.message)
    if not found or not frames:
        return None
    path, line = frames[-1]
    statement = re.fullmatch(r"\s*assert (.+) == (.+)", line_of(case.files, path, line))
    if not statement or statement[2] != found[2] or len(statement[1]) > 60:
        return None
    return {"call": statement[1], "got": found[1], "want": found[2]}


def line_of(files: dict[str, str], path: str, line: int) -> str:
    lines = files.get(path, "").split("\n")
    return lines[line - 1] if 0 < line <= len(lines) else ""


def enclosing(source: str, line: int) -> str | None:
    """The function or class that a line belongs to."""
    best: str | None = None
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.lineno <= line <= (node.end_lineno or 0):
            best = node.name
    return best
