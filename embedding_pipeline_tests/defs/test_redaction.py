"""No key, text or vector gets out: real runs with marked ones, and a search of all they left.

Searched are what the commands said, Dagster's history and captured logs, the state store,
the datasets, and what the UI is answered. Texts may stand where a dataset's schema has them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedding_pipeline_tests.defs.conftest import DAYS, PATIENCE, Project
from embedding_pipeline_tests.defs.test_commands import MATERIALIZE, MODULE
from embedding_pipeline_tests.fake_openai.server import KEY

TEXT = "zebra-in-the-lighthouse"
WRONG_KEY = "sk-wrong-key-of-a-giraffe-0123456789"
MARKS = (KEY, WRONG_KEY, TEXT)
MAY_HAVE_TEXT = {
    ("raw_chunks", "text"),
    ("deduped_chunks", "text"),
    ("rejected_rows", "content"),
}
QUESTION = """
{ runsOrError { ... on Runs { results { runId status runConfigYaml tags { key value }
  eventConnection(limit: 1000) { events { __typename ... on MessageEvent { message }
    ... on ErrorEvent { error { message stack causes { message stack } } }
    ... on MaterializationEvent { metadataEntries { label description
      ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString }
      ... on MarkdownMetadataEntry { mdStr } ... on PathMetadataEntry { path } } } } } } } } }
"""


@pytest.fixture
def said(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said by a good run with copies and a bad row, and by one with a wrong key."""
    for day in DAYS[:2]:
        rows = [{"id": f"{day}-{n}", "text": f"{TEXT} {n} of {day}"} for n in range(8)]
        rows += [{"id": f"{day}-copy", "text": rows[0]["text"]}, {"text": f"{TEXT}, no id"}]
        project.source(day).write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = project.command(*MATERIALIZE, "--partition", DAYS[0])
    assert good.returncode == 0, good.stderr[-2000:]
    monkeypatch.setenv("OPENAI_API_KEY", WRONG_KEY)
    bad = project.command(*MATERIALIZE, "--partition", DAYS[1])
    assert bad.returncode != 0
    program = "from dagster_graphql.cli import main; main()"
    asked = subprocess.run(
        [sys.executable, "-c", program, *MODULE, "-t", QUESTION],
        cwd=project.root,
        env={**os.environ, "DAGSTER_HOME": str(project.root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    assert "invalid_api_key" in asked.stdout
    assert "MaterializationEvent" in asked.stdout
    return [good.stdout, good.stderr, bad.stdout, bad.stderr, asked.stdout, asked.stderr]


def left(project: Project) -> Iterator[Path]:
    """Every file the runs made: histories, captured logs, stores, datasets."""
    return (path for path in (project.root / ".embedding_pipeline").rglob("*") if path.is_file())


def test_keys_and_texts_are_only_where_they_belong(project: Project, said: list[str]) -> None:
    for words in said:
        assert not [mark for mark in MARKS if mark in words]
    found = list(left(project))
    assert {path.name for path in found} >= {"state.db", f"{DAYS[0]}.parquet"}
    assert [path for path in found if path.suffix == ".err"], "captured logs"
    for path in found:
        content = path.read_bytes()
        marks = (KEY, WRONG_KEY) if path.suffix == ".parquet" else MARKS
        assert not [mark for mark in marks if mark.encode() in content], path
    assert text_columns(project) == MAY_HAVE_TEXT


def text_columns(project: Project) -> set[tuple[str, str]]:
    """The datasets and columns that hold marked text; keys are in none."""
    datasets = [path for path in left(project) if path.suffix == ".parquet"]
    with_text = set()
    for path in datasets:
        asset = path.relative_to(project.root / ".embedding_pipeline").parts[0]
        table = pq.read_table(path)
        footer = str(pq.read_metadata(path).metadata)
        assert not [mark for mark in MARKS if mark in footer], path
        for name in table.column_names:
            words = str(table.column(name).to_pylist()) if name != "vector" else ""
            assert not [key for key in (KEY, WRONG_KEY) if key in words]
            if TEXT in words:
                with_text.add((asset, name))
    return with_text
