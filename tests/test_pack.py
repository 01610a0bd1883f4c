"""pack: known answers, the definition bit by bit, parity, every length, refusals, `out`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend
from scgpu.devices import backend_of

LENGTHS = (1, 2, 3, 4, 7, 8, 63, 64, 65, 66, 67, 127, 128, 129, 191, 1000, 4160)


def definition(bits: Any) -> Any:
    """Words of one stream by the contract's formula, in Python integers."""
    number = sum(int(bit) << t for t, bit in enumerate(bits))
    return [number >> 64 * w & 2**64 - 1 for w in range(-(-len(bits) // 64))]


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ([1], [1]),
        ([0, 0, 0, 1], [8]),
        ([1, 1, 0, 1], [11]),
        ([0] * 63 + [1], [1 << 63]),
        ([0] * 64 + [1], [0, 1]),
        ([1] * 64, [2**64 - 1]),
        ([1] * 65, [2**64 - 1, 1]),
        ([True, False, True], [5]),
        ([[0, 1], [1, 1]], [[2], [3]]),
    ],
)
def test_pack_known_answers(bits: Any, words: Any, chosen: scgpu.Device) -> None:
    packed = scgpu.pack(bits, device=chosen)
    assert packed.tolist() == words and packed.dtype == np.uint64


def test_pack_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    with_bits = [case for name, case in golden["pack"].items() if "bits" in case and name != "short"]
    with_bytes = [case for case in golden["pack"].values() if "bytes" in case]
    assert len(with_bits) > 15 and len(with_bytes) > 3
    for case in with_bits:
        assert np.array_equal(scgpu.pack(case["bits"], device=chosen), case["packed"])
    for case in with_bytes:
        assert np.array_equal(scgpu.pack(case["bytes"] != 0, device=chosen), case["packed_nonzero"])


def test_pack_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("pack", chosen, oracle)


@pytest.mark.parametrize("length", LENGTHS)
def test_pack_equals_the_definition(length: int, chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(length).integers(0, 2, (5, length), dtype=np.uint8)
    expected = [definition(row) for row in bits]
    for device in (chosen, "numpy"):
        assert scgpu.pack(bits, device=device).tolist() == expected
        assert scgpu.pack(bits[1], device=device).tolist() == expected[1]


@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    length=st.integers(0, 300),
    offset=st.integers(0, 64),
    dtype=st.sampled_from((np.uint8, np.bool_, np.int64)),
    seed=st.integers(0, 2**32 - 1),
)
def test_pack_unpack_round_trip(
    chosen: scgpu.Device, shape: list[int], length: int, offset: int, dtype: Any, seed: int
) -> None:
    size = int(np.prod(shape, dtype=np.int64)) * length
    # A view at any offset: rows begin at any byte of memory.
    bits = np.random.default_rng(seed).integers(0, 2, offset + size).astype(dtype)[offset:].reshape(*shape, length)
    words = scgpu.pack(bits, device=chosen)
    assert words.shape == (*shape, -(-length // 64)) and words.dtype == np.uint64
    assert np.array_equal(words, scgpu.pack(bits, device="numpy"))
    back = scgpu.unpack(words, length, device=chosen)
    assert back.shape == bits.shape and back.dtype == np.uint8
    assert np.array_equal(back, bits)
    assert np.array_equal(scgpu.popcount(words, device=chosen), bits.sum(axis=-1))


@pytest.mark.parametrize(
    ("shape", "words"), [((0,), (0,)), ((3, 0), (3, 0)), ((0, 65), (0, 2)), ((2, 0, 1), (2, 0, 1))]
)
def test_pack_of_nothing(shape: tuple[int, ...], words: tuple[int, ...], chosen: scgpu.Device) -> None:
    packed = scgpu.pack(np.empty(shape, np.uint8), device=chosen)
    assert packed.shape == words and packed.dtype == np.uint64
    out = np.empty(words, np.uint64)
    assert scgpu.pack(np.empty(shape, np.uint8), out=out, device=chosen) is out


def test_pack_reads_any_layout_and_changes_nothing(chosen: scgpu.Device) -> None:
    base = np.random.default_rng(0).integers(0, 2, (6, 400), dtype=np.uint8)
    for part in (base[::2, ::3], np.asfortranarray(base), base.T, base[:, 1:]):
        before = part.copy()
        part.flags.writeable = False
        assert np.array_equal(scgpu.pack(part, device=chosen), scgpu.pack(before, device="numpy"))
        assert np.array_equal(part, before)


def test_pack_a_long_stream(chosen: scgpu.Device) -> None:
    # more bytes than Mesa's adapters bind, more than 65,535 workgroups, a division among threads inside the stream
    bits = np.random.default_rng(1).integers(0, 2, (1 << 27) + 64_007, dtype=np.uint8)
    words = scgpu.pack(bits, device=chosen)
    assert np.array_equal(words.view(np.uint8)[: -(-bits.size // 8)], np.packbits(bits, bitorder="little"))
    assert np.array_equal(scgpu.unpack(words, bits.size, device=chosen), bits)
    bits[-1] = 2
    with pytest.raises(ValueError, match=rf"got 2 at index \({bits.size - 1},\)"):
        scgpu.pack(bits, device=chosen)


@pytest.mark.parametrize("largest", [400, 512, 900, 1 << 14])
def test_pack_in_pieces_that_fit_the_adapter(largest: int, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = backend_of(gpu)
    bits = np.random.default_rng(2).integers(0, 2, (3, 1000), dtype=np.uint8)
    expected = scgpu.pack(bits, device="numpy")
    monkeypatch.setattr(backend, "largest_buffer", largest)
    submissions = backend.submissions
    streams = scgpu.Bitstream.from_bits(bits, device=gpu)
    assert backend.submissions - submissions == {400: 9, 512: 6, 900: 6, 1 << 14: 1}[largest]
    assert np.array_equal(streams.words, expected)
    assert np.array_equal(streams.bits(), bits)
    assert np.array_equal(scgpu.pack(bits, device=gpu), expected)
    assert np.array_equal(scgpu.unpack(expected, 1000, device=gpu), bits)
    out = np.empty_like(bits)
    assert np.array_equal(scgpu.unpack(expected, 1000, out=out, device=gpu), bits)
    bits[2, 999] = 3
    with pytest.raises(ValueError, match=r"got 3 at index \(2, 999\)"):
        scgpu.pack(bits, device=gpu)
    monkeypatch.setattr(backend, "largest_buffer", 300)
    with pytest.raises(scgpu.TooLargeError, match="384 bytes are needed in one buffer"):
        scgpu.pack(bits & 1, device=gpu)


def test_pack_into_out(chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(3).integers(0, 2, (4, 130), dtype=np.uint8)
    room = np.full((6, 3), 7, np.uint64)
    out = room[1:5]
    assert scgpu.pack(bits, out=out, device=chosen) is out
    assert np.array_equal(out, scgpu.pack(bits, device="numpy"))
    assert (room[0] == 7).all() and (room[5] == 7).all()


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((2, 2), np.uint64), ValueError, r"out must have shape \(2, 1\); got \(2, 2\)"),
        (np.empty((2, 1), np.int64), TypeError, "out must be an ndarray of uint64; got dtype int64"),
        (np.empty((2, 1), ">u8"), TypeError, "out must be an ndarray of uint64; got dtype >u8"),
        ([[0], [0]], TypeError, "out must be an ndarray of uint64; got list"),
        (np.empty((4, 1), np.uint64)[::2], ValueError, "out must be C-contiguous, aligned and writeable"),
        (np.broadcast_to(np.uint64(0), (2, 1)), ValueError, "out must be C-contiguous, aligned and writeable"),
    ],
)
def test_pack_rejects_a_wrong_out(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.pack(np.zeros((2, 64), np.uint8), out=out)


def test_pack_rejects_an_out_over_its_bits() -> None:
    bits = np.zeros(64, np.uint8)
    with pytest.raises(ValueError, match="out shares memory with what it is made from"):
        scgpu.pack(bits, out=bits[8:16].view(np.uint64))


@given(
    streams=st.integers(1, 4),
    length=st.sampled_from((1, 3, 63, 64, 65, 70, 130, 256)),
    data=st.data(),
    value=st.integers(2, 255),
)
def test_pack_rejects_a_wrong_value_anywhere(
    chosen: scgpu.Device, streams: int, length: int, data: st.DataObject, value: int
) -> None:
    bits = np.ones((streams, length), np.uint8)
    row, t = data.draw(st.integers(0, streams - 1)), data.draw(st.integers(0, length - 1))
    bits[row, t] = value
    message = rf"bits must be 0 or 1; got {value} at index \({row}, {t}\)\. For truth values pass bits != 0"
    for call in (scgpu.pack, scgpu.Bitstream.from_bits):
        with pytest.raises(ValueError, match=message):
            call(bits, device=chosen)


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ([0, 2], ValueError, r"got 2 at index \(1,\)"),
        ([[0, 1], [-1, 0]], ValueError, r"got -1 at index \(1, 0\)"),
        (np.array([0, 256]), ValueError, r"got 256 at index \(1,\)"),
        (np.array([0, -1], np.int8), ValueError, r"got -1 at index \(1,\)"),
        (np.array([0.0, 1.0]), TypeError, "bits must hold booleans or the integers 0 and 1; got dtype float64"),
        ([0.5], TypeError, "got dtype float64"),
        ("0101", TypeError, "got dtype <U4"),
        (np.uint8(1), ValueError, r"bits must have shape \(\.\.\., length\); got the single value"),
        (np.ma.array([0, 1], mask=[0, 1]), TypeError, "bits is a masked array"),
        ([[0, 1], [0]], TypeError, "bits must be an array of numbers"),
        (None, TypeError, "got dtype object"),
    ],
)
def test_pack_rejects(bits: Any, error: type[Exception], message: str) -> None:
    for call in (scgpu.pack, scgpu.Bitstream.from_bits):
        with pytest.raises(error, match=message):
            call(bits, device="cpu")
    assert scgpu.pack(np.frombuffer(b"\0\1\1", np.bool_)).tolist() == [6]
    with pytest.raises(ValueError, match="bits must be 0 or 1"):
        scgpu.pack(np.frombuffer(b"\0\1\3", np.bool_))


def test_pack_rejects_lengths_past_the_contract() -> None:
    long = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (2**34,), (0,))
    for call in (scgpu.pack, scgpu.Bitstream.from_bits):
        with pytest.raises(ValueError, match=r"at most 17179869120 bits in a stream; got shape \(17179869184,\)"):
            call(long)
