"""``agentcli generate``: its output, and one clear line for every error."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

import torch

from agentcli.cli.generate import _python
from agentcli.cli.main import main
from agentcli.model.folder import open_folder
from agentcli.settings import Settings
from tests.llm.folders import make_folder
from tests.llm.thread_engine import ThreadEngine
from tests.model.test_tokenizer import nanochat, sentencepiece
from tests.running import BIN, Cli, end, share_kernels

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder("qwen2", tmp_path_factory.mktemp("model") / "tiny", context=512)


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcli.llm.engine.EngineProcess._start", ThreadEngine._start)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    share_kernels(tmp_path)
    return Cli(tmp_path)


class Result:
    """The result of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(in_thread: None, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> Any:
    def call(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["generate", *arguments, "--threads", "1"])
        return Result(code, *capsys.readouterr())

    return call


def test_the_same_seed_gives_the_same_text(run: Any, folder: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "string", "minLength": 8, "maxLength": 12}')
    options = ["hello", "--model", f"local:{folder}", "--json-schema", str(schema)]
    one, two = (run(*options, "--seed", "3") for _ in range(2))
    assert one.code == 0 and one.out.endswith("\n")
    assert one.out == two.out != run(*options, "--seed", "4").out


def test_a_model_that_says_not_to_sample_is_greedy(run: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, told := tmp_path / "told")
    (told / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.7}')
    options = ["hello", "--model", f"local:{told}", "--max-tokens", "20"]
    greedy = run(*options, "--temperature", "0").out
    assert run(*options, "--seed", "3").out == run(*options, "--seed", "4").out == greedy
    sampled = [run(*options, "--seed", seed, "--temperature", "2").out for seed in ("3", "4")]
    assert sampled[0] != sampled[1]
    several = run(*options, "--num-samples", "2")
    assert "at temperature 0, all samples are the same" in several.err
    assert "the same" not in run(*options, "--num-samples", "2", "--temperature", "1").err


def test_samples_stand_below_each_other_in_a_pipe(run: Any, folder: Path) -> None:
    ended = run("hello", "--model", f"local:{folder}", "--max-tokens", "8", "--num-samples", "3")
    heads = [line for line in ended.out.splitlines() if line.startswith("=== sample")]
    assert heads == [f"=== sample {n} of 3 ===" for n in (1, 2, 3)]


def test_json_tells_the_times_and_each_sample(run: Any, folder: Path) -> None:
    ended = run(
        *("-", "--model", f"local:{folder}", "--max-tokens", "9", "--num-samples", "2"),
        *("--output", "json", "--top-k", "1000000", "--min-p", "0.01", "--top-p", "0.9"),
        *("--repetition-penalty", "1.2", "--temperature", "0.5"),
        stdin="hello wörld\n".encode(),
    )
    told = json.loads(ended.out)
    assert (told["prompt_tokens"], told["reused_tokens"]) == (7, 0)
    assert [sample["finish_reason"] in ("stop", "length") for sample in told["samples"]]
    assert told["output_tokens"] == sum(sample["tokens"] for sample in told["samples"]) <= 18
    assert told["prefill_s"] > 0 and told["decode_s"] > 0 and told["tokens_per_s"] > 0
    assert (told["threads"], told["context"], told["device"]) == (1, 512, "cpu")


def test_no_machine_has_so_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a", "--threads", "100000"]) == 2
    assert "at most 1024" in capsys.readouterr().err


def test_json_that_fits_a_schema(run: Any, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    for seed in range(3):
        ended = run(
            "hello", "--model", f"local:{folder}", "--json-schema", str(file), "--seed", str(seed)
        )
        jsonschema_rs.validate(SCHEMA, json.loads(ended.out))


def test_text_that_matches_an_expression(run: Any, folder: Path) -> None:
    pattern = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])"
    for seed in range(3):
        ended = run("hello", "--model", f"local:{folder}", "--regex", pattern, "--seed", str(seed))
        assert re.fullmatch(pattern + "\n", ended.out), ended


def test_a_space_before_the_first_word_is_shown(run: Any, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    sentencepiece(eos_token="</s>").save(copy)
    ended = run("hello", "--model", f"local:{copy}", "--regex", " hello")
    assert (ended.code, ended.out) == (0, " hello\n"), ended.err


def test_thinking_is_shown_with_its_marks(run: Any, tmp_path: Path) -> None:
    folder = make_folder("qwen3", tmp_path / "qwen3", context=512)
    special = open_folder(folder).load_tokenizer().special
    grammar = tmp_path / "thought.lark"
    grammar.write_text(
        f'start: <[{special["<think>"]}]> "he" <[{special["</think>"]}]> "hello"', encoding="utf-8"
    )
    ended = run("x", "--model", f"local:{folder}", "--chat", "--grammar", str(grammar))
    assert ended.out == "<think>he</think>hello\n", ended.err


def test_text_of_a_grammar(run: Any, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "sum.lark"
    file.write_text('start: NUMBER (" + " NUMBER){2}\nNUMBER: /[1-9][0-9]?/\n')
    for seed in range(3):
        ended = run(
            "hello", "--model", f"local:{folder}", "--grammar", str(file), "--seed", str(seed)
        )
        assert re.fullmatch(r"[1-9]\d?( \+ [1-9]\d?){2}\n", ended.out), ended


def test_text_without_its_form_is_told(run: Any, folder: Path) -> None:
    ended = run("hello", "--model", f"local:{folder}", "--regex", "[0-9]{40}", "--max-tokens", "2")
    assert ended.code == 1 and "has not the form" in ended.err


def test_json_that_is_cut_off_is_told(run: Any, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    ended = run(
        "hello", "--model", f"local:{folder}", "--json-schema", str(file), "--max-tokens", "2"
    )
    assert ended.code == 1 and "its JSON is not complete" in ended.err


def test_a_stop_string_is_not_shown(run: Any, folder: Path) -> None:
    options = ["hello", "--model", f"local:{folder}", "--temperature", "0", "--max-tokens", "20"]
    whole = run(*options).out.rstrip("\n")
    middle = whole[len(whole) // 2 :][:2]
    assert run(*options, "--stop", middle).out.rstrip("\n") == whole[: whole.index(middle)]
    empty = run(*options, "--stop", "")
    assert empty.code == 2 and "--stop needs a text" in empty.err


def test_a_chat_opens_the_models_turn(run: Any, folder: Path) -> None:
    options = ["--model", f"local:{folder}", "--max-tokens", "4", "--output", "json"]
    plain, chat = (json.loads(run("hello", *options, *flags).out) for flags in ([], ["--chat"]))
    assert chat["prompt_tokens"] > plain["prompt_tokens"] + 10


@pytest.mark.parametrize("flags", [["--dtype", "bfloat16"], ["--quantize", "int8"]], ids=str)
def test_how_the_model_is_loaded(run: Any, folder: Path, flags: list[str]) -> None:
    options = ["hello", "--model", f"local:{folder}", "--max-tokens", "3", "--output", "json"]
    told = json.loads(run(*options, *flags, "--context", "64").out)
    assert told["context"] == 64
    assert told["dtype"] == "bfloat16" or told["quantize"] == "int8"


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _wrong_shape(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 32}))


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def _no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


class Attack:
    """A pickle that runs code if it is loaded without care."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


def _nanochat(folder: Path, *, weights: Any = None, tokenizer: Any = None) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "meta_000001.json").write_text(json.dumps({"model_config": {"n_layer": 1}}))
    torch.save(weights or {}, folder / "model_000001.pt")
    if tokenizer is None:
        nanochat().save(folder)
    else:
        (folder / "tokenizer.pkl").write_bytes(pickle.dumps(tokenizer))


BAD_MODELS = {
    "truncated": (_truncated, "truncated"),
    "no header": (_no_header, "truncated, or not a safetensors file"),
    "wrong shapes": (_wrong_shape, "has shape"),
    "no tokenizer": (_no_tokenizer, "no tokenizer"),
    "unknown family": (_bad_config, "unknown model family 'mamba'"),
}


@pytest.mark.parametrize("fault", BAD_MODELS)
def test_models_that_cannot_be_loaded(run: Any, folder: Path, tmp_path: Path, fault: str) -> None:
    spoil, expected = BAD_MODELS[fault]
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    spoil(broken)
    _refused(run("hello", "--model", f"local:{broken}"), expected)


@pytest.mark.parametrize("where", ["weights", "tokenizer"])
def test_a_pickle_that_would_run_code(run: Any, tmp_path: Path, where: str) -> None:
    broken, proof = tmp_path / "broken", tmp_path / "proof"
    broken.mkdir()
    _nanochat(broken, **{where: Attack(proof)})
    _refused(run("hello", "--model", f"local:{broken}"), "refused|unsafe to load")
    assert not proof.exists()


BAD_ARGUMENTS = {
    "an empty prompt": (["", "--model", "{}"], "prompt is empty"),
    "a long prompt": (["a" * 600, "--model", "{}"], "no room in the context of 512"),
    "a negative temperature": (["x", "--temperature", "-1"], "must be at least 0"),
    "an endless temperature": (["x", "--temperature", "inf"], "must be at most 100"),
    "a seed of many digits": (["x", "--seed", "9" * 30], "must be at most"),
    "too many samples": (["x", "--num-samples", "100000"], "must be at most 1024"),
    "no such folder": (["x", "--model", "local:/nowhere"], "no such model"),
    "a provider's model": (["x", "--model", "openai:gpt"], "not a model on this machine"),
    "no such schema": (["x", "--model", "{}", "--json-schema", "/nowhere"], "No such file"),
    "no regular expression": (
        ["x", "--model", "{}", "--regex", "a("],
        "regular expression .*: unclosed",
    ),
    "no such grammar": (["x", "--model", "{}", "--grammar", "/nowhere"], "No such file"),
    "a file that is no grammar": (["x", "--model", "{}", "--grammar", __file__], "grammar: "),
    "two forms": (["x", "--regex", "a", "--grammar", "/nowhere"], "exclude each other"),
    "no such device": (
        ["x", "--model", "{}", "--device", "abacus"],
        "'abacus' is not cpu, cuda",
    ),
    "no such dtype": (["x", "--dtype", "int3"], "'int3' is not one of"),
    "no samples": (["x", "--num-samples", "0"], "must be at least 1"),
    "a context beyond all reason": (
        ["x", "--model", "{}", "--context", "9000000000000"],
        "sequence_len is too large",
    ),
}


@pytest.mark.parametrize("fault", BAD_ARGUMENTS)
def test_arguments_that_cannot_be_met(run: Any, folder: Path, fault: str) -> None:
    arguments, expected = BAD_ARGUMENTS[fault]
    _refused(run(*(a.replace("{}", f"local:{folder}") for a in arguments)), expected)


def test_forms_that_can_never_be_met(run: Any, folder: Path, tmp_path: Path) -> None:
    endless, deep = tmp_path / "endless.lark", tmp_path / "deep.json"
    endless.write_text("start: a\na: a\n")
    deep.write_text('{"a":' * 3000 + "1" + "}" * 3000)
    model = ["x", "--model", f"local:{folder}"]
    _refused(run(*model, "--grammar", str(endless)), "grammar: it can never be complete$")
    _refused(run(*model, "--json-schema", str(deep)), "nested too deep$")


def test_a_prompt_that_is_no_text(run: Any, folder: Path) -> None:
    _refused(run("-", "--model", f"local:{folder}", stdin=b"\xff\xfe"), "not UTF-8")
    _refused(run("-", "--model", f"local:{folder}", stdin=b"\n"), "prompt is empty")


def _refused(ended: Result, expected: str) -> None:
    *notes, line = ended.err.splitlines()
    assert line.startswith("agentcli: error: ")
    assert all(note.startswith("agentcli: note: ") for note in notes)
    assert re.search(expected, line), line
    assert (ended.code, ended.out) == (2, "")


async def test_blocks_run_in_the_sandbox() -> None:
    run = _python(Settings())
    assert await run("12 * 12") == "144"
    assert await run("print(sum(range(5)), open('x', 'w').write('abc'))") == "10 3"
    assert "ZeroDivisionError" in str(await run("1 / 0\n"))


def test_ctrl_c_ends_it_quietly(cli: Cli, folder: Path) -> None:
    options = ["--model", f"local:{folder}", "--temperature", "0", "--threads", "1"]
    options += ["--context", "100000", "--json-schema", str(_endless(cli.home))]
    process = cli.start("generate", "hello", *options)
    assert process.stdout is not None
    assert process.stdout.read(1)
    ended = end(process, signal.SIGINT)
    assert (ended.code, ended.err) == (130, BEYOND)


def test_a_reader_that_leaves(cli: Cli, folder: Path) -> None:
    schema = _endless(cli.home)
    command = (
        f"{BIN}/agentcli generate hello --model local:{folder} --context 100000 --threads 1"
        f" --json-schema {schema} | head -c 20"
    )
    ended = subprocess.run(
        ["sh", "-c", command], env=cli.env, capture_output=True, timeout=90, check=True
    )
    assert (len(ended.stdout), ended.stderr.decode()) == (20, BEYOND)


BEYOND = "agentcli: note: a context of 100,000 tokens is beyond the 512 of the model's training\n"


def test_a_context_beyond_the_training_is_told_beside_the_answer(run: Any, folder: Path) -> None:
    options = ["hello", "--model", f"local:{folder}", "--max-tokens", "2", "--output", "json"]
    ended = run(*options, "--context", "100000")
    assert json.loads(ended.out)["context"] == 100000 and ended.err == BEYOND
    assert run(*options, "--context", "512").err == ""


def _endless(folder: Path) -> Path:
    """A schema whose instances are very long."""
    file = folder / "endless.json"
    items = {"type": "string", "minLength": 5}
    file.write_text(json.dumps({"type": "array", "items": items, "minItems": 5000}))
    return file
