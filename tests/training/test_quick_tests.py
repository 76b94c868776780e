"""The fast test runner reports what pytest reports, as the model reads it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentcli.llm.compact import compact
from training.faults import Faults
from training.quick_tests import QuickTests

PROJECT = {
    "shop/__init__.py": "",
    "shop/cart.py": '''class CartError(ValueError):
    """A cart that cannot be."""


class Cart:
    def __init__(self, prices):
        self.prices = prices
        self.lines = {}

    def add(self, name, count=1):
        if name not in self.prices:
            raise CartError(f"unknown {name}")
        self.lines[name] = self.lines.get(name, 0) + count

    def total(self):
        return sum(self.prices[name] * count for name, count in self.lines.items())


def discount(total, percent):
    if not 0 <= percent <= 100:
        raise ValueError("percent")
    return total - total * percent / 100


def names(cart):
    return [name.title() for name in sorted(cart.lines)]
''',
    "tests/conftest.py": """import pytest

from shop.cart import Cart


@pytest.fixture
def cart():
    cart = Cart({"tea": 3, "milk": 2})
    cart.add("tea", 2)
    return cart
""",
    "tests/test_cart.py": """import unittest

import pytest

from shop.cart import Cart, CartError, discount, names


def test_total(cart):
    assert cart.total() == 6


class TestAdd:
    def test_twice(self, cart):
        cart.add("tea")
        cart.add("milk")
        assert cart.lines == {"tea": 3, "milk": 1}

    def test_unknown(self, cart):
        with pytest.raises(CartError, match="unknown"):
            cart.add("gin")


@pytest.mark.parametrize("total, percent, expected", [(10, 10, 9), (10, 0, 10), (8, 50, 4.0)])
def test_discount(total, percent, expected):
    assert discount(total, percent) == expected


def test_discount_range():
    with pytest.raises(ValueError):
        discount(1, 101)


class NamesTest(unittest.TestCase):
    def setUp(self):
        self.cart = Cart({"tea": 1, "milk": 1})

    def test_names(self):
        self.cart.add("tea")
        self.cart.add("milk")
        self.assertEqual(names(self.cart), ["Milk", "Tea"])
""",
}


def by_pytest(files: Mapping[str, str], folder: Path) -> str:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "--no-header",
            "-p",
            "no:cacheprovider",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CI": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return compact("run_tests", f"tests\n$ x\n{run.stdout}")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> QuickTests:
    return QuickTests(tmp_path_factory.mktemp("quick"))


def test_a_project_that_passes(runner: QuickTests) -> None:
    run = runner.run(PROJECT)
    assert run.ok
    assert run.passed == 8


@pytest.mark.parametrize("seed", range(10))
def test_failures_read_as_from_pytest(seed: int, runner: QuickTests, tmp_path: Path) -> None:
    fault = Faults(PROJECT["shop/cart.py"]).draw(random.Random(seed), without=())
    assert fault is not None
    files = {**PROJECT, "shop/cart.py": fault.source}
    run = runner.run(files)
    assert run.text is not None
    assert compact("run_tests", f"tests\n$ x\n{run.text}") == by_pytest(files, tmp_path)


def test_an_endless_loop_is_stopped(runner: QuickTests) -> None:
    files = {
        "loop.py": "def f():\n    while True:\n        pass\n",
        "test_loop.py": "from loop import f\n\n\ndef test_f():\n    f()\n",
    }
    assert runner.run(files).text is None


def test_modules_do_not_leak_into_the_next_run(runner: QuickTests) -> None:
    test = "from leak import X\n\n\ndef test_x():\n    assert X == {0}\n"
    for value in (1, 2):
        files = {"leak.py": f"X = {value}\n", "test_leak.py": test.format(value)}
        assert runner.run(files).ok
    assert "leak" not in sys.modules
