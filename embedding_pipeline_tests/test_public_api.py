"""What a version number promises about Python and Parquet, as written down in ``public_api.txt``.

The rest of the contract is pinned elsewhere: settings by docs/pipeline.schema.json, commands by
docs/cli.md, names in Dagster by ``defs/test_definitions``. ``python -m
embedding_pipeline_tests.test_public_api`` writes the file anew; a change of it belongs into
CHANGELOG.md, and what it means for the version is in docs/versioning.md.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import embedding_pipeline
from embedding_pipeline import errors, records

PIN = Path(__file__).with_name("public_api.txt")
SERVICE = ("__init__", "open", "generate_embedding", "embed_many", "get_embedding")
"""The methods that docs/versioning.md names."""

DATASETS = {
    "raw_chunks, deduped_chunks": records.RAW_CHUNKS,
    "duplicate_chunks": records.DUPLICATE_CHUNKS,
    "embeddings": records.embeddings_schema(1536),
    "derived_chunks": records.DERIVED_CHUNKS,
    "rejected_rows": records.REJECTED_ROWS,
    "cost_summary": records.COST_SUMMARY,
}


def _signature(function: Callable[..., Any]) -> str:
    """As it stands in the source: the same under every Python."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    kind = "async " if isinstance(tree, ast.AsyncFunctionDef) else ""
    returned = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    arguments = re.sub(r", (?![^\[]*\])", ",\n    ", ast.unparse(tree.args))
    return f"{kind}{tree.name}(\n    {arguments}\n){returned}"


def _tree(kind: type[Exception], depth: int = 0) -> Iterator[str]:
    code = getattr(kind, "exit_code", 1)
    yield f"{'    ' * depth}{kind.__name__}, exit code {code}"
    for child in sorted(kind.__subclasses__(), key=lambda one: one.__name__):
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def _columns(name: str, schema: pa.Schema) -> Iterator[str]:
    yield f"{name}:"
    yield from (f"    {field.name}: {field.type}" for field in schema)


def public() -> str:
    """The whole of it, as text."""
    service = embedding_pipeline.EmbeddingService
    lines = ["# import embedding_pipeline", *embedding_pipeline.__all__, ""]
    lines += [_signature(embedding_pipeline.load_settings)]
    lines += [_signature(embedding_pipeline.read_vectors), "", "# EmbeddingService"]
    lines += [_signature(getattr(service, name)) for name in SERVICE]
    lines += ["", "# embedding_pipeline.errors", *_tree(errors.EmbeddingPipelineError)]
    lines += ["", "# Parquet"]
    lines += [line for name, schema in DATASETS.items() for line in _columns(name, schema)]
    return "\n".join(lines) + "\n"


def test_the_public_api_is_as_it_is_written_down() -> None:
    assert public() == PIN.read_text(), "the contract changed: see this module's docstring"


def test_what_is_promised_can_be_imported() -> None:
    for name in embedding_pipeline.__all__:
        assert getattr(embedding_pipeline, name).__name__ == name
    assert sorted(embedding_pipeline.__all__) == embedding_pipeline.__all__


def test_versioning_names_all_of_it(repository: Path) -> None:
    promised = (repository / "docs" / "versioning.md").read_text()
    assert not [n for n in (*embedding_pipeline.__all__, *SERVICE[1:]) if f"`{n}`" not in promised]


if __name__ == "__main__":
    PIN.write_text(public())
