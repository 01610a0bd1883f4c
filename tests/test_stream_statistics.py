"""What the contract's generator makes is random: bytes, runs, correlations in time and between streams.

Seeds are fixed, so that each test gives the same numbers everywhere; bounds are those that a good generator
passes but once in a million.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import scgpu
from scgpu.sng import Lfsr

LENGTH = 1 << 16
STREAMS = 64
ONCE_IN_A_MILLION = 4.9  # standard deviations


def bits(p: float, seed: int, purpose: str = "input") -> NDArray[np.int64]:
    """Bits (stream, time) of one probability."""
    streams = scgpu.encode(np.full(STREAMS, p), LENGTH, seed, purpose=purpose, device="cpu")  # type: ignore[arg-type]
    return streams.bits().astype(np.int64)


def chi_square_z(counts: NDArray[np.int64], expected: float) -> float:
    """Chi-square of equal categories, as standard deviations of a normal number (Wilson and Hilferty)."""
    freedom = counts.size - 1
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    third = 2 / (9 * freedom)
    return ((chi_square / freedom) ** (1 / 3) - (1 - third)) / math.sqrt(third)


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_bytes_of_fair_streams_are_equally_frequent(seed: int) -> None:
    words = scgpu.encode(np.full(STREAMS, 0.5), LENGTH, seed, device="cpu").words
    for width, dtype in ((256, np.uint8), (65536, np.uint16)):
        counts = np.bincount(words.view(dtype).reshape(-1), minlength=width)
        assert abs(chi_square_z(counts, counts.sum() / width)) < ONCE_IN_A_MILLION


@pytest.mark.parametrize("p", [0.5, 0.1, 0.9])
def test_ones_and_runs_are_as_many_as_they_should_be(p: float) -> None:
    found = bits(p, 5)
    ones = found.sum(axis=1)
    z = (ones - LENGTH * p) / math.sqrt(LENGTH * p * (1 - p))
    assert np.abs(z).max() < ONCE_IN_A_MILLION and 0.6 < z.std() < 1.5
    # A. Wald and J. Wolfowitz, On a test whether two samples are from the same population (1940)
    zeros = LENGTH - ones
    runs = 1 + (found[:, 1:] != found[:, :-1]).sum(axis=1)
    mean = 1 + 2 * ones * zeros / LENGTH
    variance = (mean - 1) * (mean - 2) / (LENGTH - 1)
    z = (runs - mean) / np.sqrt(variance)
    assert np.abs(z).max() < ONCE_IN_A_MILLION and 0.6 < z.std() < 1.5


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_streams_do_not_repeat_themselves(p: float) -> None:
    found = (bits(p, 6) - p) / math.sqrt(p * (1 - p))
    for lag in (*range(1, 70), 128, 256, 1024, 4096):
        z = (found[:, lag:] * found[:, :-lag]).sum(axis=1) / math.sqrt(LENGTH - lag)
        assert np.abs(z).max() < ONCE_IN_A_MILLION, lag


def test_streams_do_not_know_of_each_other() -> None:
    tensors = [bits(0.5, 7), bits(0.5, 8), bits(0.5, 7, "weight"), bits(0.5, 7, "noise")]
    signs = 2 * np.concatenate(tensors) - 1
    z = (signs @ signs.T) / math.sqrt(LENGTH)
    pairs = z[np.triu_indices(len(z), 1)]
    assert np.abs(pairs).max() < 5.5 and abs(pairs.std() - 1) < 0.02  # of 32,640 pairs


def test_a_bad_generator_would_be_seen() -> None:
    counter = scgpu.encode([0.5], LENGTH, sng="counter", device="cpu").bits().astype(np.int64)[0]
    runs = 1 + int((counter[1:] != counter[:-1]).sum())
    assert abs(runs - LENGTH / 2) > 100 * math.sqrt(LENGTH / 4)
    register = scgpu.encode([0.5], LENGTH, sng=Lfsr(8), device="cpu").words.view(np.uint8).reshape(-1)
    counts = np.bincount(register, minlength=256)
    assert abs(chi_square_z(counts, counts.sum() / 256)) > 10
