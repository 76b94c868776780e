"""Gets a usable answer from a model.

An unusable answer is rejected and the model is asked again. A model that fails permanently is
replaced by the next fallback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentcli.agent.asking import Answer, Asking
from agentcli.agent.budget import RunLimits
from agentcli.agent.compacting import Compacting, Compaction
from agentcli.agent.decision import Act, Branch, Decision, Final
from agentcli.agent.events import (
    AnswerRejected,
    BranchTaken,
    Decided,
    MessageAdded,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    StopReason,
    Warned,
)
from agentcli.agent.prefix import Prefix
from agentcli.agent.search import Search
from agentcli.agent.second_thoughts import SecondThoughts
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stopped, stop_for
from agentcli.agent.stream import Stream
from agentcli.errors import (
    AgentCLIError,
    BadRequestError,
    ContentFilterError,
    ContextWindowError,
    ModelError,
    ModelNotFoundError,
    ProviderError,
    UsageError,
)
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, Sampling, chat
from agentcli.messages import FinishReason, Image, Message, ToolCall, Usage, assistant, user
from agentcli.tools.base import ToolContext
from agentcli.tools.registry import Registry

_NUDGE = "It was not used; answer again"
_TEXT_CALLS = (
    "{0} sent a tool call as text, which is not run: start its server with a parser for them, "
    "or set providers.{0}.tools to xml"
)


class Answering:
    """Answers for one agent. ``client`` answers first; ``fallbacks`` make its replacements."""

    def __init__(
        self,
        client: LLMClient,
        fallbacks: Sequence[Callable[[], LLMClient]],
        asking: Asking,
        compacting: Compacting,
        stream: Stream,
        tools: Registry,
        context: ToolContext,
        *,
        limits: RunLimits,
        sampling: Sampling,
        search: Search | None = None,
    ) -> None:
        self.client = client
        self._fallbacks = list(fallbacks)
        self._asking = asking
        self._compacting = compacting
        self._prefix = Prefix()
        self._stream = stream
        self._tools = tools
        self._context = context
        self._limits = limits
        self._sampling = sampling
        self._search = search
        self._second_thoughts = SecondThoughts(tools, context, self._ask_again)
        self._call_ids = {call.id for said in stream.state.history for call in said.calls}
        self._warned_of_text = False

    async def answer(self, step: int) -> Message:
        """Get the next usable answer and add it to the history.

        Raises:
            Stopped: a budget is used up, or no answer was usable.
            BudgetError: the conversation cannot be compacted to fit the model's window.
            ProviderError: the last model failed permanently.
        """
        while True:
            await self._compacting.make_room(self.client, self._request())
            request, state = self._request(), self._stream.state
            if broken := self._prefix.broken(self.client, request, state):
                await self._stream.emit(broken)
            try:
                answer = await self._asking.ask(self.client, request, step, state)
            except (ProviderError, ModelError) as error:
                too_long = isinstance(error, ContextWindowError)
                if too_long and await self._compacting.force(self.client, request):
                    continue
                refused = isinstance(error, BadRequestError | ModelNotFoundError)
                if refused and await self._compacting.leave_out_images(self.client, request):
                    continue
                await self._fall_back(step, error)
                continue
            response = answer.response
            if expired := self._prefix.answered(response.usage, state, self.client):
                await self._stream.emit(expired)
            if not _unusable(response):
                answer = await self._thought_over(step, answer)
                response = answer.response
            if self._search is not None:
                response = await self._search.better(
                    self.client, self._request(), step, self._stream.state, response
                )
            if problem := _unusable(response):
                await self._reject(step, problem, answer)
                continue
            if not self._warned_of_text and response.calls_in_text(request.tools):
                self._warned_of_text = True
                await self._stream.emit(Warned(_TEXT_CALLS.format(self.client.info.provider)))
            message = self._with_unique_ids(response.message)
            await self._stream.emit(
                ModelAnswered(
                    step,
                    message,
                    response.finish_reason,
                    response.usage,
                    answer.first_token_s,
                    answer.duration_s,
                    answer.cost_usd,
                )
            )
            return message

    async def _thought_over(self, step: int, answer: Answer) -> Answer:
        """The answer, or what the model does instead of it; see ``SecondThoughts``."""
        state, emit = self._stream.state, self._stream.emit
        first = answer.response
        second = await self._second_thoughts.about(self.client, self._request(), state, first)
        if not second.why:
            if second.spent != Usage():
                cost = await self._asking.cost(self.client.info, second.spent)
                await emit(ModelUsed(step, "second thoughts", second.spent, cost))
            return answer
        await emit(AnswerRejected(step, second.why, first.usage, answer.cost_usd))
        if second.forget:
            await emit(self._second_thoughts.left_out(self.client, step, state))
        cost = await self._asking.cost(self.client.info, second.response.usage)
        return replace(answer, response=second.response, cost_usd=cost)

    async def _ask_again(
        self, client: LLMClient, request: ChatRequest, state: AgentState
    ) -> ChatResponse:
        request, _ = await self._asking.fitted(client, request, state)
        return await chat(client, request)

    async def end(self) -> None:
        """End the run: close what the search opened and reset its count of tries."""
        if self._search is not None:
            await self._search.end()

    async def adopt(self, step: int, decision: Decision) -> Decision:
        """Record a decision of the agent's own code as if the model had made it.

        Of a branch, the best candidate is taken.
        """
        if isinstance(decision, Branch):
            scores = tuple(candidate.score for candidate in decision.candidates)
            await self._stream.emit(BranchTaken(step, decision.best, scores))
            decision = decision.candidates[decision.best].decision
        match decision:
            case Act(calls):
                said = self._with_unique_ids(assistant("", *calls))
                await self._stream.emit(Decided(step, said))
                return Act(said.calls)
            case Final(answer):
                await self._stream.emit(Decided(step, assistant(answer)))
        return decision

    async def compact(self, *, preview: bool, keep: Collection[int]) -> Compaction:
        """See ``Compacting.compact``."""
        return await self._compacting.compact(
            self.client, self._request(), preview=preview, keep=keep
        )

    def check_images(self, images: Sequence[Image]) -> None:
        """Check that the model accepts images, if there are any, new or in the history.

        Raises:
            UsageError: there are images and the model does not accept them.
        """
        info = self.client.info
        if info.images:
            return
        said = (part for message in self._stream.state.view for part in message.parts)
        if images or any(isinstance(part, Image) for part in said):
            raise UsageError(
                f"{info.provider}:{info.id} does not accept images",
                hint="Choose another model, or set images = true in "
                f"[providers.{info.provider}] if it does",
            )

    async def replace(self, client: LLMClient) -> None:
        """Continue with another model and close the current one."""
        before, self.client = self.client, client
        await before.aclose()

    def _request(self) -> ChatRequest:
        state = self._stream.state
        return ChatRequest(
            tuple(state.view),
            self._tools.definitions(),
            self._sampling,
            conversation=state.session_id,
            argument_text=self._text_of,
        )

    async def _text_of(self, tool: str, arguments: Mapping[str, Any]) -> str | None:
        return await self._tools.text_of(tool, arguments, self._context)

    async def _fall_back(self, step: int, error: ProviderError | ModelError) -> None:
        """Continue with the next available model, or raise ``error`` if none is left."""
        while self._fallbacks:
            make = self._fallbacks.pop(0)
            try:
                client = await asyncio.to_thread(make)  # may import an SDK
            except AgentCLIError as missing:
                warning = f"a fallback cannot be used: {missing.line()}"
                await self._stream.emit(Warned(warning))
                continue
            name = f"{client.info.provider}:{client.info.id}"
            await self._stream.emit(ModelChanged(step, name, error.message))
            await self.replace(client)
            return
        raise error

    async def _reject(self, step: int, problem: str, answer: Answer) -> None:
        emit = self._stream.emit
        await emit(AnswerRejected(step, problem, answer.response.usage, answer.cost_usd))
        if answer.response.finish_reason is FinishReason.CONTENT_FILTER:
            raise ContentFilterError(problem, provider=self.client.info.provider)
        tries = self._stream.state.rejected
        if tries >= self._limits.rejected_answers:
            detail = f"no usable answer after {tries} tries: {problem}"
            raise Stopped(stop_for(StopReason.PROVIDER_FAILED, detail=detail))
        nudge = f"{problem[0].upper()}{problem[1:]}. {_NUDGE}"
        await emit(MessageAdded(user(nudge), own=True))

    def _with_unique_ids(self, message: Message) -> Message:
        """Rename calls whose id is empty or already used: results are paired by id."""
        parts = list(message.parts)
        for place, part in enumerate(parts):
            if not isinstance(part, ToolCall):
                continue
            name, count = part.id, 1
            while not name or name in self._call_ids:
                count += 1
                name = f"{part.id or 'call'}-{self._stream.state.running_step}-{count}"
            self._call_ids.add(name)
            if name != part.id:
                parts[place] = replace(part, id=name)
        return replace(message, parts=tuple(parts))


def _unusable(response: ChatResponse) -> str | None:
    """Say what is wrong with an answer, or return None."""
    if response.finish_reason is FinishReason.CONTENT_FILTER:
        return "the answer was stopped by the provider's content filter"
    if response.cut_calls:
        return "your last answer reached the token limit inside a tool call, which was not run"
    if response.finish_reason is FinishReason.LENGTH:
        return "your last answer was cut off at the token limit; it must be shorter"
    if not response.message.calls and not response.message.text.strip():
        return "your last answer was empty"
    return None
