"""Models named ``house:NAME``: an OpenAI-compatible gateway with a token that changes daily."""

from __future__ import annotations

import os
from pathlib import Path

from agentcli import Settings
from agentcli.errors import AuthenticationError
from agentcli.llm.client import LLMClient, ModelInfo
from agentcli.llm.openai import OpenAIChat


def connect(model: str, settings: Settings) -> LLMClient:
    """The client of a model; called when ``house:MODEL`` is first used.

    Raises:
        AuthenticationError: there is no token.
    """
    folder = Path(os.environ.get("HOUSE_FOLDER", "~/.house")).expanduser()
    try:
        address = (folder / "gateway").read_text().strip()
        token = (folder / "token").read_text().strip()
    except OSError as error:
        raise AuthenticationError(
            f"house: no address and token in {folder}", hint="Run house-login", provider="house"
        ) from error
    info = ModelInfo(model, "house", context_window=128_000, images=True)
    return OpenAIChat(info, token, address, timeout_s=settings.request_timeout_s)
