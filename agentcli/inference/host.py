"""The engine process: holds one model and serves one request after another.

``llm/engine.py`` starts it and exchanges lines of JSON with it over a socket, so that torch, its
memory and its threads stay out of the main process.

    in    load      path, device, dtype, quantize, context, threads, kernels   once, first
          generate  id, conversation, tokens, max_tokens, sampling, tools, inline, count, places,
                    syntax, thinking                                          a turn of an agent
          complete  id, tokens, max_tokens, num_samples, sampling, grammar, stop, python
          check     id                                              runs ``selftest.py``
          cancel    id                                              stops within one token
          text      id, text                                        answers an ``ask`` or ``run``
          more      id                                              a proposal was taken
    out   ready     family, parameters, context, device, dtype, threads, load_s
          token     id, token
          column    id, tokens, sampled      one token per row; -1 for a row that has ended
          proposal  id, tokens, logprob      one of up to ``count`` complete answers
          ask       id, tool, arguments      which text must this argument be copied from?
          run       id, source               what is the output of this in-stream block?
          end       id, finish, finishes, prompt, held, reused, output, prefill_s, decode_s
          end       id, findings             for a ``check``
          error     id, error, message, hint

Each conversation has a KV cache, and only the tokens after the longest prefix that a request shares
with it are prefilled. A turn is masked by the grammar of ``syntax`` (see ``call_syntax.py``; empty
for nanochat's), a completion by its ``grammar``: a kind (json_schema, regex, lark) and a source.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from agentcli.errors import AgentCLIError, ModelError
from agentcli.inference.call_syntax import SYNTAXES
from agentcli.inference.calls import CallCursor
from agentcli.inference.constrain import Constraint, Ended, Grammar
from agentcli.inference.engine import Engine, Generation
from agentcli.inference.loading import engine_of, load
from agentcli.inference.propose import Proposal, propose
from agentcli.inference.rerank import Files, reranked
from agentcli.inference.row import InlineTools, ToolTags
from agentcli.inference.sampling import Sampling
from agentcli.inference.selftest import selftest
from agentcli.inference.speculate import Lookup
from agentcli.inference.substring import CopyConstraint
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
from agentcli.model.kv_cache import KVCache

MAX_CACHED = 4  # conversations with a KV cache, and toolsets with a compiled grammar
PREFETCH = 2  # proposals made in advance; few, because trying them out needs the CPU, too

_GRAMMARS: Mapping[str, Callable[..., Grammar]] = {
    "json_schema": Grammar.json_schema,
    "regex": Grammar.regex,
    "lark": Grammar.lark,
}


class Host:
    """A loaded model and its conversations."""

    def __init__(self, wire: Wire, options: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        threads = options.get("threads")
        self.loaded = load(
            options["path"],
            device=options.get("device"),
            dtype=options.get("dtype"),
            quantize=options.get("quantize"),
            context=options.get("context"),
            kernels=options.get("kernels"),
        )
        self._wire = wire
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        # An in-stream block ends the answer; its result comes with the next request.
        ends = {tokenizer.special[name] for name in (END, PYTHON_END) if name in tokenizer.special}
        load_s = time.perf_counter() - started
        self._engine = engine_of(self.loaded, threads=threads, ends=frozenset(ends))
        self._files = Files(self._engine)
        self._caches: OrderedDict[str, KVCache] = OrderedDict()
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()
        wire.send(
            "ready",
            family=self.loaded.family,
            parameters=model.count_parameters()["total"],
            context=model.config.sequence_len,
            device=str(model.device),
            dtype=str(model.embedding_weight.dtype).removeprefix("torch."),
            quantize=self.loaded.quantize,
            threads=torch.get_num_threads(),
            load_s=load_s,
        )

    def generate(self, request: Mapping[str, Any]) -> None:
        """Stream one turn of an agent token by token, or several proposals for it."""
        if "count" in request:
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
            # Edits repeat text that was read before, so prompt lookup finds good drafts.
            lookup=Lookup(),
            cache=cache,
            cancelled=lambda: self._wire.cancelled(number),
        )
        for (token,), _ in generation:
            self._wire.send("token", id=number, token=token)
        self._end(number, generation, held)

    def complete(self, request: Mapping[str, Any]) -> None:
        """Stream one or more continuations of a prompt, one column of tokens at a time."""
        number: int = request["id"]
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        constraint: Constraint | None = None
        if (asked := request.get("grammar")) is not None:
            kind, source = asked
            grammar = _GRAMMARS[kind](source, tokenizer, model.config.vocab_size)
            constraint = Ended(grammar.constraint(), tokenizer, self.loaded.stop_ids)

        def run(source: str) -> str | None:
            self._wire.send("run", id=number, source=source)
            result: str | None = self._wire.next("text", number)["text"]
            return result

        inline = InlineTools(ToolTags.nanochat(tokenizer), run) if request.get("python") else None
        samples: int = request.get("num_samples", 1)
        stop_ids = self.loaded.stop_ids
        generation = Engine(
            model, tokenizer, stop_ids=stop_ids, threads=self._engine.threads
        ).generate(
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
        """Run the self-test of the model."""
        findings = [dataclasses.asdict(finding) for finding in selftest(self.loaded)]
        self._wire.send("end", id=request["id"], findings=findings)

    def _propose(self, request: Mapping[str, Any]) -> None:
        """Send alternative answers, each a tool call, as soon as each is complete."""
        number: int = request["id"]
        wire, sent = self._wire, 0
        special_id = self.loaded.tokenizer.special_id
        tools = [OfferedTool(**tool) for tool in request.get("tools", ())]
        found = propose(
            self._engine,
            request["tokens"],
            self._constraint(request),
            self._cache(request["conversation"]),
            opening=(special_id(CALL_START),),
            closing=(special_id(CALL_END), special_id(END)),
            varying={name: old for tool in tools for name, old in tool.variant_of.items()},
            places=[place for tool in tools for place in _edits(tool, request)],
            max_tokens=request["max_tokens"],
            cancelled=lambda: wire.cancelled(number),
        )
        proposals = reranked(found, self._gain(tools, self._asking(number)))
        for proposal in islice(proposals, request["count"]):
            sent += 1
            wire.send("proposal", id=number, tokens=proposal.tokens, logprob=proposal.logprob)
            if sent > PREFETCH:
                wire.next("more", number)
            if wire.cancelled(number):
                break
        wire.send("end", id=number, finish="stop", count=sent)

    def _gain(
        self, tools: Sequence[OfferedTool], text_of: Callable[[str, Mapping[str, str]], str | None]
    ) -> Callable[[Proposal], float]:
        """How much likelier a proposal makes the file that it edits, if it is an edit."""
        tokenizer = self.loaded.tokenizer
        special = frozenset(tokenizer.special.values())
        edits = {
            tool.name: (tool.text_of[old], old, new)
            for tool in tools
            for new, old in tool.variant_of.items()
            if tool.text_of.get(old)
        }
        texts: dict[tuple[str, str], str | None] = {}

        def gain(proposal: Proposal) -> float:
            plain = tokenizer.decode([token for token in proposal.tokens if token not in special])
            call, _ = json.JSONDecoder().raw_decode(plain)  # others may follow
            name, arguments = call["name"], call["arguments"]
            if name not in edits:
                return 0.0
            path, old, new = (str(arguments[argument]) for argument in edits[name])
            if (name, path) not in texts:
                texts[name, path] = text_of(name, {edits[name][0]: path})
            text = texts[name, path]
            return 0.0 if text is None else self._files.gain(path, text, old, new)

        return gain

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
        while len(self._caches) > MAX_CACHED:
            self._caches.popitem(last=False)
        return cache

    def _constraint(self, request: Mapping[str, Any]) -> Constraint:
        number: int = request["id"]
        tokenizer, vocab_size = self.loaded.tokenizer, self.loaded.model.config.vocab_size
        tools = [OfferedTool(**tool) for tool in request.get("tools", ())]

        text_of = self._asking(number)
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
            raise ModelError(
                f"the tokenizer of this {self.loaded.family} model lacks the special tokens"
                " of agentcli's tool calls"
            )
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
        )

    def _asking(self, number: int) -> Callable[[str, Mapping[str, str]], str | None]:
        """A function that asks the client for the text that an argument must be part of."""

        def text_of(tool: str, arguments: Mapping[str, str]) -> str | None:
            self._wire.send("ask", id=number, tool=tool, arguments=dict(arguments))
            text: str | None = self._wire.next("text", number)["text"]
            return text

        return text_of

    def _grammar(self, key: str, make: Callable[[], Grammar]) -> Grammar:
        # With hundreds of tools, a grammar takes a second to compile and tens of megabytes.
        grammar = self._grammars.pop(key, None) or make()
        self._grammars[key] = grammar
        while len(self._grammars) > MAX_CACHED:
            self._grammars.popitem(last=False)
        return grammar


def _edits(tool: OfferedTool, request: Mapping[str, Any]) -> list[tuple[Edit, float]]:
    """Return the edits by this tool that the request's ``places`` ([path, old text, cost]) ask for.

    Each comes with its cost.
    """
    return [
        (Edit.at(tool.name, {tool.text_of[old]: path, old: text}, new, old), cost)
        for new, old in tool.variant_of.items()
        if tool.text_of.get(old)
        for path, text, cost in request.get("places", ())
    ]


def _sampling(request: Mapping[str, Any]) -> Sampling:
    given = {"temperature": 0.0, "seed": 0, **request.get("sampling", {})}
    given["logit_bias"] = dict(given.get("logit_bias", ()))  # pairs: JSON has no integer keys
    return Sampling(**given)


def serve(link: socket.socket) -> None:
    """Serve requests until the other side closes the socket.

    Raises:
        Closed: the socket was closed.
    """
    wire = Wire(link)
    first = wire.next()
    try:
        host = Host(wire, first)
    except Closed:
        raise
    except Exception as error:
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
    # torch has no exception class for running out of CPU memory.
    allocator = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return allocator or isinstance(error, MemoryError | torch.OutOfMemoryError)


def main(descriptor: int) -> None:
    """Serve the inherited socket ``descriptor`` until the other side closes it."""
    try:
        serve(socket.socket(fileno=descriptor))
    except Closed:
        sys.exit(0)
