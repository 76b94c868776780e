"""Judges one call by the rules, and proposes a rule that would allow similar calls."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentcli.errors import ToolInputError
from agentcli.tools.addresses import names_host, near_refusal, place_of
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.command_line import SHELLS, CommandLine, Segment, parse
from agentcli.tools.names import meant_name
from agentcli.tools.patch import paths_of
from agentcli.tools.read_only import is_read_only
from agentcli.tools.rules import PREFIX, Rule, Rules, begins, matches_path, may_mean

READS, WRITES = "read_file", "write_file"
"""Tools whose rules also apply to redirections."""
_READERS = (READS, "list_dir", "glob", "grep")
_OBEYED = {".agentcli": "agentcli itself", ".mcp.json": "agentcli itself", ".git": "git"}
"""What names programs that run outside of the sandbox, and who runs them."""
_ANY_FILE = Rule(WRITES, "**")
_NETWORK = ("/dev/tcp/", "/dev/udp/")

# Harmless by themselves. ``cd`` changes what relative names mean; see ``Segment.after_cd``.
_NEUTRAL = frozenset(("cd", "true", "false", ":", "echo", "pwd", "test", "[", "exit", "sleep"))
# For these, the next word says what they do.
_TWO_WORDS = frozenset(
    (
        *("git", "gh", "npm", "pnpm", "yarn", "bun", "cargo", "rustup", "go", "dotnet", "gradle"),
        *("mvn", "pip", "pip3", "uv", "poetry", "hatch", "pdm", "conda", "make", "just", "docker"),
        *("podman", "kubectl", "apt", "brew"),
    )
)
_THREE_WORDS = frozenset((("npm", "run"), ("pnpm", "run"), ("yarn", "run"), ("uv", "run")))
_INTERPRETERS = frozenset(("python", "python3", "node", "ruby", "perl", "php", "deno", "Rscript"))
# For these, the arguments matter most, so only the whole command is proposed.
_NO_PREFIX = frozenset(
    (
        *("rm", "rmdir", "mv", "dd", "chmod", "chown", "kill", "pkill", "killall", "ssh", "scp"),
        *("curl", "wget", "read", "source", ".", "alias", "set", "shopt", "hash", "enable", "find"),
    )
)


class Verdict(StrEnum):
    """What the rules say about a call."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict about a call, None if no rule applies, and the reason for model and user.

    ``segments`` are the commands of a command line that need approval, in its order.
    ``proposal`` is a rule that would allow this call and similar ones.
    """

    verdict: Verdict | None
    reason: str = ""
    segments: tuple[str, ...] = ()
    proposal: Rule | None = None


def judge(
    rules: Rules,
    spec: ToolSpec,
    arguments: Mapping[str, Any],
    root: str,
    *,
    free_edits: bool,
    free_reads: bool = False,
) -> Judgement:
    """Apply the rules to a call.

    ``free_edits``: files may be written without asking. ``free_reads``: commands may read what they
    can, as a sandbox hides the rest.
    """
    command = arguments.get(spec.command_argument) if spec.command_argument else None
    if isinstance(command, str):
        # Which files a command reads is not known well enough to apply rules about reading.
        free_reads = free_reads and not guards_reads(rules)
        return _judge_command(rules, spec.name, command, root, free_edits, free_reads)
    url = arguments.get(spec.address_argument) if spec.address_argument else None
    if isinstance(url, str):
        return _judge_address(rules, spec.name, url)
    paths = _paths(spec, arguments)
    for verdict, listed in ((Verdict.DENY, rules.deny), (Verdict.ASK, rules.ask)):
        for rule in listed:
            if rule.names(spec.name) and _touches(rule, paths, root):
                return Judgement(verdict, _because(verdict, rule), (), None)
    for rule in rules.allow:
        if not rule.names(spec.name) or not (rule.pattern is None or paths):
            continue
        if all(matches_path(rule, path, root, surely=True) for path in paths):
            return Judgement(Verdict.ALLOW, _because(Verdict.ALLOW, rule))
    return Judgement(None, proposal=_proposal_for_paths(spec, paths, root))


def guards_reads(rules: Rules) -> bool:
    """Whether a rule denies or asks about reading any file."""
    return any(rule.names(tool) for rule in (*rules.deny, *rules.ask) for tool in _READERS)


def guards_file(rules: Rules, tool: str, path: str, root: str) -> bool:
    """Whether a rule denies or asks about a tool's use of this file in particular."""
    listed = (rule for rule in (*rules.deny, *rules.ask) if rule.names(tool) and rule.pattern)
    return any(matches_path(rule, path, root, surely=False) for rule in listed)


def reason_to_ask(spec: ToolSpec, arguments: Mapping[str, Any], root: str) -> str:
    """Why no mode alone may allow an edit; empty if one may."""
    if spec.kind is ToolKind.EDIT:
        for path in _paths(spec, arguments):
            if name := _obeyed(path, root):
                return f"{_OBEYED[name]} obeys {name}"
    return ""


def _obeyed(path: str, root: str) -> str:
    if "\0" in path:  # there is no such file, which the tool says better
        return ""
    full = os.path.join(root, path)
    real = os.path.relpath(os.path.realpath(full), os.path.realpath(root))
    # Some file systems ignore case, and the files may yet get to one of them.
    parts = f"{os.path.relpath(full, root)}/{real}".casefold().split("/")
    return next((name for name in _OBEYED if name in parts), "")


def _touches(rule: Rule, paths: list[str], root: str) -> bool:
    if not paths:
        # A pattern cannot be checked if the tool names no path. To be safe, it applies if the
        # rule names this tool; a rule for many tools is meant for those that name paths.
        return rule.pattern is None or "*" not in rule.tool
    return any(matches_path(rule, path, root, surely=False) for path in paths)


def _because(verdict: Verdict, rule: Rule, what: str = "") -> str:
    doing = {Verdict.DENY: "refuses", Verdict.ASK: "asks about", Verdict.ALLOW: "allows"}[verdict]
    return f"the rule {rule} {doing} {what or 'it'}"


def _paths(spec: ToolSpec, arguments: Mapping[str, Any]) -> list[str]:
    given = [arguments.get(name) for name in spec.path_arguments]
    patch = arguments.get(spec.patch_argument) if spec.patch_argument else None
    if isinstance(patch, str):
        given += paths_of(patch)
    return [meant_name(path) for path in given if isinstance(path, str)]


def _proposal_for_paths(spec: ToolSpec, paths: list[str], root: str) -> Rule | None:
    if spec.kind is not ToolKind.EDIT:
        return Rule(spec.name)
    if len(paths) != 1:
        return None
    path = posixpath.normpath(paths[0])
    if posixpath.isabs(path):
        path = posixpath.relpath(path, root)
    folder = posixpath.dirname(path)
    if path.startswith("..") or any(letter in path for letter in "*?[]{}\\()"):
        return None
    return Rule(spec.name, f"{folder}/**" if folder else f"/{path}")


def _judge_address(rules: Rules, tool: str, url: str) -> Judgement:
    try:
        place = place_of(url)
    except ToolInputError as error:
        return Judgement(Verdict.DENY, error.message)
    for verdict, listed in ((Verdict.DENY, rules.deny), (Verdict.ASK, rules.ask)):
        for rule in listed:
            if rule.names(tool) and names_host(rule, place):
                return Judgement(verdict, _because(verdict, rule, str(place)))
    if refusal := near_refusal(rules, tool, place):
        return Judgement(Verdict.DENY, refusal)
    for rule in rules.allow:
        if rule.names(tool) and names_host(rule, place):
            return Judgement(Verdict.ALLOW, _because(Verdict.ALLOW, rule, str(place)))
    proposal = Rule(tool, str(place))
    return Judgement(None, f'no rule allows it: [permissions] allow = ["{proposal}"]', (), proposal)


def _judge_command(
    rules: Rules, tool: str, command: str, root: str, free_edits: bool, free_reads: bool
) -> Judgement:
    about = Rules(
        *(
            tuple(rule for rule in listed if rule.names(tool))
            for listed in (rules.allow, rules.ask, rules.deny)
        )
    )
    for rule in about.deny:
        if rule.pattern is None:
            return Judgement(Verdict.DENY, _because(Verdict.DENY, rule))
    line = parse(command)
    judged = _forbidden(rules, about, line, root)
    if judged is not None:
        return judged
    for rule in about.allow:
        if rule.pattern is None:
            return Judgement(Verdict.ALLOW, _because(Verdict.ALLOW, rule))
    # A file tool may write the configuration of a repository below the workspace, or make the
    # workspace itself a bare one. Its own ``.git`` is protected.
    git = not free_edits and os.path.isdir(os.path.join(root, ".git"))
    open_ = [
        one
        for one in line.segments
        if not (free_reads and _only_reads(one, root, git=git))
        and not _allowed(one, rules, about, root, free_edits)
    ]
    if not open_ and not line.unclear and line.segments:
        return Judgement(Verdict.ALLOW, "every part of it is allowed")
    proposal = None
    if len(open_) == 1 and not line.unclear:
        proposal = _proposal(tool, open_[0], about, root, free_edits, rules)
    shown = tuple(dict.fromkeys(segment.shown for segment in open_))
    return Judgement(None, line.unclear, shown, proposal)


def _forbidden(rules: Rules, about: Rules, line: CommandLine, root: str) -> Judgement | None:
    """Deny, or else ask, if a rule matches a segment or a file that it names."""
    asked: Judgement | None = None

    def doubt(rule: Rule, what: str, segment: Segment) -> None:
        nonlocal asked
        reason = f"the rule {rule} may match {what}"
        asked = asked or Judgement(Verdict.ASK, reason, (segment.shown,))

    for verdict, listed, every in (
        (Verdict.DENY, about.deny, rules.deny),
        (Verdict.ASK, about.ask, rules.ask),
    ):
        for segment in line.segments:
            for rule in listed:
                surely, perhaps = may_mean(rule, segment)
                if surely:
                    return _about(verdict, rule, segment)
                if perhaps:
                    doubt(rule, "it", segment)
            for name, files in ((WRITES, segment.writes), (READS, segment.reads)):
                for rule in every:
                    if not rule.names(name):
                        continue
                    for file in files:
                        path = _place(file, segment)
                        if path is None:
                            doubt(rule, "its file", segment)
                        elif matches_path(rule, path, root, surely=False):
                            return _about(verdict, rule, segment)
            for path in _named_files(segment, root):
                for rule in every:
                    reads = rule.names(READS) and rule.pattern is not None
                    if reads and matches_path(rule, path, root, surely=False):
                        return _about(verdict, rule, segment)
        if line.hidden and listed and asked is None:
            reason = f"the rule {listed[0]} cannot be applied: {line.unclear}"
            asked = Judgement(Verdict.ASK, reason)
    return asked


def _named_files(segment: Segment, root: str) -> list[str]:
    """The arguments that name files; elsewhere than on this machine, those that may.

    Of a folder, a path in it is named too, which rules about all that is in it match.
    """
    if segment.words[:1] and segment.words[0] in _NEUTRAL:
        return []
    words = [word for word in segment.words[1:] if word and "\0" not in word]
    words += [
        value for word in words if word.startswith("--") and (value := word.partition("=")[2])
    ]
    here = os.path.isdir(root) and not segment.after_cd
    named = [word for word in words if not here or os.path.lexists(os.path.join(root, word))]
    folders = [word for word in named if os.path.isdir(os.path.join(root, word))]
    return named + [os.path.join(folder, "-") for folder in folders]


def _about(verdict: Verdict, rule: Rule, segment: Segment) -> Judgement:
    return Judgement(verdict, _because(verdict, rule, segment.shown), (segment.shown,))


def _place(file: str | None, segment: Segment) -> str | None:
    """The file's path, or None if it is not known which file is meant."""
    if file is None or (segment.after_cd and not file.startswith("/")):
        return None
    return file


def _only_reads(segment: Segment, root: str, *, git: bool) -> bool:
    if not is_read_only(segment, git=git) or _connects(segment):
        return False
    # The workspace's environment is searched for programs first, and may hold others by that name.
    folders = [os.path.join(root, name, "bin") for name in (".venv", "venv")]
    folders += [folder for folder in os.get_exec_path() if folder.startswith(f"{root}/")]
    return not any(os.path.lexists(os.path.join(one, segment.program or "")) for one in folders)


def _connects(segment: Segment) -> bool:
    """Whether a redirection may open a connection, as the shell does for ``/dev/tcp/HOST/PORT``."""
    return any(file is None or file.startswith(_NETWORK) for file in segment.reads)


def _allowed(segment: Segment, rules: Rules, about: Rules, root: str, free_edits: bool) -> bool:
    if _connects(segment):
        return False
    for file in segment.writes:
        path = _place(file, segment)
        if path is None:
            return False
        if not _written(path, rules, root, free_edits):
            return False
    if not segment.words or segment.words[0] in _NEUTRAL:
        return True
    return any(begins(rule, segment) for rule in about.allow)


def _written(path: str, rules: Rules, root: str, free_edits: bool = False) -> bool:
    # As for the file tools, a mode means the workspace; commands may not be confined to it.
    free = (_ANY_FILE,) if free_edits and not _obeyed(path, root) else ()
    return any(
        rule.names(WRITES) and matches_path(rule, path, root, surely=True)
        for rule in (*rules.allow, *free)
    )


def _proposal(
    tool: str, segment: Segment, about: Rules, root: str, free_edits: bool, rules: Rules
) -> Rule | None:
    """Propose a rule that is broad enough to be useful again, and no broader."""
    words = segment.words
    program = words[0] if words else None
    if segment.writes and not all(_place(file, segment) for file in segment.writes):
        return None
    if segment.writes and not free_edits:
        # The command and the file each need a rule. Propose one at a time.
        alone = Segment(segment.shown, words, (), segment.reads, segment.after_cd)
        fine = _allowed(alone, rules, about, root, free_edits)
        files = [file for file in segment.writes if file and not _written(file, rules, root)]
        plain = files and not any(letter in files[0] for letter in "*?[]{}\\()")
        return Rule(WRITES, f"/{files[0]}") if fine and len(files) == 1 and plain else None
    if program is None or segment.program in SHELLS:
        return None
    if segment.after_cd and "/" in program:
        return None
    count = 1
    if program in _TWO_WORDS:
        count = 3 if words[:2] in _THREE_WORDS else 2
    elif program in _INTERPRETERS:
        if len(words) < 2 or words[1] is None or words[1] in ("-c", "-e", "-", "-p", "-r"):
            return None
        count = 3 if words[1] == "-m" else 2
    exact = program in _NO_PREFIX
    wanted = words if exact else words[:count]
    if len(wanted) < count or None in wanted:
        return None
    if not exact and any(word.startswith("-") for word in wanted[2:] if word):
        return None
    text = shlex.join(word for word in wanted if word is not None)
    return Rule(tool, text if exact else f"{text}{PREFIX}")
