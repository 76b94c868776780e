"""The words of complaints.py, beside the phrases in ``wordings/complaints.txt``."""

from __future__ import annotations

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
