"""A model folder in Hugging Face's format drives the whole agent.

The model has random weights, so valid calls, edits that match the file and reused tokens are the
work of the program."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

import jsonschema_rs

from agentcli.agent.events import ModelAnswered, ToolFinished
from agentcli.messages import FinishReason
from agentcli.tools.builtin import builtin_tools
from tests.llm.folders import make_folder
from tests.running import Cli, repository, share_kernels

SCHEMAS = {tool.spec.name: dict(tool.spec.parameters) for tool in builtin_tools()}


def test_a_random_model_makes_valid_calls(tmp_path: Path, workspace: Path) -> None:
    folder = make_folder("qwen2", tmp_path / "model", context=32768)
    repository(workspace, {"calc.py": "def add(a, b):\n    return a - b\n"})
    share_kernels(tmp_path)
    cli = Cli(
        tmp_path,
        extra={"AGENTCLI_TEMPERATURE": "1.0", "AGENTCLI_MAX_OUTPUT_TOKENS": "150"},
    )
    ended = cli.run(
        *("run", "-p", "fix it", "--model", f"local:{folder}", "--workspace", str(workspace)),
        *("--max-steps", "4", "--threads", "1", "--dtype", "float32", "--output", "json"),
    )
    assert ended.json["status"] in ("stopped", "solved"), ended.err
    events = cli.journal()
    answers = [event for event in events if isinstance(event, ModelAnswered)]
    calls = [call for event in answers for call in event.message.calls]
    assert calls
    for call in calls:
        jsonschema_rs.validate(SCHEMAS[call.name], json.loads(call.arguments))
    for event in events:
        if isinstance(event, ToolFinished):
            assert not event.result.content.startswith("error: arguments")
    for before, after in itertools.pairwise(answers):
        if before.finish_reason is FinishReason.TOOL_CALLS:
            assert after.usage.cached_tokens >= before.usage.input_tokens


def test_options_that_cannot_be_met(tmp_path: Path, workspace: Path) -> None:
    folder = make_folder("qwen2", tmp_path / "model", context=64)
    share_kernels(tmp_path)
    cli = Cli(tmp_path)
    run = ("run", "-p", "hi", "--model", f"local:{folder}", "--workspace", str(workspace))
    ended = cli.run(*run)
    assert ended.code in (1, 3)
    assert "window of 64" in ended.err
    ended = cli.run(*run, "--context", "128", "--output", "json")
    told = "agentcli: note: a context of 128 tokens is beyond the 64 of the model's training"
    assert ended.err.count(told) == 1 and told not in ended.out
    (folder / "chat_template.jinja").unlink()
    ended = cli.run(*run)
    assert (ended.code, "no chat template" in ended.error) == (2, True)
