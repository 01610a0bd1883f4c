"""The file of a spiking network: what it is, and where it stands, for `SpikingNetwork.save` and `load`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import archive, arguments
from scgpu.archive import Archive, Format
from scgpu.backend import Device
from scgpu.devices import device as device_of
from scgpu.drive import ConstantCurrent, CurrentArray
from scgpu.network_kernels import External
from scgpu.poisson import PoissonInput
from scgpu.population import LifParameters, Population
from scgpu.propagate import Projection
from scgpu.spike_source import BernoulliSource, SpikeSource, SpikeTrain
from scgpu.spiking_network import MOST_STEPS, SpikingNetwork
from scgpu.stdp import PairStdp

FORMAT = Format("spiking network", 1, "SpikingNetwork.save")
I16, I32, U32, U64 = (np.dtype(name) for name in ("<i2", "<i4", "<u4", "<u8"))
LIF_NUMBERS = ("leak_k", "gain_k", "v_rest", "v_reset", "v_threshold", "refractory_period")

Entry = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def save(network: SpikingNetwork, path: str | os.PathLike[str]) -> None:
    """Write a network and its state."""
    header, arrays = contents(network)
    archive.save(path, FORMAT, {"step": network.step, **header}, arrays | state(network))


def contents(network: SpikingNetwork) -> tuple[Entry, Arrays]:
    """What a network is, wherever it stands."""
    sources: list[SpikeSource] = []
    for one in network.projections:
        if isinstance(one.source, SpikeSource) and one.source not in sources:
            sources.append(one.source)
    arrays: Arrays = {}

    def listed(kind: str, parts: Sequence[Any], describe: Callable[..., tuple[Entry, Arrays]]) -> list[Entry]:
        entries = []
        for place, part in enumerate(parts):
            entry, found = describe(network, part)
            arrays.update({f"{kind}.{place}.{name}": array for name, array in found.items()})
            entries.append(entry)
        return entries

    def joined(network: SpikingNetwork, one: Projection) -> tuple[Entry, Arrays]:
        entry, found = _projection(network, one)
        if isinstance(one.source, SpikeSource):
            return {**entry, "source": sources.index(one.source), "source_kind": "sources"}, found
        return {**entry, "source": network.populations.index(one.source), "source_kind": "populations"}, found

    header = {
        "step_seconds": network.step_seconds,
        "populations": listed("populations", network.populations, _population),
        "sources": listed("sources", sources, _source),
        "projections": listed("projections", network.projections, joined),
        "inputs": listed("inputs", network.inputs, _input),
    }
    return header, arrays


def state(network: SpikingNetwork) -> Arrays:
    """What changes in a network while it runs, but for the step; `restore` puts it back."""
    buffers: dict[str, Any] = {}
    for place, (population, cells) in enumerate(network._cells.items()):
        buffers |= {f"populations.{place}.state": population._state, f"populations.{place}.inbox": cells.inbox}
    for place, synapses in enumerate(network._synapses):
        for side, traces in zip(("source", "target"), synapses.traces, strict=False):
            buffers[f"projections.{place}.{side}_traces"] = traces.state
    arrays = dict(zip(buffers, network._backend.execute([], list(buffers.values())), strict=True))
    for place, synapses in enumerate(network._synapses):
        if synapses.traces:
            arrays[f"projections.{place}.weights"] = synapses.projection.weights.reshape(-1)
    return arrays


def restore(network: SpikingNetwork, contents: Archive) -> None:
    """Put a network where the `state` in a file says that it stood."""
    write = network._backend.write
    for place, (population, cells) in enumerate(network._cells.items()):
        name, slots = f"populations.{place}", cells.slot_count * population.count
        write(population._state, contents.array(f"{name}.state", I16, (2 * population.count,)))
        write(cells.inbox, contents.array(f"{name}.inbox", I32, (slots,)))
    for place, synapses in enumerate(network._synapses):
        name, one = f"projections.{place}", synapses.projection
        if synapses.traces:
            write(one._weights, contents.array(f"{name}.weights", I16, (one.synapse_count,)))
        for side, traces in zip(("source", "target"), synapses.traces, strict=False):
            write(traces.state, contents.array(f"{name}.{side}_traces", I32, (traces.count,)))


def _population(network: SpikingNetwork, one: Population) -> tuple[Entry, Arrays]:
    entry = {"name": one.name, "count": one.count, **one._neurons.format._asdict()}
    return entry, {"table": one._neurons.table}


def _source(network: SpikingNetwork, one: SpikeSource) -> tuple[Entry, Arrays]:
    if isinstance(one, BernoulliSource):
        entry = {"kind": "bernoulli", "count": one.count, "seed": one.seed, "tensor_id": one.tensor_id}
        return entry, {"thresholds": one.thresholds}
    assert isinstance(one, SpikeTrain)
    return {"kind": "train", "count": one.count, "length": one.length}, {"words": one.words}


def _projection(network: SpikingNetwork, one: Projection) -> tuple[Entry, Arrays]:
    entry = {
        "target": network.populations.index(one.target),
        "delay": one.delay,
        "dense": one.dense,
        "synapse_count": one.synapse_count,
        "plasticity": None if one.plasticity is None else asdict(one.plasticity),
    }
    arrays: Arrays = {"initial": one._initial}
    if not one.dense:
        arrays |= {"rows": one._host_rows, "targets": one._host_targets}
    return entry, arrays


def _input(network: SpikingNetwork, one: External) -> tuple[Entry, Arrays]:
    target = network.populations.index(one.target)
    if isinstance(one, PoissonInput):
        numbers = {"mean": one.mean, "weight": one.weight, "seed": one.seed, "tensor_id": one.tensor_id}
        return {"kind": "poisson", "target": target, **numbers}, {}
    kind = "constant" if isinstance(one, ConstantCurrent) else "array"
    return {"kind": kind, "target": target, "shape": list(one.values.shape)}, {"values": one.values}


def load(path: str | os.PathLike[str], device: str | int | Device) -> SpikingNetwork:
    """Make the network of a file, on any device, at the step where it was saved."""
    chosen = device_of(device)

    def made(contents: Archive) -> SpikingNetwork:
        try:
            return _Reader(contents, chosen).network()
        except (KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"its header does not fit together ({type(error).__name__}: {error})") from error

    return archive.load(path, FORMAT, made)


class _Reader:
    """Makes the parts of a network from a file, and puts them where they stood."""

    def __init__(self, contents: Archive, device: Device) -> None:
        self._contents = contents
        self._device = device

    def network(self) -> SpikingNetwork:
        header = self._contents.header
        populations = [self._population(*one) for one in enumerate(header["populations"])]
        sources = [self._source(*one) for one in enumerate(header["sources"])]
        ends: dict[str, Sequence[Any]] = {"populations": populations, "sources": sources}
        projections = [self._projection(place, one, ends) for place, one in enumerate(header["projections"])]
        inputs = [self._input(place, one, populations) for place, one in enumerate(header["inputs"])]
        self._require_inboxes(populations, projections)
        network = SpikingNetwork(populations, projections, inputs, step_seconds=header["step_seconds"])
        restore(network, self._contents)
        network.step = arguments.integer("step", header["step"], 0, MOST_STEPS)
        return network

    def _require_inboxes(self, populations: Sequence[Population], projections: Sequence[Projection]) -> None:
        """Refuse delays that need more memory than the file has for them, before it is taken."""
        for place, population in enumerate(populations):
            steps = max((one.delay for one in projections if one.target is population), default=1)
            (size,) = self._contents.shape(f"populations.{place}.inbox", I32, None)
            if size < steps * population.count:
                raise ValueError(f"populations.{place}.inbox of {size} is too short for a delay of {steps} steps")

    def _array(self, kind: str, place: int, name: str, dtype: np.dtype[Any], *shape: int) -> NDArray[Any]:
        return self._contents.array(f"{kind}.{place}.{name}", dtype, shape)

    def _population(self, place: int, entry: Mapping[str, Any]) -> Population:
        count = arguments.integer("count", entry["count"], 1, 2**32 - 1)
        table = self._contents.array(f"populations.{place}.table", I16, None)
        if table.shape not in ((6, 1), (6, count)):
            raise ValueError(f"populations.{place}.table must have shape (6, 1) or (6, {count}); it has {table.shape}")
        self._contents.shape(f"populations.{place}.state", I16, (2 * count,))  # before memory is taken for it
        numbers = {name: row if count == row.size else row[0] for name, row in zip(LIF_NUMBERS, table, strict=True)}
        params = LifParameters(**numbers, data_width=entry["data_width"], fraction=entry["fraction"])
        return Population(count, params, name=entry["name"], device=self._device)

    def _source(self, place: int, entry: Mapping[str, Any]) -> SpikeSource:
        count = arguments.integer("count", entry["count"], 1, 2**32 - 1)
        if arguments.choice("kind", entry["kind"], ("bernoulli", "train")) == "bernoulli":
            # A threshold over 2**32 is a number of 53 bits, and gives the same threshold again.
            probability = self._array("sources", place, "thresholds", U32, count) / 2**32
            return BernoulliSource(count, probability, entry["seed"], tensor_id=entry["tensor_id"])
        length = arguments.length_of(entry["length"])
        return SpikeTrain.of_words(self._array("sources", place, "words", U64, count, -(-length // 64)), length)

    def _projection(self, place: int, entry: Mapping[str, Any], ends: Mapping[str, Sequence[Any]]) -> Projection:
        source = ends[entry["source_kind"]][arguments.integer("source", entry["source"], 0, 2**32)]
        target = ends["populations"][arguments.integer("target", entry["target"], 0, 2**32)]
        synapse_count = arguments.integer("synapse_count", entry["synapse_count"], 0, 2**32 - 1)
        weights: Any = self._array("projections", place, "initial", I16, synapse_count)
        if entry["dense"]:
            if synapse_count != source.count * target.count:
                raise ValueError(f"projections.{place} is of {source.count} x {target.count}, not {synapse_count}")
            weights = weights.reshape(source.count, target.count)
        else:
            rows = self._array("projections", place, "rows", U32, source.count + 1)
            weights = rows, self._array("projections", place, "targets", U32, synapse_count), weights
        rule = entry["plasticity"]
        plasticity = None if rule is None else PairStdp(**rule)
        return Projection(source, target, weights, delay=entry["delay"], plasticity=plasticity)

    def _input(self, place: int, entry: Mapping[str, Any], populations: Sequence[Population]) -> External:
        target = populations[arguments.integer("target", entry["target"], 0, 2**32)]
        kind = arguments.choice("kind", entry["kind"], ("constant", "array", "poisson"))
        if kind == "poisson":
            return PoissonInput(target, entry["mean"], entry["weight"], entry["seed"], entry["tensor_id"])
        shape = tuple(arguments.integer("shape", one, 0, 2**32) for one in entry["shape"])
        values = self._array("inputs", place, "values", I16, *shape)
        return ConstantCurrent(target, values) if kind == "constant" else CurrentArray(target, values)
