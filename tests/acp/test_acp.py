"""The Agent Client Protocol as an editor uses it, with the SDK's client and real processes."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from acp import RequestError, audio_block, image_block, resource_block, text_block
from acp.helpers import embedded_blob_resource, embedded_text_resource, resource_link_block
from acp.schema import McpServerStdio, SseMcpServer

from agentcli.acp.content import fenced, read
from agentcli.acp.updates import changed_pieces
from tests.acp.conftest import Connect
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply
from tests.tools.test_mcp import SMALL, sdk_server

EDIT = Reply(text="I write.", calls=[("write_file", {"path": "a.txt", "content": "hello\n"})])
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_a_turn_streams_asks_edits_and_ends(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([EDIT, Reply(text="Written.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace), mcp_servers=[])
        assert session.modes.current_mode_id == "ask"
        ended = await connection.prompt(
            session_id=session.session_id, prompt=[text_block("write a.txt")]
        )
        assert ended.stop_reason == "end_turn"
        assert ended.usage.total_tokens > 0
        assert editor.text == "I write.Written."
        ((call, options),) = editor.questions
        assert (call.kind, call.status) == ("edit", "pending") and "write_file a.txt" in call.title
        assert (call.content[0].old_text, call.content[0].new_text) == (None, "hello\n")
        assert [option.option_id for option in options][:2] == ["once", "session"]
        (started,) = editor.of("tool_call")
        assert (started.kind, started.raw_input["path"]) == ("edit", "a.txt")
        assert started.locations[0].path == str(workspace / "a.txt")
        allowed, *_ = editor.of("tool_call_update")
        assert (allowed.tool_call_id, allowed.status) == (started.tool_call_id, "in_progress")
        (info,) = editor.of("session_info_update")
        assert info.title == "write a.txt"
        finished = editor.of("tool_call_update")[-1]
        assert finished.status == "completed"
        assert finished.content[0].path == str(workspace / "a.txt")
        assert (finished.content[0].old_text, finished.content[0].new_text) == (None, "hello\n")
        assert finished.locations[0].path == str(workspace / "a.txt")
        # The TypeScript SDK up to 0.4 drops updates with anything but an object here.
        assert finished.raw_output == {"output": "created a.txt (1 line)"}
    assert (workspace / "a.txt").read_text() == "hello\n"


async def test_output_is_shown_a_few_times_a_second_and_letters_stay_whole(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    program = (
        "import os, time\n"
        "os.write(1, 'caf\u00e9'.encode()[:-1]); time.sleep(0.6)\n"
        "os.write(1, b'\\xa9\\n'); time.sleep(0.6)\n"
        "for n in range(300): print(n, flush=True); time.sleep(0.003)\n"
    )
    (workspace / "p.py").write_text(program)
    server = serve([Reply(calls=[("shell", {"command": "python3 p.py"})]), Reply(text="Seen.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        await connection.prompt(session_id=session.session_id, prompt=[text_block("run it")])
        shown = [
            update.content[0].content.text
            for update in editor.of("tool_call_update")
            if update.status == "in_progress" and update.content
        ]
    assert any("café" in text for text in shown) and not any("\ufffd" in text for text in shown)
    assert 2 <= len(shown) < 60  # not one for every line


async def test_a_cancelled_compaction_ends_its_turn(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    go_on = threading.Event()
    long = [Reply(text=f"Answer {n}. " + "many words " * 3000) for n in range(6)]
    server = serve([*long, Reply(text="late", until=go_on)])
    cli.server = server.url
    async with connect() as (connection, _):
        session = await connection.new_session(cwd=str(workspace))
        for number in range(6):
            text = text_block(f"question {number}")
            await connection.prompt(session_id=session.session_id, prompt=[text])
        compacting = asyncio.create_task(
            connection.prompt(session_id=session.session_id, prompt=[text_block("/compact")])
        )
        while len(server.requests) < 7:
            await asyncio.sleep(0.02)
        await connection.cancel(session_id=session.session_id)
        ended = await asyncio.wait_for(compacting, 30)
        go_on.set()
    assert ended.stop_reason == "cancelled"


@pytest.mark.parametrize("chosen", ["no", "dismiss", "fail", "what was not offered"])
async def test_a_refusal_is_told_to_the_model(
    chosen: str, cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([EDIT, Reply(text="Then not.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        editor.chosen = chosen
        session = await connection.new_session(cwd=str(workspace))
        await connection.prompt(session_id=session.session_id, prompt=[text_block("write")])
        assert editor.of("tool_call_update")[-1].status == "failed"
    (told,) = [m for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert told["content"].startswith("denied: ")
    assert not (workspace / "a.txt").exists()


async def test_the_question_about_a_check_shows_what_it_runs(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    (workspace / "Makefile").write_text("test:\n\ttrue\n")
    cli.server = serve([Reply(calls=[("run_tests", {})]), Reply(text="Fine.")]).url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        await connection.prompt(session_id=session.session_id, prompt=[text_block("test it")])
    ((call, _),) = editor.questions
    assert "make test" in call.content[0].content.text


async def test_a_mode_can_be_changed_and_a_second_turn_goes_on(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([Reply(text="Hello."), EDIT, Reply(text="Written.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        name = session.session_id
        await connection.prompt(session_id=name, prompt=[text_block("hi")])
        await connection.set_session_mode(session_id=name, mode_id="auto")
        await connection.prompt(session_id=name, prompt=[text_block("write")])
        assert editor.questions == []
        (info,) = editor.of("session_info_update")
        assert info.title == "hi"  # the title stays
        with pytest.raises(RequestError):
            await connection.set_session_mode(session_id=name, mode_id="reckless")
    messages = server.requests[1].json["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"][:2] == ["hi", "write"]
    assert (workspace / "a.txt").exists()


async def test_cancelling_ends_the_turn_and_the_next_one_works(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    slow = Reply(calls=[("shell", {"command": "echo begun; sleep 60"})])
    server = serve([slow, Reply(text="Here again.")])
    cli.server = server.url
    async with connect("--mode", "auto") as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        name = session.session_id
        turn = asyncio.ensure_future(
            connection.prompt(session_id=name, prompt=[text_block("wait")])
        )
        await editor.until("tool_call")
        await connection.cancel(session_id=name)
        assert (await asyncio.wait_for(turn, 20)).stop_reason == "cancelled"
        ended = await connection.prompt(session_id=name, prompt=[text_block("still there?")])
        assert ended.stop_reason == "end_turn"
        assert editor.text.endswith("Here again.")


async def test_a_session_is_listed_and_loaded_in_a_new_process(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([EDIT, Reply(text="Written."), Reply(text="As I said.")])
    cli.server = server.url
    async with connect("--mode", "auto") as (connection, _):
        session = await connection.new_session(cwd=str(workspace))
        await connection.prompt(session_id=session.session_id, prompt=[text_block("write a.txt")])
        await connection.close_session(session_id=session.session_id)
    async with connect("--mode", "auto") as (connection, editor):
        listed = (await connection.list_sessions(cwd=str(workspace))).sessions
        assert [(one.session_id, one.title) for one in listed] == [
            (session.session_id, "write a.txt")
        ]
        name = session.session_id
        resumed = await connection.resume_session(cwd=str(workspace), session_id=name)
        assert resumed.modes.current_mode_id == "auto"
        await editor.until("available_commands_update")
        assert {update.session_update for update in editor.updates} == {"available_commands_update"}
        await connection.load_session(cwd=str(workspace), session_id=name)
        assert [one.content.text for one in editor.of("user_message_chunk")] == ["write a.txt"]
        assert editor.text == "I write.Written."
        assert editor.of("tool_call_update")[-1].status == "completed"
        await connection.prompt(session_id=session.session_id, prompt=[text_block("again?")])
        assert editor.text.endswith("As I said.")
    assert len(server.requests[2].json["messages"]) > len(server.requests[1].json["messages"])


async def test_files_images_and_servers_of_the_editor_reach_the_model(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([Reply(text="Seen.")])
    cli.server = server.url
    small = McpServerStdio(name="small", command=SMALL[0], args=list(SMALL[1:]), env=[])
    async with connect() as (connection, _), sdk_server("sse") as (url, _):
        far = SseMcpServer(type="sse", name="far", url=f"{url}/sse", headers=[])
        session = await connection.new_session(cwd=str(workspace), mcp_servers=[small, far])
        await connection.prompt(
            session_id=session.session_id,
            prompt=[
                text_block("look at "),
                resource_link_block("a b.py", f"file://{workspace}/a%20b.py"),
                resource_block(embedded_text_resource("file:///x.py", "x = 1")),
                image_block(PNG, "image/png"),
            ],
        )
    body = server.requests[0].json
    offered = {tool["function"]["name"] for tool in body["tools"]}
    assert {"mcp__small__add", "mcp__far__add"} <= offered
    content = json.dumps(body["messages"][-1]["content"])
    assert f"{workspace}/a b.py" in content and "x = 1" in content and PNG in content


async def test_a_server_of_the_editor_that_does_not_start_is_named(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    cli.server = serve([Reply(text="Hello."), Reply(text="Again.")]).url
    gone = McpServerStdio(name="gone", command="/not/there", args=[], env=[])
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace), mcp_servers=[gone])
        for _ in range(2):
            await connection.prompt(session_id=session.session_id, prompt=[text_block("hi")])
    assert editor.text == "[MCP server gone: /not/there was not found]\n\nHello.Again."


async def test_an_image_alone_reaches_the_model(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    server = serve([Reply(text="Yes?"), Reply(text="Seen.")])
    cli.server = server.url
    async with connect() as (connection, _):
        session = await connection.new_session(cwd=str(workspace))
        for prompt in ([text_block("look")], [image_block(PNG, "image/png")]):
            await connection.prompt(session_id=session.session_id, prompt=prompt)
    content = server.requests[1].json["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["image_url"] and PNG in json.dumps(content)


async def test_the_images_of_results_are_shown_also_when_loaded(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    (workspace / "a.png").write_bytes(base64.b64decode(PNG))
    server = serve([Reply(calls=[("read_file", {"path": "a.png"})]), Reply(text="Seen.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        name = session.session_id
        await connection.prompt(session_id=name, prompt=[text_block("look")])
        await connection.load_session(cwd=str(workspace), session_id=name)
        shown = [one for one in editor.of("tool_call_update") if one.status == "completed"]
    assert len(shown) == 2
    for update in shown:
        text, image = (part.content for part in update.content)
        assert "[image a.png: PNG, 1x1, 70 bytes]" in text.text
        assert (image.type, image.data, image.mime_type) == ("image", PNG, "image/png")
    assert PNG in json.dumps(server.requests[1].json["messages"][-1])


async def test_what_goes_wrong_is_an_error_of_the_protocol(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    cli.server = serve([Reply(status=401, body=b"{}")]).url
    async with connect() as (connection, _):
        attempts: list[Awaitable[Any]] = [
            connection.new_session(cwd=str(workspace / "absent")),
            connection.new_session(cwd="relative"),
            connection.prompt(session_id="nonesuch", prompt=[text_block("hi")]),
            connection.load_session(cwd=str(workspace), session_id="nonesuch"),
        ]
        for attempt in attempts:
            with pytest.raises(RequestError):
                await attempt
        session = await connection.new_session(cwd=str(workspace))
        with pytest.raises(RequestError, match=r"401|key"):
            await connection.prompt(session_id=session.session_id, prompt=[text_block("hi")])
        with pytest.raises(RequestError):
            await connection.prompt(session_id=session.session_id, prompt=[text_block(" ")])


def test_lines_that_are_no_messages_are_answered_and_do_not_end_it(cli: Cli) -> None:
    process = cli.start("acp", stdin=subprocess.PIPE)
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
    long = json.dumps("x" * 200_000)
    lines = ["[]", "5", "{", "", "null", "[" * 100_000, long, json.dumps(hello)]
    out, err = process.communicate("\n".join(lines) + "\n", timeout=60)
    answers = [json.loads(line) for line in out.splitlines()]
    codes = [answer["error"]["code"] for answer in answers if "error" in answer]
    assert codes == [-32600, -32600, -32700, -32600, -32700, -32600]
    assert answers[-1]["id"] == 1 and answers[-1]["result"]["protocolVersion"] == 1
    assert process.returncode == 0 and "error" not in err


def test_an_editor_that_stops_reading_and_dies_is_no_error(
    cli: Cli, serve: Serve, workspace: Path
) -> None:
    server = serve([Reply(text="many words " * 50_000)])
    cli.server = server.url
    process = cli.start("acp", "--model", "openai:m", stdin=subprocess.PIPE)
    assert process.stdin and process.stdout

    def ask(number: int, method: str, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        print(json.dumps(message), file=process.stdin, flush=True)

    ask(1, "initialize", protocolVersion=1)
    process.stdout.readline()
    ask(2, "session/new", cwd=str(workspace), mcpServers=[])
    session = json.loads(process.stdout.readline())["result"]["sessionId"]
    ask(3, "session/prompt", sessionId=session, prompt=[{"type": "text", "text": "talk"}])
    while not server.requests:
        time.sleep(0.02)
    time.sleep(1)  # the pipe fills up meanwhile
    process.stdout.close()
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr and process.stderr.read() == ""


def test_a_file_is_no_editor(cli: Cli, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        process = cli.start("acp", stdout=out)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "acp talks over pipes, not files" in said


def test_what_a_prompt_may_hold() -> None:
    gone = embedded_blob_resource("file:///x.png", PNG)
    text, images = read([text_block("See"), resource_block(gone)])
    assert (text, images[0].media_type) == ("See", "image/png")
    link, lines = "file:///a%20b.py", "#L5:15"
    mention = resource_link_block("a b.py", link)
    selection = resource_block(embedded_text_resource(link + lines, "x = 1"))
    text, _ = read([text_block("Look at"), mention, text_block("and say")])
    assert text == "Look at /a b.py and say"
    text, _ = read([text_block("Look at "), mention, text_block(", please")])
    assert text == "Look at /a b.py, please"
    text, _ = read([text_block("Why?"), selection])
    assert text == "Why?\n/a b.py (lines 5-15):\n```\nx = 1\n```"
    assert read([resource_link_block("c", "file:///c.py#L7")])[0] == "/c.py (line 7)"
    wrong: list[Any] = [
        audio_block("AAAA", "audio/wav"),
        image_block("not base64!", "image/png"),
        image_block("AAAA", "image/png"),
        text_block(" \n"),
    ]
    for block in wrong:
        with pytest.raises(RequestError):
            read([block])
    assert fenced("a ``` b\n") == "````\na ``` b\n````"


def test_the_pieces_of_a_diff() -> None:
    diff = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n"
    assert list(changed_pieces(diff)) == [("x", "same\nold\n", "same\nnew\n")]
    assert list(changed_pieces("")) == []
    assert list(changed_pieces("no diff at all")) == []
