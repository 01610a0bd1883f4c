"""Neurons one step at a time: vectors of the reference, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lif import NAMES, parameters

import scgpu

I16 = st.integers(-(2**15), 2**15 - 1)


def test_fixed_point_lif_matches_golden_fuzz(golden: dict[str, Any]) -> None:
    case = golden["lif"]["fuzz"]
    for row in range(len(case["params"])):
        neuron = scgpu.FixedPointLif(**dict(zip(NAMES, case["params"][row].tolist(), strict=True)))
        for step, given_numbers in enumerate(case["leak_gain_i_noise"][row].tolist()):
            assert neuron.step(*given_numbers) == (case["spikes"][row, step], case["v"][row, step])
            state = {"v": case["state_v"][row, step], "refractory_counter": case["state_refractory"][row, step]}
            assert neuron.get_state() == state


def test_fixed_point_lif_matches_golden_runs(golden: dict[str, Any]) -> None:
    for name, case in golden["lif"].items():
        if name.startswith("const"):
            neuron = scgpu.FixedPointLif(**parameters(case))
            made = [neuron.step(*case["leak_gain_i_noise"].tolist()) for _ in case["v"]]
            assert made == list(zip(case["spikes"].tolist(), case["v"].tolist(), strict=True))


@given(
    numbers=st.fixed_dictionaries(
        {
            "data_width": st.integers(1, 16),
            "fraction": st.integers(0, 31),
            **dict.fromkeys(("v_rest", "v_reset", "v_threshold"), I16 | st.integers(-300, 300)),
            "refractory_period": st.integers(-3, 5),
        }
    ),
    leak_k=I16 | st.integers(-128, 128),
    gain_k=I16 | st.integers(-300, 300),
    inputs=st.lists(st.tuples(I16, I16 | st.integers(-9, 9)), min_size=1, max_size=40),
)
def test_fixed_point_lif_equals_the_batch(
    chosen: scgpu.Device, numbers: dict[str, int], leak_k: int, gain_k: int, inputs: list[tuple[int, int]]
) -> None:
    neuron = scgpu.FixedPointLif(**numbers)
    made = [neuron.step(leak_k, gain_k, *one) for one in inputs]
    currents, noises = np.array(inputs).T
    spikes, v = scgpu.batch_lif_run_varying(leak_k, gain_k, currents, noises, **numbers, device=chosen)
    assert made == list(zip(spikes.tolist(), v.tolist(), strict=True))


def test_fixed_point_lif_state() -> None:
    neuron = scgpu.FixedPointLif(v_rest=5, v_reset=-70)
    assert neuron.get_state() == {"v": 5, "refractory_counter": 0}
    for _ in range(4):
        neuron.step(20, 256, 128)
    state = neuron.get_state()
    following = [neuron.step(20, 256, 128) for _ in range(20)]
    other = scgpu.FixedPointLif(v_rest=5, v_reset=-70)
    other.set_state(state)
    assert [other.step(20, 256, 128) for _ in range(20)] == following
    other.reset()
    assert other.get_state() == {"v": 5, "refractory_counter": 0}


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ({"data_width": 0}, ValueError, "data_width must be from 1 to 16; got 0"),
        ({"data_width": 17}, ValueError, "data_width must be from 1 to 16; got 17"),
        ({"fraction": 32}, ValueError, "fraction must be from 0 to 31; got 32"),
        ({"v_rest": 2**15}, ValueError, "v_rest must be from -32768 to 32767; got 32768"),
        ({"v_threshold": 1.5}, TypeError, "v_threshold must be an integer"),
        ({"refractory_period": True}, TypeError, "refractory_period must be an integer"),
    ],
)
def test_fixed_point_lif_rejects(numbers: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.FixedPointLif(**numbers)


def test_fixed_point_lif_rejects_steps_and_states() -> None:
    neuron = scgpu.FixedPointLif()
    for given_numbers, error in (
        ((20, 256, 2**15), ValueError),
        ((20, 256.0, 1), TypeError),
        ((2**15, 1, 1), ValueError),
    ):
        with pytest.raises(error, match=r"(i_t|gain_k|leak_k) must be"):
            neuron.step(*given_numbers)  # type: ignore[arg-type]
    for state, message in (
        ({"v": 1}, r"must have the keys 'v' and 'refractory_counter'; got \['v'\]"),
        ({"v": 1, "refractory_counter": 2**15}, "refractory_counter must be from -32768 to 32767"),
        ({"v": 2**15, "refractory_counter": 1}, "v must be from -32768 to 32767"),
    ):
        with pytest.raises(ValueError, match=message):
            neuron.set_state(state)
    assert neuron.get_state() == {"v": 0, "refractory_counter": 0}


def test_lif_step_matches_golden(golden: dict[str, Any]) -> None:
    names = [name for name in golden["jax"] if name.startswith("lif")]
    assert len(names) >= 3
    for name in names:
        case = golden["jax"][name]
        rest, reset, threshold, alpha, resistance = case["rest_reset_thr_alpha_res"].tolist()
        v, spikes = scgpu.lif_step(case["v"], case["I"], rest, reset, threshold, alpha, resistance, case["noise"])
        assert np.allclose(v, case["v_next"], rtol=1e-9, atol=1e-10)  # the tolerance that lif_step declares
        assert v.dtype == np.float64 and spikes.dtype == np.uint8 and np.array_equal(spikes, case["spikes"])


def test_lif_step_of_single_precision_rounds_once() -> None:
    rng = np.random.default_rng(0)
    v, current, noise = rng.normal(size=(3, 1000)).astype(np.float32)
    made, spikes = scgpu.lif_step(v, current, -0.1, -0.2, 0.7, 0.3, 1.7, noise)
    wide = [array.astype(np.float64) for array in (v, current, noise)]
    expected, expected_spikes = scgpu.lif_step(wide[0], wide[1], -0.1, -0.2, 0.7, 0.3, 1.7, wide[2])
    assert made.dtype == np.float32 and np.array_equal(made, expected.astype(np.float32))
    assert np.array_equal(spikes, expected_spikes) and 0 < spikes.sum() < 1000


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"v": [math.nan, 1.0]}, ValueError, r"v must be finite; got nan at index \(0,\)"),
        ({"i_t": [1.0, math.inf]}, ValueError, r"i_t must be finite; got inf at index \(1,\)"),
        ({"noise": [1.0, -math.inf]}, ValueError, r"noise must be finite; got -inf"),
        ({"v": [1, 2]}, TypeError, "v must hold floating-point numbers; got dtype int64"),
        ({"v": np.zeros(0)}, ValueError, "v must not be empty"),
        ({"noise": 0.0}, ValueError, r"noise must have the shape of v, \(2,\); got \(\)"),
        ({"i_t": [1.0, 2.0, 3.0]}, ValueError, r"i_t must have the shape of v, \(2,\); got \(3,\)"),
        ({"i_t": np.ma.masked_array([1.0, 2.0], [0, 1])}, TypeError, "masked"),
        ({"alpha": 0.0}, ValueError, "alpha must be finite and above 0; got 0.0"),
        ({"alpha": math.nan}, ValueError, "alpha must be finite and above 0; got nan"),
        ({"resistance": -1}, ValueError, "resistance must be finite and above 0; got -1.0"),
        ({"resistance": True}, TypeError, "resistance must be a number; got True"),
        ({"v_rest": math.inf}, ValueError, "v_rest must be finite; got inf"),
        ({"v_threshold": "1"}, TypeError, "v_threshold must be a number; got '1' of type str"),
    ],
)
def test_lif_step_rejects(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given_numbers: dict[str, Any] = {
        "v": [0.5, 0.9],
        "i_t": [0.25, 0.5],
        "v_rest": 0.0,
        "v_reset": 0.0,
        "v_threshold": 1.0,
        "alpha": 0.5,
        "resistance": 1.0,
        "noise": [0.0, 0.0],
    }
    with pytest.raises(error, match=message):
        scgpu.lif_step(**{**given_numbers, **changes})
