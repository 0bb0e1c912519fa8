"""What is wrong with settings, in words that say what to do.

Belongs here: turning pydantic's findings into lines for a person. Does not belong here:
where a value came from (``settings`` knows). Pure.

pydantic speaks to programmers ("Input should be a valid tuple", "unable to parse string as
an integer"). Values are repeated where that helps and cannot give a secret away.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

LONGEST_SHOWN: Final = 40

_WORDS: Final = {
    "missing": "is missing; add it",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a number",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "literal_error": "must be one of {expected}",
    "string_type": "must be text; put it in quotes",
}

_KINDS: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "decimal": "must be a number",
    "bool": "must be true or false",
    "date": "must be a date like 2026-01-31",
    "tuple": "must be a list",
    "list": "must be a list",
    "model": "must be a section of keys and values",
    "dict": "must be a section of keys and values",
}
"""By the first word of pydantic's type, for its many ways not to be one."""

_WITHOUT_VALUE: Final = frozenset({"missing", "string_too_short"})


Where = Callable[[Sequence[str]], str]
"""From a key, part by part, to the file or variable that a person has to look at."""


def explain(error: ValidationError, root: type[BaseModel], where: Where) -> str:
    """Every finding on a line: where, which key, what is wrong and what to do.

    A finding about the whole (no key) is a line ``key: problem`` itself, or several.
    """
    findings = error.errors(include_url=False)
    return "\n".join(line for finding in findings for line in _lines(finding, root, where))


def _lines(finding: Mapping[str, Any], root: type[BaseModel], where: Where) -> Iterator[str]:
    key = tuple(str(part) for part in finding["loc"])
    message = say(finding)
    if not key:
        for problem in message.splitlines():
            yield f"{where(problem.partition(':')[0].split('.'))}: {problem}"
        return
    if finding["type"] == "extra_forbidden":
        message = f"no such setting{closest(key[-1], _siblings(key, root))}; remove or correct it"
    yield f"{where(key)}: {'.'.join(map(_printable, key))}: {message}"


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _siblings(key: Sequence[str], root: type[BaseModel]) -> list[str]:
    """The keys there are beside this one."""
    kind: Any = root
    for part in key[:-1]:
        inside = get_args(kind)
        kind = inside[0] if part.isdigit() and inside else children_of(kind).get(part)
    return list(children_of(kind))


def children_of(kind: object) -> dict[str, Any]:
    """The keys of a section with their types; none where it is not a section."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    return {}


def say(finding: Mapping[str, Any]) -> str:
    """What is wrong with one value: the part of the message after the key.

    Args:
        finding: one of ``ValidationError.errors()``.
    """
    kind = str(finding["type"])
    context = {name: _whole(value) for name, value in (finding.get("ctx") or {}).items()}
    if kind == "value_error":
        return str(finding["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        context["expected"] = _plain_list(str(context["expected"]))
    words = _WORDS.get(kind) or _KINDS.get(kind.partition("_")[0])
    if words is None:
        return str(finding["msg"])
    shown = "" if kind in _WITHOUT_VALUE else _shown(finding.get("input"))
    return words.format(**context) + shown


def closest(name: str, known: Sequence[str]) -> str:
    """A hint at what was probably meant, with a leading blank; or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain_list(quoted: str) -> str:
    """``'a', 'b' or 'c'`` as ``a, b or c``."""
    return re.sub(r"'([^']*)'", r"\1", quoted)


def _shown(value: object) -> str:
    """The value, if it is short, simple, and no address that may hold a password."""
    if isinstance(value, (bool, int, float)):
        return f", not {str(value).lower() if isinstance(value, bool) else value}"
    if isinstance(value, str) and len(value) <= LONGEST_SHOWN and not set("@:") & set(value):
        return f", not {value!r}"
    return ""
