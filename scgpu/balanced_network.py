"""A balanced random network of any size, to look at and to measure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import Device
from scgpu.poisson import PoissonInput
from scgpu.population import LifParameters, Population
from scgpu.propagate import Projection
from scgpu.spiking_network import SpikingNetwork

SYNAPSE_SHARE = 0.1  # of the neurons of a target, for every source neuron
DRAWN_ROWS = 256  # source neurons whose synapses are drawn at once
LEAST_NEURONS, MOST_NEURONS = 20, 50_000


class _Rows(NamedTuple):
    """Synapses in compressed rows, as `Projection` takes them."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    data: NDArray[np.int16]


def _random_rows(sources: int, targets: int, weight: int, random: np.random.Generator) -> _Rows:
    """Every source neuron to the same share of the targets, drawn without replacement."""
    each = max(round(SYNAPSE_SHARE * targets), 1)
    chosen = np.empty((sources, each), np.int64)
    for begin in range(0, sources, DRAWN_ROWS):
        rows = chosen[begin : begin + DRAWN_ROWS]
        rows[:] = random.random((len(rows), targets), np.float32).argpartition(each - 1, axis=1)[:, :each]
        rows.sort(axis=1)
    return _Rows(np.arange(sources + 1) * each, chosen.reshape(-1), np.full(sources * each, weight, np.int16))


def balanced_network(neurons: int = 4000, *, seed: int = 0, device: str | int | Device = "auto") -> SpikingNetwork:
    """A balanced random network: sparse, noisy, four fifths excitatory, irregular and in slow waves.

    After Brunel (2000): every neuron sends to a tenth of each population, inhibition is five times as strong
    as excitation, and each neuron gets Poisson input somewhat above what would bring it to the threshold on
    average. A step is 0.1 ms, the membrane's time constant 20 ms, the delay 1.5 ms, the refractory time 2 ms.

    Parameters
    ----------
    neurons : int
        All of them, 20 to 50,000.
    seed : int
        Of the synapses and of the input.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    SpikingNetwork
        Populations ``excitatory`` and ``inhibitory``.

    Raises
    ------
    ValueError
        ``neurons`` out of range.
    """
    neurons = arguments.integer("neurons", neurons, LEAST_NEURONS, MOST_NEURONS)
    random = np.random.default_rng(seed)
    excitatory_count = neurons * 4 // 5
    threshold, fraction = 4096, 12
    leak = 2**fraction // 200  # a step of a time constant of 200 steps
    params = LifParameters(
        leak_k=leak, gain_k=2**fraction, v_threshold=threshold, refractory_period=20, fraction=fraction
    )
    cells = [
        Population(count, params, name=name, device=device)
        for name, count in (("excitatory", excitatory_count), ("inhibitory", neurons - excitatory_count))
    ]
    # As large against the threshold for networks of any size, in the sum over all synapses of a neuron.
    weight = max(round(0.03 * threshold * (3200 / excitatory_count) ** 0.5), 1)
    projections = [
        Projection(source, target, _random_rows(source.count, target.count, given, random), delay=15)
        for source, given in zip(cells, (weight, -5 * weight), strict=True)
        for target in cells
    ]
    mean = 1.4 * threshold * leak / 2**fraction / weight
    inputs = [PoissonInput(one, mean, weight, seed=seed, tensor_id=index) for index, one in enumerate(cells)]
    return SpikingNetwork(cells, projections, inputs, step_seconds=1e-4)
