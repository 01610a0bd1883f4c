"""thermometer: streams whose ones all come first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Device, require_host_memory
from scgpu.bitstream import Bitstream

# Word whose lowest k bits are ones, k = 0 .. 64.
_LOW_ONES = np.array([(1 << k) - 1 for k in range(65)], np.uint64)


def thermometer(
    ones: ArrayLike, length: int, *, polarity: Polarity = "unipolar", device: str | int | Device = "auto"
) -> Bitstream:
    """Streams of so many ones, then zeros: unary numbers, or masks of the first bits of others.

    Any two of them have SCC +1; one and the complement of another SCC -1.

    Parameters
    ----------
    ones : array_like of int, shape (...)
        Ones of each stream, 0 to ``length``.
    length : int
        Bits of each stream, 1 to 2**34 - 64.
    polarity : {"unipolar", "bipolar"}
        What the streams stand for.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    Bitstream
        Bit t of a stream of n ones is 1 where t < n.

    Raises
    ------
    ValueError
        A number of ones out of range.
    TypeError
        Numbers that are no integers.
    TooLargeError
        The streams do not fit the memory of the machine or of the device.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.thermometer([0, 1, 3], 4, device="cpu").bits().tolist()
    [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    """
    length = arguments.length_of(length)
    counts = arguments.integers("ones", ones, 0, length)
    word_count = -(-length // 64)
    require_host_memory(24 * math.prod(counts.shape) * word_count)  # the words, and two numbers for each
    return Bitstream.from_words(_first_ones(counts, word_count), length, polarity=polarity, device=device)


def _first_ones(counts: NDArray[np.int64], word_count: int) -> NDArray[np.uint64]:
    """Words of streams of so many ones, shape (..., word_count)."""
    if 64 * word_count + 1 < counts.size:  # each number that occurs once
        return np.take(_first_ones(np.arange(64 * word_count + 1), word_count), counts, axis=0)
    in_word = np.clip(counts[..., None] - 64 * np.arange(word_count), 0, 64)
    words: NDArray[np.uint64] = _LOW_ONES[in_word]
    return words
