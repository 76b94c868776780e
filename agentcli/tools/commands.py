"""Detects the command that tests, builds or lints a project from its files."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentcli.environments.base import Environment
from agentcli.errors import ToolError
from agentcli.sandbox.limits import CHECK
from agentcli.text import counted
from agentcli.tools.project import (
    Project,
    has_sources_in_src,
    look_at,
    only_unittest,
    python_test_files,
)
from agentcli.tools.python import find_python, own_venv, shown_python
from agentcli.tools.report import QUIET, shown_command
from agentcli.tools.unittests import discoveries

# One of several runs. Python 3.12 exits with 5 for "no tests", which alone is not a failure.
_EACH = "{} || {{ code=$?; [ $code -eq 5 ] || status=$code; }}"
_PYTEST = ("-m", "pytest", "-q", "--tb=short", "--no-header", "-p", "no:cacheprovider")
# Leaves out hidden folders.
_COMPILE = ("-m", "compileall", "-q", "-f", "-x", r"/\.|/node_modules/", ".")
# Bytecode goes into a temporary folder.
_COMPILE_ASIDE = """
PYTHONPYCACHEPREFIX=$(mktemp -d) || exit
export PYTHONPYCACHEPREFIX
trap 'rm -rf "$PYTHONPYCACHEPREFIX"' EXIT
"$@"
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and how it is shown to the model if that differs.

    ``notes`` tell the model about the choice of the command.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    shown: str = ""
    notes: tuple[str, ...] = ()


async def command_to_test(environment: Environment, path: str | None = None) -> Command | None:
    """The command for all of the project's tests, or those in ``path``; None if there are none.

    Raises:
        ToolError: the tests cannot be limited to a path, or no Python was found to run them.
    """
    project = await look_at(environment)
    files = await python_test_files(environment)
    other = _other_tests(project, None)
    wanted = bool(files) or project.configures_pytest or (path or "").endswith(".py")
    if wanted and (other is None or project.is_python or project.configures_pytest or path):
        command = await _python_tests(environment, project, files, path)
        return command if path or other is None else _also_found(command, other)
    if other is not None and path is None and files:
        count = counted(len(files), "Python test file")
        return replace(other, notes=(f"also found: {count} (not run)",))
    return _other_tests(project, path)


def _other_tests(project: Project, path: str | None) -> Command | None:
    """The command for tests in languages other than Python."""
    if "Cargo.toml" in project.names:
        return _whole(Command(("cargo", "test")), path)
    if "go.mod" in project.names:
        return Command(("go", "test", _go_packages(path)))
    if "test" in project.scripts:
        return _script(project, "test", path)
    if "test" in project.targets:
        return _whole(Command(("make", "test")), path)
    return None


def _also_found(command: Command, other: Command) -> Command:
    if other.argv[0] == "make":  # it usually runs these same tests
        return command
    note = f"also found: {shown_command(other.argv)} (not run)"
    return replace(command, notes=(*command.notes, note))


async def _python_tests(
    environment: Environment, project: Project, files: list[str], path: str | None
) -> Command:
    env = {"PYTHONPATH": "src"} if await has_sources_in_src(environment, project) else {}
    plain = await only_unittest(environment)
    venv = await own_venv(environment)
    notes: list[str] = []
    if project.configures_pytest or not plain:
        interpreter = await find_python(environment, "pytest")
        passed_over = venv if not _is_in(venv, interpreter) else ""
        starts = not passed_over or _is_in(venv, await find_python(environment))
        if interpreter is not None and not (plain and passed_over and starts):
            if passed_over:
                notes.append(f"{_lack(venv, 'pytest', starts)}; ran with {interpreter}")
            arguments = (*_PYTEST, *([path] if path else []))
            return _python_command(interpreter, arguments, env, passed_over, notes)
        if starts:
            notes.append(_lack(venv, "pytest", starts))
    interpreter = await find_python(environment)
    if interpreter is None:
        raise ToolError("no Python interpreter was found in this environment")
    passed_over = venv if not _is_in(venv, interpreter) else ""
    if passed_over:
        notes.append(f"{_lack(venv, '', False)}; ran with {interpreter}")
    runs = [
        _python_command(interpreter, ("-m", "unittest", *run), env, passed_over)
        for run in await _unittest(environment, files, path)
    ]
    if len(runs) == 1:
        return replace(runs[0], notes=tuple(notes))
    shown = "; ".join(run.shown for run in runs)
    script = "\n".join(_EACH.format(shlex.join(run.argv)) for run in runs)
    argv = ("/bin/sh", "-c", f"status=0\n{script}\nexit $status")
    return Command(argv, env, shown, tuple(notes))


def _is_in(venv: str, interpreter: str | None) -> bool:
    """Whether the interpreter is that of the virtual environment; true if there is no venv."""
    return not venv or (interpreter or "").startswith(f"{venv}/")


def _lack(venv: str, module: str, starts: bool) -> str:
    if not starts:
        return f"{venv}/bin/python does not start"
    return f"{module} is not installed{f' in {venv}' if venv else ''}"


async def _unittest(
    environment: Environment, files: list[str], path: str | None
) -> list[tuple[str, ...]]:
    if path is not None and ".py" in path:
        file, *names = path.split("::")
        if not names:
            return [(file,)]
        module = file.removeprefix("./").removesuffix(".py").replace("/", ".")
        return [(".".join([module, *names]),)]
    found = await environment.glob("**/__init__.py", limit=5000)
    packages = {file.rpartition("/")[0] for file in found} - {""}
    if path is not None:
        path = posixpath.relpath(path, environment.root if path.startswith("/") else ".")
    return discoveries(files, packages, path)


async def command_to_build(environment: Environment) -> Command | None:
    """The command that builds the project, or None."""
    project = await look_at(environment)
    if "Cargo.toml" in project.names:
        return Command(("cargo", "build"))
    if "go.mod" in project.names:
        return Command(("go", "build", "./..."))
    if "build" in project.scripts:
        return _script(project, "build")
    if "build" in project.targets:
        return Command(("make", "build"))
    if not project.is_python and project.targets:
        return Command(("make",))
    if project.is_python or await environment.glob("**/*.py", limit=1):
        interpreter = await find_python(environment)
        if interpreter is not None:
            command = _python_command(interpreter, _COMPILE)
            argv = ("/bin/sh", "-c", _COMPILE_ASIDE, "sh", *command.argv)
            return Command(argv, shown=command.shown)
    return None


async def command_to_lint(environment: Environment, path: str | None = None) -> Command | None:
    """The command that lints the project, or None.

    Raises:
        ToolError: the configured linter is not installed, or cannot be limited to ``path``.
    """
    project = await look_at(environment)
    ruff = project.has("ruff.toml", ".ruff.toml") or project.configures("ruff")
    flake8 = project.has(".flake8") or "flake8" in project.sections
    for configured, linter in ((ruff, "ruff"), (flake8, "flake8")):
        if configured:
            command = await _python_linter(environment, linter, path)
            if command is None:
                raise ToolError(f"the project configures {linter}, but it is not installed")
            return command
    if "lint" in project.targets:
        return _whole(Command(("make", "lint")), path)
    if "lint" in project.scripts:
        return _script(project, "lint", path)
    if any(name.startswith(("eslint.config.", ".eslintrc")) for name in project.names):
        return Command(("npx", "--no-install", "eslint", path or "."))
    if "Cargo.toml" in project.names:
        return _whole(Command(("cargo", "clippy")), path)
    if "go.mod" in project.names:
        return Command(("go", "vet", _go_packages(path)))
    if project.is_python or await environment.glob("**/*.py", limit=1):
        return await _python_linter(environment, "ruff", path) or await _python_linter(
            environment, "flake8", path
        )
    return None


async def _python_linter(environment: Environment, name: str, path: str | None) -> Command | None:
    arguments = ("check", "--no-cache", path or ".") if name == "ruff" else (path or ".",)
    interpreter = await find_python(environment, name)
    if interpreter is not None:
        return _python_command(interpreter, ("-m", name, *arguments))
    found = await environment.exec(
        ("/bin/sh", "-c", 'command -v "$1"', "sh", name), limits=CHECK, env=QUIET
    )
    return Command((name, *arguments)) if found.success else None


def _script(project: Project, name: str, path: str | None = None) -> Command:
    manager = project.package_manager
    argv: tuple[str, ...] = (manager, "run", name)
    if path:
        argv += ("--", path) if manager == "npm" else (path,)
    return Command(argv)


def _go_packages(path: str | None) -> str:
    if path is None:
        return "./..."
    folder = path.rpartition("/")[0] if path.endswith(".go") else path.rstrip("/") + "/..."
    return folder if folder.startswith(("./", "/")) else f"./{folder}"


def _whole(command: Command, path: str | None) -> Command:
    """The command, for programs that cannot be limited to a path; raises ``ToolError`` if asked."""
    if path is not None:
        raise ToolError(
            f"{shown_command(command.argv)} cannot be limited to {path}; leave path out"
        )
    return command


def _python_command(
    interpreter: str,
    arguments: tuple[str, ...],
    env: Mapping[str, str] | None = None,
    passed_over: str = "",
    notes: Sequence[str] = (),
) -> Command:
    """``passed_over`` is the workspace's virtual environment if the interpreter is another."""
    shown = shown_command((shown_python(interpreter, passed_over), *arguments), env)
    return Command((interpreter, *arguments), env or {}, shown, tuple(notes))
