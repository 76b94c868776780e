"""``agentcli init`` and the settings reference."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from agentcli import config
from agentcli.cli import init
from agentcli.llm.catalog import PROVIDERS, Provider
from agentcli.settings import Settings
from agentcli.settings_reference import as_markdown, as_toml, sections
from tests.running import Cli

ROOT = Path(__file__).resolve().parents[2]


class Models(BaseHTTPRequestHandler):
    """Lists models like Ollama, LM Studio and vLLM."""

    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "qwen3:4b"}, {"id": "other"}]}).encode()
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Models) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()


def test_a_first_file_is_written_once_and_is_sound(cli: Cli) -> None:
    cli.extra = {"AGENTCLI_CONFIG_DIR": str(cli.home / "config")}
    ended = cli.run("init")
    assert ended.code == 0, ended.err
    assert "found OPENAI_API_KEY" in ended.out
    file = cli.home / "config" / "config.toml"
    settings = config.load(environ={}, user_file=file)
    assert settings.model and settings.model.startswith("openai:")
    assert settings.model_dump() == Settings(model=settings.model).model_dump()
    written = file.read_text()
    assert "already exists" in cli.run("init", "--model", "embedded").error
    assert file.read_text() == written


def test_a_file_that_was_emptied_is_written(cli: Cli) -> None:
    cli.extra = {"AGENTCLI_CONFIG_DIR": str(cli.home / "config")}
    assert cli.run("config", "set", "max_steps", "4").code == 0
    assert cli.run("config", "unset", "max_steps").code == 0
    assert cli.run("init", "--model", "embedded").code == 0
    file = cli.home / "config" / "config.toml"
    assert config.load(environ={}, user_file=file).model == "embedded"


def test_a_local_server_is_found(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(PROVIDERS, "ollama", Provider("http://127.0.0.1:9/v1"))
    monkeypatch.setitem(PROVIDERS, "lmstudio", Provider(server))
    monkeypatch.setitem(PROVIDERS, "vllm", Provider(server.replace("/v1", "/other")))
    assert init._look() == "lmstudio:qwen3:4b"
    assert f"found lmstudio at {server} with qwen3:4b, other" in capsys.readouterr().out
    monkeypatch.setitem(PROVIDERS, "lmstudio", Provider("http://127.0.0.1:9/v1"))
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert init._look() == "embedded"
    told = capsys.readouterr().out
    assert "found GEMINI_API_KEY: agentcli config set model gemini:NAME" in told


def test_every_key_is_in_the_reference() -> None:
    named = {
        f"{section.name}.{entry.key}".lstrip(".")
        for section in sections()
        for entry in section.entries
    }
    for key, _, _ in Settings().rows():
        assert key in named or key == "hooks", key
    assert {"providers.NAME.base_url", "mcp.servers.NAME.command", "[hooks].event"} <= named
    commented = "\n".join(line.removeprefix("# ") for line in as_toml() if " = " in line)
    assert "max_steps = 100" in commented
    assert tomllib.loads("max_steps = 100")


def test_the_documentation_is_the_reference() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert "\n".join(as_markdown()).rstrip() in written
