"""The engine process: one model, conversations by name, one request after another.

Started by ``llm/engine.py``, spoken to over a socket in lines of JSON. torch, its memory and its
threads live and die here.

    in    load      path, device, dtype, quantize, context, threads, kernels   once, first
          generate  id, conversation, tokens, max_tokens, sampling, tools, inline, begun, count,
                    places, syntax, thinking                                  a turn of an agent
          complete  id, tokens, max_tokens, num_samples, sampling, schema, stop, python
          check     id                                              see ``selftest.py``
          cancel    id                                              stops within one token
          text      id, text                                        answers an ``ask`` or ``run``
          more      id                                              a proposal was taken
    out   ready     family, parameters, context, device, dtype, threads, load_s
          token     id, token
          column    id, tokens, sampled      a token of each row; -1: that row has ended
          proposal  id, tokens, logprob      one of ``count`` answers, whole; mean of its tokens
          ask       id, tool, arguments      which text must an argument be copied from?
          run       id, source               what does this in-stream block give?
          end       id, finish, finishes, prompt, held, reused, output, prefill_s, decode_s
          end       id, findings             of a ``check``
          error     id, error, message, hint

A conversation keeps its cache; a request's tokens are compared with the ``held`` ones, and only
what follows the longest common prefix is computed. A turn is masked by the grammar of ``syntax``
(``call_syntax.py``; empty: nanochat's), a completion by a JSON ``schema``.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch

from agentcli.errors import AgentCLIError, ModelError
from agentcli.inference.call_syntax import SYNTAXES
from agentcli.inference.calls import CallCursor
from agentcli.inference.constrain import Constraint, Ended, Grammar
from agentcli.inference.engine import Engine, Generation
from agentcli.inference.propose import propose
from agentcli.inference.row import InlineTools, ToolTags
from agentcli.inference.sampling import Sampling
from agentcli.inference.selftest import selftest
from agentcli.inference.speculate import Lookup
from agentcli.inference.substring import CopyConstraint
from agentcli.inference.threads import StepThreads, step_threads
from agentcli.inference.tool_schemas import OfferedTool
from agentcli.inference.turn import (
    CALL_END,
    CALL_START,
    END,
    PYTHON_END,
    TurnConstraint,
    call_grammar,
    text_for,
)
from agentcli.inference.turn_grammar import turn_grammar
from agentcli.inference.variants import Edit
from agentcli.inference.wire import STARTS, Closed, Wire
from agentcli.model import native
from agentcli.model.checkpoint import LoadedModel, load_model, stored_in_int8
from agentcli.model.kv_cache import KVCache
from agentcli.model.pack import can_pack

KEPT = 4  # conversations whose caches stay, and sets of tools whose grammars do
AHEAD = 2  # proposals that are made before they are wanted: whoever tries them needs the processor
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Host:
    """A loaded model and its conversations."""

    def __init__(self, wire: Wire, options: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        self.loaded = load(options)
        self._wire = wire
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        # The in-stream block ends an answer: its result comes with the next request.
        ends = {tokenizer.special[name] for name in (END, PYTHON_END) if name in tokenizer.special}
        load_s = time.perf_counter() - started
        self._threads: StepThreads | None = None
        if fixed := options.get("threads"):
            torch.set_num_threads(fixed)
        else:
            self._threads = step_threads(model)
        self._engine = Engine(
            model, tokenizer, stop_ids=self.loaded.stop_ids | ends, threads=self._threads
        )
        self._caches: OrderedDict[str, KVCache] = OrderedDict()
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()
        wire.send(
            "ready",
            family=self.loaded.family,
            parameters=model.count_parameters()["total"],
            context=model.config.sequence_len,
            device=str(model.device),
            dtype=str(model.embedding_weight.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            load_s=load_s,
        )

    def generate(self, request: Mapping[str, Any]) -> None:
        """One turn of an agent, token by token, or several proposals for it."""
        if request.get("count"):
            self._propose(request)
            return
        number: int = request["id"]
        cache = self._cache(request["conversation"])
        held = cache.length
        generation = self._engine.generate(
            request["tokens"],
            max_tokens=request.get("max_tokens"),
            sampling=_sampling(request),
            constraint=self._constraint(request),
            # Edits repeat what was read: drafts from the text so far are mostly right.
            lookup=Lookup(),
            cache=cache,
            cancelled=lambda: self._wire.cancelled(number),
        )
        for (token,), _ in generation:
            self._wire.send("token", id=number, token=token)
        self._end(number, generation, held)

    def complete(self, request: Mapping[str, Any]) -> None:
        """Several continuations of a prompt, column by column."""
        number: int = request["id"]
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        constraint: Constraint | None = None
        if (schema := request.get("schema")) is not None:
            grammar = Grammar.json_schema(schema, tokenizer, model.config.vocab_size)
            constraint = Ended(grammar.constraint(), tokenizer, self.loaded.stop_ids)

        def run(source: str) -> str | None:
            self._wire.send("run", id=number, source=source)
            result: str | None = self._wire.next("text", number)["text"]
            return result

        inline = InlineTools(ToolTags.nanochat(tokenizer), run) if request.get("python") else None
        samples: int = request.get("num_samples", 1)
        stop_ids = self.loaded.stop_ids
        generation = Engine(model, tokenizer, stop_ids=stop_ids, threads=self._threads).generate(
            request["tokens"],
            num_samples=samples,
            max_tokens=request.get("max_tokens"),
            sampling=_sampling(request),
            constraint=constraint,
            tools=inline,
            stop=request.get("stop", ()),
            lookup=Lookup() if samples == 1 else None,
            cancelled=lambda: self._wire.cancelled(number),
        )
        for tokens, sampled in generation:
            self._wire.send("column", id=number, tokens=tokens, sampled=sampled)
        self._end(number, generation, 0)

    def check(self, request: Mapping[str, Any]) -> None:
        """Tries whether the model works."""
        findings = [dataclasses.asdict(finding) for finding in selftest(self.loaded)]
        self._wire.send("end", id=request["id"], findings=findings)

    def _propose(self, request: Mapping[str, Any]) -> None:
        """Several answers that are calls, each sent when it is whole."""
        number: int = request["id"]
        wire, made = self._wire, 0
        special_id = self.loaded.tokenizer.special_id
        tools = [OfferedTool(**tool) for tool in request.get("tools", ())]
        proposals = propose(
            self._engine,
            request["tokens"],
            self._constraint(request),
            self._cache(request["conversation"]),
            opening=(special_id(CALL_START),),
            closing=(special_id(CALL_END), special_id(END)),
            varying={name: old for tool in tools for name, old in tool.variant_of.items()},
            places=[place for tool in tools for place in _places(tool, request)],
            max_tokens=request["max_tokens"],
            cancelled=lambda: wire.cancelled(number),
        )
        for proposal in islice(proposals, request["count"]):
            made += 1
            wire.send("proposal", id=number, tokens=proposal.tokens, logprob=proposal.logprob)
            if made > AHEAD:
                wire.next("more", number)
        wire.send("end", id=number, finish="stop", count=made)

    def _end(self, number: int, generation: Generation, held: int) -> None:
        rows = generation.rows
        self._wire.send(
            "end",
            id=number,
            finish=rows[0].finish,
            finishes=[row.finish for row in rows],
            prompt=rows[0].n_prompt,
            held=held,
            reused=generation.reused,
            output=sum(len(row.generated) for row in rows),
            prefill_s=generation.prefill_s,
            decode_s=generation.decode_s,
        )

    def _cache(self, conversation: str) -> KVCache:
        cache = self._caches.pop(conversation, None)
        if cache is None:
            cache = self.loaded.model.new_cache(capacity=1024)
        self._caches[conversation] = cache
        while len(self._caches) > KEPT:
            self._caches.popitem(last=False)
        return cache

    def _constraint(self, request: Mapping[str, Any]) -> Constraint:
        number: int = request["id"]
        tokenizer, vocab_size = self.loaded.tokenizer, self.loaded.model.config.vocab_size
        tools = [OfferedTool(**tool) for tool in request.get("tools", ())]

        def text_of(tool: str, arguments: Mapping[str, str]) -> str | None:
            self._wire.send("ask", id=number, tool=tool, arguments=dict(arguments))
            text: str | None = self._wire.next("text", number)["text"]
            return text

        name: str = request.get("syntax", "")
        thinking = request.get("thinking", "")
        key = json.dumps([name, thinking, request.get("tools", ())])
        if name:
            syntax = SYNTAXES[name]
            grammar = self._grammar(
                key, lambda: turn_grammar(syntax, tools, tokenizer, vocab_size, thinking)
            )
            turn: Constraint = grammar.constraint()
            if any(tool.text_of for tool in tools):
                prefix = (syntax.arguments,) if syntax.arguments else ()
                ask = text_for(tools, text_of, prefix, plain=syntax.tagged)
                turn = CopyConstraint(turn, tokenizer, ask, CallCursor(syntax))
            return Ended(turn, tokenizer, self.loaded.stop_ids)
        if CALL_START not in tokenizer.special:
            raise ModelError(f"a {self.loaded.family} model that does not know agentcli's calls")
        calls = None
        if tools:
            calls = self._grammar(key, lambda: call_grammar(tools, tokenizer, vocab_size))
        return TurnConstraint(
            tokenizer,
            vocab_size,
            calls,
            tools,
            text_of,
            inline=bool(request.get("inline")),
            begun=bool(request.get("begun")),
        )

    def _grammar(self, key: str, make: Callable[[], Grammar]) -> Grammar:
        """Kept: with hundreds of tools one takes a second to make, and tens of megabytes."""
        grammar = self._grammars.pop(key, None) or make()
        self._grammars[key] = grammar
        while len(self._grammars) > KEPT:
            self._grammars.popitem(last=False)
        return grammar


def load(options: Mapping[str, Any]) -> LoadedModel:
    """Without a dtype: bfloat16 where the device multiplies it as fast as it reads it, else as
    stored; weights stored in 8 bits stay so where there are kernels for them. Without a device:
    the first CUDA device, else the processor.

    Raises ModelError for a device that is not there, and what ``load_model`` raises.
    """
    device = _device(options.get("device"))
    on_cpu = device.type == "cpu"
    streamed = native.use(options.get("kernels") if on_cpu else None)
    name, quantize, path = options.get("dtype"), options.get("quantize"), options["path"]
    fast = device.type == "cuda" or (on_cpu and (can_pack() or streamed))
    dtype: Any = DTYPES[name] if name else torch.bfloat16 if fast else "auto"
    if streamed and not name and not quantize and stored_in_int8(path):
        dtype, quantize = torch.float32, "int8"
    return load_model(
        path, dtype=dtype, device=device, quantize=quantize, context=options.get("context")
    )


def _places(tool: OfferedTool, request: Mapping[str, Any]) -> list[tuple[Edit, float]]:
    """The edits by this tool that a request gives as [path, old text, cost]."""
    return [
        (Edit.at(tool.name, {tool.text_of[old]: path, old: text}, new, old), cost)
        for new, old in tool.variant_of.items()
        if tool.text_of.get(old)
        for path, text, cost in request.get("places", ())
    ]


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name!r} cannot be used ({reason})", hint="Use cpu") from None
    return device


def _sampling(request: Mapping[str, Any]) -> Sampling:
    return Sampling(**{"temperature": 0.0, "seed": 0, **request.get("sampling", {})})


def serve(link: socket.socket) -> None:
    """Until the other side closes the socket."""
    wire = Wire(link)
    first = wire.next()
    try:
        host = Host(wire, first)
    except (AgentCLIError, MemoryError, OSError) as error:
        _report(wire, None, error)
        return
    while True:
        request = wire.next()
        if request["op"] not in STARTS:
            continue
        number = request["id"]
        try:
            match request["op"]:
                case "generate":
                    host.generate(request)
                case "complete":
                    host.complete(request)
                case _:
                    host.check(request)
        except Closed:
            raise
        except Exception as error:
            _report(wire, number, error)
        wire.forget(number)


def _report(wire: Wire, number: int | None, error: BaseException) -> None:
    if _out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else "MemoryError"
        hint = "Use a shorter --context, fewer samples, or --quantize"
        error = ModelError(f"out of memory ({reason})", hint=hint)
    message = error.message if isinstance(error, AgentCLIError) else f"{error!r}"
    told = error.hint if isinstance(error, AgentCLIError) else None
    wire.send("error", id=number, error=type(error).__name__, message=message, hint=told or "")


def _out_of_memory(error: BaseException) -> bool:
    # For memory of the processor torch has no class of its own.
    allocator = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return allocator or isinstance(error, MemoryError | torch.OutOfMemoryError)


def main(descriptor: int) -> None:
    """Serve the socket that was inherited as ``descriptor``."""
    try:
        serve(socket.socket(fileno=descriptor))
    except Closed:
        sys.exit(0)
