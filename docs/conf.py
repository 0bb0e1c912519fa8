"""How Sphinx builds the documentation site (``make docs``), offline, from the Markdown here."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "embedding_pipeline"
copyright = "the embedding_pipeline authors"  # noqa: A001 - Sphinx's name for it
release = version = _PROJECT["version"]

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = "embedding_pipeline"
html_static_path = ["_static"]
html_copy_source = False
html_show_sphinx = False
