"""examples/plugin, installed in a folder and used by a real process; and failing plugins."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from agentcli import plugins
from agentcli.cli.doctor import _packages
from agentcli.errors import ConfigError
from agentcli.llm.registry import connect
from agentcli.settings import Settings
from agentcli.wiring.plugged import added, plugin_hooks, plugin_tools
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"


def describe(folder: Path, name: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Write the metadata of a package as an installer does."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {what}\n" for key, what in entries.items())
        for group, entries in points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))


def install(folder: Path, name: str, source: str, **points: str) -> None:
    """Install a package with one module and entry points of the same name."""
    folder.mkdir(exist_ok=True)
    (folder / f"of_{name}.py").write_text(source)
    groups = {f"agentcli.{group}": {name: f"of_{name}:{what}"} for group, what in points.items()}
    describe(folder, name, groups)


def test_the_example_is_installed_and_used(cli: Cli, serve: Serve, workspace: Path) -> None:
    site = cli.home / "site"
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "house_rules", site / "house_rules")
    describe(site, project["name"], project["entry-points"])
    (workspace / "CODEOWNERS").write_text("* @everybody\n/src/* @api-team\n")
    push = {"command": "git push origin main"}
    calls = [("owners", {"path": "src/api.py"}), ("shell", push)]
    server = serve([Reply(calls=calls), Reply(text="The API team.")])
    house = cli.home / "house"
    house.mkdir()
    (house / "gateway").write_text(f"{server.url}\n")
    cli.extra = {
        "PYTHONPATH": str(site),
        "HOUSE_FOLDER": str(house),
        "HOUSE_AUDIT": str(cli.home / "audit.jsonl"),
    }
    arguments = ["-p", "Who owns it?", "--model", "house:large", "--workspace", str(workspace)]
    (house / ".agentcli").mkdir()
    (house / ".agentcli" / "config.toml").write_text('permissions.ask = ["owners"]\n')
    assert cli.run("config", "show", "permissions", cwd=house).code == 0
    listed = cli.run("tools").out
    assert "owners          tool      house-rules 1: owners\n" in listed
    assert "house           provider  house-rules 1: models named house:NAME\n" in listed
    refused = cli.run("run", *arguments)
    assert refused.code == 3 and "house: " in refused.error and "Run house-login" in refused.error

    (house / "token").write_text("of-today\n")
    ended = cli.run("run", *arguments)
    assert (ended.code, ended.out) == (0, "The API team.\n"), ended.err
    assert server.requests[0].headers["authorization"] == "Bearer of-today"
    told = [m["content"] for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert told[0] == "src/api.py is owned by @api-team"
    assert "people push, not assistants" in told[1]
    lines = (cli.home / "audit.jsonl").read_text().splitlines()
    audit = [(entry["tool"], entry["outcome"]) for entry in map(json.loads, lines)]
    assert sorted(audit) == [("owners", "ok"), ("shell", "denied")]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_failing_plugins_cost_one_line_each(site: Path) -> None:
    good = "from agentcli import tool\n@tool\ndef good(x: int) -> int:\n    'Double it.'\n"
    install(site, "good", good, tools="good")
    install(site, "gone", "import not_there_at_all", tools="x", hooks="x")
    install(site, "wrong", "x = [1]\ndef y(): return 1", tools="x", hooks="y")
    taken = good.replace("def good", "def grep")
    install(site, "taken", taken, tools="grep")
    notices: list[str] = []
    missing = "ModuleNotFoundError: No module named 'not_there_at_all'"
    assert [tool.spec.name for tool in plugin_tools({"grep"}, notices)] == ["good"]
    assert notices == [
        f"the tool gone of an installed package is left out: {missing}",
        "the tool taken of an installed package is left out: "
        "ValueError: there is a tool grep already",
        "the tool wrong of an installed package is left out: "
        "TypeError: int is not an agentcli tool",
    ]
    notices.clear()
    assert plugin_hooks(notices) == []
    assert len(notices) == 2 and "int is not an agentcli.Hook" in notices[1]
    # ``tools`` and ``doctor`` list all of them with their packages.
    assert {(one.kind, one.name): (one.works, one.what, one.package) for one in added()} == {
        ("tool", "good"): (True, "good", "good 1"),
        ("tool", "gone"): (False, missing, "gone 1"),
        ("tool", "taken"): (False, "ValueError: there is a tool grep already", "taken 1"),
        ("tool", "wrong"): (False, "TypeError: int is not an agentcli tool", "wrong 1"),
        ("hook", "gone"): (False, missing, "gone 1"),
        ("hook", "wrong"): (False, "TypeError: int is not an agentcli.Hook", "wrong 1"),
    }
    assert [one.what for one in _packages() if one.works] == ["tool good"]


def test_a_provider_that_fails_is_a_wrong_configuration(site: Path) -> None:
    install(site, "missing", "import not_there_at_all", providers="x")
    install(site, "useless", "def x(model, settings): return 1 / 0", providers="x")
    for name, why in (
        ("missing", "No module named 'not_there_at_all'"),
        ("useless", "ZeroDivisionError"),
    ):
        with pytest.raises(ConfigError, match=why):
            connect(f"{name}:m", Settings(), {})
    with pytest.raises(ConfigError, match='unknown provider "useles"') as error:
        connect("useles:m", Settings(), {})
    assert error.value.hint and 'Did you mean "useless"?' in error.value.hint


def test_without_plugins_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugins.names(plugins.TOOLS) == []
    script = (
        "import sys; from agentcli import plugins; assert plugins.names(plugins.HOOKS) == [];"
        "assert 'importlib.metadata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
