"""arithmetic: every unit against a stepped definition and against the function it computes; refusals."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.devices import backend_of

LENGTHS = st.sampled_from((1, 63, 64, 65, 300))
POLARITIES = st.sampled_from(("unipolar", "bipolar"))


def streams_of(
    seed: int, number: int, shape: tuple[int, ...], device: Any, polarity: Any = "unipolar"
) -> tuple[np.ndarray[Any, Any], list[scgpu.Bitstream]]:
    rng = np.random.default_rng(seed)
    bits = (rng.random((number, *shape)) < rng.random((number, *shape[:-1], 1))).astype(np.uint8)
    return bits, [scgpu.Bitstream.from_bits(some, polarity=polarity, device=device) for some in bits]


@given(seed=st.integers(0, 2**32 - 1), length=LENGTHS, polarity=POLARITIES)
def test_gates(chosen: scgpu.Device, seed: int, length: int, polarity: Any) -> None:
    (x, y, z), (a, b, _) = streams_of(seed, 3, (2, 3, length), chosen, polarity)
    product = scgpu.multiply(a, b)
    assert product.polarity == polarity and product.device == chosen
    assert np.array_equal(product.bits(), x & y if polarity == "unipolar" else 1 - (x ^ y))
    assert np.array_equal(scgpu.minimum(a, b).bits(), x & y)
    assert np.array_equal(scgpu.maximum(a, b).bits(), x | y)
    for other in ("unipolar", "bipolar"):
        select = scgpu.Bitstream.from_bits(z, polarity=other, device="numpy")  # type: ignore[arg-type]
        chosen_bits = scgpu.mux(select, a, b)
        assert np.array_equal(chosen_bits.bits(), np.where(z, x, y))
        assert chosen_bits.polarity == polarity and chosen_bits.device == chosen
    if polarity == "unipolar":
        assert np.array_equal(scgpu.absolute_difference(a, b).bits(), x ^ y)
        assert np.array_equal(scgpu.saturating_add([a, b, ~a]).bits(), np.ones_like(x))
        assert np.array_equal(scgpu.saturating_add([a, b]).bits(), x | y)


def test_values_by_correlated_streams(chosen: scgpu.Device) -> None:
    # the same seed and place share their random numbers; a complement turns them over
    p, q = np.random.default_rng(0).random((2, 50))
    a, b = scgpu.encode(p, 2048, 5, device=chosen), scgpu.encode(q, 2048, 5, device=chosen)
    assert (scgpu.scc(a, b) == 1).all()
    opposite = ~scgpu.encode(1 - q, 2048, 5, device=chosen)
    assert (scgpu.scc(a, opposite) == -1).all()
    counts = a.count().astype(int), b.count().astype(int), opposite.count().astype(int)
    assert np.array_equal(scgpu.absolute_difference(a, b).count(), abs(counts[0] - counts[1]))
    assert np.array_equal(scgpu.minimum(a, b).count(), np.minimum(counts[0], counts[1]))
    assert np.array_equal(scgpu.saturating_add([a, opposite]).count(), np.minimum(counts[0] + counts[2], 2048))


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 5), polarity=POLARITIES)
def test_scaled_add_takes_one_input_at_a_time(chosen: scgpu.Device, seed: int, number: int, polarity: Any) -> None:
    bits, streams = streams_of(seed, number, (2, 3, 100), chosen, polarity)
    weights = np.random.default_rng(seed).integers(0, 4, number) + (np.arange(number) == 0)
    added = scgpu.scaled_add(streams, weights, seed=seed, tensor_id=7)
    assert added.polarity == polarity and added.shape == (2, 3) and added.device == chosen
    taken = np.full((2, 3, 100), number - 1)
    for k in reversed(range(number - 1)):
        share = np.full((2, 3), weights[: k + 1].sum() / weights.sum())
        selected = scgpu.encode(share, 100, seed, purpose="select", tensor_id=7, device="numpy").bits()
        taken[selected == 1] = k
    assert np.array_equal(added.bits(), np.take_along_axis(bits, taken[None], axis=0)[0])


def test_scaled_add_is_the_weighted_mean(chosen: scgpu.Device) -> None:
    p = np.random.default_rng(1).uniform(-1, 1, (5, 40))
    length = 4096
    streams = [scgpu.encode(row, length, k, polarity="bipolar", device=chosen) for k, row in enumerate(p)]
    for weights in (None, [1, 2, 0, 4, 0.5]):
        error = scgpu.rmse(scgpu.scaled_add(streams, weights, seed=9), np.average(p, axis=0, weights=weights))
        assert error < 1.2 / math.sqrt(length)


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 17), length=LENGTHS, polarity=POLARITIES)
def test_parallel_count(chosen: scgpu.Device, seed: int, number: int, length: int, polarity: Any) -> None:
    bits, streams = streams_of(seed, number, (3, length), chosen, polarity)
    counted = scgpu.parallel_count(streams)
    assert counted.inputs == number and len(counted.planes) == number.bit_length()
    assert np.array_equal(counted.by_time(), bits.sum(axis=0)) and counted.by_time().dtype == np.uint32
    assert np.array_equal(counted.total(), bits.sum(axis=(0, 2))) and counted.total().dtype == np.uint64
    assert all(plane.device == chosen for plane in counted.planes)


def test_parallel_count_of_all_ones() -> None:
    for number in range(1, 40):
        full = scgpu.thermometer(70, 70, device="cpu")
        counted = scgpu.parallel_count([full] * number)
        assert int(counted.total()) == 70 * number and (counted.by_time() == number).all()
    assert "ParallelCount(inputs=39, planes=(Bitstream(" in repr(counted)


@given(seed=st.integers(0, 2**32 - 1), pairs=st.integers(1, 9), length=LENGTHS, polarity=POLARITIES)
def test_approximate_parallel_count(chosen: scgpu.Device, seed: int, pairs: int, length: int, polarity: Any) -> None:
    bits, streams = streams_of(seed, 2 * pairs, (3, length), chosen, polarity)
    counted = scgpu.approximate_parallel_count(streams)
    gates = [bits[2 * k] & bits[2 * k + 1] if k % 2 else bits[2 * k] | bits[2 * k + 1] for k in range(pairs)]
    assert counted.inputs == 2 * pairs and np.array_equal(counted.by_time(), 2 * np.sum(gates, axis=0))
    assert np.array_equal(counted.total(), 2 * np.sum(gates, axis=(0, 2)))
    assert all(plane.device == chosen and plane.polarity == polarity for plane in counted.planes)


@pytest.mark.parametrize("number", [4, 8, 16])
def test_approximate_parallel_count_of_all_inputs(number: int) -> None:
    inputs = np.arange(1 << number) >> np.arange(number)[:, None] & 1
    streams = [scgpu.Bitstream.from_bits(row, device="cpu") for row in inputs]
    errors = scgpu.approximate_parallel_count(streams).by_time().astype(int) - inputs.sum(axis=0)
    assert errors.mean() == 0 and errors.max() == -errors.min() == number // 4
    assert np.square(errors).mean() == pytest.approx(number / 8, rel=1e-12)
    assert np.mean(errors != 0) == pytest.approx(1 - math.comb(number // 2, number // 4) / 2 ** (number // 2))


def stepped_add(bits: np.ndarray[Any, Any], scale: int, bipolar: bool, depth: int | None) -> list[int]:
    """The accumulator of `unary_add` for one sum, step by step in fractions."""
    held, out = Fraction(0), []
    offset = Fraction(len(bits) - scale, 2) if bipolar else Fraction(0)
    limit = Fraction(10**9) if depth is None else Fraction(2 ** (depth - 2))
    for column in bits.T:
        held = max(-limit, min(limit, held + int(column.sum()) - offset))
        out.append(int(held >= scale))
        held = max(-limit, min(limit, held - scale * out[-1]))  # as UnarySim has it
    return out


@given(
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(1, 6),
    polarity=POLARITIES,
    slack=st.sampled_from((None, 0, 1, 10)),
    data=st.data(),
)
def test_unary_add_equals_a_stepped_accumulator(
    chosen: scgpu.Device, seed: int, number: int, polarity: Any, slack: int | None, data: st.DataObject
) -> None:
    scale = data.draw(st.integers(1, number))
    depth = None if slack is None else 2 + (scale - 1).bit_length() + slack
    bits, streams = streams_of(seed, number, (2, 3, 100), chosen, polarity)
    added = scgpu.unary_add(streams, scale=scale, depth=depth)
    assert added.polarity == polarity and added.shape == (2, 3) and added.device == chosen
    for i, j in np.ndindex(2, 3):
        assert added.bits()[i, j].tolist() == stepped_add(bits[:, i, j], scale, polarity == "bipolar", depth)


def test_unary_add_in_closed_form(chosen: scgpu.Device) -> None:
    bits, streams = streams_of(4, 5, (7, 300), chosen)
    whole = scgpu.unary_add(streams)
    # a queue that serves one at a time: what has come, less what waits
    arrived = np.cumsum(bits.sum(axis=0), axis=-1, dtype=np.int64) - np.arange(1, 301)
    served = np.arange(1, 301) + np.minimum(np.minimum.accumulate(arrived, axis=-1), 0)
    assert np.array_equal(np.cumsum(whole.bits(), axis=-1, dtype=np.int64), served)
    ones = bits.sum(axis=(0, 2)) // 5
    assert np.array_equal(scgpu.unary_add(streams, scale=5).count(), ones)


def test_unary_add_is_the_sum_cut_to_the_range() -> None:
    p = np.random.default_rng(2).uniform(-0.5, 0.5, (4, 60))
    length = 4096
    streams = [scgpu.encode(row, length, k, polarity="bipolar", device="cpu") for k, row in enumerate(p)]
    expected = np.clip(p.sum(axis=0), -1, 1)
    # each input has its own random error, and near the ends the accumulator meets the bound
    assert scgpu.rmse(scgpu.unary_add(streams), expected) < 3 / math.sqrt(length)
    assert scgpu.rmse(scgpu.unary_add(streams, scale=4), p.mean(axis=0)) < 0.6 / math.sqrt(length)


@given(seed=st.integers(0, 2**32 - 1), degree=st.integers(1, 6))
def test_bernstein_equals_a_stepped_selector(chosen: scgpu.Device, seed: int, degree: int) -> None:
    bits, streams = streams_of(seed, degree, (2, 3, 100), chosen)
    coefficients = np.random.default_rng(seed).random(degree + 1)
    result = scgpu.bernstein(streams, coefficients, seed=seed, tensor_id=3)
    encoded = [
        scgpu.encode(np.full((2, 3), b), 100, seed, purpose="select", tensor_id=3, device="numpy").bits()
        for b in coefficients
    ]
    expected = np.take_along_axis(np.array(encoded), bits.sum(axis=0)[None].astype(int), axis=0)[0]
    assert np.array_equal(result.bits(), expected) and result.device == chosen


@pytest.mark.parametrize(
    ("function", "degree", "fit"),
    [
        (lambda x: x * x, 2, 1e-9),
        (lambda x: 0.25 + 1.125 * x - 1.875 * x**2 + 1.25 * x**3, 3, 1e-9),  # the example of Qian and Riedel
        (np.sqrt, 6, 0.07),
        (lambda x: np.exp(-3 * x), 5, 3e-4),
        (lambda x: np.tanh(2 * x), 6, 1e-3),
        (np.cos, 4, 1e-4),
    ],
)
def test_bernstein_computes_functions(function: Any, degree: int, fit: float, chosen: scgpu.Device) -> None:
    x = np.linspace(0, 1, 41)
    coefficients = scgpu.bernstein_coefficients(function, degree)
    assert coefficients.min() >= 0 and coefficients.max() <= 1
    polynomial = sum(b * math.comb(degree, k) * x**k * (1 - x) ** (degree - k) for k, b in enumerate(coefficients))
    assert np.abs(polynomial - function(x)).max() <= fit
    length = 1 << 14
    inputs = [scgpu.encode(x, length, seed, device=chosen) for seed in range(degree)]
    assert np.abs(scgpu.value_error(scgpu.bernstein(inputs, coefficients, seed=99), polynomial)).max() < 5 / 2 / 128


def test_bernstein_coefficients_of_qian_and_riedel() -> None:
    found = scgpu.bernstein_coefficients(lambda x: 0.25 + 1.125 * x - 1.875 * x**2 + 1.25 * x**3, 3)
    assert np.allclose(found, [2 / 8, 5 / 8, 3 / 8, 6 / 8], rtol=0, atol=1e-9)


@pytest.mark.parametrize("degree", [2, 5, 9, 14])
def test_bernstein_coefficients_are_the_best_in_range(degree: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    x = np.linspace(0, 1, 1001)
    basis = np.stack([math.comb(degree, k) * x**k * (1 - x) ** (degree - k) for k in range(degree + 1)], axis=1)
    for target in (np.sqrt(x), np.abs(np.sin(6 * x)), (x > 0.5).astype(float), np.exp(-9 * x)):
        found = scgpu.bernstein_coefficients(lambda _, target=target: target, degree)
        best = optimize.lsq_linear(basis, target, (0, 1), method="bvls")
        assert ((basis @ found - target) ** 2).sum() <= 2 * best.cost * (1 + 1e-6) + 1e-9


def test_regenerate(chosen: scgpu.Device) -> None:
    a = scgpu.encode(np.linspace(-1, 1, 12).reshape(3, 4), 4096, 1, polarity="bipolar", device=chosen)
    b = scgpu.regenerate(a, 2, tensor_id=5)
    shares = a.count() / 4096
    assert b == scgpu.Bitstream.from_words(
        scgpu.encode(shares, 4096, 2, tensor_id=5, device="numpy").words, 4096, polarity="bipolar", device="cpu"
    )
    assert b.device == chosen and scgpu.rmse(b, a.value()) < 2 / 64
    assert np.abs(scgpu.scc(a, b)).max() < 0.2 and scgpu.scc(a, a).max() == 1


def test_single_streams_and_none(chosen: scgpu.Device) -> None:
    one = scgpu.thermometer(40, 100, device=chosen)
    none = scgpu.thermometer(np.empty((0, 3), int), 100, device=chosen)
    for streams, shape in ((one, ()), (none, (0, 3))):
        assert scgpu.scaled_add([streams, streams]).count().tolist() == streams.count().tolist()
        assert scgpu.unary_add([streams, streams], scale=2).count().tolist() == streams.count().tolist()
        assert scgpu.parallel_count([streams]).total().tolist() == streams.count().tolist()
        assert scgpu.bernstein([streams], [0, 1]) == streams
        assert scgpu.regenerate(streams, 3).shape == shape


def test_arithmetic_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = streams_of(0, 3, (2, 4, 3, 500), "numpy")
    expected = [f(plain) for f in (scgpu.scaled_add, scgpu.unary_add)]
    curve, again = scgpu.bernstein(plain, [0, 0.5, 0.2, 1]), scgpu.regenerate(plain[0], 8)
    for largest in (64, 192, 400):
        monkeypatch.setattr(backend_of(gpu), "largest_buffer", largest)
        split = [stream.to(gpu) for stream in plain]
        assert len(split[0]._parts) > 1
        assert [f(split) for f in (scgpu.scaled_add, scgpu.unary_add)] == expected
        assert scgpu.bernstein(split, [0, 0.5, 0.2, 1]) == curve
        assert scgpu.regenerate(split[0], 8) == again


def test_inputs_on_several_devices(chosen: scgpu.Device) -> None:
    _, (a, b, c) = streams_of(0, 3, (4, 100), "numpy")
    mixed = [a.to(chosen), b, c.to("cpu")]
    for function in (scgpu.scaled_add, scgpu.unary_add, scgpu.saturating_add):
        assert function(mixed) == function([a, b, c]) and function(mixed).device == chosen
    assert scgpu.mux(a, mixed[0], b).device == chosen
    assert all(plane.device == chosen for plane in scgpu.parallel_count(mixed).planes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a, b: scgpu.multiply(a, 3), TypeError, "must be a Bitstream; got int"),
        (lambda a, b: scgpu.multiply(a, b), ValueError, "equal polarity; got 'unipolar' and 'bipolar'"),
        (lambda a, b: scgpu.minimum(a, ~a._reshaped(1, 2)), ValueError, r"equal shape; got \(2,\) and \(1, 2\)"),
        (
            lambda a, b: scgpu.maximum(a, scgpu.thermometer([1, 2], 71, device="cpu")),
            ValueError,
            "equal length; got 70 and 71",
        ),
        (lambda a, b: scgpu.absolute_difference(b, b), ValueError, "absolute_difference is for unipolar streams"),
        (lambda a, b: scgpu.saturating_add([b]), ValueError, "saturating_add is for unipolar streams"),
        (lambda a, b: scgpu.saturating_add([]), ValueError, "inputs must hold at least one Bitstream"),
        (lambda a, b: scgpu.mux(3, a, a), TypeError, "select must be a Bitstream"),
        (lambda a, b: scgpu.mux(a._reshaped(2, 1), a, a), ValueError, "equal shape"),
        (lambda a, b: scgpu.mux(a, a, b), ValueError, "equal polarity"),
        (lambda a, b: scgpu.scaled_add(a), TypeError, "inputs must be a list of Bitstreams; got Bitstream"),
        (lambda a, b: scgpu.scaled_add([a, 1]), TypeError, "inputs must be a Bitstream; got int"),
        (lambda a, b: scgpu.scaled_add([a, a], [1]), ValueError, r"weights must have shape \(2,\)"),
        (lambda a, b: scgpu.scaled_add([a, a], [1, -1]), ValueError, "weights must not be negative"),
        (lambda a, b: scgpu.scaled_add([a, a], [0, 0]), ValueError, "positive, finite sum"),
        (lambda a, b: scgpu.scaled_add([a, a], [1, np.inf]), ValueError, "weights must be finite"),
        (lambda a, b: scgpu.scaled_add([a, a], seed=-1), ValueError, "seed must be from 0"),
        (lambda a, b: scgpu.parallel_count(5), TypeError, "inputs must be a list of Bitstreams; got int"),
        (
            lambda a, b: scgpu.approximate_parallel_count([a] * 3),
            ValueError,
            "even number of Bitstreams; got 3. Add one",
        ),
        (lambda a, b: scgpu.approximate_parallel_count([]), ValueError, "at least one Bitstream"),
        (lambda a, b: scgpu.unary_add([a, a], scale=3), ValueError, "scale must be from 1 to 2; got 3"),
        (lambda a, b: scgpu.unary_add([a, a], scale=0), ValueError, "scale must be from 1 to 2; got 0"),
        (lambda a, b: scgpu.unary_add([a, a], depth=1), ValueError, "depth must be from 2 to 32; got 1"),
        (lambda a, b: scgpu.unary_add([a] * 5, scale=5, depth=4), ValueError, "depth must be from 5 to 32; got 4"),
        (lambda a, b: scgpu.bernstein([b], [0, 1]), ValueError, "bernstein is for unipolar streams"),
        (lambda a, b: scgpu.bernstein([a], [0]), ValueError, r"coefficients must have shape \(2,\)"),
        (lambda a, b: scgpu.bernstein([a], [0, 1.5]), ValueError, r"coefficients must lie in \[0, 1\]; got 1.5. Scale"),
        (lambda a, b: scgpu.bernstein_coefficients(np.sqrt, 31), ValueError, "degree must be from 1 to 30"),
        (
            lambda a, b: scgpu.bernstein_coefficients(lambda x: 2 * x, 3),
            ValueError,
            "values of the function must lie in",
        ),
        (
            lambda a, b: scgpu.bernstein_coefficients(lambda x: 0.5, 3),
            ValueError,
            "array of the shape of its argument",
        ),
        (lambda a, b: scgpu.regenerate([0.5], 3), TypeError, "streams must be a Bitstream"),
        (lambda a, b: scgpu.regenerate(a, 3, tensor_id=2**24), ValueError, "tensor_id must be from"),
    ],
)
def test_arithmetic_rejects(call: Any, error: type[Exception], message: str) -> None:
    a = scgpu.thermometer([3, 4], 70, device="cpu")
    with pytest.raises(error, match=message):
        call(a, scgpu.thermometer([3, 4], 70, polarity="bipolar", device="cpu"))
