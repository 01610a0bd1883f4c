"""prefix: ones of input streams among the first positions of a comparator sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu.backend import Step


def rows32(values: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.uint32], int]:
    """Rows of 16-bit or 32-bit numbers as flat u32 elements, and how many of them a row has."""
    rows, columns = values.shape
    stride = -(-columns * values.dtype.itemsize // 4)
    padded = np.zeros((rows, stride * 4 // values.dtype.itemsize), values.dtype)
    padded[:, :columns] = values
    return padded.view("<u4").reshape(-1), stride


def entry_count(length: int) -> int:
    """Entries of a stream: each holds 32 positions, and the last one is never full."""
    return length // 32 + 1


def prefix_step(
    words: Any,
    order: Any,
    entries: Any,
    *,
    sample_begin: int,
    sample_count: int,
    input_count: int,
    input_begin: int,
    input_end: int,
    length: int,
    order_bits: int,
    order_stride: int,
) -> Step:
    """The kernel call that makes entries (sample, input, entry) for a range of samples and inputs."""
    params = {
        "sample_begin": sample_begin,
        "sample_count": sample_count,
        "input_count": input_count,
        "input_begin": input_begin,
        "input_end": input_end,
        "length": length,
        "order_bits": order_bits,
        "order_stride": order_stride,
    }
    return Step("prefix", params, (words, order, entries))
