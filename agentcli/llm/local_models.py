"""Finds the models on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agentcli.errors import AgentCLIError
from agentcli.llm.local import EMBEDDED
from agentcli.llm.provider_models import Listed
from agentcli.model.folder import ModelFolder, open_folder
from agentcli.model.size import parameters


def folders(environ: Mapping[str, str], own: Path) -> dict[str, Path]:
    """The model folders in ``own``, in Hugging Face's cache and in nanochat's, by their names.

    The name of a downloaded model is as on the hub, ``ORGANISATION/MODEL``, and stands for the
    snapshot that its branch ``main`` points to.
    """
    home = Path(environ.get("HOME", "~")).expanduser()
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = environ.get("HF_HUB_CACHE")
    if not hub:
        hub = os.path.join(environ.get("HF_HOME") or cache / "huggingface", "hub")
    found = {file.parent.name: file.parent for file in sorted(own.glob("*/config.json"))}
    for folder in sorted(Path(hub).glob("models--*")):
        if (snapshot := _main_snapshot(folder)) is not None:
            found.setdefault("/".join(folder.name.split("--")[1:]), snapshot)
    nanochat = Path(environ.get("NANOCHAT_BASE_DIR") or cache / "nanochat")
    if any(nanochat.glob("*_checkpoints/*/model_*.pt")):
        found.setdefault("nanochat", nanochat)
    return found


def _main_snapshot(folder: Path) -> Path | None:
    snapshots = [file.parent for file in folder.glob("snapshots/*/config.json")]
    try:
        main = folder / "snapshots" / (folder / "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        main = None
    if main in snapshots:
        return main
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)


def listed(environ: Mapping[str, str], own: Path) -> tuple[list[Listed], dict[str, str]]:
    """The models that ``--model`` can name, and by their names why others cannot be used."""
    embedded = open_folder(EMBEDDED)
    found = [Listed("embedded", described(embedded), embedded.config.sequence_len)]
    unusable: dict[str, str] = {}
    for name, path in folders(environ, own).items():
        try:
            folder = open_folder(path)
            folder.load_tokenizer()
        except AgentCLIError as error:
            unusable[name] = error.message
        else:
            found.append(Listed(f"local:{name}", described(folder), folder.config.sequence_len))
    return found, unusable


def described(folder: ModelFolder) -> str:
    """Return the family and the number of parameters, in words."""
    return f"{folder.family}, {short_count(parameters(folder.config).total)} parameters"


def short_count(count: int) -> str:
    """Format a count with three digits, as in ``494M`` or ``8.03B``."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
