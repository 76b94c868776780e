"""Validates tools when they are registered, not when a model first calls them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from agentcli.errors import ConfigError
from agentcli.tools.base import Tool, ToolKind, ToolSpec
from agentcli.tools.schema import Validator

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")  # what all providers accept
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")


def check_sound(tool: Tool) -> Validator:
    """Validate a tool and return the validator of its arguments.

    Raises:
        ConfigError: names, schema or function are invalid, or do not fit each other.
    """
    spec = tool.spec
    if not _NAME.fullmatch(spec.name):
        raise ConfigError(f"{spec.name!r} cannot be the name of a tool")
    if not _VERSION.fullmatch(spec.version):
        raise ConfigError(f"tool {spec.name}: {spec.version!r} cannot be a version")
    if not spec.description.strip():
        raise ConfigError(f"tool {spec.name}: a description is missing")
    properties = spec.parameters.get("properties", {})
    named = [*spec.path_arguments, *spec.text_of, *filter(None, spec.text_of.values())]
    named += [*spec.variant_of, *spec.variant_of.values()]
    named += [
        name for name in (spec.command_argument, spec.patch_argument, spec.address_argument) if name
    ]
    if unknown := sorted({name for name in named if name not in properties}):
        raise ConfigError(f"tool {spec.name} has no argument {', '.join(unknown)}")
    if spec.timeout_s <= 0:
        raise ConfigError(f"tool {spec.name}: timeout_s must be more than 0")
    if spec.retryable and spec.kind in (ToolKind.EDIT, ToolKind.RUN):
        raise ConfigError(f"tool {spec.name}: a tool that changes things cannot be retryable")
    _check_function(spec, tool.function)
    try:
        return Validator(spec.parameters)
    except ConfigError as error:
        raise ConfigError(f"tool {spec.name}: {error.message}") from error


def _check_function(spec: ToolSpec, function: Callable[..., Any]) -> None:
    is_object = not inspect.isroutine(function) and callable(function)
    called = type(function).__call__ if is_object else function
    if not inspect.iscoroutinefunction(called):
        raise ConfigError(f"tool {spec.name}: its function must be async")
    names = spec.parameters.get("properties", {})
    try:
        inspect.signature(function).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        raise ConfigError(f"tool {spec.name}: function and schema differ: {error}") from error
