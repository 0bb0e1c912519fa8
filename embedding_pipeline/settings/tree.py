"""The tree of settings: every key a user can set, typed and frozen.

Belongs here: composing the configs that each room defines, and what follows from them.
Does not belong here: the reason behind a value (its room's config), or finding the file
and naming mistakes (``loading``).

A value comes from, in this order: what the caller names, the environment
(``EMBEDDING_PIPELINE_<SECTION>__<FIELD>``, lists as JSON, ``null`` for none), the YAML file
named by ``EMBEDDING_PIPELINE_CONFIG`` (default ``pipeline.yaml`` in the working directory),
then the defaults. Secrets come from the environment only.
"""

from dataclasses import replace
from datetime import UTC, date, tzinfo
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from embedding_pipeline.alerts.config import AlertsConfig
from embedding_pipeline.batch_api.config import MODES, BatchApiConfig
from embedding_pipeline.cache.config import CacheConfig
from embedding_pipeline.catalog import DEFAULT_MODEL, ModelSpec, find_model
from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.embedders.config import ProviderConfig, RetryConfig, TracesConfig
from embedding_pipeline.embedders.local_models import PREFIX as LOCAL_PREFIX
from embedding_pipeline.embedders.local_models import (
    LocalModel,
    find_local_model,
    is_local_model,
)
from embedding_pipeline.ledger.config import BudgetConfig, PriceConfig
from embedding_pipeline.limits.config import LimitsConfig, TenantConfig
from embedding_pipeline.planning.config import RequestsConfig
from embedding_pipeline.remote import is_remote
from embedding_pipeline.settings.demo_start import demo_start
from embedding_pipeline.settings.environment import (
    PREFIX,
    file_content,
    secret_settings,
    settings_file,
)
from embedding_pipeline.settings.logs import LogsConfig
from embedding_pipeline.settings.rules import contradictions
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.spaces.config import SpacesConfig


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

    allow_download: bool = False
    """Whether a ``local/<name>`` that is not on this machine is fetched from the Hugging Face
    hub, when the settings are first read."""


class _Environment(EnvSettingsSource):
    """Variables; that of a section whose bare word is its mode need not hold JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if field.annotation is BatchApiConfig and value in MODES:
            return {"mode": value}
        return super().decode_complex_value(field_name, field, value)


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
    prices: tuple[PriceConfig, ...] = ()
    on_outage: Literal["fail", "defer", "degrade"] = "defer"
    batch_api: BatchApiConfig = BatchApiConfig()
    spaces: SpacesConfig = SpacesConfig()
    alerts: AlertsConfig = AlertsConfig()
    logs: LogsConfig = LogsConfig()
    traces: TracesConfig = TracesConfig()

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
        content = InitSettingsSource(settings_cls, file_content(settings_file()))
        from_files = InitSettingsSource(settings_cls, secret_settings())
        return init_settings, _Environment(settings_cls), from_files, content

    @property
    def data_path(self) -> Path:
        """The folder for what stays on this machine: ``data_dir``, an absolute path.

        A relative one starts at the settings file. When ``data_dir`` is in an object store,
        it is the default folder, for logs and Dagster's history.
        """
        place = self.data_dir.removeprefix("file://")
        if self.data_url is not None:
            place = str(type(self).model_fields["data_dir"].default)
        return (self._base / Path(place).expanduser()).resolve()

    @property
    def data_url(self) -> str | None:
        """``data_dir`` when it is the address of an object store."""
        return self.data_dir if is_remote(self.data_dir) else None

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
        return self.partitions.start_date or demo_start(self.data_path)

    @property
    def model_spec(self) -> ModelSpec:
        """The model ``embedding.model`` names, at the price that holds here."""
        return self.priced(self.embedding.model)

    def priced(self, model: str) -> ModelSpec:
        """A model of the catalog or of this machine, at the price ``prices`` gives it, if it does.

        Raises:
            ConfigurationError: there is no such model.
        """
        spec = self.local_model(model).spec if is_local_model(model) else find_model(model)
        for price in self.prices:
            if spec.name in (price.model, f"openai/{price.model}"):
                return replace(
                    spec,
                    nano_usd_per_token=price.nano_usd_per_token,
                    batch_nano_usd_per_token=price.batch_nano_usd_per_token,
                    price_checked=price.checked,
                    source="prices in the settings",
                )
        return spec

    def local_model(self, name: str) -> LocalModel:
        """A model of this machine; a relative folder starts at the settings file.

        Raises ConfigurationError.
        """
        file = settings_file()
        base = file.parent if file else Path.cwd()
        return find_local_model(name, base, allow_download=self.embedding.allow_download)

    @property
    def stand_in_model(self) -> str:
        """The model whose vectors stand in: that of the provider of kind ``local``, if any."""
        named = [one.deployment for one in self.providers if one.kind == "local"]
        return f"{LOCAL_PREFIX}{named[0]}" if named and named[0] else DEFAULT_MODEL

    @property
    def zone(self) -> tzinfo:
        """Whose midnight divides days and months."""
        return UTC if self.partitions.timezone == "UTC" else ZoneInfo(self.partitions.timezone)

    @property
    def dimensions(self) -> int:
        """Length of the vectors handed out."""
        return self.embedding.dimensions or self.model_spec.native_dimensions

    @property
    def provider(self) -> ProviderConfig:
        """The provider asked first."""
        return self.remote_providers[0]

    @property
    def remote_providers(self) -> tuple[ProviderConfig, ...]:
        """Those that serve the model's own space, the one asked first first.

        Of one priority, as they are listed.
        """
        remote = (one for one in self.providers if one.kind != "local")
        return tuple(sorted(remote, key=lambda one: one.priority))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = list(contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self
