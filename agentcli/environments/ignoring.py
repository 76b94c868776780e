"""Decides what a checkpoint leaves out: ``.git``, what the project ignores, and known caches."""

from __future__ import annotations

import re
from re import Pattern

from agentcli.environments.worker import excluded, ignored, rules_in

CACHES = frozenset(
    (
        *(".git", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox"),
        *(".mypy_cache", ".ruff_cache", ".pytest_cache"),
    )
)
"""Names that are always left out, whether the project ignores them or not."""
RULE_FILES = frozenset((".gitignore", ".ignore"))

_ANYWHERE = "(?:(?:[^/]+/)*"  # the start of a compiled pattern without a slash

_Rules = list[tuple[Pattern[str], bool, bool, str]]


class Ignoring:
    """The rules that apply in one folder, with a fast path for names that no rule could match."""

    def __init__(self, rules: _Rules) -> None:
        self._rules = rules
        names = [pattern for rule in rules if (pattern := _for_names(rule[0].pattern))]
        self._names = _one_of(names)
        paths: dict[str, list[str]] = {}
        for expression, _, _, folder in rules:
            if not _for_names(expression.pattern):
                paths.setdefault(folder, []).append(expression.pattern.removesuffix(r"\Z"))
        self._paths = [(folder, _one_of(patterns)) for folder, patterns in paths.items()]

    @classmethod
    def at_root(cls, root: str) -> Ignoring:
        """The rules of ``.git/info/exclude``, which apply before those of any folder."""
        return cls(excluded(root))

    def within(self, folder: str) -> Ignoring:
        """These rules and those in a folder's own files; ``folder`` is absolute."""
        return Ignoring(self._rules + rules_in(folder))

    def leaves_out(self, folder: str, name: str, is_folder: bool) -> bool:
        """Whether the name in this folder (absolute) is left out."""
        if name in CACHES:
            return True
        if not self._names.match(name):
            path = f"{folder}/{name}"
            for above, expression in self._paths:
                if expression.match(path[len(above) + 1 :]):
                    break
            else:
                return False
        return ignored(self._rules, f"{folder}/{name}", is_folder)


def _for_names(pattern: str) -> str:
    """The expression for a bare name if the rule matches names in any folder; else empty."""
    inner = pattern.removesuffix(r"\Z").removeprefix(_ANYWHERE)
    by_name = pattern.startswith(_ANYWHERE) and "/" not in inner.replace("[^/]", "")
    return f"(?:{inner}" if by_name else ""


def _one_of(patterns: list[str]) -> Pattern[str]:
    return re.compile(rf"(?:{'|'.join(patterns) or '(?!)'})\Z", re.DOTALL)
