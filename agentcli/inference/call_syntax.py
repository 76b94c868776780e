"""How families of models write tool calls within a turn.

Hermes, Qwen     <tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>
Qwen3-Coder      <tool_call>\\n<function=name>\\n<parameter=a>\\nvalue\\n</parameter>\\n
                 </function>\\n</tool_call>
Llama 3          {"name": ..., "parameters": {...}}     the turn itself, or after <|python_tag|>
Mistral          [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]
Mistral, newer   [TOOL_CALLS]name[ARGS]{...}            once for each call
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a value of a call."""

THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class CallSyntax:
    """What stands around a call.

    ``arguments`` is the key of its arguments; empty: the name stands before them, and
    ``name_end`` between. ``bare``: a turn that begins with an object is a call. ``listed``: calls
    stand in a JSON list. ``code_tool`` runs what follows ``open`` and is no object. ``tagged``:
    name and arguments are tags, and a text argument stands in its own as it is.
    """

    open: str
    close: str = ""
    arguments: str = "arguments"
    name_end: str = ""
    bare: bool = False
    listed: bool = False
    code_tool: str = ""
    tagged: bool = False


SYNTAXES = {
    "hermes": CallSyntax("<tool_call>", "</tool_call>"),
    "qwen_coder": CallSyntax("<tool_call>", "</tool_call>", arguments="", tagged=True),
    "llama3": CallSyntax("<|python_tag|>", arguments="parameters", bare=True, code_tool="python"),
    "mistral": CallSyntax("[TOOL_CALLS]", listed=True),
    "mistral_args": CallSyntax("[TOOL_CALLS]", arguments="", name_end="[ARGS]"),
}

Kind = Literal["text", "thinking", "name", "arguments", "end"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. A call is a name, pieces of its arguments and an end."""

    kind: Kind
    text: str = ""
