"""One MCP server: its connection and what it offers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from agentcli import __version__, extras
from agentcli.errors import ConfigError, ToolError
from agentcli.settings import McpServerSettings
from agentcli.text import escape, one_line
from agentcli.tools.mcp.references import Prompt
from agentcli.tools.mcp.sifting import sifted
from agentcli.tools.mcp.transport import End, filled, http, is_loopback, sse, stdio

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client._transport import TransportStreams

_MOST_FAILURES = 3
_MOST_PAGES = 50
_CLOSING_S = 4.0
_T = TypeVar("_T")


class OfferedTool(NamedTuple):
    """A tool, and what the server says of it: whether it only reads, and asks other machines."""

    name: str
    description: str
    schema: Mapping[str, Any]
    read_only: bool
    outward: bool


@dataclass(frozen=True)
class Offer:
    """What a server offers, and its ``instructions`` for all of it."""

    tools: tuple[OfferedTool, ...] = ()
    resources: bool = False
    prompts: tuple[Prompt, ...] = ()
    instructions: str = ""


@dataclass
class Server:
    """One server, connected on first use and reconnected when the connection is lost."""

    name: str
    settings: McpServerSettings
    folder: str
    environ: Mapping[str, str]
    offline: bool = False
    on_offer: Callable[[Offer], None] | None = None
    """Called once after connecting with the server's current offer, if it came from the cache."""
    malformed: dict[str, None] = field(default_factory=dict, init=False)
    """What was removed from the server's lists, and why; a set in order."""
    _connection: _Connection | None = field(default=None, init=False)
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _failures: int = field(default=0, init=False)

    @property
    def fingerprint(self) -> str:
        """A file name for this configuration's cache entry."""
        identity = json.dumps([self.settings.model_dump(mode="json"), self.folder], sort_keys=True)
        return f"{re.sub('[^A-Za-z0-9_-]', '_', self.name)}-{digest(identity)}"

    @property
    def connected(self) -> bool:
        """Whether there is an open connection."""
        return self._connection is not None and not self._connection.ended

    async def use(self, work: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
        """Run ``work`` with the connected client, within ``timeout_s``.

        Raises:
            ToolError: the server cannot be reached, failed or was too slow, as one line.
        """
        connection = await self._connected()
        connection.users += 1
        try:
            return await self._used(connection, work)
        except ToolError:
            # Retry only a request that was refused because the session is gone: it never ran. If
            # others were in flight, nobody knows whether they did.
            connection.crowded |= connection.users > 1
            if connection.crowded or not connection.forgotten:
                raise
        finally:
            connection.users -= 1
        return await self._used(await self._connected(), work)

    async def _used(
        self, connection: _Connection, work: Callable[[Client], Coroutine[Any, Any, _T]]
    ) -> _T:
        seconds = self.settings.timeout_s
        working = asyncio.ensure_future(work(connection.client))
        lost = connection.lost
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({working, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    raise ToolError(self._line(connection.last_words or "the connection ended"))
                return await working
        except TimeoutError:
            raise ToolError(self._line(f"did not answer within {seconds:g} s")) from None
        except (ToolError, asyncio.CancelledError):
            raise
        except Exception as error:
            why = connection.last_words if connection.ended else connection.refusal
            raise ToolError(self._line(why or _reason(error))) from error
        finally:
            working.cancel()
            if connection.ended and self._connection is connection:
                self._connection = None

    async def offer(self) -> Offer:
        """Ask what the server offers.

        Raises:
            ToolError: the server cannot be reached, or its lists are invalid.
        """
        return await self.use(_ask_offer)

    async def aclose(self) -> None:
        """Close the connection and end the server's process."""
        if self._connection is not None:
            await self._connection.aclose()
            self._connection = None

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.ended:
                return self._connection
            if self._failures >= _MOST_FAILURES:
                raise ToolError(self._line(f"failed {_MOST_FAILURES} times and is left alone"))
            self._failures += 1
            with contextlib.suppress(ModuleNotFoundError):  # reported by the connection
                importlib.import_module("mcp")  # takes 1 s, which must not count as the server's
            connection = _Connection(self)
            try:
                async with asyncio.timeout(self.settings.startup_timeout_s):
                    await connection.open()
            except TimeoutError:
                await connection.aclose()
                seconds = f"{self.settings.startup_timeout_s:g}"
                raise ToolError(self._line(f"was not ready within {seconds} s")) from None
            except BaseException as error:
                await connection.aclose()
                if isinstance(error, Exception):
                    said = "" if _is_refusal(error) else connection.last_words
                    why = connection.refusal or said or _reason(error)
                    raise ToolError(self._line(f"{self._where}{why}")) from error
                raise
            self._connection = connection
        if self.on_offer:
            on_offer, self.on_offer = self.on_offer, None
            with contextlib.suppress(ToolError):
                on_offer(await self.offer())
        self._failures = 0
        return connection

    def removed(self, what: str, error: ValidationError) -> None:
        """Note what was removed from a list."""
        self.malformed[escape(one_line(f"{what}: {fault(error)}", 300))] = None

    @property
    def _where(self) -> str:
        """The address as written in the settings, without the values of variables."""
        return f"{self.settings.url}: " if self.settings.url else ""

    def _line(self, what: str) -> str:
        return f"MCP server {self.name}: {escape(one_line(what, 300))}"

    def transport(self, end: End) -> AbstractAsyncContextManager[TransportStreams]:
        """The transport to this server.

        Raises:
            ConfigError: offline forbids the address, or a variable is not set.
        """
        settings = self.settings
        if settings.command:
            return stdio(settings, self.folder, self.environ, end, offline=self.offline)
        url = filled(settings.url or "", self.environ)
        if self.offline and not is_loopback(url):
            raise ConfigError(f"{url} is not on this machine, and offline is set")
        headers = {key: filled(text, self.environ) for key, text in settings.headers.items()}
        return (sse if settings.type == "sse" else http)(url, headers, end)


class _Connection:
    """A session with a server, in its own task: contexts must end in the task that entered them."""

    def __init__(self, server: Server) -> None:
        self.users = 0
        self.crowded = False
        self._server = server
        self._end = End()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.ensure_future(self._hold())

    async def open(self) -> None:
        """Wait until the server is ready. Raises the error if connecting fails."""
        await asyncio.shield(self._ready)

    @property
    def client(self) -> Client:
        """The SDK's client, once open."""
        return self._ready.result()

    @property
    def ended(self) -> bool:
        """Whether the connection has ended."""
        return self._end.came.is_set() or self.lost.done()

    @property
    def forgotten(self) -> bool:
        """Whether the server refused a request because it no longer knows the session."""
        return self._end.forgotten

    @property
    def last_words(self) -> str:
        """Why the connection ended, or the server's last words; empty if unknown."""
        return self._end.words

    @property
    def refusal(self) -> str:
        """The status of the last response if it was an error; empty otherwise."""
        return self._end.refusal

    async def aclose(self) -> None:
        """End the session and wait until it is closed."""
        self._end.came.set()
        if not self._ready.done():
            self.lost.cancel()
        await asyncio.wait({self.lost}, timeout=_CLOSING_S)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # mark it as retrieved, or asyncio logs a warning

    async def _hold(self) -> None:
        # Many programs end or are silent if they are asked for anything before the handshake, so
        # it comes first, and only one that refuses it is asked whether its protocol is newer.
        for mode in ("legacy", "auto") if self._server.settings.command else ("auto",):
            try:
                await self._session(mode)
                return
            except (Exception, asyncio.CancelledError) as error:
                if self._ready.done():
                    return
                if mode == "legacy" and _is_refusal(error):
                    self._end = End()  # the last one was of the program that refused
                    continue
                failure = error if isinstance(error, Exception) else ConnectionError("ended")
                self._ready.set_exception(failure)
                return

    async def _session(self, mode: str) -> None:
        from mcp import Client
        from mcp_types import Implementation

        transport = sifted(self._server.transport(self._end), self._server.removed)
        name = Implementation(name="agentcli", version=__version__)
        async with Client(transport, cache=None, client_info=name, mode=mode) as client:
            self._ready.set_result(client)
            await self._end.came.wait()


async def _ask_offer(client: Client) -> Offer:
    capabilities = client.server_capabilities
    tools: list[OfferedTool] = []
    prompts: list[Prompt] = []
    if capabilities.tools:
        async for one in items_of(client.list_tools, "tools"):
            if one.execution and one.execution.task_support == "required":
                continue  # only works as a task of the protocol, which this client does not begin
            hints = one.annotations
            read_only = bool(hints and hints.read_only_hint)
            outward = bool(hints and hints.open_world_hint)
            told = one.description or ""
            tools.append(OfferedTool(one.name, told, dict(one.input_schema), read_only, outward))
    if capabilities.prompts:
        async for one in items_of(client.list_prompts, "prompts"):
            arguments = tuple((each.name, bool(each.required)) for each in one.arguments or ())
            prompts.append(Prompt(one.name, one.description or "", arguments))
    instructions = client.instructions or ""
    return Offer(tuple(tools), bool(capabilities.resources), tuple(prompts), instructions)


async def items_of(ask: Callable[..., Coroutine[Any, Any, Any]], items: str) -> AsyncIterator[Any]:
    """The items of all pages of a list; one that repeats itself ends it."""
    cursor = before = None
    for _ in range(_MOST_PAGES):
        page = await ask(cursor=cursor)
        found = getattr(page, items)
        if found and found == before:
            break
        for item in found:
            yield item
        cursor, before = page.next_cursor, found
        if not cursor:
            break


def _is_refusal(error: BaseException) -> bool:
    """Whether the server answered with an error."""
    if isinstance(error, ModuleNotFoundError):
        return False
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED

    cause = _cause(error)
    return isinstance(cause, MCPError) and cause.code != CONNECTION_CLOSED


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    error = _cause(error)
    if isinstance(error, ModuleNotFoundError):
        return f"the extra is missing: {extras.install('mcp')}"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} was not found"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValidationError):
        return f"answers what is not MCP: {fault(error)}"
    return str(error) or type(error).__name__


def fault(error: ValidationError) -> str:
    """The first validation error and its location."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}".removeprefix(": ").removeprefix("Value error, ")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
