"""Python's garbage collector during a step.

Belongs here: what it need not look at. Does not belong here: what the step does.

Dagster's definitions and imported modules are a quarter of a million objects, and they live as
long as the process. A run over many partitions makes enough new ones for the collector to walk
all of them again and again: a tenth of such a run's CPU.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sparing_the_old() -> Iterator[None]:
    """What is there at the start is not looked at again until the end."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
