"""The embedded model on real tasks with real tools: no network, and reproducible."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from agentcli.llm.local import EMBEDDED
from tests.running import Cli, pytest_ini, repository, share_kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="models on this machine need the extra 'local'",
)

FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": (
        '"""Prices."""\n\nVAT_PERCENT = 19\n\n\n'
        "def total(prices):\n    return sum(prices)\n\n\n"
        "def cheapest(prices):\n    return max(prices)\n"
    ),
    "tests/test_prices.py": (
        "from shop.prices import cheapest, total\n\n\n"
        "def test_total():\n    assert total([1, 2, 3]) == 6\n\n\n"
        "def test_cheapest():\n    assert cheapest([3, 1, 2]) == 1\n"
    ),
    **pytest_ini(),
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    # Without an API key and configuration, the embedded model is the default.
    share_kernels(tmp_path)
    return Cli(tmp_path, extra={"OPENAI_API_KEY": ""})


def ask(cli: Cli, workspace: Path, text: str, code: int = 0) -> dict[str, object]:
    ended = cli.run(
        "run", "-p", text, "--output", "json", "--workspace", str(workspace), timeout=300
    )
    assert ended.code == code, ended.err + ended.out
    answer: dict[str, object] = ended.json
    print(json.dumps(answer))
    return answer


def test_a_fault_is_repaired(cli: Cli, workspace: Path) -> None:
    repository(workspace, FILES)
    answer = ask(cli, workspace, "the tests fail, fix it")
    assert answer["status"] == "solved"
    assert answer["files_changed"] == ["shop/prices.py"]
    changed = (workspace / "shop/prices.py").read_text()
    assert changed == FILES["shop/prices.py"].replace("max", "min")


def test_the_same_question_gets_the_same_answer(cli: Cli, workspace: Path) -> None:
    repository(workspace, FILES)
    first = ask(cli, workspace, "where is cheapest defined?")
    assert "shop/prices.py" in str(first["final_answer"])
    again = ask(cli, workspace, "where is cheapest defined?")
    assert again["final_answer"] == first["final_answer"]


def test_tests_are_counted_in_the_file_that_was_meant(cli: Cli, workspace: Path) -> None:
    more = "from shop.prices import total\n\n\ndef test_nothing():\n    assert total([]) == 0\n"
    files = {**FILES, "tests/test_empty.py": more}
    files["shop/prices.py"] = files["shop/prices.py"].replace("max", "min")
    repository(workspace, files)
    answer = ask(cli, workspace, "how many tests are in test_prices.py?")
    assert "2" in str(answer["final_answer"]) and answer["files_changed"] == []


def test_arithmetic(cli: Cli, workspace: Path) -> None:
    assert "144" in str(ask(cli, workspace, "what is 12 * 12?")["final_answer"])


def test_what_was_taken_for_a_repair_is_declined_once_all_tests_pass(
    cli: Cli, workspace: Path
) -> None:
    fine = FILES["shop/prices.py"].replace("max", "min")
    repository(workspace, {**FILES, "shop/prices.py": fine})
    answer = ask(cli, workspace, "cache the results", code=1)
    assert answer["stop_reason"] == "declined" and answer["steps"] == 2
    assert ask(cli, workspace, "tests fail, fix it")["status"] == "solved"
    assert "2" in str(ask(cli, workspace, "how many tests are there?")["final_answer"])


def test_tasks_beyond_its_abilities_are_declined(cli: Cli, workspace: Path) -> None:
    repository(workspace, FILES)
    answer = ask(cli, workspace, "add OAuth login with Google", code=1)
    assert answer["stop_reason"] == "declined"
    assert str(answer["final_answer"]).strip()
    assert answer["files_changed"] == []


def test_damaged_weights_are_the_models_fault_and_named(
    cli: Cli, workspace: Path, tmp_path: Path
) -> None:
    repository(workspace, FILES)
    damaged = tmp_path / "damaged"
    shutil.copytree(EMBEDDED, damaged)
    file = min(damaged.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    ended = cli.run("run", "-p", "fix it", "--model", f"local:{damaged}", cwd=workspace)
    assert ended.code == 3
    assert f"{file.name}: truncated" in ended.err and "internal error" not in ended.err
