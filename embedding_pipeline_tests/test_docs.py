"""What the documents say is so: settings, commands, codes, targets, links, code blocks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from embedding_pipeline.cli.endings import EXIT_CODES
from embedding_pipeline.cli.root import root
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.embedders.sentence_models import write_model

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
)
SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*)`")


def _table(text: str, title: str) -> list[list[str]]:
    """Rows of the table whose first header is ``title``, as lists of cells."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def _model(annotation: object) -> type[BaseModel] | None:
    """The section behind an annotation, also inside a tuple."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _keys(model: type[BaseModel], *, into_lists: bool) -> Iterator[str]:
    """Every key of the tree, dotted; ``tenants`` and ``source.fields`` end there if asked."""
    for name, info in model.model_fields.items():
        section = _model(info.annotation)
        is_list = not isinstance(info.annotation, type)
        if section is None or (is_list and not into_lists):
            yield name
        else:
            yield from (f"{name}.{key}" for key in _keys(section, into_lists=into_lists))


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def test_the_settings_table_has_every_key_and_no_other(readme: str) -> None:
    listed = [key for row in _table(readme, "key") for key in SETTING.findall(row[0])]
    every = {
        "source.fields" if key.startswith("source.fields.") else key
        for key in _keys(Settings, into_lists=False)
    }
    assert sorted(listed) == sorted(every)


def test_the_fields_of_listed_sections_are_named(readme: str) -> None:
    rows = {row[0].strip("`"): row[1] for row in _table(readme, "key")}
    for name in ("providers", "tenants", "budgets"):
        section = _model(Settings.model_fields[name].annotation)
        assert section is not None
        assert set(section.model_fields) <= set(SETTING.findall(rows[name]))


def _dig(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[0] if isinstance(tree, list) else tree
        tree = tree[part]
    return tree


def test_the_settings_file_explains_every_key(repository: Path) -> None:
    text = (repository / "pipeline.yaml").read_text()
    everything = yaml.safe_load(re.sub(r"(?m)^(\s*)#(?=[a-z-])", r"\1", text))
    for key in _keys(Settings, into_lists=True):
        assert _dig(everything, key) is not None, key


def test_the_settings_file_is_the_demo_with_the_defaults(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_pipeline.settings.loading import load_settings

    monkeypatch.chdir(repository)
    assert load_settings() == Settings()


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
    for child_name, child in (children or {}).items():
        yield from _commands(child, f"{name} {child_name}")


def test_the_table_of_commands_is_complete(readme: str) -> None:
    listed = [row[0].strip("`") for row in _table(readme, "command")]
    assert listed == [name for name, _ in _commands(root, "embedding-pipeline")]


def _shown_commands(text: str) -> list[list[str]]:
    """Every command line that starts with our program, without what is piped or redirected."""
    found = re.findall(r"(?m)(?:^|`|\()embedding-pipeline ([^`|>\n]*)", text)
    return [re.findall(r'"[^"]*"|\S+', line) for line in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_shown_exists_with_its_options(repository: Path, document: str) -> None:
    known = dict(_commands(root, ""))
    for words in _shown_commands((repository / document).read_text()):
        name = next((n for n in known if n.split() == words[: len(n.split())]), None)
        if name is None:
            assert words[0] in root.commands or words[0] in {"[OPTIONS]", "failed"}, words
            continue
        options = {option for p in known[name].params for option in (*p.opts, *p.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert used <= {*options, "--help"}, words


def test_exit_codes_are_listed_as_they_are(readme: str) -> None:
    listed = [(int(row[0]), row[1]) for row in _table(readme, "exit code")]
    assert listed == list(EXIT_CODES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(repository: Path, document: str) -> None:
    makefile = (repository / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    used = re.findall(r"(?m)(?:^|`)make ([a-z]+)", (repository / document).read_text())
    assert set(used) <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_local_links_resolve(repository: Path, document: str) -> None:
    path = repository / document
    links = re.findall(r"\]\(([^)#\s]+)\)", path.read_text())
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (path.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_and_yaml_blocks_are_valid(
    repository: Path, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = {"sentence_bert_config.json": {"max_seq_length": 256}}
    write_model(tmp_path / "models" / "all-MiniLM-L6-v2", **longest)
    monkeypatch.chdir(tmp_path)
    text = (repository / document).read_text()
    for language, block in re.findall(r"```(python|yaml)\n(.*?)```", text, re.DOTALL):
        if language == "yaml":
            assert isinstance(Settings(**yaml.safe_load(block)), Settings)
        else:
            names = {n for n in ast.walk(ast.parse(block)) if isinstance(n, ast.ImportFrom)}
            assert all(_importable(node) for node in names)


def _importable(node: ast.ImportFrom) -> bool:
    from importlib import import_module

    module = import_module(node.module or "")
    return all(hasattr(module, alias.name) for alias in node.names)


def test_generated_documents_are_current(repository: Path) -> None:
    check = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_the_site_builds_without_a_network_and_without_a_warning(
    repository: Path, tmp_path: Path
) -> None:
    """Also: no page loads anything from elsewhere."""
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "d")]
    made = subprocess.run(
        [*build, "docs", str(tmp_path / "site")],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    pages = {page.stem: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (repository / "docs").glob("*.md")} <= pages.keys()
    loaded = r"""(?:<script[^>]*src|<img[^>]*src|<link[^>]*rel="stylesheet"[^>]*href)="(https?://[^"]+)"""
    assert not [found for page in pages.values() for found in re.findall(loaded, page)]
