"""Finding names that nothing in a file defines."""

from __future__ import annotations

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
            {"self.b", "m"},
        ),
        ("class A:\n    def m(self):\n        self.a += 1\n        self.__class__", set()),
        ("class A:\n    __slots__ = ['a']\n    def m(self):\n        return self.a", set()),
        ("class A(object):\n    def m(self):\n        return self.a", set()),
        ("@d.e\nclass A:\n    def m(self):\n        return self.a", {"d"}),
        ("class A:\n    def __getattr__(self, n):\n        return self.a", set()),
        ("def f():\n    inner = 1\ndef g():\n    return inner", {"inner"}),
        ("def f(a):\n    def g():\n        return a, b\n    b = 1\n    return g", set()),
        ("def f():\n    global x\n    x = 1\ndef g():\n    return x", set()),
        ("class A:\n    def __m(self):\n        return self.__m", set()),
        ("for i.x in y:\n    del z", {"i", "y"}),
    ],
)
def test_names(source: str, names: set[str]) -> None:
    assert undefined_names(source) == names
