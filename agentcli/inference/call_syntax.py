"""How each model family writes tool calls within a turn.

Hermes, Qwen     <tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>
Qwen3-Coder      <tool_call>\\n<function=name>\\n<parameter=a>\\nvalue\\n</parameter>\\n
                 </function>\\n</tool_call>
Llama 3          {"name": ..., "parameters": {...}}     as the whole turn, or after <|python_tag|>
Mistral          [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]
Mistral, newer   [TOOL_CALLS]name[ARGS]{...}            repeated for each call
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Path: TypeAlias = tuple[str, ...]
"""The object keys that lead to a value within a call."""

THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class CallSyntax:
    """The marks around a call and the form of what is between them.

    Attributes:
        open: The text, usually one special token, that opens a call.
        close: The text that closes a call; empty if the syntax has none.
        arguments: The key that holds the arguments. If empty, the name precedes the arguments,
            separated from them by ``name_end``.
        bare: A turn that begins with ``{`` is a call, even without ``open``.
        listed: Calls are the items of a JSON list.
        code_tool: The tool that runs whatever follows ``open`` if that is not a JSON object.
        tagged: Name and arguments are written as tags, with text arguments unescaped.
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
    """A part of an answer. A call is a ``name``, any number of ``arguments``, and an ``end``."""

    kind: Kind
    text: str = ""
