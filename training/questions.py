"""Trajectories of questions, small talk and what the model must decline."""

from __future__ import annotations

import ast
import random
import re

from training import beyond, decline_words, wording
from training.projects import Project, definitions
from training.quick_tests import QuickTests
from training.repairs import break_project, one_fault
from training.trajectories import Conversation, Unusable, Workspace, plural


def question(
    project: Project, rng: random.Random, runner: QuickTests, held: bool = False
) -> Conversation:
    """One question about a repository, or two in a row."""
    space = Workspace(project.files, runner)
    space.known.append((project.files, project.baseline))
    talk = Conversation(space)
    kinds = list(_KINDS)
    weights = [_KINDS[kind] for kind in kinds]
    kind = rng.choices(kinds, weights)[0]
    if kind is _which_fails and rng.random() < 0.75:
        return _failing(project, rng, runner, held)
    kind(talk, project, rng, held)
    if rng.random() < 0.12:
        rng.choices(kinds, weights)[0](talk, project, rng, held)
    if rng.random() < 0.04:
        _thanks(talk, rng, held)
    return talk


def _ask(
    talk: Conversation, rng: random.Random, texts: list[str], held: bool, **fields: object
) -> None:
    text = wording.phrase(rng, texts, held, **fields)
    talk.user(wording.spoken(rng, text, exact=[str(value) for value in fields.values()]))


def _where(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    defined = definitions(project.files, project.sources)
    names = [n for n in defined if not n.startswith("__")]
    if not names:
        raise Unusable("no names")
    name = rng.choice(names)
    _, _, kind = defined[name]
    _ask(talk, rng, wording.WHERE, held, f=name, kind=kind)
    word = {"class": "class ", "constant": ""}.get(kind, "def ")
    # people ask "where is foo" without saying what it is: look for either
    if kind == "constant":
        result = talk.call("grep", pattern=f"{name} =")
    elif name[:1].isupper():
        result = talk.call("grep", pattern=f"class {name}")
    else:
        result = talk.call("grep", pattern=f"{word}{name}")
    places = [row.split(":")[:2] for row in result.split("\n")]
    exact = [row for row in result.split("\n") if re.search(rf"\b{name}\b", row)]
    if len(exact) != 1 or len(places) > 12:
        raise Unusable("several places")
    path, number = exact[0].split(":")[:2]
    talk.say(
        rng.choice(
            [
                f"`{name}` is defined in {path}, line {number}.",
                f"In {path}, line {number}.",
                f"`{name}` is in {path} at line {number}.",
                f"{path}:{number}",
            ]
        )
    )


def _absent(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    text = "\n".join(project.files.values())
    name = rng.choice(
        ["frobnicate", "load_user", "Manager", "parse_config", "get_total", "to_xml", "sync"]
    )
    if name in text:
        raise Unusable("it exists")
    _ask(talk, rng, wording.WHERE, held, f=name, kind="function")
    talk.call("grep", pattern=f"class {name}" if name[:1].isupper() else f"def {name}")
    talk.call("grep", pattern=name)
    talk.say(f"There is no `{name}` in this repository.")


def _constant(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    found = []
    for path in project.sources:
        for node in ast.parse(project.files[path]).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = ast.get_source_segment(project.files[path], node.value) or ""
                name = node.targets[0].id
                if "\n" not in value and 0 < len(value) < 70 and not name.startswith("__"):
                    found.append((name, value, path, node.lineno))
    if not found:
        raise Unusable("no constants")
    name, value, path, line = rng.choice(found)
    _ask(talk, rng, wording.CONSTANT, held, name=name)
    result = talk.call("grep", pattern=f"{name} =")
    if len(result.split("\n")) > 4:
        raise Unusable("several places")
    talk.say(
        rng.choice(
            [
                f"`{name}` is `{value}` ({path}, line {line}).",
                f"{name} = {value}, in {path}, line {line}.",
                f"`{value}`. It is set in {path}, line {line}.",
            ]
        )
    )


def _default(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    found = []
    for path in project.sources:
        for node in ast.walk(ast.parse(project.files[path])):
            if isinstance(node, ast.FunctionDef) and node.args.defaults and node.name != "__init__":
                arguments = node.args.args[-len(node.args.defaults) :]
                for argument, default in zip(arguments, node.args.defaults, strict=True):
                    value = ast.get_source_segment(project.files[path], default) or ""
                    found.append((node.name, argument.arg, value, path, node.lineno))
    if not found:
        raise Unusable("no defaults")
    f, name, value, path, line = rng.choice(found)
    _ask(talk, rng, wording.DEFAULT, held, name=name, f=f)
    result = talk.call("grep", pattern=f"def {f}")
    if "\n" in result or f"{name}" not in result.split(":", 2)[2]:
        raise Unusable("not in one line")
    talk.say(
        rng.choice(
            [
                f"The default of `{name}` in `{f}` is `{value}` ({path}, line {line}).",
                f"`{value}` ({path}, line {line}).",
            ]
        )
    )


def _count_tests(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, wording.COUNT_TESTS, held)
    talk.call("run_tests")
    count = project.baseline.passed
    talk.say(
        rng.choice(
            [
                f"There are {plural(count, 'test')}; all pass."
                if count > 1
                else "There is 1 test.",
                f"{plural(count, 'test')}.",
                f"The project has {plural(count, 'test')}.",
            ]
        )
    )


def _failing(project: Project, rng: random.Random, runner: QuickTests, held: bool) -> Conversation:
    """Which test fails, or how many tests, of a project with a fault; sometimes then repaired."""
    case = break_project(project, rng, runner)
    space = Workspace(case.files, runner)
    space.known += [(case.files, case.run), (project.files, project.baseline)]
    talk = Conversation(space)
    run = case.run
    if not run.failed:
        raise Unusable("no failed test")
    if rng.random() < 0.25 and run.passed and not run.errors:
        _ask(talk, rng, wording.COUNT_TESTS, held)
        talk.call("run_tests")
        failed = len(run.failed)
        talk.compute(f"{failed}+{run.passed}", str(failed + run.passed))
        total = plural(failed + run.passed, "test")
        talk.say(f"There are {total}: {failed} failed, {run.passed} passed.")
        return talk
    _ask(talk, rng, wording.WHICH_FAILS, held)
    talk.call("run_tests")
    names = [name for _, name in run.failed]
    file = run.failed[0][0]
    if len(names) == 1:
        talk.say(
            rng.choice(
                [
                    f"`{names[0]}` in {file} fails: {run.message[:120]}",
                    f"One test fails: `{names[0]}` in {file}. The other {run.passed} pass."
                    if run.passed > 1
                    else f"One test fails: `{names[0]}` in {file}.",
                ]
            )
        )
    else:
        shown = ", ".join(f"`{name}`" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        talk.say(f"{len(names)} tests fail: {shown}{more}.")
    if rng.random() < 0.3:
        rest = one_fault(project, rng, runner, held, case)
        while not rest.messages[0].text or len(rest.messages[0].text) > 80:
            rest = one_fault(project, rng, runner, held, case)
        offset = len(talk.messages)
        talk.messages += [
            type(rest.messages[0])(rest.messages[0].role, rest.messages[0].parts),
            *rest.messages[1:],
        ]
        talk.silent |= {index + offset for index in rest.silent}
    return talk


def _which_fails(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, wording.WHICH_FAILS, held)
    talk.call("run_tests")
    count = project.baseline.passed
    talk.say(
        rng.choice(
            [
                f"No test fails: all {count} pass.",
                f"All {count} tests pass.",
                f"Everything is green: {plural(count, 'test')} passed.",
            ]
        )
    )


def _nothing_to_fix(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, wording.FIX, held)
    talk.call("run_tests")
    talk.say(f"All {project.baseline.passed} tests pass already; I changed nothing.")


def _functions(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(project.sources)
    _ask(talk, rng, wording.COUNT_FUNCTIONS, held, path=path)
    result = talk.call("grep", pattern="def ", path=path)
    rows = result.split("\n")
    names = [m[1] for row in rows if (m := re.search(r"\bdef (\w+)", row))]
    if not names:
        talk.say(f"{path} defines no functions.")
        return
    if len(names) > 14 or len(names) != len(rows):
        raise Unusable("too many functions")
    shown = ", ".join(f"`{name}`" for name in names)
    talk.say(f"{path} defines {shown}: {plural(len(names), 'function')}.")


def _line_of(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(sorted(project.files))
    lines = project.files[path].split("\n")
    numbers = [i for i, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise Unusable("empty")
    n = rng.choice(numbers)
    _ask(talk, rng, wording.LINE, held, path=path, n=n)
    talk.call("read_file", path=path, start=n, limit=1)
    talk.say(
        rng.choice(
            [f"Line {n} of {path} is `{lines[n - 1].strip()}`.", f"`{lines[n - 1].strip()}`"]
        )
    )


def _length(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(sorted(project.files))
    total = project.files[path].count("\n")
    if total < 2:
        raise Unusable("empty")
    _ask(talk, rng, wording.LENGTH, held, path=path)
    talk.call("read_file", path=path, start=1, limit=1)
    talk.say(f"{path} has {plural(total, 'line')}.")


def _files(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, wording.FILES, held)
    result = talk.call("list_dir")
    names = result.split("\n")
    if len(names) > 12:
        raise Unusable("too many files")
    talk.say("There " + ("are " if len(names) > 1 else "is ") + ", ".join(names) + ".")


def _uses(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    defined = definitions(project.files, project.sources)
    names = [n for n in defined if not n.startswith("__") and len(n) > 3]
    if not names:
        raise Unusable("no names")
    name = rng.choice(names)
    _ask(talk, rng, wording.USES, held, f=name)
    rows = talk.call("grep", pattern=name).split("\n")
    if len(rows) > 14:
        raise Unusable("too many uses")
    places: dict[str, list[str]] = {}
    for row in rows:
        path, line, _ = row.split(":", 2)
        places.setdefault(path, []).append(line)
    shown = "; ".join(
        f"{path} ({'line' if len(lines) == 1 else 'lines'} {', '.join(lines)})"
        for path, lines in places.items()
    )
    talk.say(f"`{name}` occurs in {shown}.")


def _thanks(talk: Conversation, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, wording.THANKS, held)
    talk.say(rng.choice(wording.WELCOME))


_KINDS = {
    _where: 3.0,
    _absent: 0.4,
    _constant: 2.5,
    _default: 1.0,
    _count_tests: 1.5,
    _which_fails: 3.0,
    _nothing_to_fix: 0.7,
    _functions: 1.2,
    _line_of: 0.8,
    _length: 0.6,
    _files: 0.7,
    _uses: 1.0,
}


# without a repository


def arithmetic(rng: random.Random, held: bool = False) -> Conversation:
    """A calculation or a count, made in the stream."""
    talk = Conversation(Workspace({}))
    if rng.random() < 0.2:
        word = rng.choice(_WORDS)
        letter = rng.choice(word if rng.random() < 0.85 else "xqzjk")
        _ask(talk, rng, wording.COUNT_LETTERS, held, c=letter, w=word)
        count = word.count(letter)
        talk.compute(f"'{word}'.count('{letter}')", str(count))
        talk.say(
            f'The letter "{letter}" occurs {count} time{"" if count == 1 else "s"} in "{word}".'
        )
        return talk
    shown, expression, value = _sum(rng)
    _ask(talk, rng, wording.ARITHMETIC, held, e=shown)
    talk.compute(expression, value)
    talk.say(
        rng.choice(
            [f"{value}", f"{shown} = {value}", f"That is {value}.", f"The result is {value}."]
        )
    )
    return talk


def _sum(rng: random.Random) -> tuple[str, str, str]:
    """(as a person writes it, as an expression, its value)"""
    size = rng.choice([10, 100, 1000, 100_000])
    a, b, c = (rng.randint(2, size) for _ in range(3))
    match rng.randrange(9):
        case 0:
            shown, expression = f"{a} + {b}", f"{a}+{b}"
        case 1:
            shown, expression = f"{a} * {b}", f"{a}*{b}"
        case 2:
            shown, expression = f"{a} - {b}", f"{a}-{b}"
        case 3:
            shown, expression = rng.choice(
                [(f"{a * b} / {b}", f"{a * b}/{b}"), (f"{a} / 4", f"{a}/4")]
            )
        case 4:
            shown, expression = f"({a} + {b}) * {c}", f"({a}+{b})*{c}"
        case 5:
            shown, expression = f"{a} * {b} + {c}", f"{a}*{b}+{c}"
        case 6:
            percent = rng.choice([5, 10, 12, 15, 19, 20, 25, 40, 75])
            shown, expression = f"{percent}% of {a}", f"{a}*{percent}/100"
        case 7:
            names = rng.choice([("plus", "+"), ("times", "*"), ("minus", "-")])
            shown, expression = f"{a} {names[0]} {b}", f"{a}{names[1]}{b}"
        case _:
            shown, expression = f"{a}x{b}", f"{a}*{b}"
    value = eval(expression, {"__builtins__": {}})
    if isinstance(value, float) and len(repr(value)) > 12:
        return _sum(rng)
    return shown, expression, repr(value)


_WORDS = [
    "strawberry",
    "banana",
    "mississippi",
    "refactoring",
    "repository",
    "parentheses",
    "bookkeeper",
    "committee",
    "python",
    "assessment",
    "programming",
    "algorithm",
    "balloon",
    "coffee",
    "engineering",
    "successful",
    "university",
    "letter",
    "television",
    "occurrence",
    "accommodation",
    "exception",
    "function",
    "variable",
    "parallel",
    "terminal",
    "keyboard",
]


def small_talk(rng: random.Random, held: bool = False) -> Conversation:
    """A greeting or a question about the model itself."""
    talk = Conversation(Workspace({}))
    if rng.random() < 0.5:
        _ask(talk, rng, wording.GREETING, held)
        talk.say(rng.choice(wording.HELLO))
    else:
        _ask(talk, rng, wording.WHO, held)
        talk.say(rng.choice(wording.ABOUT))
    if rng.random() < 0.2:
        _thanks(talk, rng, held)
    return talk


_VERBS = frozenset(
    [
        *["add", "implement", "build", "create", "write", "make", "set", "integrate", "design"],
        *["explain", "review", "refactor", "rewrite", "convert", "migrate", "port", "translate"],
        *["upgrade", "optimise", "improve", "document", "summarise", "plan", "book", "send"],
    ]
)


def decline(rng: random.Random, project: Project | None = None, held: bool = False) -> Conversation:
    """Something out of reach: one honest sentence and what to do instead."""
    talk = Conversation(Workspace({}))
    if rng.random() < 0.65:
        asked, what = beyond.request(rng, held)
    else:
        line = rng.choice(wording.phrases(decline_words.DECLINES, held))
        asked, what = (part.strip() for part in line.split("|"))
    if asked.split()[0].lower() in _VERBS and rng.random() < 0.25:
        asked = rng.choice(
            ["can you {}", "could you {}", "please {}", "I want you to {}", "I need you to {}"]
        ).format(asked)
    name, path = "parse", "app.py"
    if project is not None and project.sources:
        path = rng.choice(project.sources)
        defined = definitions(project.files, project.sources)
        name = rng.choice(list(defined)) if defined else name
    asked = asked.replace("{f}", name).replace("{path}", path)
    talk.user(wording.spoken(rng, asked, exact=[name, path]))
    talk.decline(rng.choice(decline_words.REASONS).format(what=what))
    return talk
