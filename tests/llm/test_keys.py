"""Sources of API keys, with real commands and a keyring stored in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import pytest

from agentcli.errors import AuthenticationError, ConfigError
from agentcli.llm import registry
from agentcli.llm.keys import find_key, keep_key
from agentcli.settings import ProviderSettings, Settings


def printing(program: str) -> ProviderSettings:
    return ProviderSettings(api_key_command=(sys.executable, "-c", program))


def test_the_variable_goes_before_the_command() -> None:
    chosen = printing("print('from-command')")
    assert find_key("openai", "KEY", chosen, {"KEY": " from-variable\n"}) == "from-variable"
    assert find_key("openai", "KEY", chosen, {}) == "from-command"
    assert find_key("ollama", "", ProviderSettings(), {}) == ""


def test_a_command_sees_no_other_key() -> None:
    chosen = printing("import os; print(os.environ.get('OTHER_API_KEY', 'unset'))")
    assert find_key("openai", "KEY", chosen, {"OTHER_API_KEY": "secret"}) == "unset"


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        (ProviderSettings(), "KEY is not set"),
        (printing("import sys; sys.exit('locked')"), r"ended with exit code 1: locked"),
        (printing(""), "holds none"),
        (printing("print('two'); print('lines')"), "holds characters that no key has"),
        (ProviderSettings(api_key_command=("not-there-at-all",)), "not-there-at-all"),
    ],
)
def test_what_gives_no_key_says_why(chosen: ProviderSettings, complaint: str) -> None:
    with pytest.raises(AuthenticationError, match=complaint):
        find_key("openai", "KEY", chosen, {})


class FileKeyring(keyring.backend.KeyringBackend):
    """A keyring backend that stores passwords in a file."""

    priority = 1

    def __init__(self, file: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file = file

    def set_password(self, service: str, username: str, password: str) -> None:
        self.file.write_text(f"{service} {username} {password}")

    def get_password(self, service: str, username: str) -> str | None:
        if not self.file.exists():
            return None
        kept = self.file.read_text().split()
        return kept[2] if kept[:2] == [service, username] else None

    def delete_password(self, service: str, username: str) -> None:
        self.file.unlink()


@pytest.fixture
def backend() -> Iterator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


def test_a_key_in_the_keyring(tmp_path: Path, backend: None) -> None:
    keyring.set_keyring(FileKeyring(tmp_path / "keys"))
    chosen = ProviderSettings(api_key_keyring=True)
    with pytest.raises(AuthenticationError, match="the keyring holds none"):
        find_key("openai", "KEY", chosen, {})
    keep_key("openai", "sk-kept")
    assert find_key("openai", "KEY", chosen, {}) == "sk-kept"
    settings = Settings(providers={"openai": chosen})
    assert registry.resolve("openai:m", settings, {}).api_key == "sk-kept"


def test_no_keyring_is_said(backend: None) -> None:
    import keyring.backends.fail

    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match="keyring cannot be used"):
        find_key("openai", "KEY", ProviderSettings(api_key_keyring=True), {})
