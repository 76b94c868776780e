"""Trajectories of questions, small talk and what the model must decline."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator

from training import beyond, wording
from training.names import NEW_NAMES
from training.projects import Project, definitions
from training.quick_tests import QuickTests
from training.repairs import break_project, one_fault
from training.trajectories import Conversation, Unusable, Workspace, plural
from training.wording import QUESTIONS, TALK


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
        return failing(project, rng, runner, held)
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
    exact = [str(value) for value in fields.values()]
    if rng.random() < 0.25 and not text.startswith(tuple(exact)):
        text = text[:1].upper() + text[1:]
    if talk.workspace.files and rng.random() < 0.12:
        if rng.random() < 0.5:
            text = f"{wording.phrase(rng, QUESTIONS['context_before'], held)} {text}"
        else:
            after = wording.phrase(rng, QUESTIONS["context_after"], held)
            text = f"{text}{'' if text[-1:] in '.?!' else '.'} {after}"
    talk.user(wording.spoken(rng, text, exact=exact))


def _where(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    defined = definitions(project.files, project.sources)
    names = [n for n in defined if not n.startswith("__")]
    if not names:
        raise Unusable("no names")
    name = rng.choice(names)
    _, _, kind = defined[name]
    shown = f"{name}()" if kind in ("function", "method") and rng.random() < 0.1 else name
    _ask(talk, rng, QUESTIONS["where"], held, f=shown, kind=rng.choice(_SAID_FOR[kind]))
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
    path, number, line = exact[0].split(":", 2)
    value = re.fullmatch(rf" {name} = ([^\s#][^#]{{,68}}?) *(#.*)?", line)
    if kind == "constant" and value:
        talk.say(_value_told(rng, name, value[1], path, number))
        return
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


def _value_told(rng: random.Random, name: str, value: str, path: str, line: object) -> str:
    """A constant's value and place; whichever was asked for, the answer has it."""
    return rng.choice(
        [
            f"`{name}` is `{value}` ({path}, line {line}).",
            f"{name} = {value}, in {path}, line {line}.",
            f"`{value}`. It is set in {path}, line {line}.",
        ]
    )


def _absent(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    name, kind = _unknown_name(rng)
    if name in "\n".join(project.files.values()):
        raise Unusable("it exists")
    if kind == "constant" and rng.random() < 0.6:
        _ask(talk, rng, QUESTIONS["constant"], held, name=name, words=_in_words(name))
    else:
        _ask(talk, rng, QUESTIONS["where"], held, f=name, kind=rng.choice(_SAID_FOR[kind]))
    first = {"class": f"class {name}", "constant": f"{name} =", "function": f"def {name}"}
    talk.call("grep", pattern=first[kind])
    talk.call("grep", pattern=name)
    talk.say(f"There is no `{name}` in this repository.")


def _unknown_name(rng: random.Random) -> tuple[str, str]:
    """A name that hardly any repository has, and its kind."""
    if rng.random() < 0.1:
        return rng.choice(["frobnicate", "get_total", "to_xml", "sync"]), "function"
    words = [rng.choice(_ACTIONS), *rng.sample(NEW_NAMES, rng.choice([1, 1, 2]))]
    match rng.randrange(4):
        case 0:
            return "".join(word.capitalize() for word in words[1:]) + rng.choice(_ROLES), "class"
        case 1:
            return rng.choice(["MAX_", "MIN_", "DEFAULT_", ""]) + words[-1].upper(), "constant"
        case _:
            return "_".join(words), "function"


_PARTS = """
get set load save parse read write find build make create update delete sync fetch send check
Manager Handler Builder Factory Error Parser Service Client Store Config Reader Runner Cache
"""
_ACTIONS, _ROLES = (line.split() for line in _PARTS.strip().split("\n"))
_SAID_FOR = {
    "function": ["function", "function", "func", "def", "helper", "routine"],
    "method": ["method", "method", "function", "func", "def"],
    "class": ["class", "class", "class", "type"],
    "constant": ["constant", "constant", "const", "variable", "var", "setting", "value"],
}


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
    words = _in_words(name)
    if re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)+", name) and rng.random() < 0.2:
        _ask(talk, rng, QUESTIONS["constant_words"], held, words=words)
    else:
        _ask(talk, rng, QUESTIONS["constant"], held, name=name, words=words)
    result = talk.call("grep", pattern=f"{name} =")
    if len(result.split("\n")) > 4:
        raise Unusable("several places")
    talk.say(_value_told(rng, name, value, path, line))


def _in_words(name: str) -> str:
    """``VAT_PERCENT`` → vat percent"""
    return name.strip("_").lower().replace("_", " ")


def _default(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    found = [
        (owner, function, argument, value, path)
        for path in project.sources
        for owner, function, argument, value in _defaults(project.files[path])
    ]
    if not found:
        raise Unusable("no defaults")
    owner, function, name, value, path = rng.choice(found)
    if owner:  # of a constructor: all constructors have the same name, so look for the parameter
        _ask(talk, rng, QUESTIONS["default_new"], held, name=name, f=owner)
        result = talk.call("grep", pattern=f"def __init__.*{name}")
    else:
        _ask(talk, rng, QUESTIONS["default"], held, name=name, f=function)
        result = talk.call("grep", pattern=f"def {function}")
    row = re.fullmatch(r"[^:\n]+:(\d+): (.*)", result)
    if row is None or name not in row[2]:
        raise Unusable("not in one line")
    talk.say(
        rng.choice(
            [
                f"The default of `{name}` in `{owner or function}` is `{value}` ({path}, line "
                f"{row[1]}).",
                f"`{value}` ({path}, line {row[1]}).",
            ]
        )
    )


def _defaults(source: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (class if it is a constructor, function, parameter, default)."""
    tree = ast.parse(source)
    owners = {
        id(node): owner.name
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not node.args.defaults:
            continue
        new = node.name == "__init__"
        if new and id(node) not in owners:
            continue
        arguments = node.args.args[-len(node.args.defaults) :]
        for argument, default in zip(arguments, node.args.defaults, strict=True):
            value = ast.get_source_segment(source, default) or ""
            yield owners[id(node)] if new else "", node.name, argument.arg, value


def _count_tests(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    if rng.random() < 0.3:
        _count_tests_of(talk, project, rng, held)
        return
    _ask(talk, rng, QUESTIONS["count_tests"], held)
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


def _count_tests_of(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(project.tests)
    _ask(talk, rng, QUESTIONS["count_tests_file"], held, path=path)
    talk.call("run_tests", path=path)
    count = talk.workspace.test_run(path).passed
    talk.say(rng.choice([f"{path} has {plural(count, 'test')}.", f"{plural(count, 'test')}."]))


def failing(project: Project, rng: random.Random, runner: QuickTests, held: bool) -> Conversation:
    """Which test fails, or how many tests, of a project with a fault; sometimes then repaired."""
    case = break_project(project, rng, runner)
    space = Workspace(case.files, runner)
    space.known += [(case.files, case.run), (project.files, project.baseline)]
    talk = Conversation(space)
    run = case.run
    if not run.failed:
        raise Unusable("no failed test")
    if rng.random() < 0.25 and run.passed and not run.errors:
        _ask(talk, rng, QUESTIONS["count_tests"], held)
        talk.call("run_tests")
        failed = len(run.failed)
        talk.compute(f"{failed}+{run.passed}", str(failed + run.passed))
        total = plural(failed + run.passed, "test")
        talk.say(f"There are {total}: {failed} failed, {run.passed} passed.")
        return talk
    _ask(talk, rng, QUESTIONS["which_fails"], held)
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
    _ask(talk, rng, QUESTIONS["which_fails"], held)
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
    _ask(talk, rng, wording.REPAIRS["fix"], held)
    talk.call("run_tests")
    talk.say(f"All {project.baseline.passed} tests pass already; I changed nothing.")


def _functions(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(project.sources)
    _ask(talk, rng, QUESTIONS["count_functions"], held, path=path)
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


def _classes(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    having = [path for path in project.sources if _class_names(project.files[path])]
    path = rng.choice(having if having and rng.random() < 0.85 else project.sources)
    names = _class_names(project.files[path])
    _ask(talk, rng, QUESTIONS["count_classes"], held, path=path)
    result = talk.call("grep", pattern="class ", path=path)
    if not names:
        talk.say(f"{path} defines no classes.")
        return
    if len(result.split("\n")) > 14:
        raise Unusable("too many classes")
    shown = ", ".join(f"`{name}`" for name in names)
    talk.say(f"{path} defines {shown}: {len(names)} class{'es' if len(names) > 1 else ''}.")


def _class_names(source: str) -> list[str]:
    """The classes of a file, from top to bottom."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [node.name for node in sorted(found, key=lambda node: node.lineno)]


def _methods(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    """The methods of a class: those after its line, as the list of all functions shows them."""
    found = [
        (node, path)
        for path in project.sources
        for node in ast.parse(project.files[path]).body
        if isinstance(node, ast.ClassDef)
    ]
    if not found:
        raise Unusable("no classes")
    node, path = rng.choice(found)
    names = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
    _ask(talk, rng, QUESTIONS["methods"], held, f=node.name)
    if talk.call("grep", pattern=f"class {node.name}").count("\n"):
        raise Unusable("several places")
    rows = re.findall(r"^[^:\n]+:(\d+): ", talk.call("grep", pattern="def ", path=path), re.M)
    last = node.end_lineno or node.lineno
    if len(rows) > 30 or sum(node.lineno < int(row) <= last for row in rows) != len(names):
        raise Unusable("functions within methods, or too many")
    if not names:
        talk.say(f"`{node.name}` has no methods.")
        return
    shown = ", ".join(f"`{name}`" for name in names)
    talk.say(f"`{node.name}` has {shown}: {plural(len(names), 'method')}.")


def _parameters(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    found = [
        (node, path)
        for path in project.sources
        for node in ast.walk(ast.parse(project.files[path]))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
    ]
    if not found:
        raise Unusable("no functions")
    node, path = rng.choice(found)
    name = node.name
    _ask(talk, rng, QUESTIONS["parameters"], held, f=name)
    row = re.fullmatch(r"[^:\n]+:(\d+): (.*)", talk.call("grep", pattern=f"def {name}"))
    if row is None or not re.search(rf"\bdef {name}\(.*\).*:", row[2]):
        raise Unusable("not in one line")
    names = _parameter_names(node.args)
    place = f"({path}, line {row[1]})"
    if not names:
        talk.say(f"`{name}` takes no parameters {place}.")
        return
    shown = ", ".join(f"`{name}`" for name in names)
    talk.say(f"`{name}` takes {shown}: {plural(len(names), 'parameter')} {place}.")


def _parameter_names(arguments: ast.arguments) -> list[str]:
    """In the order of the definition, without ``self`` and ``cls``."""
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if plain[:1] in (["self"], ["cls"]):
        del plain[0]
    several = [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    named = [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return [*plain, *several, *(argument.arg for argument in arguments.kwonlyargs), *named]


def _line_of(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    path = rng.choice(sorted(project.files))
    lines = project.files[path].split("\n")
    numbers = [i for i, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise Unusable("empty")
    n = rng.choice(numbers)
    _ask(talk, rng, QUESTIONS["line"], held, path=path, n=n)
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
    _ask(talk, rng, QUESTIONS["length"], held, path=path)
    talk.call("read_file", path=path, start=1, limit=1)
    talk.say(f"{path} has {plural(total, 'line')}.")


def _files(talk: Conversation, project: Project, rng: random.Random, held: bool) -> None:
    _ask(talk, rng, QUESTIONS["files"], held)
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
    _ask(talk, rng, QUESTIONS["uses"], held, f=name)
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
    _ask(talk, rng, TALK["thanks"], held)
    talk.say(rng.choice(WELCOME))


_KINDS = {
    _where: 3.0,
    _absent: 0.8,
    _constant: 2.5,
    _default: 1.6,
    _count_tests: 2.0,
    _which_fails: 3.0,
    _nothing_to_fix: 0.7,
    _functions: 1.2,
    _classes: 0.8,
    _parameters: 0.8,
    _methods: 1.2,
    _line_of: 0.8,
    _length: 0.6,
    _files: 0.7,
    _uses: 1.0,
}


HELLO = [
    "Hello! I am agentcli's small built-in model. I can fix small faults that tests show, rename "
    "things and answer simple questions about this repository.",
    "Hi! Ask me to fix a failing test, to rename something, or where something is defined.",
]
ABOUT = [
    "I am agentcli's embedded model: small, offline, trained on Python. I run tests, fix faults of "
    "a line or two, rename things and answer simple questions. For more, set ANTHROPIC_API_KEY or "
    "OPENAI_API_KEY, or use --model local:PATH.",
    "I am a small model that runs on your machine without a network. I can find and fix small "
    "faults in Python code, rename across files and look things up in the repository.",
]
WELCOME = ["You're welcome.", "Glad to help.", "You're welcome!"]


def small_talk(rng: random.Random, held: bool = False) -> Conversation:
    """A greeting or a question about the model itself."""
    talk = Conversation(Workspace({}))
    if rng.random() < 0.5:
        _ask(talk, rng, TALK["greeting"], held)
        talk.say(rng.choice(HELLO))
    else:
        _ask(talk, rng, TALK["who"], held)
        talk.say(rng.choice(ABOUT))
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
    asked, what = beyond.request(rng, held)
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
    talk.decline(rng.choice(beyond.REASONS).format(what=what))
    return talk
