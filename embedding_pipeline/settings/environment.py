"""What is read from the process's environment: the file's name, keys, addresses.

Belongs here: secrets and what stands in for a setting outside of the tree. Does not belong
here: the variables of the tree's own keys (``tree``).
"""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from embedding_pipeline.alerts.config import AlertsConfig
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.yaml_file import read_yaml
from embedding_pipeline.sources.config import SourceConfig

PREFIX: Final = "EMBEDDING_PIPELINE_"
CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"
FILE_SUFFIX: Final = "_FILE"
DEFAULT_FILE: Final = "pipeline.yaml"


def settings_file() -> Path | None:
    """The settings file, None where there is none.

    Raises:
        SettingsError: the environment names a file that is not there, or something stands
            in its place that looks like it and is not read.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE).expanduser().resolve()
    if path.is_file():
        return path
    if path.is_dir():  # what Docker makes of a file that is to be mounted and is not there
        raise SettingsError(f"{path} is a folder; put the settings into a file of that name")
    if named:
        raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {named}; correct the path")
    if (other := path.with_suffix(".yml")).is_file():
        raise SettingsError(f"{other.name} is not read; rename it to {DEFAULT_FILE}")
    return None


def file_content(path: Path | None) -> dict[str, Any]:
    """What the settings file says; empty keys say nothing."""
    content = read_yaml(path) if path else {}
    return {key: value for key, value in content.items() if value is not None}


def api_key(provider: ProviderConfig) -> SecretStr | None:
    """The provider's key from the environment variable its settings name, or from its file.

    Raises:
        SettingsError: the file that is named cannot be read, or what is there is no key.
    """
    value = secret(provider.api_key_env)
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise SettingsError(
            f"environment variable {provider.api_key_env}: holds characters that no key has; "
            "copy the key again, whole and alone"
        )
    return SecretStr(value) if value else None


def secret(name: str) -> str:
    """What a variable holds, or the file that ``<name>_FILE`` names; "" where there is neither.

    Files are how Docker and Kubernetes hand secrets to a process.

    Raises:
        SettingsError: both are set, or the file cannot be read.
    """
    value = os.environ.get(name, "").strip()
    path = os.environ.get(f"{name}{FILE_SUFFIX}", "").strip()
    if not path:
        return value
    if value:
        raise SettingsError(f"{name} and {name}{FILE_SUFFIX} are both set; take one away")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise SettingsError(
            f"environment variable {name}{FILE_SUFFIX}: {path} cannot be read: {reason}"
        ) from exc


def secret_settings() -> dict[str, str]:
    """The settings that may hold a password, where a file holds them. Raises SettingsError."""
    names = {key: f"{PREFIX}{key.upper()}" for key in ("state_url", "redis_url")}
    with_file = {key: name for key, name in names.items() if f"{name}{FILE_SUFFIX}" in os.environ}
    return {key: found for key, name in with_file.items() if (found := secret(name))}


def source_url(source: SourceConfig) -> str:
    """The database of a source of kind ``sql``.

    Raises:
        SettingsError: the variable that is to hold it is empty.
    """
    if source.url is not None:
        return source.url
    value = secret(source.url_env or "")
    if not value:
        raise SettingsError(
            f"source.url_env: the variable {source.url_env} holds nothing; put the database's "
            "address into it, such as postgresql://user:password@host/name"
        )
    return value


def webhook_url(alerts: AlertsConfig) -> SecretStr:
    """The webhook's URL from the environment variable the settings name.

    Raises:
        SettingsError: no variable is named, or it is empty.
    """
    name = alerts.webhook_url_env
    value = secret(name) if name else ""
    if not value:
        problem = f"the variable {name} holds nothing" if name else "it is not set"
        raise SettingsError(
            f"alerts.webhook_url_env: {problem}; put the webhook's URL into a variable and name it"
        )
    return SecretStr(value)


def base_url(provider: ProviderConfig) -> str | None:
    """Where the provider is: its settings, else ``OPENAI_BASE_URL``, else its own default.

    Raises:
        SettingsError: the environment variable holds no http(s) address.
    """
    if provider.base_url or provider.kind != "openai":
        return provider.base_url
    url = os.environ.get("OPENAI_BASE_URL", "").strip()
    if url and not url.startswith(("http://", "https://")):
        raise SettingsError(
            "environment variable OPENAI_BASE_URL: must begin with http:// or https://"
        )
    return url or None
