"""Keeps the suite on this machine: a connection to anything but loopback is an error.

Belongs here: the one hook and how child processes get it. Only the standard library
is imported, because a copy of this file is the ``sitecustomize`` of every Python that
a test starts.

The interpreter raises an audit event before each connection and each name look-up in
the ``socket`` module, whoever asked for it. Code that brings a network stack of its own
(uvloop, gRPC's C core) is out of its sight; the proxy variables that ``conftest`` sets
lead well-behaved clients of that sort to a closed port.
"""

import ipaddress
import os
import sys
from typing import Any

LOCAL_NAMES = frozenset({"", "localhost", "localhost.localdomain", "ip6-localhost"})


class NetworkForbiddenError(RuntimeError):
    """A test tried to leave this machine."""


def is_local(host: object) -> bool:
    """Whether ``host`` (a name or an address as ``socket`` takes it) is this machine."""
    if host is None:
        return True
    name = os.fsdecode(host) if isinstance(host, (str, bytes)) else str(host)
    if name.lower().rstrip(".") in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _target(event: str, args: tuple[Any, ...]) -> object:
    """The host an audit event is about; None when it has none (UNIX sockets)."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        return args[0]
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = args[1]
        return address[0] if isinstance(address, tuple) else None
    return None


def forbid(event: str, args: tuple[Any, ...]) -> None:
    """The audit hook."""
    if not event.startswith("socket."):
        return
    host = _target(event, args)
    if not is_local(host):
        raise NetworkForbiddenError(f"{event}: tests do not leave this machine, asked for {host!r}")


if not getattr(sys, "_embedding_pipeline_network_guard", False):
    sys._embedding_pipeline_network_guard = True  # type: ignore[attr-defined]
    sys.addaudithook(forbid)
