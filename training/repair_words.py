"""What people type who want a repair or another name; for the notation see wording.py."""

# ruff: noqa: E501  One phrase a line.

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
[please|could you|can you|] [fix|repair|correct] [this|it|that|the code|the project] [please|pls|asap|for me|]
[please|] [fix|repair] [the bug|the mistake|the fault|the problem|the error] [in here|in this repo|in this project|in this code|somewhere in here|]
[the tests|my tests|our tests|unit tests|some tests|tests] [fail|are failing|are red|don't pass|do not pass|broke|are broken] [again|since today|on my machine|after the merge|] [, fix|, please fix|, can you fix that?|, help|. Fix the code.|. Please repair.|]
[one|a] test [fails|is failing|is red|does not pass] [and I don't know why|since the last commit|after my change|] [, fix|, please fix it|. Can you fix it?|. Find out why and fix it.|]
[can you|could you|would you] [get|make] [the tests|the suite|everything|it] [green|pass|work] [again|] ?
[please|] [make|get] [it|this|the code|the program|everything] [work|run|right|correct] [again|properly|please|]
[it|this|the code|the program|nothing|everything] [doesn't work|does not work|is broken|is wrong|fails|stopped working] [anymore|since yesterday|after the update|] [, fix it|, please fix|, why? fix|, help|!|]
[something|somewhere something] is [off|wrong|broken|not right] [here|in here|in this code|with this] [, find it|, please fix|, run the tests|. Have a look and fix it.|]
[there is|there's|we have|I have|I found] a [bug|mistake|defect|regression|problem|fault] [here|in here|somewhere|in the code|] [, find it|, fix it|, please fix|, the tests show it|. Fix it, please.|]
[find|search|hunt down|track down] [the bug|the mistake|what is wrong|the wrong line] [and fix it|and correct it|and repair it|please|]
[run the tests|run pytest|start the tests|use the tests] and [fix|repair|correct] [what fails|what is broken|the bug|whatever is wrong|the failure]
[look|have a look|take a look] at the [failing tests|test failure|red test|tests] [and fix the bug|and repair the code|and fix it|please|]
why [is the build red|are the tests red|does the test fail|doesn't this work|is it broken]? [please|] [fix it|repair it|fix the cause]
what's [broken|wrong] [here|with this code|with my code]? [please|] [fix|repair|correct] it
[CI|the pipeline|the build|Jenkins|the GitHub action|tox|nox] [fails|is red|is broken|complains] [because of a test|since the last push|] [, fix|, please fix|, can you look?|. Fix the code.]
[I|somebody|someone|my colleague|the intern|an AI] [broke|messed up|changed] [something|a line|the code] [, fix it|, repair it|, please undo the damage|, tests fail now]
[I can't|can't|cannot|we can't] [release|merge|deploy|push|commit] [because|as|since] [tests fail|a test is red|the tests are failing] [, fix|, please help|]
[I'm|I am] [stuck|lost|desperate], [a test fails|the tests don't pass|it doesn't work] and I [don't see why|can't find it|have no idea]
[debug|troubleshoot|investigate|diagnose] [this|it|the failure|the failing test|the code] [please|and fix it|]
[fix|solve|resolve] [the issue|the problem|the failure|the test failure|the assertion error|the regression] [please|in the code|]
[do|fix] whatever [is needed|it takes] to make the tests [pass|green|happy]
[pytest|unittest|make test|the test run] [fails|is red|complains|reports a failure|is unhappy] [, fix it|, please fix|, repair the code|]
[the|my] code [has|contains] [a bug|an error|one mistake|one wrong line] [, correct it|, find and fix it|, where? fix it|]
[it|this] [worked|was working|used to work] [yesterday|last week|before] [, now it doesn't|and now tests fail|but not anymore] [, fix|. Please repair.|]
[tests|test] [red|broken|failing|kaputt], [fix|pls fix|repair|help] [!|!!|]
wtf [is wrong here|broke this|happened], [fix it|the tests were green|tests fail]
[this is|it's] [driving me crazy|annoying], [the test fails|tests fail] [for no reason|and I changed nothing], [fix it|please fix|help]
[Dear|Hello] [assistant|agent], [the tests of this project fail|one test fails]. [Please|Kindly] [correct the code|find and repair the error].
[Kindly|Please] [rectify|correct|repair] the [error|defect|fault] [in the code|that the tests show|]
[exercise|homework|kata|challenge]: [find the bug|fix the code|repair it so that the tests pass]
i [have|got] [error|problem|failure] in [test|tests|code], [please to fix|you can fix?|fix please|how fix?]
code not [work|working|correct], [please fix|fix|need fix]
[the result|the output|the answer|a result|something it computes] is [wrong|not right|incorrect|off] [, fix|, see tests|, please fix it|]
[it|the program|the code] [computes|calculates|returns|gives|prints] [the wrong thing|wrong results|nonsense|wrong numbers] [, fix|, see the tests|, please repair it|]
[repair|fix] [everything that is broken|what is broken|the broken thing|the broken code]
[bug fix|bugfix|hotfix] [please|needed|]
[please|] [correct|fix] the [implementation|source|code], [the tests are right|not the tests|leave the tests alone]
[fix|repair|correct] [it|this|the code] [without touching|but don't touch|but leave] the tests
the spec is in the tests, the code [doesn't follow it|is wrong] [, fix it|]
make [pytest|the test suite|CI|the build] [green|pass|happy] [again|please|]
[off by one|wrong operator|wrong variable|typo] somewhere, [find it|fix it|please fix]
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
[please|could you|can you|] [fix|repair|correct|debug] [{f}|`{f}`|{f}()|the function {f}] [please|pls|in {path}|for me|]
[{f}|`{f}`|{f}()] [is|seems|looks] [broken|wrong|buggy|incorrect|off|not right] [, fix|, please fix it|, can you look?|. Please repair it.|]
[{f}|`{f}`] [does not|doesn't|doesnt] [work|work correctly|do what it should|behave|do its job] [anymore|] [, fix it|, please fix|, why? fix|]
[{f}|`{f}`] [gives|returns|yields] [the wrong result|wrong values|nonsense|garbage|something strange|a wrong answer] [in some cases|sometimes|for some inputs|] [, fix|. Fix it please.|]
[there is|there's|I found|we have] a [bug|mistake|problem|fault] in [{f}|`{f}`|{path}, in {f}|the {f} function] [, fix it|, please fix|. Correct it.|]
[something's|something is] [wrong|off|broken|fishy] [in|with] [{f}|`{f}`] [, fix it|, please check and fix|]
[{f}|`{f}`] [fails|crashes|breaks|explodes] [for me|in the tests|since today|] [, fix|, please fix|]
[tests of|tests for|the tests of] [{f}|`{f}`] [are red|fail|don't pass] [, fix it|, repair the function|]
[somebody|I|my colleague] [broke|messed up|changed] {f} [, fix it|, please repair|and now tests fail]
[find|spot|locate] the [bug|mistake|error|wrong line] in [{f}|`{f}`|{f} ({path})] [and fix it|and correct it|]
why [is {f} wrong|does {f} give wrong results|is {f} broken]? [fix it|please repair it|]
what's wrong with {f}? [please fix|fix it|repair it]
[make|get] {f} [work|right|correct] [again|please|]
{f} [has to|must|should] work but [it doesn't|it fails|the tests say no] [, fix|]
[I suspect|I think|maybe|probably] [the bug is in {f}|{f} is the culprit|{f} is to blame] [, fix it|, please check|]
[have a look at|look at|look into|check|take care of] {f} [, it's broken|, tests fail|, it is wrong|, something is off]
{f} [broken|wrong|buggy|kaputt] [!|, fix|, pls fix|]
{path} [/|::|:] {f} [is wrong|fails|broken] [, fix|]
[bug|fix|broken]: {f}
[the output|the result] of {f} is [wrong|not what I expect|incorrect|off by one] [, fix it|]
[after|since] [my refactoring|the merge|the cleanup] {f} [is broken|returns wrong things|fails] [, repair it|]
[Kindly|Please] correct the [defect|error] in the [function|method] `{f}` [of {path}|].
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
[please|could you|can you|] [fix|repair|correct|debug] [{path}|`{path}`|the file {path}] [please|pls|for me|]
[{path}|`{path}`] [is|seems|must be] [broken|wrong|buggy|the problem] [, fix it|, please fix|. Repair it.|]
[there is|there's|we have|I made] a [bug|mistake|wrong line|problem|fault] [in|somewhere in] [{path}|`{path}`] [, fix it|, please fix|. Find and correct it.|]
[find|spot|track down] the [bug|mistake|wrong line|error] in {path} [and fix it|and correct it|]
[I|somebody|my colleague] [broke|messed up|changed something in] {path} [, fix it|, please repair|, now tests fail]
[something|a line] in {path} [is off|is wrong|must be wrong|is broken] [, fix|, run the tests and fix it|]
the [tests|unit tests] [say|show] that {path} is [wrong|broken] [, fix|]
[since|after] [my edit|the last commit|the merge] {path} [doesn't work|is broken] [, fix|]
{path} [broken|wrong|buggy] [!|, fix|, pls fix|]
[have a look at|look at|check] {path}, [it's broken|something is wrong|the tests fail|there's a bug in it]
[the code in|what's in] {path} [doesn't do what the tests want|gives wrong results|does not work]
make {path} [work|right] [again|]
why is {path} [broken|failing|wrong]? [please|] fix it
the [culprit|cause|error] is [probably|] in {path} [, fix it|]
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
[please|could you|can you|] [fix|repair|solve] [{test}|`{test}`|the test {test}|{testfile}::{test}] [please|pls|for me|]
[{test}|`{test}`|{testfile}::{test}] [fails|is red|is failing|doesn't pass|does not pass|broke|is broken] [, fix|, please fix it|, why? fix|. Fix the code.|. Please repair the code.|]
[make|get] [{test}|`{test}`] [pass|green|work] [again|please|]
why is {test} [failing|red|broken]? [fix it|please fix the code|]
the test {test} [in {testfile}|] [fails|is red|breaks] [since today|after the merge|for me|] [, fix|, please look|]
[everything passes|all tests pass|all green] [except|but] {test} [, fix|, please fix|]
only {test} [fails|is red] [, fix it|]
{testfile} [fails|is red|has a failing test|doesn't pass] [, fix|, please fix the code|]
[tests in|the tests in] {testfile} [fail|are red] [, fix|, fix the code|]
[look at|see|check] {test} [in {testfile}|], it [fails|is red]
{test} [red|broken|failing|fails] [!|, fix|, help|]
[FAILED|FAIL|failed]: {test} [, fix|]
python -m pytest {testfile} [fails|is red] [, fix|]
[the behaviour|what] {test} [checks|tests|describes] is [broken|wrong|not implemented right] [, fix|]
{test} [says|shows] [what is wrong|the bug], [fix it|please repair]
[CI|the build] [fails|stops] at {test} [, fix|]
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
[please|could you|can you|] [fix|repair|solve] [this|the] error: {error}
[I get|I'm getting|we get|it gives|I see|there is] [an error|a failure|this|this error|]: {error} [. Fix it.|, please fix|, why?|]
[why|how come] {error}? [fix|please fix|]
{error} [- fix|, please fix|. Help!|... help|, what did I do wrong?|]
[tests|pytest|the test run|CI] [fail with|fails with|stops with|dies with] [{error}|`{error}`] [, fix|. Please fix the code.|]
[get rid of|resolve|make go away] [{error}|`{error}`]
[it|the program|the code] [crashes|fails|dies|ends] with [{error}|"{error}"] [, fix|, please repair|]
what's this? {error} [fix it|please fix]
[since|after] [the last change|my commit|the merge] [I get|we get] {error}
error [message|]: "{error}" [please fix|fix|]
the log says [{error}|"{error}"] [, fix|]
all I see is {error} [, help|, fix it|]
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
[fix|please fix|repair|solve|debug] [this|it|that|the following] [:|please:|]\n\n{output}
{output}\n\n[fix|please fix|pls fix|help|please repair this|repair the code|how do I fix this? do it please]
[this|it|that] [fails|broke|is red|doesn't work] [:|since today:|for me:]\n{output}
[pytest|the tests|CI|the test run|unittest] [says|say|prints|print|gave me|shows]:\n\n{output}\n\n[Fix it.|Please fix the code.|What's wrong? Fix it.|]
[why|what is this|what's wrong here]?\n\n{output}\n\n[fix it|please fix|Please correct the code.]
[I ran|I just ran|running] [pytest|the tests] [and got|gives|:]\n```\n{output}\n```\n[fix it|Can you fix this?|please help|]
[from|out of] [CI|the log|the build log|my terminal]:\n```\n{output}\n```
[failing test|test failure|failure|error|traceback]:\n{output}
{output}\n[^^^ fix|what happened here? fix it|see above, fix please|fix the source not the test]
[Since|After] [the merge|my last commit|the refactoring] [I get|we get] this:\n\n{output}\n\n[Please fix.|Can you repair it?|]
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
[please|can you|could you|] [fix|repair|correct] [both|all|all of them|everything|all the bugs|both bugs|all failing tests|every failing test] [please|pls|]
[two|several|some|many|a few|multiple] tests [fail|are failing|are red|don't pass|broke] [, fix them all|, please fix all|, fix both|. Fix everything.|]
[there are|we have|I found] [two|several|some|a few|at least two] [bugs|mistakes|faults|problems] [in here|in the code|] [, fix them|, fix all of them|, please repair|. Find and fix them.]
[find|find and fix|repair|correct] [all|both|the two|the] [bugs|mistakes|faults|errors] [in this repo|in the code|please|]
[make|get] all [the|] tests [pass|green], [not just one|there is more than one bug|each of them]
[everything|half of it|a lot|more than one thing] is [broken|red|wrong] [, fix it all|, please repair|]
[two|both] [things|functions] are [broken|wrong], [fix both|repair them|please fix]
[all|the|my|our] tests [are red|fail|broke], [fix all of them|don't stop after the first|one after the other please|there's more than one bug]
[I|my colleague] made [two|several|some] mistakes, [find them|fix them|please correct them]
fix one [bug|test] after the other until [all is green|the tests pass|nothing fails]
[don't stop|go on] until all tests pass
there's more than one [bug|mistake|fault] [, fix all|]
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
[please|could you|can you|] [rename|change] [{old}|`{old}`|the {kind} {old}] [to|into] [{new}|`{new}`] [everywhere|please|in the whole project|in all files|across the repo|]
{old} [->|=>|-->|→] {new}
[rename|refactor|rename {kind}] {old} [->|=>|→|:] {new}
[use|take] {new} instead of {old} [everywhere|in all files|please|]
call it {new} [from now on|instead|]: {old}
call {old} {new} [from now on|instead|please|]
[call|name] the {kind} {old} [{new}|`{new}`] [instead|from now on|]
[the {kind}|] {old} [should be named|must be called|has to be called|shall be called|is to be renamed to|ought to be called|should be] {new} [everywhere|from now on|]
[I'd like|I want|we want|we'd like] {old} to be [called|named|renamed to] {new} [everywhere|]
[I|we] want to [rename|call] {old} [to|] {new}
[give|find] {old} [a better name|another name|a new name]: {new}
new name for {old}: {new}
{new} [is a better name|would be a better name|is clearer|fits better] [than|for] {old} [, change it|, please rename|. Rename it.|]
{old} is [misleading|too vague|confusing|a terrible name|not a good name], [rename it to|make it|call it|use] {new} [instead|everywhere|]
[replace|substitute|swap] [the name|the identifier|] {old} [with|by] {new} [everywhere|throughout|in every file|]
[find and replace|search and replace] {old} [with|by|->] {new} [everywhere|in the project|]
change [every|each|all] [occurrence of|use of|occurrences of|uses of] {old} to {new}
change [the|] [name|identifier] [of|] {old} [to|into] {new} [and all its uses|and the callers too|and fix the imports|]
[update|change] {old} to be called {new} [, tests too|, with all callers|]
[do a|a] rename [please|]: {old} [to|->] {new}
[refactoring|todo|task|review comment]: [{kind}|] {old} [should be called|to be renamed|is now|->] {new}
mv {old} {new} [(the {kind}, everywhere)|(just the name)|(in the code)]
old name {old}, new name {new} [, rename please|]
[it's|it is] called {new} [in the docs|in the spec|by everybody], [not {old}|so rename {old}|so {old} has to change]
[can|could] {old} be [called|renamed to|named] {new}?
[let's|let us] [rename|call] {old} {new}
{old} must become {new} [everywhere|in code and tests|]
[make|turn] {old} into {new} [(name only)|everywhere, just the name|, only the name changes]
""".strip().split("\n")
