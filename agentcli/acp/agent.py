"""agentcli as an agent of the Agent Client Protocol (agentclientprotocol.com), over stdio.

An editor opens sessions, prompts, answers permission requests and cancels; the kernel is the same
as everywhere else. Each session holds an open agent until it is closed or the editor goes away.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from acp import Client, RequestError, update_agent_message_text
from acp.schema import (
    AgentCapabilities,
    AllowedOutcome,
    AuthenticateResponse,
    ClientCapabilities,
    CloseSessionResponse,
    EmbeddedResourceContentBlock,
    HttpMcpServer,
    ImageContentBlock,
    Implementation,
    InitializeResponse,
    ListSessionsResponse,
    LoadSessionResponse,
    McpCapabilities,
    McpServerStdio,
    NewSessionResponse,
    PermissionOption,
    PromptCapabilities,
    PromptResponse,
    ResourceContentBlock,
    SessionCapabilities,
    SessionCloseCapabilities,
    SessionInfo,
    SessionListCapabilities,
    SessionMode,
    SessionModeState,
    SetSessionModeResponse,
    TextContentBlock,
    TextResourceContents,
    ToolCallUpdate,
    Usage,
)

from agentcli import __version__
from agentcli.acp.updates import Updates
from agentcli.agent.events import Status, StopReason
from agentcli.agent.kernel import Agent
from agentcli.agent.run import Run, RunResult
from agentcli.errors import AgentCLIError
from agentcli.messages import Image
from agentcli.session import store
from agentcli.session.journal import read_events
from agentcli.settings import McpServerSettings, McpSettings, Settings
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.permissions import Mode
from agentcli.wiring import open_agent
from agentcli.wording import describe_call

LoadSettings = Callable[[Path], Settings]

PROTOCOL = 1
_MODES = {
    Mode.ASK: "Asks before it changes anything",
    Mode.EDITS: "Edits without asking, asks before commands",
    Mode.AUTO: "Asks nothing; commands run in the sandbox",
    Mode.PLAN: "Only reads, and makes a plan",
}
_STOPS = {
    StopReason.BUDGET_TOKENS: "max_tokens",
    StopReason.BUDGET_STEPS: "max_turn_requests",
    StopReason.BUDGET_TIME: "max_turn_requests",
    StopReason.BUDGET_COST: "max_turn_requests",
    StopReason.BUDGET_TOOLS: "max_turn_requests",
    StopReason.CANCELLED: "cancelled",
    StopReason.DECLINED: "refusal",
}

_log = logging.getLogger("agentcli.acp")


@dataclass
class Session:
    """An open agent, and the turn it is at."""

    agent: Agent
    stack: AsyncExitStack
    updates: Updates
    run: Run | None = None


class AcpAgent:
    """The methods that an editor calls. ``load_settings`` gives those of a project's folder."""

    def __init__(self, load_settings: LoadSettings) -> None:
        self._load_settings = load_settings
        self._sessions: dict[str, Session] = {}
        self._client: Client | None = None

    def on_connect(self, conn: Client) -> None:
        """Keep the editor to talk to."""
        self._client = conn

    async def initialize(
        self,
        protocol_version: int,
        client_capabilities: ClientCapabilities | None = None,
        client_info: Implementation | None = None,
        **kwargs: Any,
    ) -> InitializeResponse:
        """Say what this agent can do."""
        return InitializeResponse(
            protocol_version=PROTOCOL,
            agent_info=Implementation(name="agentcli", title="agentcli", version=__version__),
            agent_capabilities=AgentCapabilities(
                load_session=True,
                prompt_capabilities=PromptCapabilities(image=True, embedded_context=True),
                mcp_capabilities=McpCapabilities(http=True),
                session_capabilities=SessionCapabilities(
                    list=SessionListCapabilities(), close=SessionCloseCapabilities()
                ),
            ),
            auth_methods=[],
        )

    async def authenticate(self, method_id: str, **kwargs: Any) -> AuthenticateResponse | None:
        """Nothing to do: keys come from the environment."""
        return None

    async def new_session(
        self, cwd: str, mcp_servers: list[Any] | None = None, **kwargs: Any
    ) -> NewSessionResponse:
        """Open an agent in a folder."""
        session = await self._open(cwd, mcp_servers or [], None)
        return NewSessionResponse(
            session_id=session.agent.session.session_id, modes=_modes(session.agent)
        )

    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: list[Any] | None = None, **kwargs: Any
    ) -> LoadSessionResponse:
        """Open a session of before, and tell all that was said and done in it."""
        if session_id not in self._sessions:
            await self._open(cwd, mcp_servers or [], session_id)
        session = self._sessions[session_id]
        for event in read_events(store.journal_path(session_id)):
            for update in session.updates.of_past(event):
                await self._editor.session_update(session_id, update)
        return LoadSessionResponse(modes=_modes(session.agent))

    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **kwargs: Any
    ) -> ListSessionsResponse:
        """The sessions of this machine, or of one folder, the newest first."""
        found = store.list_sessions(Path(cwd) if cwd else None)
        return ListSessionsResponse(
            sessions=[
                SessionInfo(
                    session_id=one.id,
                    cwd=one.workspace,
                    title=one.task,
                    updated_at=one.updated.isoformat(),
                )
                for one in found
            ]
        )

    async def close_session(self, session_id: str, **kwargs: Any) -> CloseSessionResponse:
        """Let go of a session; its journal stays."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            await _close(session)
        return CloseSessionResponse()

    async def set_session_mode(
        self, session_id: str, mode_id: str, **kwargs: Any
    ) -> SetSessionModeResponse:
        """Ask more or less from the next call on."""
        try:
            mode = Mode(mode_id)
        except ValueError:
            raise RequestError.invalid_params({"mode_id": mode_id, "known": list(Mode)}) from None
        await self._session(session_id).agent.set_mode(mode)
        return SetSessionModeResponse()

    async def prompt(self, session_id: str, prompt: Sequence[Any], **kwargs: Any) -> PromptResponse:
        """One turn: everything that happens is told, and how it ended."""
        session = self._session(session_id)
        text, images = _read(prompt)
        try:
            session.run = session.agent.start(text, images=images)
        except AgentCLIError as error:
            raise _request_error(error) from error
        try:
            async for event in session.run:
                for update in session.updates.of(event):
                    await self._editor.session_update(session_id, update)
            result = await session.run.result()
        finally:
            session.run = None
        if result.state.status in (Status.FAILED, Status.INVALID):
            raise RequestError(-32000, result.state.detail or "the run failed")
        await self._tell_why(session_id, result)
        usage = result.state.used.usage
        return PromptResponse(
            stop_reason=_STOPS.get(result.state.stop, "end_turn"),  # type: ignore[arg-type]
            usage=Usage(
                total_tokens=usage.input_tokens + usage.output_tokens,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_read_tokens=usage.cached_tokens,
            ),
        )

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        """End the turn at once; the prompt then returns as cancelled."""
        session = self._sessions.get(session_id)
        if session is not None and session.run is not None:
            session.run.cancel()

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """There are none."""
        raise RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """There are none, and what is not known is let go by."""

    async def aclose(self) -> None:
        """Let go of all sessions."""
        while self._sessions:
            await _close(self._sessions.popitem()[1])

    @property
    def _editor(self) -> Client:
        assert self._client is not None
        return self._client

    def _session(self, session_id: str) -> Session:
        if session_id not in self._sessions:
            raise RequestError.invalid_params({"session_id": session_id, "problem": "not open"})
        return self._sessions[session_id]

    async def _open(self, cwd: str, servers: Sequence[Any], session_id: str | None) -> Session:
        stack = AsyncExitStack()
        try:
            folder = Path(cwd)
            settings = _with_servers(self._load_settings(folder), servers)
            opened: list[str] = []

            async def ask(approval: Approval) -> Reply:
                return await self._ask(opened[0], approval)

            agent = await stack.enter_async_context(
                open_agent(
                    settings,
                    workspace=folder,
                    model=settings.model if settings.source("model") == "--model" else None,
                    mode=settings.mode or Mode.ASK,
                    session_id=session_id,
                    ask=ask,
                )
            )
        except AgentCLIError as error:
            await stack.aclose()
            raise _request_error(error) from error
        except BaseException:
            await stack.aclose()
            raise
        opened.append(agent.session.session_id)
        session = Session(agent, stack, Updates(agent.context.environment.root))
        self._sessions[opened[0]] = session
        for notice in (*settings.notices, *agent.notices):
            _log.warning("%s", notice)
        agent.notices.clear()
        return session

    async def _ask(self, session_id: str, approval: Approval) -> Reply:
        """Put the question to the editor's user."""
        options = [_option(Answer.ONCE, "Allow once", "allow_once")]
        options.append(_option(Answer.SESSION, "Allow for this session", "allow_always"))
        if approval.rule is not None:
            name = f"Always allow {approval.rule}"
            options.append(_option(Answer.PREFIX, name, "allow_always"))
        options.append(_option(Answer.NO, "Reject", "reject_once"))
        call = ToolCallUpdate(
            tool_call_id=approval.call.id, title=describe_call(approval.call), status="pending"
        )
        answer = await self._editor.request_permission(session_id, call, options)
        match answer.outcome:
            case AllowedOutcome(option_id=chosen):
                return Reply(Answer(chosen))
            case _:
                return Reply(Answer.NO, "the question was dismissed")

    async def _tell_why(self, session_id: str, result: RunResult) -> None:
        """What ended a turn short of its goal, where the reason alone does not say it."""
        if result.state.detail and result.state.status is not Status.CANCELLED:
            note = update_agent_message_text(f"\n\n[{result.state.detail}]")
            await self._editor.session_update(session_id, note)


async def _close(session: Session) -> None:
    if session.run is not None:
        session.run.cancel()
        await session.run.result()
    await session.stack.aclose()


def _modes(agent: Agent) -> SessionModeState:
    return SessionModeState(
        current_mode_id=agent.state.mode or agent.session.mode,
        available_modes=[
            SessionMode(id=mode.value, name=mode.value, description=what)
            for mode, what in _MODES.items()
        ],
    )


def _option(answer: Answer, name: str, kind: Any) -> PermissionOption:
    return PermissionOption(option_id=answer.value, name=name, kind=kind)


def _with_servers(settings: Settings, servers: Sequence[Any]) -> Settings:
    """The settings with the MCP servers that the editor passes on."""
    found = dict(settings.mcp.servers)
    for server in servers:
        match server:
            case McpServerStdio(name=name, command=command, args=args, env=env):
                found[name] = McpServerSettings(
                    command=(command,), args=tuple(args), env={one.name: one.value for one in env}
                )
            case HttpMcpServer(name=name, url=url, headers=headers):
                found[name] = McpServerSettings(
                    url=url, headers={one.name: one.value for one in headers}
                )
    return settings.model_copy(update={"mcp": McpSettings(servers=found)})


def _read(prompt: Sequence[Any]) -> tuple[str, list[Image]]:
    """The text and the images of a prompt; files are named, embedded ones quoted."""
    parts, images = [], []
    for block in prompt:
        match block:
            case TextContentBlock(text=text):
                parts.append(text)
            case ImageContentBlock(data=data, mime_type=kind):
                images.append(Image(base64.b64decode(data), kind))
            case ResourceContentBlock(uri=uri):
                parts.append(_place(uri))
            case EmbeddedResourceContentBlock(resource=TextResourceContents(uri=uri, text=text)):
                parts.append(f"\n{_place(uri)}:\n```\n{text}\n```\n")
            case _:
                raise RequestError.invalid_params({"block": type(block).__name__})
    text = "".join(parts).strip()
    if not text and not images:
        raise RequestError.invalid_params({"prompt": "is empty"})
    return text, images


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri


def _request_error(error: AgentCLIError) -> RequestError:
    return RequestError(-32000, error.line(), {"exit_code": error.exit_code})
