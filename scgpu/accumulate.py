"""accumulate: accumulators that bitstreams are added to, where the streams lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scgpu._abi import MAX_TRIPS, PASS_STEPS
from scgpu.backend import Backend, Step
from scgpu.bitwise import bitwise_step
from scgpu.errors import TooLargeError

MOST_INPUTS = 1 << 15
LARGEST = 1 << 30
"""Largest number that an accumulator may hold: kernels add to it in 32 bits."""
STACK_BYTES = 1 << 26  # of inputs that are brought side by side for one call on a GPU
CACHED_BYTES = 1 << 21  # the same on the host, where they come from a cache again
WORD_TRIPS = 16  # of a GPU kernel for a word, besides those over its inputs


class Rule(NamedTuple):
    """What happens to a number at each time: it gets ``ones << shift``, less ``offset``.

    It is then cut to -``limit`` .. ``limit``, at most `LARGEST`, and gives off ``scale``, with a 1, where it reaches
    that.
    """

    shift: int
    offset: int
    scale: int
    limit: int


def accumulate(backend: Backend, inputs: Sequence[Any], stream_count: int, length: int, rule: Rule) -> Any:
    """A new buffer with the carries of ``stream_count`` sums, one stream from each of the buffers ``inputs``.

    Raises
    ------
    TooLargeError
        What does not fit the device, or has 2**32 words or more.
    """
    word_count = -(-length // 64)
    if stream_count * word_count > 2**32 - 1:
        raise TooLargeError(f"{stream_count} sums of {length} bits have 2**32 words or more; split the tensor")
    if (word_bytes := 8 * len(inputs)) > backend.largest_buffer:
        raise TooLargeError(
            f"a word of each of {len(inputs)} streams needs {word_bytes:,} bytes; a buffer of {backend.device} has "
            f"{backend.largest_buffer:,}"
        )
    result = backend.empty("u64", stream_count * word_count)
    # whole streams, or where not even one fits pieces of it
    most_bytes = STACK_BYTES if backend.device.kind == "gpu" else CACHED_BYTES
    room = min(most_bytes, backend.largest_buffer) // word_bytes
    at_once = min(max(1, room // word_count), max(1, stream_count))
    piece = min(word_count, max(1, room))
    stack = backend.empty("u64", len(inputs) * at_once * piece)
    for first in range(0, stream_count, at_once):
        count = min(at_once, stream_count - first)
        numbers = backend.upload(np.zeros(count, "<i4"))
        for begin in range(0, word_count, piece):
            words = min(piece, word_count - begin)
            place = first * word_count + begin
            steps = _copies(inputs, stack, count, words, place)
            bits = min(64 * words, length - 64 * begin)
            steps += _passes(backend, (stack, numbers, result), len(inputs), count, bits, rule, place)
            backend.execute(steps)
    return result


def accumulate_stack(backend: Backend, stack: Any, input_count: int, stream_count: int, length: int, rule: Rule) -> Any:
    """The same of inputs that lie one after the other in a buffer, ``stream_count`` streams of each."""
    result = backend.empty("u64", stream_count * -(-length // 64))
    if stream_count:
        numbers = backend.upload(np.zeros(stream_count, "<i4"))
        backend.execute(_passes(backend, (stack, numbers, result), input_count, stream_count, length, rule, 0))
    return result


def _copies(inputs: Sequence[Any], stack: Any, count: int, words: int, source_word: int) -> list[Step]:
    """The kernel calls that bring some words of some streams of each input side by side: AND with themselves."""
    return [
        bitwise_step(
            "bit_and",
            one,
            one,
            stack,
            stream_count=count,
            length=64 * words,
            source_word=source_word,
            first_word=place * count * words,
        )
        for place, one in enumerate(inputs)
    ]


def _passes(
    backend: Backend, buffers: tuple[Any, ...], input_count: int, count: int, length: int, rule: Rule, first_word: int
) -> list[Step]:
    """The kernel calls that go through streams of so many bits, each within the loop trips of an invocation."""
    word_count = -(-length // 64)
    most = word_count
    if backend.device.kind == "gpu":
        most = max(1, min(PASS_STEPS // 64, MAX_TRIPS // (input_count + WORD_TRIPS)))
    return [
        Step(
            "accumulate",
            {
                "stream_count": count,
                "word_count": word_count,
                "tail_bits": length - 64 * (word_count - 1),
                "word_begin": begin,
                "word_end": min(begin + most, word_count),
                "input_count": input_count,
                "input_stride": count,
                "first_word": first_word,
                **rule._asdict(),
            },
            buffers,
        )
        for begin in range(0, word_count, most)
    ]
