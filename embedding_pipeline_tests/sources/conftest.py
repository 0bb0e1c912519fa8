"""Files on disk for the sources, and reading them back."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Protocol

import pytest

from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.base import Item
from embedding_pipeline.sources.config import SourceConfig, SourceFields
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline_tests.servers import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

DAY = date(2025, 3, 18)
FIRST_DAY = date(2025, 3, 1)


class Folder:
    """A folder of source files.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: bytes | str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def read(self, pattern: str, day: date = DAY, fields: SourceFields | None = None) -> list[Item]:
        config = SourceConfig(
            kind="files", path=f"{self.path}/{pattern}", fields=fields or SourceFields()
        )
        return list(FilesSource(config, FIRST_DAY).read(day))


class Reads(Protocol):
    """Reads one file whose name says the day."""

    def __call__(self, suffix: str, content: bytes | str) -> list[Item]: ...


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def reads(folder: Folder) -> Reads:
    def read(suffix: str, content: bytes | str) -> list[Item]:
        folder.write(f"{DAY}{suffix}", content)
        return folder.read("{date}" + suffix)

    return read


@pytest.fixture
def reasons() -> Callable[[list[Item]], list[str]]:
    """The items as words: the reason of a rejected one, "ok" for a good one."""
    return lambda items: [item.reason if isinstance(item, Rejected) else "ok" for item in items]
