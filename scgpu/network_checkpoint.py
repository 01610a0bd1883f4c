"""The checkpoint of a run of a spiking network: a log of what it recorded, and beside it where the network stands.

The log grows by what was recorded since the last time; the file beside it is replaced, and says how much of the
log belongs to it. So what a checkpoint costs does not grow with the run.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments, network_file
from scgpu.archive import Archive, Format
from scgpu.checkpoint import Log, digest_of, read_state, tell, uninterrupted, write_state
from scgpu.network_run import Run
from scgpu.population import Population
from scgpu.timeline import BLOCK_STEPS, block_count

if TYPE_CHECKING:
    from scgpu.spiking_network import SpikingNetwork

FORMAT = Format("run of a spiking network", 1, "SpikingNetwork.run")
PARTS = ("populations", "sources", "projections", "inputs", "step_seconds")
RECORD_BYTES = 1 << 26  # of a record of the log, about: it is packed in memory
MOST = 2**32 - 1
WORDS, POTENTIALS, COUNTS = np.dtype("<u8"), np.dtype("<i2"), np.dtype("<u4")

Arrays = dict[str, NDArray[Any]]


class Place(NamedTuple):
    """Where a network stands: its step, and a digest of that and of its state."""

    step: int
    digest: str

    @classmethod
    def of(cls, step: int, state: Arrays) -> Place:
        """The place of a network at a step."""
        return cls(step, digest_of(step, state))

    @classmethod
    def read(cls, entry: Any) -> Place:
        """A place from the header of a file."""
        step, digest = entry
        return cls(arguments.integer("step", step, 0, MOST), str(digest))


class Stand(NamedTuple):
    """What the file beside the log says: where the run began and is, its steps, how much of the log counts."""

    start: Place
    here: Place
    done: int
    end: int
    checksum: bytes

    @classmethod
    def read(cls, contents: Archive) -> Stand:
        """What a file says."""
        header = contents.header
        return cls(
            Place.read(header.get("start")),
            Place.read(header.get("here")),
            arguments.integer("done", header.get("done"), 0, MOST),
            arguments.integer("end", header.get("end"), 0, 2**63),
            bytes.fromhex(header.get("checksum", "")),
        )


class RunCheckpoint:
    """The files of a run, for one process at a time.

    Parameters
    ----------
    network : SpikingNetwork
        Where the run begins, or at the last step that the checkpoint has.
    path : path
        The log; the other file is ``path`` with ``.state`` behind it.
    every : float
        Seconds from one checkpoint to the next.
    asked : Mapping
        What is recorded of which population.
    n_steps : int
        Of the run.

    Attributes
    ----------
    first_step : int
        The network's step at which the run begins, or began.

    Raises
    ------
    ValueError
        The files are of another network or run, or damaged.
    OSError
        They cannot be read or written.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        path: str | os.PathLike[str],
        every: float,
        asked: Mapping[Population, str],
        n_steps: int,
    ) -> None:
        self._network = network
        self._every = every
        self._asked = asked
        self._n_steps = n_steps
        self._kept = 0  # segments of the run that the log has, or has in hand
        self._read_steps = 0
        self._log = Log(path, FORMAT)
        self._state_path = f"{self._log.path}.state"
        try:
            self._begin()
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> RunCheckpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def _begin(self) -> None:
        """Find out where the run is; write the first checkpoint where there is none."""
        network, log = self._network, self._log
        if log.empty:
            # This is done before anything is written, so only damage leaves both.
            if Path(log.path).stat().st_size and Path(self._state_path).exists():
                raise log.refusal("its beginning is damaged")
            Path(self._state_path).unlink(missing_ok=True)  # of a log that was deleted
        header, arrays = network_file.contents(network)
        parts = {
            part: digest_of(header[part], {name: one for name, one in arrays.items() if name.startswith(f"{part}.")})
            for part in PARTS
        }
        record = {str(population.name): what for population, what in self._asked.items()}
        log.begin({**parts, "n_steps": self._n_steps, "record": record})
        place = Place.of(network.step, network_file.state(network))
        if Path(self._state_path).exists():
            self._found: Stand | None = read_state(self._state_path, FORMAT, Stand.read)
            self._require_place(place, self._found)
            self._start = self._found.start
        else:
            if log.records(lambda contents: contents.header):
                raise FileNotFoundError(
                    errno.ENOENT, f"it belongs to the checkpoint {log.path!r} and is gone", self._state_path
                )
            self._found, self._start = None, place
        self.first_step = self._start.step
        if self._found is None:
            self._replace_state(0)
        self._due = time.monotonic() + self._every

    def _require_place(self, place: Place, found: Stand) -> None:
        """Refuse a network that is neither where the run began nor, in a run that is not over, where it is."""
        if place == found.start or (place == found.here and found.done < self._n_steps):
            return
        raise ValueError(
            f"{self._log.path!r} cannot be continued: its run began at step {found.start.step:,} and is at step "
            f"{found.here.step:,} of {found.start.step + self._n_steps:,}; the network, at step {place.step:,}, is "
            "neither as it was at the beginning nor at the end of an unfinished run. Bring it back by reset() or "
            "load(), or give another path for another run"
        )

    def restore(self, run: Run) -> None:
        """Put the network and a run of it where the checkpoint is."""
        found = self._found
        if found is None:
            return
        for steps, arrays in self._log.records(self._recorded, (found.end, found.checksum)):
            run.take(steps, arrays)
        if self._read_steps != found.done:
            raise ValueError(f"{self._log.path!r} has records of {self._read_steps:,} steps, not of {found.done:,}")
        self._kept, run.done = len(run.taken), found.done
        read_state(self._state_path, FORMAT, self._restore)
        self._network.step = self.first_step + found.done

    def _recorded(self, contents: Archive) -> tuple[int, dict[tuple[str, str], NDArray[Any]]]:
        """The steps of a record, and its arrays by population and kind."""
        steps = arguments.integer("steps", contents.header.get("steps"), 1, self._n_steps - self._read_steps)
        blocks = block_count((self.first_step + self._read_steps) % BLOCK_STEPS, steps)
        self._read_steps += steps
        arrays = {}
        for place, (population, what) in enumerate(self._asked.items()):
            name = str(population.name)
            if what in ("spikes", "both"):
                arrays[name, "words"] = contents.array(f"{place}.words", WORDS, (blocks * population.count,))
            if what in ("voltages", "both"):
                shape = (population.count, steps)
                arrays[name, "voltages"] = contents.array(f"{place}.voltages", POTENTIALS, shape)
        return steps, arrays

    def _restore(self, contents: Archive) -> None:
        network = self._network
        network_file.restore(network, contents)
        for place, population in enumerate(self._asked):
            counts = contents.array(f"counts.{place}", COUNTS, (population.count,))
            network._backend.write(network._cells[population].counts, counts)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() >= self._due

    def keep(self, run: Run) -> None:
        """Make a checkpoint of a run of which nothing is on its way; warn where it cannot be written."""
        with uninterrupted():
            groups = self._groups(run)
            self._kept = len(run.taken)
            records = (lambda begin=begin, end=end: self._record(run, begin, end) for begin, end in groups)
            if self._log.keep(*records):
                try:
                    self._replace_state(run.done)
                except OSError as error:
                    tell(self._log.path, error)
            self._due = time.monotonic() + self._every

    def _groups(self, run: Run) -> list[tuple[int, int]]:
        """Segments of the run that the log has not, a range for each record."""
        groups: list[tuple[int, int]] = []
        nbytes = 0
        for place in range(self._kept, len(run.taken)):
            if not groups or nbytes > RECORD_BYTES:
                groups.append((place, place))
                nbytes = 0
            groups[-1] = groups[-1][0], place + 1
            nbytes += run.nbytes(place)
        return groups

    def _record(self, run: Run, begin: int, end: int) -> tuple[dict[str, Any], Arrays]:
        """What some segments recorded."""
        arrays: Arrays = {}
        for place, population in enumerate(self._asked):
            pieces = run.pieces[str(population.name)]
            if words := pieces.words[begin:end]:
                arrays[f"{place}.words"] = np.concatenate(words)
            if voltages := pieces.voltages[begin:end]:
                arrays[f"{place}.voltages"] = np.concatenate(voltages, axis=1)
        return {"steps": sum(run.taken[begin:end])}, arrays

    def _replace_state(self, done: int) -> None:
        """Write where the network stands."""
        network, log = self._network, self._log
        arrays = network_file.state(network)
        here = Place.of(self.first_step + done, arrays)
        counted = network._backend.execute([], [network._cells[one].counts for one in self._asked])
        arrays |= {f"counts.{place}": counts for place, counts in enumerate(counted)}
        stand = Stand(self._start, here, done, log.end, log.checksum)
        header = {**stand._asdict(), "checksum": log.checksum.hex()}
        write_state(self._state_path, FORMAT, header, arrays)
