"""vim keys on plain text: the effect of each command on the text and the cursor."""

from __future__ import annotations

import pytest

from agentcli.tui.vim import Text, Vim, Wish


class Writing:
    """A prompt without a screen; in insert mode, keys are inserted at the cursor."""

    def __init__(self, marked: str) -> None:
        """Start with ``marked``, which has a bar before the cursor's character."""
        at = marked.index("|")
        self.now = Text(marked.replace("|", ""), at)
        self.vim = Vim()
        self.vim.inserting = False
        self.wishes: list[Wish] = []

    def type(self, keys: str) -> str:
        """Press keys (``<`` is Escape, ``>`` is Ctrl+R); return the text, a bar at the cursor."""
        for key in keys:
            if self.vim.inserting:
                self._insert(key)
            elif key == "<":
                self.vim.cancel()
            else:
                found = self.vim.press("ctrl+r" if key == ">" else key, self.now)
                if isinstance(found, Wish):
                    self.wishes.append(found)
                elif found is not None:
                    self.now = found
        return f"{self.now.text[: self.now.at]}|{self.now.text[self.now.at :]}"

    def _insert(self, key: str) -> None:
        text, at = self.now.text, self.now.at
        if key == "<":
            self.now = self.vim.leave_insert(self.now)
        else:
            self.now = Text(text[:at] + key + text[at:], at + 1)


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        # along a line
        ("one| two", "h", "on|e two"),
        ("|one", "h", "|one"),
        ("on|e", "l", "on|e"),
        ("|one two", "2l", "on|e two"),
        ("one two|x", "0", "|one two" + "x"),
        ("  one| two", "^", "  |one two"),
        ("|one two", "$", "one tw|o"),
        # words
        ("|one two", "w", "one |two"),
        ("|one.two three", "w", "one|.two three"),
        ("|one.two three", "W", "one.two |three"),
        ("|one\n\n two", "w", "one\n|\n two"),
        ("|one\n\n two", "ww", "one\n\n |two"),
        ("|one two three", "2w", "one two |three"),
        ("one tw|o", "b", "one |two"),
        ("one |two", "b", "|one two"),
        ("a.b c|d", "B", "a.b |cd"),
        ("|one two", "e", "on|e two"),
        ("on|e two", "e", "one tw|o"),
        ("grüß|e 世界", "w", "grüße |世界"),
        # lines
        ("ab|c\nd\nefg", "j", "abc\n|d\nefg"),
        ("ab|c\nd\nefg", "jj", "abc\nd\nef|g"),
        ("abc\nd\nef|g", "k", "abc\n|d\nefg"),
        ("ab\nc|d", "gg", "|ab\ncd"),
        ("|ab\n  cd", "G", "ab\n  |cd"),
        ("|a\nb\nc", "2G", "a\n|b\nc"),
        ("a|b\nc", "$j", "ab\n|c"),
        # to a character
        ("|one two two", "ft", "one |two two"),
        ("|one two two", "2ft", "one two |two"),
        ("|one two", "tt", "one| two"),
        ("one tw|o", "Fo", "|one two"),
        ("one tw|o", "To", "o|ne two"),
        ("|a b b b", "fb;", "a b |b b"),
        ("|a b b b", "fb;,", "a |b b b"),
        ("|one", "fz", "|one"),
    ],
)
def test_motions(before: str, keys: str, after: str) -> None:
    assert Writing(before).type(keys) == after


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ("o|ne", "x", "o|e"),
        ("one| two", "2x", "one|wo"),
        ("on|e", "3x", "o|n"),
        ("on|e", "X", "o|e"),
        ("|one two", "dw", "|two"),
        ("|one two three", "2dw", "|three"),
        ("|one two three", "d2w", "|three"),
        ("one |two\nthree", "dw", "one| \nthree"),
        ("|one two", "de", "| two"),
        ("one tw|o", "db", "one |o"),
        ("one |two three", "d$", "one| "),
        ("one |two three", "D", "one| "),
        ("one |two", "d0", "|two"),
        ("|one two", "dft", "|wo"),
        ("|one two", "dtt", "|two"),
        ("one t|wo three", "diw", "one | three"),
        ("one t|wo three", "daw", "one |three"),
        ("a\n|b\nc", "dd", "a\n|c"),
        ("a\nb\n|c", "dd", "a\n|b"),
        ("|a\nb\nc", "2dd", "|c"),
        ("|a", "dd", "|"),
        ("a\n|b\nc\nd", "dj", "a\n|d"),
        ("a\nb\n|c", "dgg", "|"),
        ("|a\nb", "dG", "|"),
        ("|one two", "rX", "|Xne two"),
        ("|one", "3rx", "xx|x"),
        ("|one", "9rx", "|one"),
        ("|one", "~", "O|ne"),
        ("|one\n  two", "J", "one| two"),
        # put
        ("|one two", "dwp", "t|one wo".replace("t|one wo", "tone| wo")),
        ("|ab", "xp", "b|a"),
        ("|a\nb", "ddp", "b\n|a"),
        ("a\n|b", "yyP", "a\n|b\nb"),
        ("|a\nb", "yy2p", "a\n|a\na\nb"),
        ("|one two", "yw$p", "one twoone| "),
        ("o|ne two", "yiw", "|one two"),
    ],
)
def test_changes(before: str, keys: str, after: str) -> None:
    assert Writing(before).type(keys) == after


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ("o|ne", "iX<", "o|Xne"),
        ("o|ne", "aX<", "on|Xe"),
        ("  o|ne", "IX<", "  |Xone"),
        ("|one", "AX<", "one|X"),
        ("|one\ntwo", "onew<", "one\nne|w\ntwo"),
        ("one\n|two", "Onew<", "one\nne|w\ntwo"),
        ("|one two", "cwX<", "|X two"),
        ("on|e two", "cwX<", "on|X two"),
        ("|one two three", "c2wX<", "|X three"),
        ("one |two", "ccX<", "|X"),
        ("one |two", "CX<", "one |X"),
        ("one |two", "sX<", "one |Xwo"),
        ("one t|wo", "ciwX<", "one |X"),
        ("|one", "i<", "|one"),
    ],
)
def test_inserting(before: str, keys: str, after: str) -> None:
    assert Writing(before).type(keys) == after


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ("|abcd", "x.", "|cd"),
        ("|abcdef", "2x.", "|ef"),
        ("|abcdef", "x3.", "|ef"),
        ("|one two three", "dw.", "|three"),
        ("|one two", "cwX<w.", "X |X"),
        ("|a\nb", "Ax<j.", "ax\nb|x"),
        ("|one two", "dwu", "|one two"),
        ("|one two", "dwu>", "|two"),
        ("|abc", "xxu", "|bc"),
        ("|abc", "xxuu", "|abc"),
        ("|one", "iab<u", "|one"),
        ("|one", "ob<cwX<uu", "|one"),
        ("|abc", "xu>>", "|bc"),
        ("|one two", "d<w", "one |two"),
        ("|one two", "dzx", "|ne two"),
        ("|one", "99999999999x", "|"),
    ],
)
def test_repeat_undo_and_redo(before: str, keys: str, after: str) -> None:
    assert Writing(before).type(keys) == after


def test_beyond_the_first_and_the_last_line_lies_the_history() -> None:
    one = Writing("a\n|b")
    assert one.type("kk") == "|a\nb"
    assert one.wishes == [Wish.EARLIER]
    assert one.type("jj") == "a\n|b"
    assert one.wishes == [Wish.EARLIER, Wish.LATER]


def test_keys_that_are_not_vims_are_left_to_others() -> None:
    one = Writing("|ab")
    assert one.vim.press("enter", one.now) is None
    assert one.vim.press("ctrl+o", one.now) is None
    one.type("2d")
    assert one.vim.pending == "2d"
    assert one.vim.press("enter", one.now) is None and one.vim.pending == ""
