"""The balanced random network of Brunel (2000) in fixed point, and beside it the same network in Brian2.

Usage: python examples/brunel.py [--regime REGIME ...] [--seconds S] [--device DEVICE] [-o FIGURE]
       python examples/brunel.py --compare brian2
       python examples/brunel.py --compare spikes --seconds 0.1

10,000 leaky integrate-and-fire neurons, four fifths of them excitatory. Each has 1,000 synapses from a tenth
of the others, drawn without repetition; it may be among its own sources. docs/brunel.md says how the regimes
are told apart, where the numbers come from and how fast it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import scgpu

N_EXCITATORY, N_INHIBITORY = 8000, 2000
N_NEURONS = N_EXCITATORY + N_INHIBITORY
IN_EXCITATORY, IN_INHIBITORY = 800, 200  # synapses of each neuron
STEP_MS = 0.1
DELAY_STEPS = 15  # 1.5 ms
REFRACTORY_STEPS = 20  # 2 ms
TAU_MS, THRESHOLD_MV, RESET_MV, WEIGHT_MV = 20.0, 20.0, 10.0, 0.1
WARM_UP_STEPS = 2000

# g, the weight of an inhibitory synapse over that of an excitatory one, and the rate of the input from
# outside over the rate that alone would bring a neuron to its threshold.
REGIMES = {"SR": (3.0, 2.0), "SI-fast": (6.0, 4.0), "AI": (5.0, 2.0), "SI-slow": (4.5, 0.9)}

# In units of 1/51 of 0.1 mV. A neuron that has fired is held at v_rest, so 0 is the potential after a spike,
# and a constant current carries v from there to where Brunel's neurons rest, at -10 mV: v falls by 25 and, on
# average, by the half unit that `>>` cuts off, in every step; it stands still where the leak of 82 / 2**14 of v
# brings that back, at -5095, and 5095 units are 10 mV as nearly as 51 units are 0.1 mV.
FRACTION = 14
LEAK = 82
WEIGHT = 51
RESTING_CURRENT = -25
THRESHOLD = 5095

Csr = tuple[np.ndarray, np.ndarray]


class Regime(NamedTuple):
    """A network: its regime's name, g and eta, and who is connected to whom."""

    name: str
    g: float
    eta: float
    excitatory: Csr
    inhibitory: Csr

    @property
    def mean_input(self) -> float:
        """Spikes from outside that a neuron gets in a step, on average."""
        threshold_rate = THRESHOLD_MV / (WEIGHT_MV * IN_EXCITATORY * TAU_MS)  # of each source, per ms
        return self.eta * threshold_rate * IN_EXCITATORY * STEP_MS


class Activity(NamedTuple):
    """The spikes of a run: steps from 0, sorted by neuron; and the seconds it took."""

    neurons: np.ndarray
    steps: np.ndarray
    n_steps: int
    seconds: float


def fixed_in_degree(rng: np.random.Generator, n_sources: int, in_degree: int) -> Csr:
    """Row pointers and targets of synapses: each neuron of the network gets ``in_degree`` distinct sources."""
    sources = np.array(
        [rng.choice(n_sources, in_degree, replace=False, shuffle=False) for _ in range(N_NEURONS)], np.uint16
    ).reshape(-1)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=n_sources))])
    return indptr, np.argsort(sources, kind="stable") // in_degree


def columns(synapses: Csr, begin: int, end: int) -> Csr:
    """The synapses whose targets are the neurons from ``begin`` and before ``end``."""
    indptr, targets = synapses
    chosen = (targets >= begin) & (targets < end)
    before = np.concatenate([[0], np.cumsum(chosen)])
    return before[indptr], targets[chosen] - begin


def make_network(regime: Regime, device: str, seed: int) -> scgpu.SpikingNetwork:
    """The network in fixed point."""
    cell = scgpu.LifParameters(
        leak_k=LEAK,
        gain_k=1 << FRACTION,
        v_threshold=THRESHOLD,
        refractory_period=REFRACTORY_STEPS - 1,  # steps between that of a spike and the next that integrates
        fraction=FRACTION,
    )
    excitatory = scgpu.Population(N_EXCITATORY, cell, name="excitatory", device=device)
    inhibitory = scgpu.Population(N_INHIBITORY, cell, name="inhibitory", device=device)
    spans = {excitatory: (0, N_EXCITATORY), inhibitory: (N_EXCITATORY, N_NEURONS)}
    projections = []
    for source, synapses, weight in (
        (excitatory, regime.excitatory, WEIGHT),
        (inhibitory, regime.inhibitory, -round(regime.g * WEIGHT)),
    ):
        for target, span in spans.items():
            indptr, targets = columns(synapses, *span)
            weights = indptr, targets, np.full(targets.size, weight, np.int16)
            projections.append(scgpu.Projection(source, target, weights, delay=DELAY_STEPS))
    inputs: list[scgpu.ConstantCurrent | scgpu.PoissonInput] = []
    for number, population in enumerate(spans):
        inputs.append(scgpu.ConstantCurrent(population, RESTING_CURRENT))
        inputs.append(scgpu.PoissonInput(population, regime.mean_input, WEIGHT, seed=seed, tensor_id=number))
    return scgpu.SpikingNetwork(list(spans), projections, inputs, step_seconds=STEP_MS / 1000)


def activity_of(recording: scgpu.Recording, seconds: float) -> Activity:
    """The spikes of both populations as one."""
    found = [recording[name].events() for name in ("excitatory", "inhibitory")]
    steps = np.concatenate([steps for steps, _ in found]) - recording.first_step
    neurons = np.concatenate([found[0][1], found[1][1] + N_EXCITATORY])
    order = np.lexsort((steps, neurons))
    return Activity(neurons[order], steps[order], recording.n_steps, seconds)


def connected(b: Any, neurons: Any, regime: Regime, on_pre: str, weights: tuple[Any, Any]) -> list[Any]:
    """Brian2's synapses onto ``neurons``, of two weights.

    Spikes arrive, and are counted against the threshold, in the order of a step of scgpu: the potential
    decays, what arrives is added, then comes the threshold. Brian2 has the spikes of the step before in that
    place, so the same delay is one step less.
    """
    made = []
    for first, (indptr, targets), weight in zip(
        (0, N_EXCITATORY), (regime.excitatory, regime.inhibitory), weights, strict=True
    ):
        delay = (DELAY_STEPS - 1) * STEP_MS * b.ms
        synapses = b.Synapses(neurons, on_pre=on_pre, delay=delay, namespace={"weight": weight})
        synapses.pre.when = "after_groups"
        synapses.connect(i=first + np.repeat(np.arange(indptr.size - 1), np.diff(indptr)), j=targets)
        made.append(synapses)
    return made


def events_of(b: Any, monitor: Any, begin: int, n_steps: int, seconds: float) -> Activity:
    """The spikes that Brian2 recorded from a step on."""
    steps = np.rint(np.asarray(monitor.t / b.defaultclock.dt)).astype(np.int64) - begin
    neurons, steps = np.asarray(monitor.i)[steps >= 0], steps[steps >= 0]
    order = np.lexsort((steps, neurons))
    return Activity(neurons[order], steps[order], n_steps, seconds)


def in_brian2(regime: Regime, n_steps: int, target: str, threads: int, folder: str) -> Callable[[], Activity]:
    """Build the network in Brian2, in floating point and Brunel's own numbers.

    What is returned runs it, with other random numbers each time, and says how long the simulation took:
    building, making the connections and reading them is not in it.
    """
    import brian2 as b

    standalone = target == "cpp_standalone"
    if standalone:
        b.prefs.devices.cpp_standalone.openmp_threads = threads if threads > 1 else 0
        b.set_device("cpp_standalone", build_on_run=False)
        b.device.reinit()
        b.device.activate(build_on_run=False)
    else:
        b.prefs.codegen.target = target
    b.defaultclock.dt = STEP_MS * b.ms
    neurons = b.NeuronGroup(
        N_NEURONS,
        "dv/dt = -v / tau : volt (unless refractory)",
        threshold="v >= threshold",
        reset="v = reset",
        refractory=REFRACTORY_STEPS * STEP_MS * b.ms,
        method="exact",
        namespace={"tau": TAU_MS * b.ms, "threshold": THRESHOLD_MV * b.mV, "reset": RESET_MV * b.mV},
    )
    neurons.v = RESET_MV * b.mV
    weights = WEIGHT_MV * b.mV, -regime.g * WEIGHT_MV * b.mV
    rate = regime.mean_input / IN_EXCITATORY / (STEP_MS * b.ms)
    background = b.PoissonInput(neurons, "v", IN_EXCITATORY, rate, weight=weights[0], when="after_groups")
    monitor = b.SpikeMonitor(neurons)
    network = b.Network(neurons, *connected(b, neurons, regime, "v_post += weight", weights), background, monitor)
    network.run(WARM_UP_STEPS * b.defaultclock.dt)
    if standalone:
        network.run(n_steps * b.defaultclock.dt)
        b.device.build(directory=folder, run=False)

    def run() -> Activity:
        if standalone:
            b.device.run(directory=folder, with_output=False)
            # The seconds of the last of the two runs, by the simulation's own clock.
            seconds = float((Path(folder) / "results" / "last_run_info.txt").read_text().split()[0])
            return events_of(b, monitor, WARM_UP_STEPS, n_steps, seconds)
        begin = round(float(network.t / b.defaultclock.dt))
        started = time.perf_counter()
        network.run(n_steps * b.defaultclock.dt)
        return events_of(b, monitor, begin, n_steps, time.perf_counter() - started)

    return run


def background_spikes(network: scgpu.SpikingNetwork, n_steps: int) -> np.ndarray:
    """How many spikes from outside each neuron gets in each step, found from the contract's random words."""
    found = []
    for source in network.inputs:
        if isinstance(source, scgpu.PoissonInput):
            counters = np.zeros((n_steps, -(-source.target.count // 4), 4), np.uint32)
            counters[..., 0] = np.arange(n_steps)[:, None]
            counters[..., 1] = np.arange(counters.shape[1])
            counters[..., 3] = (3 << 24) + source.tensor_id
            words = scgpu.philox4x32(counters, [source.seed, 0], device="cpu").reshape(n_steps, -1)
            found.append(np.searchsorted(source.thresholds, words[:, : source.target.count], side="right"))
    return np.concatenate(found, axis=1)


def same_spikes_in_brian2(regime: Regime, options: argparse.Namespace) -> bool:
    """Whether Brian2 has the very same spikes when it is given the integers: equations, weights and background."""
    import brian2 as b

    n_steps = round(options.seconds * 1000 / STEP_MS)
    network = make_network(regime, options.device, options.seed)
    recording = network.run(n_steps, record="spikes", progress=False)
    ours = activity_of(recording, 0.0)
    b.prefs.codegen.target = options.target if options.target == "cython" else "numpy"
    b.defaultclock.dt = STEP_MS * b.ms
    neurons = b.NeuronGroup(
        N_NEURONS,
        """v : 1
        arrived : 1""",
        threshold=f"v >= {THRESHOLD}",
        reset="v = 0",
        refractory=REFRACTORY_STEPS * STEP_MS * b.ms,
        namespace={"background": b.TimedArray(background_spikes(network, n_steps), dt=b.defaultclock.dt)},
    )
    neurons.run_regularly(
        f"""drive = {RESTING_CURRENT} + {WEIGHT} * background(t, i) + arrived
        v = int(not_refractory) * (v + floor(-v * {LEAK} / {1 << FRACTION}) + drive)
        arrived = 0""",
        when="before_thresholds",
    )
    weights = WEIGHT, -round(regime.g * WEIGHT)
    monitor = b.SpikeMonitor(neurons)
    b.Network(neurons, *connected(b, neurons, regime, "arrived_post += weight", weights), monitor).run(
        n_steps * b.defaultclock.dt
    )
    theirs = events_of(b, monitor, 0, n_steps, 0.0)
    same = np.array_equal(ours.steps, theirs.steps) and np.array_equal(ours.neurons, theirs.neurons)
    print(
        f"{regime.name:<8}{n_steps:,} steps: {ours.steps.size:,} spikes on {network.device}, "
        f"{theirs.steps.size:,} in Brian2, {'the same' if same else 'NOT the same'}",
        flush=True,
    )
    return same


def rate_hz(activity: Activity) -> float:
    """Mean rate of a neuron."""
    return 1000 * activity.steps.size / (N_NEURONS * activity.n_steps * STEP_MS)


def irregularity(activity: Activity) -> float:
    """Mean over the neurons with at least three spikes of the coefficient of variation of their intervals."""
    same = np.diff(activity.neurons) == 0
    owner, intervals = activity.neurons[1:][same], np.diff(activity.steps)[same]
    number = np.bincount(owner, minlength=N_NEURONS)
    enough = number > 1
    if not enough.any():
        return float("nan")
    mean = np.bincount(owner, intervals, N_NEURONS) / np.maximum(number, 1)
    variance = np.bincount(owner, (intervals - mean[owner]) ** 2, N_NEURONS) / np.maximum(number, 1)
    return float(np.mean(np.sqrt(variance[enough]) / mean[enough]))


def correlation(activity: Activity) -> float:
    """Mean correlation of the spike counts of two neurons in bins of 1 ms, from the variance of their sum.

    A bin is shorter than the refractory period, so a count is 0 or 1, of variance p (1 - p).
    """
    counts = in_bins(activity, round(1 / STEP_MS))
    p = counts.mean() / N_NEURONS
    independent = N_NEURONS * p * (1 - p)
    return float((counts.var() / independent - 1) / (N_NEURONS - 1)) if independent else float("nan")


def modulation(activity: Activity) -> float:
    """Standard deviation over mean of the population's rate in bins of 1 ms."""
    counts = in_bins(activity, round(1 / STEP_MS))
    return float(counts.std() / counts.mean()) if counts.any() else float("nan")


def oscillation_hz(activity: Activity) -> float:
    """Where the spectrum of the population's rate is highest, from 10 Hz on; windows of 200 ms, halfway overlapping."""
    length = 2000
    counts = in_bins(activity, 1)
    if counts.size < length:
        return float("nan")
    windows = np.lib.stride_tricks.sliding_window_view(counts, length)[:: length // 2]
    spectrum = np.abs(np.fft.rfft((windows - counts.mean()) * np.hanning(length))) ** 2
    frequencies = np.fft.rfftfreq(length, STEP_MS / 1000)
    heard = frequencies >= 10
    return float(frequencies[heard][np.argmax(spectrum.mean(axis=0)[heard])])


def in_bins(activity: Activity, steps: int) -> np.ndarray:
    """Spikes of all neurons in whole bins of so many steps."""
    number = activity.n_steps // steps
    return np.bincount(activity.steps // steps, minlength=number)[:number]


MEASURES = (rate_hz, irregularity, correlation, modulation, oscillation_hz)
HEADINGS = ("rate/Hz", "CV of ISI", "correlation", "modulation", "peak/Hz")
FORMATS = ("{:.2f}", "{:.3f}", "{:.4f}", "{:.3f}", "{:.0f}")


def print_medians(regime: Regime, who: str, runs: list[Activity]) -> None:
    """A row of the table: medians over the runs."""
    medians = [np.median([measure(run) for run in runs]) for measure in MEASURES]
    speeds = [run.n_steps / run.seconds for run in runs]
    cells = [form.format(value) for form, value in zip(FORMATS, medians, strict=True)]
    cells += [f"{np.median(speeds):,.0f}", f"{np.min(speeds):,.0f} - {np.max(speeds):,.0f}"]
    print(f"{regime.name:<8}{who:<24}" + "".join(f"{cell:>12}" for cell in cells[:-1]) + f"{cells[-1]:>18}", flush=True)


def run_regime(regime: Regime, options: argparse.Namespace) -> scgpu.Recording:
    """Run one regime in turns with Brian2, if asked; print what came out, give the last recording."""
    n_steps = round(options.seconds * 1000 / STEP_MS)
    network = make_network(regime, options.device, options.seed)
    network.run(WARM_UP_STEPS, progress=False)
    ours: list[Activity] = []
    theirs: list[Activity] = []
    with tempfile.TemporaryDirectory() as folder:
        other = None
        if options.compare:
            print(f"building {regime.name} in Brian2 ...", file=sys.stderr)
            other = in_brian2(regime, n_steps, options.target, options.threads, folder)
        for _ in range(options.repeats):
            started = time.perf_counter()
            recording = network.run(n_steps, record="spikes", progress=False)
            seconds = time.perf_counter() - started
            ours.append(activity_of(recording, seconds))
            if other is not None:
                theirs.append(other())
    print_medians(regime, f"scgpu {network.device.kind}", ours)
    if theirs:
        print_medians(regime, f"Brian2 {options.target}", theirs)
    return recording


def draw(recordings: dict[str, scgpu.Recording], path: str) -> None:
    """Rasters and rates of the last 100 ms of each regime."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 * min(len(recordings), 2), 5.5 * -(-len(recordings) // 2)))
    parts = np.ravel(figure.subfigures(-(-len(recordings) // 2), min(len(recordings), 2)))
    for part, (name, recording) in zip(parts, recordings.items(), strict=False):
        last = recording.first_step + recording.n_steps
        begin = max(recording.first_step, last - round(100 / STEP_MS))
        scgpu.plot_recording(recording, begin=begin, neurons=50, bin_steps=5, figure=part)
        part.suptitle(f"{name}: g = {REGIMES[name][0]:g}, eta = {REGIMES[name][1]:g}")
    figure.savefig(path, dpi=110)


def regimes(names: list[str], seed: int) -> Iterator[Regime]:
    """The regimes asked for, of one connectivity."""
    rng = np.random.default_rng(seed)
    excitatory = fixed_in_degree(rng, N_EXCITATORY, IN_EXCITATORY)
    inhibitory = fixed_in_degree(rng, N_INHIBITORY, IN_INHIBITORY)
    for name in names:
        yield Regime(name, *REGIMES[name], excitatory, inhibitory)


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--regime", nargs="+", choices=[*REGIMES, "all"], default=["SR", "AI"], help="default: SR and AI"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="simulated seconds of a run (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which medians are printed (default: 3)")
    parser.add_argument("--device", default="auto", help="see `scgpu info` (default: auto)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for both simulators (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of connections and inputs (default: 1)")
    parser.add_argument(
        "--compare",
        choices=["brian2", "spikes"],
        help="brian2: run Brunel's network in Brian2 in turns, and compare rates and speed; spikes: give Brian2 the "
        "integers, and compare spike by spike, from the first step on (4 GB of memory for a simulated second)",
    )
    parser.add_argument(
        "--target",
        choices=["cpp_standalone", "cython"],
        default="cpp_standalone",
        help="of Brian2, for --compare brian2 (default: cpp_standalone)",
    )
    parser.add_argument("-o", "--output", help=".png or .svg file for spike rasters and rates")
    options = parser.parse_args()
    if options.compare and importlib.util.find_spec("brian2") is None:
        parser.error("--compare needs Brian2 and a C++ compiler: pip install brian2 cython 'numpy<2.4'")
    scgpu.set_num_threads(options.threads)
    names = list(REGIMES) if "all" in options.regime else options.regime
    if options.compare == "spikes":
        same = [same_spikes_in_brian2(regime, options) for regime in regimes(names, options.seed)]
        sys.exit(0 if all(same) else 1)
    print(f"{'regime':<8}{'':<24}" + "".join(f"{head:>12}" for head in (*HEADINGS, "steps/s")) + f"{'range':>18}")
    recordings = {regime.name: run_regime(regime, options) for regime in regimes(names, options.seed)}
    if options.output:
        draw(recordings, options.output)


if __name__ == "__main__":
    main()
