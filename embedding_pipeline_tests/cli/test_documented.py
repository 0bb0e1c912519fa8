"""Every command that a document shows in a block is run, as it stands, in one project.

What is changed on the way: ranges of days are cut to the days there are, and a Redis server's
address is that of the tests'. What is not run is listed, with who runs it instead.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline_tests.cli.conftest import FILES
from embedding_pipeline_tests.cli.inside import InsideFolder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY
from embedding_pipeline_tests.importing import writers
from embedding_pipeline_tests.servers import redis_server, redis_url  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = re.compile(r"(?:embedding-pipeline|make|python|dagster|export) ")
OURS = re.compile(r"embedding-pipeline (.+?)(?: +# .*| > .*)?")
ELSEWHERE = {
    "make ": "each target by CI, or by the tests of the Makefile",
    "python -m benchmarks.": "takes minutes to hours",
    "dagster ": "test_launch and test_commands, with a daemon",
    "export ": "the fixture here",
}
TEXTS = ("The cat sleeps on the sofa.", "How to parse a date.", "Shipping takes two days.")
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
MODEL = "EMBEDDING_PIPELINE_EMBEDDING__MODEL"
FIRST = "backfill --start 2026-01-01 --end 2026-01-01 --wait"
TO_WARM = "--texts texts.jsonl --project tests"
REFUSALS = {
    "spaces rollback": (2, "there is no way back"),
}
"""Commands that have nothing to do in a project like this, and say so."""


def shown(document: str) -> Iterator[str]:
    """Every line of the blocks of commands of a document."""
    for language, block in BLOCK.findall((ROOT / document).read_text()):
        if language in {"", "sh", "bash"} and re.match(
            r"(?:embedding-pipeline|make|python|dagster|export) ", block
        ):
            yield from (line for line in block.splitlines() if line and not line.startswith(" "))


EVERY = [(document, line) for document in DOCUMENTS for line in shown(document)]
RUN = sorted({match[1] for _, line in EVERY if (match := OURS.fullmatch(line))})


def test_every_line_is_run_here_or_elsewhere() -> None:
    assert len(RUN) > 20
    strange = [
        (document, line)
        for document, line in EVERY
        if not OURS.fullmatch(line) and not line.startswith(tuple(ELSEWHERE))
    ]
    assert strange == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> InsideFolder:
    """Three days of rows, and what the commands about other tools' caches want to read."""
    path = tmp_path_factory.mktemp("documented")
    folder = InsideFolder(path, typed="y\n")
    folder.settings(**FILES)
    for day, text in zip(DAYS, TEXTS, strict=True):
        folder.rows(day, text, "A red bus drives through the town.")
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (path / "texts.jsonl").write_text("\n".join(lines))
    vectors = {text: fake_vector("text-embedding-3-small", text, 1536) for text in TEXTS}
    numbers = {text: [float(number) for number in vector] for text, vector in vectors.items()}
    writers.langchain_files(path / "lc_cache", numbers, "text-embedding-3-small", "sha1")
    (path / "storage").mkdir()
    nodes = [writers.node(text, vector) for text, vector in numbers.items()]
    writers.ingestion_cache(path / "storage" / "llama_cache.json", [nodes])
    flat = pa.array(np.concatenate(list(vectors.values())))
    table = {"text": list(vectors), "vector": pa.FixedSizeListArray.from_arrays(flat, 1536)}
    pq.write_table(pa.table(table), path / "vectors.parquet")
    return folder


def test_every_command_shown_does_what_it_says(
    project: InsideFolder,
    fake_openai_process: FakeProcess,  # noqa: F811
    redis_url: str,  # noqa: F811
) -> None:
    environment = {
        "OPENAI_BASE_URL": fake_openai_process.base_url,
        "OPENAI_API_KEY": KEY,
        MODEL: "openai/text-embedding-3-small",
    }
    older = {**environment, MODEL: "openai/text-embedding-ada-002"}
    assert project.run(*shlex.split(f"cache warm {TO_WARM}"), **older).returncode == 0
    for command in [FIRST, *(command for command in RUN if command != FIRST)]:
        line = re.sub(r"20\d\d-\d\d-\d\d", _in_range, command)
        line = re.sub(r"redis://localhost:6379", redis_url, line)
        done = project.run(*shlex.split(line), **environment)
        code, words = REFUSALS.get(command, (0, ""))
        assert done.returncode == code, (command, done.stdout, done.stderr)
        assert words in done.stderr, command
        assert done.stdout or done.stderr, command


def _in_range(found: re.Match[str]) -> str:
    return found[0] if found[0] in DAYS else DAYS[-1] if found[0] > DAYS[-1] else DAYS[0]
