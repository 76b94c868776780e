"""MCP servers from the settings and from a project's file, in a whole run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Serve
from tests.running import KEY, Cli
from tests.server import Reply
from tests.tools.test_mcp import SMALL


def configure(cli: Cli, name: str, *argv: str) -> None:
    folder = cli.home / ".config" / "agentcli"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "config.toml").open("a") as file:
        patience = "startup_timeout_s = 80\ntimeout_s = 80\n"  # for a busy machine
        file.write(f"[mcp.servers.{name}]\ncommand = {json.dumps(argv)}\n{patience}")


def test_a_run_uses_a_configured_server(cli: Cli, serve: Serve, workspace: Path) -> None:
    configure(cli, "small", *SMALL)
    configure(cli, "gone", "not-there-at-all")
    server = serve([Reply(calls=[("mcp__small__add", {"a": 2, "b": 3})]), Reply(text="Five.")])
    cli.server = server.url
    arguments = ["-p", "add", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", *arguments, "--output", "stream-json")
    assert ended.code == 0, ended.err
    assert "note: MCP server gone: not-there-at-all was not found" in ended.err
    offered = [tool["function"]["name"] for tool in server.requests[0].json["tools"]]
    assert "mcp__small__add" in offered
    (told,) = [m for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert told["content"] == "5"


def test_a_servers_instructions_are_read(cli: Cli, serve: Serve, workspace: Path) -> None:
    configure(cli, "quiet", *SMALL)
    configure(cli, "small", "env", "INSTRUCTIONS=Add before you fail.", *SMALL)
    server = serve([Reply(text="Yes."), Reply(text="Yes.")])
    cli.server = server.url
    for _ in range(2):  # the second time from the cache
        cli.run("run", "-p", "go", "--model", "openai:m", "--workspace", str(workspace))
    for request in server.requests:
        system = request.json["messages"][0]["content"]
        assert "## small\n\nAdd before you fail." in system and "## quiet" not in system


def test_schemas_are_such_as_providers_accept(cli: Cli, serve: Serve, workspace: Path) -> None:
    by = [{"properties": {"how": {"const": how}}, "required": ["how"]} for how in ("id", "name")]
    schema = {
        "type": "object",
        "properties": {"$filter": {"type": "string"}, "extra": True},
        "required": ["$filter"],
        "oneOf": [by[0], {"$ref": "#/$defs/ByName"}],
        "$defs": {"ByName": by[1]},
    }
    query = [{"name": "query", "inputSchema": schema}]
    configure(cli, "small", "env", f"MORE_TOOLS={json.dumps(query)}", *SMALL)
    given = {"_filter": "a", "how": "name", "extra": [1]}
    called = Reply(calls=[("mcp__small__query", given)])
    server = serve([called, Reply(text="Found."), called, Reply(text="Found.")])
    cli.server = server.url
    cli.extra = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.root}
    for model in ("anthropic:m", "openai:m"):
        arguments = ["--model", model, "--workspace", str(workspace)]
        ended = cli.run("run", "-p", "find it", *arguments)
        assert (ended.code, ended.out, server.faults) == (0, "Found.\n", []), ended.err
    (told,) = [m for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    assert json.loads(told["content"]) == {"$filter": "a", "how": "name", "extra": [1]}


def test_a_task_may_name_resources_and_be_a_prompt(cli: Cli, serve: Serve, workspace: Path) -> None:
    configure(cli, "small", *SMALL)
    server = serve([Reply(text="Milk."), Reply(text="Reviewed.")])
    cli.server = server.url
    arguments = ["--model", "openai:m", "--workspace", str(workspace), "--output", "stream-json"]
    ended = cli.run("run", "-p", "What does @small:note://today say?", *arguments)
    assert ended.code == 0, ended.err
    # The resource was read in a separate step, before the first request to the model.
    asked = server.requests[0].json["messages"]
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "tool"]
    assert asked[-1]["content"] == "buy milk"
    results = [event for event in ended.events if event["type"] == "tool_finished"]
    assert [result["result"]["name"] for result in results] == ["mcp_resource"]

    ended = cli.run("run", "-p", "/small:review a.py and b.py", *arguments)
    assert ended.code == 0, ended.err
    assert server.requests[1].json["messages"][-1]["content"] == "Please review a.py and b.py."
    refused = cli.run("run", "-p", "/small:review", *arguments)
    assert (refused.code, refused.error) == (2, "review: what is missing; it takes what")
    assert len(server.requests) == 2


def test_a_rule_can_forbid_to_read_what_is_named(cli: Cli, serve: Serve, workspace: Path) -> None:
    configure(cli, "small", *SMALL)
    with (cli.home / ".config" / "agentcli" / "config.toml").open("a") as file:
        file.write('[permissions]\ndeny = ["mcp_resource"]\n')
    server = serve([Reply(text="I may not.")])
    cli.server = server.url
    mention = ["-p", "@small:note://today?", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", *mention)
    assert ended.code == 0 and "note: MCP" not in ended.err, ended.err
    told = server.requests[0].json["messages"][-1]["content"]
    assert "buy milk" not in told and "mcp_resource" in told


def test_a_rule_that_names_no_tool_of_a_server_is_told(
    cli: Cli, serve: Serve, workspace: Path
) -> None:
    told, fine = ["mcp__small__ad", "mcp__smal__*", "*delete*"], ["mcp__small__add", "mcp__*", "*"]
    with_rules = f"[permissions]\nask = {json.dumps(told + fine)}\n"
    configure(cli, "small", *SMALL)
    file = cli.home / ".config" / "agentcli" / "config.toml"
    servers = file.read_text()
    file.write_text(servers + with_rules)
    cli.server = serve([Reply(text="Hello."), Reply(text="Hello.")]).url
    arguments = ["-p", "hi", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", *arguments)
    notes = [line for line in ended.err.splitlines() if "the rule" in line]
    assert notes == [
        f"agentcli: note: the rule {rule} names no tool of this session: permissions.ask, {file}"
        for rule in told
    ]
    file.write_text(with_rules)  # without servers, there is nothing that they could miss
    assert "the rule" not in cli.run("run", *arguments).err


def test_a_projects_servers_need_trust(cli: Cli, workspace: Path) -> None:
    servers = {"mcpServers": {"mine": {"command": SMALL[0], "args": list(SMALL[1:])}}}
    (workspace / ".mcp.json").write_text(json.dumps(servers))
    refused = cli.run("mcp", "--workspace", str(workspace))
    assert ".mcp.json is left out: this folder is not trusted (agentcli trust)" in refused.out
    assert "mcp__mine__add" not in refused.out
    assert cli.run("trust", "--list").out == "no folder is trusted\n"
    assert cli.run("trust", str(workspace)).code == 0
    assert cli.run("trust", "--list").out == f"{workspace}\n"
    listed = cli.run("mcp", "--workspace", str(workspace))
    assert listed.code == 0, listed.err
    assert "mcp__mine__add" in listed.out
    assert "/mine:review what" in listed.out


def test_tools_with_long_names_are_listed_in_columns(cli: Cli, workspace: Path) -> None:
    configure(cli, "a_server_of_mine", *SMALL)
    ended = cli.run("tools")
    assert ended.code == 0, ended.err
    kinds = {line.split()[0]: line.split()[1] for line in ended.out.splitlines()}
    assert kinds["mcp__a_server_of_mine__add"] in ("read", "run") and kinds["shell"] == "run"


def test_listing_says_which_cannot_be_reached(cli: Cli, workspace: Path) -> None:
    assert "no MCP server is configured" in cli.run("mcp", "--workspace", str(workspace)).out
    configure(cli, "gone", "not-there-at-all")
    ended = cli.run("mcp", "--workspace", str(workspace))
    assert (ended.code, ended.out) == (1, "MCP server gone: not-there-at-all was not found\n")
