"""Sources of spikes: the bits they play, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scgpu


def echo(source: Any, device: scgpu.Device, lengths: tuple[int, ...], delay: int) -> Any:
    """Bits of neurons that fire whenever a spike of their train arrives, over several runs."""
    params = scgpu.LifParameters(0, 256, v_threshold=100, refractory_period=0)
    cells = scgpu.Population(source.count, params, device=device)
    weights = 100 * np.eye(source.count, dtype=int)
    network = scgpu.SpikingNetwork([cells], [scgpu.Projection(source, cells, weights, delay=delay)])
    runs = [network.run(length, record="spikes")["population_0"] for length in lengths]
    return np.concatenate([run.spikes("numpy").bits() for run in runs], axis=1)


@pytest.mark.parametrize("delay", [1, 20, 70])
def test_a_bernoulli_source_is_what_encode_makes(chosen: scgpu.Device, delay: int) -> None:
    p = np.array([0.0, 1.0, 0.5, 0.01, 2.0**-32])
    source = scgpu.BernoulliSource(5, p, seed=2**63 + 5, tensor_id=3)
    expected = scgpu.encode(p, 400, 2**63 + 5, tensor_id=3, device="numpy").bits()
    bits = echo(source, chosen, (63, 1, 1, 200, 135), delay)
    assert np.array_equal(bits[:, delay:], expected[:, : 400 - delay]) and not bits[:, :delay].any()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
def test_a_spike_train_is_played_and_ends(chosen: scgpu.Device, length: int) -> None:
    streams = scgpu.encode([0.3, 0.9, 0.0, 1.0], length, seed=3, device="numpy")
    bits = echo(scgpu.SpikeTrain(streams.to(chosen)), chosen, (70, 130), 2)
    expected = np.zeros((4, 200), np.uint8)
    expected[:, 2 : 2 + length] = streams.bits()[:, :198]
    assert np.array_equal(bits, expected)


def test_what_a_network_recorded_can_be_played(chosen: scgpu.Device) -> None:
    streams = scgpu.encode([0.3, 0.9], 100, seed=3, device="numpy")
    cells = scgpu.Population(2, scgpu.LifParameters(0, 256, v_threshold=1, refractory_period=0), device=chosen)
    once = scgpu.Projection(scgpu.SpikeTrain(streams), cells, [[1, 0], [0, 1]])
    record = scgpu.SpikingNetwork([cells], [once]).run(101, record="spikes")["population_0"]
    again = echo(scgpu.SpikeTrain(record.spikes(chosen)), chosen, (103,), 1)
    assert np.array_equal(again[:, 2:102], streams.bits())


def test_one_source_may_have_several_projections(chosen: scgpu.Device) -> None:
    source = scgpu.BernoulliSource(3, 0.2, seed=1)
    params = scgpu.LifParameters(0, 256, v_threshold=1, refractory_period=0)
    both = [scgpu.Population(3, params, name=name, device=chosen) for name in "ab"]
    eye = np.eye(3, dtype=int)
    network = scgpu.SpikingNetwork(both, [scgpu.Projection(source, one, eye) for one in both])
    record = network.run(300, record="spikes")
    assert np.array_equal(record["a"].words, record["b"].words) and record["a"].counts.sum() > 100


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: scgpu.BernoulliSource(0, 0.5), ValueError, "n must be"),
        (
            lambda: scgpu.BernoulliSource(2, 1.5),
            ValueError,
            r"^probability must lie in \[0, 1\]; got 1.5 at index \(\).$",
        ),
        (lambda: scgpu.BernoulliSource(2, [0.5, float("nan")]), ValueError, "probability"),
        (lambda: scgpu.BernoulliSource(2, [0.5] * 3), ValueError, r"shape \(2,\); got \(3,\)"),
        (lambda: scgpu.BernoulliSource(2, 0.5, seed=-1), ValueError, "seed"),
        (lambda: scgpu.BernoulliSource(2, 0.5, tensor_id=2**24), ValueError, "tensor_id"),
        (lambda: scgpu.SpikeTrain(np.zeros((2, 3))), TypeError, "streams must be a Bitstream; got ndarray"),
        (
            lambda: scgpu.SpikeTrain(scgpu.encode(np.full((2, 3), 0.5), 64, device="numpy")),
            ValueError,
            r"shape \(n,\) with n of at least 1; got \(2, 3\)",
        ),
    ],
)
def test_sources_reject(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
