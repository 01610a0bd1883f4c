"""Stochastic number generators: the numbers that comparators turn probabilities into streams with.

Every generator here is a rule in integers (contract, section Sequences of numbers). Its numbers
U(t) of 32 bits are made once, on the host, and `scgpu.compare` compares thresholds with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Backend
from scgpu.compare import LONGEST_PERIOD
from scgpu.philox import philox4x32

SngName = Literal["bernoulli", "lfsr", "sobol", "halton", "van_der_corput", "counter"]
Sharing = Literal["tensor", "stream"]
Numbers = NDArray[np.uint32]

PURPOSE_COUNT = 5
SHIFT_DOMAIN = 5 << 24
KEPT_NUMBERS = 1 << 22  # tables of up to 16 MiB stay on their device for the next call

# Taps of maximal LFSRs, widths 3 to 32. P. Alfke: Efficient shift registers, LFSR counters, and long
# pseudo-random sequence generators. Xilinx application note XAPP 052 (1996), table 3.
TAPS: dict[int, tuple[int, ...]] = {
    **{3: (3, 2), 4: (4, 3), 5: (5, 3), 6: (6, 5), 7: (7, 6), 8: (8, 6, 5, 4), 9: (9, 5), 10: (10, 7)},
    **{11: (11, 9), 12: (12, 6, 4, 1), 13: (13, 4, 3, 1), 14: (14, 5, 3, 1), 15: (15, 14), 16: (16, 15, 13, 4)},
    **{17: (17, 14), 18: (18, 11), 19: (19, 6, 2, 1), 20: (20, 17), 21: (21, 19), 22: (22, 21), 23: (23, 18)},
    **{24: (24, 23, 22, 17), 25: (25, 22), 26: (26, 6, 2, 1), 27: (27, 5, 2, 1), 28: (28, 25), 29: (29, 27)},
    **{30: (30, 6, 4, 1), 31: (31, 28), 32: (32, 22, 2, 1)},
}

GOLDEN = 0x9E37_79B9  # 2**32 over the golden ratio: its multiples lie far apart

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
LARGEST_BASE = 1 << 16


class Sng(ABC):
    """A generator of sequences of numbers, for the argument ``sng`` of `scgpu.encode`.

    A tensor of streams is given the index purpose + 5 (tensor_id + seed), and with
    ``sharing="stream"`` stream i of it that of tensor_id + i; the purposes are numbered as in
    `scgpu.encode`. The index chooses the sequence.

    Attributes
    ----------
    sharing : {"tensor", "stream"}
        Whether all streams of a tensor follow one sequence, or each one of its own.
    """

    sharing: Sharing
    keyed = False
    """The numbers depend on the seed other than through the index."""

    def sequence(self, index: int) -> int:
        """Which of the generator's sequences an index stands for."""
        return 0

    def phase(self, index: int) -> int:
        """At which number of the sequence it begins."""
        return 0

    def period(self, length: int) -> int:
        """Numbers of a sequence that streams of this length use, after which they begin again."""
        return length

    @abstractmethod
    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """The first ``period(length)`` numbers of a sequence, uint32."""


def _sharing_of(value: Any) -> None:
    arguments.choice("sharing", value, ("tensor", "stream"))


def _step(columns: list[int], states: Numbers) -> Numbers:
    """States times a matrix over GF(2), given by what it makes of each bit of a state."""
    out = np.zeros_like(states)
    for bit, column in enumerate(columns):
        out ^= (states >> np.uint32(bit) & np.uint32(1)) * np.uint32(column)
    return out


def _squared(columns: list[int]) -> list[int]:
    stepped = _step(columns, np.array(columns, np.uint32))
    return [int(column) for column in stepped]


def _advanced(columns: list[int], state: int, steps: int) -> int:
    """A state after so many steps."""
    now = np.array([state], np.uint32)
    while steps:
        if steps & 1:
            now = _step(columns, now)
        columns = _squared(columns)
        steps >>= 1
    return int(now[0])


def _prime_factors(number: int) -> list[int]:
    factors = []
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            factors.append(divisor)
            while number % divisor == 0:
                number //= divisor
        divisor += 1
    return [*factors, number] if number > 1 else factors


@lru_cache(maxsize=256)
def _register(width: int, taps: tuple[int, ...], form: str) -> tuple[int, ...]:
    """The matrix of one step of an LFSR: what it makes of each bit of the state."""
    mask = sum(1 << tap - 1 for tap in taps)
    if form == "galois":
        return (mask, *(1 << bit - 1 for bit in range(1, width)))
    full = (1 << width) - 1
    return tuple(1 << bit + 1 & full | mask >> bit & 1 for bit in range(width))


@lru_cache(maxsize=256)
def _is_maximal(width: int, taps: tuple[int, ...]) -> bool:
    """Whether the register goes through all states but 0: its polynomial is primitive."""
    columns = list(_register(width, taps, "galois"))
    order = 2**width - 1
    states = [1 << bit for bit in range(width)]

    def identity(steps: int) -> bool:
        return all(_advanced(columns, state, steps) == state for state in states)

    return identity(order) and not any(identity(order // prime) for prime in _prime_factors(order))


@dataclass(frozen=True)
class Lfsr(Sng):
    """Linear feedback shift registers of maximal length.

    The number at t is the state after t steps in the highest bits: U(t) = state << (32 - width).
    A Fibonacci register shifts to the left, and its lowest bit becomes the parity of its taps (tap k is
    bit k - 1); a Galois register shifts to the right, and where a 1 leaves it, the taps are flipped. An even index
    stands for these taps, an odd one for those of the reciprocal polynomial, in which a tap k < width is
    width - k; both are maximal. Index i begins i * floor(P * 0x9E3779B9 / 2**32) steps after ``start``, modulo
    P = 2**width - 1.

    Parameters
    ----------
    width : int
        Bits of the register, 3 to 32. Numbers repeat after 2**width - 1 of them; 0 is not among them.
    form : {"fibonacci", "galois"}
        How it steps.
    taps : tuple of int, optional
        Taps of a maximal register, the width among them; from the table `scgpu.sng.TAPS` (Xilinx
        application note XAPP 052) unless given.
    start : int, optional
        The first state, 1 to 2**width - 1; floor(2**width * 0x9E3779B9 / 2**32) unless given, in which ones
        and zeros are mixed (a state with few ones is followed by many small numbers).
    sharing : {"tensor", "stream"}
        One register for a tensor, or one for each stream. The streams of a tensor share a polynomial
        then, and differ in phase by large steps.

    Raises
    ------
    ValueError
        A number out of range, or taps whose register is not maximal.
    TypeError
        Something that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> [int(u) >> 24 for u in scgpu.sng.Lfsr(8, start=1).numbers(0, 8, seed=0)[:6]]
    [1, 2, 4, 8, 17, 35]
    """

    width: int = 16
    form: Literal["fibonacci", "galois"] = "fibonacci"
    taps: tuple[int, ...] | None = None
    start: int | None = None
    sharing: Sharing = "tensor"

    def __post_init__(self) -> None:
        # Generators are compared, and hashed, by their fields: Python's own integers.
        width = arguments.integer("width", self.width, 3, 32)
        object.__setattr__(self, "width", width)
        arguments.choice("form", self.form, ("fibonacci", "galois"))
        if self.start is not None:
            object.__setattr__(self, "start", arguments.integer("start", self.start, 1, 2**width - 1))
        _sharing_of(self.sharing)
        if self.taps is None:
            return
        if not isinstance(self.taps, tuple):
            raise TypeError(f"taps must be a tuple of integers; got {type(self.taps).__name__}")
        object.__setattr__(self, "taps", tuple(arguments.integer("taps", tap, 1, width) for tap in self.taps))
        if len(set(self.taps)) < len(self.taps) or width not in self.taps or not _is_maximal(width, self.taps):
            raise ValueError(
                f"taps must be those of a maximal register of width {width}, such as {TAPS[width]}; got {self.taps}"
            )

    @property
    def _whole(self) -> bool:
        # All numbers of a short register are one table, in which indices differ by their phase.
        return self.width <= 16

    def _steps(self, index: int) -> int:
        states = (1 << self.width) - 1
        return index * (states * GOLDEN >> 32) % states

    def sequence(self, index: int) -> int:
        """The polynomial, 0 or 1, or for wide registers the index itself."""
        return index % 2 if self._whole else index

    def phase(self, index: int) -> int:
        """Steps ahead of ``start``, where the sequence is a whole period."""
        return self._steps(index) if self._whole else 0

    def period(self, length: int) -> int:
        """All states but 0, or as many numbers as a stream has bits."""
        states = (1 << self.width) - 1
        return states if self._whole else min(states, length)

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """States in the highest bits."""
        taps = self.taps or TAPS[self.width]
        if sequence % 2:
            taps = (self.width, *(self.width - tap for tap in taps if tap != self.width))
        columns = list(_register(self.width, taps, self.form))
        first = self.start or GOLDEN >> 32 - self.width
        if not self._whole:
            first = _advanced(columns, first, self._steps(sequence))
        states = np.array([first], np.uint32)
        count = self.period(length)
        while states.size < count:
            states = np.concatenate([states, _step(columns, states[: count - states.size])])
            columns = _squared(columns)
        return states << np.uint32(32 - self.width)


@lru_cache(maxsize=2)
def sobol_directions(file: str = "joe_kuo.txt") -> NDArray[np.uint32]:
    """Direction numbers of all dimensions that a file of `scgpu/data` has, shape (dimensions, 32)."""
    text = resources.files("scgpu").joinpath("data", file).read_text(encoding="ascii")
    rows = [[int(word) for word in line.split()] for line in text.splitlines() if line[0] != "#"]
    directions = np.empty((len(rows), 32), np.uint32)
    for row, (polynomial, *m) in zip(directions, rows, strict=True):
        degree = polynomial.bit_length() - 1
        m += [1] * (32 if degree == 0 else 0)
        for k in range(len(m), 32):
            new = m[k - degree]
            for j in range(1, degree + 1):
                new ^= (polynomial >> degree - j & 1) * m[k - j] << j
            m.append(new)
        row[:] = [number << 31 - k for k, number in enumerate(m[:32])]
    return directions


def sobol_points(directions: NDArray[np.uint32], count: int) -> Numbers:
    """The first points of a dimension, by its direction numbers."""
    points = np.zeros(1, np.uint32)
    for direction in directions[: (count - 1).bit_length()]:
        # t and 2**(k+1) - 1 - t differ in bit k of their Gray codes alone
        points = np.concatenate([points, points[::-1] ^ direction])
    return points[:count]


@dataclass(frozen=True)
class Sobol(Sng):
    """Sobol' sequences with the direction numbers of Joe and Kuo, in the order of Antonov and Saleev.

    U(t) of a dimension is the exclusive or of its direction numbers v_k over the bits k that are 1 in
    t ^ (t >> 1): 2**32 times what ``scipy.stats.qmc.Sobol(d, scramble=False, bits=32)`` returns. An index
    stands for dimension index % 1000 (of `scgpu/data/joe_kuo.txt`). A stream of 2**m bits has ceil(p 2**m) ones;
    the error of a product falls nearly as 1 / L. Small indices make the best products: some pairs of high
    dimensions are correlated over short lengths.

    Parameters
    ----------
    shift : bool
        Exclusive or all numbers of an index with one random word, a digital shift: component 0 of the Philox block
        with counter (0, index mod 2**32, floor(index / 2**32) mod 2**32, 5 * 2**24) under the seed.
    sharing : {"tensor", "stream"}
        One dimension for a tensor, or one for each stream.

    References
    ----------
    Joe, Kuo: Constructing Sobol sequences with better two-dimensional projections. SIAM J. Sci. Comput. 30 (2008).

    Examples
    --------
    >>> import scgpu
    >>> [int(u) / 2**32 for u in scgpu.sng.Sobol().numbers(1, 4, seed=0)]
    [0.0, 0.5, 0.25, 0.75]
    """

    shift: bool = False
    sharing: Sharing = "tensor"

    def __post_init__(self) -> None:
        if not isinstance(self.shift, bool):
            raise TypeError(f"shift must be True or False; got {arguments.shown(self.shift)}")
        _sharing_of(self.sharing)

    @property
    def keyed(self) -> bool:  # type: ignore[override]
        """Shifted sequences are."""
        return self.shift

    def sequence(self, index: int) -> int:
        """The dimension from 0 on, or with a shift the index."""
        return index if self.shift else index % len(sobol_directions())

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """The points of a dimension, shifted or not."""
        directions = sobol_directions()
        points = sobol_points(directions[sequence % len(directions)], length)
        if self.shift:
            counter = [0, sequence & 0xFFFF_FFFF, sequence >> 32 & 0xFFFF_FFFF, SHIFT_DOMAIN]
            points = points ^ philox4x32(counter, [seed & 0xFFFF_FFFF, seed >> 32], device="numpy")[0]
        return points


def _radical_inverses(base: int, count: int) -> Numbers:
    """floor(2**32 r(t)), r being t with its digits in a base mirrored at the point."""
    rest = np.arange(count, dtype=np.uint64)
    mirrored = np.zeros_like(rest)
    scale = 1
    while scale < count:
        rest, digits = np.divmod(rest, np.uint64(base))
        mirrored = mirrored * np.uint64(base) + digits
        scale *= base
    # mirrored / scale in two steps of 16 bits: mirrored << 32 would not fit
    high, rest = np.divmod(mirrored << np.uint64(16), np.uint64(scale))
    low = (rest << np.uint64(16)) // np.uint64(scale)
    return (high << np.uint64(16) | low).astype(np.uint32)


@dataclass(frozen=True)
class VanDerCorput(Sng):
    """The van der Corput sequence: t with its digits mirrored, floor(2**32 sum_k d_k base**(-k-1)).

    It is the same for every index: streams of one base are correlated. Multiply them with those of another base,
    or of `Counter`.

    Parameters
    ----------
    base : int
        2 to 65536.

    Examples
    --------
    >>> import scgpu
    >>> [int(u) / 2**32 for u in scgpu.sng.VanDerCorput().numbers(0, 4, seed=0)]
    [0.0, 0.5, 0.25, 0.75]
    """

    base: int = 2
    sharing = "tensor"

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", arguments.integer("base", self.base, 2, LARGEST_BASE))

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """Mirrored numbers."""
        return _radical_inverses(self.base, length)


@dataclass(frozen=True)
class Halton(Sng):
    """Halton sequences: those of van der Corput in the first 25 primes; an index stands for prime index % 25.

    Parameters
    ----------
    sharing : {"tensor", "stream"}
        One base for a tensor, or one for each stream. Large bases need long streams.
    """

    sharing: Sharing = "tensor"

    def __post_init__(self) -> None:
        _sharing_of(self.sharing)

    def sequence(self, index: int) -> int:
        """Which prime, from 0 on."""
        return index % len(PRIMES)

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """Mirrored numbers."""
        return _radical_inverses(PRIMES[sequence], length)


@dataclass(frozen=True)
class Counter(Sng):
    """A ramp, U(t) = floor(t 2**32 / L): temporal coding, all ones of a stream first.

    It is the same for every index: streams are correlated, so that AND is min and OR is max.
    """

    sharing = "tensor"

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """The ramp."""
        return ((np.arange(length, dtype=np.uint64) << np.uint64(32)) // np.uint64(length)).astype(np.uint32)


class NumberTable(Sng):
    """Sequences of any numbers, such as those of measured or other hardware; they repeat.

    Parameters
    ----------
    numbers : array_like of int, shape (n,) or (sequences, n)
        U(t) of each sequence, 0 to 2**32 - 1, at most 2**24 of them; numbers of w bits belong into the
        highest ones, shifted by 32 - w. An index stands for sequence index % sequences. Copied.
    sharing : {"tensor", "stream"}
        One sequence for a tensor, or one for each stream.

    Raises
    ------
    ValueError
        A number out of range, or a wrong shape.
    TypeError
        Something that is not integers.
    """

    def __init__(self, numbers: ArrayLike, *, sharing: Sharing = "tensor") -> None:
        _sharing_of(sharing)
        array = arguments.array_of("numbers", numbers)
        if array.ndim not in (1, 2) or not array.size or array.shape[-1] > LONGEST_PERIOD:
            raise ValueError(f"numbers must have shape (n,) or (sequences, n), n from 1 to 2**24; got {array.shape}")
        self._rows: Numbers = arguments.words32("numbers", array, array.shape[-1]).reshape(-1, array.shape[-1]).copy()
        self.sharing = sharing

    @property
    def rows(self) -> Numbers:
        """The numbers of each sequence: uint32 of shape (sequences, n), read-only."""
        view = self._rows.view()
        view.flags.writeable = False
        return view

    def sequence(self, index: int) -> int:
        """Which row."""
        return index % len(self._rows)

    def period(self, length: int) -> int:
        """Numbers in a row."""
        return int(self._rows.shape[1])

    def numbers(self, sequence: int, length: int, seed: int) -> Numbers:
        """A row."""
        row: Numbers = self._rows[sequence]
        return row


NAMED: dict[str, Sng | None] = {
    "bernoulli": None,
    "lfsr": Lfsr(),
    "sobol": Sobol(),
    "halton": Halton(),
    "van_der_corput": VanDerCorput(),
    "counter": Counter(),
}


def sng_of(value: Any) -> Sng | None:
    """The generator that a name or object means; None for the contract's Bernoulli streams."""
    if isinstance(value, Sng):
        return value
    if isinstance(value, str) and value in NAMED:
        return NAMED[value]
    known = ", ".join(map(repr, NAMED))
    raise ValueError(f"sng must be one of {known} or a generator of scgpu.sng; got {arguments.shown(value)}")


class Source(NamedTuple):
    """Where the numbers of a tensor of streams came from; what ``correlated_with`` uses again."""

    sng: Sng | None
    seed: int
    purpose: int
    tensor_id: int
    first_sample: int
    first_stream: int

    def index_of(self, stream: int) -> int:
        """The index that chooses the sequence of a stream."""
        shared = self.sng is None or self.sng.sharing == "tensor"
        return self.purpose + PURPOSE_COUNT * (self.tensor_id + self.seed + (0 if shared else stream))


class Table(NamedTuple):
    """What `scgpu.compare` needs of a tensor's generator, on a device."""

    places: Any
    """Row and phase of each stream, or one pair for all."""
    numbers: Any
    """Rows of numbers."""
    sequence_count: int
    period: int
    place_stride: int


def _table(backend: Backend, sng: Sng, first: int, count: int, length: int, seed: int) -> Table:
    """The table of ``count`` streams, the first of which has the index ``first``."""
    rows: dict[int, int] = {}
    places = np.empty((count, 2), np.uint32)
    for place, index in zip(places, range(first, first + PURPOSE_COUNT * count, PURPOSE_COUNT), strict=True):
        place[:] = rows.setdefault(sng.sequence(index), len(rows)), sng.phase(index)
    period = sng.period(length)
    backend.require(4 * len(rows) * period)
    numbers = np.empty((len(rows), period), np.uint32)
    for sequence, row in rows.items():
        numbers[row] = sng.numbers(sequence, length, seed)
    return Table(backend.upload(places), backend.upload(numbers), len(rows), period, int(count > 1))


@lru_cache(maxsize=8)
def _kept_table(backend: Any, sng: Sng, first: int, count: int, length: int, seed: int) -> Table:
    """The same table as for the last calls, where it lies already."""
    return _table(backend, sng, first, count, length, seed)


def table_of(backend: Backend, source: Source, first: int, count: int, length: int) -> Table:
    """The table of streams ``first .. first + count`` of a tensor.

    Raises
    ------
    ValueError
        Where a sequence would have more than 2**24 numbers.
    TooLargeError
        Where the sequences do not fit the memory of the device.
    """
    sng = source.sng
    assert sng is not None
    period = sng.period(length)
    if period > LONGEST_PERIOD:
        raise ValueError(
            f"length must be at most {LONGEST_PERIOD} for sng={sng}; got {length}. "
            "Use 'bernoulli', or an Lfsr of up to 16 bits, for longer streams."
        )
    if sng.sharing == "tensor":
        count = 1
    device: Any = backend  # a protocol's objects have hashes, but mypy does not believe it
    make = _kept_table if count * period <= KEPT_NUMBERS else _table
    return make(device, sng, source.index_of(first), count, length, source.seed if sng.keyed else 0)
