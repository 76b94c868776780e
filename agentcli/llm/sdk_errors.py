"""Maps a provider's errors to our exceptions by status, exception type and structured code.

Both official SDKs use httpx2 and report errors alike, so one mapping serves every API. The prose
of a message is only shown, with one exception: many servers have no code for a full context.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from agentcli.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ContentFilterError,
    ContextWindowError,
    DeadlineError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    ServerError,
    StreamBrokenError,
)
from agentcli.llm.client import ModelInfo
from agentcli.sandbox.offline import is_loopback

MOVED = "x-moved-to"
"""The header in which ``transport`` keeps the target of a redirect that it does not follow."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The model and server of a request, for error messages. ``key_name`` is the key's variable."""

    provider: str
    model: str
    base_url: str
    key_name: str = ""
    api_key: str = ""


_CODES: dict[str, type[ProviderError]] = {
    "insufficient_quota": QuotaError,
    "billing_hard_limit_reached": QuotaError,
    "billing_not_active": QuotaError,
    "billing_error": QuotaError,
    "budget_exceeded": QuotaError,  # LiteLLM, with the status 422
    "insufficient_credits": QuotaError,
    "insufficient_balance": QuotaError,
    "payment_required": QuotaError,
    "context_length_exceeded": ContextWindowError,
    "context_window_exceeded": ContextWindowError,
    "model_context_window_exceeded": ContextWindowError,
    "exceed_context_size_error": ContextWindowError,
    "request_too_large": ContextWindowError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "model_not_found": ModelNotFoundError,
    "not_found_error": ModelNotFoundError,
    "NOT_FOUND": ModelNotFoundError,
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "no_db_connection": AuthenticationError,  # LiteLLM without a database: not its master key
    "UNAUTHENTICATED": AuthenticationError,
    "permission_error": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "overloaded_error": OverloadedError,
    "server_overloaded": OverloadedError,
    "slow_down": OverloadedError,
    "UNAVAILABLE": OverloadedError,
    "timeout_error": DeadlineError,
    "invalid_request_error": BadRequestError,
    "invalid_prompt": BadRequestError,
    "INVALID_ARGUMENT": BadRequestError,
}

# These are more specific than the 4xx status of the response.
_BEFORE_STATUS = (
    QuotaError,
    ContextWindowError,
    ContentFilterError,
    ModelNotFoundError,
    AuthenticationError,
)

_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: AccessDeniedError,
    404: ModelNotFoundError,
    408: DeadlineError,
    409: ServerError,
    413: ContextWindowError,
    422: BadRequestError,
    425: ServerError,
    429: RateLimitError,
    503: OverloadedError,
    504: DeadlineError,
    529: OverloadedError,
}

# OpenAI, vLLM, SGLang and LiteLLM; Anthropic behind a gateway; llama.cpp; LM Studio; Gemini.
_TOO_LONG = re.compile(
    r"maximum (context|model) length|prompt is too long|ContextWindowExceeded"
    r"|(exceed|larger|longer)\w*.{0,60}context (window|length|size)"
    r"|context (window|length|size).{0,40}exceed|context length of only"
    r"|input token count.{0,30}exceeds",
    re.IGNORECASE,
)

_SHORTER = "Give it less to read, or choose a model with a larger window"

_WHAT: dict[type[ProviderError], str] = {
    AuthenticationError: "refused the key",
    AccessDeniedError: "does not allow this",
    QuotaError: "says that the quota or credit is used up",
    ModelNotFoundError: "does not know the model",
    BadRequestError: "refused the request",
    ContextWindowError: "says that the request is longer than the context window",
    ContentFilterError: "refused the content",
    RateLimitError: "allows no more requests for now",
    OverloadedError: "is overloaded",
    DeadlineError: "gave no answer in time",
}


def status_error(
    origin: Origin, status: int, body: object, headers: Mapping[str, str]
) -> ProviderError:
    """The error for a response with an error status; ``body`` is parsed JSON or text."""
    codes, prose = _read_body(body)
    kind = _STATUS.get(status)
    if kind is None:
        kind = ServerError if status >= 500 else BadRequestError
    code = next((code for code in codes if code in _CODES), codes[0] if codes else None)
    by_code = _CODES.get(code or "")
    if by_code is not None and by_code in _BEFORE_STATUS and 400 <= status < 500:
        kind = by_code
    if 300 <= status < 400:
        return _moved(origin, status, headers)
    if status == 407:
        return AccessDeniedError(
            f"the proxy {proxy_of(origin.base_url)} wants a name and a password (407)",
            hint="Write http://NAME:PASSWORD@HOST:PORT into HTTP_PROXY",
            provider=origin.provider,
            status=status,
        )
    return _build(origin, kind, prose, status, code, retry_after_s(headers))


def _moved(origin: Origin, status: int, headers: Mapping[str, str]) -> ProviderError:
    target = _one_line(headers.get(MOVED, ""))
    return BadRequestError(
        f"{origin.provider} at {origin.base_url} redirects"
        + (f" to {target}" if target else "")
        + f" ({status}), which is not followed",
        hint="Check the base URL: its host, https and the /v1 at its end",
        provider=origin.provider,
        status=status,
    )


def overflow(error: BadRequestError, tokens: float, info: ModelInfo) -> BadRequestError:
    """Turn the error of a request that overflows the context window into ContextWindowError.

    Many servers give no code for it, so it is recognised by the request's estimated ``tokens``.
    Nine tenths of the window allow for the error of the estimate.
    """
    window = info.context_window
    if isinstance(error, ContextWindowError) or window is None or tokens < 0.9 * window:
        return error
    return ContextWindowError(
        error.message, hint=_SHORTER, provider=error.provider, status=error.status, code=error.code
    )


def stream_error(origin: Origin, body: object) -> ProviderError:
    """The error for an error object in a stream or in a body with status 200."""
    codes, prose = _read_body(body)
    for code in codes:
        if code in _CODES:
            return _build(origin, _CODES[code], prose, None, code, None)
    for code in codes:
        if code.isdecimal() and 400 <= int(code) < 600:
            return status_error(origin, int(code), body, {})
    return _build(origin, ServerError, prose, None, codes[0] if codes else None, None)


def connection_error(origin: Origin, error: BaseException | None) -> ProviderError:
    """The error for a transport failure before the response began."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        return DeadlineError(
            f"{origin.provider} gave no answer in time ({origin.base_url})",
            hint="Raise request_timeout_s or try again",
            provider=origin.provider,
        )
    if isinstance(error, httpx2.TooManyRedirects):
        return BadRequestError(
            f"{origin.provider} at {origin.base_url} redirects in a circle",
            hint="Check the base URL: its host, https and the /v1 at its end",
            provider=origin.provider,
        )
    detail = _one_line(str(error)) if error is not None else ""
    if not detail:
        waited = isinstance(error, httpx2.ConnectTimeout)
        detail = "no connection in time" if waited else "it broke off before an answer began"
    proxy = proxy_of(origin.base_url)
    return ConnectError(
        f"cannot reach {origin.provider} at {origin.base_url}"
        + (f" through the proxy {proxy}: {detail}" if proxy else f": {detail}"),
        hint="Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY, and that the proxy is running"
        if proxy
        else "Check the address, http or https, the network, and that the server is running",
        provider=origin.provider,
    )


def proxy_of(url: str) -> str:
    """The environment's proxy for ``url``, without credentials; empty if there is none."""
    target = httpx2.URL(url)
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(target.scheme) or proxies.get("all") or ""
    if is_loopback(target.host) or urllib.request.proxy_bypass(target.host):
        return ""
    head, at, host = proxy.rpartition("@")
    return f"{head.partition('://')[0]}://{host}" if at else host


def broken_error(origin: Origin, error: BaseException | str) -> ProviderError:
    """The error for a transport failure or a protocol violation within an answer."""
    if isinstance(error, httpx2.TimeoutException):
        return DeadlineError(
            f"{origin.provider} stopped in the middle of its answer and sent no more in time",
            hint="Raise request_timeout_s or try again",
            provider=origin.provider,
        )
    detail = error if isinstance(error, str) else _one_line(str(error)) or type(error).__name__
    return StreamBrokenError(
        f"the answer of {origin.provider} broke off: {detail}",
        hint="Try again later, or choose another model",
        provider=origin.provider,
    )


def not_the_protocol(origin: Origin, what: str) -> StreamBrokenError:
    """The error for an answer that is something else altogether, such as an HTML page."""
    return StreamBrokenError(
        f"{origin.provider} at {origin.base_url} answered with {what}",
        hint="Check the base URL: it usually ends in /v1",
        provider=origin.provider,
    )


def quoted(origin: Origin, text: str) -> str:
    """What a server sent, to end a message with: the start of it in one line, without the key."""
    line = _one_line(text.replace(origin.api_key, "***") if origin.api_key else text, 150)
    return f": {line}" if line else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The delay that the provider asks for, in seconds, or None.

    The headers give it in milliseconds, in seconds or as an HTTP date.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _build(
    origin: Origin,
    kind: type[ProviderError],
    prose: str,
    status: int | None,
    code: str | None,
    retry_after: float | None,
) -> ProviderError:
    if kind is BadRequestError and _TOO_LONG.search(prose):
        kind = ContextWindowError
    what = _WHAT.get(kind, "failed")
    if kind is ModelNotFoundError:
        # A server that knows the address gives a code.
        what = f"{'' if code else 'has nothing at this address, or '}{what} {origin.model!r}"
    if kind is AuthenticationError and not origin.api_key:
        what = "wants a key"
    marks = ", ".join(dict.fromkeys(str(mark) for mark in (status, code) if mark))
    if origin.api_key:
        prose = prose.replace(origin.api_key, "***")
    line = f"{origin.provider} {what}" + (f" ({marks})" if marks else "")
    return kind(
        f"{line}: {prose}" if prose else line,
        hint=_hint(origin, kind, retry_after),
        provider=origin.provider,
        status=status,
        code=code,
        retry_after_s=retry_after,
    )


def _hint(origin: Origin, kind: type[ProviderError], retry_after: float | None) -> str | None:
    if kind is AuthenticationError:
        if not origin.api_key:
            return f"Name the variable of its key in providers.{origin.provider}.api_key_env"
        key = origin.key_name
        return f"Set {key} to a valid key" if key else "Check the key"
    if kind is QuotaError:
        return "Add credit, or choose another model"
    if kind is ModelNotFoundError:
        usually = "" if "/v1" in origin.base_url else ", which usually ends in /v1"
        address = f"the address {origin.base_url}{usually}"
        return f"Check the name after '{origin.provider}:', and {address}"
    if kind is AccessDeniedError:
        return "Check what the key and its project may use"
    if kind is ContextWindowError:
        return _SHORTER
    if kind is BadRequestError:
        return f"Check the model, its settings and the address {origin.base_url}"
    if kind is ContentFilterError:
        return "Put it in other words, or choose another model"
    if kind in (RateLimitError, OverloadedError, ServerError, DeadlineError):
        minutes = math.ceil((retry_after or 0) / 60)
        return f"Try again in {minutes} min" if minutes > 1 else "Try again later"
    return None


def _read_body(body: object) -> tuple[list[str], str]:
    """The structured codes, most specific first, and the prose as one short line."""
    if isinstance(body, str):
        body = _first_event(body)
    if isinstance(body, list) and body:
        body = body[0]  # Gemini's compatible endpoint sends a list
    if isinstance(body, Mapping):
        error = body.get("error", body)
        if isinstance(error, Mapping):
            codes = [error.get(name) for name in ("code", "status", "type")]
            words = error.get("message") or error.get("detail") or ""
            return [str(code) for code in codes if code], _one_line(_words(words))
        return [], _one_line(_words(error))
    text = str(body or "")
    return [], "" if text.lstrip().startswith("<") else _one_line(text)


def _first_event(text: str) -> object:
    """The JSON of a stream's first event, in which LiteLLM sends errors; else the text itself."""
    data = next((line[5:] for line in text.splitlines() if line.startswith("data:")), "")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return text


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _one_line(text: str, most: int = 300) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return (line[:most] + "...") if len(line) > most else line.rstrip(".")
