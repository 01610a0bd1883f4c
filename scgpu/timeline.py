"""How the steps of a run are cut: into segments of one submission each, and these into intervals.

Kernels advance every neuron by a whole interval, so an interval is no longer than the shortest delay: no
spike of it can arrive within it. It lies within the 64 steps of one word. No result depends on the cuts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

BLOCK_STEPS = 64  # steps of a word of spikes


class Interval(NamedTuple):
    """Steps that kernels run at once: their offset in the segment, their number, and where their bits are."""

    offset: int
    steps: int
    block: int
    first_bit: int


def interval_steps(shortest_delay: int) -> int:
    """Steps of an interval: equal parts of a block, none longer than the shortest delay."""
    return -(-BLOCK_STEPS // -(-BLOCK_STEPS // min(shortest_delay, BLOCK_STEPS)))


def block_count(phase: int, steps: int) -> int:
    """Blocks that ``steps`` steps touch, of which the first is step ``phase`` of a block."""
    return -(-(phase + steps) // BLOCK_STEPS)


def intervals(phase: int, steps: int, longest: int) -> Iterator[Interval]:
    """The intervals of a segment that begins at step ``phase`` of a block."""
    begin = phase
    while begin < phase + steps:
        block, bit = divmod(begin, BLOCK_STEPS)
        here = min(longest, BLOCK_STEPS - bit, phase + steps - begin)
        yield Interval(begin - phase, here, block, bit)
        begin += here


def segment_steps(step: int, left: int, blocks: int) -> int:
    """Steps of the next segment: to the end of a block, at most ``blocks`` of them."""
    return min(BLOCK_STEPS * blocks - step % BLOCK_STEPS, left)
