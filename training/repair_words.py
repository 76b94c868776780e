"""What people type who want a repair or another name; for the notation see wording.py."""

from __future__ import annotations

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
