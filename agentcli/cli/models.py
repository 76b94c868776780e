"""``agentcli models``: lists models, shows what they need, and tests them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcli import config
from agentcli.cli.errors import show_note
from agentcli.cli.help import App
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
    local_flags,
)
from agentcli.cli.table import table
from agentcli.errors import ConfigError, ContextWindowError, ModelError
from agentcli.extras import install
from agentcli.folders import data_folder
from agentcli.llm import registry
from agentcli.settings import LocalSettings
from agentcli.text import counted, escape

app = App("List models, show what they need, and test them.")

_MODEL = typer.Argument(help="A folder, a nanochat file, local:PATH or embedded.", metavar="MODEL")
_JSON = typer.Option("--json", help="Print one JSON value instead of text.")


@app.command("list")
def list_(as_json: Annotated[bool, _JSON] = False) -> None:
    """List the models that --model can name here.

    Local models are searched for in agentcli's data folder (models/) and in the caches of
    Hugging Face and nanochat; providers with a key are listed with the models that have a price.
    """
    from agentcli.llm import provider_models

    found: list[provider_models.Listed] = []
    unusable: dict[str, str] = {}
    missing = registry.lacking()
    if not missing:
        from agentcli.llm import local_models

        local, unusable = local_models.listed(os.environ, data_folder() / "models")
        found += local
    found += provider_models.listed(config.load(Path.cwd()), os.environ)
    if as_json:
        print(json.dumps([{"name": m.name, "what": m.what, "context": m.context} for m in found]))
        return
    rows = [(m.name, f"{m.context:,}" if m.context else "", m.what) for m in found]
    for line in table(("MODEL", "CONTEXT", "WHAT"), rows, sys.stdout.isatty()):
        print(escape(line))
    if missing:
        show_note(f"local models are left out (missing: {', '.join(missing)}). {install('local')}")
    for name, why in unusable.items():
        show_note(f"local:{name} cannot be used: {why}")


@app.command()
def show(
    model: Annotated[str, _MODEL],
    context: ContextOption = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show a model's family, its size, and the memory that it needs with a full context."""
    folder = _open(model, context)
    from agentcli.model.size import FORMATS, parameters, weight_bytes

    shape = folder.config
    window = shape.sequence_len
    facts = {
        "path": str(folder.path),
        "family": folder.family,
        "kind": folder.kind,
        "parameters": parameters(shape).total,
        "layers": shape.n_layer,
        "context": window,
        "trained_context": folder.trained_context,
        "vocabulary": shape.vocab_size,
        "chat": _chat(folder),
        "memory": {
            form: {
                "weights": weight_bytes(shape, form),
                "cache": shape.cache_bytes(window, 4 if form == "float32" else 2),
            }
            for form in FORMATS
        },
    }
    if as_json:
        print(json.dumps(facts))
    else:
        _print_facts(facts, shape)


def _print_facts(facts: dict[str, Any], shape: Any) -> None:
    from agentcli.llm.local_models import short_count

    lines = {
        "path": facts["path"],
        "family": facts["family"],
        "parameters": f"{short_count(facts['parameters'])} ({facts['parameters']:,})",
        "layers": f"{shape.n_layer} of width {shape.n_embd}, {shape.n_head} heads "
        f"({shape.n_kv_head} of keys and values) of {shape.head_dim}",
        "vocabulary": f"{facts['vocabulary']:,}",
        "context": f"{facts['context']:,} tokens{_beyond(facts)}",
        "chat": facts["chat"] or "none: a base model",
    }
    for name, text in lines.items():
        print(escape(f"{name:<12}{text}"))
    print(f"\nmemory, with a context of {facts['context']:,} tokens:")
    rows = [
        (form, _size(used["weights"]), _size(used["cache"]), _size(sum(used.values())))
        for form, used in facts["memory"].items()
    ]
    for line in table(("FORMAT", "WEIGHTS", "CACHE", "TOTAL"), rows, True):
        print(line)
    widest = _size(facts["memory"]["float32"]["cache"])
    print(f"\nOn a processor with agentcli's kernels, the cache takes {widest} in every format.")


def _beyond(facts: dict[str, Any]) -> str:
    trained = facts["trained_context"]
    return f", beyond the {trained:,} of its training" if facts["context"] > trained else ""


@app.command()
def check(
    model: Annotated[str, _MODEL],
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    context: ContextOption = None,
    threads: ThreadsOption = None,
) -> int:
    """Load a model and test its logits, cache, tokenizer and speed.

    Exit codes: 0 everything works, 1 a test failed, 2 the model cannot be loaded.
    """
    flags = local_flags(device, dtype, quantize, context, threads)
    settings = config.load(Path.cwd(), flags=flags).local
    return asyncio.run(_check(model, settings))


async def _check(model: str, settings: LocalSettings) -> int:
    from agentcli.llm.engine import EngineProcess

    folder = _open(model, settings.context)
    engine = EngineProcess(folder.source, settings)
    try:
        await engine.start()
        ready = engine.ready
        stored = f" with {ready['quantize']} matrices" if ready["quantize"] else ""
        threads = counted(ready["threads"], "thread")
        where = f"{ready['device']} in {ready['dtype']}{stored}, {threads}"
        _tell("loads", True, f"in {ready['load_s']:.1f} s on {where}")
        findings = await engine.check()
    except ContextWindowError as error:
        findings = [{"what": "context", "works": False, "detail": error.message}]
    finally:
        await engine.aclose()
    for finding in findings:
        _tell(**finding)
    return int(not all([_check_template(folder), *(finding["works"] for finding in findings)]))


def _check_template(folder: Any) -> bool:
    """Render a short conversation with the chat template, if there is one."""
    if not folder.chat_template:
        return True
    from agentcli.llm.templates import ChatTemplate

    try:
        template = ChatTemplate(folder.chat_template, folder.load_tokenizer())
        text = template.render([{"role": "user", "content": "hello"}])
    except ModelError as error:
        _tell("template", False, error.message)
        return False
    _tell("template", "hello" in text, counted(len(template.encode(text)), "token") + " for a word")
    return "hello" in text


def _tell(what: str, works: bool, detail: str) -> None:
    print(escape(f"{'ok' if works else 'FAILED':<8}{what:<12}{detail}"))


def _open(name: str, context: int | None) -> Any:
    """Open a model by its name, as in ``--model``, or by its path."""
    named = name == registry.EMBEDDED or name.startswith(f"{registry.LOCAL}:")
    if not named and not Path(name).exists():
        raise ConfigError(
            f"{name}: no such file or folder", hint="Name a model's folder, local:PATH or embedded"
        )
    registry.need_extra()
    from agentcli.llm.local import EMBEDDED
    from agentcli.model.folder import open_folder

    path = registry.local_folder(name) if named else Path(name)
    return open_folder(path or EMBEDDED, context=context)


def _chat(folder: Any) -> str:
    """The chat format of a model; empty if it has none."""
    from agentcli.llm.nanochat_format import SPECIAL_TOKENS
    from agentcli.llm.template_dialogue import syntax_of
    from agentcli.model.tokenizer import NANOCHAT_SPECIAL

    if folder.family == "nanochat":
        known = set(folder.load_tokenizer().special)
        if set(SPECIAL_TOKENS) <= known:
            return "nanochat's, with agentcli's tool calls"
        return "nanochat's, without tool calls" if set(NANOCHAT_SPECIAL) <= known else ""
    if not folder.chat_template:
        return ""
    name, native = syntax_of(folder.chat_template)
    return f"template, calls as {name}" if native else "template without tools; calls as hermes"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"
