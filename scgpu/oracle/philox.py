"""philox: Philox4x32 (Salmon et al., SC'11), in 64-bit integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF = np.uint64(0xFFFF_FFFF), np.uint64(32)

Words = NDArray[np.uint64]


def rounds_of(counter: tuple[Words, ...], key: tuple[Words, ...], rounds: int) -> tuple[Words, ...]:
    """Philox rounds on the four words of a counter and the two of a key, as uint64 below 2**32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (
            (product1 >> HALF) ^ c1 ^ k0,
            product1 & LOW,
            (product0 >> HALF) ^ c3 ^ k1,
            product0 & LOW,
        )
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


def philox(
    counters: NDArray[np.uint32],
    keys: NDArray[np.uint32],
    words: NDArray[np.uint32],
    *,
    block_count: int,
    rounds: int,
) -> None:
    """words[4i:4i+4] = philox4x32(counters[4i:4i+4], keys[2i:2i+2])."""
    counter = counters[: 4 * block_count].reshape(-1, 4).astype(np.uint64).T
    key = keys[: 2 * block_count].reshape(-1, 2).astype(np.uint64).T
    out = rounds_of(tuple(counter), tuple(key), rounds)
    words[: 4 * block_count] = np.stack(out, axis=-1).reshape(-1).astype(np.uint32)
