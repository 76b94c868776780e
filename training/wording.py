"""What people type: hundreds of phrasings, combined with greetings, hurry, slips of the keys.

Every list is split by a stable hash of the phrase: about one in seven is kept for the evaluation
(``held=True``) and never seen in training. Fields in braces are filled from the task. Square
brackets hold alternatives, as in ``[how many|what number of] tests [are there|exist|]``.
"""

from __future__ import annotations

import functools
import random
import re
import zlib
from collections.abc import Sequence

_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_BLANKS = re.compile(r" {2,}")
_WORDS = re.compile(r"[\w{}]+")

WHERE = """
where is {f} defined?
where is {f}
Where is the {kind} `{f}` defined?
which file defines {f}?
in which file is {f}?
find {f}
find the definition of {f}
show me where {f} is
Where can I find {f}?
what file is {f} in
locate {f}
In which line and file is {f} defined?
I'm looking for {f}
where does {f} live?
which module contains the {kind} {f}?
{f} - where?
""".strip().split("\n")

CONSTANT = """
what is the value of {name}?
What's the value of `{name}`?
what is {name}
what is {name} set to?
value of {name}?
{name}?
which value does {name} have?
how big is {name}?
what does {name} equal
What is the constant {name} set to in this project?
look up {name}
tell me the value of {name}
""".strip().split("\n")

DEFAULT = """
what is the default of {name} in {f}?
What is the default value of `{name}` in `{f}`?
which default does the parameter {name} of {f} have?
default for {name} in {f}?
if I don't pass {name} to {f}, what is it?
""".strip().split("\n")

COUNT_TESTS = """
how many tests are there?
how many tests
How many tests does this project have?
count the tests
number of tests?
how many test cases are in this repo?
how many tests do we have here
What is the number of tests in this project?
tell me how many tests there are
""".strip().split("\n")

WHICH_FAILS = """
which test fails?
which tests fail
Which tests are failing?
what fails
do the tests pass?
do all tests pass?
are the tests green?
run the tests
run the tests and tell me the result
run pytest
Is everything green? Don't change anything.
what's the state of the tests
show me the failing test, don't fix it
which test is red right now? just tell me
test status?
are there failing tests?
check whether the tests pass
do a test run
""".strip().split("\n")

COUNT_FUNCTIONS = """
how many functions are in {path}?
how many functions does {path} define?
which functions does {path} have?
list the functions in {path}
what functions are defined in {path}
Count the functions of {path}.
number of functions in {path}?
which functions and methods are in {path}
""".strip().split("\n")

LINE = """
what is in line {n} of {path}?
what does line {n} of {path} say
show line {n} of {path}
show me {path} line {n}
print line {n} of {path}
{path}:{n}?
What stands in {path} at line {n}?
""".strip().split("\n")

LENGTH = """
how many lines does {path} have?
how long is {path}?
line count of {path}
number of lines in {path}?
wc -l {path}
""".strip().split("\n")

FILES = """
what files are here?
list the files
ls
which files are in this project?
show me the files
what is in this folder
What's in this repository?
list all files please
""".strip().split("\n")

USES = """
where is {f} used?
who calls {f}?
which files use {f}?
where do we use {f}
find all usages of {f}
show the uses of {f}
is {f} used anywhere?
""".strip().split("\n")

ARITHMETIC = """
what is {e}?
what's {e}
{e}
{e} = ?
calculate {e}
compute {e}
how much is {e}?
please calculate {e}
Can you compute {e} for me?
quick: {e}
what does {e} give
{e}?
tell me {e}
""".strip().split("\n")

COUNT_LETTERS = """
how many {c}s are in {w}?
how many times does {c} occur in {w}
count the letter {c} in {w}
How often does the letter "{c}" occur in "{w}"?
number of {c} in {w}?
how many "{c}" in "{w}"
""".strip().split("\n")

GREETING = """
hi
hello
hey
good morning
hi there
Hello!
yo
moin
hallo
hey you
""".strip().split("\n")

WHO = """
who are you?
what can you do?
what are you
help
what is this
which model are you?
are you chatgpt?
what model is this
how do you work
what can I ask you?
are you claude
tell me about yourself
""".strip().split("\n")

THANKS = """
thanks
thank you
great, thanks!
perfect
nice
thx
ok
cool
awesome, thank you
good job
""".strip().split("\n")

# (what was asked, what the answer says it is)
HELLO = [
    "Hello! I am agentcli's small built-in model. I can fix small faults that tests show, rename "
    "things and answer simple questions about this repository.",
    "Hi! Ask me to fix a failing test, to rename something, or where something is defined.",
]
ABOUT = [
    "I am agentcli's embedded model: small, offline, trained on Python. I run tests, fix faults of "
    "a line or two, rename things and answer simple questions. For more, set ANTHROPIC_API_KEY or "
    "OPENAI_API_KEY, or use --model local:PATH.",
    "I am a small model that runs on your machine without a network. I can find and fix small "
    "faults in Python code, rename across files and look things up in the repository.",
]
WELCOME = ["You're welcome.", "Glad to help.", "You're welcome!"]

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


def plain(text: str) -> str:
    """The words alone, in lower case: what is left to tell two phrases apart."""
    return " ".join(_WORDS.findall(text.lower()))


def expanded(rng: random.Random, text: str) -> str:
    """One of the phrases that a line with alternatives stands for, the innermost chosen first."""
    chosen = text
    while found := _CHOICE.search(chosen):
        chosen = chosen[: found.start()] + rng.choice(found[1].split("|")) + chosen[found.end() :]
    return text if chosen == text else _BLANKS.sub(" ", chosen).strip(" ")


@functools.lru_cache(maxsize=256)
def _sides(texts: tuple[str, ...], held: bool) -> tuple[list[str], frozenset[str]]:
    """The lines of one side, and the plain forms of the other side's lines without alternatives."""
    ours = phrases(texts, held)
    others = (text for text in texts if text not in ours and not _CHOICE.search(text))
    return ours, frozenset(map(plain, others))


def chosen(rng: random.Random, texts: Sequence[str], held: bool = False) -> str:
    """One phrase with its fields still in braces.

    What a line with alternatives stands for is split as well, by its words alone, so training and
    evaluation share no phrase, not even one with other capitals or punctuation.
    """
    ours, theirs = _sides(tuple(texts), held)
    while True:
        line = rng.choice(ours)
        for _ in range(40):
            text = expanded(rng, line)
            if text == line:
                return text
            words = plain(text)
            if is_held(words) == held and words not in theirs:
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
