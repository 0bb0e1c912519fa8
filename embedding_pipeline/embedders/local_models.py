"""Local models by name or folder: what can be known of one without loading it.

Belongs here: finding the folder, and reading dimension, longest text and revision from its
files. Does not belong here: running a model (``sentences``), or the bundled one (``local``).

A folder holds a model as sentence-transformers saves it. Its revision is a digest of its
files: two folders with one model are one space, and a folder whose weights change is another.
A name is looked up in the Hugging Face cache, whose commit is the revision.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from embedding_pipeline.catalog import DEFAULT_MODEL, ModelSpec
from embedding_pipeline.errors import ConfigurationError, MissingExtra
from embedding_pipeline.records import Space

PREFIX: Final = "local/"
EXTRA: Final = "sentence-transformers"
MODULES: Final = "modules.json"
REVISION_LENGTH: Final = 8

_COUNTED: Final = frozenset({".json", ".safetensors", ".bin", ".txt", ".model"})
"""Files that make vectors what they are; other formats of the same weights do not count."""

_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
_READ: Final = 1 << 20


@dataclass(frozen=True)
class LocalModel:
    """A model that is on this machine.

    Attributes:
        spec: what the rest of the pipeline knows of it.
        folder: where it is.
    """

    spec: ModelSpec
    folder: Path


def is_local_model(name: str) -> bool:
    """Whether settings call a local model so, other than the bundled one."""
    return name.startswith(PREFIX) and name != DEFAULT_MODEL


def find_local_model(name: str, base: Path, *, allow_download: bool = False) -> LocalModel:
    """The model called ``local/<folder>`` or ``local/<name on the Hugging Face hub>``.

    Args:
        name: with the ``local/``; a relative folder starts at ``base``.
        base: the folder of the settings file.
        allow_download: whether a name that is not on this machine is fetched from the hub.

    Raises:
        ConfigurationError: there is no such model, or its files do not say what it is.
        MissingExtra: a name is given, and what keeps the hub's cache is not installed.
    """
    wanted = name.removeprefix(PREFIX)
    folder = (base / Path(wanted).expanduser()).resolve()
    if folder.is_dir():
        return _described(name, folder, _plain(folder.name), _digest(folder))
    if not _HUB_NAME.fullmatch(wanted):
        raise ConfigurationError(
            f"{name}: there is no folder {folder}; give the folder of a sentence-transformers "
            f"model, a name like local/sentence-transformers/all-MiniLM-L6-v2, or {DEFAULT_MODEL}"
        )
    folder = _from_hub(name, wanted, allow_download=allow_download)
    return _described(name, folder, wanted, folder.name[:REVISION_LENGTH])


def _from_hub(name: str, wanted: str, *, allow_download: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as exc:
        raise MissingExtra(f"the model {name}", EXTRA) from exc
    try:
        return Path(snapshot_download(wanted, local_files_only=not allow_download))
    except (OSError, ValueError) as exc:  # what is not cached, and what its HTTP client raises
        raise ConfigurationError(
            f"{name} is neither a folder nor in the Hugging Face cache of this machine "
            f"({type(exc).__name__}); fetch it with: hf download {wanted}; or set "
            "embedding.allow_download: true"
        ) from exc


def _described(name: str, folder: Path, model: str, revision: str) -> LocalModel:
    modules = _json(folder / MODULES, name)
    if not isinstance(modules, list):
        raise _strange(name, f"{MODULES} is no list")
    space = Space("local", model, revision, _dimensions(name, folder, modules))
    spec = ModelSpec(
        name=name,
        space=space,
        max_input_tokens=_longest(name, folder, modules),
        supports_dimensions=False,
        nano_usd_per_token=0,
        batch_nano_usd_per_token=None,
        price_checked=date(2026, 11, 23),
        source="runs on this machine",
    )
    return LocalModel(spec, folder)


def _dimensions(name: str, folder: Path, modules: Sequence[Mapping[str, str]]) -> int:
    """The last module that sets a length does."""
    found = 0
    for module in modules:
        kind, place = str(module.get("type", "")), folder / str(module.get("path", ""))
        if kind.endswith(".Pooling"):
            found = _pooled(_json(place / "config.json", name))
        elif kind.endswith(".Dense"):
            found = int(_json(place / "config.json", name).get("out_features", 0))
        elif kind.endswith(".StaticEmbedding"):
            found = _width(place / "model.safetensors")
    if found < 1:
        raise _strange(name, "its files do not say how long its vectors are")
    return found


def _pooled(config: Mapping[str, Any]) -> int:
    """Each mode of pooling adds its own vector to the end."""
    modes = sum(value is True for key, value in config.items() if key.startswith("pooling_mode"))
    size = config.get("word_embedding_dimension", config.get("embedding_dimension", 0))
    return int(size) * max(1, modes)


def _width(weights: Path) -> int:
    """The second side of the one matrix of a static model, from the file's header."""
    try:
        with weights.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, _READ)))
    except (OSError, ValueError, struct.error):
        return 0
    shapes = [one["shape"] for key, one in header.items() if key != "__metadata__"]
    return int(shapes[0][1]) if len(shapes) == 1 and len(shapes[0]) == 2 else 0


def _longest(name: str, folder: Path, modules: Sequence[Mapping[str, str]]) -> int:
    """Tokens of the model's own that it reads of a text; static ones read all there is."""
    if any(str(module.get("type", "")).endswith(".StaticEmbedding") for module in modules):
        return STATIC_TOKENS
    for file, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        if (folder / file).is_file():
            found = _json(folder / file, name).get(key)
            if isinstance(found, int) and 0 < found <= MOST_TOKENS:
                return found
    raise _strange(name, "its files do not say how long a text it takes")


STATIC_TOKENS: Final = 8192
MOST_TOKENS: Final = 1 << 20
"""Tokenizers without a limit of their own name a number beyond all measure."""


def _digest(folder: Path) -> str:
    """The first characters of a sha256 over the names and contents of the files that count."""
    files = sorted(_counted(folder))
    stats = [file.stat() for file in files]
    signature = tuple(
        (str(file), stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)
    )
    return _digest_of(folder, signature)


@lru_cache(maxsize=16)
def _digest_of(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Once a process, and again when a file has changed."""
    whole = hashlib.sha256()
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{Path(name).relative_to(folder).as_posix()}\n{content}\n".encode())
    return whole.hexdigest()[:REVISION_LENGTH]


def _counted(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in {"onnx", "openvino"} for part in parts)
        if path.is_file() and path.suffix in _COUNTED and not hidden:
            yield path


def _json(file: Path, name: str) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as exc:
        raise _strange(name, f"{file} cannot be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise _strange(name, f"{file} is not JSON") from exc


def _strange(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name}: {why}; give a folder that sentence-transformers saved (with a {MODULES})"
    )


def _plain(name: str) -> str:
    """A folder's name as a part of a space's."""
    return re.sub(r"[^\w.-]+", "-", name) or "model"
