"""Figures in the text format that Prometheus reads.

Belongs here: the format. Does not belong here: which figures there are (``assembly.metrics``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

PREFIX: Final = "embedding_pipeline_"

Sample: TypeAlias = tuple[Mapping[str, str], float]
"""Labels, and the value under them."""


@dataclass(frozen=True)
class Metric:
    """One figure under all its labels.

    Attributes:
        name: without the prefix that all have; counters end in ``_total``.
        kind: what Prometheus may do with it.
        help: one sentence.
        samples: the values.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Sequence[Sample]


def render(metrics: Iterable[Metric]) -> str:
    """The text of one scrape, or of a file for a node exporter's textfile collector."""
    lines: list[str] = []
    for metric in metrics:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        lines += [f"{name}{_labels(labels)} {value}" for labels, value in metric.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
