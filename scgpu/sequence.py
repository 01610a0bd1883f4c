"""Comparator sequences: the numbers U_i(t) that all neurons' weights of an input column share.

One random source per column is what stochastic hardware has. A weight's stream is then known
by its rank alone, the number of ones in it (contract, section Shared weight streams).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scgpu.backend import Device
from scgpu.devices import backend_for
from scgpu.encode import domain_of
from scgpu.philox import philox4x32

SequenceName = Literal["philox", "ramp"]
SEQUENCES: tuple[SequenceName, ...] = ("philox", "ramp")

ALWAYS = 0xFFFF_FFFF
NUMBERS_AT_ONCE = 1 << 20  # 4 MiB of them, and as much of each intermediate


def _transposed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Transpose each 32 x 32 bit matrix of an array (n, 32), bit c of element r being entry (r, c).

    Warren: Hacker's Delight, section 7-3: blocks of halving size change places.
    """
    out = bits.copy()
    mask = 0xFFFF
    width = 16
    while width:
        pairs = out.reshape(-1, 16 // width, 2, width)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        moved = (upper >> np.uint32(width) ^ lower) & np.uint32(mask)
        lower ^= moved
        upper ^= moved << np.uint32(width)
        width //= 2
        mask ^= mask << width
    return out


def philox_numbers(
    first: int, count: int, length: int, seed: int, tensor_id: int, device: Device
) -> NDArray[np.uint32]:
    """Numbers U_i(t) of the weight streams ``first .. first + count``, shape (count, length)."""
    word_count = -(-length // 32)
    counter = np.zeros((count, word_count, 8, 4), np.uint32)
    counter[..., 0] = np.arange(8 * word_count, dtype=np.uint32).reshape(word_count, 8)
    counter[..., 1] = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32)[:, None, None]
    counter[..., 3] = domain_of("weight", tensor_id)
    draws = philox4x32(counter, [seed & 0xFFFF_FFFF, seed >> 32], device=device).reshape(-1, 32)
    # bit l of draw k is bit 31 - k of U[l]
    numbers = _transposed(draws[:, ::-1])
    return numbers.reshape(count, 32 * word_count)[:, :length]


@dataclass(frozen=True)
class Ranked:
    """Weights as ranks in their column's sequence.

    Attributes
    ----------
    order : ndarray (n_inputs, length) or None
        Positions by rising U_i, uint16 or uint32; None where that is 0, 1, 2, ...
    ranks : ndarray (n_inputs, n_neurons)
        Ones of each weight's stream, uint16 or uint32: W[n, i] is 1 at the first ``ranks[i, n]``
        positions of ``order[i]``.
    """

    order: NDArray[np.unsignedinteger] | None
    ranks: NDArray[np.unsignedinteger]


def ranked(
    thresholds: NDArray[np.uint32], length: int, sequence: SequenceName, seed: int, tensor_id: int, device: Device
) -> Ranked:
    """Ranks of thresholds (n_neurons, n_inputs) in the sequences of their columns."""
    small = np.dtype("<u2") if length <= 0xFFFF else np.dtype("<u4")
    n_neurons, n_inputs = thresholds.shape
    columns = thresholds.T
    if sequence == "ramp":
        # floor(t 2**32 / L) < T holds for the first ceil(T L / 2**32) positions t
        ones = (columns.astype(np.uint64) * np.uint64(length) + np.uint64(ALWAYS)) >> np.uint64(32)
        return Ranked(None, np.where(columns == ALWAYS, length, ones).astype(small))
    order = np.empty((n_inputs, length), small)
    ranks = np.empty((n_inputs, n_neurons), small)
    column_bytes = 128 * -(-length // 32)  # counters of eight blocks for each 32-bit word
    at_once = max(1, min(NUMBERS_AT_ONCE // length, backend_for(device).largest_buffer // column_bytes))
    for first in range(0, n_inputs, at_once):
        numbers = philox_numbers(first, min(at_once, n_inputs - first), length, seed, tensor_id, device)
        for i, row in enumerate(numbers, first):
            order[i] = by_number = np.argsort(row, kind="stable")
            ranks[i] = np.searchsorted(row[by_number], columns[i])
    ranks[columns == ALWAYS] = length
    return Ranked(order, ranks)
