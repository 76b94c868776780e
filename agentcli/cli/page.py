"""Renders a session as one page of HTML: no scripts, no external resources, every text escaped.

Each step has a row with its numbers and with what took its time (waiting for the first token, the
answer, the user who was asked, the tools), on the scale of the whole session. Below that, folded,
is what was said and changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from agentcli.messages import ToolCall
from agentcli.text import encodable, truncate
from agentcli.wording import describe_call, dollars, duration

_MOST = 20_000
"""The most characters of one text; the middle of a longer one is left out."""

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c1e21, #e4e6ea);
  --paper: light-dark(#ffffff, #16181c); --soft: light-dark(#f1f3f5, #22252b);
  --line: light-dark(#d8dce0, #3a3f47); --dim: light-dark(#5f6770, #9aa2ad);
  --prefill: #8a63d2; --decode: #2f7ed8; --tool: #d9822b; --asked: light-dark(#b9bfc6, #59606a);
  --failed: light-dark(#b42318, #ff8a80); --good: light-dark(#1a7a45, #57d08a); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
.dim { color: var(--dim) } .failed { color: var(--failed) } .good { color: var(--good) }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem;
  margin: 1rem 0 } dl div { background: var(--soft); border-radius: 6px; padding: .4rem .7rem }
dt { color: var(--dim); font-size: .8rem } dd { margin: 0; font-weight: 600;
  overflow-wrap: anywhere }
details.step { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0 }
details.step > summary { display: grid; grid-template-columns: 2.5rem 2fr 3fr; gap: .8rem;
  align-items: center; padding: .4rem .7rem; cursor: pointer; list-style: none }
summary b { font-variant-numeric: tabular-nums } .what { overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis } .numbers { display: flex; gap: .8rem; color: var(--dim);
  font-size: .8rem } .track { display: block; position: relative; height: 12px;
  background: var(--soft); border-radius: 3px; margin: 2px 0 }
.track i { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: 2px }
.prefill { background: var(--prefill) }
.decode { background: var(--decode) } .tool { background: var(--tool) }
.asked { background: var(--asked) }
.body { padding: 0 .8rem .8rem; border-top: 1px solid var(--line) }
pre { background: var(--soft); border-radius: 6px; padding: .6rem; margin: .3rem 0 .8rem;
  overflow: auto; max-height: 26rem; font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere } pre ins { color: var(--good); text-decoration: none }
pre del { color: var(--failed); text-decoration: none } h3 { font-size: .85rem; margin: .8rem 0 0 }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin: 0 .3rem 0 1rem; vertical-align: -1px }
.numbers span { white-space: nowrap } .numbers { flex-wrap: wrap; column-gap: .8rem; row-gap: 0 }
@media (max-width: 50rem) { details.step > summary { grid-template-columns: 2rem 1fr }
  details.step > summary > :last-child { grid-column: 1 / -1 } }
"""


def page(manifest: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> str:
    """The whole document, from a manifest and the lines of ``steps.jsonl``."""
    steps = list(steps)
    title = f"Session {manifest['run_id']}"
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
            _head(title, manifest),
            _result(manifest),
            "<h2>Steps</h2>",
            '<p class="key dim">Time:<i class="prefill"></i>until the first token'
            '<i class="decode"></i>answer<i class="asked"></i>you were asked'
            '<i class="tool"></i>tools</p>',
            *_rows(steps),
            "</body></html>\n",
        ]
    )


def _head(title: str, manifest: Mapping[str, Any]) -> str:
    usage, status = manifest["usage"], manifest["status"]
    tone = "good" if status == "solved" else "failed" if status in ("failed", "unsolved") else ""
    reason = manifest["summary"]["stop_reason"]
    told = not reason or reason == status or (status, reason) == ("solved", "final")
    facts = {
        "Status": f'<span class="{tone}">{_text(status)}</span>'
        + ("" if told else f' <span class="dim">{_text(reason)}</span>'),
        "Steps": f"{manifest['step_count']:,}",
        "Input, fresh": f"{usage['input_tokens'] - usage['cached_tokens']:,}",
        "Input, cached": f"{usage['cached_tokens']:,}",
        "Output": f"{usage['output_tokens']:,}",
        "of it reasoning": f"{usage['reasoning_tokens']:,}",
        "Cost": dollars(manifest["cost_usd"]),
        "Retries": f"{manifest['retries']:,}",
        "Files changed": f"{len(manifest['files_changed']):,}",
    }
    began = datetime.fromtimestamp(manifest["started"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    where = (
        f'<p class="dim">{began}, {_text(manifest["model"])} in {_text(manifest["workspace"])}</p>'
    )
    return f"<h1>{_text(title)}</h1>{where}<dl>{cells}</dl>"


def _result(manifest: Mapping[str, Any]) -> str:
    summary = manifest["summary"]
    parts = [_block("Task", manifest["task"]), _block("Answer", summary["final_result"])]
    if failure := summary["failure_report"]:
        parts.append(_block("Failure", "\n".join(f"{k}: {v}" for k, v in failure.items() if v)))
    return "".join(parts)


def _rows(steps: list[Mapping[str, Any]]) -> Iterable[str]:
    """One row per step; the time axis leaves out the pauses between runs."""
    total = sum(step["duration_s"] for step in steps) or 1.0
    offset = 0.0
    for step in steps:
        yield _row(step, offset, total)
        offset += step["duration_s"]


def _row(step: Mapping[str, Any], offset: float, total: float) -> str:
    metrics, decision = step["metrics"], step["decision"] or {}
    calls = ", ".join(describe_call(ToolCall(**action), 60) for action in step["actions"])
    what = calls or " ".join(str(decision.get("text", "")).split())[:200] or "cut short"
    outcomes = {result["outcome"] for result in step["results"]}
    mark = ' class="failed"' if outcomes - {"ok"} or not step["complete"] else ""
    numbers = [
        duration(step["duration_s"]),
        f"{metrics['fresh'] + metrics['cached']:,} in ({metrics['cached']:,} cached)",
        f"{metrics['output']:,} out",
        "cost unknown" if metrics["cost_usd"] is None else dollars(metrics["cost_usd"]),
    ]
    if metrics["retries"]:
        numbers.append("1 retry" if metrics["retries"] == 1 else f"{metrics['retries']} retries")
    shown = "".join(f"<span>{_text(number)}</span>" for number in numbers)
    return (
        f'<details class="step"><summary><b{mark}>{step["step"]}</b>'
        f'<span class="what">{_text(what)}</span>'
        f'<span><span class="track">{_bars(step, offset, total)}</span>'
        f'<span class="numbers">{shown}</span></span></summary>'
        f'<div class="body">{_body(step)}</div></details>'
    )


def _bars(step: Mapping[str, Any], offset: float, total: float) -> str:
    metrics, bars = step["metrics"], []
    if metrics["model_started"] is not None:
        start = metrics["model_started"] - step["started"]
        first = min(metrics["first_token_s"], metrics["model_s"])
        bars.append(("prefill", start, first))
        bars.append(("decode", start + first, metrics["model_s"] - first))
    for call in step["tool_invocations"]:
        if call["started"] is not None:
            start, asked = call["started"] - step["started"], call["asked_s"]
            if asked:
                bars.append(("asked", start, asked))
            bars.append(("tool", start + asked, call["duration_s"] - asked))
    return "".join(
        f'<i class="{kind}" style="left:{_share(offset + max(0.0, start), total)}%;'
        f'width:{_share(length, total)}%" title="{kind} {duration(length)}"></i>'
        for kind, start, length in bars
    )


def _share(part: float, total: float) -> str:
    return f"{min(100.0, max(0.0, 100 * part / total)):.3f}"


def _body(step: Mapping[str, Any]) -> str:
    parts = [
        _block(f"Seen: {seen.get('name') or seen['role']}", seen["text"])
        for seen in step["observation"]
        if seen["role"] != "tool"  # shown with its call, in the step before
    ]
    if step["decision"]:
        parts.append(_block("Said", step["decision"]["text"]))
    results = {result["call_id"]: result for result in step["results"]}
    for action in step["actions"]:
        parts.append(_block(f"Call: {action['name']}", action["arguments"]))
        if (result := results.pop(action["id"], None)) is not None:
            parts.append(_block(f"Result: {result['outcome']}", result["content"]))
            parts.append(_diff(result.get("diff", "")))
    parts += [_block(f"Result: {each['name']}", each["content"]) for each in results.values()]
    for critic in step["critic_outputs"]:
        parts.append(_block(f"Critic {critic['critic']}: {critic['judgement']}", critic["reason"]))
    for check in step["checks"]:
        parts.append(
            _block("Check " + ("passed" if check["passed"] else "failed"), check["command"])
        )
    files = sorted({*step["files"]["before"], *step["files"]["after"]})
    parts.append(_block("Files", "\n".join(files)))
    return "".join(parts)


def _block(title: str, text: str) -> str:
    if not text.strip():
        return ""
    return f"<h3>{_text(title)}</h3><pre>{_text(str(truncate(text, _MOST)))}</pre>"


def _diff(diff: str) -> str:
    if not diff:
        return ""
    lines = []
    for line in str(truncate(diff, _MOST)).split("\n"):
        tag = {"+": "ins", "-": "del"}.get(line[:1])
        lines.append(f"<{tag}>{_text(line)}</{tag}>" if tag else _text(line))
    return "<h3>Diff</h3><pre>" + "\n".join(lines) + "</pre>"


def _text(text: str) -> str:
    return escape(encodable(text).replace("\0", "\ufffd"))
