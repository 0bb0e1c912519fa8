"""Ports for servers that cannot choose one themselves.

Belongs here: ports nobody listens on, from below those that systems hand out by themselves. So
nobody who asks for any port, or connects to somebody, takes one between the look and its use.
"""

import random
import socket
from contextlib import ExitStack

_LOWEST, _HIGHEST = 10_000, 30_000
_dice = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """So many ports of loopback, different from each other."""
    found: list[int] = []
    with ExitStack() as closing:
        while len(found) < count:
            port = _dice.randint(_LOWEST, _HIGHEST)
            held = closing.enter_context(socket.socket())
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
