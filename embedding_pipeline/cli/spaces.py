"""``embedding-pipeline spaces``: what is active, what is being built, and the way back.

Belongs here: options and what is printed. Does not belong here: any rule
(``embedding_pipeline.spaces``).
"""

import asyncio
import getpass
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.asking import go_on
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import Column, count, emit, json_lines
from embedding_pipeline.pipeline.words import usd

if TYPE_CHECKING:
    from embedding_pipeline.assembly.switching import Promotion
    from embedding_pipeline.spaces.records import Target


def _size(number: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


_COLUMNS: Final = (
    Column("space", "space"),
    Column("dimensions", "dimensions", right=True),
    Column("state", "state"),
    count("days", "days"),
    Column("size", "size_bytes", _size, right=True),
    Column("since", "since"),
    Column("by", "by"),
    Column("note", "note"),
)


@click.group()
def spaces(**_: Any) -> None:
    """Spaces of vectors: list them, promote one, roll back, drop one."""


@spaces.command("list")
@click.option("--history", is_flag=True, help="Every switch and drop, oldest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_spaces(history: bool, as_json: bool) -> None:
    """List the spaces there are: which is active, which is being built, days and size."""
    from embedding_pipeline.assembly.space_listing import events, overview
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if history:
        emit(events(settings), _EVENTS, as_json=as_json, empty="Nothing was switched yet.")
        return
    emit(overview(settings), _COLUMNS, as_json=as_json, empty="No day is embedded yet.")


_EVENTS: Final = (
    Column("at", "at"),
    Column("action", "action"),
    Column("space", "space"),
    Column("dimensions", "dimensions", right=True),
    Column("by", "by"),
    Column("forced", "forced", lambda forced: "forced" if forced else ""),
    Column("gate", "gate"),
)


@spaces.command()
@click.argument("space", required=False)
@click.option("--approve", is_flag=True, help="Let a build that waits go on, whatever it costs.")
@click.option("--force", is_flag=True, help="Promote against the gate's word; this is recorded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def promote(space: str | None, approve: bool, force: bool, as_json: bool) -> int:
    """Give readers SPACE (the settings' one by default), if it is complete and good.

    Every day must be there and pass its checks, and the gate must say yes; --force overrides
    the gate alone. With --approve, a build that waits for its price to be approved goes on:
    model_change_sensor makes it, and promotes it.
    """
    from embedding_pipeline.assembly.reading import resolve_target
    from embedding_pipeline.assembly.spaces import wanted
    from embedding_pipeline.assembly.switching import approve as approve_build
    from embedding_pipeline.assembly.switching import promote as promote_target
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if approve:
        build = asyncio.run(approve_build(settings, _who()))
        click.echo(
            f"{build.target}: {build.state.value}, {usd(build.cost_nano_usd)}; "
            "model_change_sensor does the rest."
        )
        return 0
    target = wanted(settings) if space is None else resolve_target(settings, space)
    done = asyncio.run(promote_target(settings, target, by=_who(), force=force))
    return _tell(done, as_json)


@spaces.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rollback(as_json: bool) -> None:
    """Give readers the space they had before, at once. Nothing is embedded for it."""
    from embedding_pipeline.assembly.switching import rollback as back
    from embedding_pipeline.settings.loading import load_settings

    target = asyncio.run(back(load_settings(), _who()))
    if as_json:
        click.echo(json_lines(_target(target)))
        return
    click.echo(f"Readers get {target} now. To go forward again: embedding-pipeline spaces promote")


@spaces.command()
@click.argument("space")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (with --yes).")
def drop(space: str, yes: bool, as_json: bool) -> None:
    """Remove the files of SPACE for good; never those of the active one.

    The vectors in the cache stay: the space can be written again without a request.
    """
    from embedding_pipeline.assembly.dropping import drop as drop_space
    from embedding_pipeline.assembly.dropping import size_bytes
    from embedding_pipeline.assembly.reading import resolve_target
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    found = resolve_target(settings, space).space
    if not yes:
        go_on(f"Remove {found}, {_size(size_bytes(settings, found))}?")
    gone = asyncio.run(drop_space(settings, found, _who()))
    if as_json:
        tree = {"space": str(gone.space), "days": gone.days, "size_bytes": gone.size_bytes}
        click.echo(json_lines(tree))
        return
    click.echo(f"Dropped {gone.space}: {gone.days} days, {_size(gone.size_bytes)}.")


def _tell(done: "Promotion", as_json: bool) -> int:
    found = done.examination
    if as_json:
        tree = {
            **_target(done.target),
            "promoted": done.promoted,
            "forced": done.forced,
            "problems": found.problems,
            "gate": found.report.as_tree() if found.report else None,
        }
        click.echo(json_lines(tree))
        return 0 if done.promoted else FAILED
    if found.report is not None:
        rows = [
            {"name": it.name, "old": it.old, "new": it.new, "asked": it.asked, "ok": it.passed}
            for it in found.report.figures
        ]
        emit(rows, _FIGURES, as_json=False, empty="")
    for problem in found.problems:
        click.echo(problem, err=True)
    forced = ", against the gate's word" if done.forced else ""
    click.echo(
        f"Readers get {done.target} now{forced}."
        if done.promoted
        else f"{done.target} is not promoted; readers get what they had."
    )
    return 0 if done.promoted else FAILED


_FIGURES: Final = (
    Column("figure", "name"),
    Column("old", "old", lambda value: "–" if value is None else f"{value:.3f}", right=True),
    Column("new", "new", "{:.3f}".format, right=True),
    Column("asked for", "asked", right=True),
    Column("", "ok", lambda passed: "ok" if passed else "refused"),
)


def _target(target: "Target") -> dict[str, Any]:
    return {"space": str(target.space), "dimensions": target.dimensions, "model": target.model}


def _who() -> str:
    """Who is at the keyboard, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "command line"
