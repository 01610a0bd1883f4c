"""permute: networks put streams in any order: parity, the definition, edges, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import _cpu, permute
from scgpu._abi import INDEX_BITS, OPS
from scgpu.backend import Backend, Step
from scgpu.devices import backend_for


def permuted(chosen: scgpu.Device, words: np.ndarray[Any, Any], masks: np.ndarray[Any, Any], length: int) -> Any:
    """Streams (sample, input, word) on a device after the inputs' networks."""
    backend = backend_for(chosen)
    samples, inputs, word_count = words.shape
    out = backend.empty("u64", words.size)
    step = permute.permute_step(
        backend.upload(words.reshape(-1)),
        backend.upload(masks),
        out,
        sample_begin=0,
        sample_count=samples,
        input_count=inputs,
        input_begin=0,
        input_end=inputs,
        length=length,
    )
    return np.asarray(backend.execute([step], [out])[0]).reshape(samples, inputs, word_count)


def packed(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    padded = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 64)])
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8")


def test_permute_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("permute", chosen, oracle, number=60)


@pytest.mark.parametrize("index_bits", INDEX_BITS)
def test_permute_known_answers(chosen: scgpu.Device, index_bits: int) -> None:
    # one mask: bits 3 and 3 + stride change places, where the stride's stage is the first or the last of its kind
    width = 1 << index_bits
    bits = np.zeros(width, np.uint8)
    bits[3] = 1
    outers, chunks = (index_bits - 9) * width // 1024, width // 512
    places = {stride: [outers + stage] for stage, stride in enumerate(permute.STRIDES[:9])}
    for stage, stride in enumerate(permute.STRIDES[9:], 9):
        places[stride].append(outers + stage)
    for level in range(index_bits - 9):
        stride = width >> level + 1
        places[stride] = [level * chunks // 2, outers + 17 * chunks + (index_bits - 10 - level) * chunks // 2]
    assert sorted(places) == [1 << k for k in range(index_bits)]
    for stride, stages in places.items():
        for stage in stages:
            lower = 3 & ~stride
            masks = np.zeros((index_bits + 8) * width // 64, np.uint64)
            masks[8 * stage] |= np.uint64(1 << lower)
            if stride < 512:
                masks[8 * stage + (lower + stride) // 64] |= np.uint64(1 << (lower + stride) % 64)
            found = permuted(chosen, packed(bits)[None, None], masks, width)[0, 0]
            expected = np.zeros(width, np.uint8)
            expected[3 ^ stride] = 1
            assert np.array_equal(found, packed(expected)), (stride, stage)


@given(
    length=st.sampled_from((1, 2, 63, 64, 65, 511, 512, 513, 1000, 1024, 2048, 4095, 8191, 8192)),
    seed=st.integers(0, 2**32 - 1),
)
def test_networks_put_streams_in_their_order(chosen: scgpu.Device, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(length), np.arange(length), np.arange(length)[::-1]]).astype("<u2")
    bits = rng.integers(0, 2, (2, 3, length), dtype=np.uint8)
    found = permuted(chosen, packed(bits), permute.networks(order), length)
    expected = np.stack([bits[:, i, order[i]] for i in range(3)], axis=1)
    assert np.array_equal(found, packed(expected))


def test_networks_are_the_same_on_any_number_of_threads() -> None:
    order = np.stack([np.random.default_rng(i).permutation(700) for i in range(40)]).astype("<u2")
    before = scgpu.num_threads()
    try:
        scgpu.set_num_threads(1)
        alone = permute.networks(order)
        scgpu.set_num_threads(3)
        assert np.array_equal(permute.networks(order), alone)
    finally:
        scgpu.set_num_threads(before)


def test_networks_of_no_inputs() -> None:
    assert permute.networks(np.empty((0, 100), "<u2")).size == 0


@pytest.mark.parametrize("row", [[0, 1, 1], [0, 1, 512], [0, 1, 3], [65_535, 1, 2]])
def test_networks_refuse_what_is_no_permutation(row: list[int]) -> None:
    with pytest.raises(ValueError, match="order must have permutations of at most 512 positions"):
        permute.networks(np.array([[0, 1, 2], row], "<u2"))


@pytest.mark.parametrize(("order", "masks"), [(0, 8), (8, 0), (9, 8), (8, 12)])
def test_route_refuses_addresses(order: int, masks: int) -> None:
    status = _cpu.library().scgpu_route(order, 600, masks, permute.mask_words(600), 1, 10)
    assert _cpu.STATUSES[status] == "a buffer has no address, or one that is not aligned"


def test_route_refuses_short_buffers() -> None:
    order = np.arange(600, dtype="<u2")[None]
    with pytest.raises(ValueError, match="at most 512 positions"):
        _cpu.route(order, 9, np.empty(10_000, np.uint64))
    with pytest.raises(scgpu.NativeLibraryError, match="a buffer is too short"):
        _cpu.route(order, 10, np.empty(permute.mask_words(600) - 1, np.uint64))
    for index_bits in (8, 14):
        with pytest.raises(ValueError, match="order must have"):
            _cpu.route(order, index_bits, np.empty(100_000, np.uint64))


def test_permute_rejects(chosen: scgpu.Device) -> None:
    words, masks = np.zeros((1, 1, 10), np.uint64), np.zeros(permute.mask_words(600), np.uint64)
    with pytest.raises(ValueError, match="permute: masks has 287 elements; 288 are needed"):
        permuted(chosen, words, masks[:-1], 600)
    backend = backend_for(chosen)
    names = dict.fromkeys(OPS["permute"].params, 1)
    buffers = tuple(backend.empty("u64", 1000) for _ in range(3))
    step = Step("permute", {**names, "index_bits": 9, "width": 1024}, buffers)
    with pytest.raises(ValueError, match="permute needs index_bits == 9 and width == 512 or"):
        backend.execute([step])
