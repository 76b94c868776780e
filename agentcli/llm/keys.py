"""Where a provider's key comes from: its variable, the user's command, or the system's keyring."""

from __future__ import annotations

from collections.abc import Mapping

from agentcli import extras
from agentcli.errors import AuthenticationError, ConfigError
from agentcli.sandbox.outside import output_of
from agentcli.settings import ProviderSettings

SERVICE = "agentcli"
"""Under which the keyring holds keys, with the provider as the user's name."""

_COMMAND_S = 30.0


def find_key(
    provider: str, variable: str, chosen: ProviderSettings, environ: Mapping[str, str]
) -> str:
    """The key; empty for a provider that needs none.

    Raises:
        AuthenticationError: there is none, or what was found cannot be one.
        ConfigError: the keyring is not to be had.
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
            hint=f"Set {variable or 'it'}, or choose another model with --model",
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
    """Whether a key may be found, without looking further than the environment."""
    found = environ.get(variable) or chosen.api_key_command or chosen.api_key_keyring
    return bool(found)


def keep_key(provider: str, key: str) -> None:
    """Put a key into the system's keyring.

    Raises:
        ConfigError: the keyring is not to be had.
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
