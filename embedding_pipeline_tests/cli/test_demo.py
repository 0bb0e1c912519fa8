"""``demo``: the whole graph on the real documentation, against a provider that answers at once."""

import pytest

from embedding_pipeline_tests.cli.conftest import Folder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY


@pytest.mark.slow
def test_the_demo_embeds_ten_thousand_chunks_once(
    folder: Folder,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    environment = {
        "EMBEDDING_PIPELINE_EMBEDDING__MODEL": "openai/text-embedding-3-small",
        "OPENAI_BASE_URL": fake_openai_process.base_url,
        "OPENAI_API_KEY": KEY,
    }
    fake_openai_process.limit(rpm=1e5, tpm=1e8)  # told by its headers, and learned from them
    first = folder.run("demo", **environment)
    assert first.returncode == 0, first.stderr
    total = next(line for line in first.stdout.splitlines() if line.startswith("total"))
    assert int(total.split()[1].replace(",", "")) >= 10_000
    assert "See the graph:" in first.stdout

    paid = fake_openai_process.books.tokens
    second = folder.run("demo", **environment)
    assert second.returncode == 0, second.stderr
    assert "No embedding call was made" in second.stdout
    searched = fake_openai_process.books.tokens - paid
    assert searched == 0, "the question was asked before, too"
