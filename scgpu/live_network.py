"""What `scgpu live` shows: a `SpikingNetwork` with its buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scgpu._gpu import GpuBuffer
from scgpu._render import DrawnPopulation
from scgpu.population import Population
from scgpu.spiking_network import SpikingNetwork

KICK = 1.25  # of the way from rest to the threshold


def _mean(value: Any) -> float:
    return float(np.mean(value))


class LiveNetwork:
    """A network as `scgpu.live.Session` runs it.

    Parameters
    ----------
    network : SpikingNetwork
        On a GPU adapter.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self._network = network
        self.step_seconds = network.step_seconds
        self.drawn = tuple(self._drawn(population) for population in network.populations)

    def _drawn(self, population: Population) -> DrawnPopulation:
        params, cells = population.params, self._network._cells[population]
        rest, threshold = _mean(params.v_rest), _mean(params.v_threshold)
        gain = max(_mean(params.gain_k), 1.0) / 2**params.fraction
        return DrawnPopulation(
            str(population.name),
            population.count,
            rest,
            threshold,
            population._state,
            cells.inbox,
            cells.slot_count,
            int(np.clip(np.ceil(KICK * (threshold - rest) / gain), 1, 2**15 - 1)),
        )

    @property
    def step(self) -> int:
        """Steps that were run."""
        return self._network.step

    def run(self, n_steps: int) -> Sequence[GpuBuffer]:
        """Advance by steps within a block of 64; the buffers with the spikes of that block."""
        self._network.run(n_steps, progress=False)
        newest = self._network._segments.newest
        return [newest.words[one] for one in self._network.populations] if newest else []
