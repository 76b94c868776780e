"""What an editor shows besides the prompt: commands, models, the plan and the cost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from acp import RequestError, text_block

from tests.acp.conftest import Connect
from tests.cli.test_mcp import configure
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply, ScriptedServer
from tests.test_skills import write
from tests.tools.test_mcp import SMALL


def told(server: ScriptedServer) -> list[str]:
    """The user's last message in each request."""
    said = [[m for m in one.json["messages"] if m["role"] == "user"] for one in server.requests]
    return [messages[-1]["content"] for messages in said]


async def test_commands_skills_and_prompts_of_servers(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    config = cli.home / ".config" / "agentcli"
    configure(cli, "small", *SMALL)
    (config / "commands").mkdir()
    (config / "commands" / "review.md").write_text(
        "---\ndescription: look at it\n---\nReview $ARGUMENTS well."
    )
    write(config / "skills", "release", body="Run release.py.")
    (workspace / ".agentcli" / "commands").mkdir(parents=True)
    (workspace / ".agentcli" / "commands" / "ours.md").write_text("Do ours.")
    assert cli.run("trust", str(workspace)).code == 0
    server = serve([Reply(text="Done.")], repeat=True)
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))

        async def say(text: str) -> Any:
            return await connection.prompt(session_id=session.session_id, prompt=[text_block(text)])

        await editor.until("available_commands_update")
        (update,) = editor.of("available_commands_update")
        commands = {one.name: one for one in update.available_commands}
        assert set(commands) == {"compact", "review", "release", "ours", "small:review"}
        assert commands["review"].description == "look at it"
        assert commands["small:review"].input.root.hint == "what"

        for text in ("/review a.py", "/ours", "/small:review b.py", "/release now", "/etc is full"):
            await say(text)
        assert told(server) == [
            "Review a.py well.",
            "Do ours.",
            "Please review b.py.",
            "Run release.py.\n\nnow",
            "/etc is full",
        ]
        with pytest.raises(RequestError, match="there is no command /reviw"):
            await say("/reviw a.py")
        with pytest.raises(RequestError, match="what is missing"):
            await say("/small:review")
        assert (await say("/compact")).stop_reason == "end_turn"
        assert editor.text.endswith("Nothing to leave out.")

        # The user can cancel waiting for a server's prompt.
        asked = workspace / "asked"
        turn = asyncio.ensure_future(say(f"/small:review later:{asked}"))
        async with asyncio.timeout(60):
            while not asked.exists():
                await asyncio.sleep(0.02)
        await connection.cancel(session_id=session.session_id)
        assert (await asyncio.wait_for(turn, 60)).stop_reason == "cancelled"


async def test_modes_and_models_are_options_and_the_plan_is_shown(
    cli: Cli, serve: Serve, workspace: Path, connect: Connect
) -> None:
    items = [{"text": "look", "state": "done"}, {"text": "mend", "state": "in_progress"}]
    command = {"command": "printf '# *no heading*\\n'"}
    calls: list[tuple[str, dict[str, Any]]] = [("todo", {"items": items}), ("shell", command)]
    server = serve([Reply(text="Hi."), Reply(calls=calls), Reply(text="Done.")])
    cli.server = server.url
    async with connect() as (connection, editor):
        session = await connection.new_session(cwd=str(workspace))
        name = session.session_id

        async def choose(option: str, value: str) -> dict[str, str]:
            answer = await connection.set_config_option(
                config_id=option, session_id=name, value=value
            )
            return {one.id: one.current_value for one in answer.config_options}

        assert {one.id: one.current_value for one in session.config_options} == {
            "mode": "ask",
            "model": "openai:m",
        }
        await connection.prompt(session_id=name, prompt=[text_block("hi")])
        assert editor.of("usage_update") == []  # its context window is unknown
        assert await choose("mode", "auto") == {"mode": "auto", "model": "openai:m"}
        assert await choose("model", "openai:gpt-4o") == {"mode": "auto", "model": "openai:gpt-4o"}
        for option, value in (("mode", "wild"), ("model", "nobody:x"), ("colour", "red")):
            with pytest.raises(RequestError):
                await choose(option, value)
        await connection.set_session_mode(session_id=name, mode_id="auto")
        (told,) = editor.of("config_option_update")
        assert told.config_options[0].current_value == "auto"

        await connection.prompt(session_id=name, prompt=[text_block("work")])
        (plan,) = editor.of("plan")
        assert [(entry.content, entry.status) for entry in plan.entries] == [
            ("look", "completed"),
            ("mend", "in_progress"),
        ]
        usage = editor.of("usage_update")[-1]
        assert 0 < usage.used < usage.size
        assert usage.cost is None  # the first model's price is unknown
        (ran,) = [
            update.content[0].content.text
            for update in editor.of("tool_call_update")
            if update.status == "completed" and "heading" in str(update.content)
        ]
        assert ran.startswith("```\n") and ran.endswith("\n```")
    assert [one.json["model"] for one in server.requests] == ["m", "gpt-4o", "gpt-4o"]
