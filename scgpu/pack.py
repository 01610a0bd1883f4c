"""pack: single bits into bitstream words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import DTYPES, Backend, Device, Step
from scgpu.devices import backend_for

# Parameters of pack and unpack for a part of a tensor of streams, and where its single bits begin and end.
Piece = tuple[Mapping[str, int], int, int]


def pack(
    bits: ArrayLike, *, out: NDArray[np.uint64] | None = None, device: str | int | Device = "cpu"
) -> NDArray[np.uint64]:
    """Bitstream words from single bits: 64 bits to a word, the first in the lowest place.

    Parameters
    ----------
    bits : array_like of bool or of the integers 0 and 1, shape (..., length)
        The bits of each stream in order; ``length`` is at most 2**34 - 64. C-contiguous arrays
        of uint8 or bool are read where they lie, others are copied first.
    out : ndarray of uint64, shape (..., W), optional
        Where to put the words: C-contiguous, apart from ``bits``. Memory that was used before is
        faster than new memory where there is much of it.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (..., W)
        W is ``ceil(length / 64)``; bit ``t`` is ``(words[..., t // 64] >> (t % 64)) & 1``, and
        the bits of the last word past ``length`` are 0. ``out`` itself where it is given.

    Raises
    ------
    ValueError
        A value that is neither 0 nor 1, whose index the message names (``out`` is written all
        the same); an ``out`` of another shape or layout.
    TypeError
        ``bits`` holds no integers or booleans, or ``out`` no uint64.
    TooLargeError
        The words do not fit the memory of the device.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.pack([1, 1, 0, 1]).tolist()
    [11]
    """
    array = arguments.bits(bits)
    shape = (*array.shape[:-1], -(-array.shape[-1] // 64))
    if out is not None:
        arguments.output(out, shape, DTYPES["u64"], array)
    if array.size == 0:
        return np.empty(shape, np.uint64) if out is None else out
    backend = backend_for(device)
    if out is None or not backend.host_arrays:
        words = pack_streams(backend, array, backend.empty("u64", math.prod(shape)), read=True).reshape(shape)
        if out is None:
            return words
        out[...] = words
    else:
        pack_streams(backend, array, out.reshape(-1), read=False)
    return out


def pack_streams(backend: Backend, bits: NDArray[np.uint8], words: Any, read: bool) -> NDArray[np.uint64]:
    """Pack bits of shape (..., length) into a buffer of ``backend``; its content when ``read``, else nothing.

    ``length`` is at least 1. Refuses values that are neither 0 nor 1.
    """
    flat = bits.reshape(-1)
    length = bits.shape[-1]
    content = np.empty(0, np.uint64)
    for params, begin, end in pieces(flat.size // length, length, backend.largest_buffer):
        refused = backend.upload(np.zeros(1, np.uint32))
        step = Step("pack", params, (backend.upload(flat[begin:end]), words, refused))
        if read and end == flat.size:
            content, found = backend.execute([step], [words, refused])
        else:
            (found,) = backend.execute([step], [refused])
        if found[0]:
            arguments.require_bits(bits)
    return content


@lru_cache(maxsize=16)
def pieces(stream_count: int, length: int, most: int) -> tuple[Piece, ...]:
    """Parts of a tensor of streams whose single bits fit ``most`` bytes: whole streams, or words of one."""
    word_count = -(-length // 64)
    if stream_count * length <= most:
        return (_piece(length, 0, stream_count, 0, word_count),)
    if length <= most:
        step = most // length
        return tuple(
            _piece(length, stream, min(step, stream_count - stream), 0, word_count)
            for stream in range(0, stream_count, step)
        )
    step = most // 64
    return tuple(
        _piece(length, stream, 1, word, min(step, word_count - word))
        for stream in range(stream_count)
        for word in range(0, word_count, step)
    )


def _piece(length: int, stream: int, stream_count: int, word: int, word_count: int) -> Piece:
    """The piece of so many streams from ``stream``, and of so many words of each from ``word``."""
    bit_count = min(length - 64 * word, 64 * word_count)
    begin = stream * length + 64 * word
    params = {
        "stream_count": stream_count,
        "word_count": word_count,
        "tail_bits": bit_count - 64 * (word_count - 1),
        "first_word": stream * -(-length // 64) + word,
    }
    return params, begin, begin + stream_count * bit_count
