"""correlation: definitions in fractions, identities of all 8-bit values, matrices, refusals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.devices import backend_of
from scgpu.pairs import pair_counts

ONES = np.arange(257)
LEFT, RIGHT = (grid.reshape(-1) for grid in np.meshgrid(ONES, ONES, indexing="ij"))


def exact_scc(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Fraction:
    """The definition, in fractions."""
    length = len(a)
    p, q, both = (Fraction(int(bits.sum()), length) for bits in (a, b, a & b))
    if both == p * q:
        return Fraction(0)
    if both > p * q:
        return (both - p * q) / (min(p, q) - p * q)
    return (both - p * q) / (p * q - max(p + q - 1, Fraction(0)))


def random_bits(seed: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return (rng.random(shape) < rng.random((*shape[:-1], 1))).astype(np.uint8)


@given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from((1, 2, 7, 64, 65, 300)))
def test_scc_equals_its_definition(chosen: scgpu.Device, seed: int, length: int) -> None:
    x, y = random_bits(seed, (2, 3, length)), random_bits(seed + 1, (2, 3, length))
    a, b = (scgpu.Bitstream.from_bits(bits, device=chosen) for bits in (x, y))
    expected = [[float(exact_scc(x[i, j], y[i, j])) for j in range(3)] for i in range(2)]
    assert scgpu.scc(a, b).tolist() == expected
    matrix = scgpu.scc_matrix(a, b)
    assert matrix.shape == (6, 6) and np.diagonal(matrix).tolist() == np.ravel(expected).tolist()
    for i, j in ((0, 5), (4, 1)):
        assert matrix[i, j] == float(exact_scc(x.reshape(6, -1)[i], y.reshape(6, -1)[j]))


@given(seed=st.integers(0, 2**32 - 1))
def test_pearson_equals_numpy(chosen: scgpu.Device, seed: int) -> None:
    bits = random_bits(seed, (5, 200))
    bits[0] = 1
    streams = scgpu.Bitstream.from_bits(bits, device=chosen)
    matrix = scgpu.pearson_matrix(streams)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(bits))
    assert np.allclose(matrix, expected, rtol=0, atol=1e-12)
    assert np.array_equal(matrix, scgpu.pearson_matrix(streams.to("numpy")))
    assert np.array_equal(scgpu.pearson(streams, streams), np.diagonal(matrix))
    changing = (bits.min(axis=1) == 0) & (bits.max(axis=1) == 1)
    assert scgpu.pearson(streams, streams).tolist() == changing.tolist()
    assert scgpu.pearson(streams, ~streams).tolist() == (-1.0 * changing).tolist()


def test_identities_of_scc_plus_one(chosen: scgpu.Device) -> None:
    ramps = scgpu.thermometer(ONES, 256, device=chosen)
    inner = (ONES > 0) & (ONES < 256)
    assert np.array_equal(scgpu.scc_matrix(ramps), np.outer(inner, inner))
    a, b = scgpu.thermometer(LEFT, 256, device=chosen), scgpu.thermometer(RIGHT, 256, device=chosen)
    assert np.array_equal(scgpu.minimum(a, b).count(), np.minimum(LEFT, RIGHT))
    assert np.array_equal(scgpu.maximum(a, b).count(), np.maximum(LEFT, RIGHT))
    assert np.array_equal(scgpu.absolute_difference(a, b).count(), abs(LEFT - RIGHT))


def test_identities_of_scc_minus_one(chosen: scgpu.Device) -> None:
    a, b = scgpu.thermometer(LEFT, 256, device=chosen), ~scgpu.thermometer(256 - RIGHT, 256, device=chosen)
    inner = (LEFT > 0) & (LEFT < 256) & (RIGHT > 0) & (RIGHT < 256)
    assert np.array_equal(scgpu.scc(a, b), -1.0 * inner)
    assert np.array_equal((a & b).count(), np.maximum(LEFT + RIGHT - 256, 0))
    assert np.array_equal(scgpu.saturating_add([a, b]).count(), np.minimum(LEFT + RIGHT, 256))


def test_identities_of_scc_zero(chosen: scgpu.Device) -> None:
    # every bit of one meets every bit of the other once
    fast = np.tile(np.arange(256) < ONES[:, None], 256)
    slow = np.repeat(np.arange(256) < ONES[:, None], 256, axis=1)
    a, b = (scgpu.Bitstream.from_bits(bits, device=chosen) for bits in (fast, slow))
    assert not scgpu.scc_matrix(a, b).any() and not scgpu.pearson_matrix(a, b).any()
    assert np.array_equal(pair_counts(a, b), np.outer(ONES, ONES))


def test_correlation_of_long_streams_is_exact() -> None:
    # products of counts pass 64 bits; streams of this length are too large to make here
    from scgpu.correlation import _integers, _scc

    length = 2**34 - 64
    p, q, both = length // 2, length // 3, length // 5
    a, b, c = (_integers(np.array([n], np.uint64), length) for n in (p, q, both))
    excess = both * length - p * q
    assert _scc(c, a, b, length).tolist() == [excess / (q * length - p * q)]
    assert _scc(a, a, a, length).tolist() == [1.0]


def test_pairs_of_streams_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = random_bits(0, (7, 3, 500))
    plain = scgpu.Bitstream.from_bits(bits, device="numpy")
    expected = scgpu.scc_matrix(plain)
    rows = bits.reshape(7, -1).astype(int)
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 400)
    split = plain.to(gpu)
    assert len(split._parts) == 4
    assert np.array_equal(scgpu.scc_matrix(split), expected)
    assert np.array_equal(scgpu.scc_matrix(split, plain), expected)
    assert np.array_equal(pair_counts(split, split, 3), rows @ rows.T)
    monkeypatch.setattr(backend, "largest_buffer", 128)
    with pytest.raises(scgpu.TooLargeError, match="a row of 3 streams of length=500 does not fit a buffer"):
        pair_counts(plain.to(gpu), plain, 3)


def test_pairs_of_long_rows(chosen: scgpu.Device) -> None:
    # rows above the words of one pass
    bits = random_bits(3, (3, 64 * (1 << 19) + 130))
    streams = scgpu.Bitstream.from_bits(bits, device=chosen)
    expected = [[int((x & y).sum()) for y in bits] for x in bits]
    assert pair_counts(streams, streams).tolist() == expected


def test_correlation_of_none_and_of_one(chosen: scgpu.Device) -> None:
    none = scgpu.thermometer([], 70, device=chosen)
    one = scgpu.thermometer(3, 70, device=chosen)
    assert scgpu.scc(none, none).shape == (0,) and scgpu.scc_matrix(none).shape == (0, 0)
    assert scgpu.scc_matrix(one, none).shape == (1, 0)
    assert scgpu.scc(one, one) == 1.0 and scgpu.pearson(one, ~one) == -1.0
    assert isinstance(scgpu.scc(one, one), np.float64)


def test_correlation_rejects() -> None:
    a = scgpu.thermometer([3, 4], 70, device="cpu")
    b: Any = [1, 2]
    with pytest.raises(TypeError, match="b must be a Bitstream; got list"):
        scgpu.scc(a, b)
    with pytest.raises(TypeError, match="a must be a Bitstream"):
        scgpu.pearson(b, a)
    with pytest.raises(ValueError, match="equal shape"):
        scgpu.pearson(a, scgpu.thermometer(3, 70, device="cpu"))
    with pytest.raises(TypeError, match="b must be a Bitstream"):
        scgpu.scc_matrix(a, b)
    with pytest.raises(ValueError, match="b must have the length of a, 70; got 71"):
        scgpu.pearson_matrix(a, scgpu.thermometer(3, 71, device="cpu"))
    with pytest.raises(scgpu.TooLargeError, match="a count could pass"):
        pair_counts(a, a, 2**26)
