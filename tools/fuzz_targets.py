"""The table of the fuzzer: for each public name of scgpu, how a right call of it is made.

A key is a public name or ``Class.method``. An entry makes, from random numbers and a device, what is
called and its arguments by name: small ones, so that a call takes milliseconds. What is called returns
something to compare: numbers, arrays, bitstreams, or a structure of them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import scgpu
from scgpu import sng

Rng = np.random.Generator
Call = tuple[Callable[..., Any], dict[str, Any]]
LENGTH = 70  # bits of a stream: one word and a part


class Target(NamedTuple):
    """How a public function is fuzzed.

    ``make`` gives a right call. ``limits`` are the largest integers that an argument may stand for in
    little time. ``names`` are words that errors may use in place of an argument's name. ``errors`` are
    allowed besides ValueError, TypeError and scgpu's own. ``devices`` tells whether the bits are made on a
    device, to be compared with the oracle's; ``slow`` calls get few examples.
    """

    make: Callable[[Rng, str], Call]
    limits: dict[str, int] = {}  # noqa: RUF012
    names: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = ()
    devices: bool = True
    slow: bool = False


# Public, but not to be fuzzed by itself, and why.
NOT_FUZZED = {
    **dict.fromkeys(
        (
            *("DeviceError", "DeviceLostError", "DeviceLossWarning", "GpuError", "NativeLibraryError", "ScgpuError"),
            *("CheckpointWarning", "SweepError", "TooLargeError"),
        ),
        "an exception, or a warning",
    ),
    "__version__": "a string",
    "Device": "fields as they are given; one that is not of this machine is refused where it is used",
    "Pending": "made by submit",
    "ParallelCount": "made by parallel_count",
    "Bitstream": "made by encode, from_words and from_bits",
    "BernoulliSource.player": "called by a network",
    "SpikeTrain.player": "called by a network",
    "Activation.integers": "called by a network",
}


def bits(rng: Rng, device: str, *shape: int, polarity: Any = "unipolar", length: int = LENGTH) -> scgpu.Bitstream:
    """Streams of random bits."""
    return scgpu.Bitstream.from_bits(
        rng.integers(0, 2, (*shape, length), dtype=np.uint8), polarity=polarity, device=device
    )


def words(rng: Rng, *shape: int) -> NDArray[np.uint64]:
    """Random words whose streams end after LENGTH bits."""
    made = rng.integers(0, 2**64, (*shape, 2), dtype=np.uint64)
    made[..., 1] &= np.uint64((1 << LENGTH - 64) - 1)
    return made


def polarity_of(rng: Rng) -> str:
    """One of the two."""
    return str(rng.choice(("unipolar", "bipolar")))


def two(function: Callable[..., Any], *names: str, polar: bool = True, **others: Any) -> Target:
    """A function of streams of one shape, and numbers."""

    def make(rng: Rng, device: str) -> Call:
        polarity = polarity_of(rng) if polar else "unipolar"
        return function, {**{name: bits(rng, device, 3, polarity=polarity) for name in names}, **others}

    return Target(make)


def many(function: Callable[..., Any], **others: Any) -> Target:
    """A function of a list of streams."""

    def make(rng: Rng, device: str) -> Call:
        return function, {"inputs": [bits(rng, device, 3) for _ in range(3)], **others}

    return Target(make, names=("streams",))


def _encode(rng: Rng, device: str) -> Call:
    polarity = polarity_of(rng)
    p = rng.random((2, 3)) if polarity == "unipolar" else 2 * rng.random((2, 3)) - 1
    arguments = {"p": p, "length": LENGTH, "seed": int(rng.integers(2**64, dtype=np.uint64)), "polarity": polarity}
    if rng.random() < 0.5:
        arguments |= {"resolution": int(rng.integers(1, 33)), "first_sample": 3, "first_stream": 1}
        arguments |= {"purpose": "weight", "tensor_id": 5}
    if rng.random() < 0.3:
        arguments["sng"] = str(rng.choice(("lfsr", "sobol", "halton", "van_der_corput", "counter")))
    return scgpu.encode, {**arguments, "device": device}


def _layer(rng: Rng, device: str, inputs: int = 3, neurons: int = 2, **others: Any) -> scgpu.DenseLayer:
    return scgpu.DenseLayer(
        inputs, neurons, length=LENGTH, weights=rng.random((neurons, inputs)), device=device, **others
    )


def _dense(rng: Rng, device: str) -> Call:
    def build(**arguments: Any) -> Any:
        layer = scgpu.DenseLayer(**arguments)
        return layer.packed_weights, layer.counts(np.full(layer.n_inputs, 0.5)), layer.weights

    arguments = {"n_inputs": 3, "n_neurons": 2, "length": LENGTH, "seed": 7, "weights": rng.random((2, 3))}
    if rng.random() < 0.5:
        arguments |= {"max_batch": 4, "tensor_id": 2, "polarity": polarity_of(rng)}
    if rng.random() < 0.4:
        arguments |= {"weight_streams": "shared", "sequence": str(rng.choice(("philox", "ramp")))}
    elif rng.random() < 0.3:
        arguments |= {"sng": "sobol"}
    return build, {**arguments, "device": device}


def of_layer(method: str) -> Target:
    """Counts or values of a layer for numbers."""

    def make(rng: Rng, device: str) -> Call:
        layer = _layer(rng, device)
        arguments = {"x": rng.random((2, 3)) if rng.random() < 0.7 else rng.random(3), "seed": 9, "first_sample": 2}
        if method == "submit":
            return (lambda **given: layer.submit(**given).result()), arguments
        return getattr(layer, method), arguments

    return Target(make)


def prepacked(method: str) -> Target:
    """Counts or values of a layer for streams."""

    def make(rng: Rng, device: str) -> Call:
        layer = _layer(rng, device)
        return getattr(layer, method), {"inputs": bits(rng, device, 2, 3), "weights": bits(rng, device, 2, 3)}

    return Target(make)


def _weights(rng: Rng, device: str) -> Call:
    layer = _layer(rng, device)

    def assign(weights: Any) -> Any:
        layer.weights = weights
        return layer.packed_weights, layer.weights

    return assign, {"weights": rng.random((2, 3))}


def _network(rng: Rng, device: str) -> Call:
    def build(layers: Any, activation: Any, scale: Any = None) -> Any:
        kind = activation if scale is None else scgpu.Activation(activation, scale)
        return scgpu.Network(layers, kind).counts(np.full(3, 0.5))

    arguments = {"layers": [_layer(rng, device, 3, 4), _layer(rng, device, 4, 2, tensor_id=1)], "activation": "relu"}
    return build, arguments


def of_network(method: str) -> Target:
    """Counts or values of a stack of layers."""

    def make(rng: Rng, device: str) -> Call:
        net = scgpu.Network([_layer(rng, device, 3, 4), _layer(rng, device, 4, 2, tensor_id=1)])
        arguments = {"x": rng.random((2, 3)), "seed": 9, "first_sample": 2}
        if method == "submit":
            return (lambda **given: net.submit(**given).result()), arguments
        return getattr(net, method), arguments

    return Target(make)


def of_streams(method: str, **others: Callable[[Rng, str], Any]) -> Target:
    """A method of a Bitstream."""

    def make(rng: Rng, device: str) -> Call:
        streams = bits(rng, device, 2, 3)
        return getattr(streams, method), {name: given(rng, device) for name, given in others.items()}

    return Target(make)


def operator_of(symbol: str) -> Target:
    """An operator between a Bitstream and something else; NotImplemented is Python's TypeError."""

    def make(rng: Rng, device: str) -> Call:
        streams = bits(rng, device, 3)
        method = getattr(streams, symbol)

        def apply(other: Any) -> Any:
            made = method(other)
            if made is NotImplemented:
                raise TypeError("other: not implemented")
            return made

        return apply, {"other": bits(rng, device, 3)}

    return Target(make, names=("a has",))


LIF = {"leak_k": 20, "gain_k": 256}
FORMAT = {"data_width": 16, "fraction": 8}
LEVELS = {"v_rest": 1, "v_reset": 0, "v_threshold": 200, "refractory_period": 2}


def _record(rng: Rng) -> dict[str, Any]:
    choice = rng.choice(("", "spikes", "voltages", "both", "counts"))
    return {"record": str(choice)} if choice else {}


def _lif_run(rng: Rng, device: str) -> Call:
    given = {"n_steps": 70, **LIF, "i_t": 100, "noise_in": -3, **FORMAT, **LEVELS, **_record(rng)}
    return scgpu.batch_lif_run, {**given, "device": device}


def _neurons(rng: Rng, count: int) -> dict[str, Any]:
    """Numbers of neurons, one for all or one each."""
    given: dict[str, Any] = {**LIF, **LEVELS}
    for name in given:
        if rng.random() < 0.3:
            given[name] = np.full(count, given[name]) + rng.integers(0, 3, count)
    return given


def _lif_multi(rng: Rng, device: str) -> Call:
    given = {"n_neurons": 3, "n_steps": 70, **_neurons(rng, 3), "currents": rng.integers(-200, 300, 3), **FORMAT}
    return scgpu.batch_lif_run_multi, {**given, **_record(rng), "device": device}


def _lif_varying(rng: Rng, device: str) -> Call:
    currents, noises = rng.integers(-200, 300, (3, 70)), rng.integers(-20, 30, (3, 70))
    given = {**_neurons(rng, 3), "currents": currents, "noises": noises, **FORMAT, **_record(rng)}
    if not given.get("record") and rng.random() < 0.5:
        given["out"] = (np.empty((3, 70), np.int32), np.empty((3, 70), np.int16))
    return scgpu.batch_lif_run_varying, {**given, "device": device}


def population(rng: Rng, device: str, count: int = 3, name: str | None = "cells") -> scgpu.Population:
    """Neurons that fire now and then."""
    return scgpu.Population(count, scgpu.LifParameters(20, 256), name=name, device=device)


def network(rng: Rng, device: str, population_name: str = "cells") -> scgpu.SpikingNetwork:
    """A ring of neurons with everything that a network may have."""
    cells = population(rng, device, 3, population_name)
    source = scgpu.BernoulliSource(2, 0.3, seed=int(rng.integers(99)))
    train = scgpu.SpikeTrain.of_words(words(rng, 3), LENGTH)
    projections = [
        scgpu.Projection(cells, cells, rng.integers(-50, 300, (3, 3)), delay=2, plasticity=scgpu.PairStdp()),
        scgpu.Projection(source, cells, (np.array([0, 1, 3]), np.array([1, 0, 2]), np.array([90, 80, 70])), delay=1),
        scgpu.Projection(train, cells, rng.integers(-50, 300, (3, 3)), delay=3),
    ]
    inputs: list[Any] = [
        scgpu.ConstantCurrent(cells, [0, 60, 120]),
        scgpu.CurrentArray(cells, rng.integers(-20, 60, (3, 40))),
        scgpu.PoissonInput(cells, 0.5, 30, seed=3),
    ]
    return scgpu.SpikingNetwork([cells], projections, inputs, step_seconds=1e-4)


def ran(net: scgpu.SpikingNetwork) -> Any:
    """What a network does in some steps."""
    return list(net.run(40, record="both").values())


def with_cells(build: Callable[..., Any], **given: Callable[[Rng], Any]) -> Target:
    """Something that comes into a population, and what the population does then."""

    def make(rng: Rng, device: str) -> Call:
        cells = population(rng, device)

        def run(**arguments: Any) -> Any:
            return ran(scgpu.SpikingNetwork([cells], inputs=[build(**arguments)]))

        return run, {"target": cells, **{name: one(rng) for name, one in given.items()}}

    return Target(make, names=("inputs", "adds up", "targets"))


def _population(rng: Rng, device: str) -> Call:
    def build(n: Any, device: Any, name: Any = None, params: Any = None, **numbers: Any) -> Any:
        given = scgpu.LifParameters(**numbers) if params is None else params
        cells = scgpu.Population(n, given, name=name, device=device)
        return ran(scgpu.SpikingNetwork([cells], inputs=[scgpu.ConstantCurrent(cells, 100)]))

    return build, {"n": 3, **_neurons(rng, 3), **FORMAT, "name": "cells", "device": device}


def _set_state(rng: Rng, device: str) -> Call:
    cells = population(rng, device)

    def apply(v: Any, refractory_counter: Any) -> Any:
        cells.set_state({"v": v, "refractory_counter": refractory_counter})
        return cells.get_state()

    return apply, {"v": rng.integers(-5, 99, 3), "refractory_counter": rng.integers(0, 3, 3)}


def _set_whole_state(rng: Rng, device: str) -> Call:
    cells = population(rng, device)
    return cells.set_state, {"state": {"v": 3, "refractory_counter": 1}}


def _projection(rng: Rng, device: str) -> Call:
    cells = population(rng, device)

    def build(delay: Any, **given: Any) -> Any:
        rule = scgpu.PairStdp(**{name: given.pop(name) for name in list(given) if name in RULE})
        weights = given.pop("weights", None)
        if weights is None:
            weights = tuple(given.pop(name) for name in ("indptr", "indices", "data"))
        synapses = scgpu.Projection(cells, cells, weights, delay=delay, plasticity=rule)
        made = ran(scgpu.SpikingNetwork([cells], [synapses], [scgpu.ConstantCurrent(cells, 100)]))
        return made, synapses.weights, synapses.largest_sums()

    given: dict[str, Any] = {"delay": 2, **RULE}
    if rng.random() < 0.5:
        given["weights"] = rng.integers(-50, 300, (3, 3))
    else:
        given |= {"indptr": np.array([0, 2, 2, 3]), "indices": np.array([0, 2, 1]), "data": rng.integers(-50, 99, 3)}
    return build, given


RULE = {"a_plus": 30, "a_minus": 20, "decay": 240, "w_min": -10, "w_max": 900, "data_width": 16, "fraction": 8}


def _projection_ends(rng: Rng, device: str) -> Call:
    cells = population(rng, device)

    def build(**given: Any) -> Any:
        synapses = scgpu.Projection(**given)
        return synapses.weights, synapses.longest_row

    given = {"source": cells, "target": cells, "weights": rng.integers(-50, 300, (3, 3)), "delay": 2}
    return build, {**given, "plasticity": scgpu.PairStdp()}


def _spiking(rng: Rng, device: str) -> Call:
    cells = population(rng, device)
    ring = scgpu.Projection(cells, cells, rng.integers(-50, 300, (3, 3)), delay=2)
    current = scgpu.ConstantCurrent(cells, 100)

    def build(**given: Any) -> Any:
        return ran(scgpu.SpikingNetwork(**given))

    return build, {"populations": [cells], "projections": [ring], "inputs": [current], "step_seconds": 1e-3}


def _run(rng: Rng, device: str) -> Call:
    net = network(rng, device)

    def run(**given: Any) -> Any:
        return list(net.run(**given).values()), net.step

    return run, {"n_steps": 50, "record": {"cells": "both"} if rng.random() < 0.5 else "spikes", "progress": False}


FOLDER = tempfile.TemporaryDirectory(prefix="scgpu-fuzz-")  # goes when Python ends


def _file(make: Callable[[Rng, str, Path], Call]) -> Callable[[Rng, str], Call]:
    """A call with a path in a folder of its own; names that the fuzzer makes up lie there too."""

    def made(rng: Rng, device: str) -> Call:
        folder = tempfile.mkdtemp(dir=FOLDER.name)
        function, arguments = make(rng, device, Path(folder) / "file.npz")

        def call(**given: Any) -> Any:
            with contextlib.chdir(folder):
                return function(**given)

        return call, arguments

    return made


def _save(rng: Rng, device: str, path: Path) -> Call:
    net = network(rng, device)
    return net.save, {"path": path}


def _load(rng: Rng, device: str, path: Path) -> Call:
    network(rng, device).save(path)
    return (lambda **given: ran(scgpu.SpikingNetwork.load(**given))), {"path": path, "device": device}


def recording(rng: Rng) -> scgpu.Recording:
    """A recording of two populations."""
    records = [
        scgpu.PopulationRecord(
            name,
            3,
            first_step=5,
            n_steps=LENGTH,
            words=words(rng, 3),
            voltages=rng.integers(-9, 99, (3, LENGTH)).astype("<i2"),
        )
        for name in ("exc", "inh")
    ]
    return scgpu.Recording(records, first_step=5, n_steps=LENGTH, step_seconds=1e-3)


def _record_of(rng: Rng, device: str) -> Call:
    def build(**given: Any) -> Any:
        return scgpu.PopulationRecord(**given)

    given = {"name": "exc", "count": 3, "first_step": 5, "n_steps": LENGTH, "words": words(rng, 3)}
    return build, {**given, "voltages": rng.integers(-9, 99, (3, LENGTH)).astype("<i2")}


def of_record(method: str, **given: Any) -> Target:
    """A method of a record of a population."""

    def make(rng: Rng, device: str) -> Call:
        more = {"device": device} if method == "spikes" else {}
        return getattr(recording(rng)["exc"], method), {**given, **more}

    return Target(make, devices=method == "spikes")


def _recording(rng: Rng, device: str) -> Call:
    def build(**given: Any) -> Any:
        return list(scgpu.Recording(**given).values())

    whole = recording(rng)
    return build, {"records": list(whole.values()), "first_step": 5, "n_steps": LENGTH, "step_seconds": 1e-3}


def _recording_load(rng: Rng, device: str, path: Path) -> Call:
    recording(rng).save(path)
    return (lambda **given: list(scgpu.Recording.load(**given).values())), {"path": path}


def plot(name: str, **given: Any) -> Target:
    """A picture of a recording: that there is one is all that is compared."""

    def make(rng: Rng, device: str) -> Call:
        def draw(**arguments: Any) -> Any:
            from matplotlib import pyplot

            figure = getattr(scgpu, name)(**arguments)
            found = len(figure.axes)
            pyplot.close("all")
            return found

        return draw, {"recording": recording(rng), "begin": 10, "end": 60, **given}

    return Target(make, devices=False, slow=True)


def _profile_export(rng: Rng, device: str, path: Path) -> Call:
    with scgpu.profile() as collected:
        scgpu.encode([0.5], 64, device=device)
    return collected.export, {"path": path}


def _profile_table(rng: Rng, device: str) -> Call:
    def call(ceilings: Any) -> None:
        with scgpu.profile() as collected:
            scgpu.encode([0.5], 64, device=device)
        collected.table(ceilings=ceilings)

    return call, {"ceilings": False}


def machine(rng: Rng, device: str) -> Call:
    """A machine of two inputs, by its tables."""

    def build(**given: Any) -> Any:
        built = scgpu.StateMachine(**given)
        return built.run(*streams[: built.n_inputs])

    streams = [bits(rng, device, 3) for _ in range(3)]
    given = {"transitions": rng.integers(0, 5, (5, 4)), "outputs": rng.integers(0, 2, (5, 4)), "initial": 2}
    return build, {**given, "second_outputs": rng.integers(0, 2, 5)}


def _machine_run(rng: Rng, device: str) -> Call:
    built = scgpu.StateMachine(rng.integers(0, 5, (5, 4)), rng.integers(0, 2, (5, 4)))
    states = rng.integers(0, 5, 3).astype(np.uint32)

    def run(x: Any, y: Any, states: Any, polarity: Any) -> Any:
        return built.run(x, y, states=states, polarity=polarity), states

    given = {"x": bits(rng, device, 3), "y": bits(rng, device, 3), "states": states, "polarity": "unipolar"}
    return run, given


def _synapse(rng: Rng, device: str) -> Call:
    def build(**given: Any) -> Any:
        synapse = scgpu.StdpSynapse(**given)
        synapse.step(1, 0)
        synapse.step(0, 1)
        return synapse.weight

    return build, {"initial_weight": rng.integers(-9, 99, 3), **FORMAT}


def _synapse_step(rng: Rng, device: str) -> Call:
    synapse = scgpu.StdpSynapse(rng.integers(-9, 99, 3))

    def step(**given: Any) -> Any:
        synapse.step(**given)
        return synapse.weight

    rule = {name: value for name, value in RULE.items() if name not in FORMAT}
    return step, {"pre": rng.integers(0, 2, 3), "post": rng.integers(0, 2, 3), **rule}


def _step_of_lif(rng: Rng, device: str) -> Call:
    neuron = scgpu.FixedPointLif()
    return neuron.step, {**LIF, "i_t": 200, "noise_in": 3}


def _lif_neuron(rng: Rng, device: str) -> Call:
    def build(**given: Any) -> Any:
        neuron = scgpu.FixedPointLif(**given)
        return [neuron.step(20, 256, 100) for _ in range(9)]

    return build, {**FORMAT, **LEVELS}


def _lif_set_state(rng: Rng, device: str) -> Call:
    neuron = scgpu.FixedPointLif()

    def apply(v: Any, refractory_counter: Any) -> Any:
        neuron.set_state({"v": v, "refractory_counter": refractory_counter})
        return neuron.get_state()

    return apply, {"v": 7, "refractory_counter": 1}


def _floats(rng: Rng, device: str) -> Call:
    arrays = {name: rng.random(3) for name in ("v", "i_t", "noise")}
    numbers = {"v_rest": 0.0, "v_reset": 0.1, "v_threshold": 1.0, "alpha": 0.5, "resistance": 2.0}
    return scgpu.lif_step, {**arrays, **numbers}


def register(method: str, owner: Callable[..., Any], **given: Any) -> Target:
    """A method of a shift register, or of its encoder."""

    def make(rng: Rng, device: str) -> Call:
        one = owner(seed=int(rng.integers(1, 65536)))
        return (lambda **arguments: (getattr(one, method)(**arguments), one.reg)), dict(given)

    return Target(make, devices=False)


def call(function: Callable[..., Any], /, *, devices: bool = True, **given: Any) -> Target:
    """A function with the same arguments every time, and the device where it takes one."""

    def make(rng: Rng, device: str) -> Call:
        return function, {**given, **({"device": device} if devices else {})}

    return Target(make, devices=devices)


def _faulty(function: Callable[..., Any], /, **others: Any) -> Target:
    def make(rng: Rng, device: str) -> Call:
        given = {"streams": bits(rng, device, 2, 3), "rate": rng.random((2, 3)), "seed": 4, "tensor_id": 1}
        return function, {**given, "first_sample": 1, "first_stream": 2, **others}

    return Target(make)


def _sc_forward(rng: Rng, device: str) -> Call:
    given = {"weights_packed": rng.integers(0, 2**64, (2, 3, 2), dtype=np.uint64), "input_probs": rng.random(3)}
    return scgpu.sc_forward, {**given, "length": 128, "seed": 99, "backend": device}


def _choose(function: Callable[..., Any], name: str) -> Target:
    def make(rng: Rng, device: str) -> Call:
        def chosen(**given: Any) -> str:
            return str(function(**given))

        choices = ("cpu", "numpy", "auto", "gpu", "0", "llvmpipe", "cpu:x86_64_v2")
        return chosen, {name: str(rng.choice(choices))}

    return Target(make, names=("device", "backend"), errors=(RuntimeError,), devices=False)


def _generator(kind: type[Any], **given: Any) -> Target:
    def make(rng: Rng, device: str) -> Call:
        def build(**arguments: Any) -> Any:
            return scgpu.encode([[0.25, 0.5]], LENGTH, seed=5, sng=kind(**arguments), device=device)

        return build, dict(given)

    return Target(make)


def _set_threads(rng: Rng, device: str) -> Call:
    def apply(n: Any) -> Any:
        before = scgpu.num_threads()
        try:
            scgpu.set_num_threads(n)
            return scgpu.num_threads()
        finally:
            scgpu.set_num_threads(before)

    return apply, {"n": 2}


def _pack(rng: Rng, device: str) -> Call:
    given: dict[str, Any] = {"bits": rng.integers(0, 2, (3, LENGTH), dtype=np.uint8), "device": device}
    if rng.random() < 0.5:
        given["out"] = np.empty((3, 2), np.uint64)
    return scgpu.pack, given


def _unpack(rng: Rng, device: str) -> Call:
    given: dict[str, Any] = {"words": words(rng, 3), "length": LENGTH, "device": device}
    if rng.random() < 0.5:
        given["out"] = np.empty((3, LENGTH), np.uint8)
    return scgpu.unpack, given


def of_rng(function: Callable[..., Any], /, *, devices: bool = True, **given: Callable[[Rng], Any]) -> Target:
    """A function whose arguments are made from random numbers; the device where it takes one."""

    def make(rng: Rng, device: str) -> Call:
        arguments = {name: one(rng) for name, one in given.items()}
        return function, {**arguments, **({"device": device} if devices else {})}

    return Target(make, devices=devices)


def on_streams(function: Callable[..., Any], /, *shape: int, **given: Callable[[Rng], Any]) -> Target:
    """A function of streams and numbers."""

    def make(rng: Rng, device: str) -> Call:
        streams = bits(rng, device, *shape, polarity=polarity_of(rng))
        return function, {"streams": streams, **{name: one(rng) for name, one in given.items()}}

    return Target(make)


def one(function: Callable[..., Any], first: str, /, **given: Any) -> Target:
    """A function of one tensor of bipolar streams, and numbers that are always the same."""

    def make(rng: Rng, device: str) -> Call:
        return function, {first: bits(rng, device, 3, polarity="bipolar"), **given}

    return Target(make)


def _linear_gain(rng: Rng, device: str) -> Call:
    x = bits(rng, device, 3, polarity="bipolar")
    return scgpu.linear_gain, {"x": x, "k": bits(rng, device, 3), "n_states": 8}


def _decorrelate(rng: Rng, device: str) -> Call:
    def apply(x: Any, first: Any, second: Any) -> Any:
        return scgpu.decorrelate(x, first, second)

    return apply, {"x": bits(rng, device, 3), "first": bits(rng, device, 3), "second": bits(rng, device, 3)}


def _conditional(function: Callable[..., Any]) -> Target:
    def make(rng: Rng, device: str) -> Call:
        return function, {"inputs": bits(rng, device, 2, 3), "weights": bits(rng, device, 2, 3)}

    return Target(make)


def _product(rng: Rng, device: str) -> Call:
    return scgpu.conditional_product, {"inputs": bits(rng, device, 3), "weights": bits(rng, device, 3)}


def _bernstein(rng: Rng, device: str) -> Call:
    inputs = [bits(rng, device, 3) for _ in range(3)]
    return scgpu.bernstein, {"inputs": inputs, "coefficients": rng.random(4), "seed": 3, "tensor_id": 2}


def _scaled_add(rng: Rng, device: str) -> Call:
    inputs = [bits(rng, device, 3) for _ in range(3)]
    return scgpu.scaled_add, {"inputs": inputs, "weights": rng.random(3), "seed": 3, "tensor_id": 2}


def _parallel(rng: Rng, device: str) -> Call:
    def apply(inputs: Any) -> Any:
        counted = scgpu.parallel_count(inputs)
        return counted.total(), counted.by_time(), list(counted.planes)

    return apply, {"inputs": [bits(rng, device, 3) for _ in range(3)]}


def _approximate(rng: Rng, device: str) -> Call:
    def apply(inputs: Any) -> Any:
        counted = scgpu.approximate_parallel_count(inputs)
        return counted.total(), list(counted.planes)

    return apply, {"inputs": [bits(rng, device, 3) for _ in range(4)]}


def _exact(rng: Rng, device: str) -> Call:
    given = {"operands": [rng.random(3), rng.random(3)], "resolution": 3, "method": "rotation"}
    return scgpu.exact_operands, {**given, "polarity": "unipolar", "device": device}


def _train(rng: Rng, device: str) -> Call:
    def build(**given: Any) -> Any:
        return scgpu.SpikeTrain(**given).words

    return build, {"streams": bits(rng, device, 3)}


def _poisson(**given: Any) -> Any:
    return scgpu.PoissonInput(**given)


def _source(rng: Rng, device: str) -> Call:
    cells = population(rng, device)

    def build(**given: Any) -> Any:
        source = scgpu.BernoulliSource(**given)
        synapses = scgpu.Projection(source, cells, np.full((source.count, 3), 90))
        return ran(scgpu.SpikingNetwork([cells], [synapses]))

    return build, {"n": 2, "probability": rng.random(2), "seed": 3, "tensor_id": 1}


def _pair(function: Callable[..., Any]) -> Target:
    return two(function, "a", "b")


def _matrix(function: Callable[..., Any]) -> Target:
    return two(function, "a", "b")


def _profiled(rng: Rng, device: str) -> Call:
    def call() -> int:
        with scgpu.profile() as collected:
            scgpu.encode([0.5], 64, device=device)
        return len(collected.totals()) + len(collected.events) > 0

    return call, {}


def in_batches(make: Callable[[Rng, str], Any]) -> Target:
    """Counts of many samples, in pieces."""

    def made(rng: Rng, device: str) -> Call:
        layer = make(rng, device)
        given = {"x": rng.random((5, 3)), "seed": 9, "first_sample": 2, "batch_size": 2, "progress": False}
        return layer.counts_in_batches, {**given, "checkpoint": None, "checkpoint_every": 60.0}

    return Target(_file(lambda rng, device, path: made(rng, device)), names=("int()",), errors=(OSError,))


def saved(make: Callable[[Rng, str], Any], load: Callable[..., Any] | None = None) -> Target:
    """Saving something, or loading what was saved."""

    def made(rng: Rng, device: str, path: Path) -> Call:
        one = make(rng, device)
        if load is None:
            return one.save, {"path": path}
        one.save(path)
        return (lambda **given: str(type(load(**given)))), {"path": path, "device": device}

    return Target(_file(made), errors=(OSError,))


def _stack(rng: Rng, device: str) -> scgpu.Network:
    return scgpu.Network([_layer(rng, device, 3, 4), _layer(rng, device, 4, 2, tensor_id=1)])


def _gpu_layer(rng: Rng, device: str) -> scgpu.GpuDenseLayer:
    return scgpu.GpuDenseLayer(3, 2, LENGTH, seed=int(rng.integers(99)))


def _sc_layer(rng: Rng, device: str) -> scgpu.VectorizedSCLayer:
    return scgpu.VectorizedSCLayer(3, 2, LENGTH, seed=int(rng.integers(99)), device=device)


def of_reference(make: Callable[[Rng, str], Any], method: str, **given: Callable[[Rng], Any]) -> Target:
    """A method of the reference's layers."""

    def made(rng: Rng, device: str) -> Call:
        layer = make(rng, device)
        return getattr(layer, method), {name: one(rng) for name, one in given.items()}

    return Target(made)


def _reference_layer(kind: type[Any]) -> Target:
    def make(rng: Rng, device: str) -> Call:
        def build(**given: Any) -> Any:
            layer = kind(**given)
            return layer.forward_fast(np.full(layer.n_inputs, 0.5))

        return build, {"n_inputs": 3, "n_neurons": 2, "length": LENGTH, "seed": 7, "device": device}

    return Target(make, limits={"n_inputs": 9, "n_neurons": 9}, names=("layer",), errors=(RuntimeError,))


def _sc_weights(rng: Rng, device: str) -> Call:
    layer = _sc_layer(rng, device)

    def assign(weights: Any) -> Any:
        layer.set_weights(weights)
        layer.refresh_packed_weights()
        return layer.get_weights(), layer.forward_fast(np.full(3, 0.5))

    return assign, {"weights": rng.random((2, 3))}


def _sweep(rng: Rng, device: str, path: Path) -> Call:
    def add(a: int, b: int) -> int:
        return a + b

    return scgpu.sweep, {"function": add, "points": {"a": [1, 2], "b": [3]}, "checkpoint": path, "progress": False}


TARGETS: dict[str, Target] = {
    "Activation": Target(_network, limits={"scale": 3}),
    "Network": Target(_network),
    "BernoulliSource": Target(_source, names=("weights", "source")),
    "Bitstream.__and__": operator_of("__and__"),
    "Bitstream.__or__": operator_of("__or__"),
    "Bitstream.__xor__": operator_of("__xor__"),
    "Bitstream.__eq__": of_streams("__eq__", other=lambda rng, device: bits(rng, device, 2, 3)),
    "Bitstream.delayed": of_streams("delayed", cycles=lambda rng, device: int(rng.integers(LENGTH))),
    "Bitstream.to": of_streams("to", device=lambda rng, device: device),
    "Bitstream.bits": of_streams("bits"),
    "Bitstream.count": of_streams("count"),
    "Bitstream.value": of_streams("value"),
    "Bitstream.__invert__": of_streams("__invert__"),
    "Bitstream.from_bits": of_rng(
        scgpu.Bitstream.from_bits,
        bits=lambda rng: rng.integers(0, 2, (3, LENGTH), dtype=np.uint8),
        polarity=polarity_of,
    )._replace(names=("length",)),
    "Bitstream.from_words": of_rng(
        scgpu.Bitstream.from_words, words=lambda rng: words(rng, 2, 3), length=lambda rng: LENGTH, polarity=polarity_of
    ),
    "BitstreamEncoder": register("step", scgpu.BitstreamEncoder, x_value=900),
    "BitstreamEncoder.step": register("step", scgpu.BitstreamEncoder, x_value=900),
    "BitstreamEncoder.bits": register("bits", scgpu.BitstreamEncoder, x_values=np.array([1, 900, 65535])),
    "BitstreamEncoder.reset": register("reset", scgpu.BitstreamEncoder, seed=9),
    "ConstantCurrent": with_cells(scgpu.ConstantCurrent, value=lambda rng: rng.integers(-20, 99, 3)),
    "CurrentArray": with_cells(scgpu.CurrentArray, values=lambda rng: rng.integers(-20, 99, (3, 9))),
    "DenseLayer": Target(_dense, limits={"n_inputs": 9, "n_neurons": 9}, names=("layer",)),
    "DenseLayer.counts": of_layer("counts"),
    "DenseLayer.forward": of_layer("forward"),
    "DenseLayer.submit": of_layer("submit"),
    "DenseLayer.counts_prepacked": prepacked("counts_prepacked"),
    "DenseLayer.forward_prepacked": prepacked("forward_prepacked"),
    "DenseLayer.values_of": Target(
        lambda rng, device: (_layer(rng, device).values_of, {"counts": rng.integers(0, 99, 2, dtype=np.uint64)})
    ),
    "DenseLayer.weights": Target(_weights),
    "DenseLayer.counts_in_batches": in_batches(_layer),
    "DenseLayer.save": saved(_layer),
    "DenseLayer.load": saved(_layer, scgpu.DenseLayer.load),
    "Network.counts_in_batches": in_batches(_stack),
    "Network.save": saved(_stack),
    "Network.load": saved(_stack, scgpu.Network.load),
    "Network.values_of": of_reference(_stack, "values_of", counts=lambda rng: rng.integers(0, 99, 2, dtype=np.uint64)),
    "GpuDenseLayer": _reference_layer(scgpu.GpuDenseLayer),
    "GpuDenseLayer.forward_fast": of_reference(
        _gpu_layer, "forward_fast", inputs=lambda rng: rng.random(3), seed=lambda rng: 5
    ),
    "GpuDenseLayer.forward_batch": of_reference(
        _gpu_layer, "forward_batch", inputs_flat=lambda rng: rng.random(6), n_samples=lambda rng: 2, seed=lambda rng: 5
    ),
    "GpuDenseLayer.gpu_name": call(lambda: _gpu_layer(np.random.default_rng(1), "gpu").gpu_name(), devices=False),
    "GpuDenseLayer.is_gpu_available": call(scgpu.GpuDenseLayer.is_gpu_available, devices=False),
    "GpuDenseLayer.save": saved(_gpu_layer),
    "GpuDenseLayer.load": saved(_gpu_layer, lambda path, device: scgpu.GpuDenseLayer.load(path)),
    "VectorizedSCLayer": _reference_layer(scgpu.VectorizedSCLayer),
    "VectorizedSCLayer.weights": Target(_sc_weights),
    "VectorizedSCLayer.set_weights": Target(_sc_weights),
    "VectorizedSCLayer.get_weights": Target(_sc_weights),
    "VectorizedSCLayer.refresh_packed_weights": Target(_sc_weights),
    "VectorizedSCLayer.set_num_threads": Target(_set_threads, limits={"n": 4}, devices=False),
    "VectorizedSCLayer.simd_tier": call(scgpu.VectorizedSCLayer.simd_tier, devices=False),
    "VectorizedSCLayer.save": saved(_sc_layer),
    "VectorizedSCLayer.load": saved(_sc_layer, scgpu.VectorizedSCLayer.load),
    **{
        f"VectorizedSCLayer.{name}": of_reference(
            _sc_layer, name, inputs=lambda rng: rng.random(3), seed=lambda rng: 5, first_sample=lambda rng: 1
        )
        for name in ("forward", "forward_fast", "forward_numpy")
    },
    "VectorizedSCLayer.forward_batch_numpy": of_reference(
        _sc_layer, "forward_batch_numpy", inputs=lambda rng: rng.random((2, 3)), seed=lambda rng: 5
    ),
    **{
        f"VectorizedSCLayer.{name}": of_reference(
            _sc_layer, name, packed_inputs=lambda rng: words(rng, 3), weights=lambda rng: words(rng, 2, 3)
        )
        for name in ("forward_prepacked", "forward_prepacked_numpy")
    },
    **{
        f"VectorizedSCLayer.{name}": of_rng(
            getattr(scgpu.VectorizedSCLayer, name),
            probs=lambda rng: rng.random(3),
            length=lambda rng: LENGTH,
            seed=lambda rng: 5,
        )
        for name in ("batch_encode", "batch_encode_numpy")
    },
    "sweep": Target(_file(_sweep), names=("point", "int()"), errors=(OSError,), devices=False),
    "FixedPointLif": Target(_lif_neuron, devices=False),
    "FixedPointLif.step": Target(_step_of_lif, devices=False),
    "FixedPointLif.set_state": Target(_lif_set_state, devices=False),
    "FixedPointLif.get_state": call(lambda: scgpu.FixedPointLif().get_state(), devices=False),
    "FixedPointLif.reset": call(lambda: scgpu.FixedPointLif().reset(), devices=False),
    "Lfsr16": call(lambda seed: scgpu.Lfsr16(seed).step(), devices=False, seed=7),
    "Lfsr16.step": register("step", scgpu.Lfsr16),
    "Lfsr16.states": register("states", scgpu.Lfsr16, count=9),
    "Lfsr16.reset": register("reset", scgpu.Lfsr16, seed=9),
    "LifParameters": Target(_population),
    "Network.counts": of_network("counts"),
    "Network.forward": of_network("forward"),
    "Network.submit": of_network("submit"),
    "PairStdp": Target(_projection, names=("weights", "add")),
    "ParallelCount.by_time": Target(_parallel, names=("streams",)),
    "ParallelCount.total": Target(_parallel, names=("streams",)),
    "Pending.counts": call(lambda device: _pending(device).counts()),
    "Pending.done": call(lambda device: _pending(device).done() in (True, False)),
    "Pending.result": call(lambda device: _pending(device).result()),
    "PoissonInput": with_cells(
        _poisson, mean=lambda rng: 0.5, weight=lambda rng: 30, seed=lambda rng: 2, tensor_id=lambda rng: 1
    )._replace(limits={"mean": 3}),
    "Population": Target(_population),
    "Population.set_state": Target(_set_whole_state),
    "Population.get_state": Target(_set_state),
    "Population.reset": Target(_set_state),
    "PopulationRecord": Target(_record_of, devices=False),
    "PopulationRecord.events": of_record("events", begin=7, end=60, neurons=np.array([2, 0])),
    "PopulationRecord.population_rate": of_record("population_rate", bin_steps=7, begin=7, end=60),
    "PopulationRecord.cv_isi": of_record("cv_isi", neurons=np.array([2, 0])),
    "PopulationRecord.spikes": of_record("spikes"),
    "PopulationRecord.rates": of_record("rates"),
    "PopulationRecord.__eq__": of_record("__eq__", other="x"),
    "Profile": Target(_profiled, devices=False),
    "Profile.export": Target(_file(_profile_export), errors=(OSError,), devices=False),
    "Profile.table": Target(_profile_table, devices=False),
    "Profile.totals": Target(_profiled, devices=False),
    "Projection": Target(_projection_ends),
    "Projection.largest_sums": Target(_projection, names=("weights", "add")),
    "Projection.reset": call(lambda device: network(np.random.default_rng(1), device).projections[0].reset()),
    "Recording": Target(_recording, devices=False),
    "Recording.__getitem__": Target(
        lambda rng, device: (recording(rng).__getitem__, {"name": "exc"}),
        names=("population",),
        errors=(KeyError,),
        devices=False,
    ),
    "Recording.__eq__": Target(lambda rng, device: (recording(rng).__eq__, {"other": "x"}), devices=False),
    "Recording.__iter__": call(lambda: list(recording(np.random.default_rng(1))), devices=False),
    "Recording.__len__": call(lambda: len(recording(np.random.default_rng(1))), devices=False),
    "Recording.save": Target(
        _file(lambda rng, device, path: (recording(rng).save, {"path": path})), errors=(OSError,), devices=False
    ),
    "Recording.load": Target(_file(_recording_load), errors=(OSError,), devices=False),
    "SpikeTrain": Target(_train),
    "SpikeTrain.of_words": of_rng(
        lambda **given: scgpu.SpikeTrain.of_words(**given).words,
        devices=False,
        words=lambda rng: words(rng, 3),
        length=lambda rng: LENGTH,
    ),
    "SpikingNetwork": Target(_spiking),
    "SpikingNetwork.run": Target(_run, names=("int()",)),
    "SpikingNetwork.save": Target(_file(_save), errors=(OSError,)),
    "SpikingNetwork.load": Target(_file(_load), errors=(OSError,)),
    "SpikingNetwork.reset": call(lambda device: network(np.random.default_rng(1), device).reset()),
    "StateMachine": Target(machine, names=("inputs",)),
    "StateMachine.run": Target(_machine_run, names=("inputs", "input")),
    "StdpSynapse": Target(_synapse, devices=False),
    "StdpSynapse.step": Target(_synapse_step, devices=False),
    "absolute_difference": two(scgpu.absolute_difference, "a", "b", polar=False),
    "approximate_parallel_count": Target(_approximate, names=("streams",)),
    "available_backends": call(scgpu.available_backends, devices=False),
    "batch_lif_run": Target(_lif_run),
    "batch_lif_run_multi": Target(_lif_multi),
    "batch_lif_run_varying": Target(_lif_varying),
    "bernstein": Target(_bernstein, names=("streams",)),
    "bernstein_coefficients": call(scgpu.bernstein_coefficients, devices=False, function=np.sin, degree=5),
    "conditional_counts": _conditional(scgpu.conditional_counts),
    "conditional_layer": _conditional(scgpu.conditional_layer),
    "conditional_product": Target(_product),
    "decorrelate": Target(_decorrelate, names=("selects",)),
    "desynchronise": two(scgpu.desynchronise, "a", "b", depth=2),
    "device": _choose(scgpu.device, "selector"),
    "devices": call(lambda: len(scgpu.devices()), devices=False),
    "divide": two(scgpu.divide, "x", "y", "select", polar=False),
    "drop_cycles": _faulty(scgpu.drop_cycles),
    "encode": Target(_encode),
    "exact_operands": Target(_exact, limits={"resolution": 5}),
    "flip_bits": _faulty(scgpu.flip_bits, burst=2),
    "get_backend": _choose(scgpu.get_backend, "name"),
    "jk_flip_flop": two(scgpu.jk_flip_flop, "j", "k", polar=False),
    "lif_step": Target(_floats, devices=False),
    "linear_gain": Target(_linear_gain),
    "maximum": _pair(scgpu.maximum),
    "minimum": _pair(scgpu.minimum),
    "multiply": _pair(scgpu.multiply),
    "mux": two(scgpu.mux, "select", "a", "b"),
    "num_threads": call(scgpu.num_threads, devices=False),
    "pack": Target(_pack),
    "parallel_count": Target(_parallel, names=("streams",)),
    "pearson": _pair(scgpu.pearson),
    "pearson_matrix": _matrix(scgpu.pearson_matrix),
    "philox4x32": of_rng(
        scgpu.philox4x32,
        counter=lambda rng: rng.integers(0, 2**32, (2, 4)),
        key=lambda rng: rng.integers(0, 2**32, (2, 2)),
        rounds=lambda rng: 7,
    ),
    "plot_raster": plot("plot_raster", neurons=2, populations=["exc"]),
    "plot_rates": plot("plot_rates", bin_steps=4, populations=["exc"]),
    "plot_recording": plot("plot_recording", traces={"exc": [0]}, neurons=2, bin_steps=4, populations=["exc"]),
    "plot_voltages": plot("plot_voltages", traces={"exc": [0]}),
    "popcount": of_rng(scgpu.popcount, words=lambda rng: words(rng, 2, 3)),
    "problems": call(lambda: len(scgpu.problems()), devices=False),
    "profile": Target(_profiled, devices=False),
    "progressive_value": on_streams(scgpu.progressive_value, 3, lengths=lambda rng: rng.integers(1, LENGTH, 4)),
    "regenerate": on_streams(scgpu.regenerate, 3, seed=lambda rng: 5, tensor_id=lambda rng: 1),
    "relu": one(scgpu.relu, "x", depth=4),
    "restart_device": _choose(scgpu.restart_device, "selector"),
    "rmse": on_streams(scgpu.rmse, 3, expected=lambda rng: rng.random(3)),
    "saturating_add": many(scgpu.saturating_add),
    "sc_forward": Target(_sc_forward, names=("weights", "device")),
    "scaled_add": Target(_scaled_add, names=("streams",)),
    "scc": _pair(scgpu.scc),
    "scc_matrix": _matrix(scgpu.scc_matrix),
    "set_num_threads": Target(_set_threads, limits={"n": 4}, devices=False),
    "sexp": one(scgpu.sexp, "x", n_states=8, gain=2),
    "simd_tier": call(scgpu.simd_tier, devices=False),
    "simd_tiers": call(scgpu.simd_tiers, devices=False),
    "square_root": two(scgpu.square_root, "x", "select", polar=False),
    "stable_length": on_streams(
        scgpu.stable_length, 3, expected=lambda rng: rng.random(3), bound=lambda rng: float(rng.random())
    ),
    "stanh": one(scgpu.stanh, "x", n_states=8),
    "stuck_at": _faulty(scgpu.stuck_at, value=1, each="stream"),
    "synchronise": two(scgpu.synchronise, "a", "b", depth=2),
    "t_flip_flop": two(scgpu.t_flip_flop, "t"),
    "toggle_add": two(scgpu.toggle_add, "a", "b"),
    "thermometer": of_rng(
        scgpu.thermometer,
        ones=lambda rng: rng.integers(0, LENGTH, (2, 3)),
        length=lambda rng: LENGTH,
        polarity=polarity_of,
    ),
    "unary_add": many(scgpu.unary_add, scale=2, depth=3),
    "unpack": Target(_unpack),
    "value_error": on_streams(scgpu.value_error, 3, expected=lambda rng: rng.random(3)),
    "sng.Lfsr": _generator(sng.Lfsr, width=8, form="galois", taps=(8, 6, 5, 4), start=9, sharing="stream"),
    "sng.Sobol": _generator(sng.Sobol, shift=True, sharing="stream"),
    "sng.Halton": _generator(sng.Halton, sharing="stream"),
    "sng.VanDerCorput": _generator(sng.VanDerCorput, base=3),
    "sng.NumberTable": _generator(sng.NumberTable, numbers=np.arange(70, dtype=np.uint32) << 24, sharing="tensor"),
}


def runnable() -> list[str]:
    """Names of the table that can be called on this machine: some need a GPU."""
    if scgpu.GpuDenseLayer.is_gpu_available():
        return list(TARGETS)
    return [name for name in TARGETS if not name.startswith("GpuDenseLayer.")]


def _pending(device: str) -> scgpu.Pending:
    return _layer(np.random.default_rng(3), device).submit([0.5, 0.25, 1.0])
