"""Networks of spiking populations whose state stays on a device while they run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import Backend, Device, Program, Step, Submission, require_host_memory
from scgpu.drive import ConstantCurrent, CurrentArray, Currents, drive_step
from scgpu.errors import ScgpuError
from scgpu.lif import RECORDS, Records, lif_step_of
from scgpu.poisson import PoissonInput, poisson_step
from scgpu.population import Population
from scgpu.progress import Progress, progress_of
from scgpu.propagate import Projection, propagate_step
from scgpu.recording import PopulationRecord, Recording
from scgpu.spike_source import Player, SpikeSource
from scgpu.stdp import PairStdp, stdp_step
from scgpu.timeline import BLOCK_STEPS, Interval, block_count, interval_steps, intervals, segment_steps
from scgpu.trace import trace_step

MOST_STEPS = 2**32 - 1 - 2**17  # of a network: a step and every delay after it fit 32 bits

# A segment is one submission. Longer ones cost less, shorter ones let Ctrl-C and the progress bar through.
MOST_BLOCKS = 16
SEGMENT_SECONDS = 0.05
SEGMENTS_KEPT = 128
SEGMENT_BYTES = 1 << 26  # of records of a segment
PENDING = 4  # segments whose records are on their way

Input = ConstantCurrent | CurrentArray | PoissonInput
INPUTS = (ConstantCurrent, CurrentArray, PoissonInput)


class Cells:
    """A population in a network: what comes in, and the buffers that its kernels share."""

    def __init__(self, population: Population, inputs: Sequence[Input], slot_count: int, longest: int) -> None:
        backend = population._backend
        self.population = population
        self.slot_count = slot_count
        mine = [one for one in inputs if one.target is population]
        self.currents = Currents(
            population,
            [one for one in mine if isinstance(one, ConstantCurrent)],
            [one for one in mine if isinstance(one, CurrentArray)],
        )
        self.poisson = [(one, backend.upload(one.thresholds.copy())) for one in mine if isinstance(one, PoissonInput)]
        self.inbox = backend.upload(np.zeros(slot_count * population.count, "<i4"))
        self.drives = backend.empty("i16", longest * population.row_stride)
        self.counts = backend.upload(np.zeros(population.count, "<u4"))

    def steps(self, clock: Any, words: Any, voltages: tuple[Any, int], interval: Interval) -> Iterator[Step]:
        """The kernel calls of one interval: inputs, drive, neurons."""
        population = self.population
        when = {"step_offset": interval.offset, "step_count": interval.steps, "slot_count": self.slot_count}
        for source, thresholds in self.poisson:
            yield poisson_step(source, clock, thresholds, self.inbox, **when)
        yield drive_step(population, self.currents, clock, self.inbox, self.drives, **when)
        nothing = population._backend.empty("u32", 0)
        yield lif_step_of(
            population._neurons,
            (population._table, population._state, self.drives, population._noise, self.counts),
            Records(words, 1, interval.block * population.count, nothing, 0, *voltages),
            step_begin=0,
            step_count=interval.steps,
            record_begin=interval.offset,
            first_bit=interval.first_bit,
        )


class Traces:
    """The traces of one side of a plastic projection."""

    def __init__(self, backend: Backend, count: int, amplitude: int, longest: int) -> None:
        self.count, self.amplitude = count, amplitude
        self.state = backend.upload(np.zeros(count, "<i4"))
        self.values = backend.empty("i32", longest * count)

    def step(self, rule: PairStdp, words: Any, word_begin: int, word_stride: int, interval: Interval) -> Step:
        """The kernel call that brings them through an interval."""
        return trace_step(
            rule,
            words,
            self.state,
            self.values,
            amplitude=self.amplitude,
            neuron_count=self.count,
            step_count=interval.steps,
            first_bit=interval.first_bit,
            word_begin=word_begin,
            word_stride=word_stride,
        )


class Synapses:
    """A projection in a network: the inbox it fills and, where it is plastic, its traces."""

    def __init__(self, projection: Projection, target: Cells, longest: int) -> None:
        self.projection = projection
        self.target = target
        rule = projection.plasticity
        backend = projection.target._backend
        self.traces: tuple[Traces, ...] = ()
        if rule is not None:
            self.traces = (
                Traces(backend, projection.source.count, rule.a_plus, longest),
                Traces(backend, projection.target.count, abs(rule.a_minus), longest),
            )

    def steps(self, clock: Any, source: Any, stride: int, target: Any, interval: Interval) -> Iterator[Step]:
        """The kernel calls of one interval, from the spikes of both sides.

        Words of a population have a ``stride`` of 1 and lie block by block; else a source has rows of ``stride``.
        """
        projection, rule = self.projection, self.projection.plasticity
        if isinstance(projection.source, Population):
            begin = interval.block * projection.source.count
        else:
            begin = interval.block
        where = {"first_bit": interval.first_bit, "slot_count": self.target.slot_count}
        when = {"step_offset": interval.offset, "step_count": interval.steps}
        if rule is None:
            yield propagate_step(
                projection, clock, source, self.target.inbox, word_begin=begin, word_stride=stride, **where, **when
            )
            return
        of_target = interval.block * projection.target.count
        yield self.traces[0].step(rule, source, begin, stride, interval)
        yield self.traces[1].step(rule, target, of_target, 1, interval)
        yield stdp_step(
            rule,
            clock,
            (source, target),
            (self.traces[0].values, self.traces[1].values),
            (projection._sources, projection._targets),
            projection._weights,
            self.target.inbox,
            source_count=projection.source.count,
            target_count=projection.target.count,
            synapse_count=projection.synapse_count,
            source_word_begin=begin,
            source_word_stride=stride,
            target_word_begin=of_target,
            delay=projection.delay,
            dense=projection.dense,
            **where,
            **when,
        )


class Kind(NamedTuple):
    """What segments of one program have in common."""

    phase: int
    steps: int
    spikes: frozenset[str]
    voltages: frozenset[str]


class Segment(NamedTuple):
    """The kernel calls of some steps, the tapes to fill before, what each of the buffers read is, and the spikes."""

    program: Program
    tapes: list[tuple[Player, Any]]
    reads: list[tuple[str, str]]
    words: dict[Population, Any]


class Pieces:
    """What a run has recorded of one population, in the order of its steps."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self.words: list[NDArray[np.uint64]] = []
        self.voltages: list[NDArray[np.int16]] = []

    def streams(self, phase: int, steps: int) -> NDArray[np.uint64]:
        """Words (neuron, word) of the steps, whose first is bit ``phase`` of the first block."""
        count = self.population.count
        columns = [piece.reshape(-1, count) for piece in self.words]
        blocks = np.concatenate(columns) if columns else np.zeros((0, count), np.uint64)
        word_count = -(-steps // BLOCK_STEPS)
        if phase:
            later = np.concatenate([blocks[1:], np.zeros((1, count), np.uint64)])
            blocks = blocks >> np.uint64(phase) | later << np.uint64(BLOCK_STEPS - phase)
        words = np.ascontiguousarray(blocks[:word_count].T)
        if steps % BLOCK_STEPS:
            words[:, -1] &= np.uint64((1 << steps % BLOCK_STEPS) - 1)
        return words

    def potentials(self, steps: int) -> NDArray[np.int16]:
        """Potentials (neuron, step)."""
        nothing = np.zeros((self.population.count, 0), np.int16)
        return np.concatenate([nothing, *self.voltages], axis=1)[:, :steps]


@contextmanager
def _interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C instead of raising it anywhere; the second one raises at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody else's affair
        yield lambda: False
        return
    noted = False

    def note(number: int, frame: Any) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)


class SpikingNetwork:
    """Populations, the projections between them and what comes in from outside.

    In every step each neuron gets the weights of the spikes that arrive in it and the currents from
    outside, as a sum cut to 16 bits; it leaks, integrates and fires; its spikes arrive after the delay
    of each projection. Everything is in integers: a network gives the same bits on every device, and for
    any cut of its steps into runs.

    Parameters
    ----------
    populations : sequence of Population
        All on one device, each of a name of its own, in no other network.
    projections : sequence of Projection
        Between these populations, or from a `BernoulliSource` or `SpikeTrain` to one of them.
    inputs : sequence of ConstantCurrent, CurrentArray and PoissonInput
        What comes in from outside.
    step_seconds : float, optional
        Seconds that one step stands for; plots then show milliseconds and hertz.

    Attributes
    ----------
    step : int
        Steps that were run.
    recording : Recording or None
        What the last run recorded, also when it was interrupted.

    Raises
    ------
    ValueError
        No population, two of one name, a population of another network or device, inputs or projections
        of strangers, weights so large that a sum of 32 bits could overflow.
    TypeError
        Something of a wrong type.
    TooLargeError
        The buffers do not fit the device.

    Examples
    --------
    >>> import numpy as np, scgpu
    >>> cells = scgpu.Population(2, scgpu.LifParameters(leak_k=20, gain_k=256), name="cells", device="cpu")
    >>> ring = scgpu.Projection(cells, cells, np.array([[0, 300], [300, 0]]), delay=5)
    >>> kick = scgpu.CurrentArray(cells, [[300], [0]])
    >>> network = scgpu.SpikingNetwork([cells], [ring], [kick])
    >>> steps, neurons = network.run(20, record="spikes")["cells"].events()
    >>> steps.tolist(), neurons.tolist()
    ([0, 5, 10, 15], [0, 1, 0, 1])
    """

    def __init__(
        self,
        populations: Sequence[Population],
        projections: Sequence[Projection] = (),
        inputs: Sequence[Input] = (),
        *,
        step_seconds: float | None = None,
    ) -> None:
        self.populations = tuple(populations)
        self.projections = tuple(projections)
        self.inputs = tuple(inputs)
        self._require_parts()
        self.step_seconds = Recording([], first_step=0, n_steps=0, step_seconds=step_seconds).step_seconds
        self.step = 0
        self.recording: Recording | None = None
        self._broken = ""
        self._backend = backend = self.populations[0]._backend
        longest = interval_steps(min((one.delay for one in self.projections), default=BLOCK_STEPS))
        self._longest = longest
        self._cells = {}
        for population in self.populations:
            delays = [one.delay for one in self.projections if one.target is population]
            backend.require(4 * max([longest, *delays]) * population.count)
            self._cells[population] = Cells(population, self.inputs, max([longest, *delays]), longest)
        self._require_sums()
        self._synapses = [Synapses(one, self._cells[one.target], longest) for one in self.projections]
        sources = {id(one.source): one.source for one in self.projections if isinstance(one.source, SpikeSource)}
        self._players = {key: source.player(backend) for key, source in sources.items()}
        self._clock = backend.upload(np.zeros(1, "<u4"))
        self._segments: OrderedDict[Kind, Segment] = OrderedDict()
        self._newest: Segment | None = None
        for index, population in enumerate(self.populations):
            population._join(self, f"population_{index}")

    def _require_parts(self) -> None:
        """Refuse what does not belong together."""
        for name, parts, kinds in (
            ("populations", self.populations, (Population,)),
            ("projections", self.projections, (Projection,)),
            ("inputs", self.inputs, INPUTS),
        ):
            for index, part in enumerate(parts):
                if not isinstance(part, kinds):
                    wanted = " or ".join(kind.__name__ for kind in kinds)
                    raise TypeError(f"{name}[{index}] must be a {wanted}; got {type(part).__name__}")
                if any(other is part for other in parts[:index]):
                    raise ValueError(f"{name}[{index}] is there twice; give it once")
        if not self.populations:
            raise ValueError("populations must not be empty")
        first = self.populations[0]
        names: dict[str, int] = {}
        for index, population in enumerate(self.populations):
            if population._backend is not first._backend:
                raise ValueError(
                    f"populations[{index}] is on {population.device} and populations[0] on {first.device}; "
                    "make all with the same device="
                )
            name = population.name or f"population_{index}"
            if name in names:
                raise ValueError(f"populations[{names[name]}] and [{index}] are both called {name!r}; rename one")
            names[name] = index
            population._require_free()
        for index, one in enumerate((*self.projections, *self.inputs)):
            ends = [one.target, *([one.source] if isinstance(one, Projection) else [])]
            if any(isinstance(end, Population) and end not in self.populations for end in ends):
                where = (
                    f"projections[{index}]"
                    if isinstance(one, Projection)
                    else f"inputs[{index - len(self.projections)}]"
                )
                raise ValueError(f"{where} is of a population that is not in populations; add it there")

    def _require_sums(self) -> None:
        """Refuse weights that could overflow the sum of one neuron and step."""
        for population in self.populations:
            most = np.zeros(population.count, np.int64)
            for one in self.projections:
                if one.target is population:
                    most += one.largest_sums()
            for source in self.inputs:
                if isinstance(source, PoissonInput) and source.target is population:
                    most += abs(source.weight) * source.thresholds.size
            largest = int(np.max(most))
            if largest >= 2**31 - 2**17:
                raise ValueError(
                    f"what may arrive at one neuron of {population.name!r} in one step adds up to {largest:,}; "
                    "sums have 32 bits: use smaller weights or fewer synapses"
                )

    @property
    def device(self) -> Device:
        """Where the network runs."""
        return self._backend.device

    def _newest_words(self) -> list[Any]:
        """For each population the buffer with the spikes of the segment that was run last, for `scgpu live`.

        The word of neuron i in block b of the segment is at ``b * count + i``; bits outside of the segment's
        steps are unspecified.
        """
        return [self._newest.words[one] for one in self.populations] if self._newest else []

    def _segment(self, kind: Kind) -> Segment:
        """The program of a kind of segment, made once."""
        segment = self._segments.get(kind)
        if segment is None:
            if len(self._segments) >= SEGMENTS_KEPT:
                self._segments.popitem(last=False)
            segment = self._segments[kind] = self._build(kind)
        self._segments.move_to_end(kind)
        return segment

    def _build(self, kind: Kind) -> Segment:
        backend, blocks = self._backend, block_count(kind.phase, kind.steps)
        words = {one: backend.empty("u64", blocks * one.count) for one in self.populations}
        stride = kind.steps + kind.steps % 2
        voltages = {
            one: (backend.empty("i16", one.count * stride), stride)
            if one.name in kind.voltages
            else (backend.empty("i16", 0), 0)
            for one in self.populations
        }
        tapes = {key: backend.empty("u64", player.count * blocks) for key, player in self._players.items()}
        steps: list[Step] = []
        for interval in intervals(kind.phase, kind.steps, self._longest):
            for population, cells in self._cells.items():
                steps += cells.steps(self._clock, words[population], voltages[population], interval)
            for synapses in self._synapses:
                source, target = synapses.projection.source, synapses.projection.target
                if isinstance(source, Population):
                    spikes, spacing = words[source], 1
                else:
                    spikes, spacing = tapes[id(source)], blocks
                steps += synapses.steps(self._clock, spikes, spacing, words[target], interval)
        reads = [(str(one.name), "words") for one in self.populations if one.name in kind.spikes]
        reads += [(str(one.name), "voltages") for one in self.populations if one.name in kind.voltages]
        by_name = {one.name: one for one in self.populations}
        buffers = [words[by_name[name]] if what == "words" else voltages[by_name[name]][0] for name, what in reads]
        # The clock tells the end of a segment that records nothing.
        return Segment(
            backend.program(steps, [*buffers, self._clock]),
            [(self._players[key], tape) for key, tape in tapes.items()],
            reads,
            words,
        )

    def _asked(self, record: Any) -> dict[Population, str]:
        """What to record of which population."""
        if record is None:
            return {}
        if isinstance(record, str):
            arguments.choice("record", record, RECORDS)
            return dict.fromkeys(self.populations, record)
        if not isinstance(record, Mapping):
            raise TypeError(f"record must be a mapping from populations or a word; got {type(record).__name__}")
        by_name = {one.name: one for one in self.populations}
        asked = {}
        for key, what in record.items():
            population = key if isinstance(key, Population) else by_name.get(key)
            if population not in self.populations:
                raise ValueError(f"record has {key!r}; the populations are {', '.join(map(repr, by_name))}")
            arguments.choice(f"record[{population.name!r}]", what, RECORDS)
            asked[population] = what
        return asked

    def run(
        self,
        n_steps: int,
        record: str | Mapping[Population | str, str] | None = None,
        *,
        progress: bool | Callable[[int, int], None] | None = None,
    ) -> Recording:
        """Advance by some steps.

        Ctrl-C ends the run after the steps that are on the device: `KeyboardInterrupt` is raised, `step` says
        how far the network came, `recording` holds what was recorded, and the next run goes on from there.

        Parameters
        ----------
        n_steps : int
            Steps, from 0; all runs together at most 4,294,836,223.
        record : str or Mapping, optional
            What to record: ``"spikes"``, ``"voltages"``, ``"both"`` or ``"counts"``, of all populations, or by
            population or its name. Counts are always there.
        progress : bool or callable, optional
            True for a progress bar, False for none, None for one where standard error is a terminal and
            the run takes long; or what is called with the steps done and ``n_steps``.

        Returns
        -------
        Recording
            By the name of each population that was asked for.

        Raises
        ------
        ValueError
            A number out of range, an unknown population or word.
        TooLargeError
            The records do not fit in memory.
        GpuError
            The adapter failed: what was recorded before is in `recording`, the state is lost.
        """
        n_steps = arguments.integer("n_steps", n_steps, 0, MOST_STEPS - self.step)
        asked = self._asked(record)
        self._require_whole()
        self._require_records(asked, n_steps)
        for population in asked:
            self._backend.write(self._cells[population].counts, np.zeros(population.count, "<u4"))
        run = _Run(self, asked, n_steps)
        with _interrupts_noted() as interrupted, progress_of(progress, n_steps) as bar:
            try:
                run.all(bar, interrupted)
            except BaseException as error:
                if run.lost:
                    self._broken = f"the state was lost in a run that failed ({type(error).__name__}: {error})"
                raise
            finally:
                self.recording = run.recorded()
            if run.done < n_steps:
                raise KeyboardInterrupt
        return self.recording

    def _require_records(self, asked: Mapping[Population, str], n_steps: int) -> None:
        nbytes = 0
        for population, what in asked.items():
            spikes, voltages = what in ("spikes", "both"), what in ("voltages", "both")
            nbytes += population.count * (spikes * (n_steps // 8 + 16) + voltages * 2 * n_steps)
        require_host_memory(2 * nbytes)  # the pieces, and what is made of them

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network and where it stands into one file, which `load` reads on any machine and device.

        An .npz file without pickled objects, versioned; nothing of it is there until all of it is.

        Raises
        ------
        OSError
            The file cannot be written.
        ScgpuError
            The state was lost in a run that failed.
        """
        from scgpu import network_file

        self._require_whole()
        network_file.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | int | Device = "auto") -> SpikingNetwork:
        """Make the network that `save` wrote, with populations of its own, to go on bit by bit.

        Parameters
        ----------
        path : path
            The file.
        device : str, int or Device
            Where it shall run; see `scgpu.device`.

        Raises
        ------
        OSError
            There is no such file, or it cannot be read.
        ValueError
            The file is no network, is of another version, was cut short, or does not fit together.
        TooLargeError
            The network does not fit the device or the memory of the machine.
        """
        from scgpu import network_file

        return network_file.load(path, device)

    def _require_whole(self) -> None:
        if self._broken:
            raise ScgpuError(f"{self._broken}; call reset(), or load() a saved network")

    def reset(self) -> None:
        """Back to step 0: neurons at rest, nothing under way, weights as they were given."""
        backend = self._backend
        for population, cells in self._cells.items():
            population.reset()
            backend.write(cells.inbox, np.zeros(cells.slot_count * population.count, "<i4"))
        for synapses in self._synapses:
            synapses.projection.reset()
            for traces in synapses.traces:
                backend.write(traces.state, np.zeros(traces.count, "<i4"))
        self.step, self._broken = 0, ""

    def __repr__(self) -> str:
        neurons, synapses = (
            sum(one.count for one in self.populations),
            sum(one.synapse_count for one in self.projections),
        )
        return f"SpikingNetwork({neurons:,} neurons, {synapses:,} synapses, step {self.step:,}, {self.device})"


class _Run:
    """One run: segments on their way, and what came back."""

    def __init__(self, network: SpikingNetwork, asked: Mapping[Population, str], n_steps: int) -> None:
        self.network = network
        self.asked = asked
        self.n_steps = n_steps
        self.first_step = network.step
        self.done = 0
        self.lost = False  # steps were begun whose end is not known
        self._pieces = {str(population.name): Pieces(population) for population in asked}
        self._on_the_way: deque[tuple[int, Segment, Submission]] = deque()
        self._landed = 0
        by_kind = [
            frozenset(str(one.name) for one, what in asked.items() if what in (kind, "both"))
            for kind in ("spikes", "voltages")
        ]
        self._spikes, self._voltages = by_kind
        step_bytes = sum(
            population.count * (2 * (population.name in self._voltages) + (population.name in self._spikes) / 8)
            for population in asked
        )
        widest = max((2 * population.count for population in asked if population.name in self._voltages), default=0)
        most = min(SEGMENT_BYTES / max(step_bytes, 1), network._backend.largest_buffer / max(widest, 1))
        self._most_blocks = max(1, min(MOST_BLOCKS, int(most) // BLOCK_STEPS))

    def all(self, bar: Progress, interrupted: Callable[[], bool]) -> None:
        """Run the segments, and fetch what they record, also when one of them fails."""
        try:
            self._start_all(bar, interrupted)
        except BaseException:
            with suppress(ScgpuError):
                while self._on_the_way:
                    self._land()
            raise
        while self._on_the_way:
            self._land()

    def _start_all(self, bar: Progress, interrupted: Callable[[], bool]) -> None:
        """Start the segments, ever longer ones while they are quick."""
        blocks = 1
        while self.done < self.n_steps and not interrupted():
            begin = time.perf_counter()
            self._start(segment_steps(self.network.step, self.n_steps - self.done, blocks))
            while len(self._on_the_way) > PENDING:
                self._land()
            bar.update(self.done)
            if time.perf_counter() - begin < SEGMENT_SECONDS / 2:
                blocks = min(2 * blocks, self._most_blocks)

    def _start(self, steps: int) -> None:
        network = self.network
        phase = network.step % BLOCK_STEPS
        segment = network._segment(Kind(phase, steps, self._spikes, self._voltages))
        for player, tape in segment.tapes:
            player.play(tape, network.step // BLOCK_STEPS, block_count(phase, steps))
        network._newest = segment
        try:
            submission = segment.program.submit(network._clock, np.array([network.step], "<u4"))
        except BaseException:
            self.lost = True
            raise
        self._on_the_way.append((steps, segment, submission))
        network.step += steps
        self.done += steps

    def _land(self) -> None:
        steps, segment, submission = self._on_the_way.popleft()
        try:
            *contents, _ = submission.result()
        except BaseException:
            self.lost = True
            raise
        for (name, what), content in zip(segment.reads, contents, strict=True):
            pieces = self._pieces[name]
            if what == "words":
                pieces.words.append(content)  # only the first segment of a run begins within a block
            else:
                pieces.voltages.append(content.reshape(pieces.population.count, -1)[:, :steps])
        self._landed += steps

    def recorded(self) -> Recording:
        """What came back."""
        records = []
        phase = self.first_step % BLOCK_STEPS
        for population, what in self.asked.items():
            if self.lost and what in ("voltages", "counts"):
                continue  # the counts are not those of the steps that came back
            pieces = self._pieces[str(population.name)]
            spikes = pieces.streams(phase, self._landed) if what in ("spikes", "both") else None
            voltages = pieces.potentials(self._landed) if what in ("voltages", "both") else None
            records.append(
                PopulationRecord(
                    str(population.name),
                    population.count,
                    first_step=self.first_step,
                    n_steps=self._landed,
                    words=spikes,
                    voltages=voltages,
                    counts=self._counts(population, spikes),
                )
            )
        return Recording(
            records, first_step=self.first_step, n_steps=self._landed, step_seconds=self.network.step_seconds
        )

    def _counts(self, population: Population, words: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
        if words is not None:
            counted: NDArray[np.uint64] = np.bitwise_count(words).sum(axis=1, dtype=np.uint64)
            return counted
        (counts,) = self.network._backend.execute([], [self.network._cells[population].counts])
        return np.asarray(counts, np.uint64)
