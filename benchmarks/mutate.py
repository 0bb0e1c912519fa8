"""``python -m benchmarks.mutate``: small wrongs in the pure rooms, and whether a test notices.

Every comparison, sum, constant, branch and call without a result is made wrong in turn, and the
room's own tests run on it. A mutant that no test notices survives, and is shown with its line.
Each runs in a fork of a process that has the libraries loaded already, which takes a tenth of
what a new interpreter would. ``--mutants N`` takes a sample, the same for the same ``--seed``;
``--known`` makes a handful that always must be noticed, in seconds.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
TESTS = "embedding_pipeline_tests"
ROOMS = {
    "planning": (("planning/requests", "planning/inputs"), ("planning",)),
    "limits": (
        ("limits/buckets", "limits/sharing", "limits/headers"),
        ("limits/test_buckets.py", "limits/test_reports.py", "limits/test_simulation.py"),
    ),
    "dedup": (
        ("dedup/clusters", "dedup/keys", "dedup/leading", "dedup/minhash", "dedup/shingles"),
        ("dedup",),
    ),
    "ledger": (
        ("ledger/shares", "ledger/affording", "ledger/periods", "ledger/standing"),
        tuple(f"ledger/test_{name}.py" for name in ("shares", "affording", "periods", "standing")),
    ),
    "codec": (("cache/codec",), ("cache/test_codec.py",)),
}
"""Modules of each room, and the tests that have to notice."""

KNOWN = (
    ("planning/requests", "full = caps.aim *", "Mult → FloorDiv", "planning/test_requests.py"),
    ("limits/buckets", "level = min(bucket.level +", "Add → Sub", "limits/test_buckets.py"),
    (
        "dedup/clusters",
        "same = np.flatnonzero(keys[order[1:]]",
        "Eq → NotEq",
        "dedup/test_clusters.py",
    ),
    ("ledger/affording", "free[index] -= cost", "Sub → Add", "ledger/test_affording.py"),
    ("cache/codec", 'made["offset"] = offset +', "Add → Sub", "cache/test_codec.py"),
)
"""Wrongs made in every run of the tests: module, code on the line, what is done, who notices."""

LOADED = ("numpy", "pyarrow.parquet", "pydantic", "sqlalchemy", "hypothesis", "pytest", "aiohttp")
LONGEST, LEAST, SLOWER = 240.0, 20.0, 4.0
"""A mutant whose tests take that many seconds, or so many times what they take without it, hangs,
which is noticed as well; below the least nobody says so."""

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = {"min": "max", "max": "min", "all": "any", "any": "all"}


@dataclass(frozen=True)
class Mutant:
    """One wrong: in which file, at which node, and how it reads."""

    module: str
    node: int
    line: int
    words: str


def mutants_of(module: str) -> list[Mutant]:
    """Every wrong there is to one module."""
    found = []
    for number, node in enumerate(_nodes(_parse(module))):
        words = _spoil(copy.deepcopy(node))
        if words:
            found.append(Mutant(module, number, getattr(node, "lineno", 0), words))
    return found


def _parse(module: str) -> ast.Module:
    return ast.parse((ROOT / "embedding_pipeline" / f"{module}.py").read_text())


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of functions' bodies: what stands around them is declaration."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue  # an assertion about lengths, not a decision
            inner = isinstance(child, ast.FunctionDef | ast.Raise | ast.JoinedStr | ast.Assert)
            if isinstance(child, ast.AST) and name != "annotation" and not inner:
                yield from _walk(child)


def _spoil(node: ast.AST) -> str:
    """Make a node wrong in place; what was done, or "" where there is nothing to spoil."""
    if isinstance(node, ast.Compare):
        return _swap(node.ops, 0)
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        box = [node.op]
        words = _swap(box, 0)
        node.op = box[0]
        return words
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        return "not x → x"
    if isinstance(node, ast.Name) and node.id in NAMES:
        was, node.id = node.id, NAMES[node.id]
        return f"{was} → {node.id}"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        return _other(node)
    return _drop(node)


def _swap(ops: list, index: int) -> str:  # type: ignore[type-arg]
    new = SWAPS.get(type(ops[index]))
    if new is None:
        return ""
    was, ops[index] = type(ops[index]).__name__, new()
    return f"{was} → {new.__name__}"


def _other(node: ast.Constant) -> str:
    was = node.value
    node.value = not was if isinstance(was, bool) else was + 1  # type: ignore[operator]
    return f"{was} → {node.value}"


def _drop(node: ast.AST) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        node.value = ast.Constant(None)
        return "call left out"
    if isinstance(node, ast.Continue):
        node.__class__ = ast.Pass  # type: ignore[assignment]
        return "continue left out"
    return ""


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with its wrong in it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._name = "embedding_pipeline." + mutant.module.replace("/", ".")

    def find_spec(
        self, name: str, _path: object, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        origin = ROOT / "embedding_pipeline" / f"{self._mutant.module}.py"
        return importlib.util.spec_from_file_location(name, origin, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        tree = _parse(self._mutant.module)
        _spoil(next(n for i, n in enumerate(_nodes(tree)) if i == self._mutant.node))
        ast.fix_missing_locations(tree)
        exec(compile(tree, str(module.__file__), "exec"), vars(module))


def patience(usual: float) -> float:
    """Seconds after which tests that usually take ``usual`` hang."""
    return min(max(SLOWER * usual, LEAST), LONGEST)


def noticed(mutant: Mutant | None, tests: Sequence[str], seconds: float = LONGEST) -> bool:
    """Whether a test fails with the mutant in place (None: as the code is), or hangs."""
    return exit_code(mutant, tests, seconds) != 0


def exit_code(mutant: Mutant | None, tests: Sequence[str], seconds: float = LONGEST) -> int:
    """What pytest says with the mutant in place; 1: a test failed, or all took too long."""
    pid = os.fork()
    if pid == 0:
        os._exit(_run(mutant, tests))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 1


def _run(mutant: Mutant | None, tests: Sequence[str]) -> int:
    """In the fork: pytest, silent, without the databases and without shrinking."""
    import hypothesis
    import pytest

    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Planted(mutant))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutate", deadline=None, derandomize=True, phases=phases)

    class Quick:
        """After the suite's own choice of a profile."""

        def pytest_sessionstart(self) -> None:
            hypothesis.settings.load_profile("mutate")

    paths = [str(ROOT / TESTS / test) for test in tests]
    options = [
        "-x",
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-k",
        "not postgres and not redis",
    ]
    try:
        return int(pytest.main([*options, *paths], plugins=[Quick()]))
    except BaseException:  # noqa: BLE001 - whatever it is, it was noticed
        return 1


def known() -> list[tuple[Mutant, str]]:
    """The mutants of ``KNOWN``, and the tests of each; LookupError when its line is gone."""
    return [(_find(module, code, words), test) for module, code, words, test in KNOWN]


def _find(module: str, code: str, words: str) -> Mutant:
    lines = (ROOT / "embedding_pipeline" / f"{module}.py").read_text().splitlines()
    for mutant in mutants_of(module):
        if mutant.words == words and code in lines[mutant.line - 1]:
            return mutant
    raise LookupError(f"{module}.py has no line with {code!r} to make wrong; choose another")


def _notice_known() -> int:
    missed = [mutant for mutant, test in known() if exit_code(mutant, [test]) != 1]
    for mutant in missed:
        print(f"  survived: {mutant.module}.py:{mutant.line}: {mutant.words}")
    print(f"known: {len(KNOWN) - len(missed)} of {len(KNOWN)} noticed")
    return int(bool(missed))


def main() -> int:
    """Parse, run, and say who survived."""
    parser = argparse.ArgumentParser(prog="benchmarks.mutate", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help=", ".join(ROOMS))
    parser.add_argument("--mutants", type=int, default=0, help="a sample of so many a room")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--known", action="store_true", help="only those that must be noticed")
    arguments = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    if arguments.known:
        return _notice_known()
    totals = [0, 0]
    for room in arguments.rooms:
        modules, tests = ROOMS[room]
        began = time.monotonic()
        if noticed(None, tests):
            raise SystemExit(f"{room}: its tests fail as it is; mend that first")
        seconds = patience(time.monotonic() - began)
        everything = [mutant for module in modules for mutant in mutants_of(module)]
        some = everything
        if 0 < arguments.mutants < len(everything):
            some = random.Random(arguments.seed).sample(everything, arguments.mutants)
        survivors = [mutant for mutant in some if not noticed(mutant, tests, seconds)]
        for mutant in survivors:
            print(f"  survived: {mutant.module}.py:{mutant.line}: {mutant.words}")
        killed = len(some) - len(survivors)
        totals = [totals[0] + killed, totals[1] + len(some)]
        print(f"{room}: {killed} of {len(some)} noticed ({len(everything)} in all)", flush=True)
    print(f"all: {totals[0]} of {totals[1]} noticed ({totals[0] / max(totals[1], 1):.0%})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
