"""A YAML file as keys and values, or what is wrong with it, by line.

Belongs here: reading one file safely. Does not belong here: what the keys mean
(``settings``).
"""

from pathlib import Path
from typing import Any

import yaml

from embedding_pipeline.errors import SettingsError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: the first one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a file; none when it is empty.

    Raises:
        SettingsError: it cannot be read, is not YAML, or not keys and values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 - safe
    except yaml.MarkedYAMLError as exc:
        line = f", line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        problem = exc.problem or "not valid YAML"
        raise SettingsError(f"{path.name}{line}: {problem}; check the indentation") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path.name}: cannot be read: save it as UTF-8 text") from exc
    except (OSError, ValueError, yaml.YAMLError) as exc:  # unreadable, no such date
        raise SettingsError(f"{path.name}: cannot be read: {exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path.name}: must be keys and values, like 'data_dir: data'")
    return {str(key): value for key, value in content.items()}
