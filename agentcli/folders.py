"""Where agentcli keeps its files: the platform's folders, unless the environment names others."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder for caches; ``AGENTCLI_CACHE_DIR`` overrides the platform's."""
    return _folder("CACHE", platformdirs.user_cache_path, environ)


def data_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder for data; ``AGENTCLI_DATA_DIR`` overrides the platform's."""
    return _folder("DATA", platformdirs.user_data_path, environ)


def user_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The user's configuration folder; ``AGENTCLI_CONFIG_DIR`` overrides the platform's."""
    return _folder("CONFIG", platformdirs.user_config_path, environ)


def log_file(environ: Mapping[str, str] | None = None) -> Path:
    """The log; ``AGENTCLI_STATE_DIR`` overrides the platform's folder for logs."""
    return _folder("STATE", platformdirs.user_state_path, environ) / "agentcli.log"


def _folder(kind: str, default: Callable[..., Path], environ: Mapping[str, str] | None) -> Path:
    root = (os.environ if environ is None else environ).get(f"AGENTCLI_{kind}_DIR")
    return Path(root) if root else default("agentcli", appauthor=False)
