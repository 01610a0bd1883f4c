"""poisson: the distribution and its thresholds, the definition, parity, pieces, statistics, refusals."""

from __future__ import annotations

import decimal
import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from randomgen import Philox

import scgpu
from scgpu._abi import MAX_TRIPS, OPS
from scgpu.backend import Backend
from scgpu.devices import backend_of
from scgpu.parity import make_case
from scgpu.poisson import poisson_step, poisson_thresholds

MEANS = (2.0**-32, 1e-6, 0.1, 0.5, 1.0, 2.0, 7.3, 30.0, 100.0, 999.5, 1000.0)


@dataclass(frozen=True)
class Neurons:
    """As much of a population as an input needs."""

    count: int


def received(
    source: scgpu.PoissonInput,
    device: scgpu.Device | str,
    *,
    steps: int,
    first_step: int = 0,
    pieces: tuple[int, ...] = (),
    slot_count: int = 0,
) -> NDArray[np.int32]:
    """What arrives in some steps, in one kernel call or in pieces of so many steps; shape (slots, neurons)."""
    backend = backend_of(scgpu.device(device))
    slots = slot_count or steps
    clock = backend.upload(np.array([first_step], np.uint32))
    thresholds = backend.upload(source.thresholds)
    inbox = backend.upload(np.zeros(slots * source.target.count, np.int32))
    offset = 0
    for count in pieces or (steps,):
        step = poisson_step(source, clock, thresholds, inbox, slot_count=slots, step_offset=offset, step_count=count)
        backend.execute([step])
        offset += count
    assert offset == steps
    (out,) = backend.execute([], [inbox])
    return out.reshape(slots, source.target.count).copy()


def exact_entry(mean: float, entry: int) -> int:
    """floor(2**32 P(X <= entry) + 1/2) in rational numbers, by both ends of an interval for exp(mean)."""
    m = Fraction(mean)
    terms = math.ceil(4 * mean) + 60  # the next term is below 2**-60 of the sum, and halves at least from there on
    numerators, term = [Fraction(1)], Fraction(1)
    for k in range(1, terms):
        term = term * m / k
        numerators.append(term)
    below, total = sum(numerators[: entry + 1], Fraction(0)), sum(numerators, Fraction(0))
    ends = {math.floor(2**32 * below / whole + Fraction(1, 2)) for whole in (total, total + 2 * term)}
    assert len(ends) == 1
    return ends.pop()


def test_poisson_thresholds_known_answers() -> None:
    # 2**32 / e = 1580030168.7...; P(X <= 1) = 2 / e; P(X <= 2) = 5 / (2 e); P(X <= 3) = 8 / (3 e)
    assert poisson_thresholds(1.0)[:4].tolist() == [1580030169, 3160060337, 3950075422, 4213413783]
    # e**-1000 is far below 2**-32
    assert poisson_thresholds(1000.0)[0] == 0
    assert poisson_thresholds(2.0**-32).tolist() == [2**32 - 1]


@pytest.mark.parametrize("mean", [2.0**-32, 1e-6, 0.1, 1.0, 2.0, 7.3, 30.0])
def test_poisson_thresholds_are_the_distribution(mean: float) -> None:
    entries = poisson_thresholds(mean)
    assert entries.dtype == np.uint32
    for entry in {0, 1, len(entries) // 2, len(entries) - 2, len(entries) - 1} & set(range(len(entries))):
        assert int(entries[entry]) == exact_entry(mean, entry)
    assert exact_entry(mean, len(entries)) == 2**32


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_thresholds_have_the_moments(mean: float) -> None:
    entries = poisson_thresholds(mean).astype(object)
    assert list(entries) == sorted(entries)
    # sum over e of P(X > e) and of (2 e + 1) P(X > e); each probability is off by half of 2**-32 at most
    above = [(2**32 - int(entry)) / 2**32 for entry in entries]
    e = np.arange(len(entries))
    assert sum(above) == pytest.approx(mean, abs=len(above) * 2.0**-32)
    second = float(np.sum((2 * e + 1) * np.array(above)))
    assert second - mean**2 == pytest.approx(mean, abs=2 * mean * len(above) * 2.0**-32 + len(above) ** 2 * 2.0**-32)


def test_poisson_thresholds_do_not_depend_on_the_callers_decimals() -> None:
    expected = poisson_thresholds(7.3)
    with decimal.localcontext() as context:
        context.prec, context.rounding = 5, decimal.ROUND_UP
        context.traps[decimal.Inexact] = context.traps[decimal.FloatOperation] = True
        assert np.array_equal(poisson_thresholds(7.3), expected)


def test_poisson_oracle_is_the_definition() -> None:
    # in Python integers, with randomgen's Philox
    source = scgpu.PoissonInput(Neurons(6), 1.7, -3, seed=2**64 - 5, tensor_id=2**24 - 1)
    got = received(source, "numpy", steps=3, first_step=2**32 - 9)
    for k in range(3):
        for neuron in range(6):
            c = 2**32 - 9 + k | (neuron // 4) << 32 | (3 << 24 | 2**24 - 1) << 96
            draws = Philox(number=4, width=32, counter=c - 1, key=2**64 - 5).random_raw(4)
            number = sum(int(draws[neuron % 4]) >= entry for entry in source.thresholds.tolist())
            assert got[(2**32 - 9 + k) % 3, neuron] == -3 * number


def test_poisson_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("poisson", chosen, oracle)


@given(
    count=st.integers(1, 300),
    mean=st.sampled_from(MEANS) | st.floats(0.01, 20),
    weight=st.sampled_from((-(2**15), -1, 0, 2**15 - 1)) | st.integers(-(2**15), 2**15 - 1),
    seed=st.integers(0, 2**64 - 1),
    tensor_id=st.integers(0, 2**24 - 1),
    first_step=st.integers(0, 2**32 - 70),
    steps=st.integers(1, 64),
)
def test_poisson_equals_oracle(chosen: scgpu.Device, count: int, first_step: int, steps: int, **options: Any) -> None:
    source = scgpu.PoissonInput(Neurons(count), **options)
    arrived = received(source, chosen, steps=steps, first_step=first_step, slot_count=17)
    expected = received(source, "numpy", steps=steps, first_step=first_step, slot_count=17)
    assert np.array_equal(arrived, expected)


def test_poisson_edges_of_thresholds(chosen: scgpu.Device) -> None:
    # thresholds on draws, just below and just above them, in the middle and among the 2**20 values at either end
    neurons = 20_001
    blocks = -(-neurons // 4)
    counters = np.zeros((blocks, 4), np.uint32)
    counters[:, 1] = np.arange(blocks)
    draws = scgpu.philox4x32(counters, [0, 0], device="cpu").reshape(-1)[:neurons]
    ranked = np.sort(draws).astype(np.int64)
    lowest, highest = ranked[ranked < 2**20], ranked[ranked >= 2**32 - 2**20]
    assert lowest.size > 2 and highest.size > 2
    chosen_draws = [(lowest[0],), (lowest[-1],), (ranked[9000],), (highest[0],), (highest[-1],)]
    chosen_draws += [(lowest[1], ranked[5000], highest[1]), tuple(ranked[::1000]), (*lowest, *highest)]
    backend = backend_of(chosen)
    for entries in chosen_draws:
        for shift in (-1, 0, 1):
            thresholds = np.array(entries) + shift
            params = dict.fromkeys(OPS["poisson"].params, 0) | {"neuron_count": neurons, "block_end": blocks}
            params |= {"step_count": 1, "slot_count": 1, "weight": 1, "entry_count": thresholds.size}
            inputs = {"clock": np.zeros(1), "thresholds": thresholds, "inbox": np.zeros(neurons)}
            (*_, got) = make_case("poisson", params, inputs).run(backend)
            expected = np.searchsorted(thresholds, draws, side="right")
            assert np.array_equal(got[:neurons], expected), (entries, shift)


@pytest.mark.parametrize("slot_count", [1, 5, 64])
def test_poisson_pieces_make_the_whole(slot_count: int, chosen: scgpu.Device) -> None:
    source = scgpu.PoissonInput(Neurons(203), 2.0, 100, seed=5)
    whole = received(source, chosen, steps=64, first_step=1000, slot_count=slot_count)
    for pieces in ((1,) * 64, (15, 15, 15, 15, 4), (63, 1)):
        assert np.array_equal(
            received(source, chosen, steps=64, first_step=1000, pieces=pieces, slot_count=slot_count), whole
        )
    later = received(source, chosen, steps=30, first_step=1034)
    assert np.array_equal(
        later[[t % 30 for t in range(1034, 1064)]],
        received(source, chosen, steps=64, first_step=1000)[[t % 64 for t in range(1034, 1064)]],
    )


def test_poisson_a_neurons_numbers_do_not_depend_on_the_others(chosen: scgpu.Device) -> None:
    many = received(scgpu.PoissonInput(Neurons(1000), 3.0, 1), chosen, steps=4)
    for count in (1, 3, 4, 5, 127, 129):
        assert np.array_equal(received(scgpu.PoissonInput(Neurons(count), 3.0, 1), chosen, steps=4), many[:, :count])


def test_poisson_adds_to_what_is_there_and_wraps(chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    source = scgpu.PoissonInput(Neurons(70), 1000.0, -(2**15))
    numbers = received(scgpu.PoissonInput(Neurons(70), 1000.0, 1), "numpy", steps=1)[0].astype(np.int64)
    before = (np.arange(70) - 2**31).astype(np.int32)
    inbox = backend.upload(before.copy())
    step = poisson_step(
        source,
        backend.upload(np.zeros(1, np.uint32)),
        backend.upload(source.thresholds),
        inbox,
        slot_count=1,
        step_offset=0,
        step_count=1,
    )
    (after,) = backend.execute([step], [inbox])
    assert np.array_equal(after, (before - 2**15 * numbers).astype(np.uint32).view(np.int32))
    assert (after > 0).all()


@pytest.mark.parametrize("mean", [0.05, 2.0, 40.0])
def test_poisson_numbers_are_poisson_distributed(mean: float) -> None:
    n, steps = 5000, 64
    numbers = received(scgpu.PoissonInput(Neurons(n), mean, 1, seed=11), "cpu", steps=steps)
    size = numbers.size
    assert abs(numbers.mean() - mean) < 5 * math.sqrt(mean / size)
    # the variance of a sample variance: (mu4 - sigma**4) / size, mu4 = mean + 3 mean**2
    assert abs(numbers.var() - mean) < 5 * math.sqrt((mean + 2 * mean**2) / size)
    # chi-square over the numbers that are expected 10 times or more, the rest in one class
    counts = Counter(numbers.reshape(-1).tolist())
    chi, freedom, left, left_expected = 0.0, -1, size, float(size)
    for k in range(len(poisson_thresholds(mean)) + 1):
        expected = size * math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
        if expected >= 10:
            chi += (counts[k] - expected) ** 2 / expected
            left, left_expected, freedom = left - counts[k], left_expected - expected, freedom + 1
    if left_expected >= 10:
        chi, freedom = chi + (left - left_expected) ** 2 / left_expected, freedom + 1
    assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom), (chi, freedom)


def test_poisson_numbers_are_independent() -> None:
    # of neighbours in every direction: neuron, block of neurons, step, seed and tensor
    n, steps = 4096, 64

    def numbers(**options: int) -> NDArray[np.int32]:
        return received(scgpu.PoissonInput(Neurons(n), 2.0, 1, **options), "cpu", steps=steps)

    base = numbers()
    pairs = [(base[:, :-1], base[:, 1:]), (base[:, :-4], base[:, 4:]), (base[:-1], base[1:])]
    pairs += [(base, numbers(seed=1)), (base, numbers(seed=2**32)), (base, numbers(tensor_id=1))]
    for a, b in pairs:
        assert abs(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]) < 5 / math.sqrt(a.size)


def test_poisson_least_mean_almost_never_and_weight_zero(chosen: scgpu.Device) -> None:
    assert not received(scgpu.PoissonInput(Neurons(1000), 2.0**-32, 1), chosen, steps=15).any()
    assert not received(scgpu.PoissonInput(Neurons(1000), 5.0, 0), chosen, steps=15).any()


def test_poisson_most_entries_and_steps(chosen: scgpu.Device) -> None:
    # software rasterisers end an invocation after 65,535 loop trips; 64 steps are the most of an interval
    source = scgpu.PoissonInput(Neurons(9), 1000.0, 7)
    assert np.array_equal(received(source, chosen, steps=64), received(source, "numpy", steps=64))
    assert MAX_TRIPS > 64 * 40


def test_poisson_keeps_plain_numbers() -> None:
    source = scgpu.PoissonInput(Neurons(3), np.float32(0.5), np.int8(-3), seed=np.uint64(2**64 - 1))  # type: ignore[arg-type]
    assert (type(source.mean), type(source.weight), type(source.seed)) == (float, int, int)
    assert (source.mean, source.weight, source.seed) == (0.5, -3, 2**64 - 1)
    assert source == scgpu.PoissonInput(Neurons(3), 0.5, -3, 2**64 - 1)
    with pytest.raises(ValueError, match="read-only"):
        source.thresholds[0] = 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": [1, 2]}, TypeError, r"target must be a Population; got \[1, 2\] of type list"),
        ({"target": 100}, TypeError, "target must be a Population; got 100 of type int"),
        ({"mean": 0.0}, ValueError, r"mean must be from 2\*\*-32 to 1000 in each step; got 0.0"),
        ({"mean": 1e-10}, ValueError, "got 1e-10.*leave the input away"),
        ({"mean": -1.0}, ValueError, "got -1.0"),
        ({"mean": 1000.1}, ValueError, "got 1000.1.*several inputs of different tensor_id"),
        ({"mean": math.nan}, ValueError, "got nan"),
        ({"mean": math.inf}, ValueError, "got inf"),
        ({"mean": "2"}, TypeError, "mean must be a number; got '2' of type str"),
        ({"mean": True}, TypeError, "mean must be a number; got True"),
        ({"mean": np.ones(2)}, TypeError, "mean must be a number; got .* of type ndarray"),
        ({"weight": 2**15}, ValueError, "weight must be from -32768 to 32767; got 32768"),
        ({"weight": 1.0}, TypeError, "weight must be an integer.*got 1.0 of type float"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 18446744073709551615; got -1"),
        ({"tensor_id": 2**24}, ValueError, "tensor_id must be from 0 to 16777215; got 16777216"),
    ],
)
def test_poisson_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.PoissonInput(**{"target": Neurons(3), "mean": 1.0, "weight": 1, **options})
