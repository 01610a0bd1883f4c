"""accumulate: known answers, the definition bit by bit, parity, many inputs, pieces, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu import accumulate as module
from scgpu.accumulate import Rule, accumulate
from scgpu.backend import Backend, Step
from scgpu.devices import backend_for, backend_of

Bits = np.ndarray[Any, np.dtype[np.uint8]]


def stepped(bits: Bits, shift: int, offset: int, scale: int, limit: int) -> list[list[int]]:
    """Carries of inputs of shape (input, stream, time), one number after the other."""
    carries = []
    for stream in range(bits.shape[1]):
        held, made = 0, []
        for t in range(bits.shape[2]):
            ones = int(bits[:, stream, t].sum())
            held = max(-limit, min(held + (ones << shift) - offset, limit))
            made.append(int(held >= scale))
            held -= scale * made[-1]
        carries.append(made)
    return carries


def carries_of(chosen: scgpu.Device, bits: Bits, **rule: int) -> list[list[int]]:
    backend = backend_for(chosen)
    inputs = [scgpu.Bitstream.from_bits(row, device=chosen)._buffer for row in bits]
    result = accumulate(backend, inputs, bits.shape[1], bits.shape[2], Rule(**rule))
    (words,) = backend.execute([], [result])
    made = np.unpackbits(words.view(np.uint8).reshape(bits.shape[1], -1), axis=1, bitorder="little")
    assert not made[:, bits.shape[2] :].any()
    found: list[list[int]] = made[:, : bits.shape[2]].tolist()
    return found


def test_accumulate_known_answers(chosen: scgpu.Device) -> None:
    bits = np.array([[[1, 1, 1, 0, 0, 0, 0]], [[1, 1, 0, 0, 0, 0, 0]]], np.uint8)
    # what passes one bit at a time waits, or is cut off
    assert carries_of(chosen, bits, shift=0, offset=0, scale=1, limit=99) == [[1, 1, 1, 1, 1, 0, 0]]
    assert carries_of(chosen, bits, shift=0, offset=0, scale=1, limit=2) == [[1, 1, 1, 1, 0, 0, 0]]
    assert carries_of(chosen, bits, shift=0, offset=0, scale=2, limit=99) == [[1, 1, 0, 0, 0, 0, 0]]
    assert carries_of(chosen, bits, shift=1, offset=1, scale=2, limit=99) == [[1, 1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("inputs", [1, 3, 255, 256, 700])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 130])
def test_accumulate_is_the_definition(chosen: scgpu.Device, inputs: int, length: int) -> None:
    rng = np.random.default_rng(inputs + length)
    bits = (rng.random((inputs, 19, length)) < rng.random((19, 1))).astype(np.uint8)
    bits[:, 0] = 1  # the largest counts
    for rule in (
        {"shift": 0, "offset": 0, "scale": 1, "limit": inputs * length},
        {"shift": 1, "offset": inputs - 1, "scale": 2, "limit": 8},
        {"shift": 0, "offset": inputs // 2, "scale": inputs, "limit": 2**30},
    ):
        assert carries_of(chosen, bits, **rule) == stepped(bits, **rule)


def test_accumulate_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("accumulate", chosen, oracle, number=80)


def test_accumulate_in_pieces(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 20, 700), dtype=np.uint8)
    rule = {"shift": 0, "offset": 1, "scale": 1, "limit": 50}
    whole = carries_of(chosen, bits, **rule)
    assert whole == stepped(bits, **rule)
    for name in ("STACK_BYTES", "CACHED_BYTES"):
        monkeypatch.setattr(module, name, 7 * 3 * 11 * 8)  # seven streams of eleven words at a time
    monkeypatch.setattr(module, "PASS_STEPS", 64 * 2)
    assert carries_of(chosen, bits, **rule) == whole


def test_accumulate_keeps_its_numbers_between_long_calls(chosen: scgpu.Device) -> None:
    # 2^17 steps: a GPU makes them in several passes, each within the loop trips that rasterisers allow
    length = 1 << 17
    x = scgpu.thermometer([length // 2], length, device=chosen)
    y = scgpu.thermometer([length // 4], length, device=chosen)
    assert scgpu.unary_add([x, y]) == scgpu.thermometer([length // 2 + length // 4], length, device="numpy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_count": 3}, "inputs has 2 elements; 3 are needed"),
        ({"input_stride": 2}, "inputs has 2 elements; 3 are needed"),
        ({"stream_count": 2, "input_stride": 0}, "numbers has 1 elements; 2 are needed"),
        ({"first_word": 1}, "result has 1 elements; 2 are needed"),
        ({"limit": 2**32}, "does not fit 32 bits"),
    ],
)
def test_accumulate_rejects(change: dict[str, int], message: str, chosen: scgpu.Device) -> None:
    backend = backend_for(chosen)
    params = dict.fromkeys(("stream_count", "word_count"), 1) | {"tail_bits": 64, "word_begin": 0, "word_end": 1}
    params |= {"input_count": 2, "input_stride": 1, "first_word": 0, "shift": 0, "offset": 0, "scale": 1, "limit": 9}
    buffers = (backend.empty("u64", 2), backend.empty("i32", 1), backend.empty("u64", 1))
    with pytest.raises(ValueError, match=message):
        backend.execute([Step("accumulate", {**params, **change}, buffers)])


def test_sums_that_fit_no_buffer_together(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (3, 2, 500), dtype=np.uint8)
    plain = [scgpu.Bitstream.from_bits(row, device="numpy") for row in bits]
    expected = scgpu.unary_add(plain, scale=2)
    monkeypatch.setattr(backend_of(chosen), "largest_buffer", 64)  # eight words, two of each input
    assert scgpu.unary_add([stream.to(chosen) for stream in plain], scale=2) == expected
    monkeypatch.setattr(backend_of(chosen), "largest_buffer", 16)
    one = scgpu.thermometer([3], 128, device=chosen)
    with pytest.raises(scgpu.TooLargeError, match=r"a word of each of 3 streams needs 24 bytes; a buffer of .* has 16"):
        scgpu.unary_add([one] * 3)


def test_sums_out_of_range_are_refused() -> None:
    x = scgpu.thermometer([3], 128, device="cpu")
    long = scgpu.Bitstream(x._backend, x._parts, x.shape, 2**30, "unipolar")  # words that nobody looks at
    with pytest.raises(scgpu.TooLargeError, match="2 streams of 1073741824 bits could make the accumulator pass 10737"):
        scgpu.unary_add([long, long])
    with pytest.raises(ValueError, match="number of inputs must be from 1 to 32768; got 32769"):
        scgpu.unary_add([x] * 32769)


def test_a_tensor_is_added_up_along_its_first_axis(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(2).integers(0, 2, (5, 2, 3, 100), dtype=np.uint8)
    for polarity in ("unipolar", "bipolar"):
        tensor = scgpu.Bitstream.from_bits(bits, polarity=polarity, device=chosen)  # type: ignore[arg-type]
        rows = [scgpu.Bitstream.from_bits(row, polarity=polarity, device="numpy") for row in bits]  # type: ignore[arg-type]
        for scale in (1, 3, 5):
            added = scgpu.unary_add(tensor, scale=scale)
            assert added.shape == (2, 3) and added.device == chosen and added == scgpu.unary_add(rows, scale=scale)
    one = scgpu.Bitstream.from_bits(bits[:, 0, 0], device=chosen)
    assert scgpu.unary_add(one).shape == ()
    with pytest.raises(ValueError, match="along its first axis; got one stream"):
        scgpu.unary_add(scgpu.unary_add(one))
    with pytest.raises(ValueError, match="number of inputs must be from 1 to 32768; got 0"):
        scgpu.unary_add(scgpu.thermometer(np.empty((0, 3), int), 100, device=chosen))
    monkeypatch.setattr(backend_of(chosen), "largest_buffer", 64)
    with pytest.raises(scgpu.TooLargeError, match=r"inputs lies in several buffers of .* as a list of Bitstreams"):
        scgpu.unary_add(scgpu.Bitstream.from_bits(bits, device=chosen))
