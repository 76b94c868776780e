"""Finding names that nothing in a file defines."""

from __future__ import annotations

import ast

import pytest

from agentcli.agent.undefined import undefined_names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("print(x)", {"x"}),
        ("import os.path as p, sys\nprint(p, sys, os)", {"os"}),
        ("def f(a, *b, c=d, **e):\n    return a, b, c, e, f", {"d"}),
        ("class A(B):\n    x = 1\n    def m(self):\n        return self, A, __class__", {"B"}),
        ("def f():\n    return later\nlater = 1", set()),
        ("try:\n    pass\nexcept E as error:\n    error", {"E"}),
        ("match x:\n    case [a, *b]:\n        a, b\n    case {'k': c, **d}:\n        c, d", {"x"}),
        ("[i for i in range(3) if j]", {"j"}),
        ("with open('f') as f, g() as (h, k):\n    f, h, k", {"g"}),
        ("(n := 1)\nn", set()),
        ("from m import *\nanything", set()),
        (
            "class A:\n    x = 1\n    def m(self):\n        self.a = self.x\n        self.b(m)",
            {"self.b"},
        ),
        ("class A:\n    def m(self):\n        self.a += 1\n        self.__class__", set()),
        ("class A:\n    __slots__ = ['a']\n    def m(self):\n        return self.a", set()),
        ("class A(object):\n    def m(self):\n        return self.a", set()),
        ("@d.e\nclass A:\n    def m(self):\n        return self.a", {"d"}),
        ("class A:\n    def __getattr__(self, n):\n        return self.a", set()),
        ("for i.x in y:\n    del z", {"i", "y"}),
    ],
)
def test_names(source: str, names: set[str]) -> None:
    assert undefined_names(ast.parse(source)) == names
