"""Populations: parameters, state, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scgpu

PARAMS = scgpu.LifParameters(20, 256, v_rest=[3, 4], v_reset=-5)


def test_state_is_set_fetched_and_reset(chosen: scgpu.Device) -> None:
    population = scgpu.Population(2, PARAMS, name="pair", device=chosen)
    assert population.count == 2 and population.device == chosen and "2, name='pair'" in repr(population)
    assert population.get_state()["v"].tolist() == [3, 4]
    population.set_state({"v": [7, -8], "refractory_counter": 5})
    for _ in range(2):
        state = population.get_state()
        assert state["v"].tolist() == [7, -8] and state["refractory_counter"].tolist() == [5, 5]
        assert state["v"].dtype == np.int16
        state["v"][:] = 0
    for wrong, error in (
        ({"v": 1}, "must have the keys 'v' and 'refractory_counter'; got"),
        ({"v": [1, 2, 3], "refractory_counter": 0}, r"v must be a number or have shape \(2,\); got \(3,\)"),
        ({"v": [1, 2], "refractory_counter": 2**15}, "refractory_counter"),
    ):
        with pytest.raises(ValueError, match=error):
            population.set_state(wrong)
    assert population.get_state()["v"].tolist() == [7, -8]
    population.reset()
    assert population.get_state()["v"].tolist() == [3, 4]
    assert population.get_state()["refractory_counter"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("n", "params", "name", "error", "text"),
    [
        (0, PARAMS, None, ValueError, "n must be"),
        (2.0, PARAMS, None, TypeError, "n must be"),
        (2, {"leak_k": 20}, None, TypeError, "params must be LifParameters; got dict"),
        (3, PARAMS, None, ValueError, r"v_rest must be a number or have shape \(3,\)"),
        (2, scgpu.LifParameters(20, 40000), None, ValueError, "gain_k"),
        (2, scgpu.LifParameters(20.5, 256), None, TypeError, "leak_k must hold integers"),
        (2, scgpu.LifParameters(20, 256, data_width=17), None, ValueError, "data_width"),
        (2, scgpu.LifParameters(20, 256, fraction=-1), None, ValueError, "fraction"),
        (2, PARAMS, "", ValueError, "name must be a string that is not empty, or None; got ''"),
    ],
)
def test_population_rejects(n: Any, params: Any, name: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        scgpu.Population(n, params, name=name, device="numpy")
