"""Bitstream: words in and out, devices, equality, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu.devices import backend_of


def test_from_words_round_trip(chosen: scgpu.Device) -> None:
    words = np.random.default_rng(0).integers(0, 2**64, (3, 2, 4), dtype=np.uint64)
    words[..., -1] >>= np.uint64(64 - 8)
    streams = scgpu.Bitstream.from_words(words, 200, device=chosen)
    assert streams.shape == (3, 2) and streams.length == 200 and streams.device == chosen
    assert np.array_equal(streams.words, words) and streams.words.dtype == np.uint64
    bits = streams.bits()
    for t in (0, 63, 64, 199):
        assert np.array_equal(bits[..., t], words[..., t // 64] >> np.uint64(t % 64) & np.uint64(1))


def test_from_words_reads_any_layout(chosen: scgpu.Device) -> None:
    base = np.random.default_rng(0).integers(0, 2**64, (6, 8), dtype=np.uint64)
    part = base[::2, ::4]
    big_endian = part.astype(">u8")
    for words in (part, np.asfortranarray(part), big_endian):
        words.flags.writeable = False
        assert np.array_equal(scgpu.Bitstream.from_words(words, 128, device=chosen).words, part)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_from_bits_round_trip(length: int, chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(length).integers(0, 2, (3, 2, length), dtype=np.uint8)
    streams = scgpu.Bitstream.from_bits(bits, polarity="bipolar", device=chosen)
    assert streams.shape == (3, 2) and streams.length == length and streams.device == chosen
    assert streams.polarity == "bipolar"
    assert streams == scgpu.Bitstream.from_words(scgpu.pack(bits), length, polarity="bipolar", device="numpy")
    assert np.array_equal(streams.bits(), bits) and streams.bits().dtype == np.uint8
    assert np.array_equal(streams.count(), bits.sum(axis=-1))
    bits[:] = 0
    assert streams.count().any()


def test_from_bits_of_no_streams(chosen: scgpu.Device) -> None:
    streams = scgpu.Bitstream.from_bits(np.empty((0, 70), np.uint8), device=chosen)
    assert streams.shape == (0,) and streams.length == 70
    assert streams.bits().shape == (0, 70) and streams.words.shape == (0, 2) and streams.count().shape == (0,)


def test_from_bits_rejects() -> None:
    with pytest.raises(ValueError, match="length must be from 1"):
        scgpu.Bitstream.from_bits(np.empty((3, 0), np.uint8))
    with pytest.raises(ValueError, match="polarity must be one of"):
        scgpu.Bitstream.from_bits([0, 1], polarity="up")  # type: ignore[arg-type]


def test_from_words_copies(chosen: scgpu.Device) -> None:
    words = np.zeros((2, 1), np.uint64)
    streams = scgpu.Bitstream.from_words(words, 64, device=chosen)
    words[:] = 1
    assert not streams.words.any()
    with pytest.raises(ValueError, match="read-only"):
        streams.words[0, 0] = 1
    assert not streams.words.any()


def test_stays_on_its_device(chosen: scgpu.Device) -> None:
    streams = scgpu.encode([0.2, 0.9], 300, device=chosen)
    assert streams.to(chosen) is streams
    for other in scgpu.devices():
        moved = streams.to(other)
        assert moved.device == other and moved == streams and moved.to(chosen) == streams


def test_equality() -> None:
    a = scgpu.encode([0.5, 0.25], 100, device="cpu")
    assert a == scgpu.encode([0.5, 0.25], 100, device="numpy")
    assert a != scgpu.encode([0.5, 0.25], 100, 1, device="cpu")
    assert a != scgpu.encode([0.5, 0.25], 101, device="cpu")
    assert a != scgpu.Bitstream.from_words(a.words, 100, polarity="bipolar", device="cpu")
    assert a != scgpu.encode([[0.5, 0.25]], 100, device="cpu")
    assert a != 3
    assert "Bitstream(shape=(2,), length=100" in repr(a)


def test_value(chosen: scgpu.Device) -> None:
    words = np.array([[0b1011], [0]], np.uint64)
    assert scgpu.Bitstream.from_words(words, 4, device=chosen).value().tolist() == [0.75, 0.0]
    assert scgpu.Bitstream.from_words(words, 4, polarity="bipolar", device=chosen).value().tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("words", "length", "options", "error", "message"),
    [
        (np.array([1 << 20], np.uint64), 20, {}, ValueError, r"ones past length=20 in stream \(\); clear"),
        (np.array([[0], [1 << 63]], np.uint64), 63, {}, ValueError, r"in stream \(1,\)"),
        (np.zeros((2, 2), np.uint64), 64, {}, ValueError, r"have shape \(\.\.\., 1\) for length=64; got \(2, 2\)"),
        (np.zeros(2, np.int64), 128, {}, TypeError, "words must be an ndarray of uint64; got dtype int64"),
        (np.zeros(4, np.uint32), 128, {}, TypeError, "words must be uint64; got uint32"),
        ([0, 1], 128, {}, TypeError, "words must be an ndarray of uint64; got list"),
        (np.uint64(3), 64, {}, TypeError, "words must be an ndarray"),
        (np.array(3, np.uint64), 64, {}, ValueError, "words must have shape"),
        (np.zeros(1, np.uint64), 0, {}, ValueError, "length must be from 1"),
        (np.zeros(1, np.uint64), 64, {"polarity": "up"}, ValueError, "polarity must be one of"),
        (np.ma.zeros(1, np.uint64), 64, {}, TypeError, "words must be"),
    ],
)
def test_from_words_rejects(
    words: Any, length: int, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scgpu.Bitstream.from_words(words, length, device="cpu", **options)


def test_pooled_memory_is_not_shared_between_streams(gpu: scgpu.Device) -> None:
    # buffers return to the pool when streams die; live ones must keep their bits
    kept = [scgpu.encode([i / 20], 500, i, device=gpu) for i in range(20)]
    backend: Any = backend_of(gpu)
    owned = len(backend._storage._owned)
    for i in range(100):
        scgpu.encode([0.5], 500, i, device=gpu)
    for i, streams in enumerate(kept):
        assert streams == scgpu.encode([i / 20], 500, i, device="numpy")
    assert len(backend._storage._owned) < owned + 10


@pytest.mark.parametrize("largest", [64, 192, 400, 10_000])
def test_bitstreams_in_several_buffers(largest: int, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    # a stream of 500 bits takes 64 bytes, a row of three 192: parts of rows, rows, several rows, all
    p = np.random.default_rng(0).random((7, 3))
    plain = scgpu.encode(p, 500, 5, first_sample=2, first_stream=4, device="numpy")
    other = scgpu.encode(p[::-1], 500, 6, device="numpy")
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", largest)
    split = scgpu.encode(p, 500, 5, first_sample=2, first_stream=4, device=gpu)
    assert len(split._parts) == {64: 21, 192: 7, 400: 4, 10_000: 1}[largest]
    assert (
        split == plain and np.array_equal(split.count(), plain.count()) and np.array_equal(split.bits(), plain.bits())
    )
    assert scgpu.Bitstream.from_words(plain.words, 500, device=gpu) == plain == split.to("numpy") == plain.to(gpu)
    assert scgpu.Bitstream.from_bits(plain.bits(), device=gpu) == plain
    assert split & other == plain & other and split | other == plain | other and split ^ other == plain ^ other
    assert ~split == ~plain
    layer = scgpu.DenseLayer(3, 2, 500, device="numpy")
    if largest >= 192:
        on_gpu = scgpu.DenseLayer(3, 2, 500, device=gpu)
        assert np.array_equal(on_gpu.counts_prepacked(split), layer.counts_prepacked(plain))
    monkeypatch.setattr(backend, "largest_buffer", 63)
    with pytest.raises(scgpu.TooLargeError, match=r"p of shape \(7, 3\) .* does not fit: 64 bytes are needed"):
        scgpu.encode(p, 500, device=gpu)


def test_a_sample_split_over_buffers_is_refused(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(3, 2, 100, device=gpu)
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 32)
    streams = scgpu.encode(np.zeros((2, 3)), 100, device=gpu)
    with pytest.raises(scgpu.TooLargeError, match=r"one sample \(n_inputs=3, length=100\) do not fit a buffer"):
        layer.counts_prepacked(streams)


def test_bitstreams_above_a_buffer_of_the_adapter(gpu: scgpu.Device) -> None:
    # 131 MiB; software adapters bind 128
    p = np.zeros((1050, 1024))
    p[::5], p[-1] = 0.5, 1.0
    streams = scgpu.encode(p, 1024, device=gpu)
    assert len(streams._parts) == -(-1050 * (1 << 17) // backend_of(gpu).largest_buffer)
    assert np.array_equal(
        streams.count()[[0, 1, 1045, 1049]], scgpu.encode(p, 1024, device="cpu").count()[[0, 1, 1045, 1049]]
    )
