"""``agentcli config``: shows the layers, and sets values without changing the rest of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import Cli
from tests.server import Reply, ScriptedServer

FILED = """
import pathlib, keyring.backend
KEPT = pathlib.Path(__file__).with_name("kept")

class Filed(keyring.backend.KeyringBackend):
    priority = 1
    def set_password(self, service, username, password):
        KEPT.write_text(f"{service} {username} {password}")
    def get_password(self, service, username):
        *place, password = KEPT.read_text().split()
        return password if place == [service, username] else None
    def delete_password(self, service, username):
        KEPT.unlink()
"""


@pytest.fixture
def file(cli: Cli) -> Path:
    folder = cli.home / "config"
    folder.mkdir()
    cli.extra = {"AGENTCLI_CONFIG_DIR": str(folder)}
    return folder / "config.toml"


def test_every_value_names_the_layer_that_set_it(cli: Cli, file: Path, workspace: Path) -> None:
    file.write_text('model = "openai:a"\n[limits]\ntasks = 7\n[profiles.p]\nmax_steps = 3\n')
    (workspace / ".agentcli").mkdir()
    (workspace / ".agentcli" / "config.toml").write_text('timeout_s = 9.0\nmodel = "evil:x"\n')
    cli.extra = {**cli.extra, "AGENTCLI_RETRIES": "1"}
    arguments = ["--workspace", str(workspace), "--profile", "p"]
    ended = cli.run("config", "show", *arguments)
    assert ended.code == 0, ended.err
    lines = dict(line.split(None, 1) for line in ended.out.splitlines() if "  " in line)
    assert lines["model"] == f'"openai:a"  # {file}'
    assert lines["max_steps"] == f"3  # {file} [profiles.p]"
    assert lines["timeout_s"].endswith(".agentcli/config.toml")
    assert lines["retries"] == "1  # AGENTCLI_RETRIES"
    assert lines["budget_tokens"] == "unset"
    assert "note: " in ended.out and "model left out" in ended.out
    section = cli.run("config", "show", "limits", *arguments, "--output", "json").json
    assert section["limits.tasks"] == {"value": 7, "source": str(file)}
    assert not any(key.startswith("checks") for key in section)
    assert "max_steps" in cli.run("config", "show", "max_step").error


def test_set_keeps_the_rest_of_the_file_and_refuses_invalid_values(cli: Cli, file: Path) -> None:
    text = "# mine\nretries = 2  # not many\n"
    file.write_text(text)
    file.chmod(0o600)
    assert cli.call("config", "set", "limits.tasks", "99").code == 0
    assert cli.call("config", "set", "model", "openai:b").code == 0
    assert cli.call("config", "set", "fallback", "openai:c,openai:d").code == 0
    kept = file.read_text()
    assert kept.startswith(text)
    assert 'model = "openai:b"' in kept and "tasks = 99" in kept
    assert file.stat().st_mode & 0o777 == 0o600
    for key, value, complaint in (
        ("retires", "3", "unknown key"),
        ("retries", "many", "retries should be"),
        ("retries.deep", "1", "is inside a value, not a section"),
        ("permissions.allow", "shell(", "permissions.allow.0: 'shell(' is not a rule"),
        ("permissions.deny", "write_fil", 'there is no tool "write_fil"'),
        ("tool_rates.fetsch", "2", 'tool_rates.fetsch: there is no tool "fetsch"'),
    ):
        error = cli.call("config", "set", key, value).error
        assert complaint in error and str(file) in error
        assert file.read_text() == kept
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"]
    assert cli.call("config", "unset", "limits.tasks").code == 0
    assert "tasks" not in file.read_text()
    assert "is not set" in cli.call("config", "unset", "limits.tasks").error


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("Bash(rm:*)", 'Did you mean "shell"?'),
        ("WebFetch(domain:example.com)", 'Did you mean "fetch"?'),
        ("write_fil", 'Did you mean "write_file"?'),
        ("write_fil(**)", 'Did you mean "write_file"?'),
        ("write_fiel*", 'Did you mean "write_file"?'),
    ],
)
def test_a_rule_for_an_unknown_tool_is_an_error(
    cli: Cli, file: Path, workspace: Path, rule: str, hint: str
) -> None:
    file.write_text(f'[permissions]\ndeny = ["shell(rm:*)", "{rule}"]\n')
    shown = cli.call("config", "show")
    ran = cli.run("run", "-p", "x", "--model", "openai:m", "--workspace", str(workspace))
    for ended in (shown, ran):
        assert ended.code == 2 and str(file) in ended.error and hint in ended.error
        assert f'there is no tool "{rule.partition("(")[0]}"' in ended.error
    doctor = cli.run("doctor")
    assert doctor.code == 1 and hint in doctor.out.replace("\n", " ")


def test_a_name_with_a_dot_is_quoted(cli: Cli, file: Path) -> None:
    key = 'providers."llama.cpp".base_url'
    assert cli.call("config", "set", key, "http://127.0.0.1:8080/v1").code == 0
    assert file.read_text() == '[providers."llama.cpp"]\nbase_url = "http://127.0.0.1:8080/v1"\n'
    shown = cli.call("config", "show", key)
    assert shown.out == f'{key}  "http://127.0.0.1:8080/v1"  # {file}\n'
    assert cli.call("config", "unset", key).code == 0
    assert "base_url" not in file.read_text()


@pytest.mark.parametrize("key", ["", ".", "model.", ".model"])
def test_an_empty_part_of_a_key_is_an_unknown_key(cli: Cli, file: Path, key: str) -> None:
    ended = cli.call("config", "set", key, "x")
    assert (ended.code, file.exists()) == (2, False), ended.err


def test_a_linked_file_stays_a_link_and_a_project_gets_its_own(
    cli: Cli, file: Path, workspace: Path
) -> None:
    real = cli.home / "dotfiles.toml"
    real.write_text("")
    file.symlink_to(real)
    assert cli.call("config", "set", "max_steps", "5").code == 0
    assert file.is_symlink() and real.read_text() == "max_steps = 5\n"
    arguments = ["--project", "--workspace", str(workspace)]
    assert cli.call("config", "set", "checks.test", "make test", *arguments).code == 0
    project = workspace / ".agentcli" / "config.toml"
    assert json.loads(project.read_text().split("=")[1]) == "make test"
    assert str(project) in cli.call("config", "path", "--workspace", str(workspace)).out


def test_a_key_needs_a_keyring(cli: Cli, file: Path) -> None:
    cli.extra = {**cli.extra, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    ended = cli.run("config", "key", "openai", stdin=b"sk-x\n")
    assert "keyring cannot be used" in ended.error
    unknown = cli.run("config", "key", "opnai", stdin=b"sk-x\n")
    assert (unknown.code, 'Did you mean "openai"?' in unknown.error) == (2, True)
    assert not file.exists()


def test_a_key_goes_into_the_keyring_and_comes_out_of_it(cli: Cli, file: Path) -> None:
    """The key comes from stdin, as in a script; the keyring is a file."""
    (cli.home / "filed.py").write_text(FILED)
    cli.extra = {
        **cli.extra,
        "PYTHON_KEYRING_BACKEND": "filed.Filed",
        "PYTHONPATH": str(cli.home),
        "OPENAI_API_KEY": "",
    }
    assert cli.run("config", "key", "openai", stdin=b"sk-kept\n").code == 0
    assert "sk-kept" not in file.read_text()
    assert "not set; the settings name a command or the keyring" in cli.run("doctor").out
    with ScriptedServer([Reply(text="Hello.")]) as server:
        cli.server = server.url
        arguments = ["-p", "hi", "--model", "openai:m", "--workspace", str(cli.home)]
        assert cli.run("run", *arguments).code == 0
    assert server.requests[0].headers["authorization"] == "Bearer sk-kept"
