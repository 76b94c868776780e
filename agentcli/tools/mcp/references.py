"""How a user names what an MCP server has: ``@server:uri`` a resource, ``/server:prompt`` a prompt.

After the prompt's name come its arguments: words in the order of the prompt's own list, the last
of which takes all that is left, or ``name=value``.
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
    """A prompt of a server; ``arguments`` are (name, whether it must be given)."""

    name: str
    description: str = ""
    arguments: tuple[tuple[str, bool], ...] = ()

    @property
    def usage(self) -> str:
        """What may follow its name: ``what [how]``."""
        return " ".join(name if must else f"[{name}]" for name, must in self.arguments)


class Referable(Protocol):
    """What a face needs of a session's servers; ``McpServers`` is it."""

    def connected(self) -> list[str]:
        """Names of the servers that run now."""
        ...

    def prompts(self) -> list[tuple[str, Prompt]]:
        """(server, prompt) of all that are known; asks nobody."""
        ...

    async def resources(self) -> list[tuple[str, str, str]]:
        """(server, uri, name or description) of all that can be had now."""
        ...

    async def expanded(self, text: str) -> str:
        """What ``/server:prompt ARGUMENTS`` stands for; any other text as it is.

        Raises:
            ToolError: it cannot be had.
        """
        ...


def prompts_of(servers: Referable | None) -> list[Command]:
    """The prompts of MCP servers as commands."""
    return [
        Command(f"{server}:{prompt.name}", one_line(prompt.description, 60), prompt.usage)
        for server, prompt in (servers.prompts() if servers else [])
    ]


def resources_named(text: str, servers: Collection[str]) -> list[tuple[str, str]]:
    """The (server, uri) of all mentions of these servers, each once; other text is only text."""
    found = ((match[1], _without_end(match[2])) for match in _RESOURCE.finditer(text))
    return [(server, uri) for server, uri in dict.fromkeys(found) if server in servers and uri]


def prompt_named(text: str, servers: Collection[str]) -> tuple[str, str, str] | None:
    """The (server, prompt, what follows) of a text that calls for a prompt of one of these."""
    match = _PROMPT.fullmatch(text.strip())
    if match is None or match[1] not in servers:
        return None
    return match[1], match[2], match[3] or ""


def arguments_of(prompt: Prompt, text: str) -> dict[str, str]:
    """What was written after a prompt's name, as its arguments.

    Raises:
        ToolError: a quote is left open, one that must be given is missing, or it takes none.
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
    """A URI without the punctuation of the sentence around it."""
    while uri:
        end = uri[-1]
        opened = _BRACKETS.get(end)
        unpaired = opened is not None and uri.count(end) > uri.count(opened)
        if end not in _AFTER and not unpaired:
            break
        uri = uri[:-1]
    return uri
