"""Complaints about behaviour, in words made of the project's own names.

``cancel_order(order, reason)`` gives "cancelling an order", "cancel an order", "cancelled", "order"
and "reason". The words need not fit the fault: what is wrong, the tests say. Therefore some of the
complaints are about other programs altogether.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping, Sequence

from training import complaint_words as words
from training.projects import Case
from training.wording import chosen, lists

_PHRASES = lists("complaints.txt")
_FIELD = re.compile(r"\{(\w+)\}")
_SMALL_WORDS = "to of in at by for from with and or is has as on per"
_SMALL = frozenset(_SMALL_WORDS.split())
_PLAIN = """
self cls args kwargs obj str int dict func key val tmp fmt fn idx arg num the test tests other
default init main not none true false bool float list set tuple dict string
"""
_NO_NOUN = frozenset(_PLAIN.split())


def complaint(rng: random.Random, fields: Mapping[str, str], held: bool = False) -> str:
    """What somebody says about the behaviour, in one line or as an issue."""
    if rng.random() < 0.3:
        return _elsewhere(rng, fields, held)
    draw = rng.random()
    if draw < 0.48:
        return _said(rng, fields, held)
    if draw < 0.68:
        return _filled(rng, _PHRASES["asked"], fields, held)
    if draw < 0.76:
        return _filled(rng, _PHRASES["tested"], fields, held)
    first = _sentence(_filled(rng, _PHRASES["said"], fields, held))
    more = _sentence(_filled(rng, _PHRASES["more"], fields, held))
    if draw < 0.85:
        return f"{first} {more}"
    title = _filled(rng, _PHRASES["titles"], fields, held)
    text = rng.choice([first, f"{first} {more}", f"{first} {more}"])
    number = str(rng.randint(2, 3000))
    form = rng.choice(words.ISSUES)
    return (
        form.replace("{number}", number)
        .replace("{title}", title[:1].upper() + title[1:])
        .replace("{text}", text)
    )


def _elsewhere(rng: random.Random, fields: Mapping[str, str], held: bool) -> str:
    """A complaint as it could be about any program, mostly about another one than this."""
    draw = rng.random()
    if draw < 0.6:
        return _said(rng, fields, held, "facts")
    if draw < 0.8:
        return _filled(rng, _PHRASES["pleas"], fields, held)
    return _filled(rng, _PHRASES["issues"], fields, held).replace("\\n", "\n").strip()


def _said(rng: random.Random, fields: Mapping[str, str], held: bool, phrases: str = "said") -> str:
    """A statement, perhaps with something before it and a request after it."""
    text = _filled(rng, _PHRASES[phrases], fields, held)
    if rng.random() < 0.3:
        text = f"{_filled(rng, _PHRASES['before'], fields, held)} {text}"
    if rng.random() < 0.35:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.75:
        after = _filled(rng, _PHRASES["after"], fields, held)
        text += after if after[0] in ".,?!" else f" {after}"
    return text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _filled(rng: random.Random, lines: Sequence[str], fields: Mapping[str, str], held: bool) -> str:
    """One of the lines whose fields are all known, filled in."""
    for _ in range(40):
        text = chosen(rng, lines, held)
        if all(name in fields for name in _FIELD.findall(text)):
            return _FIELD.sub(lambda found: fields[found[1]], text)
    return f"{fields['thing']} is broken"


def fields(case: Case, rng: random.Random, symptom: Mapping[str, str] | None) -> dict[str, str]:
    """A draw of words for every field for which the project has any.

    thing    what does not work: "cancelling an order", "the total"
    value    the same as a value: "the total"
    noun, other (and nouns, others, a_noun, a_other)
    doing, do, done   of a function whose name begins with a verb
    adj, adj2         states
    test     the words of a failing test's name
    f, path           the function and the file of the fault
    call, got, want   of the first failed assertion
    """
    path, fault = case.faults[0]
    tree = ast.parse(case.project.files[path])
    function = _function_at(tree, fault.line)
    names = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("__")
    ]
    name = rng.choice(names or ["result"])
    if function and not function.name.startswith("__") and rng.random() < 0.7:
        name = function.name
    parts = split(name)
    nouns = _nouns(tree, function, rng)
    found: dict[str, str] = {**(symptom or {}), "path": path}
    if function is not None and not function.name.startswith("__"):
        found["f"] = function.name
    noun, other = _draw(rng, nouns, parts)
    found |= {"noun": noun, "nouns": plural(noun), "a_noun": article(noun)}
    found |= {"other": other, "others": plural(other), "a_other": article(other)}
    found["adj"], found["adj2"] = rng.sample(words.STATES, 2)
    if len(parts) > 1 and parts[0] in ("is", "has") and rng.random() < 0.7:
        found["adj"] = " ".join(parts[1:])
        found["adj2"] = f"not {found['adj']}"
    if parts and parts[0] in words.VERBS:
        rest = " ".join(parts[1:]) or noun
        shown = rng.choice([article(rest), f"the {rest}", plural(rest)])
        if len(parts) > 2 and _SMALL & set(parts):
            shown = rest
        found |= {"do": f"{parts[0]} {shown}", "doing": f"{gerund(parts[0])} {shown}"}
        found["done"] = participle(parts[0])
        found["value"] = f"the {rest}"
        found["thing"] = rng.choice(
            [found["doing"], found["doing"], f"the {' '.join(parts)} thing", f"the {rest}"]
        )
    else:
        subject = " ".join(parts) if parts and parts[0] not in _SMALL else noun
        found["value"] = rng.choice([f"the {subject}", f"the {noun}"])
        found["thing"] = rng.choice([found["value"], f"the {subject}", subject])
        if parts and parts[0] in ("is", "has"):
            found["thing"] = f"the check for {' '.join(parts[1:]) or noun}"
        elif len(parts) > 1 and parts[0] in ("to", "from"):
            found["thing"] = f"the conversion {' '.join(parts)}"
    if rng.random() < 0.12:
        found["thing"] = rng.choice(
            [
                f"the {noun} {rng.choice(['logic', 'stuff', 'part', 'code', 'handling'])}",
                f"the {noun}",
            ]
        )
    if case.run.failed:
        test = case.run.failed[0][1].split("[")[0].rpartition(".")[2]
        described = [part for part in split(test) if part != "test"]
        if described:
            found["test"] = " ".join(described)
    return found


def _function_at(tree: ast.Module, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The innermost function that a line belongs to."""
    best = None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.lineno <= line <= (node.end_lineno or 0)
        ):
            best = node
    return best


def _nouns(
    tree: ast.Module, function: ast.FunctionDef | ast.AsyncFunctionDef | None, rng: random.Random
) -> list[str]:
    """Nouns of the function's parameters, the file's classes and names; some are everyday ones."""
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    if function is not None:
        arguments = function.args
        names += [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)][:8]
    nouns = []
    for name in names:
        parts = split(name)
        if parts and parts[0] in words.VERBS:
            parts = parts[1:]
        if _is_noun(parts):
            nouns.append(singular(" ".join(parts[-2:])))
    return nouns + rng.choices(words.EVERYDAY, k=max(2, len(nouns) // 3))


def _draw(rng: random.Random, nouns: Sequence[str], parts: Sequence[str]) -> tuple[str, str]:
    """Two different nouns, the first often the function's own."""
    own = " ".join(parts[1:] if parts and parts[0] in words.VERBS else parts)
    first = rng.choice(nouns)
    if _is_noun(own.split()) and rng.random() < 0.4:
        first = singular(own)
    rest = [noun for noun in nouns if noun != first]
    return first, rng.choice(rest or words.EVERYDAY)


def _is_noun(parts: Sequence[str]) -> bool:
    """Whether the words can be taken for a noun; ``failed`` cannot."""
    return bool(parts) and not (_SMALL | _NO_NOUN) & set(parts) and not parts[-1].endswith("ed")


def split(name: str) -> list[str]:
    """``cancelOrder``, ``CancelOrder``, ``cancel_order`` → cancel, order; no digits or letters."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    parts = [part.lower() for part in spaced.split("_")]
    return [part for part in parts if part.isalpha() and (len(part) > 2 or part in _SMALL)]


def gerund(verb: str) -> str:
    """``cancel`` → cancelling"""
    if verb in ("cancel", "transfer", "submit", "reset") or verb in words.DOUBLED:
        return f"{verb}{verb[-1]}ing"
    if verb == "lookup":
        return "looking up"
    return f"{verb[:-1] if verb[-1] == 'e' else verb}ing"


def participle(verb: str) -> str:
    """``cancel`` → cancelled"""
    if verb in words.DONE:
        return words.DONE[verb]
    if verb in words.DOUBLED or verb == "submit":
        return f"{verb}{verb[-1]}ed"
    if verb[-1] == "y" and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return f"{verb}{'d' if verb[-1] == 'e' else 'ed'}"


def article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' and noun[:4] != 'user' else 'a'} {noun}"


def plural(noun: str) -> str:
    noun = singular(noun)
    if noun[-1] == "y" and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and len(noun) > 3:
        return noun[:-1]
    return noun
