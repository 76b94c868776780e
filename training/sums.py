"""Conversations about arithmetic, counting letters and counting words.

The calculator is called within the answer.
"""

from __future__ import annotations

import builtins
import keyword
import random
import sys
from dataclasses import dataclass

from agentcli.errors import ToolInputError
from agentcli.tools.calculator import calculate
from training import wording
from training.names import MODULE_WORDS, NEW_NAMES
from training.trajectories import Conversation, Workspace
from training.wording import TALK

_LONGEST = 14  # characters; longer values are not used


@dataclass(frozen=True)
class Sum:
    """A calculation as people phrase it: ``shown`` is a noun phrase, or an order if ``verb``.

    ``symbols``: it is written as a formula, which an answer may repeat.
    """

    shown: str
    expression: str
    symbols: bool = False
    verb: bool = False


def arithmetic(rng: random.Random, held: bool = False) -> Conversation:
    """Make a conversation about a calculation or a count."""
    talk = Conversation(Workspace({}))
    rng.choices(list(_KINDS), list(_KINDS.values()))[0](talk, rng, held)
    return talk


def calculation(talk: Conversation, rng: random.Random, held: bool = False) -> None:
    """Ask for the value of a formula, or of one in words."""
    while True:
        sum_ = rng.choice(_MAKERS)(rng)
        try:
            value = calculate(sum_.expression)
        except ToolInputError:
            continue
        if len(value) <= _LONGEST:
            break
    texts = TALK["arithmetic_do" if sum_.verb else "arithmetic"]
    text = wording.phrase(rng, texts, held, e=sum_.shown, d=sum_.shown)
    talk.user(wording.spoken(rng, text, exact=[sum_.shown]))
    talk.compute(sum_.expression, value)
    answers = _answers(value)
    if sum_.symbols:
        answers.append(f"{sum_.shown} = {value}")
    talk.say(rng.choice(answers))


def _number(rng: random.Random, size: int | None = None) -> int:
    return rng.randint(2, size or rng.choice([10, 20, 100, 100, 1000, 10_000, 100_000]))


def _formula(rng: random.Random) -> Sum:
    """A formula of signs and numbers, in the various ways they are written."""
    size = rng.choice([10, 100, 1000, 100_000])
    a, b, c, d = (rng.randint(2, size) for _ in range(4))
    sign = rng.choice(["+", "-", "*", "*", "/"])
    if sign == "/":
        a *= b
    match rng.randrange(12):
        case 0 | 1:
            text = f"{a} {sign} {b}"
        case 2:
            text = f"{a}{sign}{b}"
        case 3:
            text = f"({a} + {b}) * {c}"
        case 4:
            text = f"{a} {rng.choice('+-')} {b} {rng.choice('+-*')} {c}"
        case 5:
            text = f"{a} * ({b} - {c})"
        case 6:
            text = f"({a} {rng.choice('+-')} {b}) / {rng.choice([2, 4, 5, 8, 10])}"
        case 7:
            text = " + ".join(
                map(str, [a, b, c, d, *rng.sample(range(2, 99), 2)][: rng.randint(3, 6)])
            )
        case 8:
            text = f"{a / 10} {rng.choice('+-*')} {b}"
        case 9:
            text = f"-{a} + {b}"
        case 10:
            shown = rng.choice([f"{a}x{b}", f"{a} x {b}", f"{a} × {b}", f"{a} · {b}"])  # noqa: RUF001
            return Sum(shown, f"{a}*{b}", symbols=True)
        case _:
            e, f = rng.randint(1000, 99_999), rng.randint(1000, 99_999)
            sign = rng.choice("+-")
            return Sum(f"{e:,} {sign} {f:,}", f"{e}{sign}{f}", symbols=True)
    return Sum(text, text.replace(" ", ""), symbols=True)


def _percent(rng: random.Random) -> Sum:
    percent = rng.choice([1, 2, 3, 5, 7, 8, 10, 12, 15, 19, 20, 25, 30, 33, 40, 50, 60, 75, 90])
    whole = _number(rng)
    sign = rng.choice(["%", "%", " %", " percent", " per cent", "pct"])
    return Sum(f"{percent}{sign} of {whole}", f"{whole}*{percent}/100", symbols="%" in sign)


def _said(rng: random.Random, number: int) -> str:
    """A number in digits; small ones sometimes in words."""
    if number >= 100 or rng.random() < 0.75:
        return str(number)
    if number < 20:
        return _SMALL[number]
    tens, ones = _TENS[number // 10], number % 10
    return f"{tens}{rng.choice('- ')}{_SMALL[ones]}" if ones else tens


def _in_words(rng: random.Random) -> Sum:
    """A noun phrase, such as ``the product of 17 and 23``."""
    a, b, c = _number(rng), _number(rng), _number(rng, 20)
    small = rng.randint(2, 12)
    power = rng.randint(2, 4) if small > 2 else rng.randint(2, 10)
    x, y, z = _said(rng, a), _said(rng, b), _said(rng, c)
    the = rng.choice(["the ", ""])
    sums = [
        (f"{x} plus {y}", f"{a}+{b}"),
        (f"{x} and {y} together", f"{a}+{b}"),
        (f"{the}sum of {x} and {y}", f"{a}+{b}"),
        (f"{the}sum of {x}, {y} and {z}", f"{a}+{b}+{c}"),
        (f"{x} plus {y} plus {z}", f"{a}+{b}+{c}"),
        (f"{x} minus {y}", f"{a}-{b}"),
        (f"{x} less {y}", f"{a}-{b}"),
        (f"{the}difference between {max(a, b)} and {min(a, b)}", f"{max(a, b)}-{min(a, b)}"),
        (f"{x} times {y}", f"{a}*{b}"),
        (f"{x} multiplied {rng.choice(['by', 'with'])} {y}", f"{a}*{b}"),
        (f"{the}product of {x} and {y}", f"{a}*{b}"),
        (f"{x} times {y} {rng.choice(['plus', 'minus'])} {z}", ""),
        (f"{a * c} divided by {z}", f"{a * c}/{c}"),
        (f"{a * c} over {c}", f"{a * c}/{c}"),
        (f"{the}quotient of {a * c} and {c}", f"{a * c}/{c}"),
        (f"half of {x}", f"{a}/2"),
        (f"{rng.choice(['a quarter', 'one fourth', 'a fourth'])} of {a * 4}", f"{a * 4}/4"),
        (f"a third of {a * 3}", f"{a * 3}/3"),
        (f"a tenth of {x}", f"{a}/10"),
        (f"{rng.choice(['twice', 'double', 'two times'])} {x}", f"2*{a}"),
        (f"{rng.choice(['triple', 'three times'])} {x}", f"3*{a}"),
        (f"{x} squared", f"{a}*{a}"),
        (f"{the}square of {x}", f"{a}*{a}"),
        (f"{z} cubed", f"{c}*{c}*{c}"),
        (f"{small} to the power of {power}", "*".join([str(small)] * power)),
        (f"{small}{rng.choice(['^', '**', ' ^ ', ' ** '])}{power}", "*".join([str(small)] * power)),
        (f"{small} to the {_ORDINALS[power]} power", "*".join([str(small)] * power)),
        (f"{x} increased by {y}", f"{a}+{b}"),
        (f"{x} reduced by {y}", f"{a}-{b}"),
    ]
    shown, expression = rng.choice(sums)
    if not expression:
        expression = f"{a}*{b}{'+' if ' plus ' in shown else '-'}{c}"
    return Sum(shown, expression)


def _order(rng: random.Random) -> Sum:
    """An order, such as ``multiply 17 by 23``."""
    a, b, c = _number(rng), _number(rng), _number(rng, 20)
    x, y, z = _said(rng, a), _said(rng, b), _said(rng, c)
    percent = rng.choice([5, 10, 15, 20, 25, 50])
    sums = [
        (f"multiply {x} {rng.choice(['by', 'with', 'and'])} {y}", f"{a}*{b}"),
        (f"add {x} {rng.choice(['and', 'to', 'plus'])} {y}", f"{a}+{b}"),
        (f"add up {x}, {y} and {z}", f"{a}+{b}+{c}"),
        (f"sum up {x}, {y} and {z}", f"{a}+{b}+{c}"),
        (f"sum {x} and {y}", f"{a}+{b}"),
        (f"subtract {x} from {y}", f"{b}-{a}"),
        (f"take {x} away from {y}", f"{b}-{a}"),
        (f"deduct {x} from {y}", f"{b}-{a}"),
        (f"divide {a * c} by {z}", f"{a * c}/{c}"),
        (f"split {a * c} into {z} equal parts", f"{a * c}/{c}"),
        (f"take {percent}% of {a}", f"{a}*{percent}/100"),
        (f"double {x}", f"2*{a}"),
        (f"halve {x}", f"{a}/2"),
        (f"square {x}", f"{a}*{a}"),
        (f"triple {x}", f"3*{a}"),
        (f"take {x} and add {y}", f"{a}+{b}"),
        (f"take {x} and subtract {y}", f"{a}-{b}"),
        (f"start with {x} and multiply it by {y}", f"{a}*{b}"),
        (f"add {x} and {y} and multiply the result by {z}", f"({a}+{b})*{c}"),
        (f"average {x}, {y} and {z}", f"({a}+{b}+{c})/3"),
    ]
    shown, expression = rng.choice(sums)
    return Sum(shown, expression, verb=True)


def _average(rng: random.Random) -> Sum:
    size = rng.choice([10, 20, 100, 1000])
    numbers = [rng.randint(1, size) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.5:  # a whole number
        numbers[-1] += -sum(numbers) % len(numbers)
    name = rng.choice(["average", "mean", "arithmetic mean", "mean value", "average value"])
    *most, last = map(str, numbers)
    listed = f"{', '.join(most)}{rng.choice([' and ', ', '])}{last}"
    if rng.random() < 0.15:
        listed = f"[{', '.join(map(str, numbers))}]"
    the = rng.choice(["the ", "the ", ""])
    return Sum(f"{the}{name} of {listed}", f"({'+'.join(map(str, numbers))})/{len(numbers)}")


def _decimal(rng: random.Random) -> str:
    """A number with decimals as people write it: 6.75, 45.20, 0.5; sometimes a whole one."""
    places = rng.choice([0, 1, 1, 2, 2, 2, 3])
    return f"{rng.uniform(0.1, rng.choice([1, 10, 100, 1000])):.{places}f}"


def _decimals(rng: random.Random) -> Sum:
    """A calculation with decimals: a formula, a noun phrase or an order."""
    a, b, c = (_decimal(rng) for _ in range(3))
    n = str(rng.randint(2, 12))
    sign, word = rng.choice(
        [("+", "plus"), ("-", "minus"), ("*", "times"), ("*", "multiplied by"), ("/", "divided by")]
    )
    blank = rng.choice(["", " ", " "])
    sums = [
        Sum(f"{a}{blank}{sign}{blank}{b}", f"{a}{sign}{b}", symbols=True),
        Sum(f"{a} {word} {b}", f"{a}{sign}{b}"),
        Sum(f"{a} {word} {n}", f"{a}{sign}{n}"),
        Sum(f"{n} {word} {a}", f"{n}{sign}{a}"),
        Sum(f"{a} + {b} + {c}", f"{a}+{b}+{c}", symbols=True),
        Sum(f"the sum of {a}, {b} and {c}", f"{a}+{b}+{c}"),
        Sum(f"{a} and {b} together", f"{a}+{b}"),
        Sum(f"{n} times {a} plus {b}", f"{n}*{a}+{b}"),
        Sum(f"add {a} and {b}", f"{a}+{b}", verb=True),
        Sum(f"subtract {a} from {b}", f"{b}-{a}", verb=True),
        Sum(f"divide {a} by {n}", f"{a}/{n}", verb=True),
        Sum(f"multiply {a} by {n}", f"{a}*{n}", verb=True),
    ]
    return rng.choice(sums)


_MAKERS = [_formula, _formula, _decimals, _percent, _in_words, _in_words, _order, _average]


def count_letters(talk: Conversation, rng: random.Random, held: bool = False) -> None:
    """Ask how often a letter occurs in a word; the case in the word counts, not the typed one."""
    word = _word(rng)
    if rng.random() < 0.85:
        letter = rng.choice([sign for sign in word if sign.isalpha()])
    else:
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        letter = letter.upper() if word.isupper() else letter
    if letter.swapcase() in word:  # both cases occur, so the question would be ambiguous
        letter, word = letter.lower(), word.lower()
    asked = letter.swapcase() if rng.random() < 0.15 else letter
    text = wording.phrase(rng, TALK["count_letters"], held, c=asked, w=word)
    talk.user(wording.spoken(rng, text, exact=[word]))
    count = calculate(f"'{word}'.count('{letter}')")
    talk.compute(f"'{word}'.count('{letter}')", count)
    talk.say(f'The letter "{letter}" occurs {count} time{"" if count == "1" else "s"} in "{word}".')


def word_length(talk: Conversation, rng: random.Random, held: bool = False) -> None:
    """Ask how many letters a word has."""
    word = _word(rng)
    talk.user(
        wording.spoken(rng, wording.phrase(rng, TALK["word_length"], held, w=word), exact=[word])
    )
    expression = f"len('{word}')"
    length = calculate(expression)
    talk.compute(expression, length)
    talk.say(rng.choice([length, f'"{word}" has {length} letters.']))


def count_words(talk: Conversation, rng: random.Random, held: bool = False) -> None:
    """Ask how many words a sentence has."""
    sentence = " ".join(
        rng.choice(WORDS if rng.random() < 0.4 else _COMMON) for _ in range(rng.randint(2, 14))
    )
    text = wording.phrase(rng, TALK["count_words"], held, s=sentence)
    talk.user(wording.spoken(rng, text, exact=[sentence]))
    expression = f"len('{sentence}'.split())"
    count = calculate(expression)
    talk.compute(expression, count)
    talk.say(rng.choice([count, f"{count} words.", f"The sentence has {count} words."]))


def story(talk: Conversation, rng: random.Random, held: bool = False) -> None:
    """Ask a word problem of one calculation, which the phrase gives after the last ``=``."""
    a, c = rng.randint(3, rng.choice([12, 99, 99, 999])), rng.randint(2, 12)
    y, x = sorted(rng.uniform(0.5, rng.choice([10, 100, 1000])) for _ in range(2))
    money = {"x": f"{x:.2f}", "y": f"{y:.2f}"}
    fields = {"a": a, "b": rng.randint(2, a), "c": c, "p": a * c, **money}
    text, _, expression = wording.phrase(rng, TALK["stories"], held, **fields).rpartition(" = ")
    talk.user(wording.spoken(rng, text))
    value = calculate(expression)
    talk.compute(expression, value)
    talk.say(rng.choice(_answers(value)))


_KINDS = {
    calculation: 0.44,
    count_letters: 0.22,
    story: 0.16,
    word_length: 0.10,
    count_words: 0.08,
}


def _answers(value: str) -> list[str]:
    return [value, f"That is {value}.", f"The result is {value}."]


def _word(rng: random.Random) -> str:
    """A word, a name as in code, or something that could be a word."""
    match rng.randrange(8):
        case 0 | 1:
            word = rng.choice(WORDS)
        case 2:
            word = rng.choice(_IDENTIFIERS)
        case 3:
            word = "_".join(rng.sample(NEW_NAMES, rng.choice([1, 2, 2, 3])))
        case 4:
            word = "".join(name.capitalize() for name in rng.sample(NEW_NAMES, 2))
        case _:
            word = _made_up(rng)
    chance = rng.random()
    if chance < 0.08:
        return word.upper()
    return word.capitalize() if chance < 0.16 else word


def _made_up(rng: random.Random) -> str:
    middle = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice([1, 1, 2, 2, 3]))
    )
    return (
        rng.choice(["", "", "", *_PREFIXES]) + middle + rng.choice(_ONSETS) + rng.choice(_SUFFIXES)
    )


_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_SMALL = _NUMBERS.split()
_SERIES = """
zero ten twenty thirty forty fifty sixty seventy eighty ninety
zeroth first second third fourth fifth sixth seventh eighth ninth tenth
"""
_TENS, _ORDINALS = (line.split() for line in _SERIES.strip().split("\n"))

_SYLLABLES = """
un re inter over pre dis mis under super anti trans micro multi sub con ex
b bl br c ch cr d dr f fl g gl gr h j k l ll m mm n nn p pl pp qu r rr s sc sh ss st str sw t th v
a a e e i i o o u ea ee ai oo ou io ie
ation ing ness able ible ment er ism ist ity ous ful less ly ed al ic ence ship ward a e o et y age
"""
_PREFIXES, _ONSETS, _VOWELS, _SUFFIXES = (line.split() for line in _SYLLABLES.strip().split("\n"))

_IDENTIFIERS = sorted(
    name
    for name in {*keyword.kwlist, *dir(builtins), *sys.stdlib_module_names, *MODULE_WORDS}
    if len(name) > 3 and not name.startswith("_") and all(c.isalpha() or c == "_" for c in name)
)

_COMMONEST = """
the a of and to in on at by for with from under over near after before is was are has had will
can may must his her our their my your this that these no not all some many two three old new big
small red green long short good late early one day night man woman child cat dog house street tree
road bridge water fire bread salt egg table door light book letter train boat king queen she he it
we they you I goes went comes came sleeps runs ran sees saw takes took makes made gives gave says
said eats ate drinks sings writes reads walks stays waits falls slowly quickly often never always
here there then now again please
"""
_COMMON = _COMMONEST.split()

WORDS = (wording.FOLDER / "words.txt").read_text(encoding="utf-8").split()
