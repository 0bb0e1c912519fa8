"""Money and time spans as people read them.

Belongs here: formats that the command line, Dagster and reports share. Pure.
"""


def usd(nano: int) -> str:
    """An amount of nano-USD: cents, and as many digits more as small amounts need."""
    return f"${nano / 1e9:,.2f}" if nano == 0 or abs(nano) >= 10**9 else f"${nano / 1e9:.6f}"


def usd_or_unknown(nano: int | None) -> str:
    """An amount where there may be no price."""
    return "unknown" if nano is None else usd(nano)


def duration(seconds: float) -> str:
    """A time span as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """A number of bytes as a person says it."""
    for unit, bits in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if number >= 1 << bits:
            return f"{number / (1 << bits):,.1f} {unit}"
    return f"{number:,} bytes"
