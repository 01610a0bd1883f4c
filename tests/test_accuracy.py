"""accuracy: errors, prefixes, stability against their definitions; published figures; refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import accuracy
from scgpu.pairs import pair_counts


@given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from((1, 64, 65, 300)), bipolar=st.booleans())
def test_prefixes_and_stability_equal_their_definitions(
    chosen: scgpu.Device, seed: int, length: int, bipolar: bool
) -> None:
    rng = np.random.default_rng(seed)
    bits = (rng.random((2, 3, length)) < rng.random((2, 3, 1))).astype(np.uint8)
    streams = scgpu.Bitstream.from_bits(bits, polarity="bipolar" if bipolar else "unipolar", device=chosen)
    lengths = rng.permutation(length)[:20] + 1
    values = np.cumsum(bits, axis=-1) / np.arange(1, length + 1)
    values = 2 * values - 1 if bipolar else values
    assert np.array_equal(scgpu.progressive_value(streams, lengths), values[..., lengths - 1])
    expected = values[..., -1] + rng.normal(0, 0.05, (2, 3))
    stable = scgpu.stable_length(streams, expected, 0.1)
    assert stable.shape == (2, 3) and stable.dtype == np.uint64
    for i, j in np.ndindex(2, 3):
        good = np.abs(values[i, j] - expected[i, j]) <= 0.1
        assert stable[i, j] == next((n for n in range(1, length + 1) if good[n - 1 :].all()), length + 1)


def test_stability_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = scgpu.encode(np.linspace(0, 1, 11), 300, device="cpu")
    expected = np.linspace(0, 1, 11)
    whole = scgpu.stable_length(streams, expected, 0.05)
    monkeypatch.setattr(accuracy, "BITS_AT_ONCE", 700)
    assert np.array_equal(scgpu.stable_length(streams, expected, 0.05), whole)
    assert 1 < whole.max() < 301 and whole[0] == whole[-1] == 1


def test_errors(chosen: scgpu.Device) -> None:
    streams = scgpu.thermometer([[1, 2], [3, 4]], 4, device=chosen)
    assert scgpu.value_error(streams, [0.25, 1.0]).tolist() == [[0.0, -0.5], [0.5, 0.0]]
    assert scgpu.rmse(streams, [0.25, 1.0]) == 0.125**0.5
    bipolar = scgpu.thermometer(1, 4, polarity="bipolar", device=chosen)
    assert scgpu.value_error(bipolar, 0.0) == -0.5 and scgpu.rmse(bipolar, 0.0) == 0.5
    none = scgpu.thermometer([], 4, device=chosen)
    assert np.isnan(scgpu.rmse(none, [])) and scgpu.stable_length(none, 0.5, 0.1).shape == (0,)
    assert scgpu.progressive_value(none, [1]).shape == (0, 1)
    assert scgpu.progressive_value(streams, []).shape == (2, 2, 0)


def reversed_bits(width: int) -> np.ndarray[Any, Any]:
    return np.array([int(f"{t:0{width}b}"[::-1], 2) for t in range(1 << width)])


def lfsr8() -> np.ndarray[Any, Any]:
    state, states = 1, []
    for _ in range(255):
        states.append(state)
        feedback = (state >> 7 ^ state >> 5 ^ state >> 4 ^ state >> 3) & 1
        state = (state << 1 | feedback) & 255
    assert state == 1
    return np.array([*states, 0])


@pytest.mark.parametrize(
    ("left", "right", "mean", "root", "largest"),
    [
        (reversed_bits(8), np.arange(256), "0.00391", "0.00434", "0.0108"),
        (lfsr8(), lfsr8(), "0.0833", "0.1054", "0.25"),
        (lfsr8()[:-1], np.roll(lfsr8()[:-1], 1), "0.0392", "0.0507", "0.124"),
    ],
    ids=["van der Corput x counter", "LFSR x itself", "LFSR x itself rotated"],
)
def test_published_errors_of_all_8_bit_products(
    left: Any, right: Any, mean: str, root: str, largest: str, chosen: scgpu.Device
) -> None:
    values = np.arange(256)
    a, b = (scgpu.Bitstream.from_bits(values[:, None] > numbers, device=chosen) for numbers in (left, right))
    errors = np.abs(pair_counts(a, b) / a.length - np.outer(values, values) / 65536)
    for found, published in ((errors.mean(), mean), (np.sqrt((errors**2).mean()), root), (errors.max(), largest)):
        assert f"{found:.{len(published) - 2}f}" == published


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: scgpu.value_error(s, [1, 2, 3]), ValueError, r"broadcast to the streams' shape \(2,\); got \(3,\)"),
        (lambda s: scgpu.value_error(s, [[1, 2]]), ValueError, "broadcast"),
        (lambda s: scgpu.rmse(s, [0, np.nan]), ValueError, r"expected must be finite; got nan at index \(1,\)"),
        (lambda s: scgpu.rmse(s, ["a", "b"]), TypeError, "expected must hold real numbers"),
        (lambda s: scgpu.rmse([0.5], 0.5), TypeError, "streams must be a Bitstream; got list"),
        (lambda s: scgpu.progressive_value(s, [0]), ValueError, "lengths must be from 1 to 70; got 0"),
        (lambda s: scgpu.progressive_value(s, [71]), ValueError, "lengths must be from 1 to 70; got 71"),
        (lambda s: scgpu.progressive_value(s, 3), ValueError, r"lengths must have shape \(k,\); got \(\)"),
        (lambda s: scgpu.progressive_value(s, [1.5]), TypeError, "lengths must hold integers"),
        (lambda s: scgpu.progressive_value(3, [1]), TypeError, "streams must be a Bitstream"),
        (lambda s: scgpu.stable_length(s, 0.5, -0.1), ValueError, "at least 0; got -0.1"),
        (lambda s: scgpu.stable_length(s, 0.5, np.inf), ValueError, "bound must be finite"),
        (lambda s: scgpu.stable_length(s, 0.5, [0.1]), ValueError, "bound must be a single number"),
        (lambda s: scgpu.stable_length(3, 0.5, 0.1), TypeError, "streams must be a Bitstream"),
    ],
)
def test_accuracy_rejects(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(scgpu.thermometer([3, 4], 70, device="cpu"))
