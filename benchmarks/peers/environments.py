"""One environment a client, pinned to the last package, made on first use and kept.

Belongs here: what is installed where, and which versions that are. ``pins/`` holds one file a
client, made by ``uv pip compile --universal``. A client that does not install is left out, with
the reason.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ENVIRONMENTS = Path(".venv/peers")
PINS = Path(__file__).parent / "pins"
INSTALL_SECONDS = 600

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "ours": ("openai", "numpy"),
    "openai SDK": ("openai", "numpy"),
    "LangChain": ("langchain-openai", "langchain-classic", "openai", "numpy"),
    "LlamaIndex": ("llama-index-embeddings-openai", "llama-index-core", "openai", "numpy"),
    "LiteLLM": ("litellm", "openai", "numpy"),
    "openaivec": ("openaivec", "openai", "numpy"),
    "Haystack": ("haystack-ai", "openai", "numpy"),
}
"""Clients, and the packages whose versions say what was measured."""


@dataclass(frozen=True)
class Found:
    """A client's interpreter, or why there is none."""

    python: str = ""
    versions: Mapping[str, str] | None = None
    reason: str = ""


def find(client: str, given: Path | None = None) -> Found:
    """The interpreter that has a client; it is installed where it is not yet."""
    if client == "ours":
        return Found(sys.executable, {**_own_version(), **_versions(sys.executable, client)})
    slug = client.lower().replace(" ", "-")
    folder, pins = (given or ENVIRONMENTS) / slug, PINS / f"{slug}.txt"
    python, ready = folder / "bin" / "python", folder / "ready"
    try:
        if not (ready.exists() and ready.read_text() == pins.read_text()):
            _install(folder, python, pins)
            ready.write_text(pins.read_text())
        return Found(str(python.absolute()), _versions(str(python), client))
    except (OSError, subprocess.SubprocessError) as exc:
        return Found(reason=f"not installed: {_last_words(exc)}")


def token_tables(given: Path | None = None) -> str:
    """A folder with tiktoken's tables, which LlamaIndex brings along; "" where it is not there.

    Without it openaivec has to load them from the network before its first request.
    """
    tables = "llamaindex/lib/python3*/site-packages/llama_index/core/_static/tiktoken_cache"
    return next((str(found.absolute()) for found in (given or ENVIRONMENTS).glob(tables)), "")


def _install(folder: Path, python: Path, pins: Path) -> None:
    print(f"{folder.name}: installing {len(pins.read_text().splitlines())} packages", flush=True)
    _call(sys.executable, "-m", "venv", "--clear", str(folder))
    quiet = ["-qq", "--disable-pip-version-check", "--no-input", "--no-deps"]
    _call(str(python), "-m", "pip", "install", *quiet, "-r", str(pins))


def _call(*command: str) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    return done.stdout


def _own_version() -> dict[str, str]:
    """From the checkout, which need not be installed."""
    project = tomllib.loads((PINS.parents[2] / "pyproject.toml").read_text())["project"]
    return {str(project["name"]): str(project["version"])}


_ASK = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


@cache
def _versions(python: str, client: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(_call(python, "-c", _ASK, *PACKAGES[client]))
    return found


def _last_words(exc: Exception) -> str:
    said = getattr(exc, "stderr", None) or type(exc).__name__
    return str(said).strip().splitlines()[-1][:120]
