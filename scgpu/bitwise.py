"""bitwise: AND, OR, XOR and NOT of bitstreams where they lie."""

from __future__ import annotations

from typing import Any, Literal

from scgpu._abi import OPS
from scgpu.backend import Backend, Step

BitOperation = Literal["bit_and", "bit_or", "bit_xor", "bit_not"]


def bitwise_step(
    operation: BitOperation,
    left: Any,
    right: Any,
    result: Any,
    *,
    stream_count: int,
    length: int,
    source_word: int = 0,
    first_word: int = 0,
) -> Step:
    """The kernel call: words from ``source_word`` on of both operands make words from ``first_word`` on."""
    word_count = -(-length // 64)
    params = {
        "operation": OPS["bitwise"].constants[operation],
        "stream_count": stream_count,
        "word_count": word_count,
        "tail_bits": length - 64 * (word_count - 1),
        "source_word": source_word,
        "first_word": first_word,
    }
    return Step("bitwise", params, (left, right, result))


def bitwise(
    backend: Backend,
    operation: BitOperation,
    left: Any,
    right: Any,
    stream_count: int,
    length: int,
) -> Any:
    """A new buffer with the result; NOT ignores ``right`` and clears the bits past ``length``."""
    result = backend.empty("u64", stream_count * -(-length // 64))
    if stream_count:
        backend.execute([bitwise_step(operation, left, right, result, stream_count=stream_count, length=length)])
    return result
