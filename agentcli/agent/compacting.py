"""Keeps a conversation within its model's context window.

Compaction is rare, frees a lot of space at once, and is never silent. Nothing is lost: the journal
keeps every message, and a compaction is an event that records what the model sees instead. It can
be previewed and undone, and messages can be exempted from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentcli.agent.asking import Asking
from agentcli.agent.budget import ContextLimits, ContextRules
from agentcli.agent.events import Compacted, CompactionUndone, ModelUsed, Replaced, WindowLearnt
from agentcli.agent.processors.base import Conversation, Item, Processor
from agentcli.agent.processors.results import LeaveOutImages
from agentcli.agent.stop import Stopped
from agentcli.agent.stream import Stream
from agentcli.agent.view import stretches
from agentcli.errors import BudgetError, DeadlineError, ProviderError, QuotaError, UsageError
from agentcli.llm.client import ChatRequest, LLMClient, ModelInfo, Sampling, chat
from agentcli.messages import Message, Role, ToolCall, is_aside, system, user
from agentcli.text import truncate
from agentcli.tools.base import ToolKind

ANSWER_TOKENS = 32_000
"""Reserved for an answer if neither the request nor the model limits its length."""
SUMMARY_TOKENS = 8_000
"""The longest summary, including the model's thinking."""
_SUMMARY_S = 300
_COUNT_S = 10
_SUMMARIZED_CHARS = 100_000
"""The longest text to summarize if the window is not known."""
_CHARS_PER_TOKEN = 2
"""A low estimate, so that the text is sure to fit."""
_WORTH = 1.1
"""Growth factor after which a conversation that could not be made short enough is tried again."""
_LEARNT = 0.9
"""After a provider refused a request as too long, the new limit is this share of its length."""
_LEAST_SHARE = 0.4
"""When the user asks for a compaction, the target is at most this share of the current size."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction leaves out, or would leave out. Tokens are those of a whole request.

    ``dropped`` are the messages that the model no longer sees in full. ``passes`` names the
    processors that made the conversation shorter, out of ``attempts`` that were tried. ``scores``
    maps a message's number to the score a processor gave it; low scores are left out first.
    """

    cause: str
    tokens_before: int
    tokens_after: int
    passes: tuple[str, ...] = ()
    attempts: int = 0
    replaced: tuple[Replaced, ...] = ()
    dropped: tuple[Message, ...] = ()
    scores: Mapping[int, float] = field(default_factory=dict)


class Compacting:
    """Plans and carries out compactions.

    ``purpose`` says what a call is for; ``processors`` are tried in order. ``window_of`` looks up a
    context window that the client does not know; it may be slow, and no step waits for it.
    """

    def __init__(
        self,
        stream: Stream,
        asking: Asking,
        purpose: Callable[[ToolCall], ToolKind | None],
        rules: ContextRules,
        processors: Sequence[Processor],
        window_of: Callable[[ModelInfo], int | None] | None = None,
    ) -> None:
        self._stream = stream
        self._asking = asking
        self._purpose = purpose
        self._rules = rules
        self._processors = tuple(processors)
        self._window_of = window_of
        self._met: set[str] = set()
        self._asked: dict[str, asyncio.Task[int | None]] = {}
        self._found: dict[str, int] = {}
        self._forced_step = -1
        self._least = 0
        self._looked_at: tuple[int, tuple[int, ...], Compaction] | None = None

    def limits(self, client: LLMClient, request: ChatRequest) -> ContextLimits | None:
        """The limits of a request to this model; None if its window is not known."""
        info = client.info
        answer = request.sampling.max_tokens or info.max_output or ANSWER_TOKENS
        return self._rules.limits(self.window(client), answer)

    def window(self, client: LLMClient) -> int | None:
        """The model's context window in tokens, if it is known by now."""
        info = client.info
        state = self._stream.state
        found = (info.context_window, self._found.get(info.id), state.windows.get(state.model))
        return min((tokens for tokens in found if tokens is not None), default=None)

    async def make_room(self, client: LLMClient, request: ChatRequest) -> bool:
        """Compact if the request is near the limit; return whether it was compacted.

        Raises:
            BudgetError: even fully compacted, it exceeds the hard limit.
        """
        limits = None if client.info.fits_itself else self.limits(client, request)
        if limits is None:
            self._look_up(client)
            return False
        tokens = (await client.count_tokens(request)).tokens
        if tokens <= limits.soft:
            return False
        if tokens <= limits.hard and tokens < self._least * _WORTH:
            return False
        tokens = await _counted(client, request)
        if tokens <= limits.soft:
            return False
        planned = await self._plan(client, request, tokens, limits.target, "near the limit")
        self._least = planned.tokens_after
        if planned.tokens_after > limits.hard:
            raise BudgetError(planned.tokens_after, limits.hard, planned.attempts)
        return await self._carry_out(planned)

    def _look_up(self, client: LLMClient) -> None:
        """Look up the model's window in the background; a later step will know it.

        The lookup starts at the second request, because the tables take a while to load and must
        not delay the first.
        """
        info, window_of = client.info, self._window_of
        if window_of is None or info.fits_itself or not info.priced_by:
            return
        if info.id not in self._met:
            self._met.add(info.id)
            return
        if info.id not in self._asked:
            self._asked[info.id] = asyncio.create_task(asyncio.to_thread(window_of, info))
        task = self._asked[info.id]
        if task.done() and not task.exception() and (window := task.result()) is not None:
            self._found[info.id] = window

    async def force(self, client: LLMClient, request: ChatRequest) -> bool:
        """Compact after the provider refused a request as too long, at most once a step.

        Return whether the conversation is shorter now.
        """
        step = self._stream.state.running_step
        if self._forced_step == step:
            return False
        self._forced_step = step
        sizes = sum(client.size_of(message) for message in request.messages)
        limits = self.limits(client, request)
        sent = min(sizes, limits.hard) if limits else sizes
        await self._stream.emit(WindowLearnt(step, max(1, int(sent * _LEARNT))))
        target = int(sent * self._rules.compact_to)
        return await self._carry_out(
            await self._plan(client, request, sizes, target, "beyond the context window")
        )

    async def leave_out_images(self, client: LLMClient, request: ChatRequest) -> bool:
        """Leave out the images of results after the provider refused a request.

        Providers' limits of their number, size and format differ, and not every model of a provider
        that accepts images does. Return whether there were any.
        """
        sizes = sum(client.size_of(message) for message in request.messages)
        cause, processors = "it was refused with images", (LeaveOutImages(),)
        return await self._carry_out(
            await self._plan(client, request, sizes, 0, cause, processors=processors)
        )

    async def compact(
        self,
        client: LLMClient,
        request: ChatRequest,
        *,
        preview: bool = False,
        keep: Collection[int] = (),
    ) -> Compaction:
        """Compact now, or with ``preview`` only plan it; the next call then carries out that plan.

        ``keep`` are the numbers (from 0) of messages in the history that must stay as they are.

        Raises:
            UsageError: ``keep`` has a number that no message has.
        """
        count = len(self._stream.state.history)
        if wrong := sorted(number for number in keep if not 0 <= number < count):
            raise UsageError(f"there is no message {wrong[0]}", hint=f"There are 0 to {count - 1}")
        pins = tuple(sorted(keep))
        planned = None
        if self._looked_at is not None and self._looked_at[:2] == (count, pins):
            planned = self._looked_at[2]
        if planned is None:
            tokens = await _counted(client, request)
            limits = self.limits(client, request)
            target = int(tokens * _LEAST_SHARE)
            if limits is not None:
                target = min(target, limits.target)
            planned = await self._plan(client, request, tokens, target, "asked for", pins)
        self._looked_at = (count, pins, planned) if preview else None
        if not preview:
            await self._carry_out(planned)
        return planned

    async def undo(self) -> Compaction:
        """Undo the last compaction: show the model what it saw before.

        Raises:
            UsageError: nothing was compacted.
        """
        state = self._stream.state
        if not state.compactions:
            raise UsageError("nothing was compacted")
        last = state.compactions[-1]
        self._looked_at = None
        await self._stream.emit(CompactionUndone(state.running_step))
        return Compaction("undone", last.tokens_after, last.tokens_before, replaced=last.replaced)

    async def _carry_out(self, planned: Compaction) -> bool:
        self._looked_at = None
        if not planned.passes:
            return False
        await self._stream.emit(
            Compacted(
                self._stream.state.running_step,
                planned.cause,
                planned.tokens_before,
                planned.tokens_after,
                planned.passes,
                planned.replaced,
            )
        )
        return True

    async def _plan(
        self,
        client: LLMClient,
        request: ChatRequest,
        tokens: int,
        target: int,
        cause: str,
        keep: Collection[int] = (),
        *,
        processors: Sequence[Processor] = (),
    ) -> Compaction:
        """Try ``processors``, or else those of the settings, until the request is short enough."""
        conversation = self._conversation(client, keep)
        beside = max(0, tokens - conversation.tokens)  # tools, and what the server adds
        passes: list[str] = []
        attempts = 0
        for processor in processors or self._processors:
            if conversation.tokens + beside <= target:
                break
            attempts += 1
            conversation = _with(conversation, conversation.items, max(0, target - beside))
            items = await processor.process(conversation)
            shorter = _with(conversation, items, conversation.target)
            if shorter.tokens < conversation.tokens:  # otherwise the pass is discarded
                conversation = shorter
                passes.append(processor.name)
        said = self._stream.state.said
        replaced = tuple(
            Replaced(item.first, item.end, item.message)
            for item in conversation.items
            if item.end - item.first > 1 or item.message is not said[item.first]
        )
        dropped = [said[n] for each in replaced for n in range(each.first, each.end)]
        return Compaction(
            cause,
            tokens,
            conversation.tokens + beside,
            tuple(passes),
            attempts,
            replaced,
            tuple(dropped),
            conversation.scores,
        )

    def _conversation(self, client: LLMClient, keep: Collection[int]) -> Conversation:
        state = self._stream.state
        said = state.said
        shown = [each for each in stretches(said, state.replaced) if each.message is not None]
        # Notes and summaries have the user's role too, but no user wrote them.
        asked = [
            each.first
            for each in shown
            if each.end - each.first == 1
            and said[each.first].role is Role.USER
            and not is_aside(said[each.first])
        ]
        pins = {*asked[:1], *asked[-1:], *keep}
        pins.update(number for number in asked if said[number].text == state.task)
        items = [
            Item(
                each.first,
                each.end,
                message,
                client.size_of(message),
                pinned=message.role is Role.SYSTEM
                or any(each.first <= pin < each.end for pin in pins),
            )
            for each in shown
            if (message := each.message) is not None
        ]

        async def summarize(prompt: str, text: str) -> str:
            return await self._summary(client, prompt, text)

        goal = " ".join([state.task, *(said[number].text for number in asked[-1:])])
        return Conversation(tuple(items), 0, goal, client.size_of, self._purpose, summarize)

    async def _summary(self, client: LLMClient, prompt: str, text: str) -> str:
        """Ask the model to summarize a text; the tokens count towards the budget.

        Raises:
            ProviderError: it did not answer, its answer was empty, or the budget has no room.
        """
        state = self._stream.state
        sampling = Sampling(max_tokens=SUMMARY_TOKENS)
        name = f"{state.session_id}/summary"
        limits = self.limits(client, ChatRequest((), sampling=sampling))
        room = _SUMMARIZED_CHARS if limits is None else limits.soft * _CHARS_PER_TOKEN
        messages = (system(prompt), user(str(truncate(text, room))))
        request = ChatRequest(messages, sampling=sampling, conversation=name)
        try:
            async with asyncio.timeout(_SUMMARY_S):
                request, _ = await self._asking.fitted(client, request, state)
                response = await chat(client, request)
        except Stopped as stopped:
            raise QuotaError(f"no summary: {stopped.stop.detail}") from stopped
        except TimeoutError as error:
            raise DeadlineError(f"no summary within {_SUMMARY_S} s") from error
        cost = await self._asking.cost(client.info, response.usage)
        await self._stream.emit(ModelUsed(state.running_step, "summary", response.usage, cost))
        if not response.message.text.strip():
            raise ProviderError("the summary is empty", provider=client.info.provider)
        return response.message.text


async def _counted(client: LLMClient, request: ChatRequest) -> int:
    """A request's tokens, counted by its provider or else estimated."""
    try:
        async with asyncio.timeout(_COUNT_S):
            return (await client.count_tokens(request, exact=True)).tokens
    except (ProviderError, TimeoutError):
        return (await client.count_tokens(request)).tokens


def _with(conversation: Conversation, items: tuple[Item, ...], target: int) -> Conversation:
    return replace(conversation, items=items, target=target)
