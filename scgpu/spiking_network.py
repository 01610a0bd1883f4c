"""Networks of spiking populations whose state stays on a device while they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from scgpu import arguments
from scgpu.backend import Device, require_host_memory
from scgpu.errors import ScgpuError
from scgpu.lif import RECORDS
from scgpu.network_kernels import EXTERNALS, Cells, External, Synapses
from scgpu.network_run import Run, Segments, interrupts_noted
from scgpu.poisson import PoissonInput
from scgpu.population import Population
from scgpu.progress import progress_of
from scgpu.propagate import Projection
from scgpu.recording import Recording
from scgpu.timeline import BLOCK_STEPS, interval_steps

if TYPE_CHECKING:
    from scgpu.network_checkpoint import RunCheckpoint

MOST_STEPS = 2**32 - 1 - 2**17  # of a network: a step and every delay after it fit 32 bits


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
        inputs: Sequence[External] = (),
        *,
        step_seconds: float | None = None,
    ) -> None:
        self.populations: tuple[Population, ...] = tuple(arguments.listed("populations", populations, "Population"))
        self.projections: tuple[Projection, ...] = tuple(arguments.listed("projections", projections, "Projection"))
        self.inputs: tuple[External, ...] = tuple(arguments.listed("inputs", inputs, "what comes in"))
        self._require_parts()
        self.step_seconds = Recording([], first_step=0, n_steps=0, step_seconds=step_seconds).step_seconds
        self.step = 0
        self.recording: Recording | None = None
        self._broken = ""
        self._backend = backend = self.populations[0]._backend
        longest = interval_steps(min((one.delay for one in self.projections), default=BLOCK_STEPS))
        self._cells: dict[Population, Cells] = {}
        for population in self.populations:
            delays = [one.delay for one in self.projections if one.target is population]
            self._cells[population] = Cells(population, self.inputs, delays, longest)
        self._require_sums()
        self._synapses = [Synapses(one, self._cells[one.target], longest) for one in self.projections]
        self._segments = Segments(backend, self._cells, self._synapses, longest)
        for index, population in enumerate(self.populations):
            population._join(self, f"population_{index}")

    def _require_parts(self) -> None:
        """Refuse what does not belong together."""
        for name, parts, kinds in (
            ("populations", self.populations, (Population,)),
            ("projections", self.projections, (Projection,)),
            ("inputs", self.inputs, EXTERNALS),
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
            ends = [one.target]
            if isinstance(one, Projection) and isinstance(one.source, Population):
                ends.append(one.source)
            if any(end not in self.populations for end in ends):
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
                known = ", ".join(map(repr, by_name))
                raise ValueError(f"record has {arguments.shown(key)}; the populations are {known}")
            arguments.choice(f"record[{population.name!r}]", what, RECORDS)
            asked[population] = what
        return asked

    def run(
        self,
        n_steps: int,
        record: str | Mapping[Population | str, str] | None = None,
        *,
        progress: bool | Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 60.0,
    ) -> Recording:
        """Advance by some steps.

        Ctrl-C ends the run after the steps that are on the device: `KeyboardInterrupt` is raised, `step` says
        how far the network came, `recording` holds what was recorded, and the next run goes on from there. A
        network is run by one thread at a time; several networks may run in as many threads.

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
        checkpoint : path, optional
            A file for this run, and beside it ``checkpoint + ".state"``: where the network stands and what was
            recorded, from time to time and at the end, also after Ctrl-C. The same call for the same network, where it
            was when the run began, goes on where they end, on any device, and returns the recording of the whole
            run; so does a network that Ctrl-C left. A run that is over is not run again. One process
            at a time may use the files; they may be deleted when the recording is no longer wanted.
        checkpoint_every : float
            Seconds between checkpoints, from 0.

        Returns
        -------
        Recording
            By the name of each population that was asked for.

        Raises
        ------
        ValueError
            A number out of range, an unknown population or word, or a checkpoint that is damaged or of another
            network or run: the error says in what.
        OSError
            The checkpoint cannot be read, or not be written before the first step. Where it cannot be written
            later, a `CheckpointWarning` says so, the run goes on, and the checkpoint before is still there.
        TooLargeError
            The records do not fit in memory.
        GpuError
            The adapter failed: what was recorded before is in `recording`, the state is lost.
        """
        n_steps = arguments.integer("n_steps", n_steps, 0, MOST_STEPS - self.step)
        asked = self._asked(record)
        self._require_whole()
        self._require_records(asked, n_steps)
        seconds = arguments.seconds("checkpoint_every", checkpoint_every)
        for population in asked:
            self._backend.write(self._cells[population].counts, np.zeros(population.count, "<u4"))
        with nullcontext() if checkpoint is None else self._checkpoint(checkpoint, seconds, asked, n_steps) as keeper:
            run = Run(self._segments, asked, self.step if keeper is None else keeper.first_step, n_steps)
            if keeper is not None:
                keeper.restore(run)
            return self._run(run, keeper, progress)

    def _checkpoint(
        self, path: str | os.PathLike[str], seconds: float, asked: Mapping[Population, str], n_steps: int
    ) -> RunCheckpoint:
        from scgpu.network_checkpoint import RunCheckpoint

        return RunCheckpoint(self, path, seconds, asked, n_steps)

    def _run(
        self, run: Run, keeper: RunCheckpoint | None, progress: bool | Callable[[int, int], None] | None
    ) -> Recording:
        """Do what is left of a run."""
        with interrupts_noted() as interrupted, progress_of(progress, run.n_steps) as bar:
            try:
                run.all(bar, interrupted, keeper)
            except BaseException as error:
                if run.lost:
                    self._broken = f"the state was lost in a run that failed ({type(error).__name__}: {error})"
                raise
            finally:
                self.step = run.first_step + run.done
                self.recording = run.recorded(self.step_seconds)
                if keeper is not None and not run.lost and sum(run.taken) == run.done:
                    keeper.keep(run)
            if run.done < run.n_steps:
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
