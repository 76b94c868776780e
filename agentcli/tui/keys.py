"""The keys that ``/help`` lists; the bindings themselves are in the widgets."""

from __future__ import annotations

KEYS = (
    ("Enter", "send; while the agent works, it reads the message before its next step"),
    ("Tab", "while the agent works: send when it has finished"),
    ("Ctrl+J", "insert a new line; also Shift+Enter, or a backslash before Enter"),
    ("Esc", "interrupt at once; twice: go back to an earlier message"),
    ("Shift+Tab", "the next mode: ask, edits, auto, plan"),
    ("Ctrl+O", "unfold or fold all output; a click unfolds one card"),
    ("Ctrl+R", "search earlier prompts; Up and Down step through them"),
    ("Up", "in an empty prompt: take back the last message that was not read yet"),
    ("Ctrl+G", "edit the prompt in your editor ($VISUAL or $EDITOR)"),
    ("Ctrl+C", "copy the selection, clear the prompt or interrupt; twice while idle: quit"),
    ("Ctrl+D", "quit if the prompt is empty"),
    ("Ctrl+Z", "suspend; fg in the shell resumes"),
    ("PageUp, PageDown, Ctrl+End", "scroll; to the end"),
    ("!command", "run a command in the sandbox; the model sees it before its next step"),
    ("@file", "name a file"),
    ("y a p n c", "answer a question: once, this session, always, no, on a copy"),
)
"""Pairs of keys and their description."""
