"""Tells small changes that look like repairs of code from those that do not, by their tokens."""

from __future__ import annotations

import ast
import builtins
import difflib
import io
import keyword
import re
import tokenize
from collections import Counter
from functools import lru_cache, partial

Text = tuple[str, ...]
MAX_TOKENS = 10
QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
# Words of changes that modernise or port code, or speak of versions, without repairing it.
PORTING = re.compile(
    r"\b(six|StopIteration|unicode|basestring|iteritems|itervalues|iterkeys|xrange|unichr|PY2|PY3|py3k|PYTHON\d"
    r"|version_info|__version__|__future__|ensure_text|ensure_str|string_types|text_type|has_key"
    r"|future|deprecat\w*|Deprecat\w*|TYPE_CHECKING|cast|Optional|Union|assertEquals|imp"
    r"|importlib_metadata|pkg_resources|getargspec|getfullargspec|asyncio\.async|ensure_future"
    r"|get_event_loop|utcnow|UTC|global|msg|izip|imap|inspect\.getargspec|cElementTree|pragma|np\.(float|int|bool"
    r"|object|product|alltrue|sometrue|in1d|trapz))\b|:=|\burl\(|(?<![\w'\"])u['\"]|\bimport\b"
)
FORMATS = re.compile(r"['\"]\s*%\s*[\w(\[]|\.format\(")
FSTRING = re.compile(r"\b[rR]?[fF][rR]?['\"]")
SPEAKS = re.compile(
    r"^(log\w*|_?logger|warn\w*|debug|info|error|critical|print|echo|secho|msg|deprecat\w*"
    r"|_?logging|warnings)$"
)


@lru_cache(maxsize=4096)
def tokens(lines: Text) -> Text:
    """The tokens of some lines, as far as they can be told without the lines around them."""
    text = "\n".join(line.strip() for line in lines) + "\n"
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in QUIET and token.string.strip():
                found.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass  # a bracket or string goes on after these lines
    return tuple(found)


@lru_cache(maxsize=4096)
def substitution(old: Text, new: Text) -> tuple[Text, Text]:
    """The tokens that were replaced, and those that replaced them, without what surrounds them."""
    removed: list[str] = []
    added: list[str] = []
    was, now = tokens(old), tokens(new)
    matcher = difflib.SequenceMatcher(None, was, now, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            removed += was[a:b]
            added += now[c:d]
    return tuple(removed), tuple(added)


def is_repair(old: Text, new: Text) -> bool:
    """Whether a change of these lines may repair something."""
    removed, added = substitution(old, new)
    if (not removed and not added) or max(len(removed), len(added)) > MAX_TOKENS:
        return False
    lines = "\n".join((*old, *new))
    if PORTING.search(lines) or re.search(r'"""|' + "'''", lines):
        return False
    if FSTRING.search("\n".join(new)) and FORMATS.search("\n".join(old)):
        return False
    if _moved(tokens(old), tokens(new)) or _is_style(removed, added, lines):
        return False
    if any(line.startswith("assert ") for line in (*old, *new)):
        return False
    if any(line.startswith(("def ", "async def ", "class ", "@", "#")) for line in (*old, *new)):
        return False
    if set(removed) | set(added) <= set("(),[]{}:"):
        return False
    return _tellable(removed, added, old, new)


def _is_style(removed: Text, added: Text, lines: str) -> bool:
    """Whether a change is of those that linters ask for, or only renames or widens something."""
    if ("Exception",) in (removed, added) or "format" in added or re.search(r"\)\s*->", lines):
        return True
    if {*removed, *added} <= {"else", ":"} or ("hasattr" in removed and "hasattr" not in added):
        return True
    if ("from" in added and "yield" in lines) or (added == ("None",) and not removed):
        return True
    if "getattr" in removed or re.search(r"\bsuper\(\w", lines):
        return True
    names = all(token.isidentifier() for token in (*removed, *added))
    return names and len(removed) == len(added) > 1


def _moved(was: Text, now: Text) -> bool:
    """Whether the same tokens are in another place, or one of their parts only got a name."""
    left = (Counter(was) - Counter(now)) + (Counter(now) - Counter(was))
    if not left and {"==", "!="} & set(was):
        return True
    names = {token for token in left if token.isidentifier()}
    others = set(left) - names
    if {"-", "+", "<", ">", "/", "."} & others or not was or not now:
        return False
    return "=" in others and len(names) <= 1 and others <= set("=(),")


def _tellable(removed: Text, added: Text, old: Text, new: Text) -> bool:
    """Whether the change is more than another value, name or word, which nobody could guess."""
    both = (*removed, *added)
    if all(token[-1] in "'\"" or token == "," for token in both):
        close = difflib.SequenceMatcher(None, "".join(removed), "".join(added)).ratio()
        return bool(removed and added) and close > 0.6 and not any(" " in word for word in both)
    if all(re.fullmatch(r"[\d.e_-]+", token) for token in both):
        return all(token in ("0", "1", "2", "-", "-1") for token in both)
    if (removed == ("==",) and added == ("is",)) or {*removed, *added} == {"not", "in"}:
        return False
    return "from" not in added or "raise" not in " ".join(new)


def is_redesign(removed: Text, added: Text, was: set[str], now: set[str]) -> bool:
    """Whether names of the package are gone, or new in it: ``was`` and ``now`` are all its words.

    What is new cannot be known from the older code. A misspelt name is gone too, but replaced by
    one much like it.
    """
    gone = {name for name in removed if name.isidentifier() and name not in now}
    fresh = {name for name in added if name.isidentifier() and name not in was}
    if {name for name in fresh if not hasattr(builtins, name)}:
        return True
    close = partial(difflib.get_close_matches, possibilities=added, n=1, cutoff=0.75)
    return any(not close(name) for name in gone)


def knowable(was: str, now: str, removed: Text, added: Text) -> bool:
    """Whether the names in a change can be found in the text around it, or are common ones."""
    words = set(re.findall(r"\w+", was))
    for name in {token for token in added if token.isidentifier()} - words:
        if keyword.iskeyword(name) or hasattr(builtins, name):
            continue
        # An attribute may be one that everybody knows; a variable must be used elsewhere.
        if re.search(rf"(?<![.\w]){name}\b(?!=)", now) and len(re.findall(rf"\b{name}\b", now)) < 2:
            return False
    if len(removed) != 1 or len(added) != 1 or not added[0].isidentifier():
        return True
    common = added[0] in words or keyword.iskeyword(added[0]) or hasattr(builtins, added[0])
    return common or difflib.SequenceMatcher(None, removed[0], added[0]).ratio() > 0.75


class _Bare(ast.NodeTransformer):
    """Removes what has no effect on what the code does, or only on what it says."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) or _speaks(node.value):
            return None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=node.arg)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        several = isinstance(node.value, str) and "\n" in node.value and len(node.value) > 60
        return ast.Constant(value="" if several else node.value)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=raised, cause=None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Assert(test=self.visit(node.test), msg=None)


def _speaks(node: ast.expr) -> bool:
    """Whether it is a call that logs, warns or prints."""
    if not isinstance(node, ast.Call):
        return False
    parts = re.findall(r"\w+", ast.unparse(node.func))
    return any(SPEAKS.match(part) for part in parts)


def _bare(tree: ast.Module) -> str:
    return ast.dump(_Bare().visit(tree))


def same_effect(was: ast.Module, now: ast.Module) -> bool:
    """Whether two texts differ only in comments, layout, annotations, imports or messages.

    This changes the trees.
    """
    return _bare(was) == _bare(now)
