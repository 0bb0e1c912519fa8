"""One environment a client, pinned, made on first use and kept.

Belongs here: what is installed where. A client that does not install is left out, with a word.
"""

import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(".venv/peers")

PINS = {
    "openai SDK": ("openai==3.54.0",),
    "LangChain": ("langchain-openai==1.7.3", "langchain-classic", "openai==3.54.0"),
    "LlamaIndex": ("llama-index-embeddings-openai==0.7.0", "openai==3.54.0"),
    "LiteLLM": ("litellm==1.106.2",),
    "openaivec": ("openaivec==2.9.3", "openai==3.54.0"),
    "Haystack": ("haystack-ai==3.4.0", "openai==3.54.0"),
}
"""Clients, and the versions that are measured."""

ALWAYS = ("numpy",)


def python_of(client: str, given: Path | None) -> str | None:
    """The interpreter that has a client; None where it does not install."""
    if client not in PINS:
        return sys.executable
    folder = (given or ENVIRONMENTS) / client.lower().replace(" ", "-")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            quiet = ["-qq", "--disable-pip-version-check", "--no-input"]
            packages = [*PINS[client], *ALWAYS]
            subprocess.run([str(python), "-m", "pip", "install", *quiet, *packages], check=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            print(f"{client}: not installed, left out ({type(exc).__name__})", flush=True)
            return None
        (folder / "ready").touch()
    return str(python.absolute())
