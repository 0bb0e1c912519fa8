"""Why PostgreSQL over TLS does not let us in, where it is the certificate.

Belongs here: asking the server for its certificate once more, after a connection failed.
Does not belong here: the connection itself (libpq makes and checks it).

libpq tells a server that is away from one that it distrusts by words alone, and words
change. Time cures the one and never the other, so the question is put again, with Python's
own TLS and the same terms, where the answer has a type.
"""

import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 5.0
TLS_PLEASE: Final = struct.pack("!ii", 8, 80877103)
"""SSLRequest (PostgreSQL's documentation, "Message Formats"); the answer is S or N."""

_OWN_ROOT: Final = "~/.postgresql/root.crt"
"""Where libpq looks when ``sslrootcert`` names nothing."""


def distrust(link: Any) -> str | None:
    """What is wrong with the certificate and what to do; None where it is something else.

    Blocks for a few seconds at most.

    Args:
        link: of psycopg, the connection that failed.
    """
    said = {option.keyword.decode(): (option.val or b"").decode() for option in link.info}
    mode, root = said.get("sslmode", ""), said.get("sslrootcert", "")
    host = link.host.decode()
    checked = mode in {"verify-ca", "verify-full"} or (mode == "require" and root)
    if not checked or host.startswith(("/", "@")):
        return None
    try:
        context = _context(root, names=mode == "verify-full")
    except OSError as exc:
        named = root or _OWN_ROOT
        return (
            f"the CA's file {named} cannot be read ({type(exc).__name__}); name it in state_url "
            "(?sslrootcert=…), or write sslrootcert=system for the CAs of this machine"
        )
    place = link.hostaddr.decode() or host, int(link.port or 5432)
    return _verdict(place, host, context)


def _context(root: str, *, names: bool) -> ssl.SSLContext:
    """Trusts whom libpq would. Raises OSError where the file is not there, or no CA is in it."""
    if root == "system":
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=str(Path(root or _OWN_ROOT).expanduser()))
    context.check_hostname = names
    return context


def _verdict(place: tuple[str, int], host: str, context: ssl.SSLContext) -> str | None:
    try:
        with socket.create_connection(place, SECONDS) as plain:
            plain.sendall(TLS_PLEASE)
            answer = plain.recv(1)
            if answer == b"N":
                return "it has no TLS; switch that on there, or take sslmode out of state_url"
            if answer == b"S":
                context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as exc:
        return (
            f"its certificate is not trusted ({exc.verify_message.rstrip('.')}); name the file of "
            "the CA that signed it in state_url (?sslrootcert=…), and the server by the name in "
            "its certificate"
        )
    except OSError:  # it is away, or hangs up on us for another reason
        return None
    return None
