"""The chat as a web page in a real browser: typing, streaming, questions, interrupts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentcli.agent.events import ModelAnswered, RunFinished
from agentcli.session.journal import read_events
from tests.running import Cli, survivors
from tests.server import Reply, ScriptedServer

aiohttp = pytest.importorskip("aiohttp", reason="the extra 'web' is not installed")
pytest.importorskip("textual_serve", reason="the extra 'web' is not installed")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PATIENCE_S = 60.0


class Page:
    """A page in headless Chromium, driven over the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._count = 0

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a DevTools method and wait for its result."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=PATIENCE_S)
            if answer.get("id") == self._count:
                return answer.get("result")

    async def type(self, text: str) -> None:
        """Type a text, one key after another."""
        for character in text:
            code = 13 if character == "\r" else 27 if character == "\x1b" else 0
            key = {"\r": "Enter", "\x1b": "Escape"}.get(character, character)
            told = {"key": key, "windowsVirtualKeyCode": code or ord(character.upper())}
            text_of = {} if character == "\x1b" else {"text": character}
            await self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text_of)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    async def types_until(self, key: str, condition: Callable[[], object], what: str) -> None:
        """Press a key until a condition holds, as early keys may be lost."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"never: {what}"
            await self.type(key)
            for _ in range(20):
                await asyncio.sleep(0.05)
                if condition():
                    return

    async def click(self, x: int, y: int) -> None:
        """Click at a point of the page, given in pixels."""
        for kind in ("mousePressed", "mouseReleased"):
            told = {"x": x, "y": y, "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **told)

    async def begins(self) -> None:
        """Wait until the page shows the output of the terminal behind it."""
        begun = "document.body.classList.contains('-first-byte')"
        end = time.monotonic() + PATIENCE_S
        while not (await self.call("Runtime.evaluate", expression=begun))["result"].get("value"):
            assert time.monotonic() < end, "the page shows nothing"
            await asyncio.sleep(0.05)

    async def picture(self) -> bytes:
        """A screenshot of the page as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browsing(address: str, folder: Path) -> AsyncIterator[Page]:
    """Open the page in a browser."""
    assert BROWSER is not None
    flags = "--headless --no-sandbox --disable-gpu --remote-debugging-port=0 --window-size=1100,700"
    process = subprocess.Popen(
        [BROWSER, *flags.split(), f"--user-data-dir={folder}", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = folder / "DevToolsActivePort"
        await until(lambda: told.exists() and told.read_text().count("\n"), "the browser's port")
        port = told.read_text().split("\n")[0]
        async with aiohttp.ClientSession() as client:
            target: list[Any] = []

            async def find() -> bool:
                async with client.get(f"http://127.0.0.1:{port}/json") as found:
                    target[:] = [t for t in await found.json() if t["type"] == "page"]
                return bool(target)

            end = time.monotonic() + PATIENCE_S
            while not await find():
                assert time.monotonic() < end, "the browser opened no page"
                await asyncio.sleep(0.1)
            where = target[0]["webSocketDebuggerUrl"]
            async with client.ws_connect(where, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(cli: Cli, workspace: Path) -> AsyncIterator[str]:
    """Run the command that serves the page; yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentcli", "chat", "--web", "--model", "openai:scripted"),
        stdout=asyncio.subprocess.PIPE,
        cwd=workspace,
        env=cli.env,
    )
    try:
        assert process.stdout is not None
        yield (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def test_a_chat_ends_with_its_server(cli: Cli, workspace: Path) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with serving(cli, workspace) as address, aiohttp.ClientSession(cookie_jar=jar) as client:
        await until_served(client, address)
        server = next(p for p in psutil.process_iter() if workspace == _folder(p) and _serves(p))
        socket = f"{address.partition('?')[0]}ws?width=80&height=24"
        async with client.ws_connect(socket, origin=address.partition("/?")[0]):
            await until(server.children, "a chat of the page")
            chats = server.children()
            server.kill()
            assert await asyncio.to_thread(survivors, chats) == []


async def until_served(client: Any, address: str, status: int = 200) -> None:
    """Wait for the server, which prints its address just before it listens."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            async with client.get(address) as answer:
                assert answer.status == status
                return
        except aiohttp.ClientConnectorError:
            assert time.monotonic() < end, "nothing is served"
            await asyncio.sleep(0.05)


def _folder(process: psutil.Process) -> Path | None:
    try:
        return Path(process.cwd())
    except psutil.Error:
        return None


def _serves(process: psutil.Process) -> bool:
    try:
        return "--web" in process.cmdline()
    except psutil.Error:
        return False


async def test_only_who_has_the_token_is_answered(cli: Cli, workspace: Path) -> None:
    jar = aiohttp.CookieJar(unsafe=True)  # accept cookies from an IP address
    async with serving(cli, workspace) as address, aiohttp.ClientSession(cookie_jar=jar) as client:
        await until_served(client, f"{address}x", 403)
        bare, _, token = address.partition("?token=")
        assert bare.startswith("http://127.0.0.1:") and len(token) >= 20
        for where, headers, status in (
            (bare, {}, 403),
            (f"{bare}?token={token[:-1]}", {}, 403),
            (f"{bare}ws", {}, 403),
            (f"{bare}static/js/textual.js", {}, 403),
            (address, {"Origin": "http://elsewhere.example"}, 403),
            (address, {}, 200),
            (bare, {}, 200),  # by the cookie of the previous response
        ):
            async with client.get(where, headers=headers) as answer:
                assert answer.status == status, where


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
async def test_a_conversation_in_the_browser(
    cli: Cli, workspace: Path, tmp_path: Path, serve: Callable[..., ScriptedServer]
) -> None:
    (workspace / "a.txt").write_text("old\n")
    edit = {"path": "a.txt", "old": "old", "new": "new"}
    server = serve(
        [
            Reply(text="I change it.", calls=[("search_replace", edit)]),
            Reply(text="It is done."),
            Reply(text="word " * 3000, stall_after=8000),
        ]
    )
    cli.server = server.url

    def events() -> list[Any]:
        return [event for path in cli.journals() for event in read_events(path)]

    async with serving(cli, workspace) as address, browsing(address, tmp_path / "browser") as page:
        blank = await page.picture()
        await until(cli.journals, "the chat behind the page")
        await page.begins()
        await page.click(300, 490)
        await page.type("change it\r")
        await until(lambda: any(isinstance(e, ModelAnswered) for e in events()), "an answer")
        edited = workspace / "a.txt"
        await page.types_until("y", lambda: edited.read_text() == "new\n", "the edit")
        await until(lambda: any(isinstance(e, RunFinished) for e in events()), "the end")
        picture = await page.picture()
        assert len(picture) > len(blank)
        if keep := os.environ.get("AGENTCLI_KEEP_PICTURE"):
            Path(keep).write_bytes(picture)
        await page.type("tell me a lot\r")
        await until(lambda: len(server.requests) == 3, "the third request")
        await page.types_until(
            "\x1b", lambda: sum(isinstance(e, RunFinished) for e in events()) == 2, "the end"
        )
    assert json.dumps(events()[-1].reason) == '"cancelled"'
