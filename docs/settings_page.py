"""The reference of settings, read off the tree of settings and the comments of pipeline.yaml.

Belongs here: turning types, bounds, defaults and comments into a page. Does not belong here:
what a setting means (its comment in pipeline.yaml says so, for files and page alike).
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from embedding_pipeline.settings.environment import PREFIX
from embedding_pipeline.settings.tree import Settings

KEY = re.compile(r"(?P<indent> *)#?(?P<item>- )?(?P<name>[a-z_]+):(?: .*)?")
ATTRIBUTE = re.compile(r"(?ms)^ {4}([a-z_]+): (.*?)(?=^ {4}\S|\Z)")
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
HEAD = """# Settings

Written by `make docs` from the settings' own types and from the comments in `pipeline.yaml`.

A value comes from, in this order: what a caller names, the environment, the file that
`EMBEDDING_PIPELINE_CONFIG` names (`pipeline.yaml` in the working directory otherwise), and the
default. Lists are given as JSON in the environment, and `null` means none. Keys that do not exist,
wrong types and impossible combinations are refused with the file, the key and the remedy.
"""


@dataclass(frozen=True)
class Setting:
    """One key: its dotted name, what may stand there, and what it is for."""

    name: str
    kind: str
    default: str
    text: str
    variable: str


def page(file: Path) -> str:
    """The whole page, as Markdown."""
    prose = comments(file.read_text())
    parts = [HEAD, *_section("General", Settings, "", prose, nested=False)]
    for name, info in Settings.model_fields.items():
        if section := _model(info.annotation):
            parts += _section(name, section, name, prose, nested=True)
    return "\n".join(parts)


def comments(text: str) -> dict[str, str]:
    """The comment above each key of the settings file, by the key's dotted name."""
    found: dict[str, str] = {}
    prose, path = "", list[tuple[int, str]]()
    for line in text.splitlines():
        if re.match(r" *# ", line):
            prose = f"{prose} {line.strip().removeprefix('# ')}".strip()
        elif match := KEY.fullmatch(line):
            depth = len(match["indent"]) + (2 if match["item"] else 0)
            path = [*(step for step in path if step[0] < depth), (depth, match["name"])]
            found[".".join(name for _, name in path)] = prose
            prose = ""
        else:
            prose = ""
    return found


def _section(
    title: str, model: type[BaseModel], under: str, prose: dict[str, str], *, nested: bool
) -> Iterator[str]:
    yield f"## {title if not nested else f'`{title}`'}\n"
    if nested:
        words = [(inspect.getdoc(model) or "").split("\n\nAttributes:")[0], prose.get(under, "")]
        yield from (f"{_marked(word)}\n" for word in words if word)
    yield from (_entry(setting) for setting in _settings(model, under, prose))


def _settings(model: type[BaseModel], under: str, prose: dict[str, str]) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        key = f"{under}.{name}".strip(".")
        if inner := _model(info.annotation):
            if under:
                yield from _settings(inner, key, prose)
            continue
        text = prose.get(key) or _described(model).get(name, "")
        listed = _is_list(Settings.model_fields[key.split(".")[0]])
        variable = "" if listed and under else PREFIX + key.replace(".", "__").upper()
        yield Setting(key, _kind(info), _default(info), text, variable)


def _entry(setting: Setting) -> str:
    facts = [setting.kind, f"default: {setting.default}"]
    if setting.variable:
        facts.append(f"`{setting.variable}`")
    body = f"\n\n{_marked(setting.text)}" if setting.text else ""
    return f"### `{setting.name}`\n\n{' · '.join(facts)}{body}\n"


def _marked(text: str) -> str:
    """A docstring as Markdown: single back-ticks, and one paragraph."""
    return " ".join(text.replace("``", "`").replace("<", "&lt;").split())


def _model(annotation: object) -> type[BaseModel] | None:
    """The section behind an annotation, also inside a tuple."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _is_list(info: FieldInfo) -> bool:
    return get_origin(info.annotation) is tuple


def _kind(info: FieldInfo) -> str:
    bounds = [
        f"{sign} {value}"
        for rule in info.metadata
        for bound, sign in BOUNDS.items()
        if (value := getattr(rule, bound, None)) is not None
    ]
    return ", ".join([_named(info.annotation), *bounds])


def _named(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_named(get_args(annotation)[0])}"
    if options := [one for one in get_args(annotation) if one is not type(None)]:
        return " or ".join(_named(one) for one in options)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", "value")
    )


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    return "none" if value in (None, ()) else f"`{json.dumps(value, default=str)}`"


@cache
def _described(model: type[BaseModel]) -> dict[str, str]:
    """What the code says of each field: in the class's docstring, or in a string below it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    listed = (inspect.getdoc(model) or "").partition("\n\nAttributes:\n")[2]
    found = dict(ATTRIBUTE.findall(listed))
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = str(after.value.value)
    return found
