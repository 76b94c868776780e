"""Small repairs between two releases are found, and other small changes are not."""

from __future__ import annotations

import json
import lzma
import zipfile
from pathlib import Path

import pytest

from training import releases
from training.releases import Fix, compare, distinct

SHOP = """import json

VERSION = "1.0"


def total(lines, prices):
    # The sum of all lines.
    result = 0
    for name, count in lines.items():
        result += prices[name]
    return result


def cheapest(prices):
    if not prices:
        return None
    best = min(prices.values())
    return [name for name, price in prices.items() if price == best]


def load(path, encoding="utf-8"):
    with open(path, encoding=encoding) as file:
        data = json.load(file)
    data.setdefault("lines", {})
    data.setdefault("prices", {})
    return data


def save(path, data):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
"""
WRONG, RIGHT = "result += prices[name]\n", "result += prices[name] * count\n"


def found(*edits: tuple[str, str]) -> list[Fix]:
    text = SHOP
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return list(compare("shop", "1.1", {"shop/core.py": SHOP}, {"shop/core.py": text}))


def test_a_repair_is_found_with_both_texts() -> None:
    (fix,) = found((WRONG, RIGHT))
    assert (fix.package, fix.path, fix.version) == ("shop", "shop/core.py", "1.1")
    assert WRONG in fix.before and RIGHT in fix.after
    assert fix.before.replace(WRONG, RIGHT) == fix.after
    assert fix.after.startswith("import json\n")


def test_two_repairs_apart_are_undone_one_by_one() -> None:
    some = found((WRONG, RIGHT), ('    data.setdefault("prices", {})\n', ""))
    assert len(some) == 2
    assert sum(WRONG in fix.before for fix in some) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# The sum of all lines.", "# The sum of all lines, in cents."),
        ('VERSION = "1.0"', 'VERSION = "1.1"'),
        ("import json", "import json as json"),
        ("price == best]", "price == best\n    ]"),
        ("result = 0\n", "result: int = 0\n"),
        ("def save(path, data)", "def save(path, data, indent=2)"),
        ("return None", "print('empty')\n        return None"),
        ("prices", "costs"),
    ],
)
def test_other_changes_are_not(old: str, new: str) -> None:
    assert found((old, new)) == []


def test_changes_made_both_ways_are_dropped() -> None:
    one = Fix("shop", "core.py", "1", before="a", after="b")
    back = Fix("shop", "core.py", "2", before="b", after="a")
    other = Fix("shop", "core.py", "3", before="c", after="d")
    assert distinct([one, back, other]) == [other]


@pytest.mark.parametrize(("licence", "count"), [("MIT", 1), ("GPL-3.0-only", 0)])
def test_wheels_are_compared_if_the_licence_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, licence: str, count: int
) -> None:
    monkeypatch.setattr(releases, "_allowed", lambda: ["shop"])
    (tmp_path / "wheels" / "shop").mkdir(parents=True)
    for version, text in [("1.9", SHOP), ("1.10", SHOP.replace(WRONG, RIGHT))]:
        with zipfile.ZipFile(tmp_path / "wheels" / "shop" / f"{version}.whl", "w") as wheel:
            wheel.writestr("shop/core.py", text)
            metadata = f"Name: shop\nVersion: {version}\nLicense-Expression: {licence}\n"
            wheel.writestr(f"shop-{version}.dist-info/METADATA", metadata)
    out = tmp_path / "fixes.xz"
    releases.build(tmp_path, out, held=None)
    records = [json.loads(line) for line in lzma.decompress(out.read_bytes()).splitlines()]
    assert [record["version"] for record in records] == ["1.10"] * count
    table = out.with_suffix(".tsv").read_text().splitlines()
    assert table[1:] == ["shop\t1.9 - 1.10\tMIT\t1"] * count
