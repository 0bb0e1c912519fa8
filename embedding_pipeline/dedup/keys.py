"""Small keys by which copies are recognised, so that no text is held to compare it.

Belongs here: normalising and digests. Does not belong here: near-duplicates (``minhash``),
or deciding who represents whom (``grouping``).
"""

import unicodedata
from functools import lru_cache
from hashlib import blake2b
from typing import Final

DIGEST_BYTES: Final = 16
"""n chunks collide with probability n² / 2¹²⁹: 1.5·10⁻²⁷ for a million."""


def normalized(text: str) -> str:
    """``text`` without what does not make it another text: case, white space, Unicode form.

    NFC, then casefold, then NFC again (folding can leave decomposed characters), then
    every run of white space is one space and none is at the ends. Idempotent.
    """
    if text.isascii():  # the same, sooner
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def digest(project: str, text: str) -> bytes:
    """The key of a normalised text within a project."""
    hasher = _hasher(project).copy()
    hasher.update(text.encode())
    return hasher.digest()


def salt(project: str) -> int:
    """64 bits that stand for a project."""
    return int.from_bytes(_hasher(project).digest()[:8])


@lru_cache(maxsize=4096)
def _hasher(project: str) -> blake2b:
    """A digest begun with the project, its length first: no two pairs read the same."""
    name = project.encode()
    return blake2b(len(name).to_bytes(8) + name, digest_size=DIGEST_BYTES)
