"""SDKs are imported lazily, yet all of their names work."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcli.llm.sdk_import import _Finder

FILES = {
    "__init__.py": """
from . import things
from ._client import (
    Client,
    X as Renamed,  # with a word about it
)
from ._version import __version__
executed = True
""",
    "_version.py": "__version__ = '1'\n",
    "_client.py": "from . import _errors\nfrom .things import Small\nclass Client: ...\nX = 3\n",
    "_errors.py": "",
    "things/__init__.py": """
from __future__ import annotations

# Generated.
from .small import Small as Small
from .large import (
    Large as Large,
    Larger as Larger,
)
""",
    "things/small.py": "Small = 'small'\n",
    "things/large.py": "Large, Larger = 'large', 'larger'\n",
    "doing/__init__.py": "from ..things.large import Large\nmade = Large\n",
}


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "an_sdk_of_a_test"
    for path, text in FILES.items():
        file = tmp_path / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [_Finder([name]), *sys.meta_path])
    yield name
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[module]


def test_only_what_is_used_is_imported(sdk: str) -> None:
    package = importlib.import_module(sdk)
    assert package.Client.__name__ == "Client"
    assert package.Renamed == 3
    assert package.__version__ == "1"
    assert package.things.Small == "small"
    assert f"{sdk}.things.large" not in sys.modules
    assert "executed" not in vars(package)


def test_what_is_asked_for_later_is_there(sdk: str) -> None:
    package = importlib.import_module(sdk)
    assert package.things.Larger == "larger"
    assert package.executed
    with pytest.raises(AttributeError):
        _ = package.missing


def test_a_package_that_does_more_than_naming_is_run(sdk: str) -> None:
    assert importlib.import_module(f"{sdk}.doing").made == "large"


def test_star_and_from_imports_work_as_ever(sdk: str) -> None:
    importlib.import_module(sdk)
    names: dict[str, object] = {}
    exec(f"from {sdk} import Client, things\nfrom {sdk}.things import Large", names)
    assert {"Client", "things", "Large"} <= names.keys()


REAL = """
import sys
from agentcli.llm import registry
registry._load("agentcli.llm.openai")
registry._load("agentcli.llm.anthropic")
few = {name: sum(one.startswith(name) for one in sys.modules) for name in ("openai", "anthropic")}
assert few["openai"] < 100 and few["anthropic"] < 1500, few
import openai, anthropic
assert openai.OpenAI(api_key="k").chat.completions and openai.NOT_GIVEN is not None
from openai.types.chat import ChatCompletion
from anthropic.types import Message
ChatCompletion.model_validate(
    {"id": "1", "choices": [], "created": 1, "model": "m", "object": "chat.completion"}
)
Message.model_validate(
    {"id": "1", "content": [{"type": "text", "text": "hi", "citations": None}], "model": "m",
     "role": "assistant", "stop_reason": "end_turn", "stop_sequence": None, "type": "message",
     "usage": {"input_tokens": 1, "output_tokens": 1}}
)
assert openai.APIStatusError is sys.modules["openai._exceptions"].APIStatusError
"""


def test_the_sdks_are_whole_for_others_in_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
