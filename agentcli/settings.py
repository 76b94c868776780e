"""All settings: one class per section; the docstrings of the fields are the reference.

``agentcli.config`` reads the layers that fill these in.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator


def _command(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


SHELL = ("/bin/sh", "-c")


def _for_shell(value: object) -> object:
    return (*SHELL, value) if isinstance(value, str) and value.strip() else _command(value)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Command = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), BeforeValidator(_command)]
"""A command as a list of words, or as one line that is split as a shell would."""
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ProviderSettings(_Section):
    """A server that answers models named ``NAME:model``; each field overrides a known one."""

    base_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]")
    """Where its API is, up to and with ``/v1``."""
    api_key_env: str | None = None
    """The variable that holds the key; empty for servers without keys."""
    api_key_command: Command = ()
    """A command that prints the key, used where the variable is not set: ``pass show openai``."""
    api_key_keyring: bool = False
    """Whether the system's keyring holds the key; see ``agentcli config key``."""
    api: Literal["chat", "responses", "messages"] | None = None
    """The wire: OpenAI Chat Completions, OpenAI Responses or Anthropic Messages."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request."""
    streaming: bool = True
    """Off for servers that cannot stream tool calls."""
    tools: Literal["native", "react", "json", "xml", "function"] = "native"
    """How its models call tools; all but native are text, for models that cannot do otherwise."""
    context_window: Positive | None = None
    """Tokens that its models take, where it cannot be known otherwise."""
    images: bool | None = None
    """Whether its models can be shown images."""


class McpServerSettings(_Section):
    """A server of tools: a program (``command``, ``args``, ``env``) or an address (``url``).

    ``${NAME}`` and ``${NAME:-default}`` in its texts are filled from the environment.
    """

    command: Command = ()
    args: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that it gets beside HOME, PATH and the like; it sees no others."""
    url: str | None = None
    """Of a streamable HTTP endpoint."""
    headers: dict[str, str] = Field(default_factory=dict)
    tools: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Only these of its tools; without it: all."""
    enabled: bool = True
    startup_timeout_s: Seconds = 20.0
    timeout_s: Seconds = 60.0
    """Seconds for one call."""

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either command or url")
        return self


class McpSettings(_Section):
    """Servers by name, as in ``[mcp.servers.NAME]`` (modelcontextprotocol.io)."""

    servers: dict[str, McpServerSettings] = Field(default_factory=dict)


class HookSettings(_Section):
    """A command of the user's own at a moment of a session; see docs/protocols.md."""

    event: Literal["session_start", "before_tool", "after_tool", "stop"]
    command: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), BeforeValidator(_for_shell)]
    """A line for the shell, or a program and its arguments as a list."""
    match: str = "*"
    """Names of tools, as a shell pattern."""
    timeout_s: Seconds = 60.0

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if not self.command:
            raise ValueError("command is empty")
        return self


class CheckSettings(_Section):
    """Commands of run_tests, run_build and run_lint in place of those that are detected."""

    test: Command = ()
    build: Command = ()
    lint: Command = ()


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class PermissionSettings(_Section):
    """Rules such as ``shell(git status:*)``; those of all layers hold together.

    Deny wins over ask, and ask over allow.
    """

    allow: Texts = ()
    ask: Texts = ()
    deny: Texts = ()


class LocalSettings(_Section):
    """How models on this machine are loaded; None leaves the choice to what is fast here."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] | None = None
    """cpu, cuda or cuda:1."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantize: Literal["int8", "int4"] | None = None
    """Matrices in 8 or 4 bits."""
    context: Positive | None = None
    """Tokens of the context window, where it is not to be the model's own."""
    threads: Positive | None = None
    """Threads that compute; measured if left out."""


class ChatSettings(_Section):
    """The screen of ``agentcli chat``."""

    theme: Literal["dark", "light", "contrast"] = "dark"
    """Colours; ``/theme`` sets it."""
    keys: Literal["plain", "vim"] = "plain"
    """Of the prompt: every key writes, or vim's modes and keys."""
    mouse: bool = True
    """Whether the mouse is agentcli's; off leaves it to the terminal."""
    notify: bool = True
    """Ring, and tell the desktop where the terminal can, when something waits for you."""


class LimitSettings(_Section):
    """What tools may use. Times in seconds, memory and disk in MiB, output in characters."""

    command_time_s: Seconds = 120.0
    check_time_s: Seconds = 600.0
    memory_mib: Positive = 2048
    """Of each process, and of all that one command starts."""
    tasks: Positive = 1024
    disk_mib: Positive = 2048
    """Growth of the disk by one command; no single file can be larger either."""
    open_files: Positive = 4096
    output_mib: Positive = 1
    """Kept of each stream, its start and its end."""
    output_chars: Positive = 30_000
    """What the model is shown of it."""


class ContextSettings(_Section):
    """How long conversations are kept within the model's context window. In tokens of a request."""

    soft_tokens: Positive | None = None
    """From here on a conversation is compacted; None: ``compact_at`` of the hard limit."""
    hard_tokens: Positive | None = None
    """More is never sent; None: the model's window less the reserve."""
    reserve_tokens: Positive | None = None
    """Kept for the answer; None: the longest answer, and at most a quarter of the window."""
    compact_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    compact_to: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Shares of the hard limit."""
    processors: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """What makes a conversation shorter, in this order, until it is short enough."""
    memory: Literal["none", "window", "summary", "search"] = "none"
    """What the model is reminded of when it is no longer shown it."""


class Settings(_Section):
    """All that can be configured; the docstrings of the fields are its reference."""

    model: str | None = None
    """``PROVIDER:NAME``, ``local:PATH`` or ``embedded``."""
    fallback: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Models to try in turn when one fails for good."""
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mode: Literal["ask", "edits", "auto", "plan"] | None = None
    """Who is asked before tools act; None: ask in chat, auto in run."""
    max_steps: Positive = 100
    timeout_s: Seconds | None = None
    """Seconds for a whole run."""
    step_timeout_s: Seconds | None = None
    """Seconds for one step: the model's answer with its retries, and the tools."""
    request_timeout_s: Seconds = 600.0
    """Seconds without a piece of a model's answer before it is given up."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Further attempts after a provider's failure."""
    budget_tokens: Positive | None = None
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars."""
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    sandbox: Literal["auto", "full", "reduced", "none"] = "auto"
    """The level that must hold; auto takes the best that works."""
    network: Literal["none", "loopback", "allow", "full"] = "none"
    """What commands reach: nothing, a loopback of their own, ``domains``, or what you reach."""
    domains: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Hosts for the network ``allow``: example.com, *.example.com, 10.0.0.0/8, localhost:8000."""
    offline: bool = False
    """agentcli reaches this machine only, and so do commands."""
    output: Literal["text", "json", "stream-json"] = "text"
    env: Annotated[str, Field(pattern=r"^(host|docker:\S+|ssh:\S+)$")] = "host"
    """Where tools act: ``host``, ``docker:IMAGE`` or ``ssh:HOST[:FOLDER]``."""
    ssh_config: str | None = None
    """A file for ssh in place of its own configuration."""
    permissions: PermissionSettings = Field(default_factory=PermissionSettings)
    hooks: Annotated[tuple[HookSettings, ...], BeforeValidator(_as_tuple)] = ()
    """The user's commands, then the project's where it is trusted."""
    mcp: McpSettings = Field(default_factory=McpSettings)
    extra_tools: Annotated[tuple[Literal["apply_patch"], ...], BeforeValidator(_as_tuple)] = ()
    """Tools to offer beside the usual ones."""
    snapshots: bool = True
    """Keep what tools change, outside the workspace, so that it can be undone."""
    plan_gate: bool = False
    """No file is changed before the model has made a plan of 3 to 6 steps."""
    critic: str | None = None
    """A model that judges each final answer before it counts."""
    tool_rates: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """Most calls a second of a tool, by its name; others wait for their turn."""
    tool_cache: bool = False
    """The same reading of a file that has not changed is answered as before."""
    checks: CheckSettings = Field(default_factory=CheckSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    context: ContextSettings = Field(default_factory=ContextSettings)
    chat: ChatSettings = Field(default_factory=ChatSettings)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _notices: tuple[str, ...] = PrivateAttr(default=())

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines to show: keys of an untrusted project file that were left out."""
        return self._notices

    @property
    def commands_network(self) -> Literal["none", "loopback", "allow", "full"]:
        """``network``, unless ``offline`` forbids it."""
        beyond = self.network in ("allow", "full")
        return "none" if self.offline and beyond else self.network

    def source(self, key: str) -> str:
        """Which layer set a key such as ``checks.test``."""
        return self._sources.get(key, "default")

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """(key, value, source) of every value, in order."""
        for key, value in leaves(self.model_dump()):
            yield key, value, self.source(key)


FORMS = {
    "env": "host, docker:IMAGE or ssh:HOST[:FOLDER]",
    "base_url": "an address that begins with http:// or https://",
    "device": "cpu, cuda or cuda:N",
}
"""How texts that must match a pattern look, by the last part of their key."""


def leaves(layer: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no section."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{at}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{at}{key}", value
