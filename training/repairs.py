"""Trajectories of repairs and renames, on projects whose tests really run."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentcli.llm.compact import compact
from training import wording
from training.faults import HELD_OUT_KINDS, Fault, repair_edit
from training.projects import NEW_NAMES, RESERVED, Project, definitions
from training.quick_tests import QuickTests, Run
from training.trajectories import Conversation, Unusable, Workspace, plural

WHOLE_FILE = 140  # lines up to which a file is read whole
AROUND = 80  # lines read of a longer one

FIXED = [
    "Fixed line {line} of {path}: `{old}` is now `{new}`. {passed}",
    "Fixed: in {path}, line {line}, `{old}` became `{new}`. {passed}",
    "The fault was in line {line} of {path}: `{old}` must be `{new}`. {passed}",
    "I changed line {line} of {path} from `{old}` to `{new}`. {passed}",
    "Done. {path}, line {line}: `{old}` -> `{new}`. {passed}",
]
ADDED = [
    "Fixed {path}: the line `{new}` was missing. {passed}",
    "A line was missing in {path}: I added `{new}`. {passed}",
]
REMOVED = [
    "Fixed {path}: I removed the wrong line `{old}`. {passed}",
    "The line `{old}` in {path} was wrong; I took it out. {passed}",
]
CHANGED = [
    "Fixed {path} at line {line}. {passed}",
    "I corrected {path} at line {line}. {passed}",
]
SYMPTOM = [
    "{call} returns {got} instead of {want}",
    "{call} gives {got}, should be {want}",
    "Why does {call} return {got}? I expect {want}. Please fix.",
    "{call} should be {want} but is {got}",
    "expected {want} from {call}, got {got}. fix",
    "I call {call} and get {got}. It must be {want}.",
    "{call} == {got}?? must be {want}",
]


@dataclass
class Case:
    """A project with faults in it: the faulty files and what the tests then say."""

    project: Project
    faults: list[tuple[str, Fault]]
    files: dict[str, str]
    run: Run


def break_project(
    project: Project,
    rng: random.Random,
    runner: QuickTests,
    *,
    only: frozenset[str] | None = None,
    without: frozenset[str] = HELD_OUT_KINDS,
) -> Case:
    """One fault that the tests notice.

    Raises:
        Unusable: none was found in a few draws.
    """
    sources = [p for p in project.sources if len(project.files[p]) > 60]
    if not sources:
        raise Unusable("no source")
    for _ in range(5):
        path = rng.choices(sources, [len(project.files[p]) for p in sources])[0]
        fault = project.faults_of(path).draw(rng, only=only, without=without)
        if fault is None:
            continue
        files = {**project.files, path: fault.source}
        run = Workspace(files, runner).test_run()
        if run.failed or run.errors:
            return Case(project, [(path, fault)], files, run)
    raise Unusable("unnoticed")


def one_fault(
    project: Project,
    rng: random.Random,
    runner: QuickTests,
    held: bool = False,
    case: Case | None = None,
) -> Conversation:
    """The user wants a repair; one fault."""
    case = case or break_project(project, rng, runner)
    path, fault = case.faults[0]
    space = _workspace(case, runner)
    talk = Conversation(space)
    seen = _request(talk, case, rng, held)
    if rng.random() < 0.06:
        talk.call("list_dir")
    if not seen or rng.random() < 0.25:
        if rng.random() < 0.04 and case.run.failed:
            talk.call("run_tests", path=case.run.failed[0][0])
        else:
            talk.call("run_tests")
    known: set[str] = set()
    _find(talk, case.run, path, fault, rng, known)
    if rng.random() < 0.06:
        _stumble(talk, project, path, rng)
    edit = _repair(talk, path, project.files[path])
    talk.call("run_tests")
    _conclude(talk, [edit], project, rng)
    return talk


def two_faults(
    project: Project, rng: random.Random, runner: QuickTests, held: bool = False
) -> Conversation:
    """Two faults in one or two files; each is noticed by itself."""
    first, second = (break_project(project, rng, runner) for _ in range(2))
    (path_a, a), (path_b, b) = first.faults[0], second.faults[0]
    files = dict(project.files)
    if path_a == path_b:
        merged = _merge(project.files[path_a], a, b)
        if merged is None:
            raise Unusable("overlap")
        files[path_a] = merged
    else:
        files |= {path_a: a.source, path_b: b.source}
    run = Workspace(files, runner).test_run()
    if not (run.failed or run.errors):
        raise Unusable("unnoticed")
    case = Case(project, [(path_a, a), (path_b, b)], files, run)
    # The first failure shown decides which one is found first.
    if run.failed and run.failed[0] not in first.run.failed:
        case.faults.reverse()
        first, second = second, first
    (path, fault), (next_path, next_fault) = case.faults
    space = _workspace(case, runner)
    talk = Conversation(space)
    if not _request(talk, case, rng, held, texts=wording.TWO if rng.random() < 0.5 else None):
        talk.call("run_tests")
    known: set[str] = set()
    _find(talk, run, path, fault, rng, known)
    goal = {**files, path: second.files[path] if path == next_path else project.files[path]}
    edits = [_repair(talk, path, goal[path])]
    talk.call("run_tests")
    again = space.test_run()
    if not (again.failed or again.errors):
        raise Unusable("one repair was enough")
    _find(talk, again, next_path, next_fault, rng, known)
    edits.append(_repair(talk, next_path, project.files[next_path]))
    talk.call("run_tests")
    _conclude(talk, edits, project, rng)
    return talk


def rename(
    project: Project, rng: random.Random, runner: QuickTests, held: bool = False
) -> Conversation:
    """A name is changed everywhere."""
    defined = definitions(project.files, project.sources)
    text = "\n".join(project.files.values())
    names = [n for n in defined if n not in RESERVED and not n.startswith("_") and len(n) > 2]
    rng.shuffle(names)
    for old in names:
        pattern = re.compile(rf"\b{re.escape(old)}\b")
        lines = sum(1 for line in text.split("\n") if pattern.search(line))
        if not 2 <= lines <= 9 or pattern.sub("", text).count(old) > 2:
            continue
        kind = defined[old][2]
        new = _renamed(rng, old)
        if new in text or new in RESERVED:
            continue
        files = {path: pattern.sub(new, body) for path, body in project.files.items()}
        space = Workspace(project.files, runner)
        try:
            run = Workspace(files, runner).test_run()
        except Unusable:
            continue
        if not run.ok:
            continue
        space.known.append((files, run))
        return _rename(Conversation(space), files, old, new, kind, rng, held)
    raise Unusable("no name")


def _rename(
    talk: Conversation,
    goal: dict[str, str],
    old: str,
    new: str,
    kind: str,
    rng: random.Random,
    held: bool,
) -> Conversation:
    space = talk.workspace
    text = wording.phrase(rng, wording.RENAME, held, old=old, new=new, kind=kind)
    talk.user(wording.spoken(rng, text, exact=[old, new]))
    talk.call("grep", pattern=old)
    places = 0
    touched = []
    for path in sorted(goal):
        if goal[path] == space.files[path]:
            continue
        touched.append(path)
        wanted = goal[path].split("\n")
        for number, line in enumerate(wanted):
            now = space.files[path].split("\n")
            if now[number] == line:
                continue
            places += 1
            partly = "\n".join([*now[:number], line, *now[number + 1 :]])
            edit = repair_edit(space.files[path], partly)
            if edit is None:
                raise Unusable("no edit")
            if "\n" in edit[0] and not any(
                f'"path": "{path}"' in call.arguments and call.name == "read_file"
                for message in talk.messages
                for call in message.calls
            ):
                if len(now) > 120:
                    raise Unusable("long file")
                talk.call("read_file", path=path)
            talk.call("search_replace", path=path, old=edit[0], new=edit[1])
    talk.call("run_tests")
    where = touched[0] if len(touched) == 1 else f"{len(touched)} files"
    passed = _passed(space.test_run(), rng)
    talk.say(
        rng.choice(
            [
                f"Renamed `{old}` to `{new}`: {plural(places, 'line')} in {where}. {passed}",
                f"`{old}` is now called `{new}` ({plural(places, 'line')} in {where}). {passed}",
                f"Done: `{old}` is `{new}` in {where}. {passed}",
            ]
        )
    )
    return talk


def _renamed(rng: random.Random, old: str) -> str:
    words = old.split("_")
    other = rng.choice(NEW_NAMES)
    if old.isupper():
        return rng.choice([f"{old}_{other.upper()}", f"{other.upper()}_{words[-1]}", other.upper()])
    if old[:1].isupper():
        return rng.choice(
            [f"{other.capitalize()}{old}", f"{old}{other.capitalize()}", f"{other.capitalize()}s"]
        )
    return rng.choice(
        [
            f"{rng.choice(['get', 'compute', 'make', 'find', 'build', 'to', 'do'])}_{old}",
            f"{old}_{other}",
            f"{other}_{words[-1]}",
            f"{words[0]}_{other}",
            f"{other}_{rng.choice(NEW_NAMES)}",
            other,
        ]
    )


def _workspace(case: Case, runner: QuickTests) -> Workspace:
    space = Workspace(case.files, runner)
    space.known += [(case.files, case.run), (case.project.files, case.project.baseline)]
    return space


def _merge(source: str, a: Fault, b: Fault) -> str | None:
    """Both faults in one text, if they are in different lines."""
    lines = source.split("\n")
    first, second = sorted((a, b), key=lambda fault: fault.line)
    low, high = first.line - 1, second.line - 1
    if low + len(first.before) + 1 >= high:
        return None
    lines[high : high + len(second.before)] = second.after
    lines[low : low + len(first.before)] = first.after
    return "\n".join(lines)


# what the user says


def _request(
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
    if draw < 0.42:
        text = wording.phrase(rng, wording.FIX, held)
    elif draw < 0.50:
        text = wording.phrase(rng, wording.FIX_FILE, held, path=path)
    elif draw < 0.62:
        name = _enclosing(case.project.files[path], fault.line)
        if name is None:
            text = wording.phrase(rng, wording.FIX, held)
        else:
            exact.append(name)
            text = wording.phrase(rng, wording.FIX_FUNCTION, held, f=name, path=path)
    elif draw < 0.72 and run.failed:
        file, test = run.failed[0]
        test = test.split("[")[0].rpartition(".")[2]
        exact += [file, test]
        text = wording.phrase(rng, wording.FIX_TEST, held, test=test, testfile=file)
    elif draw < 0.80:
        symptom = _symptom(case)
        if symptom is None:
            exact.append(run.message)
            text = wording.phrase(rng, wording.FIX_ERROR, held, error=run.message)
        else:
            exact += list(symptom.values())
            text = wording.phrase(rng, SYMPTOM, held, **symptom)
    else:
        output = _pasted(case, rng)
        exact.append(output)
        text = wording.phrase(rng, wording.FIX_PASTED, held, output=output)
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
    statement = re.fullmatch(r"\s*assert (.+) == (.+)", _line(case.files, path, line))
    if not statement or statement[2] != found[2] or len(statement[1]) > 60:
        return None
    return {"call": statement[1], "got": found[1], "want": found[2]}


def _line(files: dict[str, str], path: str, line: int) -> str:
    lines = files.get(path, "").split("\n")
    return lines[line - 1] if 0 < line <= len(lines) else ""


def _enclosing(source: str, line: int) -> str | None:
    """The function or class that a line belongs to."""
    best: str | None = None
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.lineno <= line <= (node.end_lineno or 0):
                best = node.name
    return best


# how the place is found


def _find(
    talk: Conversation, run: Run, path: str, fault: Fault, rng: random.Random, known: set[str]
) -> None:
    """From what the tests said to the lines of the fault, by grep and read_file."""
    space = talk.workspace
    line = _fault_line(space.files[path], fault)
    frames = [(p, n) for p, n in run.frames if p in space.files and not _is_test(space, p)]
    mine = [n for p, n in frames if p == path]
    if mine and frames[-1][0] == path:
        _read(talk, path, mine[-1], line, rng, known)
        return
    if frames and frames[-1][0] != path:
        # the traceback ends elsewhere: look there first, then follow a name
        other, at = frames[-1]
        _read(talk, other, at, at, rng, known)
        _follow(talk, other, path, line, rng, known)
        return
    tests = [(p, n) for p, n in run.frames if p in space.files]
    defined = definitions(space.files, [p for p in space.files if not _is_test(space, p)])
    if not tests:
        _read(talk, path, line, line, rng, known)
        return
    file, at = tests[-1]
    statement = _line(space.files, file, at)
    name = _called(statement, defined)
    if name is None or rng.random() < 0.05:
        if file not in known:
            start = max(1, at - 15)
            talk.call("read_file", path=file, start=start, limit=25)
        body = "\n".join(space.files[file].split("\n")[max(0, at - 15) : at + 10])
        name = name or _called(body, defined)
    if name is None:
        _read(talk, path, line, line, rng, known)
        return
    if defined[name][0] in known:
        target = defined[name][0]
    else:
        word = "class" if defined[name][2] == "class" else "def"
        pattern = f"{name} = " if defined[name][2] == "constant" else f"{word} {name}"
        talk.call("grep", pattern=pattern)
        target = defined[name][0]
    _read(talk, target, defined[name][1], line if target == path else None, rng, known)
    if target != path:
        _follow(talk, target, path, line, rng, known)


def _follow(
    talk: Conversation, seen: str, path: str, line: int, rng: random.Random, known: set[str]
) -> None:
    """From a file that was read to the one with the fault, by a name that the first uses."""
    space = talk.workspace
    try:
        name = _enclosing(space.files[path], line)
    except SyntaxError:
        name = None
    if name and path not in known and re.search(rf"\b{name}\b", space.files[seen]):
        if rng.random() < 0.5:
            word = "class" if name[:1].isupper() else "def"
            talk.call("grep", pattern=f"{word} {name}")
    _read(talk, path, line, line, rng, known)


def _read(
    talk: Conversation, path: str, at: int, must: int | None, rng: random.Random, known: set[str]
) -> None:
    """Read the file, or the part around line ``at`` and the part that holds line ``must``."""
    if path in known:
        return
    total = talk.workspace.files[path].count("\n") + 1
    if total <= WHOLE_FILE and rng.random() < 0.93:
        talk.call("read_file", path=path)
        known.add(path)
        return
    start = max(1, at - AROUND // 2)
    talk.call("read_file", path=path, start=start, limit=AROUND)
    if must is not None and not start <= must < start + AROUND:
        while must >= start + AROUND:
            start += AROUND
            talk.call("read_file", path=path, start=start, limit=AROUND)
        if must < start:
            talk.call("read_file", path=path, start=max(1, must - AROUND // 2), limit=AROUND)


def _fault_line(source: str, fault: Fault) -> int:
    lines = source.split("\n")
    if fault.after and fault.after[0] in lines:
        return lines.index(fault.after[0]) + 1
    return min(fault.line, len(lines))


def _is_test(space: Workspace, path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


_NAMES = re.compile(r"[A-Za-z_]\w*")


def _called(text: str, defined: dict[str, tuple[str, int, str]]) -> str | None:
    """The first name of the project in a statement."""
    names = [n for n in _NAMES.findall(text) if n in defined and not n.startswith("test")]
    return names[0] if names else None


# the edit and the end


def _repair(talk: Conversation, path: str, right: str) -> tuple[str, str, str, int]:
    """The one edit that makes the file right; (path, old, new, line)."""
    text = talk.workspace.files[path]
    edit = repair_edit(text, right)
    if edit is None:
        raise Unusable("no edit")
    old, new = edit
    line = text[: text.index(old)].count("\n") + 1
    talk.call("search_replace", path=path, old=old, new=new)
    if talk.workspace.files[path] != right:
        raise Unusable("edit is not the repair")
    return path, old, new, line


def _stumble(talk: Conversation, project: Project, path: str, rng: random.Random) -> None:
    """A wrong edit, the tests that still fail, and its undoing; the wrong edit is not learnt."""
    space = talk.workspace
    before = space.files[path]
    fault = project.faults_of(path).draw(rng)
    if fault is None or not fault.before or not fault.after:
        return
    old, new = "\n".join(fault.before), "\n".join(fault.after)
    if before.count(old) != 1 or before.replace(old, new).count(new) != 1:
        return
    talk.call("search_replace", silent=True, path=path, old=old, new=new)
    run = space.test_run()
    if run.ok or (not run.failed and not run.errors):
        raise Unusable("a wrong edit that helps")
    talk.call("run_tests")
    talk.call("search_replace", path=path, old=new, new=old)


def _conclude(
    talk: Conversation,
    edits: Sequence[tuple[str, str, str, int]],
    project: Project,
    rng: random.Random,
) -> None:
    run = talk.workspace.test_run()
    if not run.ok:
        raise Unusable("tests still fail")
    passed = _passed(run, rng)
    if len(edits) == 1:
        talk.say(_told(edits[0], passed, rng))
        return
    parts = [_told(edit, "", rng).rstrip() for edit in edits]
    talk.say(" ".join([*parts, passed]))


def _told(edit: tuple[str, str, str, int], passed: str, rng: random.Random) -> str:
    path, old, new, line = edit
    olds, news = old.split("\n"), new.split("\n")
    gone = [text for text in olds if text not in news]
    come = [text for text in news if text not in olds]
    if len(olds) == len(news):
        line += next((i for i, (a, b) in enumerate(zip(olds, news, strict=True)) if a != b), 0)
    fields = {
        "path": path,
        "line": line,
        "old": gone[0].strip() if gone else "",
        "new": come[0].strip() if come else "",
        "passed": passed,
    }
    if max(len(str(fields["old"])), len(str(fields["new"]))) > 90:
        texts = CHANGED
    elif len(gone) == len(come) == 1 and fields["old"] != fields["new"]:
        texts = FIXED
    elif len(come) == 1 and not gone:
        texts = ADDED
    elif len(gone) == 1 and not come:
        texts = REMOVED
    else:
        texts = CHANGED
    return rng.choice(texts).format(**fields).rstrip()


def _passed(run: Run, rng: random.Random) -> str:
    if run.passed == 1:
        return "The test passes."
    return rng.choice([f"All {run.passed} tests pass.", f"All {run.passed} tests pass now."])
