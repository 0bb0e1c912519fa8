"""``docs/benchmarks.md``, its pictures, and the README's line, from the results alone.

Belongs here: words and tables. Does not belong here: measuring, or figures that are not in the
results. Where others are better is found by comparing, not by choosing.
"""

import re
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.peers import results as kept
from benchmarks.peers.bars import bars
from benchmarks.peers.cells import cell, number
from benchmarks.peers.results import Results, typical, values
from benchmarks.peers.scenarios import SCENARIOS, STREAMED, Column, column

FULL = 4_000
"""Chunks of a run whose figures mean something."""

HEAD = """# Side by side

Written by `make bench`; do not edit. Every client runs in a process and an environment of its own,
pinned, against a fake of OpenAI's API in another process, whose books say what was billed. Texts
have 780 characters, vectors 1,536 dimensions; requests hold 256 texts (64 in C, E, F and I), and 16
are out at once where a client lets one say so. What a client offers against paying twice is
switched on: LangChain's `CacheBackedEmbeddings` over files, LiteLLM's disk cache. Ours writes every
vector to its durable cache and every bill to its ledger in all of these. A client stands as its own
documentation shows it; what a user could write around it is not there.
"""

YARDSTICKS = (
    ("billed again after a kill", "F", "billed again"),
    ("– of what had been answered", "F", "of what was answered"),
    ("vectors misaligned when replies are reversed", "E", "misaligned"),
    ("spent above a budget that two processes share", "I", "overshoot"),
    ("refusals (429) under a rate limit", "C", "429s"),
    ("share of that limit used", "C", "share"),
    ("price said beforehand, off by", "J", "error"),
    ("bytes a vector on disk", "D", "on disk"),
    ("CPU seconds per 1,000 vectors", "A", "CPU"),
)
"""What nobody publishes, and CPU."""

NOISE = 0.05
"""Figures that were measured once are equal within this."""


def write(results: Results, docs: Path, readme: Path | None = None) -> None:
    """The page and its pictures; and the README's line, where that is given."""
    pictures = docs / "_static"
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [HEAD, *_where(results), _yardsticks(results), _losses(results)]
    for letter in results["scenarios"]:
        parts.append(_section(results, letter))
        drawn = _picture(results, letter)
        if drawn:
            name = f"bench-{letter.lower()}.svg"
            (pictures / name).write_text(drawn[1])
            parts.append(f"![{drawn[0]}](_static/{name})\n")
    (docs / "benchmarks.md").write_text("\n".join(parts))
    if readme is not None:
        text = readme.read_text()
        readme.write_text(
            re.sub(
                r"(?s)(<!-- bench -->\n).*?(<!-- /bench -->)",
                lambda found: f"{found[1]}{sentence(results)}\n{found[2]}",
                text,
            )
        )


def is_small(results: Results) -> bool:
    """Whether some of it was measured over too few chunks to mean anything."""
    return any(scenario["chunks"] < FULL for scenario in results["scenarios"].values())


def _where(results: Results) -> Iterator[str]:
    if is_small(results):
        yield (
            "**Some of this is from a small run** (see the chunks of each scenario): it shows that "
            "everything runs; its figures mean little.\n"
        )
    scenarios = results["scenarios"].values()
    for machine in {str(s["machine"]): s["machine"] for s in scenarios}.values():
        yield (
            f"Machine: {machine['cores']} cores, {machine['processor']}, "
            f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}. "
            f"{' and '.join(sorted({s['date'] for s in scenarios}))}.\n"
        )
    yield f"Versions: {_versions(results)}.\n"
    yield from (f"{name}: left out, {why}.\n" for name, why in results["left_out"].items())
    apart = [(max(f) - min(f)) / (median(f) or 1.0) for _, _, f in kept.rounds(results)]
    if apart:
        yield (
            "Noise: what was measured in several rounds is shown as the median with the least and "
            f"the most, which lay {100 * median(apart):.0f} % apart in the middle and "
            f"{100 * max(apart):.0f} % at worst. The rest was measured once. On another machine, "
            "or on a busy one, compare ratios.\n"
        )


def _versions(results: Results) -> str:
    return "; ".join(
        f"{client}: {', '.join(f'{name} {version}' for name, version in packages.items())}"
        for client, packages in results["versions"].items()
    )


def clients_of(results: Results) -> list[str]:
    """Every client that some scenario measured, ours first."""
    named = [name for s in results["scenarios"].values() for name in s["clients"]]
    return [name for name in dict.fromkeys(named) if name != STREAMED]


def _yardsticks(results: Results) -> str:
    clients = clients_of(results)
    wanted = [*YARDSTICKS, *((f"MB of memory at {n}", "G", n) for n in _sizes(results, "ours"))]
    lines = [
        "## The yardsticks nobody publishes\n",
        "A dash: there is no such figure; the scenario below says why.\n",
        f"| | {' | '.join(clients)} |",
        "|---" * (len(clients) + 1) + "|",
    ]
    for words, letter, name in wanted:
        found = [values(results, letter, client, name) for client in clients]
        if any(found):
            shown = (number(typical(f), column(letter, name)) for f in found)
            lines.append(f"| {words} ({letter}) | {' | '.join(shown)} |")
    for size in _sizes(results, STREAMED):
        peak = number(typical(values(results, "G", STREAMED, size)), column("G", size))
        lines.append(f"| – streamed, {size} (G) | {peak} {'| – ' * (len(clients) - 1)}|")
    return "\n".join(lines) + "\n"


def _sizes(results: Results, client: str) -> list[str]:
    """The numbers of chunks for which a client's memory is known."""
    clients = results["scenarios"].get("G", {"clients": {}})["clients"]
    return list(clients.get(client, {"figures": {}})["figures"])


def _losses(results: Results) -> str:
    found = list(losses(results))
    said = "\n".join(f"- {loss}" for loss in found) or "In nothing that was measured here."
    return (
        "## Where others are better\n\nBeyond the noise, among clients that did all of the work, "
        f"each compared with ours:\n\n{said}\n"
    )


def losses(results: Results) -> Iterator[str]:
    """Every column in which some client is better than ours."""
    for letter, scenario in results["scenarios"].items():
        names = scenario["clients"].get("ours", {"figures": {}})["figures"]
        for name in names:
            seen, own = column(letter, name), values(results, letter, "ours", name)
            better = [
                f"{client} {number(typical(theirs), seen)}"
                for client in clients_of(results)
                if client != "ours" and _did_all(scenario["clients"].get(client))
                if is_better(theirs := values(results, letter, client, name), own, seen)
            ]
            if better:
                ours = number(typical(own), seen)
                what = f"{letter}, {scenario['title']}: {seen.title}"
                yield f"{what}: {', '.join(better)}; ours {ours}"


def is_better(theirs: list[float], ours: list[float], seen: Column) -> bool:
    """Whether one's rounds are better than the other's beyond the noise."""
    if not theirs or not ours or seen.less is None:
        return False
    if seen.less:
        return max(theirs) < min(ours) * (1 - NOISE)
    return min(theirs) * (1 - NOISE) > max(ours)


def _did_all(row: dict[str, Any] | None) -> bool:
    return row is not None and min(row["figures"].get("embedded", [1.0])) >= 1


def _section(results: Results, letter: str) -> str:
    scenario = results["scenarios"][letter]
    clients: dict[str, Any] = scenario["clients"]
    names = list(dict.fromkeys(name for row in clients.values() for name in row["figures"]))
    names.sort(key=lambda name: _place(letter, name))
    notes = any(row["note"] for row in clients.values())
    titles = [column(letter, name).title for name in names] + ["note"] * notes
    about = " ".join((getdoc(SCENARIOS[letter].measure) or "").split())
    when = f"{scenario['date']}, load {scenario['load']} at the start"
    lines = [
        f"## {letter}: {scenario['title']}\n",
        f"{about} {scenario['chunks']:,} chunks; {when}.\n",
        f"| | {' | '.join(titles)} |",
        "|---" * (len(titles) + 1) + "|",
    ]
    for client, row in clients.items():
        cells = [cell(row["figures"].get(name, []), column(letter, name)) for name in names]
        lines.append(f"| {client} | {' | '.join(cells + [row['note']] * notes)} |")
    return "\n".join(lines) + "\n"


def _place(letter: str, name: str) -> int:
    """Where a column stands: as its scenario says, or by its size."""
    order = list(SCENARIOS[letter].columns)
    return order.index(name) if name in order else int(name.replace(",", ""))


def _picture(results: Results, letter: str) -> tuple[str, str] | None:
    """The first column's bars, with what they show in words."""
    clients = results["scenarios"][letter]["clients"]
    name = next(iter(SCENARIOS[letter].columns), None) or _largest(clients)
    figures, said = {}, {}
    for client in clients:
        found = values(results, letter, client, name)
        if found:
            figures[client] = [typical(found) or 0.0, min(found), max(found)]
            said[client] = number(typical(found), column(letter, name))
    if len(figures) < 2:
        return None
    title = f"{letter}: {column(letter, name).title}"
    words = "; ".join(f"{client} {said[client]}" for client in said)
    return f"{title}: {words}", bars(title, figures, said)


def _largest(clients: dict[str, Any]) -> str:
    """The largest size that at least two clients have."""
    shared = [n for row in clients.values() for n in row["figures"]]
    shared = [name for name in shared if shared.count(name) > 1]
    return max(shared, key=lambda name: int(name.replace(",", "")), default="")


def sentence(results: Results) -> str:
    """The main figures in one line, for the README."""

    def said(letter: str, name: str, client: str) -> str:
        return number(typical(values(results, letter, client, name)), column(letter, name))

    others = len(clients_of(results)) - 1
    small = "; so far a small run" if is_small(results) else ""
    line = (
        f"[docs/benchmarks.md](docs/benchmarks.md) puts it beside {others} other clients "
        f"(`make bench`{small}): "
        f"CPU per 1,000 vectors {said('A', 'CPU', 'ours')} s (openai SDK "
        f"{said('A', 'CPU', 'openai SDK')} s), billed again after a kill of what had been answered "
        f"{said('F', 'of what was answered', 'ours')} (openai SDK "
        f"{said('F', 'of what was answered', 'openai SDK')}), share of a rate limit used "
        f"{said('C', 'share', 'ours')}; where others are better, it says so."
    )
    return fill(line, 100, break_long_words=False, break_on_hyphens=False)
