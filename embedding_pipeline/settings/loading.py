"""Reading the settings, and saying where a mistake in them stands.

Belongs here: the one call that makes ``Settings`` from file, environment and caller.
Does not belong here: the keys (``tree``), or which combinations are possible (``rules``).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError as UnreadableValueError

from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.environment import (
    CONFIG_VARIABLE,
    FILE_SUFFIX,
    PREFIX,
    settings_file,
)
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.settings.wording import children_of, closest, explain


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        overrides: values that go before the file's and the environment's, as a tree.

    Raises:
        SettingsError: a file cannot be read, or a value is wrong; every problem is named.
    """
    named = {key: value for key, value in (overrides or {}).items() if value is not None}
    path = settings_file()
    _refuse_unknown_variables()
    try:
        settings = Settings(**named)
    except ValidationError as exc:
        raise SettingsError(explain(exc, Settings, _Origin(named, path).of)) from exc
    except UnreadableValueError as exc:
        raise SettingsError(_no_json(exc)) from exc
    settings._base = path.parent if path else Path.cwd()
    return settings


def _refuse_unknown_variables() -> None:
    for name in sorted(os.environ):
        path = name.upper().removeprefix(PREFIX).removesuffix(FILE_SUFFIX).lower().split("__")
        if not name.upper().startswith(PREFIX) or name.upper() == CONFIG_VARIABLE:
            continue
        kind: Any = Settings
        for depth, part in enumerate(path):
            children = children_of(kind)
            if part not in children:
                hint = closest(part, list(children))
                if depth and not children:
                    hint = "; give the whole value at once, lists and sections as JSON"
                raise SettingsError(f"environment variable {name}: no such setting{hint}")
            kind = children[part]


@dataclass(frozen=True)
class _Origin:
    """Where values came from: what a caller named, the environment, or the file."""

    named: Mapping[str, Any]
    path: Path | None

    def of(self, where: Sequence[str]) -> str:
        """The place a person has to look at."""
        if _holds(self.named, where):
            return "the call"
        for depth in range(len(where), 0, -1):
            name = PREFIX + "__".join(where[:depth]).upper()
            if name in os.environ:
                return f"environment variable {name}"
        return self.path.name if self.path else "settings"


def _holds(tree: Any, where: Sequence[str]) -> bool:
    """Whether a tree says something about a key; inside a list it does about all."""
    for part in where:
        if not isinstance(tree, Mapping):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _no_json(exc: UnreadableValueError) -> str:
    """A variable that holds a list or a section, and no JSON."""
    field = re.search(r'field "(\w+)"', str(exc))
    name = PREFIX + (field[1].upper() if field else "…")
    return f"environment variable {name}: not valid JSON; write a list like '[...]'"
