"""permute: input streams in the order of a comparator sequence, by networks of exchanges.

A Benes network puts 2**k bits in any order in 2 k - 1 stages, of which each exchanges bits whose positions differ
in one place: some instructions for a register full of bits, where looking them up takes some for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _cpu
from scgpu._abi import INDEX_BITS
from scgpu.backend import Device, Step

CHUNK = 512  # bits that a network exchanges within itself before it goes on
STRIDES = (256, 128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128, 256)
# The narrowest network takes as long as looking so many bits up.
LEAST = 128
LONGEST = 1 << INDEX_BITS[-1]


def ordered_by_network(device: Device, length: int) -> bool:
    """Whether streams of a length are put in order by networks on a device, and not by looking their bits up."""
    return device.kind == "cpu" and LEAST <= length <= LONGEST


def index_bits_of(length: int) -> int:
    """Places of the positions in the narrowest network that takes streams of a length."""
    return max(INDEX_BITS[0], (length - 1).bit_length())


def mask_words(length: int) -> int:
    """Words of the masks of one input."""
    index_bits = index_bits_of(length)
    return (index_bits + 8) << index_bits - 6


def networks(order: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Masks of the networks that put streams in orders (n_inputs, length), as the operation takes them."""
    masks = np.empty(len(order) * mask_words(order.shape[1]), np.uint64)
    _cpu.route(np.ascontiguousarray(order), index_bits_of(order.shape[1]), masks)
    return masks


def permute_step(
    words: Any,
    masks: Any,
    permuted: Any,
    *,
    sample_begin: int,
    sample_count: int,
    input_count: int,
    input_begin: int,
    input_end: int,
    length: int,
) -> Step:
    """The kernel call that puts streams (sample, input, word) of a range of samples and inputs in their order."""
    index_bits = index_bits_of(length)
    params = {
        "sample_begin": sample_begin,
        "sample_count": sample_count,
        "input_count": input_count,
        "input_begin": input_begin,
        "input_end": input_end,
        "length": length,
        "width": 1 << index_bits,
        "index_bits": index_bits,
    }
    return Step("permute", params, (words, masks, permuted))
