"""delay: bitstreams later by a number of bits, where they lie."""

from __future__ import annotations

from typing import Any

from scgpu.backend import Backend, Step


def delay(backend: Backend, words: Any, stream_count: int, length: int, cycles: int) -> Any:
    """A new buffer whose streams are ``cycles`` bits later: zeros come in, what passes ``length`` is lost."""
    word_count = -(-length // 64)
    result = backend.empty("u64", stream_count * word_count)
    if stream_count:
        params = {
            "stream_count": stream_count,
            "word_count": word_count,
            "tail_bits": length - 64 * (word_count - 1),
            "word_shift": cycles // 64,
            "bit_shift": cycles % 64,
        }
        backend.execute([Step("delay", params, (words, result))])
    return result
