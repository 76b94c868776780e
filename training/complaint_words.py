"""Complaints about behaviour: the words of complaints.py, which says what the fields mean."""

# ruff: noqa: E501  One phrase a line.

from __future__ import annotations

# Statements without a full stop.
SAID = """
{thing} is [wrong|off|broken|buggy|not right|not working|incorrect|messed up|somehow wrong]
{thing} is [wrong|broken|off|not right] [when|if|as soon as] the {other} is [empty|zero|negative|missing|None|0|very long|at the limit]
{thing} [doesn't|does not|dont|doesnt|won't] work [anymore|any more|as expected|properly|right|correctly|at all|like it should|]
{thing} [stopped working|no longer works|used to work and now it doesn't|worked yesterday]
{thing} [fails|breaks|crashes|blows up|goes wrong] [when|if] [there is no {other}|there are no {others}|there is only one {other}|the {other} is empty]
{thing} only works [for the first {other}|with one {other}|once|the first time|if there is just one {other}|sometimes]
{thing} gives [a wrong result|the wrong answer|nonsense|garbage|rubbish|strange numbers|something unexpected|me something else]
{thing} returns [the wrong thing|nonsense|something weird|the wrong {other}|the wrong value] [for some {others}|for the last {other}|if the {other} is zero|]
{thing} [raises|throws] [an error|an exception|something] [although|even though] the {other} is [fine|valid|there|ok]
{thing} [doesn't|does not] raise [an error|anything] when the {other} is [missing|invalid|negative|empty|unknown]
{thing} [between|for|of] {others} is [broken|wrong|off|not right]
{thing} with [more than one|several|two|many|zero|no] {others} is [wrong|broken|off]
{thing} [behaves strangely|acts weird|does weird things|does the opposite of what it should|does the wrong thing]
{thing} [forgets|ignores|skips|drops|loses] the [last|first|] {other}
{thing} [forgets|ignores|overlooks] {others} that are {adj}
{thing} [changes|touches|uses|takes|looks at] the wrong {other}
{thing} [does nothing|has no effect|doesn't do anything|seems to do nothing]
{thing} got broken [by the last commit|in the last release|by my refactoring|somehow|last week]
{thing} [must|should] work for {others} [too|as well] but [it doesn't|it fails]
{thing}: [broken|wrong|wrong result|off by one|not what the tests want|nope]
{value} is [one too high|one too low|off by one|too big|too small|too high|too low|always zero|always the same|negative|empty|doubled|twice as big as it should be|half of what it should be]
{value} is [not what it should be|not what I expect|wrong for some {others}|wrong for the last {other}|wrong if there are no {others}]
{value} [comes out|is coming out] [wrong|too high|too low|negative|as zero|as None|empty|upside down]
{value} [ignores|forgets|leaves out|does not include|doesn't count] [the {other}|some {others}|the last {other}|{others} that are {adj}]
{value} [is not updated|stays the same|doesn't change|is never changed] when [the {other} changes|{a_other} is added|I change the {other}]
{value} and the {other} [are mixed up|are swapped|don't match|do not fit together|got mixed up]
{value} should be [higher|lower|bigger|smaller|zero|positive|different] [if|when] the {other} is [empty|zero|negative|{adj}]
{value} [should not|must not|shouldn't] be [negative|zero|empty|None] but [it is|that's what I get]
{value} [depends on|changes with] the {other}, [but it should not|it shouldn't]
[we|I|users] get the wrong {noun} [for some {others}|when there are two {others}|every time|from time to time|]
the {nouns} are [in the wrong order|not sorted|sorted the wrong way|upside down|incomplete|all the same|mixed up]
[some|many|a few|two] {nouns} [are missing|get lost|disappear|are skipped|are counted twice|are ignored|show up twice]
the [last|first|second] {noun} is [missing|left out|skipped|ignored|counted twice|dropped|always wrong]
[there is|I always get|we get] one {noun} too [many|few]
{nouns} [with|without] {a_other} are [ignored|lost|not counted|treated wrongly|handled wrong|not found]
{nouns} that are [not|] {adj} are [ignored|counted too|missing|in the result|listed twice|handled wrong]
{a_noun} that is {adj} [still|] [shows up as|is shown as|counts as|is listed as|is treated as] {adj2}
{a_noun} that should be {adj} [isn't|is not|is {adj2}]
{a_noun} is {adj} [although|even though|but] it should be {adj2}
{a_noun} is [reported|shown|marked|returned] as {adj}, it is {adj2}
{a_noun} without {a_other} [breaks everything|gives an error|is accepted|is not accepted|should be ok]
{a_noun} [exactly|right] at the limit is [rejected|not counted|accepted|treated as too big]
{a_noun} [doesn't get|does not get|never gets|is never|isn't|is not being] {done} [anymore|properly|]
{nouns} [don't get|are not|aren't|never get|are never] {done} [anymore|at all|properly|]
{nouns} are {done} [twice|too early|too late|in the wrong order|even if they are {adj}]
the wrong {noun} [is|gets] {done}
[the|a|every] {noun} [is|gets] {done} [although it is {adj}|even if it is {adj}|twice|too early]
{doing} [changes|removes|returns|breaks|messes up] the wrong {other}
{doing} leaves the {other} [unchanged|empty|in a wrong state|as it was]
{doing} [twice|two times] [gives an error|breaks the {other}|counts double]
{doing} should [not|never] change the {other}
I can't {do} [anymore|any more|if the {other} is empty|]
[we|users|people|customers] can't {do} [anymore|when the {other} is {adj}|]
when I {do}, [nothing happens|the {other} is wrong|I get an error|the wrong {other} changes|the {other} stays the same]
[after|when] {doing} the {other} is [still there|wrong|gone|not updated|unchanged|empty]
the {noun} should be {adj} after {doing}, but it [is not|isn't|is {adj2}]
it [should|is supposed to|must] {do} but [it doesn't|nothing happens|it fails|does something else]
it says {adj} [although|even though|but] the {noun} is {adj2}
it [counts|takes|uses|returns|picks|compares] the wrong {noun}
it [counts|takes|uses|returns|picks] [one {noun} too many|the same {noun} twice|the first {noun} instead of the last|the last {noun} instead of the first]
it [accepts|lets through|allows] {nouns} that are [{adj}|too long|negative|empty|not valid]
it [rejects|refuses|complains about] {nouns} that are [{adj}|fine|perfectly valid|ok]
it mixes up the {noun} and the {other}
it [adds|subtracts|multiplies by|divides by] the wrong {noun}
it stops [one {noun} too early|one {noun} too late|after the first {noun}|before the last {noun}]
with [two|three|no|zero|many|equal] {nouns} [the result is wrong|it breaks|it goes wrong|I get nonsense|{value} is wrong]
[nothing|something else] is {done}
no {noun} is [found|returned|{adj}] [although there is one|even though it exists]
{thing} is wrong, [I|we] get {got} where [I|we] expect {want}
[I|we] expected {want} but [got|get] {got}
{call} [should be|must be|ought to be] {want}, not {got}
{value} is {got} but [should be|must be] {want}
got {got} [for|from] {thing}, [should be|expected|wanted] {want}
[in|with] {f} {thing} is [wrong|off|broken]
{f} [mixes up|forgets|ignores|miscounts] the {noun}
{f} [treats|handles] {nouns} [wrong|wrongly|as if they were {adj}]
{f} thinks that {a_noun} is {adj}
""".strip().split("\n")

# Questions and orders, with their marks.
ASKED = """
why is {thing} [broken|wrong|off|not working]?[?|]
why is {value} [always|still|suddenly|] [zero|wrong|negative|empty|too high|too low|off by one]?[?|]
why is {a_noun} {adj} [if|when] it should be {adj2}?
why doesn't {thing} work [anymore|]?[!|]
why does {thing} [give|return] [nonsense|the wrong {other}|something wrong]?
why [are|aren't] the {nouns} {adj}?[?|]
why don't {nouns} get {done}?
why is the {noun} [not|never] {done}?
why do I get {got} [instead of|and not] {want}?
how can {value} be [negative|zero|empty|{got}]?[!|]
[shouldn't|should not] {value} be [higher|lower|{want}|different|positive]?
[can|could] you [find out|check|see] why {thing} is [wrong|broken|off] [and fix it|]?
[can|could|would] you [have a look at|look into|look at] {thing}? it's [broken|wrong|off|not right]
[can|could] you make {thing} work [again|properly|like it should]?
what happened to {thing}? it [doesn't work|is broken|used to work|gives nonsense]
what is wrong with {thing}? [please|] fix it
what's up with {thing}? [the {other} is wrong|it's off|nothing works]
is {thing} supposed to [give nonsense|be negative|ignore the {other}|do nothing]? I don't think so
fix {thing} [please|pls|asap|]
[please|] repair {thing}
[please|] fix the [bug|problem|mistake] with {thing}
[please|] correct {value}, it is [wrong|off|too high|too low]
[please|] make sure that {nouns} get {done}, [right now|at the moment] they don't
[please|] make {thing} [right again|correct again|work again]
make it {do} [again|like before|properly]
make it not [forget|lose|ignore|skip] the {noun}
find out why {thing} is [wrong|off|broken]
[bug|problem|trouble] with {thing}, [fix it|please fix|can you look?]
wrong {noun}[!|], fix
{noun} [broken|wrong], [fix|repair] [please|]
{noun} bug
{noun} is [broken|wrong]
fix {noun}
""".strip().split("\n")

# About a test, in words.
TESTED = """
the test [about|for|of|on] {test} [fails|is red|doesn't pass|is failing|breaks|is broken]
the "{test}" test [fails|is red|doesn't pass|is failing]
[one|a] test [about|on] {test} [fails|is red|doesn't pass anymore]
{test} [test fails|doesn't pass|is red|test broken|failing]
tests for {test} [fail|are red|are failing]
[please|] [fix|repair] {test}, [the test is red|see the test|there's a test for it]
{test} [should work|must work|ought to work], the test says [it doesn't|no]
according to the tests {test} is [broken|wrong]
the tests [say|claim|show] that {test} [is broken|doesn't work]
see the test [for|about] {test}
[it|something] fails [in|at] {test}
{test}: red
""".strip().split("\n")

BEFORE = """
customers complain that
users [say|report|complain] that
a [user|customer|client] [says|reported|wrote] that
[QA|support|my boss|my colleague|the customer|our tester] says
bug report:
[bug|BUG|problem|issue|defect]:
ticket:
from the issue tracker:
[since|after] the last [commit|change|merge|release|refactoring|update]
since [yesterday|today|this morning|last week]
[I think|I believe|I guess|it seems|it looks like|looks like]
not sure why but
for some reason
[ugh|argh|hmm|wtf|oh no|damn],
so apparently
strange:
[I just noticed|we noticed|I noticed|I see|we found out] that
in {path}
in production
[we have|I have|there is] the problem that
we have a [bug|problem]:
[according to|as per] the [tests|spec]
the tests say
I [was playing around|tried it out|was testing] and
[hello|hi] team, [we see that|it seems that]
I did not write this code, but
no idea what happened,
you won't believe it, but
""".strip().split("\n")

# Marks and what follows.
AFTER = """
, fix please
, please fix
, pls fix
, fix it
, see tests
, see the tests
, [can|could] you fix [it|that|this]?
, [can|could] you [take|have] a look?
, [please|] have a look
, the tests [show it|fail|are red|tell you more]
, [there's|there is] a test for it
. [Please|Could you please] [fix|repair|correct] [it|this|that].
. Fix it[.|!]
. Can you [fix|repair|correct|solve] [it|this|that]?
. Please [find the cause|find the bug|look into it|take care of it|investigate].
. The tests [show it|show the problem|catch it].
. I need [this|it] [today|fixed|to work].
. What's [wrong|going on]? [Please fix.|]
. [Must be|Probably|I guess it's] [a small mistake|a typo|one line|something stupid].
. It [used to work|worked last week|worked yesterday|was fine before].
. Don't [change|touch] the tests.
. Any idea?
?! see tests
?! fix
?!
??
!!
!!! fix it
! please help
... fix?
... help
:(
- fix
- please fix
- [wrong|bug]!
=> fix
.
""".strip().split("\n")

# A second sentence.
MORE = """
It [worked|was fine] [yesterday|last week|in the last release|before the refactoring].
I [expected|would expect] {value} to be [right|the same|higher|lower|{adj}].
I would expect {a_noun} to be {adj}.
It should be {adj}, but it is {adj2}.
Expected: {want}. [Actual|Got]: {got}.
Expected: {adj}. Actual: {adj2}.
[Steps|To reproduce]: {do}, then look at the {other}.
[To reproduce|How to reproduce]: run the tests.
[This|It] happens [every time|always|when there are two {others}|only with some {others}|if the {other} is empty].
[I could not|I couldn't] find the [reason|cause|line].
[Nobody|No one] has [touched|changed] this [for months|in a while].
I [only|just] changed [one line|some lines|a few names] in {path}.
[I suspect|Maybe it is|I guess the cause is] {f}.
[This|It] [must|should] be in {path}.
[Please fix|A fix would be great|Please repair it|Can you fix this?|Thanks for fixing!|Please take care of it.]
[We|Our customers] need this [soon|today|for the release].
The code is in {path}.
There is [a test|a failing test] for [it|this].
With one {other} it [works|is fine].
""".strip().split("\n")

TITLES = """
{thing} [broken|wrong|does not work|is incorrect]
[Wrong|Incorrect|Unexpected|Missing] {noun}
Wrong {noun} [for some {others}|when the {other} is empty|after {doing}]
[Bug|Error|Mistake|Problem] in {thing}
[Problem|Trouble] with {thing}
{nouns} [get lost|are missing|in the wrong order|not {done}]
{f} [broken|returns wrong {noun}|is wrong|fails]
{a_noun} is never {done}
{value} is off by one
[Regression|Bug]: {thing}
{doing} does not work
""".strip().split("\n")

ISSUES = [
    "{title}\n\n{text}",
    "# {title}\n\n{text}",
    "**{title}**\n\n{text}",
    "Title: {title}\n\n{text}",
    "title: {title}\ndescription: {text}",
    "Issue #{number}: {title}\n{text}",
    "fix this issue:\n\n{title}\n{text}",
    "#{number} {title}\n\n{text}\n\nPlease fix.",
    "Please work on this ticket.\n\n{title}\n{text}",
    "BUG {number} - {title}\n\n{text}",
    "{title}: {text}",
]

_STATES = """
open closed done active valid empty full paid free locked available ready pending visible
complete overdue sorted new old allowed finished expired enabled
"""
STATES = _STATES.split()

# Nouns of everyday programs, as people use others than the code does.
_EVERYDAY = """
order customer invoice warehouse account booking ticket task user payment price discount product
cart item message file line date time day week score player game team match level report total
sum average list entry record row column table word name number result value key price tax rate
room seat book loan member course student grade event meeting route city distance temperature
transfer shipment balance limit code token page section title tag comment post vote image
"""
EVERYDAY = _EVERYDAY.split()

_VERBS = """
accept add advance allow append apply assign book borrow build buy calculate call cancel capture
change charge check choose claim clear close collect combine compare compress compute connect
convert copy count create decode decrypt delete deliver deposit draw drop encode encrypt enter
escape evaluate expand expire export extract fetch fill filter find finish fire flatten flip
format generate get give group guess handle import increase insert invert join keep leave lend
limit list load lock log lookup make mark match measure merge move multiply normalize notify open
order pack parse pay pick place plan play pop predict print process publish pull push put read
record redeem register reject release remove rename render repeat replace report reserve reset
resolve restore return reverse rotate round run save scale schedule search select sell send set
shift shorten show simplify skip solve sort split start stop store submit subtract suggest swap
switch take toggle tokenize transfer transform translate transpose trim turn undo update use
validate visit vote wait walk withdraw wrap write
"""
VERBS = _VERBS.split()
_DOUBLED = "drop flip get log pop put run set shop skip split swap stop trim wrap"
DOUBLED = frozenset(_DOUBLED.split())
DONE = {
    **{"buy": "bought", "choose": "chosen", "draw": "drawn", "find": "found", "get": "fetched"},
    **{"give": "given", "keep": "kept", "leave": "left", "lend": "lent", "make": "made"},
    **{"pay": "paid", "put": "put", "read": "read", "run": "run", "sell": "sold", "send": "sent"},
    **{"set": "set", "show": "shown", "split": "split", "take": "taken", "write": "written"},
    **{"undo": "undone", "reset": "reset", "withdraw": "withdrawn", "cancel": "cancelled"},
    **{"transfer": "transferred", "lookup": "looked up"},
}
