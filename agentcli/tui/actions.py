"""The slash commands and ``!``: one method each, looked up in one table."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agentcli.environments.base import ExecResult
from agentcli.errors import AgentCLIError, UsageError
from agentcli.folders import user_folder
from agentcli.llm import registry
from agentcli.messages import Outcome, ToolCall, ToolResult, Usage
from agentcli.prompts import Prompts
from agentcli.sandbox import terminal
from agentcli.session import store
from agentcli.session.export import Format, exported
from agentcli.text import clip, counted, plain_output, truncate
from agentcli.tools.base import ToolOutput
from agentcli.tools.permissions import AllowedCall, Mode, ModePermissions
from agentcli.tools.report import QUIET, command_output, ending
from agentcli.tools.rules import Rule
from agentcli.tools.shell import shell_argv
from agentcli.tui.chooser import Choice
from agentcli.tui.commands import BUILTIN, ELSEWHERE
from agentcli.tui.entries import Answered, Shown, Used
from agentcli.tui.face import Face, agent_of, check_idle, conversation_of, doing
from agentcli.tui.numbers import short_number
from agentcli.tui.repository import Repository
from agentcli.tui.services import Services
from agentcli.tui.themes import THEMES
from agentcli.tui.travel import Travel
from agentcli.wording import dollars

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent

Action = Callable[[str], Awaitable[None]]


_TOLD_CHARS = 8000
"""How much of the output of a user's command the model sees."""


class Actions:
    """See the module docstring. User errors are shown on the screen, never raised."""

    def __init__(self, face: Face) -> None:
        self._face = face
        travel, repository, services = Travel(face), Repository(face), Services(face)
        self._table: dict[str, Action] = {
            "help": self._help,
            "model": self._model,
            "mode": self._mode,
            "compact": self._compact,
            "resume": self.resume,
            "new": self._new,
            "undo": travel.undo,
            "redo": travel.redo,
            "rewind": travel.rewind,
            "fork": travel.fork,
            "diff": repository.diff,
            "commit": repository.commit,
            "jobs": services.jobs,
            "permissions": self._permissions,
            "cost": self._cost,
            "trace": self._trace,
            "tools": self._tools,
            "mcp": services.mcp,
            "init": self._init,
            "theme": self._theme,
            "copy": self._copy,
            "export": self._export,
            "quit": self._quit,
            "history": self._history,
            "editor": self._editor,
        }

    async def run(self, name: str, argument: str) -> None:
        """Run one command."""
        face = self._face
        try:
            if name in self._table:
                await self._builtin(name, argument)
            elif own := next((c for c in face.commands if c.name == name and c.text), None):
                face.say(own.filled(argument))
            elif name in ELSEWHERE:
                await self._builtin(ELSEWHERE[name], argument)
            elif ":" in name:
                await self._prompt_of_server(f"/{name} {argument}".strip())
            else:
                raise UsageError(f"there is no command /{name}", hint="/help lists them")
        except AgentCLIError as error:
            face.fail(error)

    async def _builtin(self, name: str, argument: str) -> None:
        command = next((command for command in BUILTIN if command.name == name), None)
        if argument and command is not None and not command.argument:
            raise UsageError(f"/{name} takes no argument", hint="/help lists the commands")
        await self._table[name](argument)

    async def _prompt_of_server(self, text: str) -> None:
        """Send the prompt behind ``/server:prompt``, or the text itself if no server has it."""
        servers = self._agent().context.servers
        self._face.say(await servers.expanded(text) if servers else text)

    # -- the session -------------------------------------------------------------------------

    async def resume(self, argument: str = "") -> None:
        """Resume the session with the given id, or let the user choose one of this folder.

        Raises:
            UsageError: there is no such session, or none of this folder.
        """
        face = self._face
        if argument:
            face.open(store.find_session(argument))
            return
        workspace = str(face.options.workspace)
        found = await asyncio.to_thread(store.list_sessions)
        found = [info for info in found if info.task and info.workspace == workspace]
        if not found:
            hint = "agentcli sessions lists those of other folders"
            raise UsageError("there is no earlier session in this folder", hint=hint)
        choices = [
            Choice(
                info.id,
                clip(" ".join(info.task.split()), 70),
                f"{info.updated.astimezone():%d %b %H:%M} · {info.ended}",
            )
            for info in found
        ]
        chosen = await face.choose("Go on with which session?", choices)
        if chosen is not None:
            face.open(chosen)

    async def _new(self, argument: str) -> None:
        self._face.open(None)

    async def _model(self, argument: str) -> None:
        face = self._face
        check_idle(face)
        name = argument
        if not name:
            seen = await asyncio.to_thread(store.list_sessions)
            names = dict.fromkeys([face.standing.model, *(info.model for info in seen)])
            choices = [Choice(name, name) for name in names if name]
            chosen = await face.choose("Which model? (/model PROVIDER:NAME for others)", choices)
            if chosen is None:
                return
            name = chosen
        conversation = face.conversation
        if conversation is None or conversation.agent is None:
            face.open(face.options.session_id, model=name)
            return
        with doing(face, f"connecting {name}"):
            changed = await conversation.set_model(name)
        if not changed:
            face.tell("interrupted; the model is as it was")

    async def _mode(self, argument: str) -> None:
        if not argument:
            modes = [Choice(mode, mode.value, _MODES[mode]) for mode in Mode]
            chosen = await self._face.choose("What needs your approval?", modes)
            if chosen is not None:
                await self._face.set_mode(chosen)
            return
        if argument not in list(Mode):
            raise UsageError(f"there is no mode {argument}", hint=f"Modes: {', '.join(Mode)}")
        await self._face.set_mode(Mode(argument))

    async def _permissions(self, argument: str) -> None:
        permissions = self._agent().tools.permissions
        if not isinstance(permissions, ModePermissions):
            raise UsageError("this agent has permissions of its own")
        rules = [
            f"    {kind:<6} {rule}"
            for kind in ("deny", "ask", "allow")
            for rule in getattr(permissions.rules, kind)
        ]
        text = f"Mode `{permissions.mode}`: {_MODES[permissions.mode]}."
        self._face.added(Shown("\n".join([text, "", *rules])))
        allowed: list[Rule | AllowedCall] = [*permissions.given, *permissions.calls]
        if not allowed:
            return
        choices = [Choice(one, _named(one)) for one in allowed]
        chosen = await self._face.choose("Take back what you allowed? Esc keeps all", choices)
        if chosen is not None:
            permissions.take_back(chosen)
            self._face.tell(f"taken back: {_named(chosen)}")

    async def _compact(self, argument: str) -> None:
        if argument not in ("", "preview"):
            raise UsageError(f"/compact {argument} is not known", hint="/compact, /compact preview")
        conversation = conversation_of(self._face)
        check_idle(self._face)
        preview = argument == "preview"
        with doing(self._face, "shortening the conversation"):
            done = await conversation.compact(preview=preview)
        if done is None:
            self._face.tell("interrupted; the conversation is as it was")
        elif preview:
            before, after = short_number(done.tokens_before), short_number(done.tokens_after)
            self._face.tell(f"/compact would shorten {before} to {after} tokens")

    # -- information -------------------------------------------------------------------------

    async def _help(self, argument: str) -> None:
        keys = "\n".join(f"| `{key}` | {what} |" for key, what in self._face.keys)
        commands = "\n".join(
            f"| `/{c.name}{f' {c.argument}' if c.argument else ''}` | {_literal(c.summary)} |"
            for c in self._face.commands
        )
        text = f"| Key | |\n|---|---|\n{keys}\n\n| Command | |\n|---|---|\n{commands}"
        self._face.added(Shown(text))

    async def _cost(self, argument: str) -> None:
        usage: Usage = self._face.standing.usage
        rows = [
            ("Read", f"{usage.input_tokens:,} tokens"),
            ("of them cached", f"{usage.cached_tokens:,}"),
            ("Written", f"{usage.output_tokens:,} tokens"),
            ("of them reasoning", f"{usage.reasoning_tokens:,}"),
            ("Cost", dollars(self._face.standing.cost_usd)),
        ]
        table = [f"| {what} | {number} |" for what, number in rows]
        self._face.added(Shown("\n".join(["| | |", "|---|---|", *table])))

    async def _trace(self, argument: str) -> None:
        session = self._agent().session.session_id
        path = store.journal_path(session)
        self._face.added(Shown(f"Session `{session}`\n\nIts journal: `{path}`"))

    async def _tools(self, argument: str) -> None:
        rows = [
            f"| `{spec.name}` | {spec.kind} | {_literal(clip(first, 90))} |"
            for spec in self._agent().tools.specs
            for first in spec.description.split("\n")[:1]
        ]
        self._face.added(Shown("\n".join(["| Tool | Kind | |", "|---|---|---|", *rows])))

    async def _init(self, argument: str) -> None:
        if self._agent().session.model == registry.EMBEDDED:
            hint = "Choose a larger one with /model"
            raise UsageError("the embedded model cannot describe a project", hint=hint)
        prompt = Prompts.standard(user=user_folder() / "prompts").get("init")
        self._face.say(f"{prompt}\n\n{argument}".strip())

    async def _copy(self, argument: str) -> None:
        for entry in reversed(self._face.entries):
            if isinstance(entry, Answered) and entry.text.strip():
                self._face.copy(entry.text.strip())
                self._face.tell(f"copied {counted(len(entry.text.strip()), 'character')}")
                return
        raise UsageError("there is no answer to copy yet")

    async def _export(self, argument: str) -> None:
        session = self._agent().session.session_id
        path = Path(argument or f"session-{session}.md").expanduser()
        if not path.is_absolute():
            path = self._face.options.workspace / path
        text = await asyncio.to_thread(exported, session, Format.MARKDOWN)
        try:
            with open(path, "x", encoding="utf-8") as file:  # never overwrite a file
                file.write(text)
        except FileExistsError as error:
            raise UsageError(f"{path} exists", hint="Name another file") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        self._face.tell(f"written to {path}")

    async def _theme(self, argument: str) -> None:
        names = [theme.name for theme in THEMES]
        if argument:
            if argument not in names:
                raise UsageError(
                    f"there is no theme {argument}", hint=f"Themes: {', '.join(names)}"
                )
            chosen: str | None = argument
        else:
            chosen = await self._face.choose("Which colours?", [Choice(n, n) for n in names])
        if chosen is not None:
            self._face.set_theme(chosen)
            await asyncio.to_thread(self._face.options.remember, "chat.theme", chosen)

    async def _quit(self, argument: str) -> None:
        self._face.leave()

    # -- writing -----------------------------------------------------------------------------

    async def _history(self, argument: str) -> None:
        """Ctrl+R: put an earlier prompt into the prompt."""
        texts = list(dict.fromkeys(reversed(self._face.typed_before)))
        if not texts:
            raise UsageError("there are no earlier prompts")
        choices = [Choice(text, clip(text, 200)) for text in texts]
        chosen = await self._face.choose("Earlier prompts", choices)
        if chosen is not None:
            self._face.write(chosen)

    async def _editor(self, argument: str) -> None:
        """Ctrl+G: edit the prompt in the user's editor."""
        argv = terminal.editor()
        with tempfile.TemporaryDirectory(prefix="agentcli-") as folder:
            path = Path(folder) / "prompt.md"
            path.write_text(self._face.writing, encoding="utf-8")
            with self._face.outside():
                code = terminal.run([*argv, str(path)], cwd=self._face.options.workspace)
            if code != 0:
                raise UsageError(f"{argv[0]} ended with exit code {code}; the prompt is unchanged")
            self._face.write(path.read_text(encoding="utf-8", errors="replace").rstrip("\n"))

    # -- the shell ---------------------------------------------------------------------------

    async def shell(self, command: str) -> None:
        """Run a user's command in the sandbox and show its output."""
        if not command:
            return
        agent, conversation = self._agent(), conversation_of(self._face)
        context = agent.context
        call = ToolCall(f"user-{time.monotonic_ns()}", "!", f'{{"command": {json.dumps(command)}}}')
        used = Used(call, kind="run")
        self._face.added(used)

        def output(stream: str, data: bytes) -> None:
            used.output = (used.output + data)[-16_384:]
            self._face.changed(used)

        started = time.monotonic()
        result: ExecResult | None = await conversation.aside(
            context.environment.exec(
                shell_argv(command), limits=context.command, env=QUIET, on_output=output
            )
        )
        if result is None:
            said = plain_output(used.output.decode("utf-8", "replace"))
            ended = ToolOutput(f"interrupted\n{said}".rstrip("\n"), Outcome.CANCELLED)
        else:
            how = ending(result, context.command.time_s)
            ended = command_output(result, how, context.output_chars)
        used.result = ToolResult(call.id, call.name, ended.content, ended.outcome, data=ended.data)
        used.duration_s = time.monotonic() - started
        self._face.changed(used)
        said = str(truncate(ended.content, _TOLD_CHARS))
        agent.tell(f"The user ran a command in the chat:\n$ {command}\n{said}")

    def _agent(self) -> Agent:
        return agent_of(self._face)


def _literal(text: str) -> str:
    """Text of others that is no Markdown, for a cell of a table."""
    return re.sub(r"([\\`*_\[\]~|&])", r"\\\1", text)


def _named(allowed: Rule | AllowedCall) -> str:
    return str(allowed) if isinstance(allowed, Rule) else f"{' '.join(allowed)} (this session)"


_MODES = {
    Mode.ASK: "asks before edits and commands",
    Mode.EDITS: "edits without asking, asks before commands",
    Mode.AUTO: "asks nothing; the sandbox still applies",
    Mode.PLAN: "reads only",
}
