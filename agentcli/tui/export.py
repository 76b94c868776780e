"""A session as a Markdown document."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentcli.errors import UsageError
from agentcli.text import encodable, plain_output
from agentcli.tui.entries import Answered, Checked, Entry, Said, Shown, Told, TurnEnded, Used
from agentcli.wording import check_line, describe_call


def as_markdown(entries: Iterable[Entry], title: str) -> str:
    """All that was said and done, in order; thoughts are left out."""
    parts = [f"# {title}"]
    for entry in entries:
        match entry:
            case Said(text=text):
                parts.append("## User\n\n" + text)
            case Answered(text=text):
                parts.append(text.strip())
            case Used(call=call, result=result):
                body = plain_output(result.content) if result else "(no result)"
                parts.append(f"### {describe_call(call, 200)}\n\n{_fenced(body)}")
                if result and result.diff:
                    parts.append(_fenced(result.diff, "diff"))
            case Checked(result=result) if result is not None:
                parts.append(f"**{check_line(result)}**")
            case Told(text=text):
                parts.append(f"> {text}")
            case TurnEnded(facts=facts):
                parts.append(f"*{' · '.join(facts)}*")
            case Shown():
                continue
    return "\n\n".join(part for part in parts if part) + "\n"


def write_export(path: Path, text: str) -> None:
    """Write a new file; one that exists is never replaced.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(encodable(text))
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="Name another file") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    newline = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{newline}{fence}"
