"""recording: what a run of a spiking network leaves behind: spikes, potentials, counts, in memory and in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import archive, arguments
from scgpu.archive import DAMAGES, Archive, Format
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.errors import TooLargeError

FORMAT = Format("recording", 1, "Recording.save")
ARRAYS: dict[str, np.dtype[Any]] = {"words": np.dtype("<u8"), "voltages": np.dtype("<i2"), "counts": np.dtype("<u8")}
MOST = 2**32 - 1  # neurons of a population, and steps of a network
PIECE_WORDS = 1 << 18  # words that are looked at together: what is made of them stays small


def _fitting(name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...], why: str) -> NDArray[Any]:
    """A read-only, C-contiguous view (a copy where it must be) of an array that has this type and shape."""
    if type(array) is not np.ndarray or array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        found = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be an ndarray of {dtype.name}; got {found}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, {why}; got {array.shape}")
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def _ones(words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and bit of every one in rows of words, by row and then by bit."""
    rows, columns = np.nonzero(words)
    held = words[rows, columns].astype("<u8")
    found = [np.empty(0, np.int64)]
    for begin in range(0, len(held), PIECE_WORDS):
        bits = np.unpackbits(held[begin : begin + PIECE_WORDS].view(np.uint8), bitorder="little")
        found.append(np.flatnonzero(bits) + 64 * begin)
    places = np.concatenate(found)
    word = places >> 6
    return rows[word], 64 * columns[word] + (places & 63)


class PopulationRecord:
    """What was recorded of one population in some steps of a network.

    Arrays are not copied where they have the right layout already; the record's own views of them are read-only.

    Parameters
    ----------
    name : str
        Name of the population, not empty.
    count : int
        Its neurons.
    first_step, n_steps : int
        The first step of the record and how many there are, together at most 2**32 - 1.
    words : ndarray of uint64, shape (count, ceil(n_steps / 64)), optional
        Spikes: bit k of a neuron's row, ``(words[i, k // 64] >> (k % 64)) & 1``, is step ``first_step + k``. Bits
        past ``n_steps`` are 0.
    voltages : ndarray of int16, shape (count, n_steps), optional
        Membrane potential of each neuron after each step.
    counts : ndarray of uint64, shape (count,), optional
        Spikes of each neuron in these steps; made from ``words`` where it is not given.

    Attributes
    ----------
    name, count, first_step, n_steps, words, voltages, counts
        The same. ``words`` and ``voltages`` are None where they were not recorded, ``counts`` is there always.

    Raises
    ------
    ValueError
        A shape or number out of range, ones past ``n_steps``, counts that are not those of ``words``, or neither
        ``words`` nor ``counts``.
    TypeError
        An array of another type.
    """

    __slots__ = ("count", "counts", "first_step", "n_steps", "name", "voltages", "words")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        name: str,
        count: int,
        *,
        first_step: int,
        n_steps: int,
        words: NDArray[np.uint64] | None = None,
        voltages: NDArray[np.int16] | None = None,
        counts: NDArray[np.uint64] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a word of at least one character; got {arguments.shown(name)}")
        self.name = name
        self.count = arguments.integer("count", count, 0, MOST)
        self.first_step = arguments.integer("first_step", first_step, 0, MOST)
        self.n_steps = arguments.integer("n_steps", n_steps, 0, MOST - self.first_step)
        self.words: NDArray[np.uint64] | None = None
        self.voltages: NDArray[np.int16] | None = None
        self.counts: NDArray[np.uint64]
        size = f"for {self.count} neurons and {self.n_steps} steps"
        if voltages is not None:
            self.voltages = _fitting("voltages", voltages, ARRAYS["voltages"], (self.count, self.n_steps), size)
        if words is not None:
            shape = (self.count, -(-self.n_steps // 64))
            self.words = _fitting("words", words, ARRAYS["words"], shape, size)
            arguments.require_clear_tails(self.words, self.n_steps)
        self._count(counts)

    def _count(self, counts: NDArray[np.uint64] | None) -> None:
        """Take the counts, and compare them with the spikes where these are there."""
        ones = None if self.words is None else np.bitwise_count(self.words).sum(axis=1, dtype="<u8")
        if counts is None:
            if ones is None:
                raise ValueError("counts must be given where words is None; got None for both")
            counts = ones
        self.counts = _fitting("counts", counts, ARRAYS["counts"], (self.count,), f"for {self.count} neurons")
        wrong = self.counts > self.n_steps if ones is None else self.counts != ones
        if wrong.any():
            neuron = int(np.argmax(wrong))
            allowed = f"at most {self.n_steps}, the steps" if ones is None else f"{ones[neuron]}, the ones in words"
            raise ValueError(f"counts of neuron {neuron} must be {allowed}; got {self.counts[neuron]}")

    def spikes(self, device: str | int | Device = "auto") -> Bitstream:
        """The spikes as a `Bitstream` of shape (count,) and ``n_steps`` bits on a device.

        Raises
        ------
        ValueError
            Spikes were not recorded, or in no step.
        """
        words = self._recorded_words()
        if not self.n_steps:
            raise ValueError(f"the record of {self.name!r} has no steps; a Bitstream has at least 1 bit")
        return Bitstream.from_words(words, self.n_steps, device=device)

    def events(
        self, begin: int | None = None, end: int | None = None, *, neurons: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Step and neuron of each spike, sorted by step and then by neuron.

        Parameters
        ----------
        begin, end : int, optional
            Only steps of the network from ``begin`` and before ``end`` (default: all of the record).
        neurons : array_like of int, optional
            Only these neurons, each given once (default: all).

        Returns
        -------
        steps, neurons : ndarray of int64, shape (spikes,)
            Steps are the network's own, from ``first_step`` up.

        Raises
        ------
        ValueError
            Spikes were not recorded; steps or neurons that the record has not.
        """
        words = self._recorded_words()
        low, high = self._range(begin, end)
        first = low // 64
        words = words[:, first : -(-high // 64)]
        chosen = None if neurons is None else self._neurons(neurons)
        rows, bits = _ones(words if chosen is None else words[chosen])
        steps = bits + 64 * first
        inside = (steps >= low) & (steps < high)
        # One number that sorts as the pair does: below 64 times the words of the record.
        width = max(self.count, 1)
        keys = steps[inside] * width + (rows if chosen is None else chosen[rows])[inside]
        keys.sort()
        steps, who = np.divmod(keys, width)
        return steps + self.first_step, who

    def rates(self) -> NDArray[np.float64]:
        """Spikes per step of each neuron: float64 of shape (count,), NaN in a record without steps."""
        return self.counts / self.n_steps if self.n_steps else np.full(self.count, np.nan)

    def population_rate(
        self, bin_steps: int = 1, begin: int | None = None, end: int | None = None
    ) -> NDArray[np.float64]:
        """Spikes per neuron and step in each bin of time.

        Parameters
        ----------
        bin_steps : int
            Steps of a bin, at least 1. The last bin has what is left, and is divided by that.
        begin, end : int, optional
            Only steps of the network from ``begin`` and before ``end`` (default: all of the record).

        Returns
        -------
        ndarray of float64, shape (ceil(steps / bin_steps),)
            In [0, 1]; NaN in a population without neurons.

        Raises
        ------
        ValueError
            Spikes were not recorded; steps that the record has not; ``bin_steps`` below 1.
        """
        words = self._recorded_words()
        bin_steps = arguments.integer("bin_steps", bin_steps, 1, MOST)
        low, high = self._range(begin, end)
        edges = np.append(np.arange(low, high, bin_steps), high)
        if not self.count or low == high:
            return np.full(len(edges) - 1, np.nan)
        ones = np.diff(_ones_before(words, edges))
        return np.asarray(ones / (self.count * np.diff(edges)))

    def cv_isi(self, *, neurons: ArrayLike | None = None) -> NDArray[np.float64]:
        """Coefficient of variation of each neuron's intervals between spikes.

        Their standard deviation over their mean: 0 for a clock, about 1 for a Poisson process of low rate.

        Parameters
        ----------
        neurons : array_like of int, optional
            Only these neurons, each given once (default: all).

        Returns
        -------
        ndarray of float64, shape (count,) or that of ``neurons``
            NaN for a neuron of fewer than 3 spikes.

        Raises
        ------
        ValueError
            Spikes were not recorded; neurons that the record has not.
        """
        words = self._recorded_words()
        if neurons is not None:
            words = words[self._neurons(neurons)]
        found = np.full(len(words), np.nan)
        piece = max(1, PIECE_WORDS // max(1, words.shape[1]))
        for begin in range(0, len(words), piece):
            rows, steps = _ones(words[begin : begin + piece])
            same = rows[1:] == rows[:-1]
            owner, intervals = rows[1:][same], np.diff(steps)[same]
            number = np.bincount(owner)
            with np.errstate(invalid="ignore"):
                mean = np.bincount(owner, intervals) / np.where(number > 1, number, np.nan)
                variance = np.bincount(owner, (intervals - mean[owner]) ** 2) / number
            found[begin : begin + len(number)] = np.sqrt(variance) / mean
        return found

    def _recorded_words(self) -> NDArray[np.uint64]:
        if self.words is None:
            raise ValueError(
                f"the spikes of {self.name!r} were not recorded; run with record={{{self.name!r}: 'spikes'}} or 'both'"
            )
        return self.words

    def _range(self, begin: int | None, end: int | None) -> tuple[int, int]:
        """Steps counted from the record's first one."""
        last = self.first_step + self.n_steps
        low = arguments.integer("begin", self.first_step if begin is None else begin, self.first_step, last)
        high = arguments.integer("end", last if end is None else end, low, last)
        return low - self.first_step, high - self.first_step

    def _neurons(self, neurons: ArrayLike) -> NDArray[np.int64]:
        chosen = arguments.array_of("neurons", neurons)
        if chosen.ndim != 1 or not arguments.holds_integers(chosen):
            raise ValueError(f"neurons must be a row of integers; got shape {chosen.shape} of {chosen.dtype}")
        wrong = (chosen < 0) | (chosen >= self.count)
        if wrong.any():
            raise ValueError(f"neurons of {self.name!r} are from 0 to {self.count - 1}; got {chosen[wrong][0]}")
        if len(np.unique(chosen)) != len(chosen):
            raise ValueError("neurons must be given once each; got one of them twice")
        return chosen.astype(np.int64)

    def __eq__(self, other: object) -> bool:
        """Equal in name, size, steps and every array."""
        if not isinstance(other, PopulationRecord):
            return NotImplemented
        for field in self.__slots__:
            mine, theirs = getattr(self, field), getattr(other, field)
            if not (np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine is theirs or mine == theirs):
                return False
        return True

    def __repr__(self) -> str:
        held = [name for name in ARRAYS if getattr(self, name) is not None]
        return (
            f"PopulationRecord({self.name!r}, {self.count} neurons, {self.n_steps} steps from {self.first_step}: "
            f"{', '.join(held)})"
        )


def _ones_before(words: NDArray[np.uint64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ones of all rows together that lie below each of some bits, which are given in order."""
    first = int(edges[0]) // 64
    words = words[:, first : -(-int(edges[-1]) // 64)]
    edges = edges - 64 * first
    width = words.shape[1]
    if len(edges) > width:
        return np.append(0, np.cumsum(_ones_at(words)))[edges]
    below = (np.uint64(1) << (edges % 64).astype(np.uint64)) - np.uint64(1)
    whole, part = np.zeros(width + 1, np.int64), np.zeros(len(edges), np.int64)
    cut = np.minimum(edges // 64, width - 1)  # an edge at the end of the last word has no bits below it there
    rows = max(1, PIECE_WORDS // width)
    for begin in range(0, len(words), rows):
        block = words[begin : begin + rows]
        whole[1:] += np.bitwise_count(block).sum(axis=0, dtype=np.int64)
        part += np.bitwise_count(block[:, cut] & below).sum(axis=0, dtype=np.int64)
    return np.cumsum(whole)[edges // 64] + part


def _ones_at(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Ones of all rows together at each bit."""
    found = np.zeros(64 * words.shape[1], np.int64)
    rows = min(255, max(1, PIECE_WORDS // words.shape[1]))  # 8 bits hold sums of 255
    for begin in range(0, len(words), rows):
        octets = np.ascontiguousarray(words[begin : begin + rows], "<u8").view(np.uint8)
        found += np.unpackbits(octets, axis=1, bitorder="little").sum(axis=0, dtype=np.uint8)
    return found


class Recording(Mapping[str, PopulationRecord]):
    """What a run of a spiking network recorded: a mapping from the name of a population to its `PopulationRecord`.

    Parameters
    ----------
    records : iterable of PopulationRecord
        Of the same steps, each of another name; their order is kept.
    first_step, n_steps : int
        The first step of the run and how many there are, together at most 2**32 - 1.
    step_seconds : float, optional
        Seconds that one step stands for, above 0; pictures then show milliseconds and hertz.

    Attributes
    ----------
    first_step, n_steps, step_seconds
        The same.

    Raises
    ------
    ValueError
        Records of other steps, two of one name, or a number out of range.
    TypeError
        Something that is no `PopulationRecord`.

    Examples
    --------
    >>> import numpy as np
    >>> import scgpu
    >>> words = np.array([[0b1001], [0b0100]], np.uint64)
    >>> record = scgpu.PopulationRecord("exc", 2, first_step=10, n_steps=4, words=words)
    >>> recording = scgpu.Recording([record], first_step=10, n_steps=4)
    >>> steps, neurons = recording["exc"].events()
    >>> steps.tolist(), neurons.tolist()
    ([10, 12, 13], [0, 1, 0])
    >>> recording["exc"].population_rate(bin_steps=2).tolist()
    [0.25, 0.5]
    """

    __slots__ = ("_records", "first_step", "n_steps", "step_seconds")

    def __init__(
        self,
        records: Iterable[PopulationRecord],
        *,
        first_step: int,
        n_steps: int,
        step_seconds: float | None = None,
    ) -> None:
        self.first_step = arguments.integer("first_step", first_step, 0, MOST)
        self.n_steps = arguments.integer("n_steps", n_steps, 0, MOST - self.first_step)
        self.step_seconds = None if step_seconds is None else _step_seconds(step_seconds)
        self._records: dict[str, PopulationRecord] = {}
        for record in arguments.listed("records", records, "PopulationRecord"):
            if not isinstance(record, PopulationRecord):
                raise TypeError(f"records must be PopulationRecord objects; got {type(record).__name__}")
            if record.name in self._records:
                raise ValueError(f"records must have names of their own; got {record.name!r} twice")
            if (record.first_step, record.n_steps) != (self.first_step, self.n_steps):
                raise ValueError(
                    f"records must be of the {self.n_steps} steps from {self.first_step}; {record.name!r} is of "
                    f"{record.n_steps} from {record.first_step}"
                )
            self._records[record.name] = record

    def __getitem__(self, name: str) -> PopulationRecord:
        try:
            return self._records[name]
        except (KeyError, TypeError):  # the latter for what has no hash
            known = ", ".join(map(repr, self._records)) or "no populations"
            raise KeyError(f"no population {arguments.shown(name)} in this recording; it has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        """Equal steps, names and records, in the same order."""
        if not isinstance(other, Recording):
            return NotImplemented
        mine, theirs = ((one.first_step, one.n_steps, one.step_seconds, list(one.values())) for one in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        populations = ", ".join(f"{name!r}: {record.count} neurons" for name, record in self.items())
        return f"Recording({self.n_steps} steps from {self.first_step}, {{{populations}}})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, which `load` reads back on any machine.

        An .npz file without pickled objects, whatever its name; nothing of it is there until all of it is.
        Equal recordings give equal files.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {}
        populations = []
        for place, record in enumerate(self.values()):
            held = {name: getattr(record, name) for name in ARRAYS if getattr(record, name) is not None}
            arrays |= {f"{place}.{name}": array for name, array in held.items()}
            populations.append({"name": record.name, "count": record.count, "arrays": list(held)})
        header = {
            "first_step": self.first_step,
            "n_steps": self.n_steps,
            "step_seconds": self.step_seconds,
            "populations": populations,
        }
        archive.save(path, FORMAT, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file that `save` wrote.

        Raises
        ------
        OSError
            There is no such file, or it cannot be read.
        ValueError
            The file is no recording, is of another version, was cut short, or does not fit together.
        TooLargeError
            What is in it does not fit the memory of the machine.
        """
        return archive.load(path, FORMAT, cls._made)

    @classmethod
    def _made(cls, contents: Archive) -> Recording:
        header = contents.header
        first_step = arguments.integer("first_step", header.get("first_step"), 0, MOST)
        n_steps = arguments.integer("n_steps", header.get("n_steps"), 0, MOST - first_step)
        populations = header.get("populations")
        if not isinstance(populations, list):
            raise ValueError(f"its header must list populations; got {populations!r}")
        records = [_population(contents, place, entry, first_step, n_steps) for place, entry in enumerate(populations)]
        return cls(records, first_step=first_step, n_steps=n_steps, step_seconds=header.get("step_seconds"))


def _step_seconds(value: Any) -> float:
    """Seconds of a step: a finite number above 0."""
    return arguments.real("step_seconds", value, 0.0)


def _population(contents: Archive, place: int, entry: Any, first_step: int, n_steps: int) -> PopulationRecord:
    """The record of the population at a place of the header's list."""
    if not isinstance(entry, dict):
        raise ValueError(f"population {place} of its header must be an object; got {entry!r}")
    name, held = entry.get("name"), entry.get("arrays")
    try:
        if not isinstance(held, list) or not set(held) <= set(ARRAYS):
            raise ValueError(f"arrays must be of {', '.join(ARRAYS)}; got {held!r}")
        count = arguments.integer("count", entry.get("count"), 0, MOST)
        shapes = {"words": (count, -(-n_steps // 64)), "voltages": (count, n_steps), "counts": (count,)}
        arrays = {one: contents.array(f"{place}.{one}", ARRAYS[one], shapes[one]) for one in held}
        return PopulationRecord(name, count, first_step=first_step, n_steps=n_steps, **arrays)  # type: ignore[arg-type]
    except TooLargeError:
        raise
    except DAMAGES as error:
        raise ValueError(f"population {place}, {name!r}: {error}") from error
