"""``agentcli trace``: shows where a session's time, tokens and money went, step by step."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcli.cli.help import App
from agentcli.cli.page import page
from agentcli.cli.session_options import SessionId
from agentcli.cli.table import table
from agentcli.errors import UsageError
from agentcli.session.journal import FILE_NAME, open_regular, read_timed
from agentcli.session.steps import Steps, steps_of
from agentcli.session.store import find_session, journal_path
from agentcli.session.trace import MANIFEST, STEPS
from agentcli.text import encodable, escape, one_line
from agentcli.wording import dollars, duration

app = App("Show where a session's time, tokens and money went.")

_TITLES = (
    *("STEP", "PHASE", "TIME", "FIRST", "MODEL", "TOOLS", "FRESH", "CACHED", "OUT", "REASONING"),
    *("COST", "RETRIES", "DONE"),
)


@app.command()
def show(
    session_id: SessionId,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the manifest and the steps as JSON.")
    ] = False,
) -> None:
    """Show each step: time to the first token, model and tool time, tokens, cost."""
    steps, found = _read(session_id)
    if as_json:
        print(json.dumps({"manifest": steps.manifest(), "steps": found}))
        return
    for line in table(_TITLES, [*map(_row, found), _total(steps, found)], sys.stdout.isatty()):
        print(line)


@app.command()
def export(
    session_id: SessionId,
    folder: Annotated[Path, typer.Argument(help="The folder to create.", metavar="DIR")],
) -> None:
    """Write manifest.json, events.jsonl and steps.jsonl into a folder."""
    steps, found = _read(session_id)
    try:
        with open_regular(journal_path(find_session(session_id))) as file:
            journal = file.read()
        folder.mkdir(parents=True)
        (folder / FILE_NAME).write_bytes(journal)
        (folder / MANIFEST).write_text(json.dumps(steps.manifest(), indent=2) + "\n")
        (folder / STEPS).write_text("".join(json.dumps(each) + "\n" for each in found))
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    print(f"wrote {folder}")


@app.command()
def html(
    session_id: SessionId,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="The file to write; default: trace-ID.html in this folder.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page: waterfall, messages, diffs and cost."""
    steps, found = _read(session_id)
    path = to or Path(f"trace-{steps.state.session_id}.html")
    try:
        path.write_text(encodable(page(steps.manifest(), found)), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    print(f"wrote {path}")


def _read(session_id: str) -> tuple[Steps, list[dict[str, Any]]]:
    return steps_of(read_timed(journal_path(find_session(session_id))))


def _row(step: dict[str, Any]) -> list[str]:
    metrics = step["metrics"]
    calls = ", ".join(action["name"] for action in step["actions"])
    said = one_line((step["decision"] or {}).get("text", ""), 40)
    return [
        str(step["step"]),
        step["phase"],
        *(duration(step["duration_s"]), duration(metrics["first_token_s"])),
        *(duration(metrics["model_s"]), duration(metrics["tools_s"])),
        *(f"{metrics[name]:,}" for name in ("fresh", "cached", "output", "reasoning")),
        dollars(metrics["cost_usd"]),
        str(metrics["retries"]),
        escape(calls or said) + ("" if step["complete"] else " (cut short)"),
    ]


def _total(steps: Steps, found: list[dict[str, Any]]) -> list[str]:
    metrics = [step["metrics"] for step in found]
    costs = [each["cost_usd"] for each in metrics]
    known = [cost for cost in costs if cost is not None]
    return [
        "all",
        str(steps.manifest()["status"]),
        duration(sum(step["duration_s"] for step in found)),
        "",
        duration(sum(each["model_s"] for each in metrics)),
        duration(sum(each["tools_s"] for each in metrics)),
        *(f"{sum(e[name] for e in metrics):,}" for name in ("fresh", "cached", "output")),
        f"{sum(each['reasoning'] for each in metrics):,}",
        dollars(sum(known) if len(known) == len(costs) else None),
        str(steps.retries),
        "",
    ]
