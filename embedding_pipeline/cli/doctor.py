"""``embedding-pipeline doctor``: what is wrong on this machine, and what to do about it.

Belongs here: the list of checks and how they read. A check changes nothing and costs
nothing: it creates no file and embeds no text at a provider.
"""

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.findings import Finding, Status
from embedding_pipeline.cli.providers import ask_providers
from embedding_pipeline.cli.under_way import check_batches, check_workers, counted
from embedding_pipeline.errors import EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

LITTLE_SPACE_BYTES: Final = 5 << 30
NO_SPACE_BYTES: Final = 500 << 20
DAGSTER_PACKAGES: Final = ("dagster", "dagster-webserver", "dagster-graphql", "dagster-shared")


_COLOURS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@click.option("--migrate", is_flag=True, help="First bring the state's schema up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(migrate: bool, as_json: bool) -> int:
    """Check settings, keys, disk, state, provider, model, batches, Dagster and its workers.

    Nothing is changed (but with --migrate) and nothing is paid. Exits with 1 when something
    fails.
    """
    from embedding_pipeline.cli.output import json_lines

    if migrate:
        _migrate()
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        click.echo(json_lines([asdict(finding) for finding in findings]))
    return FAILED if any(finding.status is Status.FAIL for finding in findings) else 0


def _migrate() -> None:
    """Make the store, or bring it up to date; the first of several that try does it."""
    from embedding_pipeline.assembly.parts import open_store
    from embedding_pipeline.settings.loading import load_settings

    with open_store(load_settings()):
        pass


def examine(leaving_out: Collection[str] = ()) -> Iterator[Finding]:
    """Every check in turn; without readable settings, only what needs none.

    ``leaving_out`` names subjects that are not looked at.
    """
    from embedding_pipeline.settings.loading import load_settings

    yield _python()
    yield _packages()
    try:
        settings = load_settings()
    except EmbeddingPipelineError as error:
        yield Finding(Status.FAIL, "settings", str(error), "correct the settings")
        return
    yield _settings(settings)
    for subject, check in _CHECKS:
        if subject in leaving_out:
            continue
        try:
            found = check(settings)
        except EmbeddingPipelineError as error:
            found = Finding(Status.FAIL, subject, str(error))
        yield from [found] if isinstance(found, Finding) else found


def show(finding: Finding) -> None:
    """Print a finding, and what to do about it."""
    status = click.style(f"{finding.status:4}", fg=_COLOURS[finding.status])
    click.echo(f"{status}  {finding.subject}: {finding.message}")
    if finding.remedy:
        click.echo(f"      → {finding.remedy}")


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding(Status.OK, "python", f"{found} at {sys.executable}")


def _packages() -> Finding:
    """Dagster's packages must be of one version; a mixed set fails in odd places."""
    found = {}
    for package in DAGSTER_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    if len(found) < len(DAGSTER_PACKAGES):
        missing = ", ".join(name for name in DAGSTER_PACKAGES if name not in found)
        return Finding(Status.FAIL, "packages", f"{missing} not installed", "run: make setup")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in found.items())
        return Finding(Status.FAIL, "packages", f"versions differ: {listed}", "run: make setup")
    return Finding(Status.OK, "packages", f"dagster {found['dagster']}")


def _dagster(settings: "Settings") -> Finding:
    from embedding_pipeline.definitions import build_defs
    from embedding_pipeline.defs.instance import dagster_home

    home = dagster_home(settings)
    jobs = len(list(build_defs(settings=settings).jobs or ()))
    said = f"definitions load, {counted(jobs, 'job')}; history in {home}"
    return Finding(Status.OK, "dagster", said)


def _settings(settings: "Settings") -> Finding:
    source = settings.source.path or settings.source.kind
    return Finding(
        Status.OK, "settings", f"{settings.embedding.model} on {source}, from {settings.start_date}"
    )


def _storage(settings: "Settings") -> Finding:
    """Whether ``data_dir`` can be reached; that it takes writes shows with the first run."""
    from embedding_pipeline.assembly.parts import build_storage

    if settings.data_url is None:
        return Finding(Status.OK, "datasets", f"in {settings.data_path}")
    try:
        folders = build_storage(settings).folders("")
    except OSError as error:
        return Finding(Status.FAIL, "datasets", str(error))
    said = f"{settings.data_url} answers, {counted(len(folders), 'dataset')}"
    return Finding(Status.OK, "datasets", said)


def _disk(settings: "Settings") -> Finding:
    place = _existing(settings.data_path)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            Status.FAIL,
            "disk",
            f"{place} is not writable",
            "give write permission, or set data_dir to a folder of yours",
        )
    free = shutil.disk_usage(place).free
    message = f"{free / 2**30:.1f} GiB free at {settings.data_path}"
    if free < NO_SPACE_BYTES:
        return Finding(Status.FAIL, "disk", message, "free space, or move data_dir")
    if free < LITTLE_SPACE_BYTES:
        return Finding(Status.WARN, "disk", message, "a million vectors take up to 16 GiB")
    return Finding(Status.OK, "disk", message)


def _existing(path: Path) -> Path:
    """The nearest folder on the way up that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def _state(settings: "Settings") -> Finding:
    from embedding_pipeline.assembly.parts import state_file
    from embedding_pipeline.ledger.quarantine import listing
    from embedding_pipeline.state.migrations import LATEST
    from embedding_pipeline.state.store import schema_of

    file = state_file(settings)
    if file is not None and not file.exists():
        return Finding(Status.OK, "state", f"{file} is made by the first run")
    if (found := schema_of(settings.state)) < LATEST:
        return Finding(
            Status.WARN,
            "state",
            f"schema version {found}, and this version has {LATEST}",
            "the next run brings it up to date, or now: embedding-pipeline doctor --migrate",
        )
    held = ask(settings, listing) or []
    size = f", {file.stat().st_size / 2**20:,.0f} MiB" if file else ""
    failed = counted(len(held), "failed chunk")
    message = f"{file or 'server'}{size}, schema version {LATEST}, {failed}"
    if held:
        return Finding(Status.WARN, "state", message, "see: embedding-pipeline failed list")
    return Finding(Status.OK, "state", message)


def _redis(settings: "Settings") -> Finding:
    from embedding_pipeline.assembly.cache import measure_redis

    if settings.redis_url is None:
        return Finding(Status.OK, "redis", "none is set")
    found = asyncio.run(measure_redis(settings))
    if not found.bounded:
        return Finding(
            Status.WARN,
            "redis",
            f"{found.where} answers, and has no maxmemory with eviction",
            "set maxmemory and maxmemory-policy allkeys-lru there: vectors would fill it",
        )
    return Finding(Status.OK, "redis", f"{found.where} answers, {found.used_mb:,.0f} MiB in use")


def _source(settings: "Settings") -> Finding:
    from embedding_pipeline.assembly.parts import build_source
    from embedding_pipeline.clock import SystemClock, utc

    if settings.source.kind == "demo":
        return Finding(Status.OK, "source", "demo: the documentation inside this Python")
    today = utc(SystemClock().now()).date()
    first = next(iter(build_source(settings).read(today)), None)
    found = "has no data for today" if first is None else "is readable"
    return Finding(Status.OK, "source", f"{settings.source.path} {found}")


def _model(settings: "Settings") -> Finding:
    from embedding_pipeline.assembly.embedder import build_embedder
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.settings.environment import api_key

    spec = settings.model_spec
    if not spec.is_local:
        for provider in settings.remote_providers:
            if api_key(provider) is None:
                return _no_key(spec.name, provider.api_key_env)
        variables = dict.fromkeys(provider.api_key_env for provider in settings.remote_providers)
        found = "is set" if len(variables) == 1 else "are set"
        return Finding(Status.OK, "key", f"{', '.join(variables)} {found}")

    async def one() -> int:
        async with build_embedder(settings, None, SystemClock()) as embedder:
            return int((await embedder.embed(["hello"])).vectors.shape[1])

    return Finding(Status.OK, "model", f"{spec.name} works, {asyncio.run(one())} dimensions")


def _no_key(model: str, variable: str) -> Finding:
    return Finding(
        Status.FAIL,
        "key",
        f"{model} needs a key and {variable} holds none",
        f"export {variable}=…, or set embedding.model to a local model",
    )


def _deferred(settings: "Settings") -> Finding:
    from embedding_pipeline.assembly.watching import deferrals

    waiting = asyncio.run(deferrals(settings))
    if not waiting:
        return Finding(Status.OK, "deferred", "nothing is left for later")
    days = {one.account.partition for one in waiting}
    depths: Counter[str] = Counter()
    for one in waiting:
        depths[one.reason] += one.chunks
    reasons = ", ".join(f"{reason} {depth}" for reason, depth in sorted(depths.items()))
    return Finding(
        Status.WARN,
        "deferred",
        f"{counted(sum(one.chunks for one in waiting), 'chunk')} of "
        f"{counted(len(days), 'day')} ({reasons})",
        "switch recovery_sensor on, or run these days: embedding-pipeline failed deferred",
    )


_CHECKS: Final[tuple[tuple[str, Callable[["Settings"], Finding | list[Finding]]], ...]] = (
    ("disk", _disk),
    ("datasets", _storage),
    ("state", _state),
    ("redis", _redis),
    ("source", _source),
    ("model", _model),
    ("provider", ask_providers),
    ("deferred", _deferred),
    ("batches", check_batches),
    ("dagster", _dagster),
    ("workers", check_workers),
)
