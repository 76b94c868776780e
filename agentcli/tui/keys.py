"""The keys that ``/help`` lists; the bindings themselves are in the widgets."""

from __future__ import annotations

KEYS = (
    ("Enter", "send; while the agent works: tell it now"),
    ("Tab", "while the agent works: tell it when it has finished"),
    ("Ctrl+J", "a new line; also Shift+Enter, or a backslash before Enter"),
    ("Esc", "interrupt at once; twice: go back to an earlier message"),
    ("Shift+Tab", "the next mode: ask, edits, auto, plan"),
    ("Ctrl+O", "unfold all output, or fold it; a click does so for one card"),
    ("Ctrl+R", "search what you wrote before; Up and Down lead through it"),
    ("Ctrl+G", "write in your own editor ($VISUAL or $EDITOR)"),
    ("Ctrl+C", "copy what is selected, else clear the prompt; twice: quit"),
    ("Ctrl+D", "quit, where the prompt is empty"),
    ("Ctrl+Z", "stop, and back to the shell; fg goes on"),
    ("PageUp, PageDown, Ctrl+End", "scroll; to the end"),
    ("!command", "run a command in the sandbox"),
    ("@file", "name a file"),
    ("y a p n c", "answer a question: once, this session, always, no, on a copy"),
)
"""Pairs of keys and their description."""
