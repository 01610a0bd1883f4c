"""activation: the exact formula, parity, refusals."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.activation import activation_step
from scgpu.backend import Backend
from scgpu.devices import backend_of

U32 = st.integers(0, 2**32 - 1)


def thresholds(device: scgpu.Device | str, counts: list[int], offset: int, full_scale: int, floor: int) -> list[int]:
    backend = backend_of(scgpu.device(device))
    out = backend.empty("u32", len(counts))
    integers = {"offset": offset, "full_scale": full_scale, "floor": floor}
    step = activation_step(backend.upload(np.array(counts, np.uint32)), out, len(counts), integers)
    return backend.execute([step], [out])[0].tolist()  # type: ignore[no-any-return]


def exact(count: int, offset: int, full_scale: int, floor: int) -> int:
    c = max(count - offset, 0)
    return max(floor, 2**32 - 1 if c >= full_scale else math.floor(Fraction(c * 2**32, full_scale)))


@given(
    counts=st.lists(U32, min_size=1, max_size=70),
    offset=st.sampled_from((0, 1)) | U32,
    full_scale=st.sampled_from((1, 2**31, 2**32 - 1)) | st.integers(1, 2**32 - 1),
    floor=st.sampled_from((0, 2**31)),
)
def test_activation_is_exact(chosen: scgpu.Device, counts: list[int], offset: int, full_scale: int, floor: int) -> None:
    expected = [exact(count, offset, full_scale, floor) for count in counts]
    assert thresholds(chosen, counts, offset, full_scale, floor) == expected
    assert thresholds("numpy", counts, offset, full_scale, floor) == expected


@pytest.mark.parametrize("full_scale", [1, 2, 3, 7, 64, 100])
def test_activation_exhaustively(full_scale: int, chosen: scgpu.Device) -> None:
    counts = list(range(2 * full_scale + 3))
    assert thresholds(chosen, counts, 1, full_scale, 0) == [exact(count, 1, full_scale, 0) for count in counts]


def test_activation_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("activation", chosen, oracle)


def test_activation_past_65535_workgroups(chosen: scgpu.Device) -> None:
    counts = np.arange(65_535 * 64 + 65, dtype=np.uint32)
    got = thresholds(chosen, counts.tolist(), 0, 2**23, 0)
    assert got[-1] == exact(int(counts[-1]), 0, 2**23, 0) and got[65_535 * 64 - 1] == (65_535 * 64 - 1) << 9


@pytest.mark.parametrize(
    ("activation", "polarity", "expected"),
    [
        (scgpu.Activation(), "unipolar", (0, 1000, 0)),
        (scgpu.Activation("relu"), "unipolar", (0, 1000, 0)),
        (scgpu.Activation("clip", 2.5), "unipolar", (0, 250, 0)),
        (scgpu.Activation(), "bipolar", (0, 1000, 0)),
        (scgpu.Activation("clip", 2), "bipolar", (400, 200, 0)),
        (scgpu.Activation("relu", 2), "bipolar", (400, 200, 2**31)),
        (scgpu.Activation("clip", 1e-9), "unipolar", (0, 1, 0)),
        (scgpu.Activation("clip", np.float32(2.5)), "unipolar", (0, 250, 0)),  # type: ignore[arg-type]
        (scgpu.Activation("clip", np.int64(2)), "bipolar", (400, 200, 0)),  # type: ignore[arg-type]
    ],
)
def test_activation_integers(activation: scgpu.Activation, polarity: Any, expected: tuple[int, int, int]) -> None:
    assert tuple(activation.integers(10, 100, polarity).values()) == expected


def test_activation_is_the_function_of_the_value() -> None:
    # bipolar value v of a count, scaled and clipped, against what the thresholds stand for
    n, length, scale = 8, 512, 3.0
    counts = np.arange(n * length + 1)
    v = 2 * counts / length - n
    for kind in ("clip", "relu"):
        integers = scgpu.Activation(kind, scale).integers(n, length, "bipolar")  # type: ignore[arg-type]
        p = np.array(thresholds("cpu", counts.tolist(), **integers)) / 2**32
        expected = np.clip(v / scale, -1 if kind == "clip" else 0, 1)
        assert np.abs(2 * p - 1 - expected).max() < 1e-9


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("tanh",), ValueError, "activation must be one of 'clip', 'relu'; got 'tanh'"),
        (("clip", 0), ValueError, "scale must be finite and above 0; got 0"),
        (("clip", -1.0), ValueError, "scale must be finite and above 0"),
        (("clip", math.nan), ValueError, "scale must be finite"),
        (("clip", "2"), TypeError, "scale must be a number"),
        (("clip", True), TypeError, "scale must be a number"),
    ],
)
def test_activation_rejects(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.Activation(*arguments)
    with pytest.raises(ValueError, match=r"scale=11.0 is above 10, the largest value of a layer of 10 inputs"):
        scgpu.Activation("clip", 11).integers(10, 64, "bipolar")
