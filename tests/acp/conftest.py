"""The editor's side of the Agent Client Protocol, with the SDK's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from acp import RequestError, spawn_agent_process
from acp.core import ClientSideConnection
from acp.schema import (
    AllowedOutcome,
    DeniedOutcome,
    PermissionOption,
    RequestPermissionResponse,
)

from tests.running import BIN, Cli


class Editor:
    """Records the updates it gets, and answers questions with ``chosen``."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.questions: list[tuple[Any, list[PermissionOption]]] = []
        self.chosen = "once"
        self.told: dict[str, asyncio.Event] = {}

    def on_connect(self, conn: Any) -> None: ...

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        self.updates.append(update)
        self.told.setdefault(update.session_update, asyncio.Event()).set()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[PermissionOption], **kwargs: Any
    ) -> RequestPermissionResponse:
        self.questions.append((tool_call, options))
        if self.chosen == "fail":
            raise RequestError.method_not_found("session/request_permission")
        if self.chosen == "dismiss":
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        chosen = AllowedOutcome(outcome="selected", option_id=self.chosen)
        return RequestPermissionResponse(outcome=chosen)

    def of(self, kind: str) -> list[Any]:
        return [update for update in self.updates if update.session_update == kind]

    @property
    def text(self) -> str:
        told = [update.content.text for update in self.of("agent_message_chunk")]
        return "".join(one for one in told if not one.startswith("[sandbox level "))

    async def until(self, kind: str) -> None:
        await asyncio.wait_for(self.told.setdefault(kind, asyncio.Event()).wait(), 30)


Connect = Callable[..., Any]


@pytest.fixture
def connect(cli: Cli) -> Connect:
    @asynccontextmanager
    async def start(*arguments: str) -> AsyncIterator[tuple[ClientSideConnection, Editor]]:
        editor = Editor()
        command = [str(BIN / "agentcli"), "acp", "--model", "openai:m", *arguments]
        async with spawn_agent_process(
            editor,  # type: ignore[arg-type]
            *command,
            env=cli.env,
            use_unstable_protocol=True,
        ) as (connection, _):
            initialized = await connection.initialize(protocol_version=1)
            assert initialized.protocol_version == 1
            assert initialized.agent_capabilities and initialized.agent_capabilities.load_session
            yield connection, editor

    return start
