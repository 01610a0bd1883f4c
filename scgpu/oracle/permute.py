"""permute: streams in the order that a network of exchanges gives them (contract, section Shared weight streams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK = 512


def permute(
    words: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    permuted: NDArray[np.uint64],
    *,
    sample_begin: int,
    sample_count: int,
    input_count: int,
    input_begin: int,
    input_end: int,
    length: int,
    width: int,
    index_bits: int,
) -> None:
    """permuted[s, i] = a stream after the stages of its input's network; it is that of sample ``sample_begin + s``."""
    word_count, mask_words = (length + 63) // 64, (index_bits + 8) * width // 64
    samples = words[: (sample_begin + sample_count) * input_count * word_count].reshape(-1, input_count, word_count)
    out = permuted[: sample_count * input_count * word_count].reshape(sample_count, input_count, word_count)
    for i in range(input_begin, input_end):
        stages = _stages(masks[(i - input_begin) * mask_words :][:mask_words], width)
        for s in range(sample_count):
            octets = np.ascontiguousarray(samples[sample_begin + s, i]).astype("<u8").view(np.uint8)
            bits = np.zeros(width, np.uint8)
            bits[: 64 * word_count] = np.unpackbits(octets, bitorder="little")
            for stride, lower in stages:
                bits[lower], bits[lower + stride] = bits[lower + stride], bits[lower]
            bits[length:] = 0
            out[s, i] = np.packbits(bits[: 64 * word_count], bitorder="little").view("<u8")


def _stages(masks: NDArray[np.uint64], width: int) -> list[tuple[int, NDArray[np.intp]]]:
    """Strides of the stages, with the lower bits of the pairs that they exchange."""
    bits = np.unpackbits(masks.astype("<u8").view(np.uint8), bitorder="little")
    p = np.arange(width)
    wide = [stride for stride in (width >> k for k in range(1, 14)) if stride >= CHUNK]
    narrow = [256, 128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    middle = len(wide) * width // 2
    stages = []
    for k, stride in enumerate(wide):
        stages.append((stride, p[(p & stride) == 0][bits[k * width // 2 :][: width // 2] == 1]))
    for k, stride in enumerate(narrow):
        chosen = bits[middle:][: 17 * width].reshape(-1, 17, CHUNK)[:, k].reshape(-1) == 1
        stages.append((stride, p[chosen & ((p & stride) == 0)]))
    for k, stride in enumerate(reversed(wide)):
        begin = middle + 17 * width + k * width // 2
        stages.append((stride, p[(p & stride) == 0][bits[begin:][: width // 2] == 1]))
    return stages
