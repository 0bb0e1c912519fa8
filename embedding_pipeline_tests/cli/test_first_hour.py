"""What a newcomer meets in the first hour: each ends in a line that says what to do.

Settings that are wrong in themselves are in ``test_wrong_settings`` and ``test_settings_mistakes``.
"""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline.cli import main
from embedding_pipeline_tests.cli.conftest import FILES, PROGRAM, Expect, Folder
from embedding_pipeline_tests.cli.inside import InsideFolder
from embedding_pipeline_tests.cli.interrupted import STEPS
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess

DAYS = ("2026-01-01", "2026-01-02")
BACKFILL = ("backfill", "--start", DAYS[0], "--end", DAYS[1], "--wait")
OPENAI = {"model": "openai/text-embedding-3-small"}
AT_ONCE = {"max_attempts": 1}
NOWHERE = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-secret"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Two days of rows for OpenAI; the commands run in this process."""
    folder = InsideFolder(tmp_path).settings(**FILES, embedding=OPENAI, retry=AT_ONCE)
    for day in DAYS:
        folder.rows(day, f"A text of {day}.")
    return folder


# --- key and address ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [BACKFILL, ("doctor",)])
@pytest.mark.parametrize("key", ["sk-…", "export sk-1", "sk-1\nsk-2"])
def test_a_key_that_cannot_be_one(folder: Folder, command: tuple[str, ...], key: str) -> None:
    done = folder.run(*command, OPENAI_API_KEY=key, OPENAI_BASE_URL=NOWHERE["OPENAI_BASE_URL"])
    told = done.stdout + done.stderr
    assert done.returncode == (1 if command == ("doctor",) else 2), told
    assert "environment variable OPENAI_API_KEY: holds characters that no key has; copy" in told
    assert "bug" not in told
    assert "sk-" not in told


def test_a_key_that_is_refused(
    folder: Folder,
    refused: Expect,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    address = {"OPENAI_BASE_URL": fake_openai_process.base_url}
    told = refused(folder.run(*BACKFILL, **address, OPENAI_API_KEY="sk-wrong"), 1)
    (failed,) = [line for line in told.splitlines() if line.startswith("failed: ")]
    assert "status 401" in failed
    assert "check the key, its permissions, the model and the address" in failed
    assert "sk-wrong" not in told


def test_an_address_without_its_path(
    folder: Folder,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    address = {"OPENAI_BASE_URL": fake_openai_process.base_url.removesuffix("/v1")}
    done = folder.run("doctor", "--json", **address, OPENAI_API_KEY="sk-1")
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "answers with 404" in found["provider"]["message"]
    assert "/v1" in found["provider"]["remedy"]


def test_no_network_fails_or_is_left_for_later_as_the_settings_say(
    folder: Folder, refused: Expect
) -> None:
    told = refused(folder.run(*BACKFILL, **NOWHERE, EMBEDDING_PIPELINE_ON_OUTAGE="fail"), 1)
    assert "openai at 127.0.0.1:9 could not be reached (ConnectionRefusedError)" in told
    later = folder.run(*BACKFILL, **NOWHERE)
    assert later.returncode == 0, later.stderr
    assert (
        "2 chunks are deferred: see embedding-pipeline failed deferred, and doctor" in later.stdout
    )
    assert "2026-01-02" in folder.run("failed", "deferred").stdout


# --- files and folders -------------------------------------------------------------------------


def test_another_folder_than_the_one_that_was_meant(folder: Folder, refused: Expect) -> None:
    elsewhere = InsideFolder(folder.path / "data")
    told = refused(elsewhere.run(*BACKFILL), 2)
    assert told.splitlines()[1:] == [
        f"There is no pipeline.yaml in {elsewhere.path}: is this the folder you mean?"
    ]
    assert f"no vectors yet in {elsewhere.path}" in elsewhere.run("search", "x").stdout


def test_a_settings_file_of_another_name(folder: Folder, refused: Expect) -> None:
    (folder.path / "pipeline.yaml").rename(folder.path / "pipeline.yml")
    told = refused(folder.run("costs"), 2)
    assert told == "Error: pipeline.yml is not read; rename it to pipeline.yaml\n"


def test_a_folder_in_place_of_the_settings_file(tmp_path: Path, refused: Expect) -> None:
    """What Docker makes of a file that is to be mounted and is not there."""
    (tmp_path / "pipeline.yaml").mkdir()
    assert "pipeline.yaml is a folder" in refused(InsideFolder(tmp_path).run("costs"), 2)


def test_a_settings_file_that_powershell_wrote(folder: Folder, refused: Expect) -> None:
    file = folder.path / "pipeline.yaml"
    file.write_text(file.read_text(), encoding="utf-16")
    told = refused(folder.run("costs"), 2)
    assert told == "Error: pipeline.yaml: cannot be read: save it as UTF-8 text\n"


def test_files_that_windows_wrote_are_read(tmp_path: Path) -> None:
    """A mark at the beginning, two characters at the end of a line: no row is lost or changed."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    write(
        "pipeline.yaml",
        "source:\n  kind: files\n  path: 'data/{date}.*'\npartitions:\n  start_date: 2026-01-01\n",
    )
    write("data/2026-01-01.jsonl", '{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n')
    write("data/2026-01-02.csv", "id,text\n3,three\n4,one\n")
    rows = InsideFolder(tmp_path).json("plan", "--start", DAYS[0], "--end", DAYS[1])["rows"]
    assert [(row["chunks"], row["to_embed"]) for row in rows] == [(2, 2), (2, 1)]


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="no folder here that even root cannot write")
def test_a_folder_that_nobody_may_write(refused: Expect) -> None:
    nowhere = InsideFolder(Path("/sys"))
    told = refused(nowhere.run("demo"), 2)
    assert "data_dir: /sys/.embedding_pipeline cannot be written" in told
    assert "set data_dir to a folder of yours" in told
    done = nowhere.run("doctor", "--json")
    (disk,) = [one for one in json.loads(done.stdout) if one["subject"] == "disk"]
    assert (done.returncode, disk["status"]) == (1, "fail")


def test_a_home_of_dagster_that_is_relative(folder: Folder, refused: Expect) -> None:
    done = folder.run(*BACKFILL, DAGSTER_HOME="home", OPENAI_API_KEY="sk-1")
    assert refused(done, 2) == "Error: DAGSTER_HOME is home; it must be an absolute path\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_nowhere_to_write_what_is_told(folder: Folder) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "costs"], cwd=folder.path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: No space left on device: free space")


# --- Ctrl-C and a full disk --------------------------------------------------------------------


def test_ctrl_c_at_every_step_and_a_full_disk_cost_nothing_but_the_rest(tmp_path: Path) -> None:
    folder = Folder(tmp_path).settings(**FILES)
    for day in DAYS:
        folder.rows(day, f"A text of {day}.")
    scene = [sys.executable, "-m", "embedding_pipeline_tests.cli.interrupted", *DAYS]
    done = subprocess.run(scene, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = {
        step: (code, out, err) for step, code, out, err in map(json.loads, done.stdout.splitlines())
    }
    assert list(told) == ["full disk", *STEPS, "nothing"]
    assert not [step for step, (_, out, err) in told.items() if "Traceback" in out + err]
    code, _, full = told["full disk"]
    assert code == 5
    assert "check the disk's free space" in full
    for step in STEPS:
        code, _, err = told[step]
        assert code == 130, (step, err)
        assert err.splitlines()[-1].startswith("Interrupted. What is finished is kept"), step
    code, out, err = told["nothing"]
    assert code == 0, err
    assert "2 of 2 days are done. 0 texts embedded in 0 requests" in out


class _Pressed:
    """Ctrl-C while the program is still being loaded."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "embedding_pipeline.cli.root":
            raise KeyboardInterrupt
        return None


def test_ctrl_c_before_there_is_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "embedding_pipeline.cli.root", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Pressed(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
