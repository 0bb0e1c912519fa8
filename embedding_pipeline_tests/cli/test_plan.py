"""``plan`` as a person asks for it: a table, words, JSON and exit codes."""

from embedding_pipeline_tests.cli.conftest import BUS, FILES, Expect, Folder

OPENAI = {"embedding": {"model": "openai/text-embedding-3-small"}}


def test_a_price_without_a_key_a_server_or_a_trace(folder: Folder) -> None:
    folder.settings(**FILES, **OPENAI)
    folder.rows("2026-01-01", BUS, BUS, "How to parse a date.")
    folder.rows("2026-01-02", BUS)
    range_ = ("--start", "2026-01-01", "--end", "2026-01-02")
    result = folder.run("plan", *range_)
    assert result.returncode == 0, result.stderr
    header, first, second, total, _, *words = result.stdout.splitlines()
    assert header.split()[:3] == ["partition", "project", "chunks"]
    assert first.split()[:8] == ["2026-01-01", "tests", "3", "1", "0", "0", "0", "2"]
    assert second.split()[:8] == ["2026-01-02", "tests", "1", "0", "0", "0", "1", "0"]
    assert total.split()[0] == "total"
    assert words[0].startswith("openai/text-embedding-3-small@1536: 2 texts to embed")
    plan = folder.json("plan", *range_, "--by", "project")
    assert plan["cost_nano_usd"] == 20 * plan["input_tokens"] > 0
    assert plan["batch_cost_nano_usd"] == 10 * plan["input_tokens"]
    assert [row["project"] for row in plan["rows"]] == ["tests"]
    assert plan["allowed"] is True
    assert not (folder.path / ".embedding_pipeline").exists()


def test_the_local_model_costs_nothing_and_what_is_done_is_cached(done: Folder) -> None:
    result = done.run("plan", "--end", "2026-01-03")
    assert "Cost: none; the model runs on this machine." in result.stdout
    plan = done.json("plan", "--end", "2026-01-03")
    assert (plan["to_embed"], plan["requests"], plan["cost_nano_usd"]) == (0, 0, 0)
    other = done.json("plan", "--end", "2026-01-03", "--model", "text-embedding-3-large")
    assert other["to_embed"] == 4
    assert other["refused"] == 1


def test_days_and_models_that_do_not_exist(done: Folder, refused: Expect) -> None:
    assert "before the first partition" in refused(done.run("plan", "--start", "2025-01-01"), 2)
    assert "unknown model" in refused(done.run("plan", "--model", "text-embedding-9"), 2)
