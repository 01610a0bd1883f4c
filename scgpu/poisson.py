"""poisson: Poisson-distributed background input of a population of neurons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import Step
from scgpu.encode import domain_of

LEAST_MEAN = 2.0**-32  # the smallest probability of a number above 0 that a threshold of 32 bits can say
LARGEST_MEAN = 1000.0

# All of it is said here, because what a program sets for its own decimals must not change a bit.
_DIGITS = Context(
    prec=50, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, capitals=1, clamp=0, flags=[], traps=[]
)


class Neurons(Protocol):
    """What has neurons: a population."""

    @property
    def count(self) -> int:
        """Number of neurons."""
        ...


def poisson_thresholds(mean: float) -> NDArray[np.uint32]:
    """Entries e = 0, 1, ...: floor(2**32 P(X <= e) + 1/2), as far as they are below 2**32.

    A draw of 32 bits becomes the number of entries that it reaches.
    """
    exact = Decimal.from_float(mean)
    term = total = _DIGITS.exp(_DIGITS.minus(exact))
    entries: list[int] = []
    # half a threshold's unit is added before the floor: one rounding, the same on every platform
    while (entry := math.floor(_DIGITS.fma(total, Decimal(2**32), Decimal("0.5")))) < 2**32:
        entries.append(entry)
        term = _DIGITS.divide(_DIGITS.multiply(term, exact), Decimal(len(entries)))
        total = _DIGITS.add(total, term)
    return np.array(entries, "<u4")


@dataclass(frozen=True)
class PoissonInput:
    """Poisson-distributed input: every neuron of a population gets it in every step, independently.

    In step t a neuron receives ``weight`` times a number X of mean ``mean``: as many spikes as reach
    it, in that step, from a large background that is not simulated. X is found from 32 bits of
    Philox4x32-10 by the inverse of its distribution, in integers, so it is the same on every device.

    Attributes
    ----------
    target : Population
        Who receives it.
    mean : float
        Mean of the number in each step, from 2**-32 to 1000. For a rate it is the rate times the
        duration of a step. Probabilities are multiples of 2**-32.
    weight : int
        What one background spike adds to the current, -32768 to 32767.
    seed : int
        0 to 2**64 - 1.
    tensor_id : int
        0 to 2**24 - 1. Two inputs of one seed must differ in it: else their numbers are the same.

    Raises
    ------
    ValueError
        A number out of range.
    TypeError
        Something that is no number, or has no neurons.
    """

    target: Neurons
    mean: float
    weight: int
    seed: int = 0
    tensor_id: int = 0

    def __post_init__(self) -> None:
        count = getattr(self.target, "count", None)
        if isinstance(count, bool) or not isinstance(count, int):
            found = f"{arguments.shown(self.target)} of type {type(self.target).__name__}"
            raise TypeError(f"target must be a Population; got {found}")
        mean = arguments.real("mean", self.mean)
        if not LEAST_MEAN <= mean <= LARGEST_MEAN:  # a NaN is in no range
            raise ValueError(
                f"mean must be from 2**-32 to {LARGEST_MEAN:g} in each step; got {mean}. "
                "For a larger one use several inputs of different tensor_id, for none leave the input away."
            )
        integers = {
            "weight": arguments.integer("weight", self.weight, -(2**15), 2**15 - 1),
            "seed": arguments.seed_of(self.seed),
            "tensor_id": arguments.integer("tensor_id", self.tensor_id, 0, 2**24 - 1),
        }
        for name, value in {"mean": mean, **integers}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def thresholds(self) -> NDArray[np.uint32]:
        """The entries that a draw is compared with, ascending: `poisson_thresholds` of the mean."""
        entries = poisson_thresholds(self.mean)
        entries.flags.writeable = False
        return entries


def poisson_step(
    source: PoissonInput,
    clock: Any,
    thresholds: Any,
    inbox: Any,
    *,
    slot_count: int,
    step_offset: int,
    step_count: int,
) -> Step:
    """The kernel call that adds an input to the inbox of its target.

    The steps are ``clock[0] + step_offset`` and the ``step_count - 1`` after it, ``thresholds`` holds
    ``source.thresholds``, and ``inbox`` has ``slot_count`` rows, each with a number for every neuron.
    """
    count = source.target.count
    params = {
        "neuron_count": count,
        "block_begin": 0,
        "block_end": -(-count // 4),
        "step_offset": step_offset,
        "step_count": step_count,
        "slot_count": slot_count,
        "domain": domain_of("noise", source.tensor_id),
        "key_lo": source.seed & 0xFFFF_FFFF,
        "key_hi": source.seed >> 32,
        "weight": source.weight & 0xFFFF_FFFF,
        "entry_count": source.thresholds.size,
    }
    return Step("poisson", params, (clock, thresholds, inbox))
