"""What people type: thousands of phrasings, combined with greetings, hurry, slips of the keys.

Every list is split by a stable hash of the phrase: about one in seven is kept for the evaluation
(``held=True``) and never seen in training. Fields in braces are filled from the task. Square
brackets hold alternatives, as in ``[how many|what number of] tests [are there|exist|]``. In the
files of ``wordings/``, words in angle brackets stand for frequent alternatives (``_FREQUENT``).
"""

from __future__ import annotations

import functools
import random
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "wordings"
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_BLANKS = re.compile(r" {2,}")
_BEFORE_MARK = re.compile(r" (?=[,.?!](?: |$))")
_LOOKS = re.compile(r"[^\w{}\[\]|]+")
_FREQUENT = {
    "<ask>": "[tell me|please tell me|just tell me|can you tell me|could you tell me|do you know|"
    "I'd like to know|I want to know|I need to know|I would like to know|I wonder|any idea|"
    "let me know|could you say|can you find out|may I ask|please find out]",
    "<want>": "[tell me|please tell me|just tell me|can you tell me|could you tell me|do you know|"
    "I'd like to know|I want to know|I need to know|I would like to have|I want|I need|give me|"
    "let me know|could you say|can you find out|may I ask|please find out]",
    "<do>": "[|||please |pls |can you |could you |would you |just |I want you to |I need you to |"
    "kindly |now |hey, |can you please |could you please |would you mind to ]",
    "<repo>": "[this|the|our] [repo|repository|project|codebase|code base|package|code]",
    "<word>": '[{w}|{w}|"{w}"|\'{w}\'|`{w}`|the word {w}|the word "{w}"|the string {w}|'
    "the name {w}|the term '{w}']",
    "<q>": "[?|?| ?|]",
}


def lists(name: str) -> dict[str, list[str]]:
    """The lists of a file in ``wordings/``: phrases under headings such as ``== where``."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    for short, alternatives in _FREQUENT.items():
        text = text.replace(short, alternatives)
    _, *sections = text.split("\n== ")
    return {lines[0]: lines[1:] for lines in (part.strip().split("\n") for part in sections)}


QUESTIONS = lists("questions.txt")
TALK = lists("talk.txt")
REPAIRS = lists("repairs.txt")

BEFORE = [
    "hi, ",
    "hey, ",
    "hello, ",
    "Hi! ",
    "please: ",
    "ok ",
    "so, ",
    "hey there! ",
    "quick one: ",
    "urgent: ",
    "good morning, ",
    "ok next: ",
    "now ",
    "I need help. ",
    "Sorry to bother you. ",
]
AFTER = [
    " thanks",
    " thanks!",
    " thank you",
    ", please",
    " pls",
    " asap",
    " Thanks in advance!",
    " no rush",
    "!!",
    " :)",
    "...",
]
AFTER_FIX = [
    " Don't change the tests.",
    " (don't touch the tests)",
    " It is probably just one line.",
    " should be easy",
    " I have no idea what's wrong.",
    " it worked yesterday",
    " Keep the change small.",
    " minimal change please",
    " and tell me what it was",
]


def is_held(text: str) -> bool:
    """Whether a phrase is kept for the evaluation."""
    return zlib.crc32(text.encode()) % 7 == 0


def phrases(texts: Sequence[str], held: bool = False) -> list[str]:
    """The phrases of one side, at least one."""
    chosen = [text for text in texts if is_held(text) == held]
    return chosen or list(texts[:1])


def bare(text: str) -> str:
    """Letters, digits and fields alone, in lower case: what is left to tell two phrases apart."""
    return _LOOKS.sub("", text.lower())


def pattern(line: str) -> str:
    """A regular expression for all that a line stands for, bare."""
    if not _CHOICE.search(line):
        return re.escape(bare(line))
    text = bare(line).replace("{", r"\{").replace("}", r"\}")
    return text.replace("[", "(?:").replace("]", ")")


@functools.lru_cache(maxsize=256)
def _sides(texts: tuple[str, ...]) -> tuple[list[str], list[str], re.Pattern[str]]:
    """The lines of training, those of the evaluation, and a pattern of what the latter say.

    Lines with alternatives are drawn four times as often as the others.
    """
    sides = phrases(texts), phrases(texts, held=True)
    train, held = (
        [line for line in lines for _ in range(4 if _CHOICE.search(line) else 1)] for lines in sides
    )
    return train, held, re.compile("|".join(pattern(line) for line in sides[1] if is_held(line)))


def expanded(rng: random.Random, text: str) -> str:
    """One of the phrases that a line with alternatives stands for, the innermost chosen first."""
    chosen = text
    while found := _CHOICE.search(chosen):
        chosen = chosen[: found.start()] + rng.choice(found[1].split("|")) + chosen[found.end() :]
    if chosen == text:
        return text
    return _BEFORE_MARK.sub("", _BLANKS.sub(" ", chosen)).strip(" ")


def chosen(rng: random.Random, texts: Sequence[str], held: bool = False) -> str:
    """One phrase with its fields still in braces.

    What a line of the evaluation can say is never said in training, not even with other capitals,
    blanks or punctuation.
    """
    train, apart, said = _sides(tuple(texts))
    while True:
        text = expanded(rng, rng.choice(apart if held else train))
        if held or not said.fullmatch(bare(text)):
            return text


def phrase(rng: random.Random, texts: Sequence[str], held: bool = False, **fields: object) -> str:
    """One phrase, filled in."""
    text = chosen(rng, texts, held).replace("\\n", "\n")
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def spoken(rng: random.Random, text: str, *, exact: Sequence[str] = (), fix: bool = False) -> str:
    """As people type: a greeting, thanks, lower case, a slip. ``exact`` pieces stay as they are;
    ``fix``: it asks for a repair."""
    if rng.random() < 0.12:
        before = rng.choice(BEFORE)
        text = before + (text[:1].lower() + text[1:] if before[-2:] == ", " else text)
    if rng.random() < 0.18:
        after = rng.choice(AFTER + AFTER_FIX if fix else AFTER)
        text = (text.rstrip(".") if after[:1] in ",!." else text) + after
    if rng.random() < 0.15:
        text = text.rstrip(".?!")
    parts = _split(text, exact)
    if rng.random() < 0.15:
        parts = [(part.lower() if free else part, free) for part, free in parts]
    if rng.random() < 0.08:
        parts = [(_slip(rng, part) if free else part, free) for part, free in parts]
    text = "".join(part for part, _ in parts)
    return text.upper() if rng.random() < 0.005 and not exact else text


def _split(text: str, exact: Sequence[str]) -> list[tuple[str, bool]]:
    """Pieces of the text, and whether they may be changed."""
    pieces = [(text, True)]
    for fixed in sorted(exact, key=len, reverse=True):
        if not fixed:
            continue
        after: list[tuple[str, bool]] = []
        for piece, free in pieces:
            if not free:
                after.append((piece, free))
                continue
            for index, part in enumerate(piece.split(fixed)):
                if index:
                    after.append((fixed, False))
                after.append((part, True))
        pieces = after
    return pieces


def _slip(rng: random.Random, text: str) -> str:
    """One slip of the keys in a longer word."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    index = rng.choice(long)
    word = words[index]
    place = rng.randrange(1, len(word) - 1)
    match rng.randrange(3):
        case 0:
            word = word[:place] + word[place + 1 :]
        case 1:
            word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        case _:
            word = word[:place] + word[place] + word[place:]
    words[index] = word
    return " ".join(words)
