"""Backup and restore of the databases: ``python -m deploy.backup dump FOLDER``.

Belongs here: both databases of a deployment into files and back, by PostgreSQL's own programs.
Does not belong here: the datasets (copy ``data_dir`` as it is), or Redis (it may be lost: vectors
are in the database, limits are learned again).

The addresses come from ``EMBEDDING_PIPELINE_STATE_URL`` and ``DAGSTER_POSTGRES_URL``. A dump is one
consistent snapshot, taken while everything runs. What is in flight at that moment is asked for
again after a restore, and booked as unknown.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from deploy.servers import MissingServer, postgres_program

VARIABLES: Final = {
    "embedding_pipeline": "EMBEDDING_PIPELINE_STATE_URL",
    "dagster": "DAGSTER_POSTGRES_URL",
}


def dump(folder: Path, environment: Mapping[str, str]) -> list[Path]:
    """Write one file for each database whose address is known. Raises SystemExit."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = []
    for name, url in addresses(environment).items():
        file = folder / f"{name}.dump"
        half = file.with_suffix(".part")
        _run("pg_dump", url, ["--format=custom", "--no-owner", f"--file={half}"])
        half.replace(file)
        written.append(file)
    return written


def restore(folder: Path, environment: Mapping[str, str]) -> list[Path]:
    """Fill empty databases from the files. Raises SystemExit, with nothing restored by halves."""
    read = []
    for name, url in addresses(environment).items():
        file = folder / f"{name}.dump"
        if not file.exists():
            raise SystemExit(f"there is no {file}; name the folder that dump wrote")
        options = ["--no-owner", "--exit-on-error", "--single-transaction"]
        _run("pg_restore", url, [*options, str(file)])
        read.append(file)
    return read


def addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """The databases' addresses. Raises SystemExit when there is none."""
    found = {
        name: environment[variable]
        for name, variable in VARIABLES.items()
        if environment.get(variable, "").startswith("postgresql")
    }
    if not found:
        raise SystemExit(f"set {' and '.join(VARIABLES.values())} to PostgreSQL addresses")
    return found


def _run(program: str, url: str, arguments: Sequence[str]) -> None:
    """A password goes by the environment: everybody can read command lines."""
    address = make_url(url)
    secret = {"PGPASSWORD": str(address.password)} if address.password else {}
    plain = address.set(drivername="postgresql", password=None).render_as_string()
    done = subprocess.run(
        [_found(program), f"--dbname={plain}", *arguments],
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} failed: {done.stderr.strip()}")


def _found(program: str) -> str:
    """The program of the packaged server, which fits it; else what is installed."""
    try:
        return str(postgres_program(program))
    except MissingServer:
        found = shutil.which(program)
        if found is None:
            raise SystemExit(f"there is no {program}; install PostgreSQL's client") from None
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Backup and restore of the databases.")
    parser.add_argument("command", choices=("dump", "restore"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    act = dump if given.command == "dump" else restore
    for file in act(given.folder, os.environ):
        print(f"{file}  {file.stat().st_size / 2**20:,.1f} MiB")


if __name__ == "__main__":
    main()
