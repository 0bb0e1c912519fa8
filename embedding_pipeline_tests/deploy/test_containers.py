"""Dockerfile, compose file and Helm values, checked as far as that goes without an engine."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster_k8s import K8sRunLauncher

from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings

SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "OPENAI_API_KEY")
USER = 10001
CHART = {
    "global",
    "generatePostgresqlPasswordSecret",
    "postgresql",
    "rabbitmq",
    "redis",
    "flower",
    "ingress",
    "telemetry",
    "migrate",
    "runLauncher",
    "dagster-user-deployments",
    "dagsterWebserver",
    "dagsterDaemon",
    "retention",
}
"""Top-level values of Dagster's chart that we use."""


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    text = (repository / "deploy" / "Dockerfile").read_text()
    return re.sub(r"\s*\\\n\s*", " ", text)


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((repository / "deploy" / "compose.yaml").read_text()))


@pytest.fixture(scope="module")
def values(repository: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((repository / "deploy" / "helm-values.yaml").read_text()))


def _steps(dockerfile: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name} (.+)$", dockerfile)


def _copied(dockerfile: str) -> Iterator[str]:
    for step in _steps(dockerfile, "COPY"):
        if "--from=" not in step:
            yield from [word for word in step.split() if not word.startswith("--")][:-1]


def test_what_the_image_copies_is_there_and_goes_to_the_builder(
    repository: Path, dockerfile: str
) -> None:
    ignored = (repository / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {name.removeprefix("./") for name in _copied(dockerfile)}
    assert all((repository / name).exists() for name in copied)
    assert copied == sent


def test_the_image_is_slim_has_certificates_and_is_not_root(dockerfile: str) -> None:
    assert all("-slim" in step for step in _steps(dockerfile, "FROM"))
    last = dockerfile.rpartition("\nFROM ")[2]
    assert "ca-certificates" in last
    assert "pip install" not in last
    assert _steps(last, "USER") == [f"{USER}:{USER}"]
    assert f"useradd --uid {USER} --gid {USER}" in last
    assert last.index("useradd") < last.index("chown") < last.index("\nUSER ")
    assert not [name for name in SECRETS if name in dockerfile]
    assert "--require-hashes" in dockerfile


def _environment(dockerfile: str) -> dict[str, str]:
    (words,) = _steps(dockerfile, "ENV")
    return dict(word.split("=", 1) for word in words.split())


def test_every_program_that_is_named_is_one_that_the_packages_install(
    dockerfile: str, compose: Mapping[str, Any]
) -> None:
    scripts = {it.name for it in entry_points(group="console_scripts")} | {"embedding-pipeline"}
    (command,) = _steps(dockerfile, "CMD")
    named = {yaml.safe_load(command)[0]}
    for service in _ours(compose).values():
        words = " ".join(service["command"]).replace("sh -c ", "")
        named |= {part.split()[0] for part in re.split(r"&&|\|\|", words) if "[" not in part}
    assert named == {
        "embedding-pipeline",
        "dagster",
        "dagster-webserver",
        "dagster-daemon",
        "celery",
    }
    assert named <= scripts


def _ours(compose: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: it for name, it in compose["services"].items() if it.get("image") is not None}
    return {name: it for name, it in found.items() if it["image"] == "embedding-pipeline"}


def test_the_options_of_the_commands_exist(compose: Mapping[str, Any]) -> None:
    ours = _ours(compose)
    modules = {"webserver": "dagster_webserver", "daemon": "dagster._daemon", "worker": "celery"}
    for name, module in modules.items():
        words = ours[name]["command"][1:]
        verb = [word for word in words if word in {"run", "worker"}]
        said = subprocess.run(
            [sys.executable, "-m", module, *verb, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        options = [w for w in words if w.startswith("-") and w != "-A"]
        assert all(re.search(rf"(?<!\S){option}\b", said) for option in options), (name, options)


def test_only_the_web_server_is_published_and_on_loopback(compose: Mapping[str, Any]) -> None:
    ports = {name: it["ports"] for name, it in compose["services"].items() if "ports" in it}
    assert ports == {"webserver": ["127.0.0.1:3000:3000"]}
    for service in _ours(compose).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
    assert set(compose["volumes"]) == {"data", "postgres", "redis"}


def test_secrets_come_from_outside_and_must_be_there(repository: Path) -> None:
    text = (repository / "deploy" / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert re.findall(rf"\$\{{{name}[^}}]*\}}", text).count(f"${{{name}:?}}") >= 2
    assert "deploy/.env" in (repository / ".gitignore").read_text()


def test_settings_in_the_environment_are_settings(
    dockerfile: str,
    compose: Mapping[str, Any],
    values: Mapping[str, Any],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    environments = [
        _environment(dockerfile) | {"EMBEDDING_PIPELINE_CONFIG": str(repository / "pipeline.yaml")},
        next(iter(_ours(compose).values()))["environment"],
        {pair["name"]: pair["value"] for pair in deployment["env"]}
        | {"EMBEDDING_PIPELINE_STATE_URL": "postgresql://db/pipeline"},
    ]
    for environment in environments:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                if name.startswith("EMBEDDING_PIPELINE_"):
                    patch.setenv(name, str(value).replace(":?}", "}"))
            assert isinstance(load_settings(), Settings)


def test_the_instance_file_is_valid_with_the_variables_it_asks_for(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((repository / "deploy" / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://nobody@nowhere/dagster")
    monkeypatch.setenv("DAGSTER_BROKER_URL", "redis://nowhere:6379/1")
    ref = InstanceRef.from_dir(str(tmp_path))
    launcher, storage = ref.run_launcher_data, ref.storage_data
    assert launcher is not None
    assert launcher.class_name == "WatchedCeleryRunLauncher"
    assert storage is not None
    assert storage.class_name == "PatientPostgresStorage"
    assert ref.run_coordinator is not None


def test_helm_values_are_the_charts_and_the_launchers(values: Mapping[str, Any]) -> None:
    assert set(values) <= CHART
    launcher = values["runLauncher"]
    assert launcher["type"] == "K8sRunLauncher"
    config = launcher["config"]["k8sRunLauncher"]
    fields = {_snake(name) for name in config} - {"env_secrets", "image_pull_policy"}
    assert fields <= set(K8sRunLauncher.config_type())  # type: ignore[no-untyped-call]
    pod = config["runK8sConfig"]
    assert set(pod) <= {"containerConfig", "podSpecConfig", "jobSpecConfig"}
    resources = pod["containerConfig"]["resources"]
    assert resources["requests"]["memory"] == "512Mi"
    assert resources["limits"]["memory"] == "1Gi"
    assert not values["ingress"]["enabled"]
    assert values["dagsterDaemon"]["runMonitoring"]["enabled"]
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["-m", "embedding_pipeline.definitions"]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
