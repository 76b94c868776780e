"""The folders that the user trusts, where project files may set more than harmless keys.

A project's ``.agentcli/config.toml``, ``.mcp.json``, commands and hooks may come from anyone. They
are used only in a folder that the user trusts, or below one. The list of trusted folders is in the
user's configuration folder, out of reach of any project.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agentcli.errors import ConfigError
from agentcli.folders import user_folder


def trust_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file with the trusted folders, a JSON list."""
    return user_folder(environ) / "trusted.json"


def trusted_folders(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """All trusted folders, sorted.

    Raises:
        ConfigError: the file cannot be read, or is not a list of absolute paths.
    """
    file = trust_file(environ)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}", hint="Fix it, or delete it to trust none") from error
    if not isinstance(found, list) or not all(
        isinstance(path, str) and path.startswith("/") for path in found
    ):
        raise ConfigError(f"{file}: should be a list of absolute paths")
    return tuple(sorted(map(Path, found)))


def is_trusted(folder: Path, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the folder is trusted or below a trusted one; links are resolved first."""
    real = folder.resolve()
    return any(real.is_relative_to(known) for known in trusted_folders(environ))


def trust(folder: Path, environ: Mapping[str, str] | None = None) -> bool:
    """Trust a folder and everything below it; return False if it was already trusted.

    Raises:
        ConfigError: it is not a folder, is the root of the file system, or cannot be saved.
    """
    real = folder.resolve()
    if not real.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    if real == Path(real.anchor):
        raise ConfigError("trusting the root folder would mean trusting everything")
    if is_trusted(real, environ):
        return False
    _save([*trusted_folders(environ), real], environ)
    return True


def distrust(folder: Path, environ: Mapping[str, str] | None = None) -> bool:
    """Remove a folder from the list; return False if it was not in it.

    Raises:
        ConfigError: the list cannot be saved.
    """
    real = folder.resolve()
    known = trusted_folders(environ)
    if real not in known:
        return False
    _save([path for path in known if path != real], environ)
    return True


def _save(folders: list[Path], environ: Mapping[str, str] | None) -> None:
    file = trust_file(environ)
    text = json.dumps(sorted(map(str, folders)), indent=2) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with open(descriptor, "w", encoding="utf-8") as written:
                written.write(text)
                written.flush()
                os.fsync(descriptor)
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
