"""Asking a server for its models, and every way in which it can fail to tell."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentcli import errors
from agentcli.llm.catalog import CHAT, Endpoint
from agentcli.llm.client import ModelInfo
from agentcli.llm.served import served


class Kinds(BaseHTTPRequestHandler):
    """Answers as the first part of the path says."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if not self.path.endswith("/v1/models"):
            return self._answer(404, b"")
        if kind == "slow":  # never silent for long, and never done
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            for _ in range(50):
                time.sleep(0.1)
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return None
            return None
        if kind == "locked" and self.headers["authorization"] != "Bearer right":
            return self._answer(401, b'{"error": {"message": "no"}}')
        body = {"page": b"<html>", "list": b"[1]", "flood": b" " * 2_000_000}.get(kind)
        return self._answer(200, body or json.dumps({"data": [{"id": "a:1"}]}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have had enough
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def root() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Kinds) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def endpoint(url: str, key: str = "") -> Endpoint:
    return Endpoint(ModelInfo("NAME", "mine"), url, CHAT, key)


async def test_the_names(root: str) -> None:
    assert await served(endpoint(f"{root}/open/v1")) == ["a:1"]
    assert await served(endpoint(f"{root}/locked/v1", "right")) == ["a:1"]


@pytest.mark.parametrize(
    ("path", "kind", "told"),
    [
        ("/locked/v1", errors.AuthenticationError, "wants a key"),
        ("/open", errors.ModelNotFoundError, "usually ends in /v1"),
        ("/open/v1/v1x", errors.ModelNotFoundError, "/v1x/models does not exist"),
        ("/page/v1", errors.StreamBrokenError, "something other than a list of models"),
        ("/list/v1", errors.StreamBrokenError, "something other than a list of models"),
        ("/flood/v1", errors.StreamBrokenError, "more than a list of models"),
        ("/slow/v1", errors.DeadlineError, "no answer within 0.5 s"),
    ],
)
async def test_what_can_be_wrong(
    root: str, path: str, kind: type[errors.ProviderError], told: str
) -> None:
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        await served(endpoint(f"{root}{path}"), time_s=0.5)
    assert told in caught.value.line()
    assert time.monotonic() - began < 5


async def test_nothing_listens() -> None:
    with pytest.raises(errors.ConnectError, match=r"127\.0\.0\.1:9"):
        await served(endpoint("http://127.0.0.1:9/v1"))
