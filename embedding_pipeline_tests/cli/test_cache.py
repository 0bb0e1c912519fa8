"""``cache stats``, ``verify``, ``evict`` and ``purge``, on a real cache, as a person uses them."""

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedding_pipeline_tests.cli.conftest import BUS, FILES, Expect, Folder
from embedding_pipeline_tests.cli.inside import InsideFolder

SPACE = "local/use-multilingual-v3#0db566fd@512"
ENTRY_BYTES = 8 + 4 * 512


@pytest.fixture
def used(done: Folder) -> Folder:
    """Three days were embedded here: four texts were bought."""
    return done


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """Nothing was ever run here."""
    return InsideFolder(tmp_path)


def alter(folder: Folder, statement: str) -> None:
    """Change the state behind the program's back."""
    with sqlite3.connect(folder.path / ".embedding_pipeline" / "state.db") as connection:
        connection.execute(statement)
    connection.close()


def test_stats_by_space_and_by_tier(used: Folder) -> None:
    found = used.json("cache", "stats")
    assert found["entries"] == 4
    assert found["bytes"] == 4 * ENTRY_BYTES
    (space,) = found["spaces"]
    assert space["space"] == SPACE
    assert space["active"]
    (tier,) = found["tiers"]
    assert (tier["tier"], tier["project"]) == ("database", "tests")
    assert tier["misses"] >= 4
    assert used.json("cache", "stats", "--since", "2126-01-01")["tiers"] == []
    words = used.run("cache", "stats").stdout
    assert "4 vectors, 0.0 MB" in words


def test_nothing_is_made_where_nothing_is(empty: Folder, refused: Expect) -> None:
    assert empty.run("cache", "stats").stdout == "The cache is empty.\n"
    assert empty.json("cache", "stats")["entries"] == 0
    assert empty.json("cache", "verify") == []
    assert empty.json("cache", "evict", "--to-gb", "1")["entries"] == 0
    assert "holds: none" in refused(empty.run("cache", "purge", "--space", SPACE), 2)
    assert not (empty.path / ".embedding_pipeline").exists()


def test_verify_finds_damage_and_repairs_it(used: Folder, refused: Expect) -> None:
    (row,) = used.json("cache", "verify")
    assert (row["entries"], row["damaged"], row["not_unit"]) == (4, 0, 0)
    alter(
        used,
        "UPDATE vectors SET value = CAST(substr(value, 1, 99) || x'00' || substr(value, 101) "
        "AS BLOB) WHERE rowid = 2",
    )
    message = refused(used.run("cache", "verify"), 1)
    assert "1 vectors are bad" in message
    (row,) = used.json("cache", "verify", "--repair")
    assert (row["damaged"], row["removed"]) == (1, 1)
    assert len(row["examples"][0]) == 64
    assert used.json("cache", "verify")[0]["entries"] == 3
    assert used.json("cache", "stats")["entries"] == 3


def test_evict_spares_the_space_in_use_unless_told(used: Folder, refused: Expect) -> None:
    message = refused(used.run("cache", "evict", "--to-gb", "0"), 1)
    assert "--active-too" in message
    assert used.json("cache", "stats")["entries"] == 4
    gone = used.json("cache", "evict", "--to-gb", "0", "--active-too")
    assert (gone["entries"], gone["surplus"]) == (4, 0)
    assert used.json("cache", "stats")["spaces"] == []


def test_evict_what_was_not_used_for_long(used: Folder) -> None:
    early = used.json("cache", "evict", "--before", "2020-01-01", "--active-too")
    assert early["entries"] == 0
    late = used.json("cache", "evict", "--before", "2126-01-01", "--active-too")
    assert late["entries"] == 4


def test_evict_wants_to_know_how_far(used: Folder, refused: Expect) -> None:
    assert "--to-gb" in refused(used.run("cache", "evict"), 2)
    assert "it holds: local/" in refused(
        used.run("cache", "evict", "--to-gb", "0", "--space", "openai/x@3"), 2
    )


def test_purge_asks_and_spares_the_space_in_use(used: Folder, refused: Expect) -> None:
    assert "is in use" in refused(used.run("cache", "purge", "--space", SPACE, "--yes"), 2)
    refused(used.run("cache", "purge", "--space", SPACE, "--active-too"), 2)  # nobody answers
    assert used.json("cache", "stats")["entries"] == 4
    gone = used.json("cache", "purge", "--space", SPACE, "--active-too", "--yes")
    assert gone["entries"] == 4
    assert used.json("costs", "--by", "space")[0]["requests"] >= 1, "the ledger stays"


def test_warm_says_the_price_and_a_run_then_buys_nothing(tmp_path: Path, refused: Expect) -> None:
    folder = InsideFolder(tmp_path).settings(**FILES)
    folder.rows("2026-01-01", BUS, "A second text.", BUS)
    days = ("--start", "2026-01-01", "--end", "2026-01-01")
    plan = folder.json("cache", "warm", *days, "--dry-run")
    assert plan["plan"]["to_embed"] == 2
    assert not (tmp_path / ".embedding_pipeline").exists()
    done = folder.json("cache", "warm", *days)["done"]
    assert (done["texts"], done["embedded"], done["cached"]) == (2, 2, 0)
    assert done["input_tokens"] == plan["plan"]["input_tokens"]
    assert not (tmp_path / ".embedding_pipeline" / "raw_chunks").exists(), "no dataset is written"
    (tmp_path / "more.txt").write_text(f"{BUS}\n\nA third text.\n{BUS}\n")
    again = folder.json("cache", "warm", "--texts", "more.txt", "--project", "tests")
    assert (again["plan"]["texts"], again["plan"]["to_embed"]) == (3, 1)
    assert (again["done"]["embedded"], again["done"]["cached"]) == (1, 2)
    assert "--texts FILE" in refused(folder.run("cache", "warm"), 2)
    assert "matches no file" in refused(folder.run("cache", "warm", "--texts", "no.txt"), 3)


def test_import_takes_what_is_right_and_names_the_rest(used: Folder, refused: Expect) -> None:
    with (used.path / "table.jsonl").open("w") as file:
        for text, vector in (("one", [1.0] + [0.0] * 511), ("two", [1.0]), ("three", [2.0] * 512)):
            file.write(json.dumps({"text": text, "vector": vector}) + "\n")
    message = used.run("cache", "import", "table", "table.jsonl")
    assert message.returncode == 1
    assert "Nothing was stored" in message.stdout, "the model says otherwise of 'one'"
    found = used.json("cache", "import", "table", "table.jsonl", "--sample", "0")
    assert (found["stored"], found["present"], found["left_out"]) == (0, 1, 2)
    assert found["refused"]["examples"] == {"wrong_dimensions": [1], "not_unit": [2]}
    with (used.path / "table.jsonl").open("a") as file:
        file.write(json.dumps({"text": "four", "vector": [0.0, 1.0] + [0.0] * 510}) + "\n")
    words = used.run("cache", "import", "table", "table.jsonl", "--sample", "0").stdout
    assert "1 stored, 1 were there" in words
    assert "(positions 2)" in words
    refused(used.run("cache", "import", "langchain", "."), 2)
    refused(used.run("cache", "import", "table", "table.jsonl", "--texts", "x.txt"), 2)
    refused(used.run("cache", "import", "table", "none.parquet"), 3)


def test_a_day_of_imported_vectors_makes_no_call_and_its_books_balance(
    done: Folder, tmp_path: Path
) -> None:
    root = done.path / ".embedding_pipeline"
    day = "2026-01-01.parquet"
    texts = pq.read_table(root / "deduped_chunks" / day, columns=["text"])
    (file,) = root.glob(f"embeddings/*/{day}")
    vectors = pq.read_table(file, columns=["vector"])
    pq.write_table(texts.append_column("vector", vectors["vector"]), tmp_path / "theirs.parquet")
    folder = InsideFolder(tmp_path).settings(**FILES)
    folder.rows("2026-01-01", *texts["text"].to_pylist())
    report = folder.json("cache", "import", "table", "theirs.parquet", "--sample", "1")
    assert (report["found"], report["stored"], report["present"]) == (3, 2, 1)
    assert report["worst_cosine"] > 0.99999
    days = ("--start", "2026-01-01", "--end", "2026-01-01")
    run = folder.json("backfill", *days, "--wait")
    assert run["success"], run["failed"]
    assert (run["embedded"], run["requests"]) == (0, 0)
    by_source = {row["source"]: row["chunks"] for row in folder.json("costs", "--by", "source")}
    assert by_source["cache"] == 3
    assert by_source["import"] == 0, "an entry, and no cost"
