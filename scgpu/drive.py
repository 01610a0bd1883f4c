"""drive: what comes into the neurons of a population in some steps, and the currents from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scgpu import arguments
from scgpu.backend import Step
from scgpu.population import Population


def _population(name: str, value: Any) -> Population:
    """A population, or an error that says what was given instead."""
    if not isinstance(value, Population):
        raise TypeError(f"{name} must be a Population; got {type(value).__name__}")
    return value


class ConstantCurrent:
    """The same current into a neuron in every step.

    Parameters
    ----------
    target : Population
        Who gets it.
    value : int or array_like of int, shape (n,)
        The current, or one for each neuron; -32768 to 32767. Several of a population add up, within
        the same range.

    Raises
    ------
    ValueError
        A wrong shape or a number out of range.
    TypeError
        Something that is no integer, or a target that is no population.
    """

    def __init__(self, target: Population, value: ArrayLike) -> None:
        self.target = _population("target", target)
        self.values = arguments.integers16("value", value).copy()
        if self.values.shape not in ((), (target.count,)):
            raise ValueError(f"value must be a number or have shape ({target.count},); got {self.values.shape}")


class CurrentArray:
    """A current that is given for every step, and 0 after the last one.

    Parameters
    ----------
    target : Population
        Who gets it.
    values : array_like of int, shape (steps,) or (n, steps)
        The current of every step from step 0 of the network on, for all neurons or for each;
        -32768 to 32767.

    Raises
    ------
    ValueError
        A wrong shape or a number out of range.
    TypeError
        Something that is no integer, or a target that is no population.
    """

    def __init__(self, target: Population, values: ArrayLike) -> None:
        self.target = _population("target", target)
        self.values = arguments.integers16("values", values).copy()
        if self.values.ndim not in (1, 2) or (self.values.ndim == 2 and len(self.values) != target.count):
            raise ValueError(
                f"values must have shape (steps,) or ({target.count}, steps), one row for each neuron of the "
                f"target; got {self.values.shape}"
            )


class Currents:
    """The currents of one population from outside, on its device."""

    def __init__(self, population: Population, constants: list[ConstantCurrent], arrays: list[CurrentArray]) -> None:
        if len(arrays) > 1:
            raise ValueError(
                f"population {population.name!r} has {len(arrays)} CurrentArray inputs; add them up in one"
            )
        total = sum((one.values.astype(np.int64) for one in constants), np.zeros((), np.int64))
        if total.min() < -(2**15) or total.max() >= 2**15:
            raise ValueError(
                f"the constant currents of population {population.name!r} add up to {total.min()} .. {total.max()}; "
                "at most -32768 .. 32767 is allowed"
            )
        values = arrays[0].values if arrays else np.zeros(0, "<i2")
        self.constant_stride = int(total.ndim > 0)
        self.constants = population._backend.upload(np.atleast_1d(total).astype("<i2"))
        self.neuron_stride = values.shape[-1] if values.ndim == 2 else 0
        self.step_count = values.shape[-1]
        self.values = population._backend.upload(values)


def drive_step(
    population: Population,
    currents: Currents,
    clock: Any,
    inbox: Any,
    drives: Any,
    *,
    slot_count: int,
    step_offset: int,
    step_count: int,
) -> Step:
    """The kernel call that empties the inbox of some steps into ``drives``, rows of one current for each neuron."""
    params = {
        "neuron_count": population.count,
        "step_offset": step_offset,
        "step_count": step_count,
        "slot_count": slot_count,
        "constant_stride": currents.constant_stride,
        "current_neuron_stride": currents.neuron_stride,
        "current_step_count": currents.step_count,
        "row_stride": population.row_stride,
    }
    return Step("drive", params, (clock, inbox, currents.constants, currents.values, drives))
