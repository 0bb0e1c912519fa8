"""Datasets in a folder of this machine, or of a file system that is mounted on it.

Belongs here: the contract of ``storage`` by paths. Does not belong here: how a file is
replaced (``atomic``).
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from embedding_pipeline.vectors.atomic import replacing
from embedding_pipeline.vectors.storage import Storage, StoredFile, contained, is_name

_DISCARDED: Final = ".dropped-"


class LocalStorage(Storage):
    """Files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def location(self, name: str = "") -> str:
        return str(self._path(name))

    def files(self, folder: str) -> list[StoredFile]:
        found = (path for path in self._inside(folder) if path.is_file())
        return sorted((StoredFile(path.name, path.stat().st_size) for path in found), key=_name)

    def folders(self, folder: str) -> list[str]:
        names = (path.name for path in self._inside(folder) if path.is_dir())
        return sorted(name for name in names if is_name(name) and not name.startswith("."))

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def discard(self, folder: str) -> None:
        path = self._path(folder)
        if path.is_dir():
            path.rename(path.with_name(f"{_DISCARDED}{secrets.token_hex(4)}-{path.name}"))

    def clear_discarded(self, folder: str) -> None:
        for path in self._path(folder).glob(f"{_DISCARDED}*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def open(self, name: str) -> Iterator[Path]:
        yield self._path(name)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        with replacing(self._path(name)) as path:
            yield path

    def _path(self, name: str) -> Path:
        return self._root / contained(name)

    def _inside(self, folder: str) -> Iterator[Path]:
        path = self._path(folder)
        return path.iterdir() if path.is_dir() else iter(())


def _name(file: StoredFile) -> str:
    return file.name
