"""count: ones of each bitstream of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu._abi import PASS_WORDS
from scgpu.backend import Backend, Step


def count(backend: Backend, words: Any, stream_count: int, word_count: int) -> NDArray[np.uint64]:
    """Ones of each of ``stream_count`` streams of ``word_count`` words in a buffer of ``backend``.

    Long streams are counted by segments, so that no partial count passes 32 bits.
    """
    if stream_count == 0:
        return np.empty(0, np.uint64)
    segment_count = -(-word_count // PASS_WORDS)
    counts = backend.empty("u32", stream_count * segment_count)
    params = {
        "stream_count": stream_count,
        "word_count": word_count,
        "segment_words": min(word_count, PASS_WORDS),
        "segment_count": segment_count,
    }
    (out,) = backend.execute([Step("count", params, (words, counts))], [counts])
    ones: NDArray[np.uint64] = out.reshape(stream_count, segment_count).sum(axis=1, dtype=np.uint64)
    return ones
