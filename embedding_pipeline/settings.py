"""The settings tree, read once, checked whole.

Belongs here: composing each room's frozen config, and every reading of the environment
and of settings files; no other module does either. Does not belong here: building
anything from the settings (``assembly``).

Order, strongest first: what the caller names, the environment
``EMBEDDING_PIPELINE_<SECTION>__<FIELD>`` (lists as JSON, ``null`` for none), the YAML file
named by ``EMBEDDING_PIPELINE_CONFIG`` (default ``pipeline.yaml`` in the working directory),
then the defaults. Secrets come from the environment only.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableValueError

from embedding_pipeline.cache.config import CacheConfig
from embedding_pipeline.catalog import DEFAULT_MODEL, ModelSpec, find_model
from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.embedders.config import ProviderConfig, RetryConfig
from embedding_pipeline.errors import ConfigurationError, NotAvailableYet, SettingsError
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.limits.config import LimitsConfig, TenantConfig
from embedding_pipeline.planning.config import RequestsConfig
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.wording import children_of, closest, explain
from embedding_pipeline.yaml_file import read_yaml

PREFIX: Final = "EMBEDDING_PIPELINE_"
CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"
DEFAULT_FILE: Final = "pipeline.yaml"
DEMO_DAYS: Final = 7
_DEMO_START_FILE: Final = "demo_start_date"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartitionsConfig(_Section):
    """Daily partitions: the first one, and whose midnight divides the days."""

    start_date: date | None = None
    """First day; may stay empty only for the demo, which sets it itself."""

    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "UTC":  # also where no time zones are installed
            return value
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError("not a time zone; write it like Europe/Berlin") from exc
        return value


class EmbeddingConfig(_Section):
    """Which model makes the vectors, and how long the vectors handed out are."""

    model: str = DEFAULT_MODEL
    dimensions: int | None = Field(None, ge=1)
    """A view of the full vector (first components, renormalised); null = native."""


class AlertsConfig(_Section):
    """Where alerts go."""

    webhook_url_env: str | None = None


class Settings(BaseSettings):
    """Everything a user can set. Frozen; ``load_settings`` makes one from file and environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
    )

    data_dir: str = Field(".embedding_pipeline", min_length=1)
    state_url: str | None = Field(None, min_length=1, repr=False)
    redis_url: str | None = Field(None, min_length=1, repr=False)
    partitions: PartitionsConfig = PartitionsConfig()
    source: SourceConfig = SourceConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    dedup: DedupConfig = DedupConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    providers: tuple[ProviderConfig, ...] = (ProviderConfig(name="openai", kind="openai"),)
    requests: RequestsConfig = RequestsConfig()
    retry: RetryConfig = RetryConfig()
    limits: LimitsConfig = LimitsConfig()
    tenants: tuple[TenantConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    budgets: tuple[BudgetConfig, ...] = ()
    on_outage: Literal["fail", "defer", "degrade"] = "fail"
    batch_api: Literal["off", "on", "auto"] = "off"
    alerts: AlertsConfig = AlertsConfig()

    _base: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller names, then the environment, then the file."""
        content = InitSettingsSource(settings_cls, _content(_file()))
        return init_settings, env_settings, content

    @property
    def data_path(self) -> Path:
        """``data_dir`` as an absolute path; a relative one starts at the settings file."""
        return (self._base / Path(self.data_dir).expanduser()).resolve()

    @property
    def state(self) -> str:
        """SQLAlchemy URL of the shared store; a relative file starts at the settings file."""
        url = self.state_url or f"sqlite:///{self.data_path / 'state.db'}"
        scheme, mark, file = url.partition(":///")
        relative = scheme.startswith("sqlite") and file not in {"", ":memory:"}
        return f"{scheme}{mark}{self._base / file}" if relative else url

    @property
    def start_date(self) -> date:
        """The first daily partition."""
        return self.partitions.start_date or _demo_start(self.data_path)

    @property
    def model_spec(self) -> ModelSpec:
        """The model ``embedding.model`` names."""
        return find_model(self.embedding.model)

    @property
    def dimensions(self) -> int:
        """Length of the vectors handed out."""
        return self.embedding.dimensions or self.model_spec.native_dimensions

    @property
    def provider(self) -> ProviderConfig:
        """The provider asked first."""
        return min(self.providers, key=lambda provider: provider.priority)

    @field_validator("batch_api", mode="before")
    @classmethod
    def _yaml_words(cls, value: object) -> object:
        """YAML reads a bare ``on`` and ``off`` as true and false."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        overrides: values that go before the file's and the environment's, as a tree.

    Raises:
        SettingsError: a file cannot be read, or a value is wrong; every problem is named.
        NotAvailableYet: a key is set whose feature this version does not have.
    """
    named = {key: value for key, value in (overrides or {}).items() if value is not None}
    path = _file()
    _refuse_unknown_variables()
    try:
        settings = Settings(**named)
    except ValidationError as exc:
        raise SettingsError(explain(exc, Settings, _Origin(named, path).of)) from exc
    except UnreadableValueError as exc:
        raise SettingsError(_no_json(exc)) from exc
    settings._base = path.parent if path else Path.cwd()
    for key, feature in _later(settings):
        origin = _Origin(named, path).of(tuple(key.split(".")))
        raise NotAvailableYet(f"{origin}: {key} is not available yet ({feature}); leave it out")
    return settings


def api_key(provider: ProviderConfig) -> SecretStr | None:
    """The provider's key from the environment variable its settings name."""
    value = os.environ.get(provider.api_key_env, "").strip()
    return SecretStr(value) if value else None


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


def pin_demo_start(settings: Settings) -> None:
    """Keep the demo's first day, so that tomorrow's partitions are today's plus one.

    Raises:
        SettingsError: ``data_dir`` cannot be written.
    """
    folder = settings.data_path
    if settings.partitions.start_date is not None or _pinned_start(folder) is not None:
        return
    own = folder / f"{_DEMO_START_FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own.write_text(settings.start_date.isoformat())
        own.replace(folder / _DEMO_START_FILE)  # whole at once; others write the same day
    except OSError as exc:
        raise SettingsError(f"data_dir: {folder} cannot be written: {exc.strerror}") from exc


def _pinned_start(data_path: Path) -> date | None:
    try:
        return date.fromisoformat((data_path / _DEMO_START_FILE).read_text().strip())
    except (OSError, ValueError):
        return None


def _demo_start(data_path: Path) -> date:
    return _pinned_start(data_path) or datetime.now(UTC).date() - timedelta(days=DEMO_DAYS)


def _later(settings: Settings) -> Iterator[tuple[str, str]]:
    """Keys that ask for what this version does not have."""
    yield from _later_storage(settings)
    if settings.source.kind == "sql":
        yield "source.kind", "SQL sources"
    if settings.dedup.near or settings.dedup.scope_days:
        key = "dedup.near" if settings.dedup.near else "dedup.scope_days"
        yield key, "near-duplicate detection"
    if settings.budgets:
        yield "budgets", "budgets"
    if settings.alerts.webhook_url_env:
        yield "alerts.webhook_url_env", "alerts"
    if settings.on_outage != "fail":
        yield "on_outage", "deferred work and stand-ins"
    if settings.batch_api != "off":
        yield "batch_api", "the Batch API"
    if len(settings.providers) > 1 or settings.provider.kind in ("azure", "local"):
        yield "providers", "fallback providers, Azure and local stand-ins"


def _later_storage(settings: Settings) -> Iterator[tuple[str, str]]:
    if "://" in settings.data_dir:
        yield "data_dir", "object storage for datasets"
    if settings.cache.max_gb is not None:
        yield "cache.max_gb", "eviction from the database tier"


def _contradictions(settings: Settings) -> Iterator[str]:
    try:
        spec = settings.model_spec
    except ConfigurationError as exc:
        yield f"embedding.model: {exc}"
        return
    wanted = settings.embedding.dimensions
    if wanted and wanted > spec.native_dimensions:
        yield (
            f"embedding.dimensions: {wanted} is more than the {spec.native_dimensions} "
            f"that {settings.embedding.model} has"
        )
    if wanted and wanted < spec.native_dimensions and not spec.supports_dimensions:
        yield (
            f"embedding.dimensions: vectors of {settings.embedding.model} cannot be shortened; "
            "leave it out"
        )
    if settings.source.kind != "demo" and settings.partitions.start_date is None:
        yield "partitions.start_date: needed for this source; set the day of the first partition"
    if settings.chunking.max_tokens > spec.max_input_tokens:
        yield (
            f"chunking.max_tokens: {settings.chunking.max_tokens} is more than the "
            f"{spec.max_input_tokens} that {settings.embedding.model} takes"
        )
    yield from _odd_providers(settings.providers)


def _odd_providers(providers: Sequence[ProviderConfig]) -> Iterator[str]:
    if not providers:
        yield "providers: the list is empty; leave it out to use openai"
    names = [provider.name for provider in providers]
    for index, provider in enumerate(providers):
        if provider.kind == "compatible" and provider.base_url is None:
            yield f"providers.{index}.base_url: needed for kind compatible; say where it is"
        if provider.name in names[:index]:
            yield f"providers.{index}.name: {provider.name} is there twice; names must differ"


def _file() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE).expanduser().resolve()
    if path.is_file():
        return path
    if named:
        raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {named}; correct the path")
    return None


def _content(path: Path | None) -> dict[str, Any]:
    content = read_yaml(path) if path else {}
    return {key: value for key, value in content.items() if value is not None}


def _refuse_unknown_variables() -> None:
    for name in sorted(os.environ):
        path = name.upper().removeprefix(PREFIX).lower().split("__")
        if not name.upper().startswith(PREFIX) or name.upper() == CONFIG_VARIABLE:
            continue
        kind: Any = Settings
        for depth, part in enumerate(path):
            children = children_of(kind)
            if part not in children:
                hint = closest(part, list(children))
                if depth and not children:
                    hint = "; give the whole value at once, lists and sections as JSON"
                raise SettingsError(f"environment variable {name}: no such setting{hint}")
            kind = children[part]


@dataclass(frozen=True)
class _Origin:
    """Where values came from: what a caller named, the environment, or the file."""

    named: Mapping[str, Any]
    path: Path | None

    def of(self, where: Sequence[str]) -> str:
        """The place a person has to look at."""
        if _holds(self.named, where):
            return "the call"
        for depth in range(len(where), 0, -1):
            name = PREFIX + "__".join(where[:depth]).upper()
            if name in os.environ:
                return f"environment variable {name}"
        return self.path.name if self.path else "settings"


def _holds(tree: Any, where: Sequence[str]) -> bool:
    """Whether a tree says something about a key; inside a list it does about all."""
    for part in where:
        if not isinstance(tree, Mapping):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _no_json(exc: UnreadableValueError) -> str:
    """A variable that holds a list or a section, and no JSON."""
    field = re.search(r'field "(\w+)"', str(exc))
    name = PREFIX + (field[1].upper() if field else "…")
    return f"environment variable {name}: not valid JSON; write a list like '[...]'"
