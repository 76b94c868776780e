"""The engine against generation without a cache, and its other guarantees."""

from __future__ import annotations

import threading

import pytest
import torch

from agentcli.errors import ContextLengthError, ModelError
from agentcli.inference import engine as engine_module
from agentcli.inference.engine import ENDED, Engine
from agentcli.inference.row import InlineTools, ToolTags
from agentcli.inference.sampling import GREEDY, Sampling
from agentcli.inference.speculate import Lookup
from agentcli.model.quantize import quantize_model
from tests.inference.conftest import make_engine
from tests.inference.naive import naive_rows

PROMPT = [262, 104, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 10, 104, 101]
SAMPLINGS = [
    GREEDY,
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.7, top_k=12, seed=4),
    Sampling(temperature=1.3, top_p=0.9, min_p=0.02, repetition_penalty=1.3, seed=5),
    Sampling(temperature=0.5, logit_bias={30: 4.0, 31: -9.0}),
]


def rows_of(engine: Engine, prompt: list[int], **options: object) -> tuple[list[list[int]], ...]:
    """The tokens and the sampled mask of each row, cut at its end."""
    columns = list(engine.generate(prompt, **options))  # type: ignore[arg-type]
    rows: list[list[int]] = [[] for _ in columns[0][0]]
    masks: list[list[int]] = [[] for _ in columns[0][0]]
    for column, sampled in columns:
        for i, token in enumerate(column):
            if token != ENDED:
                rows[i].append(token)
                masks[i].append(sampled[i])
    return rows, masks


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("count", [1, 4])
def test_equals_full_recompute(engine: Engine, sampling: Sampling, count: int) -> None:
    rows, masks = rows_of(engine, PROMPT, num_samples=count, max_tokens=30, sampling=sampling)
    expected, expected_masks = naive_rows(engine, PROMPT, count, 30, sampling)
    assert rows == expected and masks == expected_masks


def test_other_families(family_engine: Engine) -> None:
    prompt = [5, 9, 200, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41]
    for sampling in SAMPLINGS[:2]:
        rows, _ = rows_of(family_engine, prompt, num_samples=2, max_tokens=16, sampling=sampling)
        assert rows == naive_rows(family_engine, prompt, 2, 16, sampling)[0]


def test_memory_is_taken_as_answers_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ROOM", 8)
    engine = make_engine()
    generation = engine.generate(PROMPT, num_samples=2, max_tokens=900, sampling=GREEDY)
    first = next(generation)
    assert generation.cache.capacity < 900
    rows, _ = rows_of(engine, PROMPT, num_samples=2, max_tokens=150, sampling=GREEDY)
    assert rows[0][0] == first[0][0]
    assert rows == naive_rows(engine, PROMPT, 2, 150, GREEDY)[0]


def test_prompt_longer_than_the_window() -> None:
    engine = make_engine()
    assert 128 in engine.model.config.windows
    prompt = [i * 7 % 256 for i in range(160)]
    rows, _ = rows_of(engine, prompt, max_tokens=6, sampling=GREEDY)
    assert rows == naive_rows(engine, prompt, 1, 6, GREEDY)[0]


def test_prefill_in_chunks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows_of(engine, PROMPT, max_tokens=5, sampling=GREEDY)
    monkeypatch.setitem(engine_module.PREFILL_CHUNK, "cpu", 4)
    assert rows_of(engine, PROMPT, max_tokens=5, sampling=GREEDY) == expected


def biased(engine: Engine, *tokens: int) -> Sampling:
    """Sampling that makes tokens likely which a random model would rarely choose."""
    return Sampling(temperature=1.0, seed=11, logit_bias=dict.fromkeys(tokens, 12.0))


def test_rows_end_by_themselves_and_stop_costing(engine: Engine) -> None:
    end = engine.tokenizer.special_id("<|assistant_end|>")
    sampling = Sampling(seed=11, logit_bias={end: 5.0})
    generation = engine.generate(PROMPT, num_samples=6, max_tokens=40, sampling=sampling)
    sizes = []
    rows: list[list[int]] = [[] for _ in range(6)]
    for column, _ in generation:
        sizes.append(generation._working.batch)
        for i, token in enumerate(column):
            rows[i].append(token)
    expected, _ = naive_rows(engine, PROMPT, 6, 40, sampling)
    lengths = {len(row) for row in expected}
    assert len(lengths) > 1
    for row, wanted, state in zip(rows, expected, generation.rows, strict=True):
        assert row == wanted + [ENDED] * (len(rows[0]) - len(wanted))
        assert state.generated == wanted
        assert state.finish == ("stop" if wanted[-1] == end else "length")
    assert sizes[0] == 6 and sizes[-1] < 6


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("result", ["42", None, ""])
def test_tool_within_the_stream(engine: Engine, count: int, result: str | None) -> None:
    tags = ToolTags.nanochat(engine.tokenizer)
    calls: list[str] = []

    def run(call: str) -> str | None:
        calls.append(call)
        return result

    tools = InlineTools(tags, run)
    sampling = biased(engine, tags.call_start, tags.call_end, 49, 50)
    options = {"num_samples": count, "max_tokens": 40, "sampling": sampling, "tools": tools}
    rows, masks = rows_of(engine, PROMPT, **options)
    made = list(calls)
    expected, expected_masks = naive_rows(engine, PROMPT, count, 40, sampling, tools)
    assert (rows, masks) == (expected, expected_masks)
    assert made and sorted(made) == sorted(calls[len(made) :])
    assert any(not all(mask) for mask in masks) == (result is not None)


def test_forced_tokens_of_one_row_share_a_forward(engine: Engine) -> None:
    """The tokens of a tool's result need neither a second prefill nor a step each."""
    tags = ToolTags.nanochat(engine.tokenizer)
    tools = InlineTools(tags, lambda call: "0123456789")
    sampling = biased(engine, tags.call_start, tags.call_end, 49)
    generation = engine.generate(PROMPT, max_tokens=60, sampling=sampling, tools=tools)
    columns = list(generation)
    forced = sum(not sampled[0] for _, sampled in columns)
    assert forced >= 12
    assert generation.steps <= len(columns) - forced


def test_max_tokens_counts_forced_tokens(engine: Engine) -> None:
    tags = ToolTags.nanochat(engine.tokenizer)
    tools = InlineTools(tags, lambda call: "0123456789")
    sampling = biased(engine, tags.call_start, tags.call_end, 49)
    columns = list(engine.generate(PROMPT, max_tokens=30, sampling=sampling, tools=tools))
    forced = sum(not sampled[0] for _, sampled in columns)
    assert len(columns) == 30 and forced >= 10


def test_generate_batch(engine: Engine) -> None:
    end = engine.tokenizer.special_id("<|assistant_end|>")
    rows, masks = engine.generate_batch(PROMPT, 3, max_tokens=20, sampling=biased(engine, end, 60))
    for row, mask in zip(rows, masks, strict=True):
        assert row[: len(PROMPT)] == PROMPT and end not in row[len(PROMPT) :]
        assert mask == [False] * len(PROMPT) + [True] * (len(row) - len(PROMPT))


def test_conversation_prefills_only_what_is_new(engine: Engine) -> None:
    cache = engine.model.new_cache()
    first = engine.generate(PROMPT, max_tokens=8, sampling=GREEDY, cache=cache)
    said = [column[0] for column, _ in first]
    assert (first.reused, first.prefilled) == (0, len(PROMPT))
    # The last token is not in the cache: nothing after it was computed.
    assert cache.row_tokens() == PROMPT + said[:-1]
    longer = [*PROMPT, *said, 263, 104, 105, 264]
    second = engine.generate(longer, max_tokens=8, sampling=GREEDY, cache=cache)
    tokens = [column[0] for column, _ in second]
    assert second.reused == len(PROMPT) + 7 and second.prefilled == 5
    assert tokens == naive_rows(engine, longer, 1, 8, GREEDY)[0][0]
    # If an earlier turn changes, only the part before it is reused.
    rewritten = [*PROMPT, 99, 98, 97]
    third = engine.generate(rewritten, max_tokens=4, sampling=GREEDY, cache=cache)
    tokens = [column[0] for column, _ in third]
    assert third.reused == len(PROMPT)
    assert tokens == naive_rows(engine, rewritten, 1, 4, GREEDY)[0][0]
    # For the same prompt, the last token is computed again to get its logits.
    fourth = engine.generate(rewritten, max_tokens=4, sampling=GREEDY, cache=cache)
    assert [column[0] for column, _ in fourth] == tokens
    assert fourth.prefilled == 1


def test_samples_leave_the_conversation_at_its_prompt(engine: Engine) -> None:
    cache = engine.model.new_cache()
    list(engine.generate(PROMPT, num_samples=3, max_tokens=5, cache=cache))
    assert cache.row_tokens() == PROMPT


def test_closing_early_leaves_a_usable_cache(engine: Engine) -> None:
    cache = engine.model.new_cache()
    text = PROMPT * 3
    generation = engine.generate(text, cache=cache, sampling=GREEDY, lookup=Lookup())
    said = [next(generation)[0][0] for _ in range(5)]
    generation.close()
    held = cache.row_tokens()
    assert held == (text + said)[: len(held)] and len(held) >= len(text)
    longer = [*text, *said, 70]
    again = engine.generate(longer, max_tokens=4, sampling=GREEDY, cache=cache)
    tokens = [column[0] for column, _ in again]
    assert tokens == naive_rows(engine, longer, 1, 4, GREEDY)[0][0]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_prompt_lookup_changes_nothing(engine: Engine, sampling: Sampling) -> None:
    """The tokens are the same with and without drafts, because the same random draws decide."""
    prompt = PROMPT * 4
    plain = rows_of(engine, prompt, max_tokens=40, sampling=sampling)
    drafted = rows_of(engine, prompt, max_tokens=40, sampling=sampling, lookup=Lookup(draft=5))
    assert plain == drafted


def test_prompt_lookup_saves_forwards(engine: Engine) -> None:
    sampling = Sampling(temperature=0.0, logit_bias={65: 50.0})  # repeats "A" forever
    generation = engine.generate(
        [65] * 10, max_tokens=60, sampling=sampling, lookup=Lookup(first=7, draft=7, shortest=1)
    )
    assert [column[0] for column, _ in generation] == [65] * 60
    assert generation.steps <= 60 // 8 + 2
    assert generation.drafts is not None
    assert generation.drafts.accepted > 40


def test_stop_strings(engine: Engine) -> None:
    sampling = Sampling(temperature=0.0, logit_bias={65: 50.0})
    generation = engine.generate([1], max_tokens=60, sampling=sampling, stop=["AAA"])
    assert len(list(generation)) == 3
    assert generation.rows[0].finish == "stop_string"


def test_context_fills_up() -> None:
    engine = make_engine(sequence_len=20, window_pattern="L")
    generation = engine.generate(PROMPT, sampling=Sampling(temperature=0.0, logit_bias={65: 50.0}))
    columns = list(generation)
    # The last token takes no room in the context, because nothing follows it.
    assert len(columns) == 20 - len(PROMPT) + 1
    assert generation.rows[0].finish == "context"
    with pytest.raises(ContextLengthError, match="21 tokens does not fit the context of 20"):
        engine.generate([1] * 21)


def test_cancel_within_a_token(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 4

    generation = engine.generate(PROMPT, max_tokens=50, cancelled=cancelled)
    assert len(list(generation)) == 3
    assert generation.rows[0].finish == "cancelled"
    monkeypatch.setitem(engine_module.PREFILL_CHUNK, "cpu", 2)
    asked.clear()
    generation = engine.generate(PROMPT, max_tokens=50, cancelled=cancelled)
    assert list(generation) == [] and generation.rows[0].finish == "cancelled"
    assert generation.cache.length == 8  # the computed part is kept


def test_same_seed_same_tokens_in_another_thread(engine: Engine) -> None:
    options = {"num_samples": 2, "max_tokens": 12, "sampling": Sampling(seed=8)}
    here = rows_of(engine, PROMPT, **options)
    there: list[object] = []
    thread = threading.Thread(target=lambda: there.append(rows_of(engine, PROMPT, **options)))
    thread.start()
    thread.join()
    assert there == [here]
    assert rows_of(engine, PROMPT, **{**options, "sampling": Sampling(seed=9)}) != here


def test_rows_do_not_depend_on_each_other(engine: Engine) -> None:
    """Rows are reproducible although others end early."""
    end = engine.tokenizer.special_id("<|assistant_end|>")
    sampling = Sampling(seed=21, logit_bias={end: 9.0})
    alone, _ = rows_of(engine, PROMPT, num_samples=1, max_tokens=25, sampling=sampling)
    # A row's random draws depend on the number of rows, so compare runs of five.
    many, _ = rows_of(engine, PROMPT, num_samples=5, max_tokens=25, sampling=sampling)
    again, _ = rows_of(engine, PROMPT, num_samples=5, max_tokens=25, sampling=sampling)
    assert many == again and len(alone) == 1


def test_logprobs(engine: Engine) -> None:
    sampling = Sampling(temperature=0.0, logprobs=3)
    generation = engine.generate(PROMPT, max_tokens=4, sampling=sampling)
    tokens = [column[0] for column, _ in generation]
    for at, (own, best) in enumerate(generation.rows[0].logprobs):
        logits = engine.model(torch.tensor([PROMPT + tokens[:at]]))[0, -1].log_softmax(-1)
        assert best[0][0] == tokens[at] and len(best) == 3
        assert own == pytest.approx(float(logits[tokens[at]]), abs=1e-4)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised(scheme: str) -> None:
    engine = make_engine()
    quantize_model(engine.model, scheme)  # type: ignore[arg-type]
    rows, _ = rows_of(engine, PROMPT, num_samples=2, max_tokens=10, sampling=Sampling(seed=2))
    assert rows == naive_rows(engine, PROMPT, 2, 10, Sampling(seed=2))[0]


def test_misuse(engine: Engine) -> None:
    for options, message in [
        ({"num_samples": 0}, "num_samples 0"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"num_samples": 2, "lookup": Lookup()}, "one sample only"),
        ({"cache": engine.model.new_cache(2)}, "has one row"),
    ]:
        with pytest.raises(ModelError, match=message):
            engine.generate(PROMPT, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="prompt is empty"):
        engine.generate([])
    with pytest.raises(ModelError, match="token 271 is outside"):
        engine.generate([271])
