"""All settings: one class per section. The docstrings of the fields are the reference.

``agentcli.config`` reads the layers that set them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)
from pydantic_core import ErrorDetails


def _command(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


SHELL = ("/bin/sh", "-c")


def _for_shell(value: object) -> object:
    return (*SHELL, value) if isinstance(value, str) and value.strip() else _command(value)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Command = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), BeforeValidator(_command)]
"""A command as a list of words, or as one line that is split like in a shell."""
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MOST_THREADS = 1024
"""More would help on no machine, and tens of thousands cannot even be started."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ProviderSettings(_Section):
    """A provider for models named ``NAME:model``. For a known provider, fields override its own."""

    base_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]")
    """The URL of its API, including ``/v1``."""
    api_key_env: str | None = None
    """The variable with the API key; empty for servers without keys."""
    api_key_command: Command = ()
    """A command that prints the key, used if the variable is not set: ``pass show openai``."""
    api_key_keyring: bool = False
    """Whether the key is in the system's keyring; see ``agentcli config key``."""
    api: Literal["chat", "responses", "messages"] | None = None
    """The protocol: OpenAI Chat Completions, OpenAI Responses or Anthropic Messages."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request."""
    streaming: bool = True
    """Off for servers that cannot stream tool calls."""
    tools: Literal["native", "react", "json", "xml", "function"] = "native"
    """How its models call tools; all but native use text, for models without tool calling."""
    context_window: Positive | None = None
    """The context window of its models in tokens, if agentcli does not know it."""
    images: bool | None = None
    """Whether its models accept images."""
    priced_by: str | None = None
    """Whose prices hold, for a proxy: a provider of genai-prices, such as openai or openrouter."""


class McpServerSettings(_Section):
    """An MCP server: a program (``command``, ``args``, ``env``) or an address (``url``).

    ``${NAME}`` and ``${NAME:-default}`` in values are replaced from the environment.
    """

    command: Command = ()
    args: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that it gets in addition to HOME, PATH and the like; it sees no others."""
    url: str | None = None
    """The URL of a streamable HTTP endpoint, or of an older one with `type = "sse"`."""
    type: Literal["stdio", "http", "sse"] | None = None
    """By default stdio with `command`, and http with `url`."""
    headers: dict[str, str] = Field(default_factory=dict)
    tools: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Offer only these of its tools; empty for all."""
    enabled: bool = True
    startup_timeout_s: Seconds = 20.0
    timeout_s: Seconds = 60.0
    """Seconds for one call."""

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either command or url")
        if self.type and (self.type == "stdio") != bool(self.command):
            raise ValueError(f"type {self.type} needs {'a command' if self.url else 'a url'}")
        return self


class McpSettings(_Section):
    """Servers by name, as in ``[mcp.servers.NAME]`` (modelcontextprotocol.io)."""

    servers: dict[str, McpServerSettings] = Field(default_factory=dict)


class HookSettings(_Section):
    """A command of yours at a fixed point of a session; see docs/protocols.md."""

    event: Literal["session_start", "before_tool", "after_tool", "stop"]
    command: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), BeforeValidator(_for_shell)]
    """A shell command line, or a list of a program and its arguments."""
    match: str = "*"
    """A pattern for the names of tools, as in a shell."""
    timeout_s: Seconds = 60.0

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if not self.command:
            raise ValueError("command is empty")
        return self


class CheckSettings(_Section):
    """Commands for run_tests, run_build and run_lint that replace the detected ones."""

    test: Command = ()
    build: Command = ()
    lint: Command = ()


RULE = re.compile(r"\s*([\w*-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
"""TOOL or TOOL(PATTERN)."""


def _rule(text: str) -> str:
    if not RULE.fullmatch(text):
        raise ValueError(f'{text!r} is not a rule; write TOOL or TOOL(PATTERN): "shell(git log:*)"')
    return text


RuleTexts = Annotated[tuple[Annotated[str, AfterValidator(_rule)], ...], BeforeValidator(_as_tuple)]


class PermissionSettings(_Section):
    """Rules such as ``shell(git status:*)``; the rules of all layers are combined.

    Deny wins over ask, and ask over allow.
    """

    allow: RuleTexts = ()
    ask: RuleTexts = ()
    deny: RuleTexts = ()


class LocalSettings(_Section):
    """How models on this machine are loaded; unset keys are chosen for speed on this machine."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] | None = None
    """cpu, cuda or cuda:1."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantize: Literal["int8", "int4"] | None = None
    """Quantize weights to 8 or 4 bits."""
    context: Positive | None = None
    """The context window in tokens; by default the model's own."""
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    """Threads for computation, at most 1024; by default the best number is measured."""


class ChatSettings(_Section):
    """The screen of ``agentcli chat``."""

    theme: Literal["dark", "light", "contrast"] = "dark"
    """The colour theme; ``/theme`` sets it."""
    keys: Literal["plain", "vim"] = "plain"
    """The key bindings of the prompt: plain, or vim's modes and keys."""
    mouse: bool = True
    """Whether agentcli handles the mouse; if off, the terminal does."""
    notify: bool = True
    """Ring the bell, and notify the desktop if the terminal can, when something waits for you."""


class LimitSettings(_Section):
    """Limits for tools. Times in seconds, memory, disk and ``output_mib`` in MiB."""

    command_time_s: Seconds = 120.0
    check_time_s: Seconds = 600.0
    memory_mib: Positive = 2048
    """For each process, and for all processes of one command together."""
    tasks: Positive = 1024
    disk_mib: Positive = 2048
    """How much one command may grow disk usage; also the limit for a single file."""
    open_files: Positive = 4096
    output_mib: Positive = 1
    """How much of each output stream is kept: its start and its end."""
    output_chars: Positive = 30_000
    """How many characters of a result the model is shown."""


class ContextSettings(_Section):
    """How conversations are kept within the model's context window. Sizes in tokens per request."""

    soft_tokens: Positive | None = None
    """Longer conversations are compacted. Default: ``compact_at`` of the hard limit."""
    hard_tokens: Positive | None = None
    """Longer requests are never sent. Default: the model's window minus the reserve."""
    reserve_tokens: Positive | None = None
    """Kept for the answer. Default: the longest answer, but at most a quarter of the window."""
    compact_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Default of ``soft_tokens``, as a fraction of the hard limit."""
    compact_to: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """How far to compact, as a fraction of the hard limit."""
    processors: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """What shortens a conversation: applied in this order until it is short enough."""
    memory: Literal["none", "window", "summary", "search"] = "none"
    """How the model is reminded of steps that it no longer sees."""


class Settings(_Section):
    """Everything that can be configured; the docstrings of the fields are its reference."""

    model: str | None = None
    """``PROVIDER:NAME``, ``local:PATH`` or ``embedded``."""
    fallback: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Models to try in turn when one fails permanently."""
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mode: Literal["ask", "edits", "auto", "plan"] | None = None
    """What needs your approval. Default: ask in chat, auto in run."""
    max_steps: Positive = 100
    timeout_s: Seconds | None = None
    """Seconds for a whole run."""
    step_timeout_s: Seconds | None = None
    """Seconds for one step: the model's answer, including retries, and the tools."""
    request_timeout_s: Seconds = 600.0
    """Seconds to wait for the next piece of a model's answer before giving up."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a failed request to a provider is retried."""
    budget_tokens: Positive | None = None
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars."""
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    sandbox: Literal["auto", "full", "reduced", "none"] = "auto"
    """The required level; auto uses the best one that works."""
    network: Literal["none", "loopback", "allow", "full"] = "none"
    """What commands can reach: nothing, their own loopback, ``domains``, or whatever you can."""
    domains: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Hosts for the network ``allow``: example.com, *.example.com, 10.0.0.0/8, localhost:8000."""
    offline: bool = False
    """Restrict agentcli itself and commands to this machine."""
    output: Literal["text", "json", "stream-json"] = "text"
    env: Annotated[str, Field(pattern=r"^(host|docker:\S+|ssh:\S+)$")] = "host"
    """Where tools act: ``host``, ``docker:IMAGE`` or ``ssh:HOST[:FOLDER]``."""
    ssh_config: str | None = None
    """A configuration file for ssh to use instead of its default ones."""
    permissions: PermissionSettings = Field(default_factory=PermissionSettings)
    hooks: Annotated[tuple[HookSettings, ...], BeforeValidator(_as_tuple)] = ()
    """Your commands, then the project's if it is trusted."""
    mcp: McpSettings = Field(default_factory=McpSettings)
    extra_tools: Annotated[tuple[Literal["apply_patch"], ...], BeforeValidator(_as_tuple)] = ()
    """Tools to offer in addition to the standard ones."""
    snapshots: bool = True
    """Keep copies of what tools change, outside the workspace, so that it can be undone."""
    plan_gate: bool = False
    """Allow no changes to files before the model has made a plan of 3 to 6 steps."""
    critic: str | None = None
    """A model that judges each final answer before it counts."""
    tool_rates: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """The most calls per second, by tool name; further calls wait."""
    tool_cache: bool = False
    """Answer repeated reads of an unchanged file from memory."""
    checks: CheckSettings = Field(default_factory=CheckSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    context: ContextSettings = Field(default_factory=ContextSettings)
    chat: ChatSettings = Field(default_factory=ChatSettings)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _notices: tuple[str, ...] = PrivateAttr(default=())

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines to show to the user, about ignored keys of an untrusted project file."""
        return self._notices

    @property
    def commands_network(self) -> Literal["none", "loopback", "allow", "full"]:
        """``network``, or ``none`` if ``offline`` forbids it."""
        beyond = self.network in ("allow", "full")
        return "none" if self.offline and beyond else self.network

    def source(self, key: str) -> str:
        """The layer that set a key such as ``checks.test``."""
        return self._sources.get(key, "default")

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (key, value, source) of every value, in order."""
        for key, value in leaves(self.model_dump()):
            yield key, value, self.source(key)


FORMS = {
    "env": "host, docker:IMAGE or ssh:HOST[:FOLDER]",
    "base_url": "an address that begins with http:// or https://",
    "device": "cpu, cuda or cuda:N",
}
"""What values that must match a pattern look like, by the last part of their key."""


def complaint(error: ErrorDetails) -> str:
    """What is wrong with a value, in words that follow its key."""
    wanted = error["msg"].removeprefix("Input should be ")
    match error["type"]:
        case "missing":
            return "is missing"
        case "string_pattern_mismatch":
            wanted = FORMS.get(str(error["loc"][-1]), wanted)
        case "tuple_type":
            wanted = "a list"
        case "model_type" | "dict_type":
            wanted = "a section of keys and values"
    return f"should be {wanted}"


def leaves(layer: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything that is not a section."""
    for name, value in layer.items():
        key = at + quoted(name)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{key}.")
        elif not isinstance(value, Mapping):
            yield key, value


def quoted(name: str) -> str:
    """A name as a part of a dotted key: in quotes, as in TOML, if it contains a dot itself."""
    return f'"{name}"' if "." in name else name


def parts(key: str) -> list[str]:
    """The names in a dotted key; undoes ``quoted``."""
    pieces = key.split('"')
    pieces[::2] = [outside.replace(".", "\0") for outside in pieces[::2]]
    return "".join(pieces).split("\0")
