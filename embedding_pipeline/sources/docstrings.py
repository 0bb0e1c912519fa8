"""Docstrings: of Python files without running them, and of what C implements.

Belongs here: from a file or a standard module to named docstrings. Does not belong
here: choosing files (``demo``). Nothing here imports anything but the modules of the
standard library that it is told to inspect.
"""

import ast
import importlib
import inspect
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

Documented: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_C_FUNCTIONS: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


@dataclass(frozen=True, slots=True)
class Docstring:
    """What one thing says of itself.

    Attributes:
        name: its name within the module, dotted; "" for the module itself.
        heading: the name with the arguments it takes, where it takes any.
        text: the docstring, indentation removed.
        kind: what it documents.
        line: where it stands in the file, 0 where there is none.
    """

    name: str
    heading: str
    text: str
    kind: Literal["module", "class", "function"]
    line: int = 0


def of_file(path: Path) -> Iterator[Docstring]:
    """Every docstring of a Python file; none if it cannot be parsed. Nothing is run."""
    tree = _parsed(path)
    if tree is None:
        return
    text = ast.get_docstring(tree)
    if text:
        yield Docstring("", "", text, "module", 1)
    yield from _below(tree, "")


def of_module(name: str) -> Iterator[Docstring]:
    """Docstrings of what C implements in a module of the standard library; none if absent."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    for label, value in sorted(vars(module).items()):
        # A hook is there to be replaced, so what it says depends on who runs this.
        if label.startswith("_") or label.endswith("hook"):
            continue
        if isinstance(value, types.BuiltinFunctionType):
            yield from _of_object(label, value, "function")
        elif isinstance(value, type) and value.__module__ == name:
            yield from _of_type(label, value)


def _parsed(path: Path) -> ast.Module | None:
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            # An invalid escape in somebody else's file is not our user's concern.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _below(node: ast.Module | Documented, prefix: str) -> Iterator[Docstring]:
    for child in node.body:
        if isinstance(child, Documented):
            name = f"{prefix}{child.name}"
            text = ast.get_docstring(child)
            if text:
                kind: Literal["class", "function"] = "function"
                if isinstance(child, ast.ClassDef):
                    kind = "class"
                yield Docstring(name, name + _arguments(child), text, kind, child.lineno)
            yield from _below(child, f"{name}.")


def _arguments(node: Documented) -> str:
    """The names of the arguments; types and defaults would drown the words in a search."""
    if isinstance(node, ast.ClassDef):
        return ""
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [argument.arg for argument in given.kwonlyargs]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"({', '.join(names)})"


def _of_type(name: str, kind: type) -> Iterator[Docstring]:
    """A type and its members in C; one written in Python has its docstrings in its file."""
    members = {
        label: value
        for label, value in sorted(vars(kind).items())
        if isinstance(value, _C_FUNCTIONS) and not label.startswith("_")
    }
    if members:
        yield from _of_object(name, kind, "class")
    for label, value in members.items():
        yield from _of_object(f"{name}.{label}", value, "function")


def _of_object(name: str, value: object, kind: Literal["class", "function"]) -> Iterator[Docstring]:
    text = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    if text:
        yield Docstring(name, name + _signature(value, kind), text, kind)


def _signature(value: object, kind: str) -> str:
    signature = getattr(value, "__text_signature__", None)
    if kind == "class" or not isinstance(signature, str):
        return ""
    names = (part.strip() for part in signature.strip("()").split(","))
    kept = (name for name in names if name not in {"", "/", "*"} and not name.startswith("$"))
    return f"({', '.join(name.partition('=')[0] for name in kept)})"
