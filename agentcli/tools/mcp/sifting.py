"""Removes malformed entries from a server's lists: the SDK refuses a list for one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

Tell = Callable[[str, ValidationError], None]
"""Called with what was removed, such as ``tool add``, and why."""


@asynccontextmanager
async def sifted(
    transport: AbstractAsyncContextManager[TransportStreams], tell: Tell
) -> AsyncIterator[TransportStreams]:
    """The same transport, whose lists of tools and prompts hold only what can be used."""
    async with transport as (read, write):
        yield _Sifted(read, tell), write


class _Sifted:
    """A stream of messages."""

    def __init__(self, inner: Any, tell: Tell) -> None:
        self._inner = inner
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> _Sifted:
        return self

    async def __anext__(self) -> Any:
        return self._sift(await self._inner.__anext__())

    async def receive(self) -> Any:
        return self._sift(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> _Sifted:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> bool | None:
        ended: bool | None = await self._inner.__aexit__(*raised)
        return ended

    def _sift(self, message: Any) -> Any:
        from mcp_types import Prompt, Tool

        result = getattr(getattr(message, "message", None), "result", None)
        for key, kind in (("tools", Tool), ("prompts", Prompt)):
            listed = result.get(key) if isinstance(result, dict) else None
            if isinstance(result, dict) and isinstance(listed, list):
                result[key] = [one for one in listed if self._fits(one, key[:-1], kind)]
        return message

    def _fits(self, one: Any, what: str, kind: Any) -> bool:
        try:
            kind.model_validate(one, by_name=False)
        except ValidationError as error:
            name = one.get("name") if isinstance(one, dict) else None
            self._tell(f"{what} {name}" if isinstance(name, str) else f"a {what}", error)
            return False
        return True
