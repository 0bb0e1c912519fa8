"""The lock files: complete, pinned by hash, naming no registry and no machine."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PIN = re.compile(r"(?P<name>[a-z0-9._-]+)(\[[a-z0-9,-]+\])?==(?P<version>[^ ;\\]+)( ;[^\\]+)? \\")
ELSEWHERE = {"tiktoken", "sentence-transformers"}
"""Extras that a deployment does without."""

HASH = re.compile(r" +--hash=sha256:[0-9a-f]{64}( \\)?")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def _lines(repository: Path, name: str) -> list[str]:
    return (repository / name).read_text().splitlines()


def _pins(lines: list[str]) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in lines:
        if match := PIN.fullmatch(line):
            pins.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return pins


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-deploy.lock", "requirements-dev.lock"]
)
def test_a_lock_is_pins_and_hashes_and_nothing_else(repository: Path, name: str) -> None:
    lines = _lines(repository, name)
    pins = [line for line in lines if PIN.fullmatch(line)]
    hashes = [line for line in lines if HASH.fullmatch(line)]
    assert pins
    assert len(pins) + len(hashes) == len(lines)
    assert all(HASH.fullmatch(after) for line, after in pairwise(lines) if PIN.fullmatch(line))


@pytest.mark.parametrize(
    ("lock", "groups"),
    [("requirements.lock", ("build",)), ("requirements-dev.lock", ("dev", "build"))],
)
def test_a_lock_satisfies_what_the_project_asks_for(
    repository: Path, project: dict[str, Any], lock: str, groups: tuple[str, ...]
) -> None:
    pins = _pins(_lines(repository, lock))
    wanted = list(project["project"]["dependencies"])
    for group in groups:
        wanted += project["dependency-groups"][group]
    for requirement in map(Requirement, wanted):
        found = pins.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement} is not locked; run: make lock"
        assert all(Version(version) in requirement.specifier for version in found), requirement


def test_the_locks_agree(repository: Path) -> None:
    run = _pins(_lines(repository, "requirements.lock"))
    develop = _pins(_lines(repository, "requirements-dev.lock"))
    assert {name: develop.get(name) for name in run} == run
    deployed = _pins(_lines(repository, "requirements-deploy.lock"))
    assert {name: deployed.get(name) for name in run} == run
    both = deployed.keys() & develop.keys()
    assert {name: deployed[name] for name in both} == {name: develop[name] for name in both}


def test_the_deployment_is_locked(repository: Path, project: dict[str, Any]) -> None:
    pins = _pins(_lines(repository, "requirements-deploy.lock"))
    extras = project["project"]["optional-dependencies"]
    wanted = [line for name, lines in extras.items() if name not in ELSEWHERE for line in lines]
    for requirement in map(Requirement, wanted):
        found = pins.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement} is not locked; run: make lock"
        assert all(Version(version) in requirement.specifier for version in found), requirement
