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
DEFAULT_FILE: Final = "pipeline.yaml"


def settings_file() -> Path | None:
    """The settings file, None where there is none.

    Raises:
        SettingsError: the environment names a file that is not there.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE).expanduser().resolve()
    if path.is_file():
        return path
    if named:
        raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {named}; correct the path")
    return None


def file_content(path: Path | None) -> dict[str, Any]:
    """What the settings file says; empty keys say nothing."""
    content = read_yaml(path) if path else {}
    return {key: value for key, value in content.items() if value is not None}


def api_key(provider: ProviderConfig) -> SecretStr | None:
    """The provider's key from the environment variable its settings name."""
    value = os.environ.get(provider.api_key_env, "").strip()
    return SecretStr(value) if value else None


def source_url(source: SourceConfig) -> str:
    """The database of a source of kind ``sql``.

    Raises:
        SettingsError: the variable that is to hold it is empty.
    """
    if source.url is not None:
        return source.url
    value = os.environ.get(source.url_env or "", "").strip()
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
    value = os.environ.get(name or "", "").strip()
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
