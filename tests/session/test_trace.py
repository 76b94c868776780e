"""The trace: correct however a run ends, complete, without secrets; and a safe HTML page."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.events import RunFinished, StepFinished, Warned
from agentcli.cli.page import page
from agentcli.messages import Usage
from agentcli.session.journal import read_events, read_timed
from agentcli.session.steps import steps_of
from agentcli.session.store import journal_path, list_sessions
from agentcli.session.trace import close_interrupted, rewrite
from agentcli.tools.approval import Answer, Approval
from agentcli.tools.approval import Reply as ApprovalReply
from tests.server import Reply
from tests.session.conftest import Sessions, shell, write

USAGE = Usage(input_tokens=100, cached_tokens=40, output_tokens=10, reasoning_tokens=3)


def traced(session: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = journal_path(session).parent
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return json.loads((folder / "manifest.json").read_text()), [json.loads(e) for e in lines]


async def test_manifest_and_steps_hold_what_the_reference_names(sessions: Sessions) -> None:
    result = await sessions.run(
        [
            Reply(text="I look.", calls=[("list_dir", {})], usage=USAGE),
            Reply(status=503, headers={"retry-after": "0.01"}),
            Reply(calls=[("write_file", {"path": "a.txt", "content": "1\n"})], usage=USAGE),
            Reply(text="Done.", usage=USAGE),
        ],
        checks=("test -f a.txt",),
    )
    manifest, steps = traced(result.state.session_id)
    events = list(read_events(journal_path(result.state.session_id)))
    assert manifest["run_id"] == result.state.session_id
    assert (manifest["status"], manifest["step_count"]) == ("solved", 3)
    assert manifest["event_count"] == len(events)
    assert manifest["summary"] == {
        "stop_reason": "final",
        "final_result": "Done.",
        "failure_report": None,
    }
    assert manifest["model"] == "openai:scripted"
    assert len(manifest["prompt_hash"]) == len(manifest["config_hash"]) == 64
    assert manifest["tool_versions"]["shell"] == "1" and manifest["seed"] is None
    assert (manifest["usage"]["cached_tokens"], manifest["retries"]) == (120, 1)

    first, second, third = steps
    assert [seen["role"] for seen in first["observation"]] == ["system", "user"]
    assert first["decision"] == {"text": "I look.", "finish_reason": "tool_calls"}
    assert first["actions"][0]["name"] == first["results"][0]["name"] == "list_dir"
    assert first["tool_invocations"][0]["tool"] == "list_dir@1"
    assert second["observation"][0]["role"] == "tool"
    assert second["metrics"]["retries"] == 1
    metrics = second["metrics"]
    assert [metrics[name] for name in ("fresh", "cached", "output", "reasoning")] == [60, 40, 10, 3]
    assert 0 < metrics["first_token_s"] <= metrics["model_s"] <= second["duration_s"]
    assert second["state_diff"]["files_changed"] == ["a.txt"]
    assert list(second["files"]["after"]) == ["a.txt"]
    assert third["checks"] == [{"command": "test -f a.txt", "passed": True, "exit_code": 0}]
    assert third["critic_outputs"] == [] and third["complete"]


async def test_the_live_trace_equals_one_made_from_the_journal(sessions: Sessions) -> None:
    script = [write("a.txt", "1\n"), Reply(text="One."), shell("rm a.txt"), Reply(text="Two.")]
    async with sessions.agent(script) as agent:
        await agent.start("one").result()
        await agent.start("two").result()
        session = agent.state.session_id
    manifest, steps = traced(session)
    rewrite(journal_path(session).parent)
    assert traced(session) == (manifest, steps)
    assert manifest["runs"] == 2

    await sessions.run([Reply(text="Three.")], "three", session_id=session)
    manifest, steps = traced(session)
    assert (manifest["runs"], len(steps)) == (3, 5)
    rewrite(journal_path(session).parent)
    assert traced(session) == (manifest, steps)


async def test_a_resumed_session_adds_to_its_trace_and_reads_no_journal_again(
    sessions: Sessions,
) -> None:
    result = await sessions.run([Reply(text="One.")], "one")
    session = result.state.session_id
    path = journal_path(session).parent / "steps.jsonl"
    path.write_bytes(path.read_bytes().replace(b"One.", b"1st."))  # same length
    await sessions.run([Reply(text="Two.")], "two", session_id=session)
    manifest, steps = traced(session)
    assert [step["decision"]["text"] for step in steps] == ["1st.", "Two."]
    assert (manifest["runs"], manifest["step_count"]) == (2, 2)

    path.write_bytes(path.read_bytes() + b"{}\n")  # no longer matches the manifest
    await sessions.run([Reply(text="Three.")], "three", session_id=session)
    manifest, steps = traced(session)
    assert [step["decision"]["text"] for step in steps] == ["One.", "Two.", "Three."]
    assert manifest["event_count"] == len(list(read_events(journal_path(session))))


async def test_a_killed_run_is_not_left_running(sessions: Sessions) -> None:
    result = await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])
    path = journal_path(result.state.session_id)
    lines = path.read_bytes().splitlines(keepends=True)
    timed = list(read_timed(path))
    cut = next(n for n, (_, e) in enumerate(timed) if isinstance(e, StepFinished)) - 1
    path.write_bytes(b"".join(lines[:cut]))  # as if killed in the first step
    manifest = json.loads((path.parent / "manifest.json").read_text())
    (path.parent / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    close_interrupted(list_sessions())
    manifest, steps = traced(result.state.session_id)
    assert manifest["status"] == "interrupted"
    assert [(step["step"], step["complete"]) for step in steps] == [(1, False)]

    resumed = await sessions.run([Reply(text="Done.")], task="", session_id=result.state.session_id)
    assert resumed.state.answer == "Done."
    manifest, steps = traced(result.state.session_id)
    assert manifest["status"] == "solved"


async def test_a_failure_is_reported(sessions: Sessions) -> None:
    result = await sessions.run([Reply(status=401)])
    manifest, steps = traced(result.state.session_id)
    assert manifest["status"] == "failed" and not steps[0]["complete"]
    report = manifest["summary"]["failure_report"]
    assert report["error"] == "AuthenticationError" and report["stage"] == "decide"


async def test_a_trace_that_cannot_be_written_stops_nothing(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    async with sessions.agent([write("a.txt", "1\n"), Reply(text="Done.")]) as agent:
        (journal_path(agent.session.session_id).parent / "manifest.json").mkdir()
        result = await agent.start("do it").result()
    assert (result.exit_code, result.task_result) == (0, "Done.")
    assert "the trace in" in caplog.text and "cannot be written" in caplog.text


async def test_a_workspace_whose_name_is_not_utf_8(sessions: Sessions) -> None:
    folder = sessions.workspace / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    result = await sessions.run([Reply(text="Done.")], workspace=folder)
    assert not [event for event in result.events if isinstance(event, Warned)]
    manifest, steps = traced(result.state.session_id)
    assert (manifest["status"], len(steps)) == ("solved", 1)


async def test_keys_are_redacted(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value")
    result = await sessions.run([shell("echo very-secret-value"), Reply(text="very-secret-value")])
    folder = journal_path(result.state.session_id).parent
    for path in folder.iterdir():
        assert "very-secret" not in path.read_text(), path.name
    assert isinstance(list(read_events(folder / "events.jsonl"))[-1], RunFinished)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


HOSTILE = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\x00\ud800"


async def test_the_page_shows_everything_and_runs_nothing(sessions: Sessions) -> None:
    result = await sessions.run(
        [
            Reply(text=HOSTILE.replace("\x00\ud800", ""), calls=[("shell", {"command": "echo 1"})]),
            write("<b>.txt", "<script>\n"),
            Reply(text="<h1>Done"),
        ],
        task="<style>",
    )
    steps, found = steps_of(read_timed(journal_path(result.state.session_id)))
    found[0]["observation"].append({"role": HOSTILE, "text": HOSTILE})
    text = page(steps.manifest(), found)
    text.encode()
    shown = Page(text)
    assert shown.open == []
    tags = {tag for tag, _ in shown.tags}
    assert tags.isdisjoint({"script", "img", "link", "iframe", "form", "object", "b-", "a"})
    for _, attributes in shown.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
    words = "".join(shown.words)
    for said in ("<script>alert(1)</script>", "<b>.txt", "+<script>", "<h1>Done", "<style>"):
        assert said in words
    assert [tag for tag, attributes in shown.tags if attributes.get("class") == "step"] == [
        "details"
    ] * 3
    kinds = [attributes.get("class") for tag, attributes in shown.tags if tag == "i"][4:]
    assert kinds == ["prefill", "decode", "tool"] * 2 + ["prefill", "decode"]


async def test_waiting_for_the_user_is_no_time_of_a_tool(sessions: Sessions) -> None:
    async def ask(approval: Approval) -> ApprovalReply:
        await asyncio.sleep(0.25)
        return ApprovalReply(Answer.NO)

    result = await sessions.run([shell("make x"), Reply(text="Done.")], mode="ask", ask=ask)
    steps, found = steps_of(read_timed(journal_path(result.state.session_id)))
    metrics, (call,) = found[0]["metrics"], found[0]["tool_invocations"]
    assert call["asked_s"] >= 0.25 and metrics["asked_s"] == call["asked_s"]
    assert metrics["tools_s"] == pytest.approx(call["duration_s"] - call["asked_s"])
    bars = [tag for tag in Page(page(steps.manifest(), found)).tags if tag[0] == "i"][4:8]
    assert [bar["class"] for _, bar in bars][:4] == ["prefill", "decode", "asked", "tool"]


async def test_a_browser_draws_the_waterfall(sessions: Sessions, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed here")
    result = await sessions.run(
        [
            Reply(calls=[("shell", {"command": "sleep 0.3"})], pause_s=0.02, split=60),
            Reply(text="Done.", pause_s=0.02, split=60),
        ]
    )
    steps, found = steps_of(read_timed(journal_path(result.state.session_id)))
    for step in found:  # set the times of an idle machine
        step["duration_s"], start = 1.0, step["started"]
        step["metrics"] |= {"model_started": start, "first_token_s": 0.3, "model_s": 0.6}
        for call in step["tool_invocations"]:
            call |= {"started": start + 0.6, "duration_s": 0.4, "asked_s": 0.2}
    (tmp_path / "page.html").write_text(page(steps.manifest(), found))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=800,800"]
    subprocess.run(
        [
            browser,
            *options,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={tmp_path / 'page.png'}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        timeout=90,
        check=True,
    )
    colours = Counter(pixels((tmp_path / "page.png").read_bytes()))
    for bar in ("8a63d2", "2f7ed8", "b9bfc6", "d9822b"):  # prefill, decode, asked, tool
        assert colours[bytes.fromhex(bar)] > 400, bar


def pixels(png: bytes) -> Iterator[bytes]:
    """The RGB pixels of a PNG with 8 bits per channel."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, data, width, channels = 8, b"", 0, 3
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        chunk = png[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour = struct.unpack(">IIBB", chunk[:10])
            assert depth == 8 and colour in (2, 6)
            channels = 3 if colour == 2 else 4
        elif kind == b"IDAT":
            data += chunk
        place += length + 12
    raw, stride = zlib.decompress(data), width * channels
    above = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        filter_, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for n in range(stride) if filter_ else ():
            left = row[n - channels] if n >= channels else 0
            corner = above[n - channels] if n >= channels else 0
            guess = (0, left, above[n], (left + above[n]) // 2, 0)[filter_]
            if filter_ == 4:  # Paeth
                near = left + above[n] - corner
                guess = min((left, above[n], corner), key=lambda one: abs(near - one))
            row[n] = (row[n] + guess) & 255
        above = row
        for n in range(0, stride, channels):
            yield bytes(row[n : n + 3])


def test_a_page_of_nothing(tmp_path: Path) -> None:
    steps, found = steps_of([])
    assert Page(page(steps.manifest(), found)).open == []
