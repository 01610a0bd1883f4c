"""The 16-bit shift register and its encoder: vectors of the reference, the definition step by step, refusals."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import backend
from scgpu.devices import backend_of
from scgpu.lfsr16 import lfsr_streams

SEEDS = st.integers(1, 65535)


def stepped(register: int, count: int) -> list[int]:
    """States by the definition, bit by bit: b[t] = b[t - 16] ^ b[t - 14] ^ b[t - 13] ^ b[t - 11]."""
    bits = [register >> k & 1 for k in range(15, -1, -1)]
    for _ in range(count):
        bits.append(bits[-16] ^ bits[-14] ^ bits[-13] ^ bits[-11])
    return [int("".join(map(str, bits[t : t + 16])), 2) for t in range(1, count + 1)]


def defined_words(p: float, length: int, register: int) -> list[int]:
    """Words of a stream of `lfsr_streams` by the definition, in Python integers."""
    x = round(65536 * p)
    states = [register, *stepped(register, length - 1)]
    number = sum((state < x) << t for t, state in enumerate(states))
    return [number >> 64 * w & 2**64 - 1 for w in range(-(-length // 64))]


def test_lfsr16_matches_golden_states(golden: dict[str, Any]) -> None:
    (case,) = [case for case in golden["lfsr"].values() if "states" in case]
    assert case["states"].shape == (10, 300)
    for seed, states in zip(case["seeds"].tolist(), case["states"].tolist(), strict=True):
        register = scgpu.Lfsr16(seed)
        assert [register.step() for _ in states] == states
        register.reset()
        assert register.states(300).tolist() == states
        assert register.reg == states[-1] and register.width == 16


def test_lfsr16_matches_golden_period(golden: dict[str, Any]) -> None:
    case = golden["lfsr"]["full"]
    register = scgpu.Lfsr16(int(case["seed"]))
    states = register.states(int(case["period"]))
    assert states.dtype == np.uint16 and states[-1] == case["last"] == case["seed"] == register.reg
    assert zlib.crc32(states.astype("<u2").tobytes()) == case["crc32_le_u16"]
    assert [states[999], states[32767]] == case["at_1000_32768"].tolist()
    assert np.array_equal(np.sort(states), np.arange(1, 65536))
    assert np.array_equal(register.states(2 * 65535 + 3), np.concatenate([states, states, states[:3]]))


def test_lfsr16_matches_golden_resets(golden: dict[str, Any]) -> None:
    case = golden["lfsr"]["reset"]
    register = scgpu.Lfsr16(int(case["seed"]))
    seen = []
    for act in "SSR S2SSRS".replace(" ", ""):
        if act == "S":
            register.step()
        else:
            register.reset(int(case["seed2"]) if act == "2" else None)
        seen.append(register.reg)
    assert seen == case["reg_after_ops_SSR_S_R2_SSR_S"].tolist()


@given(seed=SEEDS, counts=st.lists(st.integers(0, 70), max_size=4))
def test_lfsr16_states_are_steps(seed: int, counts: list[int]) -> None:
    register = scgpu.Lfsr16(seed)
    made = [state for count in counts for state in register.states(count).tolist()]
    assert made == stepped(seed, sum(counts))
    assert register.step() == stepped(seed, sum(counts) + 1)[-1]


def test_lfsr16_rejects() -> None:
    for seed, error, message in (
        (0, ValueError, "seed must be from 1 to 65535; got 0"),
        (65536, ValueError, "seed must be from 1 to 65535; got 65536"),
        (-1, ValueError, "seed must be from 1 to 65535; got -1"),
        (1.0, TypeError, "seed must be an integer"),
        (True, TypeError, "seed must be an integer"),
    ):
        with pytest.raises(error, match=message):
            scgpu.Lfsr16(seed)  # type: ignore[arg-type]
        register = scgpu.Lfsr16(7)
        register.step()
        with pytest.raises(error, match=message):
            register.reset(seed)  # type: ignore[arg-type]
        assert register.reg == 14
        register.reset()
        assert register.reg == 7
    for count, error in ((-1, ValueError), (2**34, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="count must be"):
            register.states(count)  # type: ignore[arg-type]
    assert register.reg == 7
    with pytest.raises(AttributeError):
        register.reg = 5  # type: ignore[misc]


def test_encoder_matches_golden(golden: dict[str, Any]) -> None:
    const = golden["encoder"]["const"]
    assert const["bits"].shape == (16, 500)
    cases = [
        (seed, np.full(500, x), bits, reg)
        for seed, x, bits, reg in zip(const["seed"], const["x"], const["bits"], const["reg_after"], strict=True)
    ]
    varied = [case for name, case in golden["encoder"].items() if name.startswith("var")]
    assert len(varied) == 3
    cases += [(case["seed"], case["x"], case["bits"], case["reg_after"]) for case in varied]
    for seed, x, bits, register in cases:
        encoder = scgpu.BitstreamEncoder(seed=int(seed))
        assert encoder.reg == seed and encoder.data_width == 16
        assert [encoder.step(value) for value in x.tolist()] == bits.tolist()
        assert encoder.reg == register
        encoder.reset()
        made = encoder.bits(x)
        assert made.dtype == np.uint8 and np.array_equal(made, bits) and encoder.reg == register


def test_encoder_matches_golden_ones_of_a_period(golden: dict[str, Any]) -> None:
    case = golden["encoder"]["const"]
    for seed, x, ones in zip(case["seed"].tolist(), case["x"].tolist(), case["ones_in_65535"].tolist(), strict=True):
        assert scgpu.BitstreamEncoder(seed=seed).bits(np.full(65535, x)).sum() == ones == max(x - 1, 0)


def test_encoder_rejects() -> None:
    encoder = scgpu.BitstreamEncoder(seed=9)
    for x, error in ((-1, ValueError), (65536, ValueError), (0.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="x_value must be"):
            encoder.step(x)  # type: ignore[arg-type]
    for values, error, message in (
        ([1, 65536], ValueError, r"x_values must lie in \[0, 65535\]; got 65536 at index \(1,\)"),
        ([-1], ValueError, r"got -1 at index \(0,\)"),
        ([0.5], TypeError, "x_values must hold integers; got dtype float64"),
        ([[1]], ValueError, r"x_values must have shape \(n,\); got \(1, 1\)"),
        (3, ValueError, r"x_values must have shape \(n,\); got \(\)"),
    ):
        with pytest.raises(error, match=message):
            encoder.bits(values)  # type: ignore[arg-type]
    assert encoder.bits([]).shape == (0,)
    assert encoder.reg == 9
    with pytest.raises(ValueError, match=r"data_width must be 16; got 8\. Scale the values"):
        scgpu.BitstreamEncoder(8)
    with pytest.raises(TypeError, match="data_width must be an integer"):
        scgpu.BitstreamEncoder(16.0)  # type: ignore[arg-type]
    assert repr(encoder) == "BitstreamEncoder(reg=0x0009)"
    assert repr(scgpu.Lfsr16(10)) == "Lfsr16(seed=0x000a), reg=0x000a"
    with pytest.raises(ValueError, match="seed must be from 1 to 65535; got 0"):
        scgpu.BitstreamEncoder(seed=0)
    with pytest.raises(ValueError, match="seed must be from 1 to 65535; got 0"):
        encoder.reset(0)


def test_lfsr_streams_match_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    assert len(golden["sc_forward"]) >= 8
    for name, case in golden["sc_forward"].items():
        if name:
            length = int(case["length"])
            streams = lfsr_streams(case["probs"], length, int(case["seed"]), device=chosen)
            assert streams.device == chosen and streams.length == length
            assert np.array_equal(streams.words, case["input_words"]), name


@given(
    p=st.lists(st.floats(0, 1) | st.integers(0, 131072).map(lambda k: k / 131072), min_size=1, max_size=4),
    length=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1) | st.sampled_from((0, 65535, 65536, 2**32 - 1)),
)
def test_lfsr_streams_equal_the_definition(p: list[float], length: int, seed: int) -> None:
    expected = [defined_words(one, length, (seed + i) % 65536 or 1) for i, one in enumerate(p)]
    for device in ("numpy", "cpu"):
        assert lfsr_streams(p, length, seed, device=device).words.tolist() == expected


def test_lfsr_streams_repeat_after_a_period(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    p, length = [0.3, 1.0, 0.0, 0.7], 2 * 65535 + 70
    streams = lfsr_streams(p, length, 77, device=chosen)
    bits = streams.bits()
    assert np.array_equal(bits[:, :65535], bits[:, 65535 : 2 * 65535])
    assert np.array_equal(bits[:, :70], bits[:, -70:])
    assert bits[:, :65535].sum(axis=1).tolist() == [max(round(65536 * one) - 1, 0) for one in p]
    monkeypatch.setattr(backend_of(chosen), "largest_buffer", 2 * 8 * -(-length // 64))
    split = lfsr_streams(p, length, 77, device=chosen)
    assert len(split._parts) == 2 and split == streams


def test_lfsr_streams_are_made_on_the_device(chosen: scgpu.Device) -> None:
    lfsr_streams([0.5], 64, device=chosen)  # the states get there once
    with scgpu.profile() as found:
        lfsr_streams([0.5, 0.25], 1000, device=chosen)
    assert [event.name for event in found.events if event.kind == "kernel"] == ["compare"]
    assert lfsr_streams(np.empty(0), 100, device=chosen).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"p": [0.5, 1.1]}, ValueError, r"p must lie in \[0, 1\]; got 1.1 at index \(1,\)"),
        ({"p": [[0.5]]}, ValueError, r"p must have shape \(n,\); got \(1, 1\)"),
        ({"length": 0}, ValueError, "length must be from 1"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 4294967295; got -1"),
        ({"seed": 2**32}, ValueError, "seed must be from 0 to 4294967295; got 4294967296"),
    ],
)
def test_lfsr_streams_rejects(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lfsr_streams(**{"p": [0.5, 0.5], "length": 64, "device": "numpy"} | changes)


def test_lfsr_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "free_memory", lambda: 1 << 27)
    with pytest.raises(scgpu.TooLargeError, match="bytes are needed"):
        lfsr_streams([0.5], 2**34 - 64, device="numpy")
    register = scgpu.Lfsr16()
    with pytest.raises(scgpu.TooLargeError, match="bytes are needed"):
        register.states(2**34 - 64)
    assert register.reg == 0xACE1
