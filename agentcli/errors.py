"""Every error that agentcli raises on purpose.

    AgentCLIError                     message, hint, place; exit_code
    ├── UsageError                    2   wrong command line
    │   ├── ConfigError               2   a settings file, variable or flag
    │   ├── TaskError                 2   the task file or its front matter
    │   └── WorkspaceError            2   the workspace folder
    ├── ProviderError                 3   provider, status, code, retry_after_s
    │   ├── AuthenticationError           401: no key or a wrong one
    │   ├── AccessDeniedError             403
    │   ├── QuotaError                    402, or insufficient_quota
    │   ├── ModelNotFoundError            404 for the model
    │   ├── BadRequestError               400, 422
    │   │   └── ContextWindowError        the request is longer than the window
    │   ├── ContentFilterError            refused by the provider's safety system
    │   ├── RateLimitError                429
    │   ├── ServerError                   5xx
    │   │   └── OverloadedError           503, 529
    │   ├── ConnectError                  unreachable, or no answer at all
    │   ├── StreamBrokenError             the answer broke off or violated the protocol
    │   ├── DeadlineError                 no answer within the time allowed
    │   └── RetryExhaustedError           attempts, last
    ├── SandboxError                  4   the requested level is not available
    │   └── CapabilityError           4   the environment lacks an operation
    ├── EnvironmentOpError                a file or process operation failed
    ├── ToolError                         reported to the model, never ends a run
    │   └── ToolInputError                arguments that do not fit the schema; path
    ├── ModelError                    2   a local model: files, shapes, settings
    │   ├── CheckpointError           2   missing, damaged or unsafe files
    │   └── ContextLengthError        2   more tokens than the context holds
    ├── BudgetError                   1   required, hard, attempts
    ├── SnapshotError                 1   earlier content is missing or cannot be restored
    │   └── ConflictError             1   files were changed by someone else
    ├── JournalError                  5   the journal cannot be written or read
    └── InternalError                 5   a bug in agentcli

Classes are chosen by status codes, exception types and structured body codes, never by the words
of a message.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run an error arose. Steps and attempts count from 1; 0 is before the first."""

    step: int = 0
    stage: str = ""
    attempt: int = 1
    tool: str = ""
    call_id: str = ""


class AgentCLIError(Exception):
    """The base class of all errors that agentcli raises on purpose.

    ``str(error)`` is one line that says what was wrong and where; ``hint`` says what to do.
    ``place`` is where in a run the error arose; None outside a run.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place: Place | None = None

    def line(self) -> str:
        """The message and the hint in one line, as printed on stderr."""
        end = "" if self.message.endswith(("?", ".", "!")) else "."
        return f"{self.message}{end} {self.hint}" if self.hint else self.message


class UsageError(AgentCLIError):
    """The command line is wrong or cannot be executed."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type or contradicts another."""


class TaskError(UsageError):
    """The task file is missing, empty or unreadable, or its front matter is wrong."""


class WorkspaceError(UsageError):
    """The workspace does not exist or cannot be used."""


class ProviderError(AgentCLIError):
    """A model provider did not give a usable answer.

    ``status`` is the HTTP status and ``code`` the structured code of the body, if the provider sent
    them; ``retry_after_s`` is the delay that it asked for, in seconds.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        provider: str = "",
        status: int | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class AuthenticationError(ProviderError):
    """The key is missing or refused (401)."""


class AccessDeniedError(ProviderError):
    """The key is valid but lacks permission (403)."""


class QuotaError(ProviderError):
    """The credit or quota is used up (402, or 429 with the code insufficient_quota)."""


class ModelNotFoundError(ProviderError):
    """The provider has no model of that name (404)."""


class BadRequestError(ProviderError):
    """The provider refused the request itself (400, 422)."""


class ContextWindowError(BadRequestError):
    """The request has more tokens than the model's context window."""


class ContentFilterError(ProviderError):
    """The provider's safety system refused the request or the answer."""


class RateLimitError(ProviderError):
    """Too many requests or tokens in a period (429)."""


class ServerError(ProviderError):
    """The provider failed on its side (5xx)."""


class OverloadedError(ServerError):
    """The provider is overloaded (503, 529)."""


class ConnectError(ProviderError):
    """The provider could not be reached or did not answer."""


class StreamBrokenError(ProviderError):
    """The answer broke off before its end mark, or violated the protocol."""


class DeadlineError(ProviderError):
    """There was no answer within the time limit."""


class RetryExhaustedError(ProviderError):
    """Every allowed attempt failed. ``attempts`` were made; ``last`` is the last error."""

    def __init__(self, attempts: int, last: ProviderError) -> None:
        super().__init__(
            f"{last.message} (after {attempts} attempts)",
            hint=last.hint,
            provider=last.provider,
            status=last.status,
            code=last.code,
        )
        self.attempts = attempts
        self.last = last


class SandboxError(AgentCLIError):
    """The requested sandbox is not available here."""

    exit_code = 4


class CapabilityError(SandboxError):
    """The environment lacks an operation that a tool needs."""


class EnvironmentOpError(AgentCLIError):
    """A file or process operation of the environment failed.

    ``code`` is the symbolic errno (``ENOENT``, ``EACCES``, ``EISDIR``, ...), or ``CONFLICT`` if a
    file has changed since it was read.
    """

    def __init__(self, message: str, *, code: str = "EIO", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ToolError(AgentCLIError):
    """A tool failed; the message goes to the model."""


class ToolInputError(ToolError):
    """The arguments do not fit the tool's schema. ``path`` names the wrong one."""

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class ModelError(AgentCLIError):
    """A local model cannot be built or run as requested."""

    exit_code = 2


class CheckpointError(ModelError):
    """Model files are missing, damaged, of the wrong shape or unsafe to load."""


class ContextLengthError(ModelError):
    """There are more tokens than the model's context can hold."""


class BudgetError(AgentCLIError):
    """The conversation cannot be made to fit.

    ``required`` and ``hard`` are in tokens; ``attempts`` is the number of processors tried.
    """

    def __init__(self, required: int, hard: int, attempts: int) -> None:
        super().__init__(
            f"the conversation needs {required} tokens, {hard} are allowed "
            f"({attempts} ways to shorten it were tried)"
        )
        self.required = required
        self.hard = hard
        self.attempts = attempts


class SnapshotError(AgentCLIError):
    """The earlier content of a file cannot be read or restored."""


class ConflictError(SnapshotError):
    """Files were changed by someone else. ``paths`` says which, in order."""

    def __init__(self, message: str, paths: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.paths = paths


class JournalError(AgentCLIError):
    """The session journal cannot be written or read."""

    exit_code = 5


class InternalError(AgentCLIError):
    """An internal invariant was violated: a bug to report."""

    exit_code = 5
