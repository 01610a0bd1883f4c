"""unpack: bitstream words into single bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import DTYPES, Backend, Device, Step, require_host_memory
from scgpu.devices import backend_for
from scgpu.pack import pieces


def unpack(
    words: NDArray[np.uint64],
    length: int,
    *,
    out: NDArray[np.uint8] | None = None,
    device: str | int | Device = "cpu",
) -> NDArray[np.uint8]:
    """Single bits of bitstream words: the reverse of `pack`.

    Parameters
    ----------
    words : ndarray of uint64, shape (..., W)
        W is ``ceil(length / 64)``; bits past ``length`` are not looked at.
    length : int
        Bits of each stream, 0 to 2**34 - 64.
    out : ndarray of uint8, shape (..., length), optional
        Where to put the bits: C-contiguous, apart from ``words``. Memory that was used before is
        faster than new memory, twice as fast from about 32 MiB up.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint8, shape (..., length)
        0 and 1, in stream order. ``out`` itself where it is given.

    Raises
    ------
    ValueError
        Wrong number of words, or an ``out`` of another shape or layout.
    TypeError
        ``words`` is not an array of uint64, or ``out`` not one of uint8.
    TooLargeError
        The bits do not fit the memory of the machine, or the words that of the device.

    Examples
    --------
    >>> import numpy as np
    >>> import scgpu
    >>> scgpu.unpack(np.array([11], np.uint64), 6).tolist()
    [1, 1, 0, 1, 0, 0]
    """
    length = arguments.integer("length", length, 0, arguments.LONGEST)
    array = arguments.streams(words, length)
    shape = (*array.shape[:-1], length)
    flat = None
    if out is not None:
        arguments.output(out, shape, DTYPES["u8"], array)
        flat = out.reshape(-1)
    else:
        require_host_memory(math.prod(shape))
    backend = backend_for(device)
    buffer = backend.upload(np.ascontiguousarray(array, DTYPES["u64"]))
    bits = unpack_streams(backend, buffer, math.prod(array.shape[:-1]), length, flat)
    return bits.reshape(shape) if out is None else out


def unpack_streams(
    backend: Backend, words: Any, stream_count: int, length: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The bits, in one row, of streams whose words lie in a buffer of ``backend``; in ``out`` where it is given."""
    if stream_count * length == 0:
        return np.empty(0, np.uint8)
    parts = pieces(stream_count, length, backend.largest_buffer)
    if out is None and len(parts) > 1:
        require_host_memory(stream_count * length)
        out = np.empty(stream_count * length, np.uint8)
    for params, begin, end in parts:
        bits = out[begin:end] if out is not None and backend.host_arrays else backend.empty("u8", end - begin)
        (part,) = backend.execute([Step("unpack", params, (words, bits))], [bits])
        if out is None:
            return part
        if not backend.host_arrays:
            out[begin:end] = part
    assert out is not None
    return out
