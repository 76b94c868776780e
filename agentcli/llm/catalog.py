"""Built-in knowledge about providers and models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from agentcli.llm.client import ModelInfo

CHAT = "chat"
RESPONSES = "responses"
MESSAGES = "messages"

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"


@dataclass(frozen=True, slots=True)
class Provider:
    """A named server.

    ``base_url_env`` is the variable that overrides the address in the provider's own tools.
    ``reasoning_field`` is the message field in which the server expects its reasoning back.
    ``priced_by`` is the provider's name in the price tables.
    """

    base_url: str
    api_key_env: str = ""
    api: str = CHAT
    base_url_env: str = ""
    reasoning_field: str = ""
    images: bool = False
    priced_by: str = ""


class Options(TypedDict, total=False):
    """Options of an endpoint besides its address and key; see ``Endpoint``."""

    key_name: str
    headers: Mapping[str, str]
    streaming: bool
    timeout_s: float
    reasoning_field: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything needed to reach a model at a provider.

    ``timeout_s`` limits the silence between two reads. Without ``streaming``, answers arrive in
    one piece and fold to the same. ``key_name`` is the key's variable, for error messages.
    """

    info: ModelInfo
    base_url: str
    api: str
    api_key: str = field(default="", repr=False)
    key_name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    streaming: bool = True
    timeout_s: float = 600.0
    reasoning_field: str = ""

    def options(self) -> Options:
        """All fields except model, address, API and key."""
        return {
            "key_name": self.key_name,
            "headers": self.headers,
            "streaming": self.streaming,
            "timeout_s": self.timeout_s,
            "reasoning_field": self.reasoning_field,
        }


PROVIDERS: dict[str, Provider] = {
    "openai": Provider(
        OPENAI_URL,
        "OPENAI_API_KEY",
        base_url_env="OPENAI_BASE_URL",
        images=True,
        priced_by="openai",
    ),
    "anthropic": Provider(
        ANTHROPIC_URL,
        "ANTHROPIC_API_KEY",
        MESSAGES,
        base_url_env="ANTHROPIC_BASE_URL",
        images=True,
        priced_by="anthropic",
    ),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        images=True,
        priced_by="google",
    ),
    "deepseek": Provider(
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        reasoning_field="reasoning_content",
        priced_by="deepseek",
    ),
    "mistral": Provider(
        "https://api.mistral.ai/v1", "MISTRAL_API_KEY", images=True, priced_by="mistral"
    ),
    "openrouter": Provider(
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        reasoning_field="reasoning",
        images=True,
        priced_by="openrouter",
    ),
    "ollama": Provider("http://127.0.0.1:11434/v1"),
    "lmstudio": Provider("http://127.0.0.1:1234/v1"),
    "vllm": Provider("http://127.0.0.1:8000/v1"),
}

DEFAULT_MODELS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6.2-sol"}
"""Models used without ``--model``, in order of preference."""

# The first match counts.
_WINDOWS: tuple[tuple[str, int], ...] = (
    (r"gpt-6", 1_050_000),
    (r"gpt-5\.6", 1_050_000),
    (r"gpt-5\.5", 1_000_000),
    (r"gpt-5\.4-(mini|nano)", 400_000),
    (r"gpt-5\.4", 1_050_000),
    (r"gpt-5", 400_000),
    (r"gpt-4\.1", 1_000_000),
    (r"gpt-4o", 128_000),
    (r"gpt-oss", 131_072),
    (r"o1-(mini|preview)", 128_000),
    (r"o[134](-|$)", 200_000),
    (r"claude-(haiku-4-5|(sonnet|opus)-4(-[015](-|$)|-2\d|$)|4-|[23])", 200_000),
    (r"claude-", 1_000_000),
    (r"deepseek-(v4|flash)", 1_000_000),
    (r"deepseek-", 128_000),
    (r"gemini-", 1_000_000),
    (r"mistral-large-4", 1_048_576),
    (r"(devstral|mistral-large)", 262_144),
)


def context_window(model: str) -> int | None:
    """A model's context window in tokens by its name, ignoring a router's path before it."""
    name = model.rpartition("/")[2]
    return next((size for pattern, size in _WINDOWS if re.match(pattern, name)), None)


def reasons(model: str) -> bool:
    """Whether this is an OpenAI reasoning model, which works best with the Responses API."""
    found = re.match(r"o[134](?:-|$)|gpt-(\d+)", model)
    if found is None or "-chat" in model:
        return False
    return found[1] is None or int(found[1]) >= 5
