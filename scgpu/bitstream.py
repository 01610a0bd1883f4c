"""Bitstream: a tensor of packed stochastic bitstreams that stays on its device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device
from scgpu.bitwise import BitOperation, bitwise
from scgpu.count import count
from scgpu.delay import delay
from scgpu.device_choice import DeviceChoice, choice_of, selector_of
from scgpu.devices import backend_for
from scgpu.pack import pack_streams
from scgpu.sng import Source
from scgpu.unpack import unpack_streams


class Part(NamedTuple):
    """Streams ``begin .. end`` of a flattened tensor, in one buffer."""

    begin: int
    end: int
    buffer: Any


def part_ranges(backend: Backend, shape: tuple[int, ...], length: int) -> list[tuple[int, int]]:
    """Which streams of a tensor share a buffer: all, or as many rows of the last axis as fit, or parts of a row.

    Raises
    ------
    TooLargeError
        When no buffer holds one stream, or the memory not all of them.
    """
    stream_bytes = -(-length // 64) * 8
    total, row = math.prod(shape), shape[-1] if shape else 1
    most = backend.largest_buffer // stream_bytes
    if total <= most:
        backend.require(total * stream_bytes)
        return [(0, total)]
    backend.require(stream_bytes)
    backend.require_total(total * stream_bytes)
    if row <= most:
        return [(begin, min(begin + most // row * row, total)) for begin in range(0, total, most // row * row)]
    return [
        (begin, min(begin + most, first + row))
        for first in range(0, total, row)
        for begin in range(first, first + row, most)
    ]


class Bitstream:
    """A tensor of bitstreams of one length and polarity, 64 bits to a word.

    Bit ``t`` of stream ``i`` is ``(words[i, t // 64] >> (t % 64)) & 1``; bits past ``length``
    are 0. Made by `scgpu.encode`, `Bitstream.from_words` or `Bitstream.from_bits`; immutable.

    Attributes
    ----------
    length : int
        Bits of each stream.
    shape : tuple of int
        Shape of the tensor of streams, that is of `value` and `count`.
    polarity : {"unipolar", "bipolar"}
        What a stream stands for: the share of ones p, or 2 p - 1.
    device : Device
        Where the words are.
    """

    __slots__ = ("_backend", "_parts", "_source", "length", "polarity", "shape")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # ndarray & Bitstream is an error, not an array of Bitstreams

    def __init__(
        self,
        backend: Backend,
        parts: Sequence[Part],
        shape: tuple[int, ...],
        length: int,
        polarity: Polarity,
        source: Source | None = None,
    ) -> None:
        self._backend = backend
        self._parts = tuple(parts)
        self.shape = shape
        self.length = length
        self.polarity = polarity
        self._source = source

    @classmethod
    def from_words(
        cls,
        words: NDArray[np.uint64],
        length: int,
        *,
        polarity: Polarity = "unipolar",
        device: str | int | Device = "auto",
    ) -> Bitstream:
        """Bitstreams from packed words.

        Parameters
        ----------
        words : ndarray of uint64, shape (..., W)
            W is ``ceil(length / 64)``. Copied.
        length : int
            Bits of each stream.
        polarity : {"unipolar", "bipolar"}
            What the streams stand for.
        device : str, int or Device
            Where to put them.

        Raises
        ------
        ValueError
            Wrong number of words, or a bit past ``length`` that is not 0.
        TypeError
            ``words`` is not an array of uint64.
        """
        polarity = arguments.polarity_of(polarity)
        length = arguments.length_of(length)
        words = arguments.streams(words, length)
        arguments.require_clear_tails(words, length)
        shape = words.shape[:-1]
        arguments.integer("number of streams", math.prod(shape), 0, 2**32 - 1)
        backend = backend_for(device)
        return cls._uploaded(backend, np.array(words, "<u8", order="C"), shape, length, polarity)

    @classmethod
    def _uploaded(
        cls, backend: Backend, words: NDArray[np.uint64], shape: tuple[int, ...], length: int, polarity: Polarity
    ) -> Bitstream:
        rows = words.reshape(math.prod(shape), -(-length // 64))
        parts = [
            Part(begin, end, backend.upload(rows[begin:end])) for begin, end in part_ranges(backend, shape, length)
        ]
        return cls(backend, parts, shape, length, polarity)

    @classmethod
    def from_bits(
        cls,
        bits: ArrayLike,
        *,
        polarity: Polarity = "unipolar",
        device: str | int | Device = "auto",
    ) -> Bitstream:
        """Bitstreams from single bits, packed on the device.

        Parameters
        ----------
        bits : array_like of bool or of the integers 0 and 1, shape (..., length)
            The bits of each stream in order; ``length`` is at least 1. Copied.
        polarity : {"unipolar", "bipolar"}
            What the streams stand for.
        device : str, int or Device
            Where to put them.

        Raises
        ------
        ValueError
            A value that is neither 0 nor 1, or streams without bits.
        TypeError
            ``bits`` holds no integers or booleans.
        TooLargeError
            The words do not fit the memory of the device.
        """
        polarity = arguments.polarity_of(polarity)
        array = arguments.bits(bits)
        length = arguments.length_of(array.shape[-1])
        backend = backend_for(device)
        shape = array.shape[:-1]
        rows = array.reshape(math.prod(shape), length)
        parts = []
        for begin, end in part_ranges(backend, shape, length):
            words = backend.empty("u64", (end - begin) * -(-length // 64))
            pack_streams(backend, rows[begin:end], words, read=False)
            parts.append(Part(begin, end, words))
        return cls(backend, parts, shape, length, polarity)

    @property
    def device(self) -> Device:
        """Where the words are."""
        return self._backend.device

    @property
    def _buffer(self) -> Any:
        """The buffer of a tensor that has one."""
        (part,) = self._parts
        return part.buffer

    @property
    def words(self) -> NDArray[np.uint64]:
        """The packed words, read-only, shape (..., W), fetched from the device."""
        view = self._flat().reshape(*self.shape, -(-self.length // 64))
        view.flags.writeable = False
        return view

    def _flat(self) -> NDArray[np.uint64]:
        contents = [self._backend.execute([], [part.buffer])[0] for part in self._parts]
        return contents[0] if len(contents) == 1 else np.concatenate(contents)

    def count(self) -> NDArray[np.uint64]:
        """Ones of each stream, counted on the device: uint64 of `shape`."""
        word_count = -(-self.length // 64)
        counts = [count(self._backend, part.buffer, part.end - part.begin, word_count) for part in self._parts]
        flat = counts[0] if len(counts) == 1 else np.concatenate(counts)
        return flat.reshape(self.shape)[()]

    def value(self) -> NDArray[np.float64]:
        """Value of each stream: float64 of `shape`; p = count / length, bipolar 2 p - 1."""
        counts = self.count()
        if self.polarity == "bipolar":
            return 2 * counts / self.length - 1
        return counts / self.length

    def bits(self) -> NDArray[np.uint8]:
        """Single bits, 0 or 1: uint8 of shape (..., length), in stream order."""
        bits = [unpack_streams(self._backend, part.buffer, part.end - part.begin, self.length) for part in self._parts]
        flat = bits[0] if len(bits) == 1 else np.concatenate(bits)
        return flat.reshape(*self.shape, self.length)

    def to(self, device: str | int | Device) -> Bitstream:
        """The same bitstreams on another device (itself when it is there already)."""
        return self._on(backend_for(device))

    def _on(self, backend: Backend) -> Bitstream:
        """The same bitstreams where ``backend`` runs."""
        if backend is self._backend:
            return self
        # The host backends hand out their own memory; bitstreams are immutable, so it may be shared.
        return Bitstream._uploaded(backend, self._flat(), self.shape, self.length, self.polarity)

    def _reshaped(self, *shape: int) -> Bitstream:
        return Bitstream(self._backend, self._parts, shape, self.length, self.polarity)

    def _by_parts(self, operation: BitOperation, other: Bitstream) -> Bitstream:
        parts = [
            Part(
                mine.begin,
                mine.end,
                bitwise(self._backend, operation, mine.buffer, theirs.buffer, mine.end - mine.begin, self.length),
            )
            for mine, theirs in zip(self._parts, other._parts, strict=True)
        ]
        return Bitstream(self._backend, parts, self.shape, self.length, self.polarity)

    def _combined(self, other: object, operation: BitOperation, sign: str) -> Bitstream:
        if not isinstance(other, Bitstream):
            return NotImplemented  # type: ignore[no-any-return]
        for name in ("length", "polarity", "shape"):
            left, right = getattr(self, name), getattr(other, name)
            if left != right:
                raise ValueError(f"a {sign} b needs bitstreams of equal {name}; a has {left!r}, b has {right!r}")
        return self._by_parts(operation, other._on(self._backend))

    def __and__(self, other: Bitstream) -> Bitstream:
        """AND: the product of independent unipolar streams."""
        return self._combined(other, "bit_and", "&")

    def __or__(self, other: Bitstream) -> Bitstream:
        """OR: the sum less the product of independent unipolar streams."""
        return self._combined(other, "bit_or", "|")

    def __xor__(self, other: Bitstream) -> Bitstream:
        """XOR: minus the product of independent bipolar streams."""
        return self._combined(other, "bit_xor", "^")

    def __invert__(self) -> Bitstream:
        """NOT: 1 - p, or minus the bipolar value; bits past ``length`` stay 0."""
        return self._by_parts("bit_not", self)

    def delayed(self, cycles: int) -> Bitstream:
        """The streams ``cycles`` bits later, as a chain of so many flip-flops (an isolator) gives them.

        Parameters
        ----------
        cycles : int
            0 to ``length``. Bit t of a result is bit ``t - cycles``, and 0 where there is none; the last
            ``cycles`` bits are lost.

        Returns
        -------
        Bitstream
            Of the same shape, length and polarity, on the same device.

        Raises
        ------
        ValueError, TypeError
            ``cycles`` is out of range or no integer.

        References
        ----------
        Ting, Hayes: Isolation-based decorrelation of stochastic circuits. ICCD 2016.

        Examples
        --------
        >>> import scgpu
        >>> scgpu.Bitstream.from_bits([1, 1, 0, 1], device="cpu").delayed(1).bits().tolist()
        [0, 1, 1, 0]
        """
        cycles = arguments.integer("cycles", cycles, 0, self.length)
        parts = [
            Part(
                part.begin,
                part.end,
                delay(self._backend, part.buffer, part.end - part.begin, self.length, cycles),
            )
            for part in self._parts
        ]
        return Bitstream(self._backend, parts, self.shape, self.length, self.polarity)

    def __eq__(self, other: object) -> bool:
        """Equal length, polarity, shape and bits, wherever they lie."""
        if not isinstance(other, Bitstream):
            return NotImplemented
        return (
            self.length == other.length
            and self.polarity == other.polarity
            and self.shape == other.shape
            and np.array_equal(self.words, other.words)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as words, and made again on the same device or another of its kind."""
        return _unpickled, (self._flat(), self.shape, self.length, self.polarity, choice_of(self.device), self._source)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return (
            f"Bitstream(shape={self.shape}, length={self.length}, polarity={self.polarity!r}, "
            f"device={str(self.device)!r})"
        )


def _unpickled(
    words: NDArray[np.uint64],
    shape: tuple[int, ...],
    length: int,
    polarity: Polarity,
    choice: DeviceChoice,
    source: Source | None,
) -> Bitstream:
    """A bitstream as `Bitstream.__reduce__` describes it."""
    made = Bitstream._uploaded(backend_for(selector_of(choice)), words, shape, length, polarity)
    return Bitstream(made._backend, made._parts, shape, length, polarity, source)


def bitstream_of(name: str, value: Any) -> Bitstream:
    """A `Bitstream`, or a `TypeError` that says how to make one."""
    if not isinstance(value, Bitstream):
        raise TypeError(
            f"{name} must be a Bitstream; got {type(value).__name__}. Use scgpu.encode for numbers, "
            "Bitstream.from_words for packed words."
        )
    return value
