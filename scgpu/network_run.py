"""A run of a network: segments of its steps, one submission each, and what comes back of them."""

from __future__ import annotations

import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu.backend import Backend, Program, Step, Submission
from scgpu.errors import ScgpuError
from scgpu.network_kernels import Cells, Synapses
from scgpu.population import Population
from scgpu.progress import Progress
from scgpu.recording import PopulationRecord, Recording
from scgpu.spike_source import Player, SpikeSource
from scgpu.timeline import BLOCK_STEPS, block_count, intervals, segment_steps

# A segment is one submission. Longer ones cost less, shorter ones let Ctrl-C and the progress bar through.
MOST_BLOCKS = 16
SEGMENT_SECONDS = 0.05
SEGMENTS_KEPT = 128
KEPT_BYTES = 1 << 28  # of their buffers
SEGMENT_BYTES = 1 << 26  # of the spikes and potentials of a segment
TURNED_WORDS = 1 << 14  # from rows of neurons to rows of steps at once: they stay in a cache
PENDING = 4  # segments whose records are on their way


class Kind(NamedTuple):
    """What segments of one program have in common."""

    phase: int
    steps: int
    spikes: frozenset[str]
    voltages: frozenset[str]


class Segment(NamedTuple):
    """The kernel calls of some steps, the tapes to fill before, what each of the buffers read is, the spikes.

    ``nbytes`` are those of all its buffers.
    """

    program: Program
    tapes: list[tuple[Player, Any]]
    reads: list[tuple[str, str]]
    words: dict[Population, Any]
    nbytes: int


class Segments:
    """The programs of a network, kept by kind, and the clock that they read.

    Attributes
    ----------
    clock : buffer of u32, 1 element
        The step at which the segment that runs begins.
    newest : Segment or None
        The one that was started last; bits of its words outside of its steps are unspecified.
    backend, cells
        The device, and what the network has for each population.
    """

    def __init__(
        self,
        backend: Backend,
        cells: Mapping[Population, Cells],
        synapses: Sequence[Synapses],
        longest: int,
    ) -> None:
        self.backend = backend
        self.cells = cells
        self._synapses = synapses
        self._longest = longest
        sources = [one.projection.source for one in synapses]
        self._players = {id(one): one.player(backend) for one in sources if isinstance(one, SpikeSource)}
        self._kept: OrderedDict[Kind, Segment] = OrderedDict()
        self.clock = backend.upload(np.zeros(1, "<u4"))
        self.newest: Segment | None = None

    def of(self, kind: Kind) -> Segment:
        """The program of a kind of segment, made once."""
        segment = self._kept.get(kind)
        if segment is None:
            segment = self._build(kind)
            while self._kept and (
                len(self._kept) >= SEGMENTS_KEPT
                or segment.nbytes + sum(one.nbytes for one in self._kept.values()) > KEPT_BYTES
            ):
                self._kept.popitem(last=False)
            self._kept[kind] = segment
        self._kept.move_to_end(kind)
        return segment

    def _build(self, kind: Kind) -> Segment:
        backend, blocks = self.backend, block_count(kind.phase, kind.steps)
        words = {one: backend.empty("u64", blocks * one.count) for one in self.cells}
        stride = kind.steps + kind.steps % 2
        voltages = {
            one: (backend.empty("i16", one.count * stride), stride)
            if one.name in kind.voltages
            else (backend.empty("i16", 0), 0)
            for one in self.cells
        }
        tapes = {key: backend.empty("u64", player.count * blocks) for key, player in self._players.items()}
        steps: list[Step] = []
        for interval in intervals(kind.phase, kind.steps, self._longest):
            for population, cells in self.cells.items():
                steps += cells.steps(self.clock, words[population], voltages[population], interval)
            for synapses in self._synapses:
                source, target = synapses.projection.source, synapses.projection.target
                if isinstance(source, Population):
                    spikes, spacing = words[source], 1
                else:
                    spikes, spacing = tapes[id(source)], blocks
                steps += synapses.steps(self.clock, spikes, spacing, words[target], interval)
        reads = [(str(one.name), "words") for one in self.cells if one.name in kind.spikes]
        reads += [(str(one.name), "voltages") for one in self.cells if one.name in kind.voltages]
        by_name = {one.name: one for one in self.cells}
        buffers = [words[by_name[name]] if what == "words" else voltages[by_name[name]][0] for name, what in reads]
        # The clock tells the end of a segment that records nothing.
        scratch = [
            *words.values(),
            *(one for one, _ in voltages.values()),
            *(one.drives for one in self.cells.values()),
        ]
        scratch += [traces.values for synapses in self._synapses for traces in synapses.traces]
        return Segment(
            backend.program(steps, [*buffers, self.clock], scratch),
            [(self._players[key], tape) for key, tape in tapes.items()],
            reads,
            words,
            sum(one.size * one.dtype.itemsize for one in (*words.values(), *tapes.values()))
            + sum(one.size * one.dtype.itemsize for one, _ in voltages.values()),
        )

    def prepare(self, kind: Kind, step: int) -> Segment:
        """The segment of a kind that begins at a step, with its tapes filled."""
        segment = self.of(kind)
        for player, tape in segment.tapes:
            player.play(tape, step // BLOCK_STEPS, block_count(kind.phase, kind.steps))
        return segment

    def start(self, segment: Segment, step: int) -> Submission:
        """Start a prepared segment."""
        self.newest = segment
        return segment.program.submit(self.clock, np.array([step], "<u4"))


class Pieces:
    """What a run has recorded of one population, in the order of its steps."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self.words: list[NDArray[np.uint64]] = []
        self.voltages: list[NDArray[np.int16]] = []

    def streams(self, phase: int, steps: int) -> NDArray[np.uint64]:
        """Words (neuron, word) of the steps, whose first is bit ``phase`` of the first block."""
        count, word_count = self.population.count, -(-steps // BLOCK_STEPS)
        columns = [piece.reshape(-1, count) for piece in self.words]
        words = np.empty((count, word_count), np.uint64)
        if not word_count:
            return words
        some = max(1, TURNED_WORDS // (word_count + 1))
        for begin in range(0, count, some):
            blocks = np.concatenate([column[:, begin : begin + some] for column in columns])
            turned = blocks[:word_count] >> np.uint64(phase)
            if phase:
                turned[: len(blocks) - 1] |= blocks[1 : word_count + 1] << np.uint64(BLOCK_STEPS - phase)
            words[begin : begin + some] = turned.T
        if steps % BLOCK_STEPS:
            words[:, -1] &= np.uint64((1 << steps % BLOCK_STEPS) - 1)
        return words

    def potentials(self, steps: int) -> NDArray[np.int16]:
        """Potentials (neuron, step)."""
        nothing = np.zeros((self.population.count, 0), np.int16)
        return np.concatenate([nothing, *self.voltages], axis=1)[:, :steps]


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
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


class Keeper(Protocol):
    """Who keeps what a run did by now."""

    def due(self) -> bool:
        """Whether it is time."""
        ...

    def keep(self, run: Run) -> None:
        """Keep it; nothing of the run is on its way."""
        ...


class Run:
    """One run: segments on their way, and what came back.

    Attributes
    ----------
    done : int
        Steps that were started.
    taken : list of int
        Steps of each segment that came back.
    pieces : dict
        By population: what came back of each segment.
    lost : bool
        Steps were begun whose end is not known.
    """

    def __init__(self, segments: Segments, asked: Mapping[Population, str], first_step: int, n_steps: int) -> None:
        self.segments = segments
        self.asked = asked
        self.n_steps = n_steps
        self.first_step = first_step
        self.done = 0
        self.lost = False
        self.taken: list[int] = []
        self.pieces = {str(population.name): Pieces(population) for population in asked}
        self._on_the_way: deque[tuple[int, Segment, Submission]] = deque()
        by_kind = [
            frozenset(str(one.name) for one, what in asked.items() if what in (kind, "both"))
            for kind in ("spikes", "voltages")
        ]
        self._spikes, self._voltages = by_kind
        # Bytes of a block: spikes of every population, potentials of those that are recorded.
        spikes = [8 * one.count for one in segments.cells]
        voltages = [2 * BLOCK_STEPS * one.count for one in asked if one.name in self._voltages]
        most = min(SEGMENT_BYTES // sum(spikes + voltages), segments.backend.largest_buffer // max(spikes + voltages))
        self._most_blocks = max(1, min(MOST_BLOCKS, most))

    def all(self, bar: Progress, interrupted: Callable[[], bool], keeper: Keeper | None) -> None:
        """Run the segments, and fetch what they record, also when one of them fails."""
        try:
            self._start_all(bar, interrupted, keeper)
        except BaseException:
            with suppress(ScgpuError):
                self._land_all()
            raise
        self._land_all()

    def _start_all(self, bar: Progress, interrupted: Callable[[], bool], keeper: Keeper | None) -> None:
        """Start the segments, ever longer ones while they are quick."""
        blocks = 1
        bar.update(self.done)
        while self.done < self.n_steps and not interrupted():
            begin = time.perf_counter()
            self._start(segment_steps(self.first_step + self.done, self.n_steps - self.done, blocks))
            while len(self._on_the_way) > PENDING:
                self._land()
            bar.update(self.done)
            if time.perf_counter() - begin < SEGMENT_SECONDS / 2:
                blocks = min(2 * blocks, self._most_blocks)
            if keeper is not None and keeper.due():
                self._land_all()
                keeper.keep(self)

    def _start(self, steps: int) -> None:
        step = self.first_step + self.done
        segment = self.segments.prepare(Kind(step % BLOCK_STEPS, steps, self._spikes, self._voltages), step)
        self.lost = True  # until it is noted, also where Ctrl-C gets between
        submission = self.segments.start(segment, step)
        self._on_the_way.append((steps, segment, submission))
        self.done += steps
        self.lost = False

    def _land_all(self) -> None:
        while self._on_the_way:
            self._land()

    def _land(self) -> None:
        steps, segment, submission = self._on_the_way.popleft()
        try:
            *contents, _ = submission.result()
        except BaseException:
            self.lost = True
            raise
        self.take(steps, dict(zip(segment.reads, contents, strict=True)))

    def take(self, steps: int, contents: Mapping[tuple[str, str], NDArray[Any]]) -> None:
        """Add what some steps recorded, by population and kind."""
        for (name, what), content in contents.items():
            pieces = self.pieces[name]
            if what == "words":
                pieces.words.append(content)  # only the first segment of a run begins within a block
            else:
                pieces.voltages.append(content.reshape(pieces.population.count, -1)[:, :steps])
        self.taken.append(steps)

    def nbytes(self, place: int) -> int:
        """Bytes of what a segment recorded."""
        kinds = (kind for pieces in self.pieces.values() for kind in (pieces.words, pieces.voltages))
        return sum(kind[place].nbytes for kind in kinds if kind)

    def recorded(self, step_seconds: float | None) -> Recording:
        """What came back."""
        records = []
        phase, landed = self.first_step % BLOCK_STEPS, sum(self.taken)
        for population, what in self.asked.items():
            if self.lost and what in ("voltages", "counts"):
                continue  # the counts are not those of the steps that came back
            pieces = self.pieces[str(population.name)]
            spikes = pieces.streams(phase, landed) if what in ("spikes", "both") else None
            voltages = pieces.potentials(landed) if what in ("voltages", "both") else None
            records.append(
                PopulationRecord(
                    str(population.name),
                    population.count,
                    first_step=self.first_step,
                    n_steps=landed,
                    words=spikes,
                    voltages=voltages,
                    counts=self._counts(population, spikes),
                )
            )
        return Recording(records, first_step=self.first_step, n_steps=landed, step_seconds=step_seconds)

    def _counts(self, population: Population, words: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
        if words is not None:
            counted: NDArray[np.uint64] = np.bitwise_count(words).sum(axis=1, dtype=np.uint64)
            return counted
        (counts,) = self.segments.backend.execute([], [self.segments.cells[population].counts])
        return np.asarray(counts, np.uint64)
