"""bitwise: golden cases, parity, algebra, tails, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend


def pair(length: int, device: scgpu.Device | str, seed: int = 0) -> tuple[scgpu.Bitstream, scgpu.Bitstream]:
    p = np.linspace(0, 1, 7)
    return scgpu.encode(p, length, seed, device=device), scgpu.encode(p, length, seed, tensor_id=1, device=device)


def test_bitwise_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("bitwise", chosen, oracle)


@given(length=st.sampled_from((1, 31, 32, 33, 63, 64, 65, 1000)), seed=st.integers(0, 2**64 - 1))
def test_bitwise_equals_numpy_and_keeps_the_tail(chosen: scgpu.Device, length: int, seed: int) -> None:
    a, b = pair(length, chosen, seed)
    mask = np.full(a.words.shape[-1], 2**64 - 1, np.uint64)
    if length % 64:
        mask[-1] = (1 << length % 64) - 1
    assert np.array_equal((a & b).words, a.words & b.words)
    assert np.array_equal((a | b).words, a.words | b.words)
    assert np.array_equal((a ^ b).words, a.words ^ b.words)
    assert np.array_equal((~a).words, ~a.words & mask)
    assert ~~a == a
    assert ~(a & b) == ~a | ~b
    assert (a & ~a).count().tolist() == [0] * 7
    assert (a | ~a).count().tolist() == [length] * 7


def test_bitwise_past_65535_workgroups(chosen: scgpu.Device) -> None:
    words = np.random.default_rng(5).integers(0, 2**64, (2, 65_535 * 64 + 65), dtype=np.uint64)
    left, right = (scgpu.Bitstream.from_words(row, 64 * row.size, device=chosen) for row in words)
    assert np.array_equal((left & right).words, words[0] & words[1])


def test_bitwise_across_devices(chosen: scgpu.Device) -> None:
    (a, b), (x, y) = pair(100, chosen), pair(100, "numpy")
    assert (a & y) == (x & y) and (a & y).device == chosen
    assert (x & b).device.kind == "numpy"


def test_bitwise_rejects(chosen: scgpu.Device) -> None:
    a = scgpu.encode([0.5, 0.5], 100, device=chosen)
    with pytest.raises(ValueError, match="a & b needs bitstreams of equal length; a has 100, b has 101"):
        _ = a & scgpu.encode([0.5, 0.5], 101, device=chosen)
    with pytest.raises(ValueError, match=r"a \| b needs bitstreams of equal polarity"):
        _ = a | scgpu.encode([0.5, 0.5], 100, polarity="bipolar", device=chosen)
    with pytest.raises(ValueError, match=r"equal shape; a has \(2,\), b has \(3,\)"):
        _ = a ^ scgpu.encode([0.5] * 3, 100, device=chosen)
    for other in (1, np.zeros((2, 2), np.uint64)):
        bad: Any = other
        with pytest.raises(TypeError):
            _ = a & bad
        with pytest.raises(TypeError):
            _ = bad & a
    assert a == a.to("numpy")
