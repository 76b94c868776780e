"""Finds the models on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentcli.errors import AgentCLIError
from agentcli.llm.local import EMBEDDED
from agentcli.llm.provider_models import Listed
from agentcli.model.folder import ModelFolder, open_folder
from agentcli.model.size import parameters


def folders(environ: Mapping[str, str], own: Path) -> Iterator[Path]:
    """Yield the model folders in ``own``, in Hugging Face's cache and in nanochat's."""
    home = Path(environ.get("HOME", "~")).expanduser()
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = environ.get("HF_HUB_CACHE")
    if not hub:
        hub = os.path.join(environ.get("HF_HOME") or cache / "huggingface", "hub")
    yield from sorted(file.parent for file in own.glob("*/config.json"))
    yield from sorted(f.parent for f in Path(hub).glob("models--*/snapshots/*/config.json"))
    nanochat = Path(environ.get("NANOCHAT_BASE_DIR") or cache / "nanochat")
    if any(nanochat.glob("*_checkpoints/*/model_*.pt")):
        yield nanochat


def listed(environ: Mapping[str, str], own: Path) -> Iterator[Listed]:
    """Yield the local models that ``--model`` can name: ``embedded`` and supported folders."""
    embedded = open_folder(EMBEDDED)
    yield Listed("embedded", described(embedded), embedded.config.sequence_len)
    for path in folders(environ, own):
        try:
            folder = open_folder(path)
        except AgentCLIError:
            continue  # an unsupported family or an incomplete download
        yield Listed(f"local:{path}", described(folder), folder.config.sequence_len)


def described(folder: ModelFolder) -> str:
    """Return the family and the number of parameters, in words."""
    return f"{folder.family}, {short_count(parameters(folder.config).total)} parameters"


def short_count(count: int) -> str:
    """Format a count with three digits, as in ``494M`` or ``8.03B``."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
