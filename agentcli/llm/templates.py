"""Chat templates: renders a model's own Jinja template in a sandbox and tokenises the result.

A template is a program that comes with the weights. It runs in Jinja's immutable sandbox and can
access nothing but the values it is given. The environment is that of ``transformers``
(``apply_chat_template``): trimmed blocks, loop controls, ``tojson`` without HTML escapes,
``raise_exception``, ``strftime_now`` and the tag ``generation``.

Text in messages never becomes a special token: before rendering, a guard character is inserted
wherever the text spells one, and there the rendered text is cut before it is tokenised.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from agentcli.errors import ModelError
from agentcli.model.tokenizer import Tokenizer

# Unicode reserves these noncharacters for internal use. A guard that is in a message itself is
# written as a guard and a twin.
_GUARD, _TWIN = "\ufdd0", "\ufdd1"
_CUT = re.compile(f"{_GUARD}(?!{_TWIN})")


class _Generation(Extension):
    """``{% generation %}`` marks the model's text for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 wants a set)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace without names that start with an underscore, which give access to Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


class ChatTemplate:
    """One model's template, with its tokenizer.

    Raises:
        ModelError: the template is not valid Jinja.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self.source = source
        self._tokenizer = tokenizer
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["namespace"] = _Namespace
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template is not valid Jinja: {error}") from None
        self._special = _beginning(tokenizer.special)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        answer: bool = True,
    ) -> str:
        """Render the conversation for ``encode``; with ``answer``, start the model's turn.

        Raises:
            ModelError: the template rejects the messages or fails.
        """
        try:
            return self._template.render(
                messages=_mapped(list(messages), self._guarded),
                tools=_mapped(list(tools), self._guarded) or None,
                documents=None,
                add_generation_prompt=answer,
                **self._tokenizer.named,
            )
        except Exception as error:  # a template is a program and may raise anything
            raise ModelError(
                f"the chat template does not take this conversation: {error}"
            ) from None

    def encode(self, text: str) -> list[int]:
        """Tokenise rendered text, or a part of it that begins at a special token."""
        first, *others = (part.replace(_GUARD + _TWIN, _GUARD) for part in _CUT.split(text))
        tokens = self._tokenizer.encode_template(first)
        for part in others:
            tokens += self._tokenizer.encode_template(part, inner=True)
        return tokens

    def _guarded(self, text: str) -> str:
        return self._special.sub(rf"\1{_GUARD}", text.replace(_GUARD, _GUARD + _TWIN))


def _beginning(texts: Collection[str]) -> re.Pattern[str]:
    """Match the first character of each of ``texts`` wherever one begins: they may overlap."""
    whole = "|".join(map(re.escape, texts)) or "(?!)"
    first = "|".join({re.escape(text[0]) for text in texts})  # rules out most places at once
    return re.compile(f"(?={first})(?={whole})(.)", re.DOTALL)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Apply ``change`` to every string in a JSON-like value, including keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
