"""The demo's text: the documentation inside the Python of this machine.

Belongs here: which files and modules are read, and on which day they "arrive". Does
not belong here: how a docstring is found (``docstrings``).

Two projects: ``stdlib`` (the topics of ``help()``, the docstrings of the standard
library's files and of what C implements in it) and ``packages`` (docstrings of
packages this project installs anyway). No third-party code is imported or run.

The text is spread over seven days by a hash of the module's name, so that one day
reads a seventh of the files and all seven days read each file once. Text and ids are
the same on every reading on one machine; another Python has other documentation.
"""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Final

from embedding_pipeline.records import Document
from embedding_pipeline.sources import docstrings
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.sources.docstrings import Docstring
from embedding_pipeline.sources.rows import text_problem

DAYS: Final = 7
SOURCE_BYTES: Final = 17_000_000
"""Python source read over all days: 10 to 11 MB of standard library, the rest packages.
A megabyte holds 600 to 700 docstrings."""

PACKAGES: Final = (
    "dateutil",
    "requests",
    "tenacity",
    "click",
    "starlette",
    "jinja2",
    "fsspec",
    "aiohttp",
    "openai",
    "pydantic",
    "sqlalchemy",
)
"""In this order, until the bytes are used up: small and varied ones first."""

C_MODULES: Final = (
    *("array", "binascii", "bisect", "bz2", "builtins", "cmath", "codecs", "collections"),
    *("csv", "datetime", "decimal", "errno", "functools", "gc", "hashlib", "heapq", "io"),
    *("itertools", "json", "locale", "lzma", "math", "mmap", "operator", "os", "pickle"),
    *("posix", "pyexpat", "random", "re", "resource", "select", "signal", "socket"),
    *("sqlite3", "ssl", "statistics", "string", "struct", "sys", "threading", "time"),
    *("tracemalloc", "types", "unicodedata", "uuid", "weakref", "zlib", "zoneinfo"),
)
"""Standard modules that are safe to import and partly written in C."""

_SKIPPED: Final = frozenset(
    {"__pycache__", "_vendor", "dist-packages", "ensurepip", "idlelib", "lib2to3"}
    | {"site-packages", "test", "testing", "tests", "turtledemo"}
)


@dataclass(frozen=True, slots=True)
class _Module:
    """Something that arrives on one day: a file, a C module, a topic of ``help()``."""

    name: str
    project: str
    file: Path | None


class DemoSource(ChunkSource):
    """The documentation on this machine, over the seven days from ``first_day``.

    Args:
        first_day: the day on which the first of it arrives.
    """

    def __init__(self, first_day: date) -> None:
        self._first_day = first_day

    def read(self, day: date) -> Iterator[Item]:
        offset = (day - self._first_day).days
        if not 0 <= offset < DAYS:
            return
        for name, parts in groupby(_modules(), key=lambda module: module.name):
            if _arrival(name) == offset:
                yield from _documents(parts)
        yield from (topic for topic in _topics() if _arrival(topic.document_id) == offset)


def _arrival(name: str) -> int:
    """On which of the days it arrives: the same everywhere, whatever PYTHONHASHSEED is."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) % DAYS


def _modules() -> list[_Module]:
    """All modules in the order of their names, a file before what C adds to it."""
    library = Path(sysconfig.get_path("stdlib"))
    found = [_Module(name, "stdlib", file) for name, file in _files(library, "")]
    room = SOURCE_BYTES - sum(_size(module.file) for module in found)
    for package in PACKAGES:
        for name, file in _files(_folder(package), f"{package}."):
            room -= _size(file)
            if room > 0:
                found.append(_Module(name, "packages", file))
    found += [_Module(name, "stdlib", None) for name in C_MODULES]
    return sorted(found, key=lambda module: (module.name, module.file is None))


def _files(folder: Path | None, prefix: str) -> list[tuple[str, Path]]:
    if folder is None:
        return []
    return [
        (f"{prefix}{'.'.join(parts)}".removesuffix("__init__").rstrip("."), file)
        for file in sorted(_below(folder))
        if _SKIPPED.isdisjoint(parts := file.relative_to(folder).with_suffix("").parts)
    ]


def _below(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        yield from (Path(current, name) for name in files if name.endswith(".py"))


def _folder(package: str) -> Path | None:
    """Where an installed package is, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _size(file: Path | None) -> int:
    return file.stat().st_size if file is not None else 0


def _documents(modules: Iterable[_Module]) -> Iterator[Document]:
    """The docstrings of one module; C repeats what a file of the same name may have said."""
    said: set[str] = set()
    for module in modules:
        of_file = docstrings.of_file(module.file) if module.file else None
        for one in of_file or docstrings.of_module(module.name):
            if one.name not in said and text_problem(one.text) is None:
                said.add(one.name)
                yield _document(module, one)


def _document(module: _Module, one: Docstring) -> Document:
    name = f"{module.name}.{one.name}" if one.name else module.name
    return Document(
        document_id=f"{module.project}/{name}",
        text=f"{one.heading or module.name}\n\n{one.text}",
        project=module.project,
        user=None,
        metadata={"name": name, "module": module.name, "kind": one.kind},
        location=f"{module.name}:{one.line}" if one.line else module.name,
        markup="text",
    )


def _topics() -> Iterator[Document]:
    from pydoc_data import topics

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name, text in sorted(topics.topics.items()):
        yield Document(
            document_id=f"stdlib/help/{name}",
            text=text,
            project="stdlib",
            user=None,
            metadata={"name": name, "kind": "topic", "python": version},
            location=f"help({name!r})",
            markup="text",
        )
