"""``agentcli config``: shows every setting and where it is set, and changes settings."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcli import config
from agentcli.cli.help import App
from agentcli.errors import ConfigError, UsageError
from agentcli.folders import user_folder
from agentcli.settings import Settings, parts, quoted
from agentcli.text import escape

app = App("Show and change settings.")
_WORKSPACE = typer.Option("--workspace", help="The project's folder.", metavar="DIR")

_PROJECT = typer.Option("--project", help="Change this project's file, not the user's.")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="One key, or a section such as limits.")] = "",
    workspace: Annotated[Path, _WORKSPACE] = Path(),
    profile: Annotated[
        str | None, typer.Option(help="Show the values with this profile.", metavar="NAME")
    ] = None,
    output: Annotated[str, typer.Option(help="The format: text or json.")] = "text",
) -> None:
    """Show every value and where it is set."""
    from agentcli.wiring.rule_names import check_rule_names

    if output not in ("text", "json"):
        raise UsageError(f'--output cannot be "{output}"', hint="It is text or json")
    folder = workspace.resolve()
    settings = config.load(folder, profile=profile)
    check_rule_names(settings)
    rows = [row for row in settings.rows() if not key or f"{row[0]}.".startswith(f"{key}.")]
    if not rows and key not in Settings.model_fields:
        known = [name for name, _, _ in settings.rows()]
        raise UsageError(f'there is no key "{key}"', hint=config.nearest(key, known))
    if output == "json":
        print(json.dumps({name: {"value": value, "source": by} for name, value, by in rows}))
        return
    for notice in settings.notices:
        print(escape(f"note: {notice}"))
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, source in rows:
        told = "unset" if value is None else json.dumps(value, ensure_ascii=False)
        print(escape(f"{name:<{width}}  {told}" + (f"  # {source}" if source != "default" else "")))


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(help="The key, such as model or limits.tasks.")],
    value: Annotated[str, typer.Argument(help="A TOML value; bare words are a string or a list.")],
    project: Annotated[bool, _PROJECT] = False,
    workspace: Annotated[Path, _WORKSPACE] = Path(),
) -> None:
    """Set one value; the rest of the file, comments included, stays as it is."""
    file = _file(project, workspace)
    set_value(file, key, value)
    print(escape(f"{key} = {value}  # {file}"))


def set_value(file: Path, key: str, value: str) -> None:
    """Set one value in a settings file, which may not exist yet.

    Raises:
        ConfigError: the file cannot be read or written, or the value is not valid for this key.
    """
    document = _read(file)
    *path, last = parts(key)
    at: Any = document
    for step in path:
        at = at.setdefault(step, _toml().table()) if hasattr(at, "setdefault") else None
    if not hasattr(at, "setdefault"):
        raise ConfigError(f"{file}: {key} is inside a value, not a section")
    at[last] = config.from_text(key, value)
    _write(file, document)


@app.command()
def unset(
    key: Annotated[str, typer.Argument(help="The key, such as model or limits.tasks.")],
    project: Annotated[bool, _PROJECT] = False,
    workspace: Annotated[Path, _WORKSPACE] = Path(),
) -> None:
    """Remove one value from the file."""
    file = _file(project, workspace)
    document = _read(file)
    *path, last = parts(key)
    at: Any = document
    for step in path:
        at = at.get(step) if hasattr(at, "get") else None
    if not hasattr(at, "get") or last not in at:
        raise UsageError(f"{key} is not set in {file}")
    del at[last]
    _write(file, document)


@app.command()
def path(workspace: Annotated[Path, _WORKSPACE] = Path()) -> None:
    """Show where the settings files are."""
    print(user_file())
    print(workspace.resolve() / config.PROJECT_FILE)


@app.command()
def key(provider: Annotated[str, typer.Argument(help="The provider, such as openai.")]) -> None:
    """Store a provider's key in the system's keyring and refer to it in the settings."""
    from agentcli.llm.catalog import PROVIDERS
    from agentcli.llm.keys import keep_key

    known = sorted({*PROVIDERS, *config.load().providers})
    if provider not in known:
        hint = f"{config.nearest(provider, known)} Others are set as [providers.NAME] first"
        raise UsageError(f"there is no provider {provider}", hint=hint)
    if sys.stdin.isatty():
        given = typer.prompt(f"Key for {provider}", hide_input=True).strip()
    else:
        given = sys.stdin.readline().strip()
    if not given:
        raise UsageError("no key was given")
    keep_key(provider, given)
    set_(f"providers.{quoted(provider)}.api_key_keyring", "true")


def _file(project: bool, workspace: Path) -> Path:
    return workspace.resolve() / config.PROJECT_FILE if project else user_file()


def user_file() -> Path:
    """The user's settings file."""
    return user_folder() / "config.toml"


def _toml() -> Any:
    import tomlkit

    return tomlkit


def _read(file: Path) -> Any:
    try:
        return _toml().parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _toml().document()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _write(file: Path, document: Any) -> None:
    """Replace the file atomically, after checking the new content."""
    text = _toml().dumps(document)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=f".{file.name}", encoding="utf-8", delete=False
        ) as new:
            new.write(text)
        candidate = Path(new.name)
        try:
            _check(candidate, file)
            if file.exists():
                candidate.chmod(file.stat().st_mode & 0o777)
            os.replace(candidate, file.resolve())  # keeps a link, which dotfiles often are
        finally:
            candidate.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error


def _check(candidate: Path, file: Path) -> None:
    from agentcli.wiring.rule_names import check_rule_names

    try:
        check_rule_names(config.load(environ={}, user_file=candidate))
    except ConfigError as error:
        message = error.message.replace(str(candidate), str(file))
        raise ConfigError(message, hint=error.hint) from error
