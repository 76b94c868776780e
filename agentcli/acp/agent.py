"""agentcli as an agent of the Agent Client Protocol (agentclientprotocol.com), over stdio.

The editor opens sessions, sends prompts, answers permission requests and cancels; the kernel is the
same as for every other front end. A session holds its agent open until the session is closed or the
editor disconnects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from acp import Client, RequestError, update_tool_call
from acp.helpers import SessionUpdate
from acp.schema import (
    AgentCapabilities,
    AllowedOutcome,
    AuthenticateResponse,
    ClientCapabilities,
    CloseSessionResponse,
    ConfigOptionUpdate,
    HttpMcpServer,
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
    ResumeSessionResponse,
    SessionCapabilities,
    SessionCloseCapabilities,
    SessionInfo,
    SessionListCapabilities,
    SessionResumeCapabilities,
    SetSessionConfigOptionResponse,
    SetSessionModeResponse,
    SseMcpServer,
    ToolCallUpdate,
    UsageUpdate,
)
from pydantic import ValidationError

from agentcli import __version__
from agentcli.acp import options
from agentcli.acp.session import Session, request_error
from agentcli.acp.updates import kind_of, title_of
from agentcli.errors import AgentCLIError
from agentcli.session import store
from agentcli.settings import McpServerSettings, McpSettings, Settings
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.permissions import Mode
from agentcli.wiring import open_agent
from agentcli.wording import describe_call

LoadSettings = Callable[[Path], Settings]

PROTOCOL = 1

_log = logging.getLogger("agentcli.acp")


class AcpAgent:
    """The methods that an editor calls. ``load_settings`` returns the settings for a folder."""

    def __init__(self, load_settings: LoadSettings) -> None:
        self._load_settings = load_settings
        self._sessions: dict[str, Session] = {}
        self._client: Client | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def on_connect(self, conn: Client) -> None:
        """Remember the connection to the editor."""
        self._client = conn

    async def initialize(
        self,
        protocol_version: int,
        client_capabilities: ClientCapabilities | None = None,
        client_info: Implementation | None = None,
        **kwargs: Any,
    ) -> InitializeResponse:
        """Answer with this agent's capabilities."""
        return InitializeResponse(
            protocol_version=PROTOCOL,
            agent_info=Implementation(name="agentcli", title="agentcli", version=__version__),
            agent_capabilities=AgentCapabilities(
                load_session=True,
                prompt_capabilities=PromptCapabilities(image=True, embedded_context=True),
                mcp_capabilities=McpCapabilities(http=True, sse=True),
                session_capabilities=SessionCapabilities(
                    list=SessionListCapabilities(),
                    resume=SessionResumeCapabilities(),
                    close=SessionCloseCapabilities(),
                ),
            ),
            auth_methods=[],
        )

    async def authenticate(self, method_id: str, **kwargs: Any) -> AuthenticateResponse | None:
        """Nothing to do: keys come from the environment, a keyring or a command."""
        return None

    async def new_session(
        self, cwd: str, mcp_servers: list[Any] | None = None, **kwargs: Any
    ) -> NewSessionResponse:
        """Open an agent in a folder."""
        session = await self._open(cwd, mcp_servers or [], None)
        self._tell_commands(session)
        return NewSessionResponse(
            session_id=session.id, modes=session.modes(), config_options=list(session.options())
        )

    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: list[Any] | None = None, **kwargs: Any
    ) -> LoadSessionResponse:
        """Open an earlier session and send its whole history."""
        session = await self._opened(cwd, session_id, mcp_servers)
        await session.tell_past()
        return LoadSessionResponse(modes=session.modes(), config_options=list(session.options()))

    async def resume_session(
        self, session_id: str, cwd: str, mcp_servers: list[Any] | None = None, **kwargs: Any
    ) -> ResumeSessionResponse:
        """Open an earlier session without its history: the editor still shows it."""
        session = await self._opened(cwd, session_id, mcp_servers)
        return ResumeSessionResponse(modes=session.modes(), config_options=list(session.options()))

    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **kwargs: Any
    ) -> ListSessionsResponse:
        """List the sessions on this machine or of one folder, newest first."""
        found = store.list_sessions(Path(cwd) if cwd else None)
        return ListSessionsResponse(
            sessions=[
                SessionInfo(
                    session_id=one.id,
                    cwd=one.workspace,
                    title=title_of(one.task),
                    updated_at=one.updated.isoformat(),
                )
                for one in found
            ]
        )

    async def close_session(self, session_id: str, **kwargs: Any) -> CloseSessionResponse:
        """Close a session; its journal stays."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            await session.aclose()
        return CloseSessionResponse()

    async def set_session_mode(
        self, session_id: str, mode_id: str, **kwargs: Any
    ) -> SetSessionModeResponse:
        """Change the permission mode, from the next tool call on."""
        session = self._session(session_id)
        await session.set_mode(_mode(mode_id))
        await session.tell_options()
        return SetSessionModeResponse()

    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **kwargs: Any
    ) -> SetSessionConfigOptionResponse:
        """Choose a mode or a model; answers with all current choices."""
        session = self._session(session_id)
        match config_id:
            case options.MODE:
                await session.set_mode(_mode(value))
            case options.MODEL:
                try:
                    await session.set_model(str(value))
                except AgentCLIError as error:
                    raise request_error(error) from error
            case _:
                known = [options.MODE, options.MODEL]
                raise RequestError.invalid_params({"config_id": config_id, "known": known})
        return SetSessionConfigOptionResponse(config_options=list(session.options()))

    async def prompt(self, session_id: str, prompt: Sequence[Any], **kwargs: Any) -> PromptResponse:
        """Run one turn, sending updates meanwhile, and answer with the reason for its end."""
        try:
            return await self._session(session_id).turn(prompt)
        except AgentCLIError as error:
            raise request_error(error) from error

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        """Cancel the turn, whose ``prompt`` then returns as cancelled."""
        if session := self._sessions.get(session_id):
            session.cancel()

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Refuse: there are no extension methods."""
        raise RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Ignore it: there are no extension notifications."""

    async def aclose(self) -> None:
        """Close all sessions."""
        while self._sessions:
            await self._sessions.popitem()[1].aclose()

    @property
    def _editor(self) -> Client:
        assert self._client is not None
        return self._client

    def _session(self, session_id: str) -> Session:
        if session_id not in self._sessions:
            raise RequestError.invalid_params({"session_id": session_id, "problem": "not open"})
        return self._sessions[session_id]

    async def _opened(self, cwd: str, session_id: str, servers: list[Any] | None) -> Session:
        """Open an earlier session unless it is already open."""
        session = self._sessions.get(session_id) or await self._open(cwd, servers or [], session_id)
        self._tell_commands(session)
        return session

    async def _open(self, cwd: str, servers: Sequence[Any], session_id: str | None) -> Session:
        folder = Path(cwd)
        if not folder.is_absolute():
            raise RequestError.invalid_params({"cwd": cwd, "problem": "not an absolute path"})
        stack = AsyncExitStack()
        try:
            settings = _with_servers(self._load_settings(folder), servers)
            opened: list[Session] = []

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
            models = await asyncio.to_thread(_models, settings)
        except AgentCLIError as error:
            await stack.aclose()
            raise request_error(error) from error
        except BaseException:
            await stack.aclose()
            raise

        async def tell(update: SessionUpdate | ConfigOptionUpdate | UsageUpdate) -> None:
            await self._editor.session_update(agent.session.session_id, update)

        session = Session(agent, stack, folder, models, tell)
        opened.append(session)
        self._sessions[session.id] = session
        agent.notices[:0] = settings.notices
        for notice in agent.notices:
            _log.warning("%s", notice)
        return session

    def _tell_commands(self, session: Session) -> None:
        """Send the commands after the pending response, before which the session is unknown."""
        telling = asyncio.create_task(session.tell_commands())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _ask(self, session: Session, approval: Approval) -> Reply:
        """Ask the editor's user for permission, showing what is known of the call."""
        choices = [_option(Answer.ONCE, "Allow once", "allow_once")]
        choices.append(_option(Answer.SESSION, "Allow for this session", "allow_always"))
        if approval.rule is not None:
            name = f"Always allow {approval.rule}"
            choices.append(_option(Answer.PREFIX, name, "allow_always"))
        choices.append(_option(Answer.NO, "Reject", "reject_once"))
        call = ToolCallUpdate(
            tool_call_id=approval.call.id,
            title=describe_call(approval.call),
            kind=kind_of(approval.call.name, approval.spec.kind),
            status="pending",
            content=session.updates.foreseen(approval) or None,
            raw_input=dict(approval.arguments),
        )
        try:
            answer = await self._editor.request_permission(session.id, call, choices)
        except (RequestError, ValidationError) as error:
            _log.warning("the editor did not answer whether a call may run: %s", error)
            return Reply(Answer.NO, "the editor could not ask for permission")
        offered = {one.option_id for one in choices}
        match answer.outcome:
            case AllowedOutcome(option_id=chosen) if chosen in offered - {Answer.NO}:
                under_way = update_tool_call(approval.call.id, status="in_progress")
                await self._editor.session_update(session.id, under_way)
                return Reply(Answer(chosen))
            case AllowedOutcome():
                return Reply(Answer.NO)
            case _:
                return Reply(Answer.NO, "the question was dismissed")


def _models(settings: Settings) -> list[str]:
    """The models to offer, from the settings and earlier sessions."""
    used = [one.model for one in store.list_sessions()]
    return [name for name in dict.fromkeys([settings.model, *settings.fallback, *used]) if name]


def _mode(given: str | bool) -> Mode:
    try:
        return Mode(str(given))
    except ValueError:
        raise RequestError.invalid_params({"mode": given, "known": list(Mode)}) from None


def _option(answer: Answer, name: str, kind: Any) -> PermissionOption:
    return PermissionOption(option_id=answer.value, name=name, kind=kind)


def _with_servers(settings: Settings, servers: Sequence[Any]) -> Settings:
    """The settings plus the MCP servers that the editor configures."""
    found = dict(settings.mcp.servers)
    for server in servers:
        match server:
            case McpServerStdio(name=name, command=command, args=args, env=env):
                found[name] = McpServerSettings(
                    command=(command,), args=tuple(args), env={one.name: one.value for one in env}
                )
            case HttpMcpServer() | SseMcpServer():
                headers = {one.name: one.value for one in server.headers}
                found[server.name] = McpServerSettings(
                    url=server.url, type=server.type, headers=headers
                )
    return settings.model_copy(update={"mcp": McpSettings(servers=found)})
