"""What is easily confused: operators, methods, functions, numbers, spellings."""

from __future__ import annotations

import ast
import random
import zlib
from collections.abc import Iterator, Sequence

COMPARE: dict[type, str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
COMPARE_FAULTS = {
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
}
BINARY: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.MatMult: "@",
}
BINARY_FAULTS = {
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+", "/", "**"),
    "/": ("//", "*"),
    "//": ("/", "%"),
    "%": ("//",),
    "**": ("*",),
    "&": ("|", "^"),
    "|": ("&",),
    "^": ("|", "&"),
    "<<": (">>",),
    ">>": ("<<",),
    "@": (),
}
AUGMENTED_FAULTS = {
    "+=": ("-=", "=", "*="),
    "-=": ("+=", "="),
    "*=": ("+=", "/=", "="),
    "/=": ("*=", "//="),
    "//=": ("/=", "%="),
    "%=": ("//=",),
    "|=": ("&=", "="),
    "&=": ("|=",),
}
INITIAL_FAULTS = {
    "0": ("1", "-1", "None"),
    "1": ("0", "2"),
    "-1": ("0", "1"),
    "None": ("0", "[]"),
    "0.0": ("1.0",),
    "1.0": ("0.0",),
    "True": ("False",),
    "False": ("True",),
    '""': ('" "', "None"),
    "''": ("' '", "None"),
}
EXCEPTIONS = {
    "ValueError": ("TypeError", "KeyError", "RuntimeError", "IndexError"),
    "TypeError": ("ValueError",),
    "KeyError": ("IndexError", "ValueError", "AttributeError"),
    "IndexError": ("KeyError", "ValueError"),
    "AttributeError": ("KeyError", "TypeError"),
    "RuntimeError": ("ValueError",),
    "LookupError": ("ValueError",),
    "ZeroDivisionError": ("ValueError", "ArithmeticError"),
    "NotImplementedError": ("ValueError",),
    "StopIteration": ("ValueError",),
    "OverflowError": ("ValueError",),
    "FileNotFoundError": ("ValueError", "KeyError"),
    "PermissionError": ("ValueError",),
}
TYPES = {
    "int": ("str", "float"),
    "str": ("int", "bytes"),
    "float": ("int",),
    "list": ("tuple", "dict"),
    "dict": ("list",),
    "tuple": ("list",),
    "bool": ("int",),
}
METHODS = {
    "append": ("extend", "insert", "add"),
    "extend": ("append",),
    "insert": ("append",),
    "add": ("append", "discard", "update"),
    "discard": ("add",),
    "update": ("add", "setdefault"),
    "setdefault": ("get",),
    "get": ("pop", "setdefault"),
    "pop": ("get", "remove"),
    "popleft": ("pop",),
    "appendleft": ("append",),
    "remove": ("pop", "append"),
    "upper": ("lower", "title"),
    "lower": ("upper", "title"),
    "title": ("upper", "capitalize"),
    "capitalize": ("title", "upper"),
    "casefold": ("upper",),
    "strip": ("lstrip", "rstrip", "split"),
    "lstrip": ("rstrip", "strip"),
    "rstrip": ("lstrip", "strip"),
    "startswith": ("endswith",),
    "endswith": ("startswith",),
    "split": ("rsplit", "partition", "splitlines"),
    "rsplit": ("split",),
    "splitlines": ("split",),
    "partition": ("rpartition",),
    "rpartition": ("partition",),
    "find": ("rfind", "index"),
    "rfind": ("find",),
    "index": ("count",),
    "count": ("index",),
    "ljust": ("rjust",),
    "rjust": ("ljust",),
    "center": ("ljust",),
    "zfill": ("rjust",),
    "isdigit": ("isalpha",),
    "isalpha": ("isdigit", "isalnum"),
    "isalnum": ("isalpha",),
    "isupper": ("islower",),
    "islower": ("isupper",),
    "isspace": ("isalpha",),
    "keys": ("values", "items"),
    "values": ("keys", "items"),
    "items": ("keys", "values"),
    "union": ("intersection",),
    "intersection": ("union", "difference"),
    "difference": ("intersection",),
    "issubset": ("issuperset",),
    "issuperset": ("issubset",),
    "sort": ("reverse",),
    "reverse": ("sort",),
    "match": ("search",),
    "search": ("match",),
    "fullmatch": ("match", "search"),
    "findall": ("search",),
    "group": ("groups",),
    "floor": ("ceil",),
    "ceil": ("floor",),
    "heappush": ("heappop",),
    "heappop": ("heappush",),
    "total_seconds": ("seconds",),
    "days": ("seconds",),
    "month": ("day", "year"),
    "day": ("month",),
    "year": ("month",),
    "weekday": ("isoweekday",),
    "isoweekday": ("weekday",),
    "encode": ("decode",),
    "decode": ("encode",),
    "removeprefix": ("removesuffix", "lstrip"),
    "removesuffix": ("removeprefix", "rstrip"),
    "loads": ("dumps",),
    "dumps": ("loads",),
    "bisect_left": ("bisect_right",),
    "bisect_right": ("bisect_left",),
    "permutations": ("combinations",),
    "combinations": ("permutations",),
    "sin": ("cos",),
    "cos": ("sin",),
    "log": ("log2", "exp"),
    "exp": ("log",),
    "read": ("readline", "readlines"),
    "readlines": ("read",),
}
FUNCTIONS = {
    "min": ("max", "sum"),
    "max": ("min", "sum"),
    "any": ("all",),
    "all": ("any",),
    "sum": ("max", "len"),
    "len": ("sum", "max"),
    "int": ("float", "str"),
    "float": ("int",),
    "str": ("repr", "int"),
    "sorted": ("reversed", "list"),
    "reversed": ("sorted",),
    "list": ("set", "tuple"),
    "set": ("list",),
    "tuple": ("list",),
    "ord": ("chr",),
    "chr": ("ord",),
    "filter": ("map",),
    "map": ("filter",),
    "abs": ("round", "int"),
    "round": ("int", "abs"),
    "floor": ("ceil",),
    "ceil": ("floor",),
    "getattr": ("hasattr",),
    "isinstance": ("issubclass",),
    "deque": ("list",),
    "enumerate": ("zip", "list"),
    "divmod": ("pow",),
    "defaultdict": ("dict",),
    "heappush": ("heappop",),
    "bisect_left": ("bisect_right",),
    "bisect_right": ("bisect_left",),
    "next": ("iter",),
}
WRAPPERS = frozenset(
    [
        "list",
        "sorted",
        "int",
        "str",
        "float",
        "set",
        "tuple",
        "dict",
        "abs",
        "len",
        "reversed",
        "bool",
        "round",
        "repr",
        "frozenset",
        "iter",
    ]
)
WRAPPER_METHODS = frozenset(
    ["copy", "strip", "lower", "upper", "rstrip", "lstrip", "items", "sort", "title", "casefold"]
)
DECORATORS = frozenset(["property", "staticmethod", "classmethod", "contextmanager"])
RETURNS = {
    "True": "False",
    "False": "True",
    "None": "False",
    "self": "None",
    "0": "1",
    "1": "0",
    "[]": "None",
    "{}": "None",
    '""': "None",
    "-1": "0",
}


def number_faults(value: int) -> Iterator[str]:
    """Yield wrong numbers: digits swapped, one added or lost, a neighbour in magnitude."""
    text = str(value)
    if len(text) >= 2:
        swapped = text[:-2] + text[-1] + text[-2]
        if swapped != text and not swapped.startswith("0"):
            yield swapped
        yield text + "0" if text[-1] == "0" else text[:-1]
        if text[-1] == "0":
            yield text[:-1]
    elif value > 1:
        yield str(value * 2)
        yield str(value * 10)
        yield str(value + 2)


def float_faults(text: str) -> Iterator[str]:
    whole, point, part = text.partition(".")
    if not point or not whole.isdigit() or not part.isdigit():
        return
    yield f"{int(whole) + 1}.{part}"
    if part != "0":
        yield f"{whole}.0{part}"
        yield f"{whole}.{part[:-1] or '0'}"


def string_faults(text: str, others: Sequence[str]) -> Iterator[str]:
    """Yield wrong strings: another one of the file, another case or separator, a wrong letter."""
    rng = random.Random(zlib.crc32(text.encode()))
    if text == "":
        yield " "
        return
    swaps = {" ": ("", "  "), ",": (";", ", "), ", ": (",", " "), "-": ("_",), "_": ("-",)}
    swaps |= {":": (";", "="), ".": (",",), "/": ("-",), "=": (":",), ";": (",",), "": (" ",)}
    yield from swaps.get(text, ())
    near = [o for o in others if o != text and abs(len(o) - len(text)) < 6 and o.isprintable()]
    if near:
        yield rng.choice(near)
    if len(text) > 2 and text.isalpha():
        yield text.upper() if text.islower() else text.lower()
        yield text[:-1]
        yield typo(text, len(text))
    elif len(text) > 3 and text.isprintable():
        index = rng.randrange(len(text))
        yield text[:index] + text[index + 1 :]


def typo(name: str, salt: int) -> str:
    """A likely misspelling, always the same for the same name and salt."""
    rng = random.Random(zlib.crc32(f"{name}{salt}".encode()))
    index = rng.randrange(1, len(name) - 1)
    match rng.randrange(6):
        case 0:
            other = name[:index] + name[index + 1 :]
        case 1:
            other = name[:index] + name[index] + name[index:]
        case 2 if name[index] != name[index + 1]:
            other = name[:index] + name[index + 1] + name[index] + name[index + 2 :]
        case 3:
            other = name[:-1] if name.endswith("s") else name + "s"
        case 4 if "_" in name.strip("_"):
            other = name.replace("_", "", 1) if not name.startswith("_") else name[1:]
        case _:
            other = name[:-1]
    return other if other != name and other.isidentifier() else name + "s"


def range_faults(texts: list[str]) -> Iterator[list[str]]:
    if len(texts) == 1:
        yield [f"{texts[0]} - 1"] if not texts[0].endswith(" + 1") else [texts[0][:-4]]
        yield [f"{texts[0]} + 1"] if not texts[0].endswith(" - 1") else [texts[0][:-4]]
        yield ["1", texts[0]]
    elif len(texts) >= 2:
        first, last, *step = texts
        if last.endswith((" + 1", " - 1")):
            yield [first, last[:-4], *step]
        else:
            yield [first, f"{last} + 1", *step]
            yield [first, f"{last} - 1", *step]
        if first in ("0", "1", "2"):
            yield [str(int(first) + 1), last, *step]
            yield [str(max(0, int(first) - 1)), last, *step]
        if first.endswith((" + 1", " - 1")):
            yield [first[:-4], last, *step]
        if step:
            yield [first, last]


def slice_faults(lower: str, upper: str) -> Iterator[tuple[str, str]]:
    if lower and not upper:
        yield "", lower
        yield (str(int(lower) + 1) if lower.isdigit() else f"{lower} + 1"), ""
        if lower in ("1", "2"):
            yield ("" if lower == "1" else "1"), ""
        if lower.endswith((" + 1", " - 1")):
            yield lower[:-4], ""
    elif upper and not lower:
        yield upper, ""
        if upper.startswith("-") and upper[1:].isdigit():
            yield "", str(-int(upper[1:]) - 1)
        elif upper.isdigit():
            yield "", str(int(upper) + 1)
            yield "", str(max(0, int(upper) - 1))
        else:
            yield "", (upper[:-4] if upper.endswith((" + 1", " - 1")) else f"{upper} - 1")
            yield "", (upper[:-4] if upper.endswith((" + 1", " - 1")) else f"{upper} + 1")
        yield "1", upper
    elif lower and upper:
        yield lower, ""
        yield "", upper
        yield lower, (upper[:-4] if upper.endswith((" + 1", " - 1")) else f"{upper} - 1")
        yield (lower[:-4] if lower.endswith((" + 1", " - 1")) else f"{lower} + 1"), upper


def index_faults(text: str) -> Iterator[str]:
    if text == "0":
        yield "1"
        yield "-1"
    elif text.isdigit():
        yield str(int(text) - 1)
        yield str(int(text) + 1)
    elif text == "-1":
        yield "0"
        yield "-2"
    elif text.endswith((" + 1", " - 1")):
        yield text[:-4]
    elif text.isidentifier() and len(text) <= 5:
        yield f"{text} + 1"
        yield f"{text} - 1"


def default_faults(text: str) -> Iterator[str]:
    if text.isdigit():
        yield str(int(text) + 1)
        if int(text):
            yield str(int(text) - 1)
            yield "0"
    elif text in ("True", "False"):
        yield "False" if text == "True" else "True"
    elif text == "None":
        yield "0"
    elif text in ("()", "[]", "{}"):
        yield "None"
    elif len(text) > 2 and text[0] in "\"'" and "\\" not in text:
        quote = text[0]
        for other in string_faults(text[1:-1], ()):
            if quote not in other:
                yield f"{quote}{other}{quote}"
    elif "." in text:
        yield from float_faults(text)
