"""thermometer: bits, masks at the edges of words, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scgpu


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_thermometer_bits(length: int, chosen: scgpu.Device) -> None:
    ones = np.arange(length + 1).reshape(-1, 1)
    streams = scgpu.thermometer(ones, length, polarity="bipolar", device=chosen)
    assert streams.shape == (length + 1, 1) and streams.polarity == "bipolar" and streams.device == chosen
    assert np.array_equal(streams.bits()[:, 0], np.arange(length) < ones)


def test_thermometer_of_one_and_of_none() -> None:
    assert scgpu.thermometer(70, 128, device="cpu").words.tolist() == [2**64 - 1, 63]
    assert scgpu.thermometer([], 128, device="cpu").shape == (0,)


@pytest.mark.parametrize(
    ("ones", "length", "error", "message"),
    [
        ([1, 5], 4, ValueError, r"ones must be from 0 to 4; got 5 at index \(1,\)"),
        (-1, 4, ValueError, r"ones must be from 0 to 4; got -1"),
        ([0.5], 4, TypeError, "ones must hold integers; got dtype float64"),
        ([1], 0, ValueError, "length must be from 1"),
        (np.zeros(2**14, int), 2**34 - 64, scgpu.TooLargeError, "bytes are needed"),
    ],
)
def test_thermometer_rejects(ones: Any, length: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.thermometer(ones, length, device="cpu")


def test_many_streams_are_those_of_few() -> None:
    ones = np.random.default_rng(4).integers(0, 101, (7, 50))
    many = scgpu.thermometer(ones, 100, device="cpu")
    assert np.array_equal(many.bits(), np.arange(100) < ones[..., None])
