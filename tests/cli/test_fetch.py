"""fetch in whole runs: allowed by the rules in the settings, and absent when offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply, Request
from tests.tools.test_fetch import serving


def results(events: list[dict[str, Any]]) -> list[str]:
    """The tool results in the order of their calls."""
    ended = [event["result"] for event in events if event["type"] == "tool_finished"]
    return [result["content"] for result in sorted(ended, key=lambda result: result["call_id"])]


def test_rules_of_the_settings_hold(cli: Cli, serve: Serve, workspace: Path) -> None:
    config = cli.home / "config"
    config.mkdir()
    (config / "config.toml").write_text('[permissions]\nallow = ["fetch(127.0.0.1)"]\n')
    cli.extra = {"AGENTCLI_CONFIG_DIR": str(config)}
    offered: list[set[str]] = []

    def done(request: Request) -> Reply:
        offered.append({tool["function"]["name"] for tool in request.json["tools"]})
        return Reply(text="Done.")

    with serving() as (pages, _):
        urls = (f"{pages}/json", "https://docs.python.org/", pages.replace("127.0.0.1", "[::1]"))
        calls = [("fetch", {"url": url}) for url in urls]
        cli.server = serve([Reply(calls=calls), done, done]).url
        given = ["-p", "Read.", "--model", "openai:m", "--workspace", str(workspace)]
        ended = cli.run("run", *given, "--output", "stream-json")
        assert ended.code == 0, ended.err
        assert cli.run("run", *given, "--offline").code == 0
    allowed, unknown, near = results(ended.events)
    assert allowed.endswith('{"a": [1, 2]}')
    assert 'allow = ["fetch(docs.python.org)"]' in unknown
    assert "only a rule that names it" in near
    assert ["fetch" in names for names in offered] == [True, False]
