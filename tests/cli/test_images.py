"""``agentcli run`` with images: of a task, and of the results of tools."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cli.test_mcp import configure
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply
from tests.test_images import png
from tests.tools.test_mcp import SMALL


def test_a_task_file_with_an_image(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "shot.png").write_bytes(png())
    task = workspace / "task.md"
    task.write_text("What is wrong in ![this](shot.png) and ![that](gone.png)?")
    server = serve([Reply(text="It is all red.")])
    cli.server = server.url
    arguments = ["--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", str(task), *arguments)
    assert (ended.code, ended.out) == (0, "It is all red.\n"), ended.err
    assert "gone.png does not exist; its link is sent as text" in ended.err
    assert base64.b64encode(png()).decode() in server.requests[0].raw.decode()

    cli.extra = {"AGENTCLI_PROVIDERS__X__BASE_URL": server.url}
    refused = cli.run("run", str(task), "--model", "x:m", "--workspace", str(workspace))
    assert refused.code == 2 and "x:m does not accept images" in refused.err
    assert len(server.requests) == 1


def test_a_chat_says_that_its_model_cannot_see_earlier_images_and_goes_on(
    cli: Cli, serve: Serve, workspace: Path
) -> None:
    (workspace / "shot.png").write_bytes(png())
    server = serve([Reply(text="It is all red."), Reply(text="Gone on.")])
    cli.server = server.url
    cli.extra = {"AGENTCLI_PROVIDERS__X__BASE_URL": server.url}
    image = ["--image", str(workspace / "shot.png")]
    options = ["--model", "openai:m", "--workspace", str(workspace)]
    assert cli.run("run", "-p", "Look", *options, *image).code == 0
    chat = ["chat", "--plain", "--continue", "--model", "x:m", "--workspace", str(workspace)]
    ended = cli.run(*chat, stdin=b"go on\n/model openai:m\ngo on again\n")
    assert "x:m does not accept images" in ended.err and "not read: go on" in ended.err
    assert (ended.code, ended.out) == (0, "Gone on.\n")


def test_images_of_the_command_line(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "shot.png").write_bytes(png())
    (workspace / "notes.txt").write_text("no image")
    server = serve([Reply(text="It is all red.")])
    cli.server = server.url
    arguments = ["-p", "Look", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", *arguments, "--image", str(workspace / "shot.png"))
    assert (ended.code, ended.out) == (0, "It is all red.\n"), ended.err
    assert base64.b64encode(png()).decode() in server.requests[0].raw.decode()
    refused = cli.run("run", *arguments, "--image", str(workspace / "notes.txt"))
    assert refused.code == 2 and "notes.txt: not a PNG, JPEG, GIF or WebP image" in refused.error


def test_images_of_tools_reach_the_model(cli: Cli, serve: Serve, workspace: Path) -> None:
    """A file and the result of an MCP server; later runs of the session contain them, too."""
    (workspace / "shot.png").write_bytes(png(640, 3))
    picture = {"type": "image", "mimeType": "image/png", "data": base64.b64encode(png()).decode()}
    tools = json.dumps([{"name": "parts", "inputSchema": {"type": "object"}}])
    configure(cli, "small", "env", f"MORE_TOOLS={tools}", *SMALL)
    called = Reply(
        calls=[("read_file", {"path": "shot.png"}), ("mcp__small__parts", {"content": [picture]})]
    )
    server = serve([called, *[Reply(text="All red.")] * 3])
    cli.server = server.url
    cli.extra = {"AGENTCLI_PROVIDERS__X__BASE_URL": server.url}
    arguments = ["-p", "Look", "--workspace", str(workspace)]
    ended = cli.run("run", *arguments, "--model", "openai:m")
    assert ended.code == 0, ended.err
    assert "[image shot.png: PNG, 640x3, 95 bytes]" in ended.err
    assert f"[image parts.png: PNG, 2x2, {len(png())} bytes]" in ended.err
    (journal,) = cli.journals()
    session = journal.parent
    for command in ("show", "export"):
        ended = cli.run("sessions", command, session.name)
        assert "[image shot.png: PNG, 640x3, 95 bytes]" in ended.out
    assert '"base64"' in journal.read_text()
    assert '"base64"' not in (session / "steps.jsonl").read_text()
    assert cli.run("run", "--continue", *arguments, "--model", "openai:m").code == 0
    cannot = cli.run("run", "--continue", *arguments, "--model", "x:m")
    assert (cannot.code, cannot.out) == (0, "All red.\n"), cannot.err
    first, second, blind = (request.json["messages"] for request in server.requests[1:])
    shown = [
        part["image_url"]["url"].partition(",")[2]
        for part in first[-1]["content"]
        if part["type"] == "image_url"
    ]
    assert shown == [base64.b64encode(image).decode() for image in (png(640, 3), png())]
    assert second[: len(first)] == first
    results = [message["content"] for message in blind if message["role"] == "tool"]
    assert all(text.endswith("not shown: this model accepts none]") for text in results)
    assert shown[0] not in str(blind)


def test_a_model_without_images_reads_none(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "shot.png").write_bytes(png())
    server = serve([Reply(calls=[("read_file", {"path": "shot.png"})]), Reply(text="A pity.")])
    cli.extra = {"AGENTCLI_PROVIDERS__X__BASE_URL": server.url}
    ended = cli.run("run", "-p", "Look", "--model", "x:m", "--workspace", str(workspace))
    assert ended.code == 0, ended.err
    told = server.requests[1].json["messages"][-1]
    assert told["content"] == f"error: shot.png is a binary file (PNG image, {len(png())} bytes)"
