"""faults: the rules bit by bit, every device, extremes, known answers, statistics, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scgpu
from scgpu.devices import backend_of

LENGTHS = (1, 63, 64, 65, 200)
KEY: dict[str, Any] = {"seed": 2**40 + 7, "tensor_id": 5, "first_sample": 3, "first_stream": 9}
Bits = NDArray[np.uint8]


def streams_of(shape: tuple[int, ...], length: int, device: scgpu.Device | str) -> scgpu.Bitstream:
    bits = np.random.default_rng(length).integers(0, 2, (*shape, length), dtype=np.uint8)
    return scgpu.Bitstream.from_bits(bits, polarity="bipolar", device=device)


def faults_of(rates: Any, shape: tuple[int, ...], length: int) -> Bits:
    """Bernoulli bits of purpose noise from the oracle, of shape (*shape, length)."""
    rows = np.broadcast_to(rates, shape).reshape(-1, shape[-1])
    return scgpu.encode(rows, length, purpose="noise", device="numpy", **KEY).bits().reshape(*shape, length)


def flipped(bits: Bits, faults: Bits, burst: int) -> Bits:
    result = bits.copy()
    for t in range(bits.shape[-1]):
        result[..., t] ^= faults[..., max(0, t - burst + 1) : t + 1].max(axis=-1)
    return result


def held(bits: Bits, dropped: Bits) -> Bits:
    result = bits.copy()
    last = np.zeros(bits.shape[:-1], np.uint8)
    for t in range(bits.shape[-1]):
        last = np.where(dropped[..., t] == 1, last, bits[..., t])
        result[..., t] = last
    return result


def same_form(result: scgpu.Bitstream, streams: scgpu.Bitstream) -> bool:
    """Form of the streams kept, and nothing past the length: `from_words` refuses that."""
    again = scgpu.Bitstream.from_words(result.words, streams.length, polarity=streams.polarity, device="numpy")
    return again == result and (result.shape, result.device) == (streams.shape, streams.device)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_faults_follow_their_rules(shape: tuple[int, ...], length: int, chosen: scgpu.Device) -> None:
    streams = streams_of(shape, length, chosen)
    bits = streams.bits()
    rates = np.linspace(0, 1, shape[-1]) ** 3
    faults = faults_of(rates, shape, length)
    for burst in {1, 2, 3, 7, 64, length} & set(range(1, length + 1)):
        found = scgpu.flip_bits(streams, rates, burst=burst, **KEY)
        assert same_form(found, streams) and np.array_equal(found.bits(), flipped(bits, faults, burst)), burst
    for value in (0, 1):
        found = scgpu.stuck_at(streams, value, rates, **KEY)
        assert same_form(found, streams) and np.array_equal(found.bits(), np.where(faults == 1, value, bits))
        found = scgpu.stuck_at(streams, value, rates, each="stream", **KEY)
        assert same_form(found, streams) and np.array_equal(found.bits(), np.where(faults[..., :1] == 1, value, bits))
    found = scgpu.drop_cycles(streams, rates, **KEY)
    assert same_form(found, streams) and np.array_equal(found.bits(), held(bits, faults))
    assert np.array_equal(streams.bits(), bits)


@pytest.mark.parametrize("length", LENGTHS)
def test_extreme_rates(length: int, chosen: scgpu.Device) -> None:
    streams = streams_of((4,), length, chosen)
    assert scgpu.flip_bits(streams, 0.0) == streams and scgpu.flip_bits(streams, 1.0) == ~streams
    assert (
        scgpu.flip_bits(streams, 0, burst=length) == streams and scgpu.flip_bits(streams, 1, burst=length) == ~streams
    )
    assert scgpu.flip_bits(scgpu.flip_bits(streams, 0.3, 5), 0.3, 5) == streams
    for each in ("bit", "stream"):
        kind: Any = each
        assert scgpu.stuck_at(streams, 0, 0.0, each=kind) == scgpu.stuck_at(streams, 1, 0.0, each=kind) == streams
        assert scgpu.stuck_at(streams, 0, 1.0, each=kind).count().tolist() == [0] * 4
        assert scgpu.stuck_at(streams, 1, 1.0, each=kind).count().tolist() == [length] * 4
    assert scgpu.drop_cycles(streams, 0.0) == streams
    assert scgpu.drop_cycles(streams, 1.0).count().tolist() == [0] * 4


def test_known_answers(chosen: scgpu.Device) -> None:
    zeros = scgpu.Bitstream.from_bits(np.zeros((2, 70), np.uint8), device=chosen)
    ramp = scgpu.Bitstream.from_bits(np.arange(140).reshape(2, 70) % 2, device=chosen)
    found = {
        "flip": scgpu.flip_bits(zeros, 0.1, 42),
        "burst": scgpu.flip_bits(zeros, 0.03, 42, burst=5),
        "stuck": scgpu.stuck_at(ramp, 1, 0.1, 42),
        "drop": scgpu.drop_cycles(ramp, 0.4, 42),
    }
    assert {name: streams.words.tolist() for name, streams in found.items()} == {
        "flip": [[0x200430000080002, 0], [0x2103050000200882, 0]],
        "burst": [[0x7C00000000000, 0], [0x1F0000000F80, 0]],
        "stuck": [[0xAAAAEBAAAAAAAAAA, 42], [0xABABAFAAAAAAAAAA, 42]],
        "drop": [[0x8AEEB8080FE22F8, 46], [0x3AB8F80BB8AE208, 14]],
    }


def test_no_streams_and_one(chosen: scgpu.Device) -> None:
    faults: tuple[Callable[[scgpu.Bitstream], scgpu.Bitstream], ...] = (
        lambda streams: scgpu.flip_bits(streams, 0.5, burst=3),
        lambda streams: scgpu.stuck_at(streams, 1, 0.5),
        lambda streams: scgpu.stuck_at(streams, 0, 0.5, each="stream"),
        lambda streams: scgpu.drop_cycles(streams, 0.5),
    )
    one = scgpu.Bitstream.from_bits(np.arange(70) % 2, device=chosen)
    for fault in faults:
        for shape in ((0,), (0, 3), (3, 0)):
            streams = scgpu.Bitstream.from_bits(np.empty((*shape, 70), np.uint8), device=chosen)
            assert fault(streams) == streams
        assert fault(one).shape == ()
        assert fault(one).words.tolist() == fault(one._reshaped(1)).words[0].tolist()


def test_rows_and_columns_alone_are_those_of_the_batch(chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (4, 6, 100), dtype=np.uint8)
    whole = scgpu.flip_bits(scgpu.Bitstream.from_bits(bits, device=chosen), 0.2, 7, burst=3).bits()
    part = scgpu.Bitstream.from_bits(bits[2:, 1:], device=chosen)
    assert np.array_equal(scgpu.flip_bits(part, 0.2, 7, burst=3, first_sample=2, first_stream=1).bits(), whole[2:, 1:])


def test_faults_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = streams_of((2, 3, 3), 500, "numpy")
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 400)
    split = plain.to(gpu)
    assert len(split._parts) > 1
    assert scgpu.flip_bits(split, 0.1, burst=9, **KEY) == scgpu.flip_bits(plain, 0.1, burst=9, **KEY)
    assert scgpu.stuck_at(split, 1, 0.5, each="stream", **KEY) == scgpu.stuck_at(plain, 1, 0.5, each="stream", **KEY)
    assert scgpu.drop_cycles(split, 0.6, **KEY) == scgpu.drop_cycles(plain, 0.6, **KEY)


def test_shares_of_faults() -> None:
    length, count = 1 << 16, 8
    zeros = scgpu.Bitstream.from_bits(np.zeros((count, length), np.uint8), device="cpu")
    total = count * length

    def close(found: float, expected: float, variance: float) -> bool:
        return abs(found - expected) < 5 * np.sqrt(variance / total)

    for rate in (0.001, 0.1, 0.5):
        assert close(scgpu.flip_bits(zeros, rate, 3).value().mean(), rate, rate * (1 - rate))
        assert close(scgpu.stuck_at(zeros, 1, rate, 3).value().mean(), rate, rate * (1 - rate))
    share = 1 - 0.99**10
    # bits of one burst are no independent samples: 19 of them are correlated
    assert close(scgpu.flip_bits(zeros, 0.01, 3, burst=10).value().mean(), share, 19 * share * (1 - share))
    few = scgpu.Bitstream.from_bits(np.zeros((10_000, 1), np.uint8), device="cpu")
    stuck = scgpu.stuck_at(few, 1, 0.2, 3, each="stream").count().sum()
    assert abs(stuck - 2000) < 5 * np.sqrt(10_000 * 0.2 * 0.8)


def test_bursts_have_their_length() -> None:
    zeros = scgpu.Bitstream.from_bits(np.zeros((1, 1 << 16), np.uint8), device="cpu")
    bits = scgpu.flip_bits(zeros, 1e-4, 1, burst=100).bits()[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bits, [0]]).astype(int)))
    runs = (edges[1::2] - edges[::2])[:-1]  # the last may be cut off
    assert runs.size >= 3 and runs.min() == 100


def test_dropped_cycles_keep_the_value_and_correlate_the_bits() -> None:
    length = 1 << 18
    streams = scgpu.encode([0.25], length, 1, device="cpu")
    held_bits = scgpu.drop_cycles(streams, 0.5, 2).bits()[0].astype(float)
    assert abs(held_bits.mean() - 0.25) < 5 * np.sqrt(3 * 0.25 * 0.75 / length)  # (1 + r) / (1 - r) of the variance
    centred = held_bits - held_bits.mean()
    for lag in (1, 2, 3):
        correlation = np.mean(centred[lag:] * centred[:-lag]) / centred.var()
        assert abs(correlation - 0.5**lag) < 0.02


def test_faults_of_other_keys_are_others() -> None:
    zeros = scgpu.Bitstream.from_bits(np.zeros((3, 1000), np.uint8), device="cpu")
    found = [
        scgpu.flip_bits(zeros, 0.5, **options).words.tobytes()
        for options in ({}, {"seed": 1}, {"tensor_id": 1}, {"first_sample": 1}, {"first_stream": 1})
    ]
    assert len(set(found)) == len(found)
    inputs = scgpu.encode([0.5] * 3, 1000, device="cpu")
    assert found[0] != inputs.words.tobytes()  # purpose noise, not input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 1.5}, ValueError, r"rate must lie in \[0, 1\]; got 1.5"),
        ({"rate": [0.1, -0.1]}, ValueError, r"rate must lie in \[0, 1\]; got -0.1 at index \(1,\)"),
        ({"rate": float("nan")}, ValueError, r"rate must lie in \[0, 1\]; got nan"),
        ({"rate": "much"}, TypeError, "rate must hold real numbers"),
        ({"rate": [0.1] * 3}, ValueError, r"rate must be a number, or broadcast .*, \(2,\); got shape \(3,\)"),
        ({"rate": [[0.1, 0.2]]}, ValueError, r"got shape \(1, 2\)"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"tensor_id": 2**24}, ValueError, "tensor_id must be from 0"),
        ({"first_sample": -1}, ValueError, "first_sample must be from 0"),
        ({"first_stream": 2**32}, ValueError, "first_stream must be from 0"),
    ],
)
def test_faults_reject(options: dict[str, Any], error: type[Exception], message: str) -> None:
    streams: Any = scgpu.encode([0.5, 0.5], 100, device="cpu")
    options = {"rate": 0.1, **options}
    for fault in (scgpu.flip_bits, scgpu.drop_cycles):
        with pytest.raises(error, match=message):
            fault(streams, **options)
    for each in ("bit", "stream"):
        with pytest.raises(error, match=message):
            scgpu.stuck_at(streams, 1, each=each, **options)


def test_faults_reject_what_is_their_own() -> None:
    streams = scgpu.encode([0.5, 0.5], 100, device="cpu")
    for burst in (0, 101):
        with pytest.raises(ValueError, match=f"burst must be from 1 to 100; got {burst}"):
            scgpu.flip_bits(streams, 0.1, burst=burst)
    with pytest.raises(ValueError, match="value must be from 0 to 1; got 2"):
        scgpu.stuck_at(streams, 2, 0.1)
    with pytest.raises(ValueError, match="each must be one of 'bit', 'stream'; got 'word'"):
        scgpu.stuck_at(streams, 1, 0.1, each="word")  # type: ignore[arg-type]
    words: Any = streams.words
    for fault in (scgpu.flip_bits, scgpu.drop_cycles):
        with pytest.raises(TypeError, match="streams must be a Bitstream; got ndarray"):
            fault(words, 0.1)
    with pytest.raises(TypeError, match="streams must be a Bitstream; got ndarray"):
        scgpu.stuck_at(words, 0, 0.1)
