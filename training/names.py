"""Alternative names for the identifiers of a project."""

from __future__ import annotations

import builtins
import keyword
import random
import sys

_COMMON = "self cls pytest test tests src conftest unittest args kwargs main"


RESERVED = (
    frozenset(keyword.kwlist)
    | frozenset(keyword.softkwlist)
    | frozenset(dir(builtins))
    | sys.stdlib_module_names
    | frozenset(
        name
        for kind in (str, int, float, list, dict, set, tuple, bytes, object, Exception)
        for name in dir(kind)
    )
    | frozenset(_COMMON.split())
)


_MODULE_WORDS = """
shapes metrics billing report ledger wallet parser lexer router mapper planner budget roster
catalog library store basket pricing invoice ranking ratings survey voting tally schedule
timetable rota shifts booking tickets seats rooms hotel fleet trips routes geo grid maze board
cards dice game scores league ladder recipe pantry menu orders kitchen stock warehouse parts
units convert measure weather climate sensors signals filters window series trend smoothing
sampling bins histogram outliers quantiles encoding cipher codec checksum digits numerals primes
factors fractions_ vectors matrix polygon circle bounds ranges spans intervals merge diffing
patch versioning semver tags labels slug titles words sentences wrapping columns layout tables
markdown html_tools templates config settings options flags env paths files_ names urls query
headers cookies tokens session auth_rules roles permissions quota throttle backoff retry cache
memo pool queue_ stack_ heap_ trees trie graph_ walks toposort cycles flows events bus signals_
hooks plugins registry loader store_ journal history undo snapshots tasks jobs worker pipeline
stages batches chunks paging cursor feeds digest mailbox contacts people teams org payroll tax
discounts coupons loyalty loans interest savings currency exchange portfolio trades helpers core
util tools common logic model engine service ops text_tools list_tools dict_tools
"""
MODULE_WORDS = _MODULE_WORDS.split()


_NEW_NAMES = """
value item entry record row node element key name label kind total count amount size width
height length start stop begin end first last left right upper lower low high limit step index
offset position pos current previous following result output answer found best worst score rank
weight cost price rate ratio factor scale source target origin destination text line word char
letter token symbol part piece chunk block group batch bucket slot cell point edge path route
parent child owner member user account balance deposit credit debit number digit quotient
remainder base power mean middle spread delta gap distance speed duration elapsed moment day
week month year hour minute second date deadline status state phase level depth flag mode option
setting default extra rest tail head body title header footer message reason error detail data
payload packet frame buffer queue stack heap pool cache store table columns rows cells field
fields pattern prefix suffix sep marker acc seen known missing pending done active open closed
"""
NEW_NAMES = _NEW_NAMES.split()


# Groups of names that people use for the same thing.
ALIKE = [
    group.split()
    for group in (
        "value val v item element x entry",
        "values items elements xs data numbers nums entries",
        "result out output res answer ret",
        "total acc subtotal amount running grand_total",
        "i idx index pos position k j at",
        "n count num size amount length",
        "text s string source raw content",
        "line row record ln",
        "lines rows records",
        "word token term part piece",
        "words tokens terms parts pieces",
        "key name label field ident",
        "start begin first low lo lower left",
        "end stop last high hi upper right finish",
        "best top winner highest leader",
        "current cur now node active",
        "prev previous last_seen before",
        "seen visited known found",
        "queue pending todo frontier waiting",
        "stack opened nesting",
        "a left one first_item p",
        "b right other second_item q",
        "d mapping table lookup mp",
        "path route way trail",
        "cost price weight charge",
        "rate ratio factor share",
        "limit maximum max_size bound cap",
        "threshold cutoff minimum level",
        "groups buckets bins clusters",
        "group bucket bin_ cluster",
        "f func fn function callback",
        "c ch char letter symbol",
        "dist distance gap offset",
        "day date_ when moment",
        "owner user person member",
        "balance funds saldo credit",
        "remaining rest left_over remainder",
        "message msg reason detail",
    )
]


def new_name(rng: random.Random, name: str) -> str:
    """Another name in the same style: CamelCase, CONSTANT, one letter, snake_case."""
    for group in ALIKE:
        if name in group and rng.random() < 0.8:
            return rng.choice([other for other in group if other != name])
    words = rng.sample(NEW_NAMES, 2)
    private = "_" if name.startswith("_") else ""
    bare = name.lstrip("_")
    if bare.isupper():
        return private + "_".join(words[: 1 + ("_" in bare)]).upper()
    if bare[:1].isupper():
        return private + "".join(word.capitalize() for word in words)
    if len(bare) == 1:
        return private + rng.choice("abcdefghijklmnopqrstuvwxyz")
    return private + "_".join(words[: 1 + ("_" in bare or rng.random() < 0.3)])
