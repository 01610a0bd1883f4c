"""delay: streams later by some bits: parity, the definition, lengths, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu.backend import Backend
from scgpu.devices import backend_of


def test_delay_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("delay", chosen, oracle)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_delay_is_a_shift_of_the_bits(length: int, chosen: scgpu.Device) -> None:
    bits = np.random.default_rng(length).integers(0, 2, (2, 3, length), dtype=np.uint8)
    streams = scgpu.Bitstream.from_bits(bits, polarity="bipolar", device=chosen)
    for cycles in {0, 1, 31, 32, 33, 63, 64, 65, 128, length - 1, length}:
        if cycles <= length:
            late = streams.delayed(cycles)
            expected = np.concatenate([np.zeros((2, 3, cycles), np.uint8), bits[..., : length - cycles]], axis=-1)
            assert (late.shape, late.length, late.polarity, late.device) == ((2, 3), length, "bipolar", chosen)
            assert np.array_equal(late.bits(), expected), cycles
            # from_words refuses ones past the length
            assert scgpu.Bitstream.from_words(late.words, length, polarity="bipolar", device="numpy") == late
    assert np.array_equal(streams.bits(), bits)


def test_delay_of_no_streams(chosen: scgpu.Device) -> None:
    streams = scgpu.Bitstream.from_bits(np.empty((0, 70), np.uint8), device=chosen)
    assert streams.delayed(3) == streams


def test_delay_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scgpu.encode(np.linspace(0, 1, 21).reshape(7, 3), 500, 5, device="numpy")
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 400)
    split = plain.to(gpu)
    assert len(split._parts) == 4
    assert split.delayed(77) == plain.delayed(77)


def test_delay_rejects(chosen: scgpu.Device) -> None:
    streams = scgpu.encode([0.5], 100, device=chosen)
    for cycles in (-1, 101):
        with pytest.raises(ValueError, match=f"cycles must be from 0 to 100; got {cycles}"):
            streams.delayed(cycles)
    for wrong in (1.0, True, None):
        bad: Any = wrong
        with pytest.raises(TypeError, match="cycles must be an integer"):
            streams.delayed(bad)
