"""Rules: which calls are allowed, asked about or refused, by tool and pattern.

    TOOL                  every call of it; the name may hold *
    read_file(src/**)     paths in the workspace, written as in .gitignore
    shell(git status:*)   commands that begin with these words
    shell(npm test)       this command alone
    fetch(*.python.org)   addresses on these hosts; see addresses.py

Deny wins over ask, and ask over allow, wherever a rule stands.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agentcli.environments.worker import Refused, filter_matcher
from agentcli.errors import ConfigError
from agentcli.sandbox.destinations import Destinations
from agentcli.tools.base import ToolSpec
from agentcli.tools.command_line import Segment, Words

PREFIX = ":*"


@dataclass(frozen=True, slots=True)
class Rule:
    """``pattern`` of None means every call of the tool."""

    tool: str
    pattern: str | None = None

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"

    def names(self, tool: str) -> bool:
        """Whether it is about a tool."""
        return fnmatchcase(tool, self.tool)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one place, or of all places together."""

    allow: tuple[Rule, ...] = ()
    ask: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    def __add__(self, other: Rules) -> Rules:
        return Rules(self.allow + other.allow, self.ask + other.ask, self.deny + other.deny)

    def __bool__(self) -> bool:
        return bool(self.allow or self.ask or self.deny)


def parse_rule(text: str) -> Rule:
    """One rule as it is written in TOML.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"\s*([\w*-]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if found is None:
        raise ConfigError(
            f"{text!r} is not a rule", hint='Write TOOL or TOOL(PATTERN), as "shell(git log:*)"'
        )
    tool, pattern = found.groups()
    if pattern is None or pattern.strip() == "*":
        return Rule(tool)
    if not pattern.strip(f" \t\n{PREFIX}"):
        raise ConfigError(f"{text!r}: the pattern is empty", hint=f"For every call: {tool}")
    return Rule(tool, pattern)


def parse_rules(
    allow: Sequence[str] = (), ask: Sequence[str] = (), deny: Sequence[str] = ()
) -> Rules:
    """Rules as they stand in a file; raises as ``parse_rule``."""
    return Rules(*(tuple(parse_rule(text) for text in texts) for texts in (allow, ask, deny)))


def check_rules(rules: Rules, specs: Iterable[ToolSpec]) -> None:
    """Raises ConfigError where a pattern is none for the tools that it is about."""
    for rule in (*rules.allow, *rules.ask, *rules.deny):
        for spec in specs:
            if rule.pattern is None or not rule.names(spec.name):
                continue
            try:
                if spec.command_argument:
                    _words(rule.pattern)
                elif spec.address_argument:
                    if "*" not in rule.tool:
                        Destinations((rule.pattern,))
                elif spec.path_arguments or spec.patch_argument:
                    _matcher(rule.pattern)
                elif "*" not in rule.tool:
                    raise ValueError(f"{spec.name} takes no pattern")
            except (ValueError, Refused) as error:
                raise ConfigError(f"the rule {rule}: {error}") from error


def matches_path(rule: Rule, path: str, root: str, *, surely: bool) -> bool:
    """Whether a rule's pattern is about a path of the workspace.

    ``surely`` holds only where the path lies inside and both it and what it is a link to match;
    without, either is enough.
    """
    if rule.pattern is None:
        return True
    matches = _matcher(rule.pattern)
    full = os.path.normpath(os.path.join(root, path))
    try:
        real = os.path.realpath(full)
        named = [os.path.relpath(full, root), os.path.relpath(real, os.path.realpath(root))]
    except ValueError:  # a zero byte; no such file can be
        return not surely
    if surely:
        return all(not one.startswith("..") and matches(one) for one in named)
    return any(matches(one) for one in named)


def begins(rule: Rule, segment: Segment) -> bool:
    """Whether a segment is, word for word, what a rule's pattern says."""
    if rule.pattern is None:
        return True
    wanted, is_prefix = _words(rule.pattern)
    words = segment.words
    program = (words[0] if words else None) or ""
    if segment.after_cd and "/" in program and not program.startswith("/"):
        return False  # a relative name means another program now
    return words[: len(wanted)] == wanted if is_prefix else words == wanted


def may_mean(rule: Rule, segment: Segment) -> tuple[bool, bool]:
    """(surely, perhaps) a rule's pattern is about a segment, whatever folder the program is in.

    Perhaps: words that are not known stand where the pattern has some, or others, such as options,
    between them.
    """
    if rule.pattern is None:
        return True, True
    wanted, is_prefix = _words(rule.pattern)
    wanted = ((wanted[0] or "").rpartition("/")[2], *wanted[1:])
    program = segment.program
    words: Words = (program, *segment.words[1:]) if segment.words else ()
    known = words[: len(wanted)] == wanted
    if known and (is_prefix or len(words) == len(wanted)):
        return True, True
    if not words or (program is not None and program != wanted[0]):
        return False, False
    if not is_prefix and None not in words:
        return False, False
    rest = iter(words[1:])
    return False, all(any(word is None or word == want for word in rest) for want in wanted[1:])


@functools.lru_cache(maxsize=512)
def _words(pattern: str) -> tuple[Words, bool]:
    """A command's pattern: its words, and whether more may follow; ValueError: open quotes."""
    return tuple(shlex.split(pattern.removesuffix(PREFIX))), pattern.endswith(PREFIX)


@functools.lru_cache(maxsize=512)
def _matcher(pattern: str) -> Callable[[str], object]:
    return filter_matcher(pattern)
