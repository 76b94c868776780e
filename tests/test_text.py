"""agentcli.text: truncation is marked, and no control sequence reaches the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.text import (
    Truncated,
    clip,
    clip_line,
    counted,
    encodable,
    escape,
    one_line,
    plain_output,
    strip_ansi,
    truncate,
)


def test_a_short_text_is_not_cut() -> None:
    assert truncate("hello", 5) == Truncated("hello")
    assert str(truncate("hello", 5)) == "hello"


def test_a_cut_text_keeps_head_and_tail_and_says_what_is_missing() -> None:
    text = "a" * 3000 + "b" * 3000
    cut = truncate(text, 1000)
    assert cut.head == "a" * len(cut.head) and cut.tail == "b" * len(cut.tail)
    assert str(cut) == f"{cut.head}\n[... {cut.omitted} characters left out ...]\n{cut.tail}"


def test_cuts_fall_on_line_ends() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    cut = truncate(text, 500)
    assert cut.head.endswith("\n") and cut.tail.startswith("line ")
    assert "\n\n" not in str(cut)
    assert all(re.fullmatch(r"line \d+|\[\.\.\. .*\]|", line) for line in str(cut).split("\n"))


@given(st.text(alphabet="ab\n", max_size=2000), st.integers(60, 500))
def test_truncation_loses_only_what_it_counts(text: str, limit: int) -> None:
    cut = truncate(text, limit)
    assert len(str(cut)) <= limit
    assert text.startswith(cut.head) and text.endswith(cut.tail)
    assert len(cut.head) + cut.omitted + len(cut.tail) == len(text)


def test_five_megabytes_are_cut() -> None:
    assert len(str(truncate("x" * 5_000_000, 30_000))) <= 30_000


def test_clipping() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abcd", 3) == "ab…"
    assert clip_line("abc", 3) == "abc"
    assert clip_line("abcdef", 3) == "abc [... 3 characters left out ...]"
    assert one_line("  a\n\tb  c ") == "a b c"
    assert one_line("word " * 100, 10) == "word word…"


def test_counted() -> None:
    assert counted(1, "line") == "1 line"
    assert counted(0, "line") == "0 lines"
    assert counted(1200, "match", "matches") == "1,200 matches"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\r\nb", "a\nb"),
        ("a\rb", r"a\rb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("if user\u202e", r"if user\u202e"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("half\udc80", r"half\udc80"),
        ("naïve 日本語 👩\u200d💻", "naïve 日本語 👩\u200d💻"),
    ],
)
def test_what_could_act_on_a_terminal_is_shown(raw: str, shown: str) -> None:
    assert escape(raw) == shown


@given(st.text())
def test_escaped_text_is_harmless(text: str) -> None:
    shown = escape(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode("utf-8")
    assert escape(shown) == shown


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x1b=y", "xy"),
        ("\x1bPsecret\x1b\\rest", "rest"),
        ("\x9b1mC1", "C1"),
        ("\x1b]never closed\nnext line", "\nnext line"),
        ("no escape", "no escape"),
    ],
)
def test_ansi_sequences_are_removed(raw: str, plain: str) -> None:
    assert strip_ansi(raw) == plain


def test_ansi_stripping_takes_linear_time() -> None:
    unfinished = "\x1b[0;" * 200_000
    assert strip_ansi(unfinished + "\n").endswith("\n")  # in quadratic time, this would not finish


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("10%\r20%\r100%\ndone\r\n", "100%\ndone\n"),
        ("10%\r\x1b[2K100%\r", "100%"),
        ("a\nb", "a\nb"),
    ],
)
def test_a_progress_bar_leaves_its_last_state(raw: str, plain: str) -> None:
    assert plain_output(raw) == plain


def test_halves_of_surrogates_become_replacement_characters() -> None:
    assert encodable("a\ud800b") == "a\ufffdb"
    assert encodable("日本") == "日本"
