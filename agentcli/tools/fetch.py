"""fetch: reads a web page as text, from agentcli's own process.

Rules say which hosts it may reach (``addresses.py``). A redirect to another host is reported to the
model, whose next call is then judged on its own. A name is resolved once, and the connection is
made to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urldefrag, urljoin

from agentcli import __version__
from agentcli.errors import ToolError
from agentcli.prompts import Prompts
from agentcli.sandbox.destinations import normal
from agentcli.text import clip_line
from agentcli.tools.addresses import Place, place_of, why_not
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool
from agentcli.tools.rules import Rules
from agentcli.tools.web_page import markdown_of

if TYPE_CHECKING:
    import httpx2

NAME = "fetch"
MOST_BYTES = 2 * 1024 * 1024
MOST_CHARS = 20_000
"""The limit for one result; the argument ``start`` continues from there."""
TIME_S = 30.0
_REDIRECTS = 5
_ACCEPT = "text/markdown, text/html;q=0.9, text/plain;q=0.8, application/json;q=0.8, */*;q=0.1"
_HTML = ("text/html", "application/xhtml+xml")
_TEXT = ("json", "xml", "yaml", "javascript", "toml", "x-sh", "x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Page:
    """A page as text; ``url`` is where the last redirect led."""

    url: str
    kind: str
    text: str


class _Elsewhere(Exception):
    """A redirect to another host."""


def fetch_tool(prompts: Prompts, rules: Callable[[], Rules]) -> Tool:
    """Make the tool; ``rules`` gives the rules that are in effect at the time of a call.

    Raises:
        ConfigError: its prompt is missing.
    """
    last: dict[str, Page] = {}

    async def fetch(
        context: ToolContext, url: str, start: Annotated[int, {"minimum": 0}] = 0
    ) -> ToolOutput:
        """Read a page of the web.

        Args:
            url: A whole address, https://...
            start: The character to begin at, to go on with a long page.
        """
        page = last.get(url) if start else None
        if page is None:
            try:
                async with asyncio.timeout(TIME_S):
                    page = await _page(url, rules)
            except TimeoutError as error:
                raise ToolError(f"{url} did not answer within {TIME_S:g} s") from error
            except _Elsewhere as elsewhere:
                return ToolOutput(f"{url} redirects to {elsewhere}, another host: fetch that")
            last.clear()
            last[url] = page
        return ToolOutput(_shown(page, start, min(MOST_CHARS, context.output_chars - 500)))

    return tool(
        fetch,
        ToolKind.READ,
        description=prompts.get("tools/fetch"),
        address_argument="url",
        timeout_s=TIME_S + 30,
    )


def _shown(page: Page, start: int, most: int) -> str:
    whole = len(page.text)
    end = min(whole, start + most)
    if start >= whole:
        what = f"it has {whole:,} characters" if whole else "it is empty"
        return f"[{page.url}: {page.kind}; {what}]"
    more = f"; go on with start={end}" if end < whole else ""
    head = f"[{page.url}: {page.kind}; characters {start:,} to {end:,} of {whole:,}{more}]"
    return f"{head}\n{page.text[start:end]}"


async def _page(url: str, rules: Callable[[], Rules]) -> Page:
    for _ in range(_REDIRECTS + 1):
        url = urldefrag(url.strip()).url
        place = place_of(url)
        response, body = await _answer(url, place, rules())
        target = response.headers.get("location")
        if not response.is_redirect or not target:
            return await asyncio.to_thread(_read, url, response, body)
        url = urljoin(url, target)
        there = place_of(url)
        if there.host != place.host or (there.port != place.port and str(there) != str(place)):
            raise _Elsewhere(url)
    raise ToolError(f"{url}: more than {_REDIRECTS} redirects")


async def _answer(url: str, place: Place, rules: Rules) -> tuple[httpx2.Response, bytes]:
    # Imported here: it takes 0.6 s, and most sessions without a remote model never need it.
    from urllib.request import getproxies, proxy_bypass

    import httpx2

    proxy = None if place.is_near or proxy_bypass(place.host) else getproxies().get(place.scheme)
    try:
        asked = httpx2.URL(url)
        if normal(asked.host) != place.host:
            raise ToolError(f"{url}: it is not clear which host is meant")
        # A proxy resolves the name itself.
        addresses = [place.host] if proxy else await _addresses(place, rules)
        secure = place.scheme == "https"
        async with httpx2.AsyncClient(
            proxy=proxy,
            trust_env=False,
            verify=httpx2.create_ssl_context() if secure else False,
            timeout=httpx2.Timeout(TIME_S, connect=10),
        ) as client:
            for number, address in enumerate(addresses, start=1):
                request = client.build_request(
                    "GET",
                    asked.copy_with(host=address),
                    headers={
                        "Host": asked.netloc.decode("ascii"),
                        "User-Agent": f"agentcli/{__version__}",
                        "Accept": _ACCEPT,
                    },
                    extensions={"sni_hostname": place.host} if secure else {},
                )
                try:
                    response = await client.send(request, stream=True)
                except httpx2.ConnectError:
                    if number == len(addresses):
                        raise
                    continue
                try:
                    return response, await _body(response, url)
                finally:
                    await response.aclose()
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        why = str(error) or type(error).__name__
        raise ToolError(f"{url} cannot be fetched: {clip_line(why, 300)}") from error
    raise ToolError(f"{url} cannot be fetched")


async def _addresses(place: Place, rules: Rules) -> list[str]:
    """The host's addresses that the rules allow."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ToolError(f"{place.host} is not known: {reason}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    refusals = [why_not(rules, NAME, place, address) for address in addresses]
    allowed = [one for one, why in zip(addresses, refusals, strict=True) if not why]
    if not allowed:
        raise ToolError(next(iter(refusals), f"{place.host} has no address"))
    return allowed


async def _body(response: httpx2.Response, url: str) -> bytes:
    """Read the body, unless it is of no use."""
    if response.is_redirect:
        return b""
    if response.is_error:
        raise ToolError(f"{url} answered {response.status_code} {response.reason_phrase}".rstrip())
    kind = _kind(response)
    is_text = kind.startswith("text/") or any(kind.endswith(name) for name in _TEXT) or not kind
    if not is_text and kind not in _HTML:
        raise ToolError(f"{url} is not text but {kind}")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise ToolError(f"{url} is larger than {MOST_BYTES // 2**20} MiB")
        parts.append(part)
    return b"".join(parts)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _read(url: str, response: httpx2.Response, body: bytes) -> Page:
    if b"\0" in body and response.charset_encoding is None:
        raise ToolError(f"{url} is not text")
    kind = _kind(response)
    if kind in _HTML:
        return Page(url, "HTML as Markdown", markdown_of(body, response.charset_encoding, url))
    try:
        text = body.decode(response.charset_encoding or "utf-8-sig", "replace")
    except LookupError:  # an unknown encoding
        text = body.decode("utf-8", "replace")
    return Page(url, kind or "text", text.replace("\r\n", "\n"))
