"""Generators: their definitions, the maximal registers, scipy's points, what streams of encode they make, refusals."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

import scgpu
from scgpu import sng
from scgpu.compare import LONGEST_PERIOD


def exact_products(first: list[int], second: list[int]) -> tuple[float, float]:
    """Mean absolute error and root of the mean square, of AND over all pairs of 8-bit operands below 256."""
    below = (
        np.array([[u < v for u in first] for v in range(256)], float),
        np.array([[u < v for u in second] for v in range(256)], float),
    )
    error = below[0] @ below[1].T / len(first) - np.outer(np.arange(256), np.arange(256)) / 65536
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def top(generator: sng.Sng, sequence: int, length: int = 256, bits: int = 8) -> list[int]:
    """The highest bits of a sequence."""
    return [int(u) >> 32 - bits for u in generator.numbers(sequence, length, 0)]


# Linear feedback shift registers


def naive_register(width: int, taps: tuple[int, ...], form: str, state: int, count: int) -> list[int]:
    states = []
    for _ in range(count):
        states.append(state)
        if form == "fibonacci":
            new = sum(state >> tap - 1 & 1 for tap in taps) % 2
            state = (state << 1 | new) % 2**width
        else:
            out = state & 1
            state >>= 1
            if out:
                state ^= sum(1 << tap - 1 for tap in taps)
    return states


@pytest.mark.parametrize("form", ["fibonacci", "galois"])
@pytest.mark.parametrize("width", sorted(sng.TAPS))
def test_register_is_the_definition_and_maximal(width: int, form: Any) -> None:
    taps = sng.TAPS[width]
    generator = sng.Lfsr(width, form, start=3)
    for odd in (0, 1):
        used = taps if odd == 0 else tuple(width - tap if tap < width else width for tap in taps)
        columns = list(sng._register(width, used, form))
        first = 3 if odd == 0 or width <= 16 else _advanced_naively(columns, 3, (2**width - 1) * 0x9E3779B9 >> 32)
        assert top(generator, odd, 300, width)[:300] == naive_register(width, used, form, first, min(300, 2**width - 1))
        assert sng._is_maximal(width, used)
    assert sng.Lfsr(width).numbers(0, 1, 0)[0] >> np.uint32(32 - width) == 0x9E3779B9 >> 32 - width
    if width <= 16:
        assert set(top(generator, 0, 1, width)) == set(range(1, 2**width))


def test_register_that_is_not_maximal_is_known() -> None:
    for width in (8, 9, 12):
        for mask in range(1, 2 ** (width - 1), 7):
            taps = (width, *(k for k in range(1, width) if mask >> k - 1 & 1))
            states = naive_register(width, taps, "galois", 1, 2**width)
            assert sng._is_maximal(width, taps) == (len(set(states)) == 2**width - 1), taps


@pytest.mark.parametrize("width", [3, 8, 16, 17, 20, 32])
def test_register_phases_are_steps_of_one_sequence(width: int) -> None:
    generator, period = sng.Lfsr(width, start=1), 2**width - 1
    for k in (0, 1, 2, 1000, 2**70):
        for odd in (0, 1):
            index = 2 * k + odd
            steps = index * (period * 0x9E3779B9 >> 32) % period
            made = generator.numbers(generator.sequence(index), 50, 0)
            first = int(made[generator.phase(index) % made.size]) >> 32 - width
            columns = list(sng._register(width, _taps(width, odd), "fibonacci"))
            assert first == _advanced_naively(columns, 1, steps)


def _taps(width: int, odd: int) -> tuple[int, ...]:
    taps = sng.TAPS[width]
    return tuple(width - tap if odd and tap < width else tap for tap in taps)


def _advanced_naively(columns: list[int], state: int, steps: int) -> int:
    """Powers of the matrix by squaring, in Python integers."""

    def apply(matrix: list[int], vector: int) -> int:
        out = 0
        for bit, column in enumerate(matrix):
            if vector >> bit & 1:
                out ^= column
        return out

    while steps:
        if steps & 1:
            state = apply(columns, state)
        columns = [apply(columns, column) for column in columns]
        steps >>= 1
    return state


# Table C of the published figures: errors of AND over all pairs of 8-bit operands


def test_published_errors_of_sobol_pairs() -> None:
    mae, rmse = exact_products(top(sng.Sobol(), 0), top(sng.Sobol(), 1))
    assert (round(100 * mae, 3), round(rmse, 5)) == (0.190, 0.00237)


def test_published_errors_of_van_der_corput_pairs() -> None:
    mae, rmse = exact_products(top(sng.VanDerCorput(), 0), top(sng.Counter(), 0))
    assert (round(100 * mae, 3), round(rmse, 5)) == (0.391, 0.00434)
    mae, rmse = exact_products(top(sng.Halton(), 0), top(sng.Halton(), 1))
    assert (round(100 * mae, 3), round(rmse, 5)) == (0.367, 0.00456)


def test_published_errors_of_registers() -> None:
    first = [*top(sng.Lfsr(8, taps=(8, 6, 5, 4), start=1), 0), 0]
    second = [*top(sng.Lfsr(8, taps=(8, 5, 3, 2), start=45), 0), 0]
    mae, rmse = exact_products(first, second)
    assert (round(100 * mae, 3), round(rmse, 5)) == (0.595, 0.00759)
    mae, rmse = exact_products(first[:255], first[1:255] + first[:1])
    assert (round(100 * mae, 2), round(rmse, 4)) == (3.92, 0.0507)
    mae, rmse = exact_products(first, first)
    assert (round(100 * mae, 2), round(rmse, 4)) == (8.33, 0.1054)


# Sequences of low discrepancy


def test_sobol_equals_scipy() -> None:
    points = qmc.Sobol(1000, scramble=False, bits=32).random(4096)
    for dimension in range(1000):
        numbers = sng.Sobol().numbers(dimension, 4096, 0)
        assert np.array_equal(numbers / 2**32, points[:, dimension]), dimension
    long = qmc.Sobol(3, scramble=False, bits=32).random(2**17)
    assert np.array_equal(sng.Sobol().numbers(2, 2**17 - 5, 0) / 2**32, long[:-5, 2])


def test_sobol_shift_is_a_word_of_philox() -> None:
    plain, shifted = sng.Sobol(), sng.Sobol(shift=True)
    seed, index = 2**63 + 11, 2**40 + 1003
    word = scgpu.philox4x32([0, index % 2**32, 2**8, 5 << 24], [11, 2**31], device="numpy")[0]
    numbers = shifted.numbers(shifted.sequence(index), 100, seed)
    assert np.array_equal(numbers, plain.numbers(index % 1000, 100, 0) ^ word)


@pytest.mark.parametrize("base", [2, 3, 5, 97, 10, 65536])
def test_van_der_corput_is_the_definition(base: int) -> None:
    for length in (1, 2, 1000):
        numbers = sng.VanDerCorput(base).numbers(0, length, 0)
        for t in range(length):
            rest, share, inverse = t, Fraction(1), Fraction(0)
            while rest:
                share /= base
                inverse += rest % base * share
                rest //= base
            assert int(numbers[t]) == floor(inverse * 2**32)


def test_van_der_corput_far_out() -> None:
    far = sng.VanDerCorput(65535).numbers(0, LONGEST_PERIOD, 0)[-1]
    t = LONGEST_PERIOD - 1
    assert int(far) == floor((Fraction(t % 65535, 65535) + Fraction(t // 65535, 65535**2)) * 2**32)


def test_halton_equals_scipy() -> None:
    points = qmc.Halton(25, scramble=False).random(5000)
    for dimension in range(25):
        numbers = sng.Halton().numbers(dimension, 5000, 0)
        assert np.abs(numbers / 2**32 - points[:, dimension]).max() < 2**-31


def test_counter_is_a_ramp() -> None:
    for length in (1, 7, 64, 1000):
        assert sng.Counter().numbers(0, length, 0).tolist() == [t * 2**32 // length for t in range(length)]


# Streams


@pytest.mark.parametrize(
    "generator",
    [
        *(sng.NAMED[name] for name in sng.NAMED if name != "bernoulli"),
        *(sng.Sobol(shift, "stream") for shift in (False, True)),
        sng.Sobol(shift=True),
        sng.Lfsr(5, sharing="stream"),
        sng.Lfsr(20, "galois", start=7, sharing="stream"),
        sng.Halton(sharing="stream"),
        sng.NumberTable(np.arange(30).reshape(3, 10) << 27, sharing="stream"),
    ],
    ids=lambda generator: type(generator).__name__,
)
def test_encode_with_generators_is_the_definition(generator: sng.Sng, chosen: scgpu.Device) -> None:
    p = np.array([[0.0, 0.3, 1.0], [0.5, 2.0**-32, 0.999]])
    for length in (1, 65, 130):
        streams = scgpu.encode(
            p, length, 3, tensor_id=4, purpose="noise", first_stream=7, sng=generator, device=chosen
        ).bits()
        for stream in range(3):
            index = 3 + 5 * (4 + 3 + (7 + stream if generator.sharing == "stream" else 0))
            numbers = generator.numbers(generator.sequence(index), length, 3).tolist()
            numbers = [numbers[(generator.phase(index) + t) % len(numbers)] for t in range(length)]
            for sample in range(2):
                threshold = min(floor(p[sample, stream] * 2**32 + 0.5), 2**32 - 1)
                expected = [int(u < threshold or threshold == 2**32 - 1) for u in numbers]
                assert streams[sample, stream].tolist() == expected


@pytest.mark.parametrize("generator", [sng.Sobol(sharing="stream"), sng.Lfsr(20, sharing="stream"), sng.Sobol(True)])
def test_encode_columns_equal_streams_encoded_alone(generator: sng.Sng, chosen: scgpu.Device) -> None:
    p = np.linspace(0, 1, 14).reshape(2, 7)
    whole = scgpu.encode(p, 130, 9, first_stream=3, sng=generator, device=chosen)
    assert whole == scgpu.encode(p, 130, 9, first_stream=3, sng=generator, device="numpy")
    for i in range(7):
        alone = scgpu.encode(p[:, i : i + 1], 130, 9, first_stream=3 + i, sng=generator, device=chosen)
        assert np.array_equal(alone.words[:, 0], whole.words[:, i])


@pytest.mark.parametrize("name", ["sobol", "van_der_corput", "counter"])
@pytest.mark.parametrize("length", [64, 1024])
def test_values_are_as_exact_as_they_can_be(name: Any, length: int) -> None:
    p = np.random.default_rng(1).random(200)
    counts = scgpu.encode(p, length, sng=name, device="cpu").count()
    assert counts.tolist() == [ceil(one * length) for one in p]


@pytest.mark.parametrize("name", ["sobol", "lfsr", "halton"])
def test_operands_of_products_are_uncorrelated_by_default(name: Any) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 500))
    length = 1024
    first = scgpu.encode(a, length, sng=name, device="cpu")
    others: list[dict[str, Any]] = [{"purpose": "weight"}, {"tensor_id": 1}, {"seed": 1}, {"purpose": "select"}]
    bernoulli = np.sqrt(np.mean(a * b * (1 - a * b)) / length)
    for other in others:
        products = (first & scgpu.encode(b, length, sng=name, device="cpu", **other)).value()
        assert np.sqrt(np.mean((products - a * b) ** 2)) < (0.5 if name == "sobol" else 1.3) * bernoulli, other


@pytest.mark.parametrize("name", sng.NAMED)
def test_correlated_with_makes_minimum_maximum_and_difference(name: Any, chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(3)
    p, q = rng.random((2, 4, 5))
    options = {"seed": 5, "tensor_id": 3, "purpose": "noise", "first_stream": 2, "first_sample": 6}
    a = scgpu.encode(p, 200, sng=name, device=chosen, **options)
    b = scgpu.encode(q, 200, sng="lfsr", seed=9, correlated_with=a, device=chosen)
    assert np.array_equal((a & b).count(), np.minimum(a.count(), b.count()))
    assert np.array_equal((a | b).count(), np.maximum(a.count(), b.count()))
    assert b == scgpu.encode(q, 200, sng=name, device=chosen, **options)
    assert scgpu.encode(p, 200, correlated_with=b, device="numpy") == a


def test_long_streams_repeat(chosen: scgpu.Device) -> None:
    bits = scgpu.encode([0.3], 3 * 255, sng=sng.Lfsr(8), device=chosen).bits()[0].reshape(3, 255)
    assert (bits == bits[0]).all() and bits[0].sum() == ceil(0.3 * 256) - 1
    table = sng.NumberTable([[1 << 31, 0], [5, 2**32 - 1]])
    made = scgpu.encode([0.5], 5, seed=1, sng=table, device=chosen)
    assert made.bits().tolist() == [[1, 0, 1, 0, 1]]
    assert scgpu.encode([0.5], 5, sng=table, device=chosen).bits().tolist() == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: scgpu.encode([0.5], sng="sobl"), ValueError, "sng must be one of 'bernoulli', 'lfsr'.*got 'sobl'"),
        (lambda: scgpu.encode([0.5], sng=sng.Sobol), ValueError, "sng must be one of"),
        (lambda: scgpu.encode([0.5], 2**24 + 1, sng="sobol", device="cpu"), ValueError, "length must be at most 16777"),
        (lambda: scgpu.encode([0.5], correlated_with=3), TypeError, "correlated_with must be a Bitstream; got int"),
        (
            lambda: scgpu.encode([0.5], correlated_with=~scgpu.encode([0.5], device="cpu")),
            ValueError,
            "correlated_with must be what encode returned",
        ),
        (
            lambda: scgpu.encode([0.5], 64, correlated_with=scgpu.encode([0.5, 1], 65, device="cpu")),
            ValueError,
            r"shape \(1,\) of p and length=64; got shape \(2,\) and length=65",
        ),
        (lambda: scgpu.DenseLayer(2, 2, sng="sobl", device="cpu"), ValueError, "sng must be one of 'bernoulli'"),
        (
            lambda: scgpu.DenseLayer(2, 2, sng="sobol", weight_streams="shared", device="cpu"),
            ValueError,
            "sng='sobol' needs weight_streams=\"independent\"",
        ),
        (lambda: sng.Lfsr(2), ValueError, "width must be from 3 to 32; got 2"),
        (lambda: sng.Lfsr(33), ValueError, "width must be from 3 to 32; got 33"),
        (lambda: sng.Lfsr(8, "gallois"), ValueError, "form must be one of 'fibonacci', 'galois'"),
        (lambda: sng.Lfsr(8, start=0), ValueError, "start must be from 1 to 255; got 0"),
        (
            lambda: sng.Lfsr(8, taps=(8, 6)),
            ValueError,
            r"taps must be those of a maximal.*\(8, 6, 5, 4\); got \(8, 6\)",
        ),
        (lambda: sng.Lfsr(8, taps=(7, 6)), ValueError, "taps must be those of a maximal"),
        (lambda: sng.Lfsr(8, taps=(8, 8, 5)), ValueError, "taps must be those of a maximal"),
        (lambda: sng.Lfsr(8, taps=(9, 8)), ValueError, "taps must be from 1 to 8; got 9"),
        (lambda: sng.Lfsr(8, taps=[8, 6, 5, 4]), TypeError, "taps must be a tuple of integers; got list"),
        (lambda: sng.Lfsr(8.0), TypeError, "width must be an integer"),
        (lambda: sng.Sobol(sharing="all"), ValueError, "sharing must be one of 'tensor', 'stream'; got 'all'"),
        (lambda: sng.Sobol(shift=1), TypeError, "shift must be True or False; got 1"),
        (lambda: sng.VanDerCorput(1), ValueError, "base must be from 2 to 65536; got 1"),
        (lambda: sng.NumberTable([]), ValueError, r"numbers must have shape \(n,\) or \(sequences, n\).*got \(0,\)"),
        (lambda: sng.NumberTable([2**32]), ValueError, "numbers must lie in"),
        (lambda: sng.NumberTable([0.5]), TypeError, "numbers must hold integers"),
    ],
)
def test_generators_reject(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# Layers and networks


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
@pytest.mark.parametrize(
    "generator", ["sobol", "lfsr", sng.Sobol(True, "stream"), sng.Lfsr(8, sharing="stream")], ids=str
)
def test_layer_counts_streams_of_its_generator(generator: Any, polarity: Any, chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(4)
    w, x = (
        rng.random(shape) * (2 if polarity == "bipolar" else 1) - (polarity == "bipolar") for shape in ((3, 5), (5, 5))
    )
    layer = scgpu.DenseLayer(
        5, 3, 200, 4, weights=w, polarity=polarity, max_batch=2, tensor_id=6, sng=generator, device=chosen
    )
    options: dict[str, Any] = {"polarity": polarity, "tensor_id": 6, "sng": generator, "device": "numpy"}
    inputs = scgpu.encode(x, 200, 9, **options).bits().astype(bool)
    weights = scgpu.encode(w.reshape(-1), 200, 4, purpose="weight", **options).bits().reshape(3, 5, 200).astype(bool)
    pairs = inputs[:, None], weights[None]
    products = np.equal(*pairs) if polarity == "bipolar" else np.logical_and(*pairs)
    for _ in range(2):
        assert np.array_equal(layer.counts(x, seed=9, first_sample=2), products.sum(axis=(2, 3)))
    assert np.array_equal(layer.submit(x[0], seed=9).counts(), products[0].sum(axis=(1, 2)))


@pytest.mark.parametrize("generator", ["sobol", sng.Lfsr(8, sharing="stream")], ids=str)
def test_network_keeps_the_generators_of_its_layers(generator: Any, chosen: scgpu.Device) -> None:
    x = np.random.default_rng(6).random((4, 5))

    def network(device: scgpu.Device | str) -> scgpu.Network:
        return scgpu.Network([scgpu.DenseLayer(n, 3, 200, n, sng=generator, device=device) for n in (5, 3)])

    net = network(chosen)
    assert [layer.sng for layer in net.layers] == [sng.sng_of(generator)] * 2
    assert np.array_equal(net.counts(x, seed=3), network("numpy").counts(x, seed=3))


@pytest.mark.parametrize(("generator", "share"), [(sng.Sobol(), 0.8), (sng.Sobol(True, "stream"), 0.7)], ids=str)
def test_layers_are_more_exact_with_sobol_numbers(generator: sng.Sng, share: float) -> None:
    rng = np.random.default_rng(5)
    w, x = rng.random((20, 30)), rng.random((10, 30))

    def error(kind: Any) -> float:
        values = scgpu.DenseLayer(30, 20, 256, 0, weights=w, sng=kind, device="cpu").forward(x, seed=0)
        return float(np.sqrt(np.mean((values - x @ w.T) ** 2)))

    assert error(generator) < share * error("bernoulli")
