"""count: ones of each bitstream, by segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count(
    words: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    *,
    stream_count: int,
    word_count: int,
    segment_words: int,
    segment_count: int,
) -> None:
    """counts[stream, segment] = ones in that segment's words."""
    streams = words[: stream_count * word_count].reshape(stream_count, word_count)
    out = counts[: stream_count * segment_count].reshape(stream_count, segment_count)
    for segment in range(segment_count):
        part = streams[:, segment * segment_words : (segment + 1) * segment_words]
        out[:, segment] = np.bitwise_count(part).sum(axis=1, dtype=np.int64)
