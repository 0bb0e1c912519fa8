"""Docstrings: found in files without running them, and in C."""

import sys
import textwrap
from pathlib import Path

from embedding_pipeline.sources.docstrings import Docstring, of_file, of_module


def _file(folder: Path, source: str) -> Path:
    file = folder / "sample.py"
    file.write_text(textwrap.dedent(source))
    return file


def test_everything_documented_has_its_qualified_name(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        '''\
        """The module."""
        class Box:
            """A box."""
            class Lid:
                def lift(self, height, /, *rest, speed=1, **more):
                    """Lift it.

                    First:
                        slowly.
                    """
            def silent(self): ...
        async def pack(box: "Box"):
            "Pack it."
            def inner():
                """Not seen from outside, but said."""
        ''',
    )
    assert list(of_file(file)) == [
        Docstring("", "", "The module.", "module", 1),
        Docstring("Box", "Box", "A box.", "class", 2),
        Docstring(
            "Box.Lid.lift",
            "Box.Lid.lift(height, *rest, speed, **more)",
            "Lift it.\n\nFirst:\n    slowly.",
            "function",
            5,
        ),
        Docstring("pack", "pack(box)", "Pack it.", "function", 12),
        Docstring("pack.inner", "pack.inner()", "Not seen from outside, but said.", "function", 14),
    ]


def test_nothing_is_run(tmp_path: Path) -> None:
    file = _file(tmp_path, '"""Read."""\nraise SystemExit\n')
    assert [one.text for one in of_file(file)] == ["Read."]
    assert "sample" not in sys.modules


def test_an_invalid_escape_in_a_file_is_no_warning_of_ours(tmp_path: Path) -> None:
    file = _file(tmp_path, '"""Read."""\npattern = "\\d"\n')
    assert len(list(of_file(file))) == 1


def test_what_is_no_python_is_passed_over(tmp_path: Path) -> None:
    for source in (b"def f(:", b"\xff\xfe\x00", b"\x00", b"(" * 1000):
        file = tmp_path / "bad.py"
        file.write_bytes(source)
        assert list(of_file(file)) == []
    assert list(of_file(tmp_path / "missing.py")) == []


def test_what_c_implements() -> None:
    found = {one.name: one for one in of_module("zlib")}
    assert found["compress"].heading == "compress(data, level, wbits)"
    assert found["compress"].kind == "function"
    assert "compressed data" in found["compress"].text
    assert not any(one.name.endswith("hook") for one in of_module("sys"))
    names = {one.name for one in of_module("datetime")}
    assert {"datetime", "datetime.strptime", "date.fromisoformat"} <= names
    assert not any(part.startswith("_") for name in names for part in name.split("."))


def test_a_module_this_python_lacks_says_nothing() -> None:
    assert list(of_module("winreg_of_another_system")) == []
