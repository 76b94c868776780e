"""``agentcli run`` with a task that contains images."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply
from tests.test_images import png


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
