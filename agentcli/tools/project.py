"""Detects the kind of project in the workspace from the files in its root."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentcli.environments.base import Environment
from agentcli.errors import EnvironmentOpError

TEST_FILES = "**/{test_*,*_test}.py"
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")  # make's own order
_NPM_PLACEHOLDER = "no test specified"
_NAME = r"(?:[A-Za-z0-9_./%-]|\$\(\w+\)|\$\{\w+\})+"
_RULE = re.compile(rf"^({_NAME}(?:[ \t]+{_NAME})*)[ \t]*::?(?![:=])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Project:
    """Facts about a workspace. Missing or damaged files count as empty."""

    names: frozenset[str]
    """Names in the root; folders end in a slash."""
    pyproject: Mapping[str, Any] = field(default_factory=dict)
    sections: frozenset[str] = frozenset()
    """Sections of setup.cfg and tox.ini."""
    scripts: frozenset[str] = frozenset()
    """Scripts of package.json."""
    targets: frozenset[str] = frozenset()
    """Targets of the Makefile."""

    def has(self, *names: str) -> bool:
        """Whether one of the names is in the root."""
        return not self.names.isdisjoint(names)

    def configures(self, tool: str) -> bool:
        """Whether pyproject.toml has a table for the tool."""
        tools = self.pyproject.get("tool")
        return isinstance(tools, dict) and tool in tools

    @property
    def is_python(self) -> bool:
        """Whether the root has a file that is typical of Python projects."""
        return self.has("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "tox.ini")

    @property
    def configures_pytest(self) -> bool:
        """Whether the root configures pytest."""
        return (
            self.has("pytest.ini", ".pytest.ini", "conftest.py")
            or self.configures("pytest")
            or bool(self.sections & {"pytest", "tool:pytest"})
        )

    @property
    def package_manager(self) -> str:
        """The package manager whose lock file exists; npm by default."""
        for lock, manager in (("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn")):
            if lock in self.names:
                return manager
        return "bun" if self.has("bun.lockb", "bun.lock") else "npm"


async def look_at(environment: Environment) -> Project:
    """Read the files that describe the project."""
    entries = await environment.list_dir(".")
    names = frozenset(f"{e.name}/" if e.kind == "dir" else e.name for e in entries)

    async def text(name: str) -> str:
        if name not in names:
            return ""
        try:
            return (await environment.read(name, max_bytes=1_000_000)).decode("utf-8", "replace")
        except EnvironmentOpError:
            return ""

    makefile = next((name for name in _MAKEFILES if name in names), "")
    ini = "\n".join([await text("setup.cfg"), await text("tox.ini")])
    return Project(
        names=names,
        pyproject=_toml(await text("pyproject.toml")),
        sections=frozenset(re.findall(r"^\[([^\]\n]+)\]", ini, re.MULTILINE)),
        scripts=_scripts(await text("package.json")),
        targets=_targets(await text(makefile)),
    )


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _targets(makefile: str) -> frozenset[str]:
    """The targets of all rules. A rule may name several, also over several lines."""
    rules: list[str] = _RULE.findall(re.sub(r"\\\r?\n", " ", makefile))
    return frozenset(name for rule in rules for name in rule.split())


def _scripts(text: str) -> frozenset[str]:
    try:
        scripts = json.loads(text).get("scripts", {})
        return frozenset(name for name, line in scripts.items() if _NPM_PLACEHOLDER not in line)
    except (ValueError, AttributeError, TypeError):
        return frozenset()


async def python_test_files(environment: Environment) -> list[str]:
    """Python files that look like tests."""
    return await environment.glob(TEST_FILES, limit=500)


async def only_unittest(environment: Environment) -> bool:
    """Whether the Python tests use unittest and nothing of pytest."""
    names = TEST_FILES.removeprefix("**/")
    unittest = r"^\s*(import unittest|from unittest)"
    pytest = r"^(\s*(import pytest|from pytest)|(async )?def test_)"
    if not await environment.grep(unittest, glob=names, limit=1):
        return False
    return not await environment.grep(pytest, glob=names, limit=1)


async def has_sources_in_src(environment: Environment, project: Project) -> bool:
    """Whether Python code is in ``src``, which is not on the import path by default."""
    if "src/" not in project.names:
        return False
    return bool(await environment.glob("{*,*/*}.py", "src", limit=1))
