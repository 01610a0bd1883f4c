"""The 16-bit shift register of the reference system, and its comparator encoder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Device, require_host_memory
from scgpu.bitstream import Bitstream, Part, part_ranges
from scgpu.compare import compare_step
from scgpu.devices import backend_for

WIDTH = 16
PERIOD = 2**WIDTH - 1
DEFAULT_SEED = 0xACE1
ALWAYS = 0xFFFF_FFFF  # the threshold that all numbers are below


class Orbit(NamedTuple):
    """All states in the order of the register, and where each of them stands.

    Attributes
    ----------
    states : ndarray of uint32, shape (2 * PERIOD - 1,)
        Twice around less one, so that a period from any state is a slice.
    place : ndarray of int64, shape (2**16,)
        Index of each state in the first turn; that of 0, which no register has, means nothing.
    """

    states: NDArray[np.uint32]
    place: NDArray[np.int64]


def advanced(register: int) -> int:
    """The state after ``register``: shift left, with bits 15, 13, 12 and 10 fed back by XOR.

    The polynomial x^16 + x^14 + x^13 + x^11 + 1 is primitive: all 65,535 states but 0 follow each other.
    """
    feedback = (register >> 15 ^ register >> 13 ^ register >> 12 ^ register >> 10) & 1
    return (register << 1 | feedback) & 0xFFFF


@lru_cache(maxsize=1)
def orbit() -> Orbit:
    """Once around from state 1, made at first use."""
    turn = np.empty(PERIOD, np.uint32)
    register = 1
    for t in range(PERIOD):
        turn[t] = register
        register = advanced(register)
    place = np.zeros(2**WIDTH, np.int64)
    place[turn] = np.arange(PERIOD)
    return Orbit(np.concatenate([turn, turn[:-1]]), place)


def _states_from(register: int, count: int) -> NDArray[np.uint32]:
    """The state ``register`` and those after it, ``count`` in all."""
    states, place = orbit()
    begin = int(place[register])
    return np.resize(states[begin : begin + min(count, PERIOD)], count)


class Lfsr16:
    """A 16-bit linear feedback shift register: x^16 + x^14 + x^13 + x^11 + 1, period 65,535.

    A step shifts the register left and puts the XOR of its bits 15, 13, 12 and 10 into bit 0
    (Fibonacci form). Bit for bit the reference's.

    Parameters
    ----------
    seed : int
        First state, 1 to 65,535; 0 would stay 0 for ever.

    Raises
    ------
    ValueError
        A seed out of range.
    TypeError
        A seed that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> register = scgpu.Lfsr16(0xACE1)
    >>> [hex(register.step()) for _ in range(3)]
    ['0x59c3', '0xb387', '0x670f']
    >>> register.states(2).tolist() == [0xCE1E, 0x9C3C]
    True
    """

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self._seed = arguments.integer("seed", seed, 1, PERIOD)
        self._register = self._seed

    @property
    def reg(self) -> int:
        """The state, 1 to 65,535."""
        return self._register

    @property
    def width(self) -> int:
        """Bits of the register: 16."""
        return WIDTH

    def step(self) -> int:
        """Advance by one step, and return the new state."""
        self._register = advanced(self._register)
        return self._register

    def states(self, count: int) -> NDArray[np.uint16]:
        """Advance by ``count`` steps at once.

        Parameters
        ----------
        count : int
            0 to 2**34 - 64.

        Returns
        -------
        ndarray of uint16, shape (count,)
            What so many calls of `step` return.

        Raises
        ------
        ValueError, TypeError
            A count out of range, or no integer; the register stays as it was.
        TooLargeError
            More states than fit the memory.
        """
        count = arguments.integer("count", count, 0, arguments.LONGEST)
        require_host_memory(6 * count)
        states = _states_from(self._register, count + 1).astype(np.uint16)
        self._register = int(states[-1])
        return states[1:]

    def reset(self, seed: int | None = None) -> None:
        """Back to the last seed that was given, or to another, which later calls without one return to.

        Parameters
        ----------
        seed : int, optional
            1 to 65,535.

        Raises
        ------
        ValueError, TypeError
            A seed out of range, or no integer; the register stays as it was.
        """
        if seed is not None:
            self._seed = arguments.integer("seed", seed, 1, PERIOD)
        self._register = self._seed

    def __repr__(self) -> str:
        return f"Lfsr16(seed={self._seed:#06x}), reg={self._register:#06x}"


class BitstreamEncoder:
    """A comparator with an `Lfsr16`: bit = (register < x), then the register advances.

    A period of 65,535 bits has ``max(x - 1, 0)`` ones, so x stands for p = (x - 1) / 65535, and p = 1
    cannot be had. Bit for bit the reference's.

    Parameters
    ----------
    data_width : int
        Bits of x: 16. The reference takes any number here and compares 16 bits all the same.
    seed : int
        First state of the register, with which the first bit is made; 1 to 65,535.

    Raises
    ------
    ValueError
        A seed out of range, or another width.
    TypeError
        Something that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> encoder = scgpu.BitstreamEncoder(seed=0xACE1)
    >>> [encoder.step(0x8000) for _ in range(4)], encoder.bits([0x8000] * 4).tolist()
    ([0, 1, 0, 1], [0, 0, 1, 1])
    """

    def __init__(self, data_width: int = WIDTH, seed: int = DEFAULT_SEED) -> None:
        if arguments.integer("data_width", data_width, 1, 64) != WIDTH:
            raise ValueError(f"data_width must be 16; got {data_width}. Scale the values to 16 bits, and leave it out.")
        self._lfsr = Lfsr16(seed)

    @property
    def reg(self) -> int:
        """State of the register: what the next value is compared with."""
        return self._lfsr.reg

    @property
    def data_width(self) -> int:
        """Bits of a value: 16."""
        return WIDTH

    def step(self, x_value: int) -> int:
        """The next bit.

        Parameters
        ----------
        x_value : int
            0 to 65,535.

        Returns
        -------
        int
            0 or 1.

        Raises
        ------
        ValueError, TypeError
            A value out of range, or no integer; the register stays as it was.
        """
        x_value = arguments.integer("x_value", x_value, 0, PERIOD)
        bit = int(self._lfsr.reg < x_value)
        self._lfsr.step()
        return bit

    def bits(self, x_values: ArrayLike) -> NDArray[np.uint8]:
        """The next bits, one for each value.

        Parameters
        ----------
        x_values : array_like of int, shape (n,)
            0 to 65,535. For n bits of one value, ``np.full(n, value)``.

        Returns
        -------
        ndarray of uint8, shape (n,)
            What calls of `step` return; `scgpu.pack` makes words of them.

        Raises
        ------
        ValueError, TypeError
            A value out of range, another shape, no integers; the register stays as it was.
        """
        values: NDArray[Any] = arguments.array_of("x_values", x_values)
        if values.ndim != 1:
            raise ValueError(f"x_values must have shape (n,); got {values.shape}")
        if not arguments.holds_integers(values):
            raise TypeError(f"x_values must hold integers; got dtype {values.dtype}")
        wrong = (values < 0) | (values > PERIOD)
        if wrong.any():
            index = int(np.argmax(wrong))
            raise ValueError(f"x_values must lie in [0, {PERIOD}]; got {values[index]} at index ({index},)")
        now = np.array([self._lfsr.reg], np.uint16)
        compared = np.concatenate([now, self._lfsr.states(values.size)])[:-1]
        return (compared < values).astype(np.uint8)

    def reset(self, seed: int | None = None) -> None:
        """As `Lfsr16.reset`."""
        self._lfsr.reset(seed)

    def __repr__(self) -> str:
        return f"BitstreamEncoder(reg={self.reg:#06x})"


def lfsr_streams(
    p: ArrayLike, length: int, seed: int = DEFAULT_SEED, *, device: str | int | Device = "auto"
) -> Bitstream:
    """Numbers as streams of shift registers with neighbouring seeds: the input streams of `scgpu.sc_forward`.

    Stream i compares x = round(65536 p[i]), halves to even, with the states of an `Lfsr16` whose
    seed is the low 16 bits of ``seed + i``, 1 where they are 0: bit = (register < x), then the
    register advances. p = 1 gives ones alone.

    These are the reference's streams, and no good ones: those of neighbouring inputs are the same
    sequence at other phases, so they are correlated, and all repeat after 65,535 bits.
    `scgpu.encode` makes independent streams.

    Parameters
    ----------
    p : array_like, shape (n,)
        Numbers in [0, 1].
    length : int
        Bits of each stream, 1 to 2**34 - 64.
    seed : int
        0 to 2**32 - 1.
    device : str, int or Device
        Where they are made, by operation compare; the same ones everywhere.

    Returns
    -------
    Bitstream
        Of shape (n,).

    Raises
    ------
    ValueError
        A number out of range or not finite, another shape, a length or seed out of range.
    TypeError
        Something that is no number.
    TooLargeError
        The streams do not fit the memory.

    Examples
    --------
    >>> from scgpu.lfsr16 import lfsr_streams
    >>> lfsr_streams([0.5], 64, device="cpu").count().tolist()
    [30]
    """
    length = arguments.length_of(length)
    seed = arguments.integer("seed", seed, 0, 2**32 - 1)
    values = arguments.probabilities("p", p)
    if values.ndim != 1:
        raise ValueError(f"p must have shape (n,); got {values.shape}")
    below = np.rint(values * 2.0**WIDTH).astype(np.uint64) << np.uint64(32 - WIDTH)
    thresholds = np.minimum(below, ALWAYS).astype("<u4")
    first = (np.uint64(seed) + np.arange(values.size, dtype=np.uint64)) & np.uint64(0xFFFF)
    places = np.zeros((values.size, 2), "<u4")
    places[:, 1] = orbit().place[np.maximum(first, 1).astype(np.int64)]
    backend = backend_for(device)
    hashable: Any = backend  # a protocol's objects have hashes, but mypy does not believe it
    parts = []
    for begin, end in part_ranges(backend, values.shape, length):
        words = backend.empty("u64", (end - begin) * -(-length // 64))
        if begin < end:
            step = compare_step(
                backend.upload(thresholds[begin:end]),
                backend.upload(places[begin:end]),
                _numbers(hashable),
                words,
                sample_count=1,
                stream_count=end - begin,
                length=length,
                period=PERIOD,
                sequence_count=1,
                place_stride=1,
            )
            backend.execute([step])
        parts.append(Part(begin, end, words))
    return Bitstream(backend, parts, values.shape, length, "unipolar")


@lru_cache(maxsize=8)
def _numbers(backend: Any) -> Any:
    """All states on a device, in the highest bits of 32, where the last calls left them."""
    return backend.upload(orbit().states[:PERIOD] << np.uint32(32 - WIDTH))
