"""What people type: hundreds of phrasings, combined with greetings, hurry, slips of the keys.

Every list is split by a stable hash of the phrase: about one in seven is kept for the evaluation
(``held=True``) and never seen in training. Fields in braces are filled from the task. Square
brackets hold alternatives, as in ``[how many|what number of] tests [are there|exist|]``.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence

_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")

FIX = """
tests fail, fix it
fix the tests
fix the failing test
The tests fail. Please fix them.
tests are red, please fix
the test suite is failing, can you find out why and fix it?
make the tests pass
Make all tests pass again.
pytest fails. Fix the bug.
one of the tests is failing
There is a failing test in this repo. Find the bug and fix it.
something is broken, tests don't pass anymore
something broke. fix pls
broken since the last commit
the build is red, tests fail
CI is red because of a failing test. can you repair the code?
I broke something and don't know what. The tests show it.
there's a bug somewhere, run the tests and fix it
find the bug
find and fix the bug
find the bug and fix it, don't touch the tests
fix bug
fix it
please repair
fix this repo
Run the tests, find out what is wrong and correct it.
run pytest and fix what fails
can you get the tests green again
get this green
help, tests failing
help! my tests are failing and I don't see why
my tests are failing :(
why do my tests fail? please fix the code
Why is the test failing? Fix the cause.
A test fails since yesterday. Please look into it.
since my last change a test is failing. Could you fix the code?
I refactored a bit and now tests fail
I must have made a typo somewhere, tests are failing
Somewhere there is a wrong line. Find it with the tests and correct it.
one line is wrong somewhere
there is exactly one bug in the code. The tests catch it. Fix it.
the code has an off-by-one or something like that, tests fail
Debug this please.
debug the failing test
debug
The tests should pass but they don't. Fix the source, not the tests.
tests should pass but don't. do not edit the tests!
Please fix the failing unit tests without changing them.
unit tests broken
Our unit tests are failing on main, please take a look and fix the code.
look at the failing tests and fix the implementation
the implementation is wrong, tests are right. fix
Could you please check why the tests don't pass and fix that?
hey can you fix the bug in here
Can you solve this?
solve it
please make it work
make it work again
doesn't work, fix
it doesn't work anymore
I get a test failure. Fix it please.
I get an error when I run the tests
When I run pytest I get a failure. Please fix the underlying problem.
pytest -q is not happy, can you sort it out
sort out the test failure
Repair the code so that all checks pass.
repair the project
Fix the regression.
there is a regression, see the tests
A colleague pushed a change and now the tests break. Repair it.
my coworker broke the tests, fix it
student submission with a small mistake; correct it so the tests pass
kata: fix the code so that the tests pass
The code in this folder has a small mistake. Correct it.
small bug in here, find it
Please correct the mistake in the code.
get rid of the bug
resolve the failing test
Investigate the failing tests and fix the root cause.
Identify and fix the defect that makes the tests fail.
Fix whatever is broken and verify with the tests.
fix + verify
fix the code, then run the tests again
I need the tests to pass before I can push. Fix what's broken
can't commit, tests fail. fix?
pre-commit runs the tests and they fail
tests!!! fix
red tests
failing test
bug
""".strip().split("\n")

FIX_FUNCTION = """
{f} is broken, fix it
{f} doesn't work
{f} doesn't work as expected, please fix
{f}() returns the wrong thing
{f} returns wrong results
fix {f}
fix {f} in {path}
fix the bug in {f}
Fix the bug in `{f}`.
There is a bug in `{f}` ({path}). Please fix it.
there's something wrong with {f}, have a look
something is off in {f}
I think {f} has a bug
I think there's a mistake in {f} in {path}, can you check and fix it?
`{f}` in `{path}` has a fault. Find it, fix it, run the tests.
The function {f} gives wrong output. Please correct it.
Look at {f} in {path}, the tests for it fail.
tests for {f} fail
the {f} tests are failing
why does {f} fail? fix it please
could you repair {f}? it used to work
{f} used to work, now it doesn't
{f} has an off by one i think
{f} seems to be wrong since the last refactoring
I changed {f} yesterday and now it is broken
debug {f}
please check {f}
{path}: {f} is buggy
{path} - {f} - wrong result
bug in {path}, function {f}
hey, {f} returns nonsense, can you have a look? thanks!
Correct the implementation of {f} so that its tests pass.
my {f} function is not right
{f} is wrong but I can't see why
can you spot the mistake in {f}?
spot the bug in {f} and fix it
""".strip().split("\n")

FIX_FILE = """
fix {path}
fix the bug in {path}
there's a bug in {path}
{path} is broken
{path} has a bug, tests fail
something in {path} is wrong
Please look at {path}, there is a mistake in it.
I edited {path} and broke something
the problem is in {path}
The tests fail because of {path}. Fix it.
can you find the bug in {path}?
{path} seems off, run the tests
Somewhere in {path} is a wrong line. Correct it.
check {path} for mistakes, the tests fail
repair {path}
""".strip().split("\n")

FIX_TEST = """
{test} fails
{test} fails, fix it
{test} is failing
fix {test}
please make {test} pass
Make `{test}` pass without changing it.
{test} in {testfile} fails. Fix the code.
the test {test} is red
Why does {test} fail? Please fix the code.
{testfile}::{test} fails
FAILED {testfile}::{test}
FAILED {testfile}::{test} - can you fix this?
{testfile}::{test} broken since today
I can't get {test} to pass
test {test} does not pass, find the bug
One test, {test}, fails. Repair the code it tests.
get {test} green
look into {test}
{test} started failing after my refactoring
""".strip().split("\n")

FIX_ERROR = """
I get {error}
I get `{error}` when running the tests. Fix it.
getting {error}, please fix
{error}
{error} - what's wrong? fix it
tests crash with {error}
pytest says: {error}
The tests fail with "{error}". Please fix the code.
why do I get {error}?
fix this error: {error}
Error: {error} -- help
I see {error} in the output, can you repair this?
it says {error}
""".strip().split("\n")

FIX_PASTED = r"""
{output}
fix this:\n{output}
{output}\n\nfix it
{output}\n\nWhat is wrong here? Please fix.
I get this:\n\n{output}
I get this when I run pytest:\n\n{output}\n\nCan you fix it?
Tests fail:\n{output}
tests fail, output below\n\n{output}
here is the output of pytest:\n```\n{output}\n```\nplease fix the code
```\n{output}\n```
```\n{output}\n```\nfix pls
CI log:\n{output}
This fails:\n\n{output}\n\nDon't change the tests.
hi, I don't understand this failure:\n{output}\nthanks for fixing
what does this mean? please repair it\n\n{output}
$ pytest -q\n{output}
> python -m pytest\n{output}\nfix
""".strip().split("\n")

TWO = """
two tests fail, fix both
There are two bugs. Fix both.
fix all failing tests
Several tests fail. Fix them all.
multiple tests are failing, please fix everything
more than one thing is broken, make all tests pass
there are two mistakes in the code, find them
Find and fix both bugs.
fix all bugs
everything red. fix all
at least two things are broken here
""".strip().split("\n")

RENAME = """
rename {old} to {new}
Rename `{old}` to `{new}` everywhere.
rename {old} to {new} in all files
please rename {old} -> {new}
{old} should be called {new}
Rename the {kind} {old} to {new} and update all callers.
Rename the {kind} `{old}` to `{new}` across the repository; the tests must still pass.
change the name of {old} to {new}
I don't like the name {old}, call it {new} instead
refactor: rename {old} to {new}
refactor {old} into {new} (just the name)
{old} is a bad name. Use {new}, everywhere.
can you rename {old} to {new} for me? also in the tests
replace the name {old} by {new} in code and tests
s/{old}/{new}/ in the whole project
rename {kind} {old}: {new}
the {kind} {old} needs a better name: {new}
we renamed {old} to {new} in the spec, do the same in the code
""".strip().split("\n")

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
DECLINES = """
add OAuth to this app | add OAuth
add OAuth login with Google | add a login with Google
implement user authentication | implement authentication
build a web app for this | build a web app
create a REST API around this module | create a REST API
add a GraphQL endpoint | add a GraphQL endpoint
write a Dockerfile and deploy this to Kubernetes | deploy this
set up CI with GitHub Actions | set up CI
migrate this project to Django | migrate a project
port this to Rust | port the code to Rust
rewrite this in TypeScript | rewrite the code in TypeScript
convert the whole project to async | convert a project to async
translate the README into German | translate texts
write documentation for all modules | write documentation
write a README | write a README
write a blog post about this library | write a blog post
write unit tests for everything | write new tests
write tests for {f} | write new tests
add property based tests for {path} | write new tests
increase the test coverage to 90% | write new tests
explain the architecture of this project | explain an architecture
explain how {path} works | explain code
explain what {f} does in detail | explain code
review my pull request | review code
do a code review of {path} | review code
refactor {path} into smaller modules | restructure a module
refactor the whole project to use dataclasses | restructure a project
make {f} twice as fast | optimise code
optimise the performance of this project | optimise code
profile this and speed it up | optimise code
add type hints everywhere | add type hints to a project
add logging to all functions | add logging everywhere
add a command line interface with subcommands | add a command line interface
add a GUI | build a user interface
build me a game of chess | build a game
write a snake game | write a game
implement a neural network from scratch | implement a neural network
train a model on this data | train a model
add support for PostgreSQL | add a database
add caching with Redis | add caching with Redis
design a database schema for this | design a database
create a new feature: export to PDF | add a feature
add a feature that exports everything to Excel | add a feature
implement dark mode | add a feature
add pagination to the list endpoint | add a feature
add a new function that sorts everything by date | write new functions
write a function that parses CSV files | write new functions
write a script that renames my photos | write new programs
write a scraper for a news site | write a scraper
upgrade all dependencies to the newest versions | upgrade dependencies
find security holes in this code | audit code for security
do a security audit | audit code for security
publish this package to PyPI | publish a package
commit and push everything | use git for you
open a pull request | open a pull request
what is the capital of France? | answer general questions
who won the world cup in 2014? | answer general questions
what's the weather like today | answer general questions
tell me a joke | tell jokes
write a poem about the sea | write poems
what is the meaning of life | answer general questions
how does quantum computing work? | answer general questions
explain monads | explain concepts
what is the difference between a list and a tuple? | explain concepts
recommend a book about Python | give recommendations
summarise this article for me | summarise texts
translate "good morning" to French | translate texts
book a flight to Lisbon | do that
send an email to my boss | send mail
how do I center a div? | answer questions about web design
help me with my homework in history | help with homework
plan my week | make plans
compare React and Vue | compare frameworks
which laptop should I buy | give recommendations
generate an image of a cat | make images
implement OAuth2 with refresh tokens and write the docs | implement OAuth
replace the database layer by SQLAlchemy | replace a database layer
split this repository into microservices | restructure a project
make this thread-safe | make code thread-safe
support Windows as well | port the code
internationalise the app | translate an application
write a plugin system | design a plugin system
turn this into a library with a public API | restructure a project
""".strip().split("\n")

REASONS = [
    "I can't {what}: I am a small offline model for small repairs and simple questions about a "
    "repository. Set ANTHROPIC_API_KEY or OPENAI_API_KEY, or use --model local:PATH, for this.",
    "That is out of my reach: I cannot {what}. Configure a provider (ANTHROPIC_API_KEY, "
    "OPENAI_API_KEY) or a local model with --model local:PATH.",
    "I cannot {what}; I only fix small faults, rename things and answer simple questions. A larger "
    "model can: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or pass --model local:PATH.",
]

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


def expanded(rng: random.Random, text: str, held: bool = False) -> str:
    """One of the phrases that a line with alternatives stands for, the innermost chosen first.

    A phrase of training is never one that another line keeps for the evaluation.
    """
    while True:
        chosen = text
        while found := _CHOICE.search(chosen):
            part = rng.choice(found[1].split("|"))
            chosen = chosen[: found.start()] + part + chosen[found.end() :]
        chosen = " ".join(chosen.split(" "))
        if chosen == text or held or not is_held(chosen):
            return chosen


def phrase(rng: random.Random, texts: Sequence[str], held: bool = False, **fields: object) -> str:
    """One phrase, filled in."""
    text = expanded(rng, rng.choice(phrases(texts, held)), held).replace("\\n", "\n")
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
