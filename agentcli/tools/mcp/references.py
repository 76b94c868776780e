"""References to MCP servers: ``@server:uri`` names a resource, ``/server:prompt`` a prompt.

A prompt's arguments follow its name, either as ``name=value`` or as words in the order of the
prompt's own list; the last argument takes all remaining words.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from agentcli.errors import ToolError
from agentcli.slash_commands import Command
from agentcli.text import one_line

_RESOURCE = re.compile(r"(?<![\w@/.])@([\w.-]+):(\S+)")
_PROMPT = re.compile(r"/([\w.-]+):(\S+)(?:\s+(.*))?", re.DOTALL)
_AFTER = ".,;:!?\"'`"
_BRACKETS = {")": "(", "]": "[", "}": "{", ">": "<"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a server; ``arguments`` are pairs of a name and whether it is required."""

    name: str
    description: str = ""
    arguments: tuple[tuple[str, bool], ...] = ()

    @property
    def usage(self) -> str:
        """The arguments for a usage line: ``what [how]``."""
        return " ".join(name if must else f"[{name}]" for name, must in self.arguments)


class Referable(Protocol):
    """The part of ``McpServers`` that front ends use."""

    def connected(self) -> list[str]:
        """The names of connected servers."""
        ...

    def prompts(self) -> list[tuple[str, Prompt]]:
        """(server, prompt) of all known prompts, without asking any server."""
        ...

    async def resources(self) -> list[tuple[str, str, str]]:
        """(server, uri, description or name) of all available resources."""
        ...

    async def expanded(self, text: str) -> str:
        """Expand ``/server:prompt ARGUMENTS``; any other text is returned unchanged.

        Raises:
            ToolError: the prompt is not available.
        """
        ...


def prompts_of(servers: Referable | None) -> list[Command]:
    """The prompts of MCP servers as commands."""
    return [
        Command(f"{server}:{prompt.name}", one_line(prompt.description, 60), prompt.usage)
        for server, prompt in (servers.prompts() if servers else [])
    ]


def resources_named(text: str, servers: Collection[str]) -> list[tuple[str, str]]:
    """The distinct (server, uri) of all mentions of these servers in a text."""
    found = ((match[1], _without_end(match[2])) for match in _RESOURCE.finditer(text))
    return [(server, uri) for server, uri in dict.fromkeys(found) if server in servers and uri]


def prompt_named(text: str, servers: Collection[str]) -> tuple[str, str, str] | None:
    """(server, prompt, arguments) of a text that invokes a prompt of one of these servers."""
    match = _PROMPT.fullmatch(text.strip())
    if match is None or match[1] not in servers:
        return None
    return match[1], match[2], match[3] or ""


def arguments_of(prompt: Prompt, text: str) -> dict[str, str]:
    """Parse the text after a prompt's name as its arguments.

    Raises:
        ToolError: a quote is not closed, a required argument is missing, or there are too many.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ToolError(f"{prompt.name}: {str(error).lower()}") from error
    names = [name for name, _ in prompt.arguments]
    given: dict[str, str] = {}
    rest: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name in names and name not in given:
            given[name] = value
        else:
            rest.append(word)
    free = [name for name in names if name not in given]
    if rest and not free:
        raise ToolError(f'{prompt.name}: nothing is known of "{rest[0]}"; {_takes(prompt)}')
    for place, name in enumerate(free[: len(rest)]):
        last = place == len(free) - 1
        given[name] = " ".join(rest[place:]) if last else rest[place]
    if missing := [name for name, must in prompt.arguments if must and name not in given]:
        raise ToolError(f"{prompt.name}: {missing[0]} is missing; {_takes(prompt)}")
    return given


def _takes(prompt: Prompt) -> str:
    return f"it takes {prompt.usage}" if prompt.arguments else "it takes no arguments"


def _without_end(uri: str) -> str:
    """Strip the punctuation of the surrounding sentence from a URI."""
    while uri:
        end = uri[-1]
        opened = _BRACKETS.get(end)
        unpaired = opened is not None and uri.count(end) > uri.count(opened)
        if end not in _AFTER and not unpaired:
            break
        uri = uri[:-1]
    return uri
