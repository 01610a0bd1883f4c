"""prefix: what an entry holds, parity, sequences and ranks, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu._abi import OPS, Adapter
from scgpu.backend import Backend
from scgpu.devices import backend_for
from scgpu.prefix import entry_count, prefix_step, rows32
from scgpu.sequence import _transposed, philox_numbers, ranked
from scgpu.weights import LONGEST_SHARED


def entries_of(chosen: scgpu.Device, bits: np.ndarray[Any, Any], order: np.ndarray[Any, Any] | None) -> list[int]:
    """Entries of one stream on a device."""
    backend = backend_for(chosen)
    words = scgpu.Bitstream.from_words(
        np.packbits(np.pad(bits, (0, -bits.size % 64)), bitorder="little").view("<u8"), bits.size, device=chosen
    )
    flat, stride = rows32(order[None]) if order is not None else (np.zeros(0, np.uint32), 0)
    entries = backend.empty("u64", entry_count(bits.size))
    step = prefix_step(
        words._buffer,
        backend.upload(flat),
        entries,
        sample_begin=0,
        sample_count=1,
        input_count=1,
        input_begin=0,
        input_end=1,
        length=bits.size,
        order_bits=0 if order is None else 8 * order.dtype.itemsize,
        order_stride=stride,
    )
    return [int(entry) for entry in backend.execute([step], [entries])[0]]


def test_prefix_known_answers(chosen: scgpu.Device) -> None:
    ones = np.ones(64, np.uint8)
    assert entries_of(chosen, ones, None) == [0xFFFF_FFFF, 0xFFFF_FFFF | 32 << 32, 64 << 32]
    bits = np.zeros(40, np.uint8)
    bits[[0, 31, 39]] = 1
    assert entries_of(chosen, bits, None) == [1 | 1 << 31, 1 << 7 | 2 << 32]
    backwards = np.arange(39, -1, -1)
    for dtype in ("<u2", "<u4"):
        assert entries_of(chosen, bits, backwards.astype(dtype)) == [1 | 1 << 8, 1 << 7 | 2 << 32]


@given(
    length=st.sampled_from((1, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 2048, 2080, 4096, 8192, 8193)),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(("<u2", "<u4")),
)
def test_prefix_counts_the_first_ones(chosen: scgpu.Device, length: int, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    bits = (rng.random(length) < rng.random()).astype(np.uint8)
    order = rng.permutation(length)
    entries = entries_of(chosen, bits, order.astype(dtype))
    assert len(entries) == length // 32 + 1
    for rank in {0, 1, length // 2, length - 1, length}:
        entry = entries[rank // 32]
        first = (entry >> 32) + (entry & ((1 << rank % 32) - 1)).bit_count()
        assert first == bits[order[:rank]].sum()
    assert entries[-1] & 0xFFFF_FFFF < 1 << length % 32


def test_prefix_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("prefix", chosen, oracle, number=60)


def test_prefix_of_the_longest_stream(chosen: scgpu.Device) -> None:
    # near the loop limit of software rasterisers, with the slowest order
    rng = np.random.default_rng(5)
    bits, order = rng.integers(0, 2, 1 << 20, dtype=np.uint8), rng.permutation(1 << 20).astype("<u4")
    entries = np.array(entries_of(chosen, bits, order), np.uint64)
    before = np.concatenate([[0], bits[order].reshape(-1, 32).sum(axis=1).cumsum()])
    assert np.array_equal(entries >> np.uint64(32), before)


def test_prefix_keeps_loops_short() -> None:
    # software rasterisers end an invocation after 65,535 loop trips, all its loops summed
    op = OPS["prefix"]
    for length in (1, 2**16, 2**17, 2**17 + 1, LONGEST_SHARED):
        for samples in (1, 10_000):
            params = {**dict.fromkeys(op.params, 1), "sample_count": samples, "length": length, "order_bits": 32}
            admissible = op.admissible(params, Adapter())
            assert op.choose(params, Adapter()) in admissible
            for variant in admissible:
                lanes = op.variants[variant]["stream_lanes"]
                run = -(-(length // 32 + 1) // lanes)
                assert run * 33 + run + lanes < 65_535


def test_transposed_is_a_transpose() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, (5, 32), dtype=np.uint32)
    bits = words[..., None] >> np.arange(32, dtype=np.uint32) & np.uint32(1)
    again = np.swapaxes(bits, 1, 2)
    assert np.array_equal(_transposed(words), (again << np.arange(32, dtype=np.uint32)).sum(axis=2, dtype=np.uint32))


@pytest.mark.parametrize("length", [1, 32, 33, 1000])
def test_sequence_numbers_are_the_encoders(length: int, chosen: scgpu.Device) -> None:
    seed, tensor_id = 2**40 + 3, 5
    numbers = philox_numbers(2, 3, length, seed, tensor_id, chosen)
    assert numbers.shape == (3, length)
    for p in (0.1, 0.5, 2.0**-32, 1 - 2.0**-32):
        options: dict[str, Any] = {"first_stream": 2, "purpose": "weight", "tensor_id": tensor_id}
        streams = scgpu.encode([p] * 3, length, seed, device="numpy", **options)
        assert np.array_equal(numbers < int(p * 2**32 + 0.5), streams.bits())


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 1000, 65_535, 65_536])
def test_ramp_ranks_are_the_comparison(length: int) -> None:
    ramp = np.arange(length, dtype=np.uint64) * 2**32 // length
    thresholds = np.array([[0, 1, 2, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1, 123456789]], np.uint32).T
    found = ranked(thresholds, length, "ramp", 0, 0, scgpu.device("numpy"))
    assert found.order is None and found.ranks.shape == (1, 8)
    for rank, threshold in zip(found.ranks[0], thresholds[:, 0], strict=True):
        assert rank == (length if threshold == 2**32 - 1 else (ramp < threshold).sum())


def test_philox_ranks_are_the_comparison(chosen: scgpu.Device) -> None:
    edges = np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1, 987654321], np.uint32)
    thresholds = np.stack([edges, edges[::-1]], axis=1)
    for length in (1, 77, 66_000):
        numbers = philox_numbers(0, 2, length, 7, 1, chosen)
        found = ranked(thresholds, length, "philox", 7, 1, chosen)
        assert found.order is not None
        for i in range(2):
            in_order = numbers[i][found.order[i]]
            assert np.all(np.diff(in_order.astype(np.int64)) >= 0)
            expected = [length if t == 2**32 - 1 else int((numbers[i] < t).sum()) for t in thresholds[:, i]]
            assert found.ranks[i].tolist() == expected


def test_prefix_rejects_short_buffers(chosen: scgpu.Device) -> None:
    backend = backend_for(chosen)
    words, order = backend.upload(np.zeros(2, np.uint64)), backend.upload(np.zeros(32, np.uint32))
    params = {
        "sample_begin": 0,
        "sample_count": 1,
        "input_count": 1,
        "input_begin": 0,
        "input_end": 1,
        "length": 65,
        "order_bits": 16,
        "order_stride": 33,
    }
    step = prefix_step(words, order, backend.empty("u64", 3), **params)
    with pytest.raises(ValueError, match="prefix: order has 32 elements; 33 are needed"):
        backend.execute([step])
    step = prefix_step(words, order, backend.empty("u64", 3), **{**params, "sample_begin": 1})
    with pytest.raises(ValueError, match="prefix: words has 2 elements; 4 are needed"):
        backend.execute([step])
