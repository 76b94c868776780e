"""``agentcli generate``: a model on this machine continues a prompt."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcli import config
from agentcli.cli.errors import show_error, show_note
from agentcli.cli.help import App
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
    local_flags,
)
from agentcli.cli.samples import Samples, open_samples
from agentcli.cli.signals import interruptible
from agentcli.errors import ToolInputError, UsageError
from agentcli.llm import registry
from agentcli.sandbox.execute import execute_code
from agentcli.settings import Settings
from agentcli.text import truncate
from agentcli.tools.calculator import calculate

app = App()

SAMPLING = "Sampling"
FORM = "Form of the text"

_RESULT_CHARS = 2000


class Format(StrEnum):
    """Values of ``--output``."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class _Job:
    """The command line and the settings combined; ``wishes`` are arguments of ``Wishes``."""

    model: str
    prompt: str
    output: Format
    settings: Settings
    wishes: dict[str, Any]


_LOADED = ("family", "device", "dtype", "quantize", "threads", "context")


@app.command()
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="The text to continue; stdin if left out or -.", metavar="PROMPT"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="local:PATH or embedded; default: from the settings, else embedded.",
            metavar="MODEL",
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option(min=1, max=1024, help="How many continuations to generate in parallel.")
    ] = 1,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop each after this many tokens; default: where the model stops."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=100.0,
            help="0 always takes the most likely token; default: the model's own, which is 0 if it "
            "says not to sample, else 1.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Sample from this many top tokens; 0 is all; default: the model's own, else all.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Sample from the top tokens up to this share; default: the model's own, else 1.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Sample from tokens with this share of the top probability; default: 0.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Above 1, makes repetition less likely; default: the model's own, else 1.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="The same seed gives the same text; default: 42.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text; repeatable.", metavar="TEXT")
    ] = None,
    json_schema: Annotated[
        Path | None,
        typer.Option(
            help="Generate JSON that fits this schema.", metavar="FILE", rich_help_panel=FORM
        ),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(
            help="Generate text that matches this regular expression as a whole.",
            metavar="REGEX",
            rich_help_panel=FORM,
        ),
    ] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(
            help="Generate text of this grammar, written in Lark's notation.",
            metavar="FILE",
            rich_help_panel=FORM,
        ),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Treat the prompt as a chat message and answer it.")
    ] = False,
    output: Annotated[Format, typer.Option(help="The format of stdout.")] = Format.TEXT,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    context: ContextOption = None,
    threads: ThreadsOption = None,
) -> int:
    """Continue a prompt with a model on this machine.

    Python blocks in a nanochat model's answer run in the sandbox. Exit codes: 0 done, 1 the text
    was cut off before it had the form asked for, 2 wrong usage or a model that cannot be run,
    3 its process died, 4 no sandbox, 130 interrupted.
    """
    settings = config.load(Path.cwd(), flags=local_flags(device, dtype, quantize, context, threads))
    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    if stop and not all(stop):
        raise UsageError("--stop needs a text", hint="Is a variable of the shell empty?")
    wishes = {
        "chat": chat,
        "num_samples": num_samples,
        "max_tokens": max_tokens,
        "sampling": {name: value for name, value in chosen.items() if value is not None},
        "stop": tuple(stop or ()),
        "grammar": _grammar(json_schema, regex, grammar),
    }
    name = model or _configured(settings)
    registry.local_folder(name)  # reports a wrong name before waiting for stdin
    job = _Job(name, _prompt(prompt), output, settings, wishes)
    return asyncio.run(_run(job))


def _configured(settings: Settings) -> str:
    """The configured model if it runs on this machine, else the embedded one."""
    name = settings.model or registry.EMBEDDED
    local = registry.split_name(name)[0] in (registry.LOCAL, registry.EMBEDDED)
    return name if local else registry.EMBEDDED


def _prompt(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise UsageError("no prompt was given", hint="Write one, or - to type it in")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the prompt on stdin is not UTF-8") from error
    return text.removesuffix("\n")


def _grammar(schema: Path | None, regex: str | None, lark: Path | None) -> tuple[str, Any] | None:
    """Kind and source of the one grammar that the options give, if any."""
    if sum(option is not None for option in (schema, regex, lark)) > 1:
        raise UsageError("--json-schema, --regex and --grammar exclude each other")
    if schema is not None:
        return "json_schema", _schema(schema)
    if regex is not None:
        return "regex", regex
    return ("lark", _text_of(lark)) if lark is not None else None


def _schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(_text_of(file))
    except ValueError as error:
        raise UsageError(f"{file}: not valid JSON ({error})") from error
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deep") from error
    if not isinstance(schema, dict):
        raise UsageError(f"{file}: a JSON Schema is an object")
    return schema


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8") from error


async def _run(job: _Job) -> int:
    task = asyncio.current_task()
    assert task is not None
    with interruptible(task.cancel) as interruption:
        try:
            return await _generate(job)
        except asyncio.CancelledError:
            if interruption.exit_code is None:
                raise
            return interruption.exit_code


async def _generate(job: _Job) -> int:
    """Generate and show the samples; returns the exit code."""
    from agentcli.llm.completion import Completer, Ended, Wishes, Written

    completer = Completer(registry.local_folder(job.model), job.settings.local)
    if completer.folder.warning:
        show_note(completer.folder.warning)
    try:
        wishes = Wishes(**job.wishes)
        tokens = completer.tokens(job.prompt, chat=wishes.chat)
        if wishes.num_samples > 1 and completer.sampling(wishes)["temperature"] == 0:
            show_note("at temperature 0, all samples are the same; try --temperature 1")
        texts = [""] * wishes.num_samples
        await completer.engine.start()
        samples = open_samples(len(texts)) if job.output is Format.TEXT else None
        ended: Ended | None = None
        try:
            answer = completer.complete(tokens, wishes, _python(job.settings))
            async with aclosing(answer) as events:
                async for event in events:
                    match event:
                        case Written(row, text):
                            texts[row] += text
                            _show(samples, row, text)
                        case Ended():
                            ended = event
        finally:
            if samples is not None:
                samples.close()
            elif texts != [""] * len(texts) or ended is not None:
                _print_json(job, completer.engine.ready, texts, ended)
    finally:
        await completer.aclose()
    if wishes.grammar is not None and ended is not None and set(ended.finishes) != {"stop"}:
        kind, _ = wishes.grammar
        told = (
            "its JSON is not complete" if kind == "json_schema" else "it has not the form asked for"
        )
        hint = ". Raise --max-tokens" if "length" in ended.finishes else ""
        show_error(f"the answer was cut off, so {told}{hint}")
        return 1
    return 0


def _show(samples: Samples | None, row: int, text: str) -> None:
    if samples is not None:
        samples.write(row, text)


def _print_json(job: _Job, ready: dict[str, Any], texts: list[str], ended: Any) -> None:
    """Print one object; after an interruption it has the samples generated so far."""
    finishes = ended.finishes if ended else ["cancelled"] * len(texts)
    result: dict[str, Any] = {
        "model": job.model,
        "samples": [
            {"text": text, "finish_reason": finish}
            for text, finish in zip(texts, finishes, strict=True)
        ],
        **{key: ready[key] for key in _LOADED},
        "load_s": round(ready["load_s"], 3),
    }
    if ended:
        for sample, tokens in zip(result["samples"], ended.tokens, strict=True):
            sample["tokens"] = tokens
        result |= {
            "prompt_tokens": ended.prompt_tokens,
            "reused_tokens": ended.reused_tokens,
            "output_tokens": sum(ended.tokens),
            "prefill_s": round(ended.prefill_s, 4),
            "decode_s": round(ended.decode_s, 4),
            "tokens_per_s": round(ended.tokens_per_s, 1),
        }
    print(json.dumps(result, ensure_ascii=False), flush=True)


def _python(settings: Settings) -> Callable[[str], Awaitable[str | None]]:
    """Runs in-stream blocks: plain arithmetic directly, others as programs in the sandbox."""
    level = None if settings.sandbox == "auto" else settings.sandbox

    async def run(source: str) -> str | None:
        try:
            return calculate(source)
        except ToolInputError:
            result = await execute_code(source, level=level)
        text = result.stdout.strip() if result.success else result.error or "failed"
        return str(truncate(text, _RESULT_CHARS))

    return run
