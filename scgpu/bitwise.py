"""bitwise: AND, OR, XOR and NOT of bitstreams where they lie."""

from __future__ import annotations

from typing import Any, Literal

from scgpu._abi import OPS
from scgpu.backend import Backend, Step

BitOperation = Literal["bit_and", "bit_or", "bit_xor", "bit_not"]


def bitwise(
    backend: Backend,
    operation: BitOperation,
    left: Any,
    right: Any,
    stream_count: int,
    length: int,
) -> Any:
    """A new buffer with the result; NOT ignores ``right`` and clears the bits past ``length``."""
    word_count = -(-length // 64)
    result = backend.empty("u64", stream_count * word_count)
    if stream_count:
        params = {
            "operation": OPS["bitwise"].constants[operation],
            "stream_count": stream_count,
            "word_count": word_count,
            "tail_bits": length - 64 * (word_count - 1),
        }
        backend.execute([Step("bitwise", params, (left, right, result))])
    return result
