"""count: golden popcounts, parity, long streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend
from scgpu.count import SEGMENT_WORDS


def test_count_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    cases = [case for name, case in golden["pack"].items() if name.startswith("b") and "popcount" in case]
    assert len(cases) > 5
    for case in cases:
        if case["bits"].size:
            streams = scgpu.Bitstream.from_words(case["packed"], case["bits"].size, device=chosen)
            assert streams.count() == case["popcount"]
            assert np.array_equal(streams.bits(), case["bits"])


def test_count_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("count", chosen, oracle)


@given(st.data(), st.integers(0, 70), st.sampled_from((1, 63, 64, 65, 4160)))
def test_count_equals_python(chosen: scgpu.Device, data: st.DataObject, streams: int, length: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bits = rng.random((streams, length)) < rng.random()
    padded = np.zeros((streams, -(-length // 64) * 64), np.uint8)
    padded[:, :length] = bits
    words = np.packbits(padded, axis=1, bitorder="little").view(np.uint64)
    made = scgpu.Bitstream.from_words(words, length, device=chosen)
    assert np.array_equal(made.count(), bits.sum(axis=1))
    assert made.count().dtype == np.uint64
    assert np.array_equal(made.bits(), bits)


@given(st.data(), st.lists(st.integers(0, 4), max_size=2), st.sampled_from((0, 1, 2, 7, 8, 9, 63, 64, 65, 130)))
def test_popcount_equals_numpy(chosen: scgpu.Device, data: st.DataObject, shape: list[int], word_count: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    words = rng.integers(0, 2**64, (*shape, word_count), dtype=np.uint64)
    ones = np.asarray(scgpu.popcount(words, device=chosen))
    assert ones.shape == tuple(shape) and ones.dtype == np.uint64
    assert np.array_equal(ones, np.bitwise_count(words).sum(axis=-1))


@pytest.mark.parametrize("tail", [-1, 0, 1, 77])
@pytest.mark.parametrize("streams", [1, 3])
def test_popcount_of_streams_around_a_segment(streams: int, tail: int, chosen: scgpu.Device) -> None:
    words = np.random.default_rng(tail + 1).integers(0, 2**64, (streams, 5 * SEGMENT_WORDS + tail), dtype=np.uint64)
    expected = np.bitwise_count(words).sum(axis=1)
    assert np.array_equal(scgpu.popcount(words, device=chosen), expected)
    assert scgpu.popcount(words[0], device=chosen) == expected[0]
    assert isinstance(scgpu.popcount(words[0], device=chosen), np.uint64)


def test_popcount_reads_any_layout(chosen: scgpu.Device) -> None:
    base = np.random.default_rng(0).integers(0, 2**64, (6, 8), dtype=np.uint64)
    for part in (base[::2, ::3], np.asfortranarray(base), base.T, base.astype(">u8")):
        part.flags.writeable = False
        assert np.array_equal(scgpu.popcount(part, device=chosen), np.bitwise_count(part).sum(axis=-1))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([1], TypeError, "words must be an ndarray of uint64; got list"),
        (np.zeros(2, np.int64), TypeError, "words must be an ndarray of uint64; got dtype int64"),
        (np.zeros(2, np.uint8), TypeError, "words must be uint64; got uint8"),
        (np.ma.zeros(2, np.uint64), TypeError, "words must be an ndarray of uint64"),
        (np.array(1, np.uint64), ValueError, r"words must have shape \(\.\.\., W\); got a single word"),
    ],
)
def test_popcount_rejects(words: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.popcount(words)


def test_count_past_65535_workgroups(chosen: scgpu.Device) -> None:
    words = np.random.default_rng(3).integers(0, 2**64, (70_000, 1), dtype=np.uint64)
    counts = scgpu.Bitstream.from_words(words, 64, device=chosen).count()
    assert np.array_equal(counts, np.bitwise_count(words[:, 0]))


def test_count_of_streams_longer_than_a_segment(chosen: scgpu.Device) -> None:
    words = np.random.default_rng(3).integers(0, 2**64, (3, 9 * SEGMENT_WORDS + 5), dtype=np.uint64)
    counts = scgpu.Bitstream.from_words(words, 64 * words.shape[1], device=chosen).count()
    assert np.array_equal(counts, np.bitwise_count(words).sum(axis=1))


@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_count_shapes(shape: tuple[int, ...], chosen: scgpu.Device) -> None:
    words = np.full((*shape, 2), 3, np.uint64)
    streams = scgpu.Bitstream.from_words(words, 100, polarity="bipolar", device=chosen)
    assert np.array_equal(streams.count(), np.full(shape, 4))
    assert np.array_equal(streams.value(), np.full(shape, 2 * 4 / 100 - 1))


def test_count_rejects_what_is_no_bitstream(chosen: scgpu.Device) -> None:
    with pytest.raises(ValueError, match="ones past length=3"):
        scgpu.Bitstream.from_words(np.array([8], np.uint64), 3, device=chosen)
    with pytest.raises(ValueError, match=r"words must have shape \(\.\.\., 2\)"):
        scgpu.Bitstream.from_words(np.zeros((5, 1), np.uint64), 65, device=chosen)
