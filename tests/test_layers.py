"""Rules for the layout of the package, checked on the syntax trees of its modules.

Every import counts: at the top of a module, inside a function, for types only, or by name through
``import_module``. Each rule returns all its violations as ``file:line: what``.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "agentcli"

LAYERS = (
    "errors",
    "messages",
    "text",
    "image_formats",
    "extras",
    "folders",
    "diff",
    "settings",
    "settings_reference",
    "trust",
    "config",
    "prompts",
    "front_matter",
    "task",
    "skills",
    "slash_commands",
    "plugins",
    "images",
    "embedded",
    "model",
    "inference",
    "sandbox",
    "llm",
    "environments",
    "tools",
    "agent",
    "session",
    "wording",
    "questions",
    "user_hooks",
    "delegation",
    "changes",
    "own_changes",
    "workspace_archive",
    "answer_schema",
    "wiring",
    "tui",
    "acp",
    "cli",
    "__main__",
)
"""From the bottom up. A module imports only from its own layer and those below it."""

NEVER_SEES: Mapping[str, frozenset[str]] = {
    "model": frozenset({"messages"}),
    "inference": frozenset({"messages"}),
    "tools": frozenset({"agent"}),
}
"""Imports that are forbidden although the order of the layers would allow them."""

LAZY = (
    "__init__.py",  # loads a public name when it is first used
    *("cli/", "wiring/", "llm/registry.py", "llm/keys.py", "model/attention.py", "tools/mcp/"),
    "model/pack.py",  # Triton is installed only beside CUDA
    "tools/command_line.py",  # tree-sitter takes 30 ms, which most sessions never need
    "llm/sdk_import.py",  # its purpose is to defer imports
    *("tools/fetch.py", "tools/web_page.py"),  # so do the libraries of the "web" extra
    *("task.py", "skills.py"),  # and so does YAML
    "plugins.py",  # and the metadata of all installed packages
    "environments/worker.py",  # a session waits for it to start
    "environments/forking.py",  # runs in the workspace's interpreter, with its packages
)
"""Modules that may import inside a function, mostly to start fast."""

STARTS_PROCESSES = (
    "sandbox/",
    "tools/mcp/",  # MCP servers are the user's own programs
    "environments/worker.py",  # runs ripgrep, itself inside a sandbox
    "environments/runner.py",  # runs commands on the remote machine
    "environments/forking.py",  # forks for each test run, itself inside a sandbox
)

ON_ANY_MACHINE = (
    "environments/worker.py",
    "environments/runner.py",
    "environments/forking.py",
)

AGENT_KNOWS: Mapping[str, frozenset[str]] = {
    "llm": frozenset({"client", "tokens", "pricing"}),
    "tools": frozenset({"base", "registry", "permissions", "middleware"}),
    "environments": frozenset({"base"}),
}
"""``agent/`` depends on protocols only; ``wiring/`` picks providers, tools and environments."""

PLACES: Mapping[str, tuple[str, ...]] = {
    "torch": ("model", "inference"),
    "llguidance": ("inference",),
    "openai": ("llm",),
    "anthropic": ("llm",),
    "tiktoken": ("model", "llm"),
    "textual": ("tui",),
    "typer": ("cli",),
    "rich": ("tui", "cli"),
    "mcp": ("tools",),
    "acp": ("acp", "cli"),
    "ray": ("cli",),
    "tree_sitter": ("tools",),
}
"""Libraries that only these layers may import."""

VAGUE = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"})


class Import(NamedTuple):
    """One import. ``target`` is an absolute name, like ``agentcli.llm.client`` or ``torch``."""

    target: str
    line: int
    lazy: bool


@functools.cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


@dataclass(frozen=True)
class Source:
    """A module: its path relative to the package, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    @property
    def name(self) -> str:
        """The dotted name, like ``agentcli.llm.client``; without ``__init__`` for a package."""
        dotted = self.path.removesuffix(".py").replace("/", ".").removesuffix("__init__")
        return f"agentcli.{dotted}".rstrip(".")

    @property
    def layer(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")


Rule = Callable[[list[Source]], list[str]]


def all_sources() -> list[Source]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [Source(p.relative_to(PACKAGE).as_posix(), p.read_text(encoding="utf-8")) for p in paths]


def imports(source: Source, modules: frozenset[str] = frozenset()) -> list[Import]:
    """Every import of a module. ``from a import b`` imports ``a.b`` if that is in ``modules``."""
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            for target in _targets(child, source, modules):
                found.append(Import(target, getattr(child, "lineno", 0), lazy))
            visit(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(source.tree, False)
    return found


def _targets(node: ast.AST, source: Source, modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = source.name.split(".")
            if not source.path.endswith("__init__.py"):
                package.pop()
            kept = package[: len(package) - node.level + 1]
            base = ".".join([*kept, base]) if base else ".".join(kept)
        for alias in node.names:
            deeper = f"{base}.{alias.name}"
            yield deeper if deeper in modules else base
    elif isinstance(node, ast.Call):
        function = node.func
        name = getattr(function, "attr", None) or getattr(function, "id", None)
        if name in ("import_module", "__import__") and node.args:
            argument = node.args[0]
            # A name computed at run time may import anything.
            yield str(argument.value) if isinstance(argument, ast.Constant) else "?"


def _own(sources: list[Source]) -> Iterator[tuple[Source, Import, str]]:
    """Imports within the package, each with the layer of the imported module."""
    modules = frozenset(source.name for source in sources)
    for source in sources:
        for one in imports(source, modules):
            first, _, rest = one.target.partition(".")
            if first == "agentcli" and rest:
                yield source, one, rest.split(".")[0]


def _at(source: Source, line: int, what: str) -> str:
    return f"{source.path}:{line}: {what}"


# The rules


def every_module_has_a_layer(sources: list[Source]) -> list[str]:
    return [
        _at(source, 1, "no layer: name it in LAYERS")
        for source in sources
        if source.layer not in LAYERS and source.path != "__init__.py"
    ]


def imports_run_downwards(sources: list[Source]) -> list[str]:
    faults = []
    for source, one, layer in _own(sources):
        known = layer in LAYERS and source.layer in LAYERS
        if source.path == "__init__.py" or not known:
            faults.append(_at(source, one.line, f"imports {one.target}"))
        elif LAYERS.index(layer) > LAYERS.index(source.layer):
            faults.append(_at(source, one.line, f"imports {one.target}, upwards"))
    return faults


def some_layers_never_see_each_other(sources: list[Source]) -> list[str]:
    return [
        _at(source, one.line, f"{source.layer} must not see {layer}")
        for source, one, layer in _own(sources)
        if layer in NEVER_SEES.get(source.layer, frozenset())
    ]


def modules_do_not_import_each_other_in_circles(sources: list[Source]) -> list[str]:
    names = {source.name for source in sources}
    below = {source.name: set[str]() for source in sources}
    for source, one, _ in _own(sources):
        if one.target in names and one.target != source.name:
            below[source.name].add(one.target)

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in below[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    reach = {name: reaches(name) for name in names}
    return [f"{name} imports itself in a circle" for name in sorted(names) if name in reach[name]]


def agent_names_no_provider_tool_or_environment(sources: list[Source]) -> list[str]:
    faults = []
    for source, one, layer in _own(sources):
        if source.layer == "agent" and layer in AGENT_KNOWS:
            module = one.target.split(".")[2:3]
            if not set(module) <= AGENT_KNOWS[layer] or not module:
                faults.append(_at(source, one.line, f"imports {one.target}"))
    concrete = _tool_names(sources) | {"openai", "anthropic"}
    for source in sources:
        if source.layer == "agent":
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Constant) and node.value in concrete:
                    faults.append(_at(source, node.lineno, f"names {node.value!r}"))
    return faults


def _tool_names(sources: list[Source]) -> set[str]:
    """The names of the built-in tools, from the table in tools/builtin.py."""
    builtin = next((source for source in sources if source.path == "tools/builtin.py"), None)
    if builtin is None:
        return set()
    tables = [node for node in ast.walk(builtin.tree) if isinstance(node, ast.Tuple)]
    firsts = [table.elts[0] for table in tables if len(table.elts) == 3]
    return {first.id for first in firsts if isinstance(first, ast.Name)}


def imports_are_lazy_only_in_a_few_places(sources: list[Source]) -> list[str]:
    return [
        _at(source, one.line, f"imports {one.target} inside a function")
        for source in sources
        if not source.path.startswith(LAZY)
        for one in imports(source)
        if one.lazy
    ]


def libraries_have_their_places(sources: list[Source]) -> list[str]:
    return [
        _at(source, one.line, f"{source.layer} must not know {library}")
        for source in sources
        for one in imports(source)
        if (library := one.target.split(".")[0]) in PLACES and source.layer not in PLACES[library]
    ]


_STARTS = re.compile(
    r"os\.(fork|forkpty|system|popen|startfile|posix_spawnp?|spawn[lv]p?e?|exec[lv]p?e?)"
    r"|(asyncio\.)?create_subprocess_(exec|shell)|.*\.subprocess_(exec|shell)"
    r"|(concurrent\.futures\.)?(process\.)?ProcessPoolExecutor"
)


def processes_start_only_in_the_sandbox(sources: list[Source]) -> list[str]:
    faults = []
    for source in sources:
        if source.path.startswith(STARTS_PROCESSES):
            continue
        for one in imports(source):
            if one.target.split(".")[0] in ("subprocess", "multiprocessing", "pty", "pexpect"):
                faults.append(_at(source, one.line, f"imports {one.target}"))
        for node in ast.walk(source.tree):
            names = [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            faults += [_at(source, node.lineno, n) for n in names if _STARTS.fullmatch(n)]  # type: ignore[attr-defined]
    return faults


def nothing_runs_between_fork_and_exec(sources: list[Source]) -> list[str]:
    return [
        _at(source, node.value.lineno, "preexec_fn")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn"
    ]


def the_worker_runs_on_any_machine(sources: list[Source]) -> list[str]:
    """These modules are sent to machines that may have only Python 3.8."""
    faults = []
    for source in sources:
        if source.path not in ON_ANY_MACHINE:
            continue
        try:
            ast.parse(source.text, feature_version=(3, 8))
        except SyntaxError as error:
            faults.append(_at(source, error.lineno or 0, error.msg))
        for one in imports(source):
            if source.path == "environments/forking.py":
                continue  # it imports packages of the workspace's interpreter
            if one.target.split(".")[0] not in sys.stdlib_module_names:
                faults.append(_at(source, one.line, f"imports {one.target}"))
    return faults


def names_say_something(sources: list[Source]) -> list[str]:
    faults = []
    for source in sources:
        words = set(re.split(r"[/_.]", source.path.lower()))
        if words & VAGUE:
            faults.append(_at(source, 1, f"the file's name says {', '.join(words & VAGUE)}"))
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                last = re.split(r"(?=[A-Z])", node.name)[-1].lower()
                if last in VAGUE:
                    faults.append(_at(source, node.lineno, f"class {node.name}"))
    return faults


RULES: tuple[Rule, ...] = (
    every_module_has_a_layer,
    imports_run_downwards,
    some_layers_never_see_each_other,
    modules_do_not_import_each_other_in_circles,
    agent_names_no_provider_tool_or_environment,
    imports_are_lazy_only_in_a_few_places,
    libraries_have_their_places,
    processes_start_only_in_the_sandbox,
    nothing_runs_between_fork_and_exec,
    the_worker_runs_on_any_machine,
    names_say_something,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    assert rule(all_sources()) == []


# Each rule finds a violation


class Violation(NamedTuple):
    """A module that violates a rule, and a path where the same text is allowed."""

    rule: Rule
    path: str
    text: str
    allowed: str = ""


IN_FUNCTION = "def f():\n    {}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"

VIOLATIONS = (
    Violation(every_module_has_a_layer, "gadgets/x.py", "", "tools/x.py"),
    Violation(every_module_has_a_layer, "extra.py", "", "text.py"),
    Violation(imports_run_downwards, "llm/x.py", "import agentcli.tools.base", "agent/x.py"),
    Violation(imports_run_downwards, "llm/x.py", "from agentcli.tools import base", "agent/x.py"),
    Violation(imports_run_downwards, "llm/x.py", "from agentcli import tools", "agent/x.py"),
    Violation(imports_run_downwards, "llm/x.py", "from ..tools import base", "agent/x.py"),
    Violation(
        imports_run_downwards, "llm/__init__.py", "from .. import tools", "agent/__init__.py"
    ),
    Violation(
        imports_run_downwards,
        "sandbox/x.py",
        IN_FUNCTION.format("from agentcli.llm import client"),
        "wiring/x.py",
    ),
    Violation(
        imports_run_downwards,
        "sandbox/x.py",
        FOR_TYPES.format("from agentcli.llm.client import LLMClient"),
        "tools/x.py",
    ),
    Violation(
        imports_run_downwards,
        "llm/x.py",
        'import importlib\nimportlib.import_module("agentcli.agent.kernel")',
        "cli/x.py",
    ),
    Violation(imports_run_downwards, "errors.py", "import agentcli.messages", "messages.py"),
    Violation(imports_run_downwards, "__init__.py", "from agentcli.errors import AgentCLIError"),
    Violation(
        some_layers_never_see_each_other,
        "model/x.py",
        "from agentcli.messages import Message",
        "llm/x.py",
    ),
    Violation(
        some_layers_never_see_each_other,
        "inference/x.py",
        FOR_TYPES.format("from agentcli.messages import Message"),
        "llm/x.py",
    ),
    Violation(
        some_layers_never_see_each_other,
        "tools/x.py",
        IN_FUNCTION.format("import agentcli.agent"),
        "session/x.py",
    ),
    Violation(
        agent_names_no_provider_tool_or_environment,
        "agent/x.py",
        "from agentcli.tools.shell import shell",
        "wiring/x.py",
    ),
    Violation(
        agent_names_no_provider_tool_or_environment,
        "agent/x.py",
        "from agentcli.llm import openai",
        "wiring/x.py",
    ),
    Violation(
        agent_names_no_provider_tool_or_environment,
        "agent/x.py",
        "from agentcli import tools",
        "wiring/x.py",
    ),
    Violation(
        agent_names_no_provider_tool_or_environment,
        "agent/x.py",
        'if call.name == "search_replace": pass',
        "cli/x.py",
    ),
    Violation(
        imports_are_lazy_only_in_a_few_places,
        "llm/x.py",
        IN_FUNCTION.format("import openai"),
        "llm/registry.py",
    ),
    Violation(
        imports_are_lazy_only_in_a_few_places,
        "agent/x.py",
        "class A:\n    async def f(self):\n        from agentcli import text\n",
        "cli/x.py",
    ),
    Violation(
        imports_are_lazy_only_in_a_few_places,
        "tools/x.py",
        IN_FUNCTION.format("importlib.import_module(name)"),
        "tools/mcp/server.py",
    ),
    Violation(libraries_have_their_places, "llm/x.py", "import torch.nn", "model/x.py"),
    Violation(libraries_have_their_places, "agent/x.py", "from openai import OpenAI", "llm/x.py"),
    Violation(libraries_have_their_places, "cli/x.py", "from textual.app import App", "tui/x.py"),
    Violation(
        processes_start_only_in_the_sandbox, "tools/x.py", "import subprocess", "sandbox/x.py"
    ),
    Violation(
        processes_start_only_in_the_sandbox,
        "cli/x.py",
        IN_FUNCTION.format("from subprocess import run"),
        "tools/mcp/server.py",
    ),
    Violation(processes_start_only_in_the_sandbox, "tui/x.py", "import os\nos.system('ls')"),
    Violation(processes_start_only_in_the_sandbox, "tui/x.py", "from os import execvp"),
    Violation(processes_start_only_in_the_sandbox, "agent/x.py", "import os\npid = os.fork()"),
    Violation(
        processes_start_only_in_the_sandbox,
        "llm/x.py",
        "import asyncio\nasyncio.create_subprocess_exec('ls')",
    ),
    Violation(
        processes_start_only_in_the_sandbox,
        "llm/x.py",
        "from concurrent.futures import ProcessPoolExecutor",
    ),
    Violation(
        nothing_runs_between_fork_and_exec,
        "sandbox/x.py",
        "subprocess.Popen(['ls'], preexec_fn=setup)",
    ),
    Violation(the_worker_runs_on_any_machine, "environments/worker.py", "import pathspec"),
    Violation(
        the_worker_runs_on_any_machine,
        "environments/worker.py",
        "match 1:\n    case 1:\n        pass\n",
        "environments/x.py",
    ),
    Violation(names_say_something, "tools/shell_utils.py", "", "tools/shell.py"),
    Violation(names_say_something, "common/x.py", "", "tools/x.py"),
    Violation(names_say_something, "agent/x.py", "class SessionManager: pass"),
)


def _fake(path: str, text: str) -> list[Source]:
    """The module, and the ones that it refers to."""
    others = (
        "__init__.py errors.py messages.py llm/__init__.py llm/client.py llm/openai.py "
        "tools/__init__.py tools/base.py tools/shell.py agent/__init__.py agent/kernel.py"
    )
    table = "TABLE = ((search_replace, EDIT, {}), (shell, RUN, {}))"
    sources = [Source(other, "") for other in others.split() if other != path]
    return [*sources, Source("tools/builtin.py", table), Source(path, text)]


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda b: f"{b.rule.__name__}-{b.path}")
def test_a_violation_is_found(violation: Violation) -> None:
    faults = violation.rule(_fake(violation.path, violation.text))
    assert len(faults) >= 1 and all(fault.startswith(violation.path) for fault in faults)
    if violation.allowed:
        assert violation.rule(_fake(violation.allowed, violation.text)) == []


def test_a_circle_is_found() -> None:
    a = Source("agent/a.py", "from agentcli.agent import b")
    b = Source("agent/b.py", "from agentcli.agent.c import x")
    c = Source("agent/c.py", IN_FUNCTION.format("import agentcli.agent.a"))
    d = Source("agent/d.py", "import agentcli.agent.a")
    assert modules_do_not_import_each_other_in_circles([a, b, c, d]) == [
        f"agentcli.agent.{name} imports itself in a circle" for name in "abc"
    ]
    assert modules_do_not_import_each_other_in_circles([a, b, d]) == []


def test_every_rule_is_shown_to_fail() -> None:
    shown = {violation.rule for violation in VIOLATIONS} | {
        modules_do_not_import_each_other_in_circles
    }
    assert shown == set(RULES)


def test_there_is_something_to_read() -> None:
    names = {source.name for source in all_sources()}
    assert {"agentcli", "agentcli.errors", "agentcli.agent.kernel", "agentcli.tools.base"} <= names
