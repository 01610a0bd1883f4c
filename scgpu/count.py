"""count: ones of each bitstream of a tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import DTYPES, Backend, Device, Step
from scgpu.devices import backend_for

# Words of a stream that are counted together. Streams that are longer give work to more threads,
# or workgroups, than there are streams, and no partial count passes 32 bits.
SEGMENT_WORDS = 1 << 16


def popcount(words: NDArray[np.uint64], *, device: str | int | Device = "cpu") -> NDArray[np.uint64]:
    """Ones of each bitstream, that is along the last axis.

    Parameters
    ----------
    words : ndarray of uint64, shape (..., W)
        Packed words.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (...)
        For one stream, ``words`` of shape (W,), a scalar of uint64.

    Raises
    ------
    TypeError
        ``words`` is not an array of uint64.
    ValueError
        ``words`` is a single word without an axis.
    TooLargeError
        The words do not fit the memory of the device.

    Examples
    --------
    >>> import numpy as np
    >>> import scgpu
    >>> scgpu.popcount(np.array([[7, 1], [0, 0]], np.uint64)).tolist()
    [4, 0]
    """
    array = arguments.words64(words)
    shape = array.shape[:-1]
    backend = backend_for(device)
    buffer = backend.upload(np.ascontiguousarray(array, DTYPES["u64"]))
    return count(backend, buffer, math.prod(shape), array.shape[-1]).reshape(shape)[()]


def count(backend: Backend, words: Any, stream_count: int, word_count: int) -> NDArray[np.uint64]:
    """Ones of each of ``stream_count`` streams of ``word_count`` words in a buffer of ``backend``."""
    if stream_count == 0 or word_count == 0:
        return np.zeros(stream_count, np.uint64)
    segment_count = -(-word_count // SEGMENT_WORDS)
    counts = backend.empty("u32", stream_count * segment_count)
    params = {
        "stream_count": stream_count,
        "word_count": word_count,
        "segment_words": min(word_count, SEGMENT_WORDS),
        "segment_count": segment_count,
    }
    (out,) = backend.execute([Step("count", params, (words, counts))], [counts])
    if segment_count == 1:
        return out.astype(np.uint64)
    ones: NDArray[np.uint64] = np.add.reduce(out.reshape(stream_count, segment_count), axis=1, dtype=np.uint64)
    return ones
