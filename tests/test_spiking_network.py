"""Spiking networks: against single neurons and synapses joined in plain Python, on every device, for any cut."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scgpu
from scgpu import network_run, spiking_network, timeline
from scgpu.devices import backend_of
from scgpu.philox import philox4x32
from scgpu.poisson import poisson_thresholds


def poisson_numbers(source: scgpu.PoissonInput, count: int, t: int) -> NDArray[np.int64]:
    """The numbers of a Poisson input in step t, from Philox and the table alone."""
    blocks = np.arange(-(-count // 4))
    counters = np.stack([np.full_like(blocks, t), blocks, 0 * blocks, 0 * blocks + (3 << 24 | source.tensor_id)], 1)
    draws = philox4x32(counters.astype(np.uint32), np.array([source.seed, 0], np.uint32)).reshape(-1)[:count]
    table = poisson_thresholds(source.mean)
    return np.array([int((draw >= table).sum()) for draw in draws])


class Plain:
    """A network from `FixedPointLif` and `StdpSynapse`, one object for each neuron and synapse."""

    def __init__(self, populations: Sequence[Any], projections: Sequence[Any], inputs: Sequence[Any]) -> None:
        self.populations, self.projections, self.inputs = populations, projections, inputs
        names = ("v_rest", "v_reset", "v_threshold", "refractory_period")
        self.neurons = {
            p: [
                scgpu.FixedPointLif(
                    p.params.data_width, p.params.fraction, *(pick(getattr(p.params, n), i) for n in names)
                )
                for i in range(p.count)
            ]
            for p in populations
        }
        self.arriving: dict[tuple[Any, int], NDArray[np.int64]] = {}
        self.matrices = [dense_of(one) for one in projections]
        self.synapses = [
            scgpu.StdpSynapse(matrix, one.plasticity.data_width, one.plasticity.fraction) if one.plasticity else None
            for one, matrix in zip(projections, self.matrices, strict=True)
        ]
        self.t = 0

    def current(self, p: Any) -> NDArray[np.int64]:
        """What comes into each neuron of a population now, cut to 16 bits."""
        total = self.arriving.pop((p, self.t), np.zeros(p.count, np.int64)).copy()
        for one in self.inputs:
            if one.target is not p:
                continue
            if isinstance(one, scgpu.ConstantCurrent):
                total += one.values
            elif isinstance(one, scgpu.PoissonInput):
                total += one.weight * poisson_numbers(one, p.count, self.t)
            elif self.t < one.values.shape[-1]:
                total += one.values[..., self.t]
        return np.clip(total, -(2**15), 2**15 - 1)

    def step(self) -> tuple[dict[Any, NDArray[np.int64]], dict[Any, NDArray[np.int64]]]:
        """Spikes and potentials of one step."""
        fired: dict[Any, Any] = {}
        shown: dict[Any, Any] = {}
        for p in self.populations:
            currents = self.current(p).tolist()
            both = [
                neuron.step(pick(p.params.leak_k, i), pick(p.params.gain_k, i), currents[i])
                for i, neuron in enumerate(self.neurons[p])
            ]
            fired[p], shown[p] = np.array(both).T
        for one, matrix, synapse in zip(self.projections, self.matrices, self.synapses, strict=True):
            before = fired[one.source] if isinstance(one.source, scgpu.Population) else train_of(one.source, self.t)
            if synapse is not None:
                rule = one.plasticity
                pre = np.repeat(before[:, None], one.target.count, axis=1)
                post = np.repeat(fired[one.target][None], one.source.count, axis=0)
                synapse.step(pre, post, rule.a_plus, rule.a_minus, rule.decay, rule.w_min, rule.w_max)
                matrix = synapse.weight * joined_of(one)
            key = one.target, self.t + one.delay
            more = before @ np.asarray(matrix, np.int64)
            self.arriving[key] = self.arriving.get(key, 0) + more
        self.t += 1
        return fired, shown


def pick(value: Any, index: int) -> int:
    """A parameter of a neuron."""
    return int(np.broadcast_to(value, (index + 1,) if np.ndim(value) == 0 else np.shape(value))[index])


def dense_of(one: scgpu.Projection) -> NDArray[np.int64]:
    """Weights (source, target); a target that stands twice in a row gets both."""
    weights = one.weights
    if one.dense:
        return weights.astype(np.int64)
    full = np.zeros((one.source.count, one.target.count), np.int64)
    rows = np.repeat(np.arange(one.source.count), np.diff(one._host_rows))
    np.add.at(full, (rows, one._host_targets), weights)
    return full


def joined_of(one: scgpu.Projection) -> NDArray[np.bool_]:
    """Which pairs (source, target) have a synapse."""
    joined = np.ones((one.source.count, one.target.count), np.bool_)
    if not one.dense:
        joined[:] = False
        joined[np.repeat(np.arange(one.source.count), np.diff(one._host_rows)), one._host_targets] = True
    return joined


def train_of(source: Any, t: int) -> NDArray[np.int64]:
    """Spikes of a source in a step."""
    if isinstance(source, scgpu.SpikeTrain):
        streams, length = source.words, source.length
    else:
        length = 64 * (t // 64 + 1)
        p = source.thresholds / 2**32
        streams = scgpu.encode(p, length, source.seed, tensor_id=source.tensor_id, device="numpy").words
    if t >= length:
        return np.zeros(len(streams), np.int64)
    return (streams[:, t // 64] >> np.uint64(t % 64) & np.uint64(1)).astype(np.int64)


def sparse(rng: np.random.Generator, rows: int, columns: int, twice: bool = True) -> tuple[Any, Any, Any]:
    """CSR arrays of random synapses."""
    lengths = rng.integers(0, columns, rows)
    lengths[rows // 2] = 0
    targets = [np.sort(rng.choice(columns, length, replace=twice)) for length in lengths]
    indices = np.concatenate(targets)
    return np.concatenate([[0], np.cumsum(lengths)]), indices, rng.integers(-60, 120, indices.size)


Parts = tuple[list[scgpu.Population], list[scgpu.Projection], list[Any]]


def everything(device: scgpu.Device, delays: tuple[int, int, int]) -> Parts:
    """Two populations with every kind of source, synapse and input."""
    rng = np.random.default_rng(5)
    first = scgpu.Population(
        37,
        scgpu.LifParameters(
            leak_k=rng.integers(5, 40, 37), gain_k=256, v_threshold=rng.integers(150, 400, 37), refractory_period=3
        ),
        name="first",
        device=device,
    )
    second = scgpu.Population(8, scgpu.LifParameters(20, 256, v_rest=3, v_reset=-20), name="second", device=device)
    noise = scgpu.BernoulliSource(5, rng.random(5) / 4, seed=9, tensor_id=2)
    tape = scgpu.SpikeTrain(scgpu.encode(rng.random(3) / 5, 90, seed=4, device="numpy"))
    projections = [
        scgpu.Projection(first, first, sparse(rng, 37, 37), delay=delays[0]),
        scgpu.Projection(first, second, rng.integers(-30, 60, (37, 8)), delay=delays[1]),
        scgpu.Projection(second, first, rng.integers(-60, 50, (8, 37)), delay=delays[2]),
        scgpu.Projection(noise, second, rng.integers(0, 200, (5, 8)), delay=delays[0]),
        scgpu.Projection(tape, first, sparse(rng, 3, 37), delay=delays[2]),
        scgpu.Projection(
            first,
            second,
            rng.integers(0, 90, (37, 8)),
            delay=delays[2],
            plasticity=scgpu.PairStdp(a_plus=40, a_minus=-30, w_max=120),
        ),
        scgpu.Projection(noise, first, sparse(rng, 5, 37, False), delay=delays[1], plasticity=scgpu.PairStdp(w_min=-9)),
    ]
    inputs = [
        scgpu.ConstantCurrent(first, rng.integers(0, 60, 37)),
        scgpu.ConstantCurrent(first, 5),
        scgpu.CurrentArray(second, rng.integers(-40, 80, (8, 100))),
        scgpu.PoissonInput(first, mean=1.5, weight=9, seed=7),
        scgpu.PoissonInput(second, mean=0.2, weight=-30, seed=7, tensor_id=1),
    ]
    return [first, second], projections, inputs


@pytest.mark.parametrize("delays", [(1, 2, 3), (13, 40, 15), (64, 70, 200)])
def test_a_network_is_its_neurons_and_synapses(chosen: scgpu.Device, delays: tuple[int, int, int]) -> None:
    parts = everything(chosen, delays)
    plain = Plain(*parts)
    network = scgpu.SpikingNetwork(*parts)
    recording = network.run(150, record="both")
    spikes = {p: np.zeros((p.count, 150), np.uint8) for p in parts[0]}
    for t in range(150):
        fired, shown = plain.step()
        for p in parts[0]:
            spikes[p][:, t] = fired[p]
            assert np.array_equal(recording[str(p.name)].voltages[:, t], shown[p]), (p.name, t)
    for p in parts[0]:
        record = recording[str(p.name)]
        assert np.array_equal(record.spikes("numpy").bits(), spikes[p])
        assert np.array_equal(record.counts, spikes[p].sum(axis=1)) and 50 < record.counts.sum() < 100 * p.count
    for one, synapse in zip(parts[1], plain.synapses, strict=True):
        if synapse is not None and one.dense:
            assert np.array_equal(one.weights, synapse.weight) and (one.weights != one._initial.reshape(-1, 8)).any()


def run_in(parts: Parts, lengths: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], list[Any], list[Any]]:
    """Bits and potentials of the first population over several runs, then states and weights."""
    network = scgpu.SpikingNetwork(*parts)
    bits, potentials = [], []
    for length in lengths:
        record = network.run(length, record={"first": "both"})["first"]
        bits.append(np.unpackbits(record.words.view(np.uint8), axis=1, bitorder="little", count=length))
        potentials.append(record.voltages)
    states = [population.get_state() for population in parts[0]]
    return np.concatenate(bits, 1), np.concatenate(potentials, 1), states, [one.weights for one in parts[1]]


def same(left: Any, right: Any) -> bool:
    """Equal arrays in equal structures."""
    if isinstance(left, dict):
        return all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(np.array_equal(left, right))


def test_populations_that_nothing_arrives_at(chosen: scgpu.Device) -> None:
    def steady(device: Any) -> tuple[scgpu.SpikingNetwork, list[scgpu.Population]]:
        both = [cells(device, 70, name) for name in ("alone", "silent")]
        values = np.arange(70) - 9
        return scgpu.SpikingNetwork(both, [], [scgpu.ConstantCurrent(both[0], values)] * 1), both

    network, both = steady(chosen)
    parts = [network.run(length, record="both") for length in (1, 70, 129)]
    _, v = scgpu.batch_lif_run_multi(70, 200, 20, 256, (np.arange(70) - 9).astype(np.int16), device="numpy")
    found = np.concatenate([part["alone"].voltages for part in parts], axis=1)
    assert np.array_equal(found, v) and not parts[2]["silent"].voltages.any()
    assert parts[2]["alone"].counts.sum() > 300 and network._cells[both[0]].drives.size == 0


@pytest.mark.parametrize("delays", [(1, 2, 3), (13, 40, 15)])
def test_any_cut_gives_the_same_bits(chosen: scgpu.Device, delays: tuple[int, int, int]) -> None:
    whole = run_in(everything(chosen, delays), [1000])
    assert whole[0].sum() > 1000
    for lengths in ([100] * 10, [1, 62, 1, 0, 65, 127, 744]):
        assert same(run_in(everything(chosen, delays), lengths), whole), lengths


def test_every_device_gives_the_same_bits(chosen: scgpu.Device) -> None:
    expected = run_in(everything(scgpu.device("numpy"), (5, 6, 7)), [300])
    assert same(run_in(everything(chosen, (5, 6, 7)), [300]), expected)


def test_intervals_cover_every_step_once() -> None:
    for shortest in (1, 2, 13, 15, 33, 63, 64, 65, 1000):
        longest = timeline.interval_steps(shortest)
        assert 1 <= longest <= min(shortest, 64)
        for phase in (0, 1, 37, 63):
            for steps in (1, 27, 64, 65, 200):
                found = list(timeline.intervals(phase, steps, longest))
                covered = [(one.block * 64 + one.first_bit + k) for one in found for k in range(one.steps)]
                assert covered == list(range(phase, phase + steps))
                assert all(one.first_bit + one.steps <= 64 and one.steps <= longest for one in found)
                assert [one.offset for one in found] == [
                    one.block * 64 + one.first_bit - phase for one in found
                ] and timeline.block_count(phase, steps) == found[-1].block + 1


def test_a_saved_network_goes_on_bit_by_bit_on_any_device(chosen: scgpu.Device, tmp_path: Any) -> None:
    whole = run_in(everything(scgpu.device("numpy"), (3, 20, 15)), [300])
    network = scgpu.SpikingNetwork(*everything(chosen, (3, 20, 15)), step_seconds=1e-3)
    network.run(137)
    network.save(tmp_path / "network")
    network.run(5)  # the file stays as it was
    for device in (chosen, scgpu.device("cpu"), scgpu.device("numpy")):
        again = scgpu.SpikingNetwork.load(tmp_path / "network", device)
        assert again.step == 137 and again.step_seconds == 1e-3 and again.device == device
        record = again.run(163, record={"first": "both"})["first"]
        bits = np.unpackbits(record.words.view(np.uint8), axis=1, bitorder="little", count=163)
        assert np.array_equal(bits, whole[0][:, 137:]) and np.array_equal(record.voltages, whole[1][:, 137:])
        assert same([one.get_state() for one in again.populations], whole[2])
        assert same([one.weights for one in again.projections], whole[3])
        again.reset()
        first = again.run(10, record={"first": "both"})["first"]
        assert np.array_equal(first.voltages, whole[1][:, :10])
    again.save(tmp_path / "again")
    assert scgpu.SpikingNetwork.load(tmp_path / "again", "numpy").step == 10


def cells(device: Any = "numpy", n: int = 2, name: str | None = None) -> scgpu.Population:
    return scgpu.Population(n, scgpu.LifParameters(20, 256), name=name, device=device)


def test_networks_reject_what_does_not_belong_together() -> None:
    a, b = cells(name="a"), cells(name="b")
    weights = np.zeros((2, 2), int)
    own = scgpu.Projection(a, a, weights)
    for parts, error, text in (
        (([],), ValueError, "populations must not be empty"),
        (([a, "b"],), TypeError, r"populations\[1\] must be a Population; got str"),
        (([a], [a]), TypeError, r"projections\[0\] must be a Projection; got Population"),
        (
            ([a], [], [own]),
            TypeError,
            r"inputs\[0\] must be a ConstantCurrent or CurrentArray or PoissonInput; got Proj",
        ),
        (([a, a],), ValueError, r"populations\[1\] is there twice"),
        (([a], [own, own]), ValueError, r"projections\[1\] is there twice"),
        (([a, cells(name="a")],), ValueError, r"populations\[0\] and \[1\] are both called 'a'; rename one"),
        (([a, cells("cpu")],), ValueError, r"populations\[1\] is on cpu .* populations\[0\] on numpy.*same device="),
        (([a], [scgpu.Projection(b, a, weights)]), ValueError, r"projections\[0\] is of a population that is not in"),
        (
            ([a], [], [scgpu.PoissonInput(scgpu.BernoulliSource(2, 0.5), 1.0, 9)]),
            ValueError,
            r"inputs\[0\] is of a pop",
        ),
        (([a], [own], [scgpu.ConstantCurrent(b, 1)]), ValueError, r"inputs\[0\] is of a population that is not in pop"),
        (([a], [], [scgpu.CurrentArray(a, [1])] * 1 + [scgpu.CurrentArray(a, [1])]), ValueError, "has 2 CurrentArray"),
    ):
        with pytest.raises(error, match=text):
            scgpu.SpikingNetwork(*parts)  # type: ignore[arg-type]
    network = scgpu.SpikingNetwork([a], [own])  # what was refused left no trace
    with pytest.raises(ValueError, match="population 'a' is part of another network; make one of its own"):
        scgpu.SpikingNetwork([a])
    del network
    assert scgpu.SpikingNetwork([a], [own]).run(3, record="counts")["a"].counts.tolist() == [0, 0]


def test_sums_that_could_overflow_are_rejected() -> None:
    target, many = cells(n=1), 2**17
    source = scgpu.BernoulliSource(many, 0.5)
    strong = scgpu.Projection(source, target, np.full((many, 1), -(2**15)))
    with pytest.raises(ValueError, match="adds up to 4,294,967,296; sums have 32 bits"):
        scgpu.SpikingNetwork([target], [strong])
    weak = scgpu.Projection(source, target, np.full((many, 1), 1), plasticity=scgpu.PairStdp())
    with pytest.raises(ValueError, match="adds up to 4,294,967,296"):
        scgpu.SpikingNetwork([target], [weak])


def test_runs_reject_and_change_nothing(chosen: scgpu.Device) -> None:
    population = cells(chosen, name="a")
    network = scgpu.SpikingNetwork([population], [], [scgpu.ConstantCurrent(population, 90)])
    for arguments, error, text in (
        ((-1,), ValueError, "n_steps must be"),
        ((2**32,), ValueError, "n_steps must be"),
        ((1.5,), TypeError, "n_steps must be"),
        ((5, "spike"), ValueError, "record must be one of 'spikes', 'voltages', 'both', 'counts'; got 'spike'"),
        ((5, {"b": "spikes"}), ValueError, "record has 'b'; the populations are 'a'"),
        ((5, {"a": "all"}), ValueError, r"record\['a'\] must be one of"),
        ((5, ["a"]), TypeError, "record must be a mapping from populations or a word; got list"),
    ):
        with pytest.raises(error, match=text):
            network.run(*arguments)
    with pytest.raises(TypeError, match="progress must be True, False, None or a callable"):
        network.run(5, progress="bar")  # type: ignore[arg-type]
    with pytest.raises(scgpu.TooLargeError, match="bytes are needed"):
        network.run(2**32 - 2**18, record="voltages")
    assert network.step == 0 and network.run(0).n_steps == 0
    assert network.run(5, {population: "voltages"})["a"].voltages.shape == (2, 5) and network.step == 5
    assert len(network.run(7)) == 0 and network.step == 12 and "step 12" in repr(network)


def test_progress_is_told(chosen: scgpu.Device, capsys: pytest.CaptureFixture[str]) -> None:
    network = scgpu.SpikingNetwork([cells(chosen)])
    told: list[tuple[int, int]] = []
    network.run(3000, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3000, 3000) and len(told) > 2 and told == sorted(told)
    network.run(200, progress=True)
    assert "200/200" in capsys.readouterr().err.replace("k", "")
    network.run(200)  # standard error is no terminal here
    network.run(200, progress=False)
    assert capsys.readouterr().err == ""


def test_ctrl_c_keeps_what_was_recorded(chosen: scgpu.Device, request: pytest.FixtureRequest) -> None:
    # a suite that a shell started in the background ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    expected = run_in(everything(chosen, (3, 20, 15)), [600])
    network = scgpu.SpikingNetwork(*everything(chosen, (3, 20, 15)))

    def interrupt(done: int, total: int) -> None:
        if done > 100:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        network.run(600, record="both", progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    recording = network.recording
    assert recording is not None and 100 < network.step == recording.n_steps < 600
    first = recording["first"]
    assert np.array_equal(first.spikes("numpy").bits(), expected[0][:, : network.step])
    assert np.array_equal(first.voltages, expected[1][:, : network.step])
    step = network.step
    rest = network.run(600 - step, record={"first": "both"})["first"]
    assert np.array_equal(rest.voltages, expected[1][:, step:])


def test_a_failed_run_is_told_until_reset(chosen: scgpu.Device, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = scgpu.SpikingNetwork(*everything(chosen, (3, 20, 15)))
    expected = network.run(200, record="spikes")["first"]
    network.reset()

    def fails(self: Any, *given: Any) -> Any:
        if given and given[0] is network._segments.clock and given[1] > 64:
            raise scgpu.GpuError("the adapter is gone")
        return real(self, *given)

    program = type(network._backend.program([], [network._segments.clock]))
    real = program.submit
    monkeypatch.setattr(program, "submit", fails)
    with pytest.raises(scgpu.GpuError, match="the adapter is gone"):
        network.run(200, record="spikes")
    monkeypatch.undo()
    recording = network.recording
    assert recording is not None and recording.n_steps == network.step and 64 < network.step < 200
    kept = recording["first"].spikes("numpy").bits()
    assert np.array_equal(kept, expected.spikes("numpy").bits()[:, : network.step])
    for call in (lambda: network.run(1), lambda: network.save(tmp_path / "x")):
        with pytest.raises(scgpu.ScgpuError, match=r"the state was lost in a run that failed \(GpuError.*call reset"):
            call()
    assert not list(tmp_path.iterdir())
    network.reset()
    assert np.array_equal(network.run(200, record="spikes")["first"].words, expected.words)


def test_steps_near_the_end_of_time(chosen: scgpu.Device) -> None:
    network = scgpu.SpikingNetwork(*everything(chosen, (1, 40, 200)))
    network.step = spiking_network.MOST_STEPS - 70
    with pytest.raises(ValueError, match="n_steps must be from 0 to 70; got 71"):
        network.run(71)
    network.run(70)
    with pytest.raises(ValueError, match="from 0 to 0"):
        network.run(1)


def test_populations_of_noise_alone(chosen: scgpu.Device) -> None:
    alone = cells(chosen, 5, "alone")
    inputs = [scgpu.PoissonInput(alone, 1.0, 40, seed=3), scgpu.CurrentArray(alone, np.arange(90) % 7)]
    network, plain = scgpu.SpikingNetwork([alone], [], inputs), Plain([alone], [], inputs)
    voltages = network.run(140, record="voltages")["alone"].voltages
    assert np.array_equal(voltages, np.stack([plain.step()[1][alone] for _ in range(140)], axis=1))


def test_networks_run_in_several_threads(chosen: scgpu.Device) -> None:
    expected = run_in(everything(chosen, (3, 20, 15)), [300])
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run_in, everything(chosen, (3, 20, 15)), [100, 200]) for _ in range(4)]
        assert all(same(run.result(), expected) for run in runs)


def test_segments_fit_the_buffers_of_the_device(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> scgpu.SpikingNetwork:
        alone = cells(chosen, 70, "alone")
        return scgpu.SpikingNetwork([alone], [], [scgpu.ConstantCurrent(alone, np.arange(70))])

    expected = network().run(1000, record="spikes")["alone"]
    small = network()
    monkeypatch.setattr(network_run, "SEGMENT_SECONDS", 100.0)  # segments become as long as they may
    monkeypatch.setattr(backend_of(chosen), "largest_buffer", 3 * 8 * 70)
    assert np.array_equal(small.run(1000, record="spikes")["alone"].words, expected.words)
    longest = max(kind.steps for kind in small._segments._kept)
    assert longest == 3 * 64
    monkeypatch.setattr(network_run, "KEPT_BYTES", 3 * 8 * 70)
    small.run(200)
    assert sum(one.nbytes for one in small._segments._kept.values()) <= 3 * 8 * 70
