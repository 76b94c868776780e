"""Rules: which calls are allowed, asked about or refused, by tool and pattern.

    TOOL                  every call of it; the name may hold *
    read_file(src/**)     paths in the workspace, written as in .gitignore
    shell(git status:*)   commands that start with these words
    shell(npm test)       only this command
    fetch(*.python.org)   addresses on these hosts; see addresses.py

Deny wins over ask, and ask over allow, wherever the rules come from.
"""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agentcli.environments.worker import Refused, filter_matcher, with_folders
from agentcli.errors import ConfigError
from agentcli.sandbox.destinations import Destinations
from agentcli.settings import RULE
from agentcli.tools.base import ToolSpec
from agentcli.tools.command_line import Segment, Words

PREFIX = ":*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A ``pattern`` of None matches every call of the tool."""

    tool: str
    pattern: str | None = None

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"

    def names(self, tool: str) -> bool:
        """Whether the rule applies to a tool."""
        return fnmatchcase(tool, self.tool)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one source, or of all sources combined."""

    allow: tuple[Rule, ...] = ()
    ask: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    def __add__(self, other: Rules) -> Rules:
        return Rules(self.allow + other.allow, self.ask + other.ask, self.deny + other.deny)

    def __bool__(self) -> bool:
        return bool(self.allow or self.ask or self.deny)


def parse_rule(text: str) -> Rule:
    """Parse a rule.

    Raises:
        ConfigError: it is not a valid rule.
    """
    found = RULE.fullmatch(text)
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
    """Parse lists of rules; raises like ``parse_rule``."""
    return Rules(*(tuple(parse_rule(text) for text in texts) for texts in (allow, ask, deny)))


def check_rules(rules: Rules, specs: Iterable[ToolSpec]) -> None:
    """Raise ``ConfigError`` if a pattern is invalid for the tools that its rule names."""
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
    """Whether a rule's pattern matches a path of the workspace.

    With ``surely``, both the path and the target it links to must be inside the workspace and
    match; without, a match of either is enough, or of a folder above it.
    """
    if rule.pattern is None:
        return True
    matches = _matcher(rule.pattern)
    full = os.path.join(root, path)
    try:
        real = os.path.realpath(full)  # the system follows a link before it goes up by ".."
        named = [os.path.relpath(full, root), os.path.relpath(real, os.path.realpath(root))]
    except ValueError:  # a null byte: no such file can exist
        return not surely
    if surely:
        return all(not one.startswith("..") and matches(one) for one in named)
    return any(matches(one) for path in named for one in with_folders(path))


def begins(rule: Rule, segment: Segment) -> bool:
    """Whether a segment matches a rule's pattern word for word."""
    if rule.pattern is None:
        return True
    wanted, is_prefix = _words(rule.pattern)
    words = segment.words
    program = (words[0] if words else None) or ""
    if segment.after_cd and "/" in program and not program.startswith("/"):
        return False  # after cd, a relative path names another program
    return words[: len(wanted)] == wanted if is_prefix else words == wanted


def may_mean(rule: Rule, segment: Segment) -> tuple[bool, bool]:
    """Return whether a rule's pattern (surely, perhaps) matches a segment.

    The program's folder does not matter. It is a "perhaps" if words are not known, or if the
    pattern's words occur with others, such as options, in between.
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
    """A pattern's words, and whether more may follow; ``ValueError`` if a quote is not closed."""
    return tuple(shlex.split(pattern.removesuffix(PREFIX))), pattern.endswith(PREFIX)


@functools.lru_cache(maxsize=512)
def _matcher(pattern: str) -> Callable[[str], object]:
    return filter_matcher(pattern.rstrip("/") or pattern)
