"""Trajectories of repairs and renames, on projects whose tests really run."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from training import wording
from training.answers import Change, passed_text, told
from training.faults import HELD_OUT_KINDS, Fault, changed_lines, repair_edit
from training.names import NEW_NAMES, RESERVED
from training.places import find
from training.projects import Case, Project, checked, definitions
from training.quick_tests import QuickTests
from training.requests import request
from training.trajectories import Conversation, Unusable, Workspace, plural


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


def mistaken(name: str, right: dict[str, str], faulty: dict[str, str], runner: QuickTests) -> Case:
    """A case from the files of a project before and after one of them got a fault.

    Raises:
        Unusable: the tests do not pass before, or they do after.
    """
    project = checked(name, right, runner)
    if project is None:
        raise Unusable("it does not pass here")
    (path,) = (path for path in right if right[path] != faulty[path])
    run = Workspace(faulty, runner).test_run()
    if not (run.failed or run.errors):
        raise Unusable("unnoticed")
    line, before, after = changed_lines(right[path], faulty[path])
    fault = Fault("mistake", line + 1, tuple(before), tuple(after), faulty[path])
    return Case(project, [(path, fault)], faulty, run)


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
    seen = request(talk, case, rng, held)
    if rng.random() < 0.06:
        talk.call("list_dir")
    if not seen or rng.random() < 0.25:
        if rng.random() < 0.04 and case.run.failed:
            talk.call("run_tests", path=case.run.failed[0][0])
        else:
            talk.call("run_tests")
    known: set[str] = set()
    find(talk, case.run, path, fault, rng, known)
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
    if not request(
        talk, case, rng, held, texts=wording.REPAIRS["two"] if rng.random() < 0.5 else None
    ):
        talk.call("run_tests")
    known: set[str] = set()
    find(talk, run, path, fault, rng, known)
    goal = {**files, path: second.files[path] if path == next_path else project.files[path]}
    edits = [_repair(talk, path, goal[path])]
    talk.call("run_tests")
    again = space.test_run()
    if not (again.failed or again.errors):
        raise Unusable("one repair was enough")
    find(talk, again, next_path, next_fault, rng, known)
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
    text = wording.phrase(rng, wording.REPAIRS["rename"], held, old=old, new=new, kind=kind)
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
    passed = passed_text(space.test_run(), rng)
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


def _repair(talk: Conversation, path: str, right: str) -> Change:
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
    edits: Sequence[Change],
    project: Project,
    rng: random.Random,
) -> None:
    run = talk.workspace.test_run()
    if not run.ok:
        raise Unusable("tests still fail")
    passed = passed_text(run, rng)
    if len(edits) == 1:
        talk.say(told(edits[0], passed, rng))
        return
    parts = [told(edit, "", rng).rstrip() for edit in edits]
    talk.say(" ".join([*parts, passed]))
