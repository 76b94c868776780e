"""Repairs of real code without running it: one to six faults in a file of the corpus, or one change
that people made from one release of a package to the next (releases.py).

The user names the function or the error that Python gives for such a line. Tests do not check these
examples; they teach the model to read, to find what does not fit, and to write edits.
"""

from __future__ import annotations

import ast
import builtins
import random
import re
import warnings
from collections.abc import Iterator

from training import wording
from training.answers import told
from training.faults import HELD_OUT_KINDS, Fault, Faults, changed_lines, repair_edit
from training.requests import enclosing
from training.trajectories import Conversation, Unusable, Workspace

MAX_LINES = 130
DONE = [
    "I did not run any tests.",
    "I have not run tests.",
    "There was no test to run.",
]
SEVERAL = [
    "there are mistakes in {names}, fix them",
    "{names} are broken in {path}, please fix",
    "fix the bugs in {names}",
    "Please correct {names}.",
    "someone broke {names}. repair",
    "check {names} in {path}: each has one wrong line",
]
REVIEW = [
    "{path} has a bug in it, find it",
    "there is one wrong line in {path}",
    "which line of {path} is wrong? fix it",
    "look through {path} and correct the mistake",
    "{path} was changed by accident. Repair it.",
    "find the mistake in {path}",
]


def excerpts(text: str, rng: random.Random) -> Iterator[str]:
    """Yield self-contained pieces of a file: some imports, then whole definitions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.split("\n")
    head: list[str] = []
    body: list[str] = []
    for node in tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        piece = lines[first - 1 : node.end_lineno]
        if isinstance(node, ast.Import | ast.ImportFrom):
            if len(head) < 8:
                head += piece
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if len(piece) <= 4 and not isinstance(node, ast.Expr | ast.If | ast.Try):
                body += piece
            continue
        if len(piece) > MAX_LINES:
            continue
        if body and len(body) + len(piece) > rng.choice([30, 60, 90, MAX_LINES]):
            yield "\n".join([*head, *([""] if head else []), *body]).strip("\n") + "\n"
            body = []
        body += ["", "", *piece] if body else piece
    if sum(1 for line in body if line.strip()) > 8:
        yield "\n".join([*head, *([""] if head else []), *body]).strip("\n") + "\n"


def denoise(path: str, source: str, rng: random.Random, held: bool = False) -> Conversation:
    """Make one conversation about one excerpt."""
    if not 300 < len(source) < 6500:
        raise Unusable("size")
    faults = Faults(source)
    chosen: list[Fault] = []
    # Several in one file: what is read once serves several edits.
    count = rng.choice([1, 1, 2, 3, 4, 5, 6])
    text = source
    for _ in range(count):
        fault = faults.draw(rng, without=HELD_OUT_KINDS)
        if fault is None or any(abs(fault.line - other.line) < 4 for other in chosen):
            continue
        if fault.kind in ("wrong_string", "wrong_key", "wrong_number") and rng.random() < 0.7:
            continue  # usually impossible to tell
        edit = repair_edit(source, fault.source)
        if edit is None or text.count(edit[0]) != 1:
            continue
        text = text.replace(edit[0], edit[1], 1)
        chosen.append(fault)
    if not chosen:
        raise Unusable("no fault")
    chosen.sort(key=lambda fault: fault.line)
    return _repaired(path, source, text, chosen, rng, held)


def fix(path: str, before: str, after: str, rng: random.Random, held: bool = False) -> Conversation:
    """Make one conversation about a change that people made: from ``before`` to ``after``."""
    start, right, wrong = changed_lines(after, before)
    change = Fault("people's", start + 1, tuple(right), tuple(wrong), before)
    return _repaired(path, after, before, [change], rng, held)


def _repaired(
    path: str, source: str, text: str, chosen: list[Fault], rng: random.Random, held: bool
) -> Conversation:
    """The faults of ``text`` are removed, one after the other, until it is ``source``."""
    space = Workspace({path: text})
    talk = Conversation(space)
    _request(talk, path, source, chosen, rng, held)
    total = text.count("\n")
    if total > 100 and len(chosen) == 1 and rng.random() < 0.5:
        start = max(1, chosen[0].line - rng.randint(10, 50))
        talk.call("read_file", path=path, start=start, limit=60)
    else:
        talk.call("read_file", path=path)
    changes: list[str] = []
    for fault in chosen:
        now = space.files[path]
        goal = _undone(now, source, fault)
        edit = repair_edit(now, goal)
        if edit is None:
            raise Unusable("no edit")
        old, new = edit
        line = now[: now.index(old)].count("\n") + 1
        talk.call("search_replace", path=path, old=old, new=new)
        changes.append(told((path, old, new, line), "", rng).rstrip())
    if space.files[path] != source:
        raise Unusable("not undone")
    talk.say(" ".join([*changes, rng.choice(DONE)]) if rng.random() < 0.7 else " ".join(changes))
    return talk


def _undone(now: str, source: str, fault: Fault) -> str:
    """The text without this one fault."""
    back = repair_edit(fault.source, source)
    if back is None or now.count(back[0]) != 1:
        raise Unusable("faults touch")
    return now.replace(back[0], back[1], 1)


def _request(
    talk: Conversation, path: str, source: str, chosen: list[Fault], rng: random.Random, held: bool
) -> None:
    names = [name for f in chosen if (name := enclosing(source, min(f.line, source.count("\n"))))]
    if len(chosen) > 1 and len(set(names)) == len(chosen):
        shown = ", ".join(names[:-1]) + " and " + names[-1]
        text = wording.phrase(rng, SEVERAL, held, names=shown, path=path)
        talk.user(wording.spoken(rng, text, exact=[shown, path], fix=True))
        return
    error = _error(chosen[0], path)
    if error is not None and rng.random() < 0.8:
        if rng.random() < 0.5:
            text = wording.phrase(rng, wording.REPAIRS["fix_error"], held, error=error)
            text = f"{text} ({path})" if rng.random() < 0.5 else f"{path}: {text}"
        else:
            error = _traceback(chosen[0], path, names[0] if names else "<module>", error)
            text = wording.phrase(rng, wording.REPAIRS["fix_pasted"], held, output=error)
        talk.user(wording.spoken(rng, text, exact=[error, path], fix=True))
    elif names and len(chosen) == 1 and rng.random() < 0.7:
        text = wording.phrase(rng, wording.REPAIRS["fix_function"], held, f=names[0], path=path)
        if path not in text:
            text = f"{text} ({path})"
        talk.user(wording.spoken(rng, text, exact=[names[0], path], fix=True))
    else:
        text = wording.phrase(rng, REVIEW, held, path=path)
        talk.user(wording.spoken(rng, text, exact=[path], fix=True))


def _traceback(fault: Fault, path: str, function: str, error: str) -> str:
    line = fault.after[0].strip() if fault.after else ""
    return (
        f"Traceback (most recent call last):\n"
        f'  File "{path}", line {fault.line}, in {function}\n    {line}\n{error}'
    )


def _error(fault: Fault, path: str) -> str | None:
    """The error that Python gives for such a line, if that is certain."""
    before, after = "\n".join(fault.before), "\n".join(fault.after)
    words_before = set(re.findall(r"[A-Za-z_]\w*", before))
    new = [word for word in re.findall(r"[A-Za-z_]\w*", after) if word not in words_before]
    match fault.kind:
        case "typo_name" if new:
            return f"NameError: name '{new[0]}' is not defined"
        case "typo_attr" if new:
            return f"AttributeError: object has no attribute '{new[0]}'"
        case "typo_keyword" if new:
            return f"TypeError: got an unexpected keyword argument '{new[0]}'"
        case "wrong_import" if new:
            if after.lstrip().startswith("import"):
                return f"ModuleNotFoundError: No module named '{new[0]}'"
            return f"ImportError: cannot import name '{new[0]}'"
        case "missing_self":
            lost = re.findall(r"self\.(\w+)", before)
            if lost and not hasattr(builtins, lost[0]):
                return f"NameError: name '{lost[0]}' is not defined"
        case "missing_colon" | "missing_bracket" | "missing_quote":
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    compile(fault.source, path, "exec")
            except SyntaxError as error:
                return f"SyntaxError: {error.msg}"
    return None
