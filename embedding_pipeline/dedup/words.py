"""The words of texts as 64-bit numbers, found without a string for each.

Belongs here: what a word is, and its number. Does not belong here: comparing texts.

A word is a run of letters, digits, combining marks and underscores. Chinese, Japanese,
Thai, Lao, Khmer and Burmese put no space between words: there a word is one character.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]
"""64-bit numbers that stand for words or runs of words."""

Offsets: TypeAlias = npt.NDArray[np.int64]
"""Where each of n lists begins in their concatenation, and its end: shape ``(n + 1,)``."""

_UNKNOWN: Final = 0
_OUTSIDE: Final = 1
_INSIDE: Final = 2
_ALONE: Final = 3

_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, zero
    (0x3021, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # their extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1B16F),  # Kana extensions
    (0x20000, 0x3FFFF),  # Han extensions
)
"""Characters that are words of their own, where they are letters at all."""

_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
_POWERS: Final = 1 << 18
"""Characters looked at in one go; longer texts have their powers computed."""


@dataclass(frozen=True)
class Words:
    """The words of n texts, one text after another.

    Attributes:
        hashes: a number for each word; equal words have equal numbers.
        offsets: where each text's words begin, and the end.
    """

    hashes: Hashes
    offsets: Offsets


def words_of(texts: Sequence[str]) -> Words:
    """The words of each of ``texts``, which must hold no line feed and no surrogate."""
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le"), dtype=np.uint32)
    kinds = _kinds(codes)
    inside = kinds == _INSIDE
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    begins |= kinds == _ALONE
    starts = np.flatnonzero(begins)
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.searchsorted(starts, ends)])
    return Words(_hashes(codes, starts), offsets)


def mixed(values: Hashes) -> Hashes:
    """Numbers spread evenly over 64 bits; different ones stay different (splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _hashes(codes: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64]) -> Hashes:
    """For each word the polynomial of its characters' numbers, the same at any place.

    The power of a character's place in the whole is taken back by the inverse power of
    the word's place: odd numbers have inverses modulo 2⁶⁴.
    """
    if not len(starts):
        return np.empty(0, np.uint64)
    up, down = _powers(len(codes))
    terms = _CHARACTERS[codes]
    terms *= up
    sums = np.add.reduceat(terms, starts)
    sums *= down[starts]
    return mixed(sums)


def _powers(length: int) -> tuple[Hashes, Hashes]:
    """Powers of ``_BASE`` and of its inverse, from the zeroth on."""
    if length <= _POWERS:
        return _UP[:length], _DOWN[:length]
    return _power_series(_BASE, length), _power_series(_INVERSE, length)


def _power_series(base: np.uint64, length: int) -> Hashes:
    series = np.full(length, base, np.uint64)
    series[0] = 1
    return np.cumprod(series, dtype=np.uint64)


def _kinds(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """What each character is to words; the table fills as characters are first met."""
    kinds = _TABLE[codes]
    unknown = kinds == _UNKNOWN
    if unknown.any():
        for code in np.unique(codes[unknown]).tolist():
            _TABLE[code] = _kind(code)
            if _TABLE[code] != _OUTSIDE:
                _CHARACTERS[code] = mixed(np.array([code + 1], np.uint64))[0]
        kinds = _TABLE[codes]
    return kinds


def _kind(code: int) -> int:
    character = chr(code)
    if not (character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"):
        return _OUTSIDE
    return _ALONE if any(low <= code <= high for low, high in _UNSPACED) else _INSIDE


_INVERSE: Final = np.uint64(pow(int(_BASE), -1, 1 << 64))
_UP: Final = _power_series(_BASE, _POWERS)
_DOWN: Final = _power_series(_INVERSE, _POWERS)
_TABLE: Final = np.zeros(0x110000, np.uint8)
_CHARACTERS: Final = np.zeros(0x110000, np.uint64)
"""The number of each character that is part of words; 0 for all others."""
