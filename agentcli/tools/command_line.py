"""Parses a command line into its commands, and says whether it was fully understood.

Covers: pipelines, lists, subshells, groups, loops, conditions, command and process substitution,
    here-documents, assignments before a command, redirections, ``bash -c``, and commands that run
    another one (``env``, ``xargs``, ``find -exec``, ``timeout``, ...).
Does not cover: what programs do themselves. ``python -c`` or ``make`` can run anything; only the
    sandbox confines them.

What is not understood is reported with a reason, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

Words = tuple[str | None, ...]
"""Words without their quotes. None stands for any number of words that only bash can determine."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One command. ``shown`` is its text; ``words`` start with the program.

    ``writes`` and ``reads`` are the files of redirections; None stands for one that is not known.
    ``after_cd``: the folder may have changed before, so a relative path may name another program.
    """

    shown: str
    words: Words
    writes: tuple[str | None, ...] = ()
    reads: tuple[str | None, ...] = ()
    after_cd: bool = False

    @property
    def program(self) -> str | None:
        """The program's name without its folder, or None if it is not known."""
        first = self.words[0] if self.words else None
        return None if first is None else first.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A parsed command line. ``unclear`` says why it may do more than its segments show, if so.

    ``hidden``: it may even run commands that are not among the segments.
    """

    segments: tuple[Segment, ...]
    unclear: str = ""
    hidden: bool = False


# Grammar nodes that only contain others and have no effect of their own.
_FRAMES = frozenset(
    (
        *("program", "list", "pipeline", "subshell", "compound_statement", "comment"),
        *("if_statement", "elif_clause", "else_clause", "negated_command", "do_group"),
        *("for_statement", "c_style_for_statement", "while_statement"),
        *("case_statement", "case_item", "extglob_pattern", "regex"),
        *("command_substitution", "process_substitution", "variable_assignments", "array"),
        *("heredoc_redirect", "heredoc_start", "heredoc_body", "heredoc_content", "heredoc_end"),
        *("herestring_redirect", "file_descriptor", "test_command", "test_operator"),
        *("unary_expression", "binary_expression", "parenthesized_expression"),
        *("postfix_expression", "ternary_expression", "arithmetic_expansion", "subscript"),
        *("word", "number", "string", "string_content", "raw_string", "concatenation"),
        *("ansi_c_string", "translated_string", "simple_expansion", "expansion"),
        *("variable_name", "special_variable_name"),
    )
)
# Where bash evaluates a value as arithmetic, which runs command substitutions in subscripts.
_EVALUATES = re.compile(r"\(\(|\$\[|\w\[|\[\[.*\s-(eq|ne|lt|le|gt|ge|v)\b|\b(let|test)\b.*\[", re.S)
_BRINGS_TEXT = re.compile(
    r"`|\$\([^(]|\b(read|mapfile|readarray)\b|\$'|\\[$`]|\b\w+=(?!-?\d+([\s;)]|$))"
)
# Expansions that evaluate a value: ${!name}, ${name@P}, ${name:offset}, and test -v NAME.
_INDIRECT = re.compile(
    r"\$\{!|@[A-Za-z]\}|\$\{\w+(\[[^]]*\])?:(?![-+=?]|\s*\d+(:\d+)?\})|(\btest|\[)\s[^\n]*-v\b"
)
_DELIMITER = re.compile(r"""\\?\w+|'[^']*'|"[^"$`\\]*\"""")

# Variables that cannot make a program run something else.
_HARMLESS_VARIABLES = re.compile(
    r"LANG|LC_[A-Z]+|TZ|TERM|NO_COLOR|FORCE_COLOR|COLUMNS|LINES|CI|DEBUG|VERBOSE|RUST_BACKTRACE"
    r"|RUST_LOG|NODE_ENV|PYTHONUNBUFFERED|PYTHONDONTWRITEBYTECODE|PYTHONHASHSEED|PYTHONUTF8"
)
# Unquoted, these expand to other words, or to several.
_EXPANDS = re.compile(r"[*?\[\]]|^~|=~|\{.*(,|\.\.).*\}", re.S)
_NO_TARGET = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr"))
_WRITING = frozenset((">", ">>", ">|", "&>", "&>>", "<>"))
_DEPTH, _NESTING = 8, 150
_LONGEST = 20_000

SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "ash", "fish"))
_OTHER_SHELLS = frozenset(("zsh", "fish"))
# The options of each: those that take a value, and those that do not.
_WRAPPERS: dict[str, tuple[str, str]] = {
    "command": ("", ""),
    "builtin": ("", ""),
    "exec": ("-a", "-c -l"),
    "nohup": ("", ""),
    "setsid": ("", "-w -f -c --wait --fork --ctty"),
    "time": ("", "-p"),
    "nice": ("-n --adjustment", ""),
    "ionice": ("-c -n --class --classdata", "-t --ignore"),
    "stdbuf": ("-i -o -e --input --output --error", ""),
    "timeout": ("-s -k --signal --kill-after", "--foreground --preserve-status -v --verbose"),
    "env": ("-u --unset", "-i - --ignore-environment"),
    "xargs": (
        "-n -P -I -L -d -s -E --max-args --max-procs --replace --max-lines --delimiter",
        "-0 -r -t --null --no-run-if-empty --verbose",
    ),
    "sudo": ("-u -g --user --group", "-n -E -H --non-interactive --preserve-env"),
    "doas": ("-u", "-n"),
}
_MOVES = frozenset(("cd", "pushd", "popd"))
_UNSEEN = frozenset(("eval", "trap", "coproc", "parallel", "watch", "script"))
"""Programs that run text which is not visible in the command line."""
_FIND_RUNS = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
_FIND_CHANGES = frozenset(("-delete", "-fls", "-fprint", "-fprint0", "-fprintf"))


def parse(line: str) -> CommandLine:
    """Parse a bash command line."""
    reading = _Reading()
    reading.line(line, 0)
    found = reading.segments
    if reading.loops and any(segment.program in _MOVES for segment in found):
        found = [replace(segment, after_cd=True) for segment in found]
    return CommandLine(tuple(found), reading.unclear, reading.hidden)


_parser: Parser | None = None


def _tree(text: str) -> Any:
    # Importing both takes 30 ms, and most sessions never ask about a command.
    import tree_sitter
    import tree_sitter_bash

    global _parser
    if _parser is None:
        _parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))
    return _parser.parse(text.encode())


@dataclass
class _Reading:
    """The state of parsing. ``unclear`` keeps the first reason; hidden commands take precedence."""

    segments: list[Segment] = field(default_factory=list)
    unclear: str = ""
    hidden: bool = False
    moved: bool = False
    loops: bool = False
    nesting: int = 0

    def doubt(self, reason: str, *, hidden: bool = True) -> None:
        if not self.unclear or (hidden and not self.hidden):
            self.unclear = reason
        self.hidden = self.hidden or hidden

    def line(self, text: str, depth: int) -> None:
        if re.search(r"[\ud800-\udfff]", text):
            return self.doubt("it is not UTF-8")
        # The grammar splits words at any white space, bash only at these three characters.
        if re.search(r"[^\S \t\n]|[\x00-\x08\x0e-\x1f\x7f\x85\u180e\u200b\ufeff]", text):
            return self.doubt("it contains unusual white space or control characters")
        if re.search(r"\S\\\n\S", text):  # the grammar splits the word here, bash joins it
            return self.doubt("a word continues on the next line")
        if depth > _DEPTH or len(text) > _LONGEST:
            return self.doubt("it is nested too deep or too long")
        root = _tree(text).root_node
        if root.has_error:
            self.doubt("it is not valid, or not understood as bash")
        if _EVALUATES.search(text) and _BRINGS_TEXT.search(text):
            self.doubt("arithmetic may execute its input")
        if _INDIRECT.search(text):
            self.doubt("an expansion in it may execute a value")
        self.visit(root, depth)

    def visit(self, node: Node, depth: int) -> None:
        kind = node.type
        if kind == "command":
            return self.command(node, node, depth)
        if kind == "redirected_statement":
            return self.redirected(node, depth)
        if kind in ("declaration_command", "function_definition", "unset_command"):
            self.doubt("it changes what later commands mean", hidden=False)
        elif kind == "for_statement":
            self.loops = True
            self.assigned(node.child_by_field_name("variable"))
        elif kind == "variable_assignment":
            self.assigned(node.child_by_field_name("name"))
        elif kind == "file_redirect":
            # This one belongs to a compound command; those of simple commands are in segments.
            writes, reads = _files(node)
            if writes or reads:
                self.segments.append(Segment(_text(node), (), writes, reads))
        elif kind in ("while_statement", "c_style_for_statement"):
            self.loops = True
        elif kind not in _FRAMES:
            self.doubt(f"{kind.replace('_', ' ').lower()} is not understood")
        if kind == "heredoc_redirect" and not self.delimited(node):
            return
        if kind not in ("raw_string", "comment") and re.search(r"`|[$<>]\(", _own_text(node)):
            self.doubt("a substitution in it is not understood")
        if kind == "subshell":
            moved = self.moved
            self.visit_all(node, depth)
            self.moved = moved
            return
        self.visit_all(node, depth)

    def delimited(self, heredoc: Node) -> bool:
        """Whether bash expands the body: it does not if any part of the delimiter is quoted."""
        starts = [_text(child) for child in heredoc.children if child.type == "heredoc_start"]
        if len(starts) != 1 or not _DELIMITER.fullmatch(starts[0]):
            self.doubt("the end of its here-document is not understood")
        return not starts or re.search(r"['\"\\]", starts[0]) is None

    def assigned(self, name: Node | None) -> None:
        """Doubt assignments to variables that a program may read; lower-case names are local."""
        text = _text(name) if name is not None else ""
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", text) and not _harmless(text):
            self.doubt(f"it sets {text or 'a variable'}", hidden=False)

    def visit_all(self, node: Node, depth: int) -> None:
        self.nesting += 1
        if self.nesting > _NESTING:  # a long list of commands nests too
            self.doubt("it is nested too deep or too long")
        else:
            for child in node.named_children:
                self.visit(child, depth)
        self.nesting -= 1

    def redirected(self, node: Node, depth: int) -> None:
        body = node.child_by_field_name("body")
        if body is not None and body.type == "command":
            self.command(body, node, depth)
            for child in node.named_children:
                if child.type == "file_redirect":
                    self.visit_all(child, depth)
                elif child != body:  # a here-document may contain commands
                    self.visit(child, depth)
            return
        self.visit_all(node, depth)

    def command(self, node: Node, whole: Node, depth: int) -> None:
        """Add a simple command; ``whole`` is the command with its redirections."""
        words: list[str | None] = []
        for child in node.children:
            if not child.is_named:  # a lone dash, an equals sign
                if child.type not in ("(", ")"):
                    words.append(_text(child))
                continue
            if child.type == "command_name":
                words.append(_literal(child.named_children[0]) if child.named_children else None)
            elif child.type == "variable_assignment":
                name = child.child_by_field_name("name")
                text = _text(name) if name is not None else ""
                if not _harmless(text):
                    self.doubt(f"it sets {text or 'a variable'} for the command", hidden=False)
            elif not child.type.endswith("_redirect") and child.type != "comment":
                words.append(_literal(child))
            self.visit_all(child, depth)
        writes: list[str | None] = []
        reads: list[str | None] = []
        for holder in {node.id: node, whole.id: whole}.values():
            for child in holder.named_children:
                if child.type == "file_redirect":
                    more_writes, more_reads = _files(child)
                    writes += more_writes
                    reads += more_reads
        text = re.sub(r"\\\n", " ", _text(whole)).strip()
        self.add(Segment(text, tuple(words), tuple(writes), tuple(reads), self.moved), depth)

    def add(self, segment: Segment, depth: int) -> None:
        """Add a command, or the command that it runs if it is a wrapper."""
        words, program = segment.words, segment.program
        if program is None:
            self.segments.append(segment)
            return self.doubt("which program it runs is not known before it runs")
        if program in _UNSEEN:
            self.segments.append(segment)
            return self.doubt(f"what {program} runs is not known before it runs")
        if program in _WRAPPERS:
            return self.wrapped(segment, depth)
        if program in SHELLS:
            return self.shell(segment, depth)
        self.segments.append(segment)
        if program in _MOVES:
            self.moved = True
        if program == "find":
            self.find(words, segment, depth)

    def wrapped(self, segment: Segment, depth: int) -> None:
        program = segment.program or ""
        if program in ("sudo", "doas"):
            self.doubt(f"{program} changes privileges", hidden=False)
        with_value, without = (set(names.split()) for names in _WRAPPERS[program])
        words = list(segment.words[1:])
        while words:
            word = words[0]
            if word is None:
                break
            if program == "xargs" and re.match(r"-[iI]|--rep", word):
                self.segments.append(segment)
                return self.doubt("what xargs puts into the command is not known before it runs")
            if program == "env" and re.match(r"\w+=", word):
                if not _harmless(word.partition("=")[0]):
                    self.doubt(f"it sets {word.partition('=')[0]} for the command", hidden=False)
                words.pop(0)
            elif word == "--":
                words.pop(0)
                break
            elif word in without:
                words.pop(0)
            elif word in with_value:
                del words[:2]
            elif word.startswith("-"):
                # An option joined with its value: -n5, -oL, --signal=KILL.
                name = word.partition("=")[0] if word.startswith("--") else word[:2]
                if name not in with_value and not (program == "nice" and word[1:].isdigit()):
                    self.segments.append(segment)
                    return self.doubt(f"option {word} of {program} is not known")
                words.pop(0)
            else:
                break
        if program == "timeout" and words:
            words.pop(0)
        if program == "xargs":
            words.append(None)  # the words that it reads
            if len(words) == 1:
                words = ["echo", None]
        if not words:  # ``env`` alone shows variables, ``exec > file`` only redirects
            self.segments.append(segment)
            return
        if depth >= _DEPTH:
            return self.doubt("it is nested too deep")
        self.add(replace(segment, words=tuple(words)), depth + 1)

    def shell(self, segment: Segment, depth: int) -> None:
        if segment.program in _OTHER_SHELLS:
            self.segments.append(segment)
            return self.doubt(f"{segment.program} has a syntax of its own")
        words = list(segment.words[1:])
        takes_text = False
        while words and words[0] is not None and words[0].startswith(("-", "+")):
            option = words.pop(0) or ""
            if option == "--":
                break
            if option in ("--login", "--norc", "--noprofile", "--posix"):
                continue
            if not re.fullmatch(r"[-+][abcefhilnuvxo]+", option):
                self.segments.append(segment)
                return self.doubt(f"option {option} of {segment.program} is not known")
            takes_text = takes_text or "c" in option
            if "o" in option and words:
                words.pop(0)
        if not takes_text:
            self.segments.append(segment)
            if not words:
                self.doubt(f"{segment.program} runs what it reads")
            return
        text = words[0] if words else None
        if text is None:
            self.segments.append(segment)
            return self.doubt(f"what {segment.program} -c runs is not known before it runs")
        if segment.program != "bash" and re.search(r"\$['\"]", text):
            self.doubt(f"{segment.program} reads its quotes in another way")
        if segment.writes or segment.reads:
            self.segments.append(replace(segment, words=()))
        moved = self.moved
        self.line(text, depth + 1)
        self.moved = moved

    def find(self, words: Words, segment: Segment, depth: int) -> None:
        index = 1
        while index < len(words):
            word = words[index]
            index += 1
            if word is None:
                self.doubt("options of find are not known before it runs")
            elif word in _FIND_CHANGES:
                self.segments.append(Segment(f"find {word}", ("find", word)))
            elif word in _FIND_RUNS:
                end = index
                while end < len(words) and words[end] not in (";", "+"):
                    end += 1
                inner: Words = tuple(
                    None if w is None or "{}" in w else w for w in words[index:end]
                )
                index = end + 1
                if not inner or depth >= _DEPTH:
                    self.doubt("what find runs is not understood")
                else:
                    self.add(replace(segment, words=inner, writes=(), reads=()), depth + 1)


def _harmless(name: str) -> bool:
    return _HARMLESS_VARIABLES.fullmatch(name) is not None


def _own_text(node: Node) -> str:
    """The text outside the node's children: the grammar overlooks some substitutions there."""
    text, at, own = node.text or b"", node.start_byte, []
    for child in node.children:
        own.append(text[at - node.start_byte : child.start_byte - node.start_byte])
        at = child.end_byte
    own.append(text[at - node.start_byte :])
    return b"\0".join(own).decode("utf-8", "replace")


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _literal(node: Node) -> str | None:
    """A word's value, or None if it depends on an expansion."""
    text = _text(node)
    if node.type == "concatenation":
        # A leading tilde and braces show only in the whole word.
        parts = [_literal(child) for child in node.children]
        if None in parts or re.search(r"\{.*(,|\.\.).*\}", text, re.S):
            return None
        return "".join(part for part in parts if part is not None)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "string":
        if any(child.type != "string_content" for child in node.named_children):
            return None
        return re.sub(r"\\([\\\"$`])", r"\1", text[1:-1].replace("\\\n", ""))
    if node.type in ("word", "number") and not node.named_children:
        if _EXPANDS.search(re.sub(r"\\.", "", text)) and text not in ("[", "]"):
            return None
        return re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    return None


def _files(redirect: Node) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    """The files that a redirection writes, and those that it reads."""
    operator = next((child.type for child in redirect.children if not child.is_named), "")
    targets = [
        _literal(child) for child in redirect.named_children if child.type != "file_descriptor"
    ]
    if operator in (">&", "<&"):
        numbers = all(target is not None and re.fullmatch(r"\d+-?|-", target) for target in targets)
        return ((), ()) if numbers else (tuple(targets), ())
    if operator in _WRITING:
        return tuple(target for target in targets if target not in _NO_TARGET), ()
    return (), tuple(target for target in targets if target != "/dev/null")
