"""Synapses that learn: vectors of the reference, and the defect that is not copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scgpu


def test_stdp_matches_golden_where_a_minus_is_positive(golden: dict[str, Any]) -> None:
    compared = 0
    for case in golden["stdp"].values():
        numbers = case.get("aplus_aminus_decay_wmin_wmax")
        if numbers is None or numbers[1] <= 0:
            continue
        synapse = scgpu.StdpSynapse(*case["init_dw_frac"].tolist())
        for pre, post, weight in zip(case["pre"].tolist(), case["post"].tolist(), case["weight"].tolist(), strict=True):
            synapse.step(pre, post, *numbers.tolist())
            assert synapse.weight == weight
            compared += 1
    assert compared >= 600


def test_stdp_sign_of_a_minus_does_not_matter(golden: dict[str, Any]) -> None:
    # the reference's default, -16, raises the weight where it should lower it
    case = golden["stdp"]["s0"]
    positive, negative, usual = (scgpu.StdpSynapse(1000) for _ in range(3))
    weights = []
    for pre, post in zip(case["pre"].tolist(), case["post"].tolist(), strict=True):
        positive.step(pre, post, a_minus=16)
        negative.step(pre, post, a_minus=-16)
        usual.step(pre, post)
        assert positive.weight == negative.weight == usual.weight
        weights.append(positive.weight)
    assert min(np.diff(weights)) < 0 < max(np.diff(weights))
    assert weights != case["weight"].tolist() and min(np.diff(case["weight"])) >= 0


def test_stdp_depresses_after_and_potentiates_before() -> None:
    for first, second, sign in (((1, 0), (0, 1), 1), ((0, 1), (1, 0), -1), ((1, 1), (0, 0), 1)):
        synapse = scgpu.StdpSynapse(1000)
        for spikes in (first, second):
            synapse.step(*spikes, a_plus=64, a_minus=64)
        assert isinstance(synapse.weight, int) and np.sign(synapse.weight - 1000) == sign


def test_stdp_stays_within_its_limits() -> None:
    synapse = scgpu.StdpSynapse(100)
    for _ in range(50):
        synapse.step(1, 1, a_plus=200, w_max=300)
    assert synapse.weight == 300
    for _ in range(200):
        synapse.step(0, 1, a_plus=0, a_minus=300, w_max=300)
        synapse.step(1, 0, a_plus=0, a_minus=300, w_min=50, w_max=300)
    assert synapse.weight == 50


def test_stdp_of_an_array_equals_single_synapses() -> None:
    rng = np.random.default_rng(0)
    initial = rng.integers(-500, 500, (3, 4))
    many = scgpu.StdpSynapse(initial, 12, 6)
    single = [scgpu.StdpSynapse(int(weight), 12, 6) for weight in initial.flat]
    numbers = {"a_plus": 30, "a_minus": 20, "decay": 55, "w_min": -300, "w_max": 400}
    for _ in range(100):
        pre, post = rng.random((2, 3, 4)) < 0.3
        many.step(pre, post, **numbers)
        for synapse, one_pre, one_post in zip(single, pre.flat, post.flat, strict=True):
            synapse.step(one_pre, one_post, **numbers)
    weights = many.weight
    assert isinstance(weights, np.ndarray) and weights.dtype == np.int16 and weights.shape == (3, 4)
    assert weights.reshape(-1).tolist() == [synapse.weight for synapse in single]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pre": 2}, ValueError, "pre must be 0 or 1"),
        ({"post": -1}, ValueError, "post must be 0 or 1"),
        ({"post": 0.5}, ValueError, "post must be 0 or 1"),
        ({"pre": [0, 1]}, ValueError, r"pre must be a number or have the shape \(3,\); got \(2,\)"),
        ({"a_plus": 2**15}, ValueError, "a_plus must be from -32768 to 32767; got 32768"),
        ({"a_minus": 1.5}, TypeError, "a_minus must be an integer"),
        ({"decay": -(2**15) - 1}, ValueError, "decay must be from -32768"),
        ({"w_min": 5, "w_max": 4}, ValueError, "w_max must be from 5 to 32767; got 4"),
    ],
)
def test_stdp_rejects(given: dict[str, Any], error: type[Exception], message: str) -> None:
    synapse = scgpu.StdpSynapse([1, 2, 3])
    with pytest.raises(error, match=message):
        synapse.step(**{"pre": 1, "post": 1, **given})
    assert np.array_equal(synapse.weight, [1, 2, 3])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((2**15,), ValueError, "initial_weight must be from -32768 to 32767; got 32768$"),
        (([1.5],), TypeError, "initial_weight must hold integers; got dtype float64"),
        ((1, 17), ValueError, "data_width must be from 1 to 16; got 17"),
        ((1, 16, 32), ValueError, "fraction must be from 0 to 31; got 32"),
    ],
)
def test_stdp_rejects_at_the_start(given: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.StdpSynapse(*given)
