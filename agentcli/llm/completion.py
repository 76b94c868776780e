"""Plain text completion: streams one or more continuations of a prompt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcli.errors import ContextLengthError, ModelError, UsageError
from agentcli.inference.call_syntax import THINK
from agentcli.inference.row import StopStrings
from agentcli.llm.engine import EngineProcess, Run
from agentcli.llm.local import EMBEDDED, sampling_of
from agentcli.llm.nanochat_format import NanochatFormat
from agentcli.llm.templates import ChatTemplate
from agentcli.messages import user
from agentcli.model.folder import open_folder
from agentcli.model.tokenizer import NANOCHAT_SPECIAL, Tokenizer
from agentcli.settings import LocalSettings

# In-stream blocks and thinking are shown with their marks; other special tokens are hidden.
_SHOWN = ("<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>", *THINK)
_ENDED = -1


@dataclass(frozen=True)
class Wishes:
    """Options of a completion.

    ``chat`` takes the prompt as a user's message instead of text to continue. Options missing from
    ``sampling`` have the model's defaults. ``grammar`` is what the text must match: its kind
    (``json_schema``, ``regex`` or ``lark``) and its source.
    """

    chat: bool = False
    num_samples: int = 1
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stop: Sequence[str] = ()
    grammar: tuple[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """More text of one row."""

    row: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """All rows have ended: the reason for each, token counts, and times in seconds."""

    finishes: tuple[str, ...]
    tokens: tuple[int, ...]
    prompt_tokens: int
    reused_tokens: int
    prefill_s: float
    decode_s: float

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed of all rows together, without the prompt."""
        return sum(self.tokens) / self.decode_s if self.decode_s else 0.0


class Completer:
    """One model on this machine, the embedded one if ``path`` is None. Must be closed.

    Raises:
        CheckpointError: the folder's files cannot be read.
        ModelError: the folder has no model that can be run.
    """

    def __init__(self, path: Path | None, settings: LocalSettings) -> None:
        self.folder = open_folder(path or EMBEDDED, context=settings.context)
        self.tokenizer = self.folder.load_tokenizer()
        self.engine = EngineProcess(self.folder.source, settings)
        self._stops = self.folder.stop_ids(self.tokenizer)

    def tokens(self, prompt: str, *, chat: bool = False) -> list[int]:
        """Encode the prompt as text to continue, or with ``chat`` as a user's message.

        Raises:
            UsageError: the prompt is empty, or the model has no chat template.
            ContextLengthError: there is no room for an answer.
        """
        if not prompt:
            raise UsageError("the prompt is empty", hint="Write one, or pipe it in")
        tokens = self._chat(prompt) if chat else self._plain(prompt)
        context = self.folder.config.sequence_len
        if len(tokens) >= context:
            raise ContextLengthError(
                f"the prompt of {len(tokens)} tokens leaves no room in the context of {context}",
                hint="Shorten it, or give the model more with --context",
            )
        return tokens

    def sampling(self, wishes: Wishes) -> dict[str, Any]:
        """The options wished for, and else the model's own."""
        own = sampling_of(self.folder.generation, untold=1.0)
        return {"seed": 42, **own, **wishes.sampling}

    async def complete(
        self, tokens: Sequence[int], wishes: Wishes, run: Run | None = None
    ) -> AsyncGenerator[Written | Ended, None]:
        """Stream the text, then ``Ended``. ``run`` returns the result of an in-stream block.

        Raises:
            ModelError: the request cannot be fulfilled.
            ServerError: the model's process died.
        """
        python = run is not None and set(NANOCHAT_SPECIAL) <= set(self.tokenizer.special)
        request = {
            "tokens": list(tokens),
            "num_samples": wishes.num_samples,
            "max_tokens": wishes.max_tokens,
            "sampling": self.sampling(wishes),
            "stop": list(wishes.stop),
            "grammar": wishes.grammar,
            "python": python,
        }
        rows = [_Row(self.tokenizer, wishes) for _ in range(wishes.num_samples)]
        async with aclosing(self.engine.complete(request, run)) as events:
            async for event in events:
                if event["event"] == "column":
                    for number, token in enumerate(event["tokens"]):
                        if token == _ENDED:
                            continue
                        rows[number].tokens += 1
                        if token not in self._stops and (text := rows[number].push(token)):
                            yield Written(number, text)
                    continue
                for number, row in enumerate(rows):
                    if text := row.finish():
                        yield Written(number, text)
                yield Ended(
                    tuple(event["finishes"]),
                    tuple(row.tokens for row in rows),
                    event["prompt"],
                    event["reused"],
                    event["prefill_s"],
                    event["decode_s"],
                )

    async def aclose(self) -> None:
        """End the model's process."""
        await self.engine.aclose()

    def _plain(self, prompt: str) -> list[int]:
        return self.tokenizer.prompt(prompt)

    def _chat(self, prompt: str) -> list[int]:
        if self.folder.family == "nanochat":
            if not set(NANOCHAT_SPECIAL) <= set(self.tokenizer.special):
                raise ModelError(f"{self.folder.path}: a base model, which knows no chat")
            return NanochatFormat(self.tokenizer).render([user(prompt)], answer=True).tokens
        if not self.folder.chat_template:
            raise UsageError(
                f"{self.folder.path}: no chat template", hint="Leave out --chat to continue a text"
            )
        template = ChatTemplate(self.folder.chat_template, self.tokenizer)
        return template.encode(template.render([{"role": "user", "content": prompt}]))


class _Row:
    """The text of one row, cut before a stop string."""

    def __init__(self, tokenizer: Tokenizer, wishes: Wishes) -> None:
        shown = {tokenizer.special[text] for text in _SHOWN if text in tokenizer.special}
        self._silent = set(tokenizer.special.values()) - shown
        self._text = tokenizer.stream(inner=not wishes.chat)
        self._stops = StopStrings(wishes.stop)
        self.tokens = 0

    def push(self, token: int) -> str:
        if token in self._silent:
            return ""
        return self._stops.push(self._text.push(token))

    def finish(self) -> str:
        return self._stops.push(self._text.finish()) + self._stops.finish()
