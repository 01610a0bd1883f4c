"""philox: the random words that every stream is made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Device, Step
from scgpu.devices import backend_for


def philox4x32(
    counter: ArrayLike, key: ArrayLike, rounds: int = 10, device: str | int | Device = "auto"
) -> NDArray[np.uint32]:
    """Philox4x32 counter-based random words.

    Parameters
    ----------
    counter : array_like of int, shape (..., 4)
        Counters, each word in [0, 2**32).
    key : array_like of int, shape (..., 2)
        Keys; the leading shape is broadcast against that of ``counter``.
    rounds : int
        1 to 16; the contract uses 10.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint32, shape (..., 4)

    Raises
    ------
    ValueError
        Wrong shape, word or rounds.
    TypeError
        Something that is not integers.

    References
    ----------
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC'11.

    Examples
    --------
    >>> import scgpu
    >>> [hex(word) for word in scgpu.philox4x32([0, 0, 0, 0], [0, 0], device="cpu")]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    counters = arguments.words32("counter", counter, 4)
    keys = arguments.words32("key", key, 2)
    rounds = arguments.integer("rounds", rounds, 1, 16)
    try:
        shape = np.broadcast_shapes(counters.shape[:-1], keys.shape[:-1])
    except ValueError:
        raise ValueError(
            f"counter and key must have leading shapes that broadcast; got {counters.shape} and {keys.shape}"
        ) from None
    backend = backend_for(device)
    block_count = int(np.prod(shape, dtype=np.int64))
    if block_count == 0:
        return np.empty((*shape, 4), np.uint32)
    arguments.integer("number of counters", block_count, 1, 2**30 - 1)
    words = backend.empty("u32", 4 * block_count)
    buffers = (
        backend.upload(np.broadcast_to(counters, (*shape, 4))),
        backend.upload(np.broadcast_to(keys, (*shape, 2))),
        words,
    )
    step = Step("philox", {"block_count": block_count, "rounds": rounds}, buffers)
    (out,) = backend.execute([step], [words])
    return out.reshape(*shape, 4).astype(np.uint32, copy=False)
