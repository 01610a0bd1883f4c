"""Bitstream: a tensor of packed stochastic bitstreams that stays on its device."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device
from scgpu.bitwise import bitwise
from scgpu.count import count
from scgpu.devices import backend_of
from scgpu.devices import device as choose_device
from scgpu.pack import pack_streams
from scgpu.unpack import unpack_streams


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

    __slots__ = ("_backend", "_buffer", "length", "polarity", "shape")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # ndarray & Bitstream is an error, not an array of Bitstreams

    def __init__(self, backend: Backend, buffer: Any, shape: tuple[int, ...], length: int, polarity: Polarity) -> None:
        self._backend = backend
        self._buffer = buffer
        self.shape = shape
        self.length = length
        self.polarity = polarity

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
        backend = backend_of(choose_device(device))
        return cls(backend, backend.upload(np.array(words, "<u8", order="C")), shape, length, polarity)

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
        backend = backend_of(choose_device(device))
        shape = array.shape[:-1]
        words = backend.empty("u64", math.prod(shape) * -(-length // 64))
        pack_streams(backend, array, words, read=False)
        return cls(backend, words, shape, length, polarity)

    @property
    def device(self) -> Device:
        """Where the words are."""
        return self._backend.device

    @property
    def words(self) -> NDArray[np.uint64]:
        """The packed words, read-only, shape (..., W), fetched from the device."""
        (flat,) = self._backend.execute([], [self._buffer])
        view = flat.reshape(*self.shape, -(-self.length // 64))
        view.flags.writeable = False
        return view

    def count(self) -> NDArray[np.uint64]:
        """Ones of each stream, counted on the device: uint64 of `shape`."""
        word_count = -(-self.length // 64)
        return count(self._backend, self._buffer, math.prod(self.shape), word_count).reshape(self.shape)[()]

    def value(self) -> NDArray[np.float64]:
        """Value of each stream: float64 of `shape`; p = count / length, bipolar 2 p - 1."""
        counts = self.count()
        if self.polarity == "bipolar":
            return 2 * counts / self.length - 1
        return counts / self.length

    def bits(self) -> NDArray[np.uint8]:
        """Single bits, 0 or 1: uint8 of shape (..., length), in stream order."""
        flat = unpack_streams(self._backend, self._buffer, math.prod(self.shape), self.length)
        return flat.reshape(*self.shape, self.length)

    def to(self, device: str | int | Device) -> Bitstream:
        """The same bitstreams on another device (itself when it is there already)."""
        if device is self._backend.device:
            return self
        backend = backend_of(choose_device(device))
        if backend is self._backend:
            return self
        (flat,) = self._backend.execute([], [self._buffer])
        # The host backends hand out their own memory; bitstreams are immutable, so it may be shared.
        return Bitstream(backend, backend.upload(flat), self.shape, self.length, self.polarity)

    def _reshaped(self, *shape: int) -> Bitstream:
        return Bitstream(self._backend, self._buffer, shape, self.length, self.polarity)

    def _combined(self, other: object, operation: Literal["bit_and", "bit_or", "bit_xor"], sign: str) -> Bitstream:
        if not isinstance(other, Bitstream):
            return NotImplemented  # type: ignore[no-any-return]
        for name in ("length", "polarity", "shape"):
            left, right = getattr(self, name), getattr(other, name)
            if left != right:
                raise ValueError(f"a {sign} b needs bitstreams of equal {name}; a has {left!r}, b has {right!r}")
        buffer = bitwise(
            self._backend,
            operation,
            self._buffer,
            other.to(self.device)._buffer,
            math.prod(self.shape),
            self.length,
        )
        return Bitstream(self._backend, buffer, self.shape, self.length, self.polarity)

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
        buffer = bitwise(self._backend, "bit_not", self._buffer, self._buffer, math.prod(self.shape), self.length)
        return Bitstream(self._backend, buffer, self.shape, self.length, self.polarity)

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

    def __repr__(self) -> str:
        return (
            f"Bitstream(shape={self.shape}, length={self.length}, polarity={self.polarity!r}, "
            f"device={str(self.device)!r})"
        )
