"""The demo's text: real, plenty, the same on every reading, and nothing is run for it."""

import subprocess
import sys
from collections import Counter
from datetime import date, timedelta

import pytest

from embedding_pipeline.records import Document
from embedding_pipeline.sources.demo import C_MODULES, DAYS, PACKAGES, DemoSource
from embedding_pipeline.sources.rows import text_problem

FIRST_DAY = date(2025, 3, 12)
ALL_DAYS = [FIRST_DAY + timedelta(offset) for offset in range(DAYS)]


def _read(day: date) -> list[Document]:
    items = list(DemoSource(FIRST_DAY).read(day))
    assert all(isinstance(item, Document) for item in items)
    return [item for item in items if isinstance(item, Document)]


@pytest.fixture(scope="module")
def week() -> dict[date, list[Document]]:
    return {day: _read(day) for day in ALL_DAYS}


@pytest.fixture(scope="module")
def everything(week: dict[date, list[Document]]) -> list[Document]:
    return [document for day in ALL_DAYS for document in week[day]]


def test_it_is_plenty_but_not_too_much(everything: list[Document]) -> None:
    assert 10_000 <= len(everything) <= 14_000
    assert len({document.text for document in everything}) >= 10_000


def test_every_id_occurs_once(everything: list[Document]) -> None:
    ids = Counter(document.document_id for document in everything)
    assert ids.most_common(1)[0][1] == 1


def test_there_are_two_projects(everything: list[Document]) -> None:
    projects = Counter(document.project for document in everything)
    assert projects.keys() == {"stdlib", "packages"}
    assert min(projects.values()) > 1000


def test_it_arrives_on_seven_days_and_on_no_other(week: dict[date, list[Document]]) -> None:
    sizes = [len(documents) for documents in week.values()]
    assert min(sizes) > max(sizes) / 3
    assert _read(FIRST_DAY - timedelta(1)) == []
    assert _read(FIRST_DAY + timedelta(DAYS)) == []


def test_a_day_read_again_is_the_same(week: dict[date, list[Document]]) -> None:
    assert _read(ALL_DAYS[2]) == week[ALL_DAYS[2]]


def test_another_process_reads_the_same(week: dict[date, list[Document]]) -> None:
    program = (
        "from datetime import date\n"
        "from embedding_pipeline.sources.demo import DemoSource\n"
        f"day = date.fromisoformat('{FIRST_DAY}')\n"
        "print(*(item.document_id for item in DemoSource(day).read(day)), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == [document.document_id for document in week[FIRST_DAY]]


def test_every_text_can_be_used(everything: list[Document]) -> None:
    assert {text_problem(document.text) for document in everything} == {None}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stdlib/datetime.datetime.strptime", "parsed from a string"),
        ("stdlib/zlib.compress", "compressed data"),
        ("stdlib/builtins.str.split", "substrings"),
        ("stdlib/help/for", "for"),
        ("packages/requests", "HTTP"),
    ],
)
def test_what_a_newcomer_looks_for_is_there(
    name: str, words: str, everything: list[Document]
) -> None:
    (found,) = [document for document in everything if document.document_id == name]
    assert words in found.text
    assert found.metadata["name"] == name.partition("/")[2].removeprefix("help/")


def test_a_text_begins_with_what_it_is_about(everything: list[Document]) -> None:
    (found,) = [d for d in everything if d.document_id == "stdlib/json.loads"]
    heading, _, text = found.text.partition("\n\n")
    assert heading.startswith("loads(s, cls, object_hook")
    assert text.startswith("Deserialize")
    assert found.location.startswith("json:")


def test_third_party_code_is_not_imported() -> None:
    program = (
        "import sys\nfrom datetime import date\n"
        "from embedding_pipeline.sources.demo import DemoSource\n"
        "before = set(sys.modules)\n"
        "assert sum(1 for _ in DemoSource(date(2025, 1, 1)).read(date(2025, 1, 1))) > 1000\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == []


def test_the_modules_inspected_are_of_the_standard_library() -> None:
    assert set(C_MODULES) <= sys.stdlib_module_names
    assert set(PACKAGES).isdisjoint(sys.stdlib_module_names)
