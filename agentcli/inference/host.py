"""The engine process: one model, conversations by name, one request after another.

Started by ``llm/engine.py``, spoken to over a socket in lines of JSON. torch, its memory and its
threads live and die here.

    in    load      path, context, threads                          once, first
          generate  id, conversation, tokens, max_tokens, temperature, top_p, seed, tools, inline,
                    begun, count
          cancel    id                                              stops within one token
          text      id, text                                        answers an ``ask``
          more      id                                              a proposal was taken
    out   ready     context, dtype, threads, load_s
          token     id, token
          proposal  id, tokens, logprob      one of ``count`` answers, whole; mean of its tokens
          ask       id, tool, arguments      which text must an argument be copied from?
          end       id, finish, prompt, reused, output, prefill_s, decode_s
          error     id, error, message, hint

A conversation keeps its cache; a request's tokens are compared with it, and only what follows the
longest common prefix is computed.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from agentcli.errors import AgentCLIError, ModelError
from agentcli.inference.constrain import Grammar
from agentcli.inference.engine import Engine, Generation
from agentcli.inference.propose import propose
from agentcli.inference.sampling import Sampling
from agentcli.inference.speculate import Lookup
from agentcli.inference.threads import fastest_threads
from agentcli.inference.turn import (
    CALL_START,
    END,
    PYTHON_END,
    OfferedTool,
    TurnConstraint,
    call_grammar,
)
from agentcli.model.checkpoint import LoadedModel, load_model
from agentcli.model.kv_cache import KVCache
from agentcli.model.pack import can_pack

KEPT = 4  # conversations whose caches stay
AHEAD = 2  # proposals that are made before they are wanted: whoever tries them needs the processor


class Closed(Exception):
    """The other side has gone."""


class Wire:
    """Lines of JSON over a socket, read ahead so that a cancellation is seen while decoding."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._waiting: deque[dict[str, Any]] = deque()

    def send(self, event: str, **fields: Any) -> None:
        try:
            self._link.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")
        except OSError:
            raise Closed from None

    def next(self, op: str = "", number: int | None = None) -> dict[str, Any]:
        """The next message, or the next of this kind and id; others keep their places."""
        while True:
            for at, message in enumerate(self._waiting):
                if not op or (message["op"] == op and message.get("id") == number):
                    del self._waiting[at]
                    return message
            self._read()

    def cancelled(self, number: int) -> bool:
        """Whether this request is to stop. Takes what has come in, and does not wait."""
        while select.select([self._link], [], [], 0)[0]:
            self._read()
        return any(m["op"] == "cancel" and m["id"] == number for m in self._waiting)

    def forget(self, number: int) -> None:
        """Drop what is left of a request that has ended."""
        kept = [m for m in self._waiting if m.get("id") != number or m["op"] == "generate"]
        self._waiting = deque(kept)

    def _read(self) -> None:
        try:
            data = self._link.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            raise Closed
        *lines, rest = (self._buffer + data).split(b"\n")
        self._buffer = bytearray(rest)
        self._waiting.extend(json.loads(line) for line in lines)


class Host:
    """A loaded model and its conversations."""

    def __init__(self, wire: Wire, path: Path, context: int | None, threads: int | None) -> None:
        started = time.perf_counter()
        self.loaded = load(path, context)
        self._wire = wire
        tokenizer = self.loaded.tokenizer
        # The in-stream block ends an answer: its result comes with the next request.
        ends = {tokenizer.special_id(END), tokenizer.special_id(PYTHON_END)}
        stops = frozenset(self.loaded.stop_ids | ends)
        self._engine = Engine(self.loaded.model, tokenizer, stop_ids=stops)
        self._caches: OrderedDict[str, KVCache] = OrderedDict()
        self._grammars: dict[str, Grammar] = {}
        load_s = time.perf_counter() - started
        if threads:
            torch.set_num_threads(threads)
        else:
            threads = fastest_threads(self.loaded.model)
        model = self.loaded.model
        dtype = str(model.embedding_weight.dtype).removeprefix("torch.")
        wire.send(
            "ready",
            context=model.config.sequence_len,
            dtype=dtype,
            threads=threads,
            load_s=load_s,
        )

    def generate(self, request: Mapping[str, Any]) -> None:
        """One answer, token by token."""
        number: int = request["id"]
        wire = self._wire
        if request.get("count"):
            self._propose(request)
            return
        generation = self._engine.generate(
            request["tokens"],
            max_tokens=request.get("max_tokens"),
            sampling=Sampling(
                temperature=request.get("temperature", 0.0),
                top_p=request.get("top_p", 1.0),
                seed=request.get("seed", 0),
            ),
            constraint=self._constraint(request),
            # Edits repeat what was read: drafts from the text so far are mostly right.
            lookup=Lookup(),
            cache=self._cache(request["conversation"]),
            cancelled=lambda: wire.cancelled(number),
        )
        for (token,), _ in generation:
            wire.send("token", id=number, token=token)
        self._end(number, generation)

    def _propose(self, request: Mapping[str, Any]) -> None:
        """Several answers that are calls, each sent when it is whole."""
        number: int = request["id"]
        wire, made = self._wire, 0
        proposals = propose(
            self._engine,
            request["tokens"],
            self._constraint(request),
            self._cache(request["conversation"]),
            opening=(self.loaded.tokenizer.special_id(CALL_START),),
            max_tokens=request["max_tokens"],
            cancelled=lambda: wire.cancelled(number),
        )
        for proposal in islice(proposals, request["count"]):
            made += 1
            wire.send("proposal", id=number, tokens=proposal.tokens, logprob=proposal.logprob)
            if made > AHEAD:
                wire.next("more", number)
        wire.send("end", id=number, finish="stop", count=made)

    def _end(self, number: int, generation: Generation) -> None:
        row = generation.rows[0]
        self._wire.send(
            "end",
            id=number,
            finish=row.finish,
            prompt=row.n_prompt,
            reused=generation.reused,
            output=sum(len(row.generated) for row in generation.rows),
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

    def _constraint(self, request: Mapping[str, Any]) -> TurnConstraint:
        number: int = request["id"]
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        tools = [OfferedTool(**tool) for tool in request.get("tools", ())]
        grammar = None
        if tools:
            key = json.dumps(request["tools"])
            if key not in self._grammars:
                self._grammars[key] = call_grammar(tools, tokenizer, model.config.vocab_size)
            grammar = self._grammars[key]

        def text_of(tool: str, arguments: Mapping[str, str]) -> str | None:
            self._wire.send("ask", id=number, tool=tool, arguments=dict(arguments))
            text: str | None = self._wire.next("text", number)["text"]
            return text

        return TurnConstraint(
            tokenizer,
            model.config.vocab_size,
            grammar,
            tools,
            text_of,
            inline=bool(request.get("inline")),
            begun=bool(request.get("begun")),
        )


def load(path: Path, context: int | None) -> LoadedModel:
    """In bfloat16 where the processor multiplies it as fast as it reads it, else as stored.

    Raises ModelError for a model that does not write calls as this process reads them.
    """
    dtype = torch.bfloat16 if can_pack() else None
    loaded = load_model(path, dtype=dtype or "auto", context=context)
    if CALL_START not in loaded.tokenizer.special:
        raise ModelError(
            f"{path}: a {loaded.family} model that does not know agentcli's tool calls",
            hint="Serve it with ollama or vllm and name it ollama:NAME or vllm:NAME",
        )
    return loaded


def serve(link: socket.socket) -> None:
    """Until the other side closes the socket."""
    wire = Wire(link)
    first = wire.next()
    try:
        host = Host(wire, Path(first["path"]), first.get("context"), first.get("threads"))
    except (AgentCLIError, MemoryError, OSError) as error:
        _report(wire, None, error)
        return
    while True:
        request = wire.next()
        if request["op"] != "generate":
            continue
        number = request["id"]
        try:
            host.generate(request)
        except Closed:
            raise
        except Exception as error:
            _report(wire, number, error)
        wire.forget(number)


def _report(wire: Wire, number: int | None, error: BaseException) -> None:
    message = error.message if isinstance(error, AgentCLIError) else f"{error!r}"
    hint = error.hint if isinstance(error, AgentCLIError) else ""
    wire.send("error", id=number, error=type(error).__name__, message=message, hint=hint or "")


def main(descriptor: int) -> None:
    """Serve the socket that was inherited as ``descriptor``."""
    try:
        serve(socket.socket(fileno=descriptor))
    except Closed:
        sys.exit(0)
