"""Finds a provider's API key in its variable, by the user's command, or in the system's keyring."""

from __future__ import annotations

from collections.abc import Mapping

from agentcli import extras
from agentcli.errors import AuthenticationError, ConfigError
from agentcli.sandbox.outside import output_of
from agentcli.settings import ProviderSettings

SERVICE = "agentcli"
"""The service name in the keyring; the user name is the provider."""

_COMMAND_S = 30.0


def find_key(
    provider: str, variable: str, chosen: ProviderSettings, environ: Mapping[str, str]
) -> str:
    """Find the key; empty for a provider that needs none.

    Raises:
        AuthenticationError: no key was found, or it has invalid characters.
        ConfigError: the keyring cannot be used.
    """
    key, source = environ.get(variable, "").strip() if variable else "", variable
    if not key and chosen.api_key_command:
        source = " ".join(chosen.api_key_command)
        try:
            key = output_of(chosen.api_key_command, environ, time_s=_COMMAND_S).strip()
        except OSError as error:
            raise AuthenticationError(
                f"no key for {provider}: {error}",
                hint=f"See [providers.{provider}] api_key_command",
                provider=provider,
            ) from error
    if not key and chosen.api_key_keyring:
        source = "the keyring"
        key = _keyring("get_password", provider).strip()
    if not key and (variable or chosen.api_key_command or chosen.api_key_keyring):
        missing = f"{variable} is not set" if source == variable else f"{source} holds none"
        raise AuthenticationError(
            f"no key for {provider}: {missing}",
            hint=f"Set {variable or 'it'}, or choose another model",
            provider=provider,
        )
    if not (key.isascii() and key.isprintable()):
        raise AuthenticationError(
            f"{source} holds characters that no key has",
            hint="Set it again, without quotes or line breaks",
            provider=provider,
        )
    return key


def has_source(variable: str, chosen: ProviderSettings, environ: Mapping[str, str]) -> bool:
    """Whether a key may be found, judged by environment and settings alone."""
    found = environ.get(variable) or chosen.api_key_command or chosen.api_key_keyring
    return bool(found)


def keep_key(provider: str, key: str) -> None:
    """Store a key in the system's keyring.

    Raises:
        ConfigError: the keyring cannot be used.
    """
    _keyring("set_password", provider, key)


def _keyring(operation: str, *arguments: str) -> str:
    try:
        import keyring
        import keyring.errors
    except ModuleNotFoundError as error:
        raise ConfigError("the extra keyring is missing", hint=extras.install("keyring")) from error
    try:
        return getattr(keyring, operation)(SERVICE, *arguments) or ""
    except keyring.errors.KeyringError as error:
        raise ConfigError(
            f"the system's keyring cannot be used: {error}".splitlines()[0],
            hint="Use the variable of the key, or api_key_command",
        ) from error
