"""A small file system of one's own, without root: ``small_disk.run(folder, command)``.

Belongs here: the namespace with the mount in it, and becoming a program inside. Only the
standard library: a process with threads cannot enter a namespace of users.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NAMESPACES: Final = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS
SIZE: Final = "32m"


def run(folder: Path, command: Sequence[str]) -> int:
    """Run a command for which ``folder`` is a disk of ``SIZE``; returns its exit code."""
    inside = [sys.executable, "-m", "benchmarks.cluster.small_disk", str(folder), *command]
    return subprocess.run(inside, check=False).returncode


def enter(folder: Path) -> None:
    """Have a disk at ``folder`` that only this process and its children see. Raises OSError."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(NAMESPACES), "no namespaces of users here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")
    mounted = libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={SIZE}".encode())
    _check(mounted, "no mounts here")


def _check(code: int, what: str) -> None:
    if code:
        raise OSError(ctypes.get_errno(), what)


def main(folder: str, *command: str) -> None:
    enter(Path(folder))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
