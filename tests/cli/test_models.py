"""``agentcli models``: lists the models, their requirements, and tests whether they work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

from agentcli.cli.main import main
from tests.llm.folders import make_folder
from tests.llm.thread_engine import ThreadEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("qwen3", tmp_path_factory.mktemp("model") / "tiny", context=512)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("agentcli.llm.engine.EngineProcess._start", ThreadEngine._start)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["models", *arguments])
        return code, *capsys.readouterr()

    return run


def test_without_the_extra_a_note_says_what_is_left_out(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("agentcli.llm.registry.lacking", lambda: ["torch"])
    code, out, err = call("list")
    assert code == 0 and "embedded" not in out
    assert "local models are left out (missing: torch)" in err and "agentcli[local]" in err


def test_what_there_is(
    call: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        '[providers.mine]\nbase_url = "http://127.0.0.1:9/v1"\n'
    )
    hub = tmp_path / ".cache/huggingface/hub/models--a--b"
    for snapshot, place in (("old", tmp_path / "old"), ("c0ffee", folder)):
        (hub / "snapshots").mkdir(parents=True, exist_ok=True)
        (hub / "snapshots" / snapshot).symlink_to(place)
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("c0ffee")
    unknown = tmp_path / "data/models/unknown"
    unknown.mkdir(parents=True)
    (unknown / "config.json").write_text('{"model_type": "mamba"}')
    code, out, err = call("list", "--json")
    found = {model["name"]: model for model in json.loads(out)}
    assert (code, err) == (0, "")
    assert found["embedded"]["context"] == 4096
    assert found["local:a/b"]["what"].startswith("qwen3, ")
    assert any(name.startswith("anthropic:claude-") for name in found)
    assert "mine:NAME" in found
    assert not any(name.startswith(("openai:", "gemini:")) or "mamba" in name for name in found)
    _, text, err = call("list")
    assert [line.split()[0] for line in text.splitlines()] == list(found)
    assert "local:unknown cannot be used" in err and "unknown model family 'mamba'" in err
    code, text, _ = call("show", "local:a/b")
    assert code == 0 and "qwen3" in text
    code, _, err = call("show", "local:a/c")
    assert code == 2 and 'no such model. Did you mean "a/b"?' in err


def test_what_a_model_needs(call: Any, folder: Path) -> None:
    code, out, _ = call("show", str(folder), "--context", "256", "--json")
    told = json.loads(out)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert code == 0
    assert (told["family"], told["context"], told["chat"]) == (
        "qwen3",
        256,
        "template, calls as hermes",
    )
    assert told["memory"]["float32"]["weights"] == told["parameters"] * 4
    assert told["memory"]["float32"]["weights"] == pytest.approx(size, rel=0.05)
    assert told["memory"]["bfloat16"]["cache"] == 2 * 2 * 256 * 2 * 16 * 2
    assert told["memory"]["int4"]["weights"] < told["memory"]["int8"]["weights"]
    _, text, _ = call("show", f"local:{folder}")
    assert "512 tokens" in text and "FORMAT" in text
    assert f"the cache takes {2 * 2 * 512 * 2 * 16 * 4 / 1e6:.1f} MB in every format" in text


def test_a_model_that_works(call: Any, folder: Path) -> None:
    code, out, _ = call("check", str(folder), "--threads", "1")
    assert code == 0, out
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["ok", name] for name in ("loads", "logits", "cache", "tokenizer", "speed", "template")
    ]


def test_a_tokenizer_that_composes_characters(call: Any, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": {"type": "NFC"}}))
    code, out, _ = call("check", str(copy), "--threads", "1")
    assert code == 0, out


def test_a_model_that_does_not(call: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = make_folder("qwen2", tmp_path / "broken", context=512)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors")
    code, out, _ = call("check", str(broken), "--threads", "1", "--dtype", "float32")
    assert code == 1
    assert "FAILED  logits" in out


def test_a_context_that_is_too_short_for_the_test(call: Any, folder: Path) -> None:
    code, out, _ = call("check", str(folder), "--threads", "1", "--context", "1")
    assert code == 1
    assert "FAILED  context     2 tokens do not fit the context of 1" in out


@pytest.mark.parametrize("command", ["show", "check"])
def test_no_such_model(call: Any, tmp_path: Path, command: str) -> None:
    code, out, err = call(command, str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert "no such file or folder" in err


@pytest.mark.parametrize(
    ("template", "said"),
    [("{% for m in %}", "not valid Jinja"), ("{{ raise_exception('no') }}", "does not take this")],
)
def test_a_template_that_does_not_work(
    call: Any, folder: Path, tmp_path: Path, template: str, said: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text(template)
    code, out, _ = call("check", str(copy), "--threads", "1")
    assert code == 1 and said in next(line for line in out.splitlines() if "template" in line)


def test_a_context_beyond_the_models_own(call: Any, folder: Path) -> None:
    _, out, _ = call("show", str(folder), "--context", "99999")
    assert "99,999 tokens, beyond the 512 of its training" in out
