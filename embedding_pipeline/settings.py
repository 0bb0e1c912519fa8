"""The settings tree, read once, checked whole.

Belongs here: composing each room's frozen config, and every reading of the environment
and of settings files; no other module does either. Does not belong here: building
anything from the settings (``assembly``).

Order, strongest first: what the caller names, the environment
``EMBEDDING_PIPELINE_<SECTION>__<FIELD>``, the YAML file named by ``EMBEDDING_PIPELINE_CONFIG`` (default ``pipeline.yaml`` in the working
directory), then the defaults. Secrets come from the environment only.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
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

from embedding_pipeline.cache.config import CacheConfig
from embedding_pipeline.catalog import DEFAULT_MODEL, ModelSpec, find_model
from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.embedders.config import ProviderConfig, RetryConfig
from embedding_pipeline.errors import ConfigurationError, NotAvailableYet, SettingsError
from embedding_pipeline.limits.config import LimitsConfig, TenantConfig
from embedding_pipeline.planning.config import RequestsConfig
from embedding_pipeline.sources.config import SourceConfig

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


class BudgetConfig(_Section):
    """A bound on spending."""

    scope: str = Field(pattern=r"^(all|project:.+|user:.+)$")
    period: Literal["day", "month", "total"]
    limit_usd: float = Field(ge=0)
    alert_at: tuple[float, ...] = (0.8,)


class AlertsConfig(_Section):
    """Where alerts go."""

    webhook_url_env: str | None = None


class Settings(BaseSettings):
    """Everything a user can set. Frozen; ``load_settings`` makes one from file and environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    data_dir: str = ".embedding_pipeline"
    state_url: str | None = None
    redis_url: str | None = None
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
        content = InitSettingsSource(settings_cls, _read(_file()))
        return init_settings, env_settings, content

    @property
    def data_path(self) -> Path:
        """``data_dir`` as an absolute path; a relative one starts at the settings file."""
        return (self._base / Path(self.data_dir).expanduser()).resolve()

    @property
    def state(self) -> str:
        """SQLAlchemy URL of the shared store."""
        return self.state_url or f"sqlite:///{self.data_path / 'state.db'}"

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
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        overrides: values that go before the file's and the environment's, as a tree.

    Raises:
        SettingsError: a file cannot be read, or a value is wrong; every problem is named.
        NotAvailableYet: a key is set whose feature this version does not have.
    """
    path = _file()
    _refuse_unknown_variables()
    try:
        settings = Settings(**(overrides or {}))
    except ValidationError as exc:
        raise SettingsError(_explain(exc, path)) from exc
    settings._base = path.parent if path else Path.cwd()
    for key, feature in _later(settings):
        raise NotAvailableYet(
            f"{_origin(tuple(key.split('.')), path)}: {key} is not available yet ({feature}); "
            "leave it out"
        )
    return settings


def api_key(provider: ProviderConfig) -> SecretStr | None:
    """The provider's key from the environment variable its settings name."""
    value = os.environ.get(provider.api_key_env, "").strip()
    return SecretStr(value) if value else None


def base_url(provider: ProviderConfig) -> str | None:
    """Where the provider is: its settings, else ``OPENAI_BASE_URL``, else its own default."""
    if provider.base_url or provider.kind != "openai":
        return provider.base_url
    return os.environ.get("OPENAI_BASE_URL", "").strip() or None


def pin_demo_start(settings: Settings) -> None:
    """Keep the demo's first day, so that tomorrow's partitions are today's plus one."""
    target = settings.data_path / _DEMO_START_FILE
    if settings.partitions.start_date is not None or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x") as file:
            file.write(settings.start_date.isoformat())
    except FileExistsError:
        return  # another process was quicker, with the same day


def _demo_start(data_path: Path) -> date:
    try:
        return date.fromisoformat((data_path / _DEMO_START_FILE).read_text().strip())
    except (OSError, ValueError):
        return datetime.now(UTC).date() - timedelta(days=DEMO_DAYS)


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


def _file() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE).expanduser().resolve()
    if path.is_file():
        return path
    if named:
        raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {named}; correct the path")
    return None


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path.name}{line}: not valid YAML: check the indentation") from exc
    except (OSError, ValueError) as exc:  # unreadable, not UTF-8, or no such date
        raise SettingsError(f"{path.name}: cannot be read: {exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path.name}: must be keys and values, like 'data_dir: data'")
    return {str(key): value for key, value in content.items() if value is not None}


def _refuse_unknown_variables() -> None:
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        section, _, field = name.removeprefix(PREFIX).lower().partition("__")
        known = _children(Settings)
        if section not in known or (field and not _known_field(known[section], field)):
            raise SettingsError(f"environment variable {name}: no such setting{_hint(section)}")


def _known_field(kind: Any, field: str) -> bool:
    name, _, rest = field.partition("__")
    children = _children(kind)
    return name in children and (not rest or _known_field(children[name], rest))


def _children(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    return {}


def _explain(exc: ValidationError, path: Path | None) -> str:
    return "\n".join(_line(error, path) for error in exc.errors(include_url=False))


def _line(error: Any, path: Path | None) -> str:
    where = tuple(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if not where:  # a contradiction names its key itself
        key = message.partition(":")[0]
        return f"{_origin(tuple(key.split('.')), path)}: {message}"
    if error["type"] == "extra_forbidden":
        message = f"no such setting{_hint(where[-1], where[:-1])}; remove or correct it"
    return f"{_origin(where, path)}: {'.'.join(where)}: {message}"


def _origin(where: tuple[str, ...], path: Path | None) -> str:
    """Which of environment and file a value came from."""
    for depth in range(len(where), 0, -1):
        name = PREFIX + "__".join(where[:depth]).upper()
        if name in os.environ:
            return f"environment variable {name}"
    return path.name if path else "settings"


def _hint(name: str, parents: tuple[str, ...] = ()) -> str:
    kind: Any = Settings
    for parent in parents:
        kind = _children(kind).get(parent)
    close = difflib.get_close_matches(name, list(_children(kind)), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
