"""``LLMClient`` for local models: the embedded one and model folders.

A ``Dialogue`` encodes the conversation as tokens. The engine process prefills only those that its
KV cache does not hold yet, and masks the turn so that every call is a valid call of an offered
tool. It starts with the first request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import agentcli.embedded
from agentcli.errors import ConfigError
from agentcli.llm.chat_format import Dialogue, Prompt
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    EditPlace,
    Finished,
    ModelInfo,
    Reuse,
    StreamEvent,
    StreamFold,
    UsageDelta,
)
from agentcli.llm.engine import EngineProcess
from agentcli.llm.nanochat_dialogue import ANSWER_TOKENS, NanochatDialogue
from agentcli.llm.nanochat_format import SPECIAL_TOKENS
from agentcli.llm.template_dialogue import TemplateDialogue
from agentcli.llm.tokens import TokenCount
from agentcli.messages import FinishReason, Message, Usage
from agentcli.model.folder import open_folder
from agentcli.settings import Settings

EMBEDDED = Path(agentcli.embedded.__file__).parent

# The engine's finish reasons for an answer that was cut off.
_CUT = {"length": FinishReason.LENGTH, "context": FinishReason.LENGTH}
_USAGE_EVERY_S = 0.25
"""Interval of the usage updates while decoding."""
_RECONSIDERED = "reconsidered"
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def connect(path: Path | None, settings: Settings) -> LocalClient:
    """Return the client of a model folder, or of the embedded model if ``path`` is None.

    Raises:
        CheckpointError: the folder has no readable tokenizer or configuration.
        ConfigError: the model's conversation format is not supported.
    """
    folder = open_folder(path or EMBEDDED, context=settings.local.context)
    tokenizer = folder.load_tokenizer()
    dialogue: Dialogue
    own = folder.family == "nanochat"
    if own and not set(SPECIAL_TOKENS) <= set(tokenizer.special):
        raise ConfigError(
            f"{folder.path}: a model that was not trained with agentcli's tools",
            hint="It can be talked to with agentcli generate --chat",
        )
    dialogue = NanochatDialogue(tokenizer) if own else TemplateDialogue(folder, tokenizer)
    info = ModelInfo(
        id="" if path is None else str(path),
        provider="embedded" if path is None else "local",
        context_window=folder.config.sequence_len,
        fits_itself=own,
        edit_claims=tuple(folder.generation.get("edit_claims", ())),
        reconsiders=_RECONSIDERED in folder.generation,
        warning=folder.warning,
    )
    defaults = sampling_of(folder.generation)
    reconsidered = sampling_of(folder.generation.get(_RECONSIDERED, folder.generation))
    engine = EngineProcess(folder.source, settings.local)
    return LocalClient(info, dialogue, engine, defaults, reconsidered)


def sampling_of(generation: Mapping[str, Any], *, untold: float = 0.0) -> dict[str, Any]:
    """Return the sampling settings of a generation_config.json.

    Decoding is greedy if ``do_sample`` is false. If it is left out, as by base models, the
    temperature is ``untold``. Penalties and biases apply to greedy answers, too.
    """
    settings: dict[str, Any] = {"temperature": untold}
    if generation.get("do_sample"):
        given = {name: generation[name] for name in _SAMPLING if generation.get(name) is not None}
        settings = {"temperature": 1.0, **given}
    elif generation.get("do_sample") is not None:
        settings = {"temperature": 0.0}
    if (penalty := generation.get("repetition_penalty")) is not None:
        settings["repetition_penalty"] = penalty
    if biases := [(tokens, by) for tokens, by in generation.get("sequence_bias") or () if tokens]:
        settings["sequence_bias"] = biases
    return settings


class LocalClient:
    """A model in an engine process.

    Args:
        info: What is known of the model.
        dialogue: The conversation format.
        engine: The engine process; several clients may share it.
        defaults: Sampling settings that apply unless the request has its own.
        reconsidered: The same for requests that are ``reconsidered``.
        owns: Whether ``aclose`` ends the engine process.
    """

    def __init__(
        self,
        info: ModelInfo,
        dialogue: Dialogue,
        engine: EngineProcess,
        defaults: Mapping[str, Any] | None = None,
        reconsidered: Mapping[str, Any] | None = None,
        *,
        owns: bool = True,
    ) -> None:
        self.info = info
        self.reuse = Reuse()
        self._dialogue = dialogue
        self._engine = engine
        self._defaults = defaults or {}
        self._reconsidered = reconsidered or {}
        self._owns = owns

    @classmethod
    def sharing(cls, other: LocalClient) -> LocalClient:
        """Return another client of the same engine process; ``other`` still owns the process."""
        return cls(
            other.info,
            other._dialogue,
            other._engine,
            other._defaults,
            other._reconsidered,
            owns=False,
        )

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """See ``LLMClient.stream``."""
        prompt = self._prompt(request)
        parser = self._dialogue.parser(request, prompt)
        fold = StreamFold()
        sampled: list[int] = []
        usage, cut = Usage(input_tokens=len(prompt.tokens)), None
        payload = self._payload(request, prompt)
        updated = 0.0
        async with aclosing(self._engine.generate(payload, request.argument_text)) as events:
            async for event in events:
                if event["event"] == "token":
                    sampled.append(event["token"])
                    if (now := time.monotonic()) - updated >= _USAGE_EVERY_S:
                        updated = now
                        yield UsageDelta(replace(usage, output_tokens=len(sampled)))
                    for delta in parser.feed(event["token"]):
                        fold.add(delta)
                        yield delta
                else:
                    usage = Usage(event["prompt"], event["reused"], output_tokens=event["output"])
                    cut = _CUT.get(event["finish"])
                    self._record_reuse(event, prompt)
        for delta in parser.finish(cut):
            fold.add(delta)
            if isinstance(delta, Finished):
                yield UsageDelta(usage)
            yield delta
        self._dialogue.record(request, prompt, fold.response().message, sampled)

    async def propose(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace] = ()
    ) -> AsyncGenerator[ChatResponse, None]:
        """See ``Proposes.propose``; answers of different tokens may have the same text."""
        prompt = self._prompt(request)
        payload = {
            **self._payload(request, prompt),
            "count": count,
            "places": [[place.path, place.old, place.cost] for place in places],
        }
        payload["max_tokens"] = min(payload["max_tokens"], ANSWER_TOKENS)
        async with aclosing(self._engine.generate(payload, request.argument_text)) as events:
            async for event in events:
                if event["event"] != "proposal":
                    continue
                fold, parser = StreamFold(), self._dialogue.parser(request, prompt)
                for token in event["tokens"]:
                    for delta in parser.feed(token):
                        fold.add(delta)
                for delta in parser.finish():
                    fold.add(delta)
                response = fold.response()
                self._dialogue.record(request, prompt, response.message, event["tokens"])
                yield replace(response, usage=Usage(output_tokens=len(event["tokens"])))

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """Count exactly the tokens that ``stream`` would send."""
        return TokenCount(len(self._prompt(request).tokens), exact=True)

    def size_of(self, message: Message) -> int:
        """Return the number of tokens of one message."""
        return self._dialogue.size_of(message)

    async def aclose(self) -> None:
        """End the engine process if this client owns it."""
        if self._owns:
            await self._engine.aclose()

    def _prompt(self, request: ChatRequest) -> Prompt:
        return self._dialogue.prompt(request, self.info.context_window or 0)

    def _payload(self, request: ChatRequest, prompt: Prompt) -> dict[str, Any]:
        """Return the request in the form that the engine process expects."""
        sampling = request.sampling
        room = (self.info.context_window or 0) - len(prompt.tokens)
        given = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        return {
            "conversation": request.conversation,
            "tokens": prompt.tokens,
            "max_tokens": min(room, sampling.max_tokens or room),
            "sampling": {
                **(self._reconsidered if request.reconsidered else self._defaults),
                **{name: value for name, value in given.items() if value is not None},
            },
            **self._dialogue.turn(request, prompt),
        }

    def _record_reuse(self, event: Mapping[str, Any], prompt: Prompt) -> None:
        held, reused = event["held"], event["reused"]
        # The last token of a prompt is always prefilled; the last of an answer may not be cached.
        whole = reused >= min(held, event["prompt"] - 1)
        why = "" if whole else prompt.rewritten or "its tokens differ"
        self.reuse = Reuse(held, reused, why)
