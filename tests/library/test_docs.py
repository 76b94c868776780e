"""Every example in docs/library.md runs, and every name in docs/architecture.md exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.server import Reply
from tests.test_layers import LAYERS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```python\n(.+?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
SCRIPTS = {
    "word_count": ([Reply(calls=[("word_count", {"text": "a b"})]), Reply(text="Two.")], "Two."),
    "open_agent": (
        [Reply(calls=[("list_dir", {})]), Reply(text="It is empty.")],
        "calls list_dir\ntest -d . passed\nsolved 0 ()",
    ),
    "NoDeletion": ([Reply(calls=[("delete", {"name": "old"})]), Reply(text="No.")], "No."),
    "Greeter": ([Reply(text="Well.")], "Hello.\n1 10"),
    "NamesTheCurrency": (
        [
            Reply(calls=[("order", {"item": "pen"}), ("price", {"item": "pen"})]),
            Reply(text="It is 3."),
            Reply(text="It is 3 EUR."),
        ],
        "It is 3 EUR.",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=list(SCRIPTS))
def test_an_example_runs(
    example: str,
    serve: Serve,
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    script, printed = next(found for mark, found in SCRIPTS.items() if mark in example)
    server = serve(script)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(workspace)
    exec(compile(example, "library.md", "exec"), {"__name__": "example"})
    assert capfd.readouterr().out.strip() == printed
    assert server.faults == [] and len(server.requests) == len(script)
    if "NoDeletion" in example:
        assert "nothing is deleted here" in server.requests[1].json["messages"][-1]["content"]
    if "NamesTheCurrency" in example:
        said = [message["content"] for message in server.requests[2].json["messages"]]
        assert said[-4:] == ["pen is ordered", "pen: 3 EUR", "It is 3.", "Name the currency."]


def test_the_architecture_names_what_is_there() -> None:
    for name in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", ARCHITECTURE):
        assert (ROOT / name).exists() or (ROOT / "agentcli" / name).exists(), name
    (order,) = re.findall(r"^ground layer .+?`cli`$", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    layers = re.findall(r"`(\w+)`", order.partition("<")[2])
    assert layers == [layer for layer in LAYERS if layer in layers] and "agent" in layers
