"""Baselines: what the same search solves if the edits do not come from the model's judgement.

    random    the edits are written and ranked by the same network with its weights shuffled
    shuffled  the model's first ``POOL`` edits in random order
    prior     changes of tokens by how often they fix a training fault, regardless of the context

In each, the model itself does everything up to its first edit; all edits are the baseline's.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    EditPlace,
    LLMClient,
    Proposes,
    StreamEvent,
    StreamFold,
)
from agentcli.llm.local import EMBEDDED, LocalClient, connect
from agentcli.llm.nanochat_format import arguments_text
from agentcli.llm.replay import events_of
from agentcli.llm.tokens import TokenCount
from agentcli.messages import FinishReason, Message, ToolCall, Usage, assistant
from agentcli.settings import Settings
from training.faults import Faults
from training.seeds import load_seeds

NAMES = ("random", "shuffled", "prior")
POOL = 90
EDIT = "search_replace"
DRAWS = 12  # faults drawn from each training file to count the prior
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


class Baseline:
    """The model with its edits replaced by ``_edits``. See ``LLMClient`` and ``Proposes``."""

    def __init__(self, client: LocalClient, seed: int = 0) -> None:
        self.info = client.info
        self.reuse = client.reuse
        self._client = client
        self._random = random.Random(seed)

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """The model's answer; an edit is replaced by one that cannot apply, so it is no try."""
        fold = StreamFold()
        async for event in self._client.stream(request):
            fold.add(event)
        response = fold.response()
        calls = response.message.calls
        if len(calls) == 1 and calls[0].name == EDIT:
            path = json.loads(calls[0].arguments)["path"]
            response = edit(path, "nothing", "at all")
        for event in events_of(response):
            yield event

    async def propose(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace] = ()
    ) -> AsyncGenerator[ChatResponse, None]:
        """Edits in this baseline's order."""
        async with aclosing(self._edits(request, count, places)) as edits:
            async for one in edits:
                yield one

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """See ``LLMClient``."""
        return await self._client.count_tokens(request, exact=exact)

    def size_of(self, message: Message) -> int:
        """See ``LLMClient``."""
        return self._client.size_of(message)

    async def aclose(self) -> None:
        """Do nothing: whoever made the clients closes them."""

    async def _edits(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace]
    ) -> AsyncGenerator[ChatResponse, None]:
        raise NotImplementedError
        yield edit("", "", "")  # makes this a generator


class Shuffled(Baseline):
    """The model's own edits, in random order."""

    async def _edits(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace]
    ) -> AsyncGenerator[ChatResponse, None]:
        edits = [one async for one in self._client.propose(request, POOL, places)]
        self._random.shuffle(edits)
        for one in edits:
            yield one


class Elsewhere(Baseline):
    """The edits of another model."""

    def __init__(self, client: LocalClient, other: Proposes, seed: int = 0) -> None:
        super().__init__(client, seed)
        self._other = other

    async def _edits(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace]
    ) -> AsyncGenerator[ChatResponse, None]:
        async for one in self._other.propose(request, count, places):
            yield one


class Prior(Baseline):
    """Changes of tokens in the given places, by how often they fix a fault."""

    def __init__(self, client: LocalClient, changes: Counter[tuple[str, str]], seed: int = 0):
        super().__init__(client, seed)
        self._changes = changes

    async def _edits(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace]
    ) -> AsyncGenerator[ChatResponse, None]:
        found: list[tuple[float, float, EditPlace, str]] = []
        for place in places:
            for new, weight in variants(place.old, self._changes):
                found.append((-weight, self._random.random(), place, new))
        for _, _, place, new in sorted(found, key=lambda one: one[:2])[:count]:
            yield edit(place.path, place.old, new)


def edit(path: str, old: str, new: str) -> ChatResponse:
    """An answer that consists of this edit."""
    call = ToolCall("call_0", EDIT, arguments_text(path=path, old=old, new=new))
    return ChatResponse(assistant("", call), FinishReason.TOOL_CALLS, Usage())


def variants(old: str, changes: Counter[tuple[str, str]]) -> list[tuple[str, int]]:
    """Texts that differ from ``old`` by a known change of its tokens, with the change's count."""
    tokens = _TOKEN.findall(old)
    found: dict[str, int] = {}
    for (before, after), count in changes.items():
        was = _TOKEN.findall(before)
        for at in range(len(tokens) - len(was) + 1):
            if tokens[at : at + len(was)] == was:
                new = "".join([*tokens[:at], after, *tokens[at + len(was) :]])
                if new != old:
                    found[new] = max(count, found.get(new, 0))
    return list(found.items())


def changes_of_training(seed: int = 0) -> Counter[tuple[str, str]]:
    """Count (faulty tokens, right tokens) over faults in the training projects."""
    rng = random.Random(seed)
    counts: Counter[tuple[str, str]] = Counter()
    for project in load_seeds("train"):
        for path, text in project.files.items():
            if not path.endswith(".py") or "test" in path:
                continue
            try:
                faults = Faults(text)
            except SyntaxError:
                continue
            for _ in range(DRAWS):
                if (fault := faults.draw(rng)) is not None:
                    counts[_change("\n".join(fault.after), "\n".join(fault.before))] += 1
    return counts


def _change(faulty: str, right: str) -> tuple[str, str]:
    """The tokens that differ, without the common prefix and suffix."""
    a, b = _TOKEN.findall(faulty), _TOKEN.findall(right)
    while a and b and a[0] == b[0]:
        del a[0], b[0]
    while a and b and a[-1] == b[-1]:
        del a[-1], b[-1]
    return "".join(a), "".join(b)


def shuffled_weights(folder: Path, seed: int = 0) -> Path:
    """Make a copy of the embedded model with the elements of each tensor shuffled."""
    generator = torch.Generator().manual_seed(seed)
    for file in EMBEDDED.iterdir():
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            mixed = {
                name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)]
                .reshape(tensor.shape)
                .contiguous()
                for name, tensor in tensors.items()
            }
            save_file(mixed, folder / file.name)
        elif file.suffix in (".json", ".tiktoken"):
            shutil.copy(file, folder / file.name)
    return folder


def baseline(
    name: str, client: LocalClient, settings: Settings, scratch: Path, stack: AsyncExitStack
) -> LLMClient:
    """Make the baseline of this name around a client of the embedded model.

    If it needs another model, that is written to ``scratch`` and closed by ``stack``.
    """
    match name:
        case "shuffled":
            return Shuffled(client)
        case "prior":
            return Prior(client, changes_of_training())
        case "random":
            other = connect(shuffled_weights(scratch), settings)
            stack.push_async_callback(other.aclose)
            return Elsewhere(client, other)
    raise ValueError(f"unknown baseline {name}")
