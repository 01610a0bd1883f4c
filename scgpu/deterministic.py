"""Deterministic stochastic computing: streams of which every pair of bits meets exactly once.

D. Jenson, M. Riedel: A deterministic approach to stochastic computation. ICCAD 2016. M. H. Najafi, S. Jamali-Zavareh,
D. J. Lilja, M. D. Riedel, K. Bazargan, R. Harjani: Time-encoded values for highly efficient stochastic
circuits. IEEE Transactions on VLSI Systems 25 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.compare import LONGEST_PERIOD
from scgpu.encode import encode
from scgpu.sng import NumberTable

Method = Literal["relatively_prime", "rotation", "clock_division"]
METHODS: tuple[Method, ...] = ("relatively_prime", "rotation", "clock_division")


def unary_periods(count: int, resolution: int, method: Method = "relatively_prime") -> tuple[int, ...]:
    """Positions of the unary number of each operand, N_k: their product is the length of the streams.

    Parameters
    ----------
    count : int
        Operands, 1 or more.
    resolution : int
        Bits R of an operand, 1 to 24. N_k is 2**R, and for ``"relatively_prime"`` the greatest number up to
        2**R that has no factor in common with those before it.
    method : {"relatively_prime", "rotation", "clock_division"}
        See `exact_operands`.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        When the streams would have more than 2**24 bits, or there are no such numbers.
    """
    arguments.integer("count", count, 1, 24)
    arguments.integer("resolution", resolution, 1, 24)
    arguments.choice("method", method, METHODS)
    periods: list[int] = []
    for _ in range(count):
        period = 1 << resolution
        if method == "relatively_prime":
            while period > 1 and any(math.gcd(period, other) > 1 for other in periods):
                period -= 1
            if period == 1:
                raise ValueError(
                    f"resolution must be higher for {count} operands: up to {1 << resolution} there are only "
                    f"{len(periods)} relatively prime numbers"
                )
        periods.append(period)
    if (length := math.prod(periods)) > LONGEST_PERIOD:
        raise ValueError(
            f"resolution={resolution} makes {count} operands of {length} bits; at most {LONGEST_PERIOD}: "
            "use a lower resolution or fewer operands"
        )
    return tuple(periods)


def _positions(operand: int, periods: tuple[int, ...], method: Method) -> NDArray[np.int64]:
    """Position in the operand's unary number at each bit, as many as repeat."""
    period = periods[operand]
    if operand == 0 or method == "relatively_prime":
        return np.arange(period)
    slow = np.arange(math.prod(periods[: operand + 1])) // math.prod(periods[:operand])
    return slow if method == "clock_division" else (np.arange(slow.size) + slow) % period


def exact_operands(
    operands: Sequence[ArrayLike],
    resolution: int,
    method: Method = "relatively_prime",
    *,
    polarity: Polarity = "unipolar",
    device: str | int | Device = "auto",
) -> list[Bitstream]:
    """Streams whose products (AND, or XNOR for bipolar ones) are exact.

    Operand k becomes r_k ones at the first of N_k positions, r_k = floor(p N_k + 1/2), and these positions
    are gone through so that each combination of positions of all operands turns up once in
    L = N_0 N_1 ... bits. So the AND of all has exactly r_0 r_1 ... ones.

    Parameters
    ----------
    operands : sequence of array_like, each of shape (n,) or (batch, n)
        Numbers in [0, 1], or in [-1, 1] for bipolar streams (p is then (v + 1) / 2).
    resolution : int
        Bits of an operand; see `unary_periods`, which says what N_k and so L are. L is at most 2**24.
    method : {"relatively_prime", "rotation", "clock_division"}
        The position of operand k at bit t: t mod N_k, where no two N_k have a common factor; with all
        N_k = N, (t + floor(t / N**k)) mod N for k > 0; or floor(t / N**k) mod N. That of operand 0 is t mod N.
    polarity : {"unipolar", "bipolar"}
        What the streams stand for.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    list of Bitstream
        One for each operand, of its shape.

    Raises
    ------
    ValueError
        A value out of range, no operands, or streams of more than 2**24 bits.
    TypeError
        Something that is not numbers.

    Examples
    --------
    >>> import scgpu
    >>> a, b = scgpu.exact_operands([[0.25, 0.5], [0.75, 0.125]], 3, "rotation", device="cpu")
    >>> (a & b).count().tolist(), a.length  # 2 * 6 and 4 * 1 of 64
    ([12, 4], 64)
    """
    polarity = arguments.polarity_of(polarity)
    operands = arguments.listed("operands", operands, "arrays")
    if not operands:
        raise ValueError("operands must hold one array or more; got none")
    periods = unary_periods(len(operands), resolution, method)
    length = math.prod(periods)
    streams = []
    for operand, (values, period) in enumerate(zip(operands, periods, strict=True)):
        floats = arguments.values(f"operands[{operand}]", values, polarity)
        if floats.ndim not in (1, 2):
            raise ValueError(f"operands[{operand}] must have shape (n,) or (batch, n); got {floats.shape}")
        p = (floats + 1.0) / 2.0 if polarity == "bipolar" else floats
        rank = np.floor(p * period + 0.5)
        # position j has the number floor(j 2**32 / N): halfway between two of them the comparator is sure
        shares = np.where(rank < period, np.maximum(rank - 0.5, 0.0) / period, 1.0)
        ramp = ((np.arange(period, dtype=np.uint64) << np.uint64(32)) // np.uint64(period)).astype(np.uint32)
        table = NumberTable(ramp[_positions(operand, periods, method)])
        numbers = 2.0 * shares - 1.0 if polarity == "bipolar" else shares
        streams.append(encode(numbers, length, polarity=polarity, sng=table, device=device))
    return streams
