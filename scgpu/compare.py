"""compare: streams from sequences of numbers that lie in memory (the generators of `scgpu.sng`)."""

from __future__ import annotations

from typing import Any

from scgpu.backend import Step

LONGEST_PERIOD = 1 << 24
"""Numbers that a sequence may have: kernels find places in it with 32 bits."""


def compare_step(
    thresholds: Any,
    places: Any,
    sequences: Any,
    words: Any,
    *,
    sample_count: int,
    stream_count: int,
    length: int,
    period: int,
    sequence_count: int,
    place_stride: int,
    threshold_offset: int = 0,
) -> Step:
    """The kernel call that turns thresholds of (sample, stream) into words of (sample, stream, word).

    ``places`` holds a sequence and a phase below ``period`` for each stream, or with
    ``place_stride=0`` one for all of them; ``sequences`` holds rows of ``period`` numbers, at
    most `LONGEST_PERIOD`.
    """
    word_count = -(-length // 64)
    params = {
        "sample_count": sample_count,
        "stream_count": stream_count,
        "word_count": word_count,
        "tail_bits": length - 64 * (word_count - 1),
        "period": period,
        "sequence_count": sequence_count,
        "place_stride": place_stride,
        "threshold_offset": threshold_offset,
    }
    return Step("compare", params, (thresholds, places, sequences, words))
