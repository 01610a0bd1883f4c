"""Units of UnarySim over all their operands: multiplication, division, square root, ReLU.

The operands, the generators, their dimensions and what an error is are those of the notebooks under
``sw/test/kernel`` of UnarySim (github.com/diwu1990/UnarySim, 2020): values of 8 bits, streams of 256 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu.arguments import Polarity
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.conditional import conditional_layer
from scgpu.encode import encode
from scgpu.fsm import StateMachine, relu
from scgpu.pairs import pair_counts
from scgpu.sng import Numbers, NumberTable, sobol_directions, sobol_points

LENGTH = 256
DRAWN = 10_000  # pairs of operands that a notebook on multiplication draws
DIMENSIONS = 100  # those on other units go through the first hundred dimensions instead
LAST_DIMENSION = -1  # number 1111, the second operand of Gaines multiplication


class Measured(NamedTuple):
    """Root of the mean square error, and the standard error of an estimate of it from random operands."""

    rms: float
    sampling: float


def _torch_numbers(dimension: int, count: int = LENGTH) -> Numbers:
    """What torch's Sobol engine of 2020 draws: direction numbers of 2003, and not the point 0."""
    return sobol_points(sobol_directions("joe_kuo_2003.txt")[dimension], count + 1)[1:]


def _streams(levels: NDArray[np.int64], dimension: int, polarity: Polarity, device: str | int | Device) -> Bitstream:
    """Streams of so many 256ths, before rounding of the generator's own."""
    share = levels / LENGTH
    return encode(
        2 * share - 1 if polarity == "bipolar" else share,
        LENGTH,
        resolution=8,
        polarity=polarity,
        sng=NumberTable(_torch_numbers(dimension)),
        device=device,
    )


def multiplication(unit: str, polarity: Polarity, device: str | int | Device = "auto") -> Measured:
    """Products of all pairs of operands, weighted as random ones that are rounded to 256ths.

    ``unit`` is "uMUL" (both operands of dimension 1, the second static) or "Gaines" (AND or XNOR of
    dimensions 1 and 1111). An error is the result less the product, rounded to 256ths.
    """
    levels = np.arange(LENGTH + 1)
    if unit == "uMUL":
        operand = _streams(levels[:, None], 0, polarity, device)
        counts = conditional_layer(operand, operand).astype(np.int64)
    else:
        a, b = (_streams(levels, dimension, polarity, device) for dimension in (0, LAST_DIMENSION))
        counts = pair_counts(a, b)
        if polarity == "bipolar":
            counts = LENGTH - a.count().astype(np.int64)[:, None] - b.count().astype(np.int64) + 2 * counts
    values = np.arange(-LENGTH if polarity == "bipolar" else 0, LENGTH + 1) / LENGTH
    results = counts / LENGTH
    if polarity == "bipolar":  # 513 values, but 257 streams
        source = np.rint((values + 1) / 2 * LENGTH).astype(np.int64)
        results = 2 * results[np.ix_(source, source)] - 1
    weights = np.full(values.size, 1 / (values.size - 1))
    weights[[0, -1]] /= 2
    squares = np.square(results - np.rint(np.outer(values, values) * LENGTH) / LENGTH)
    mean = float(weights @ squares @ weights)
    variance = float(weights @ np.square(squares - mean) @ weights)
    return Measured(math.sqrt(mean), math.sqrt(variance / DRAWN / mean) / 2)


def _over_dimensions(errors_of: Callable[[int], NDArray[np.float64]]) -> float:
    return math.sqrt(np.mean([np.square(errors_of(dimension)).mean() for dimension in range(DIMENSIONS)]))


def relu_counter(device: str | int | Device = "auto") -> float:
    """ReLU with a counter of 5 bits, of the 257 bipolar values: root of the mean square error."""
    levels = np.arange(LENGTH + 1)
    expected = np.maximum(2 * levels / LENGTH - 1, 0)
    return _over_dimensions(lambda d: relu(_streams(levels, d, "bipolar", device), 5).value() - expected)


@cache
def _root_with_flip_flop() -> StateMachine:
    """Square root by bits inserted from a JK flip-flop with the result at J and 1 at K."""
    trace, x = np.indices((2, 2))
    root = x | trace
    return StateMachine(root & ~trace, root)


@cache
def _root_with_division() -> StateMachine:
    """Square root by bits inserted from y / (1 + y), divided by a kernel that keeps one bit."""
    state, x = np.indices((8, 2))
    trace, odd, kept = state & 1, state >> 1 & 1, state >> 2
    root = x | trace
    quotient = np.where(odd | root, ~odd & root & 1, kept)
    return StateMachine(quotient | (1 - odd) << 1 | quotient << 2, root)


def root(unit: str, device: str | int | Device = "auto") -> float:
    """Square root of the 257 unipolar values by "JK" or "plain" bit insertion: root of the mean square error."""
    machine = _root_with_flip_flop() if unit == "JK" else _root_with_division()
    levels = np.arange(LENGTH + 1)
    expected = np.sqrt(levels / LENGTH)
    return _over_dimensions(lambda d: machine.run(_streams(levels, d, "unipolar", device))[0].value() - expected)


def _ticks(dimension: int, bits: int) -> NDArray[np.int64]:
    """Numbers of few bits for the times 0 .. 2**bits - 1, after which they begin again."""
    return (_torch_numbers(dimension, 1 << bits) >> np.uint32(32 - bits)).astype(np.int64)


@cache
def _in_stream_division() -> StateMachine:
    """CORDIV that keeps two bits, behind a skewed synchroniser of 2 bits."""
    state, symbol = np.indices((32, 4))
    x, y = symbol & 1, symbol >> 1
    ahead, newest, oldest, time = state >> 3, state >> 2 & 1, state >> 1 & 1, state & 1
    alone = x ^ y
    paired = np.where(alone, np.where(x, ahead == 3, ahead != 0), x)
    held = np.where(alone, np.clip(ahead + 2 * x - 1, 0, 3), ahead)
    recalled = np.where(_ticks(3, 1)[time], newest, oldest)
    quotient = np.where(y, paired, recalled)
    kept = np.where(y, quotient << 2 | newest << 1, newest << 2 | oldest << 1)
    return StateMachine(held << 3 | kept | 1 - time, quotient, initial=4)


@cache
def _gaines_division() -> StateMachine:
    """A counter of 5 bits, raised by the dividend and lowered by the product of quotient and divisor."""
    state, symbol = np.indices((1024, 4))
    x, y = symbol & 1, symbol >> 1
    count, time = state >> 5, state & 31
    quotient = (count > _ticks(1, 5)[time]).astype(np.int64)
    counted = np.clip(count + x - (quotient & y), 0, 31)
    return StateMachine(counted << 5 | (time + 1) & 31, quotient, initial=16 << 5)


def division(unit: str, device: str | int | Device = "auto") -> float:
    """Quotients of all unipolar x and y > 0, cut at 1, by "CORDIV" or "Gaines": root of the mean square error."""
    machine = _in_stream_division() if unit == "CORDIV" else _gaines_division()
    x, y = (grid.reshape(-1) for grid in np.meshgrid(np.arange(LENGTH + 1), np.arange(1, LENGTH + 1)))
    expected = np.minimum(x / y, 1)

    def errors(dimension: int) -> NDArray[np.float64]:
        operands = (_streams(levels, dimension + k, "unipolar", device) for k, levels in enumerate((x, y)))
        return machine.run(*operands)[0].value() - expected

    return _over_dimensions(errors)
