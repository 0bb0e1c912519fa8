"""What every test stands on: no way out of this machine, a clean environment, a fake clock."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from embedding_pipeline_tests import network_guard
from embedding_pipeline_tests.clock import FakeClock

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA_VARIABLE = "EMBEDDING_PIPELINE_SHARED_DATA"
SHARED_DATA = Path(os.environ.get(SHARED_DATA_VARIABLE) or ROOT.parent / "shared" / "data")
CLOSED_PROXY = "http://127.0.0.1:9"
FOREIGN_PREFIXES = ("OPENAI_", "AZURE_OPENAI_", "EMBEDDING_PIPELINE_", "DAGSTER_", "HF_", "OTEL_")

ANY_SPEED = [HealthCheck.too_slow]
"""A busy machine is no fault of a test."""

settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=ANY_SPEED)
settings.register_profile("explore", deadline=None, suppress_health_check=ANY_SPEED)
settings.load_profile("same")  # --hypothesis-profile=explore draws anew each time


def _foreign(name: str) -> bool:
    return name.startswith(FOREIGN_PREFIXES) or name.upper().endswith("_PROXY")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key, no settings and no home of the person who runs the suite; children are guarded."""
    home = tmp_path_factory.mktemp("home")
    site = tmp_path_factory.mktemp("site")
    shutil.copy(network_guard.__file__, site / "sitecustomize.py")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if _foreign(name)]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(ROOT))))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            patch.setenv(name, CLOSED_PROXY)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "localhost,127.0.0.1,::1")
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The core is asyncio."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until somebody sleeps."""
    return FakeClock()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the larger real-world samples; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no sample data: set {SHARED_DATA_VARIABLE} to the folder that holds it")
    return SHARED_DATA
