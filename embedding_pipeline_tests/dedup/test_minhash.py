"""Signatures: what they estimate, and that they stay the same."""

from hashlib import sha256

import numpy as np
import pytest

from embedding_pipeline.dedup.config import HASHES, Banding
from embedding_pipeline.dedup.minhash import Minima, band_keys, minima
from embedding_pipeline.dedup.shingles import Shingles
from embedding_pipeline.dedup.words import mixed


def pairs(similarity: float, size: int = 200, count: int = 300) -> Shingles:
    """``count`` pairs of sets, one after the other, of about that Jaccard similarity."""
    common = round(2 * size * similarity / (1 + similarity))
    numbers = mixed(np.arange(count * 2 * size, dtype=np.uint64)).reshape(count, 2, size)
    numbers[:, 1, :common] = numbers[:, 0, :common]
    return Shingles(numbers.ravel(), np.arange(0, 2 * count * size + 1, size))


def agreement(signatures: Minima) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray(signatures[::2] == signatures[1::2])


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.8, 0.9, 0.95])
def test_hashes_agree_as_often_as_the_sets_are_alike(similarity: float) -> None:
    agrees = agreement(minima(pairs(similarity)))
    deviation = (similarity * (1 - similarity) / agrees.size) ** 0.5
    assert abs(agrees.mean() - similarity) < 5 * deviation + 0.005
    by_function = agrees.mean(axis=0)
    assert abs(by_function - similarity).max() < 6 * deviation * HASHES**0.5, "none is worse"


def test_the_functions_are_independent_of_each_other() -> None:
    agrees = agreement(minima(pairs(0.5, count=1000)))
    spread = agrees.mean(axis=1).std()
    assert spread == pytest.approx((0.25 / HASHES) ** 0.5, rel=0.15)


def test_order_and_repetition_of_shingles_make_no_difference() -> None:
    numbers = mixed(np.arange(50, dtype=np.uint64))
    twice = np.concatenate([numbers[::-1], numbers])
    both = Shingles(np.concatenate([numbers, twice]), np.array([0, 50, 150]))
    signatures = minima(both)
    assert (signatures[0] == signatures[1]).all()


def test_texts_without_shingles_stand_aside() -> None:
    numbers = mixed(np.arange(30, dtype=np.uint64))
    spread = Shingles(numbers, np.array([0, 0, 10, 10, 30, 30]))
    dense = Shingles(numbers, np.array([0, 10, 30]))
    assert (minima(spread)[[1, 3]] == minima(dense)).all()


def test_a_long_list_is_cut_into_blocks_without_a_trace() -> None:
    many = pairs(0.5, size=900, count=20)
    alone = [minima(many.at(np.array([row]))) for row in range(40)]
    assert (minima(many) == np.concatenate(alone)).all()


def test_a_band_agrees_where_all_its_hashes_do_and_the_salt() -> None:
    signatures = minima(pairs(0.8))
    banding = Banding(25, 5)
    keys = band_keys(signatures, banding, np.zeros(600, np.uint64))
    by_hand = agreement(signatures)[:, :125].reshape(300, 25, 5).all(axis=2)
    assert ((keys[::2] == keys[1::2]) == by_hand).all()
    salts = np.tile(np.array([1, 2], np.uint64), 300)
    apart = band_keys(signatures, banding, salts)
    assert not (apart[::2] == apart[1::2]).any()


def test_no_two_bands_share_a_key() -> None:
    same = np.zeros((1, HASHES), np.uint32)
    keys = band_keys(same, Banding(16, 8), np.zeros(1, np.uint64))
    assert len(np.unique(keys)) == 16


def test_signatures_are_what_they_were_in_files_made_before() -> None:
    """If this fails, raise ``minhash.VERSION``: files of old signatures must not be used."""
    keys = band_keys(minima(pairs(0.9, count=20)), Banding(16, 8), np.arange(40, dtype=np.uint64))
    assert sha256(keys.astype("<u8").tobytes()).hexdigest()[:16] == "39edb92f4a08d364"
