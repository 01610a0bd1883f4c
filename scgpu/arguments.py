"""Checks of what callers pass in: every error names the argument, the value and the remedy."""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Polarity = Literal["unipolar", "bipolar"]

LONGEST = 2**34 - 64
RANGES: dict[str, tuple[float, float]] = {"unipolar": (0.0, 1.0), "bipolar": (-1.0, 1.0)}


def integer(name: str, value: Any, low: int, high: int) -> int:
    """A Python int from ``low`` to ``high``, both included."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer from {low} to {high}; got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer from {low} to {high}; got {value!r} of type {type(value).__name__}"
        ) from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}; got {number}")
    return number


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
    return value


def polarity_of(value: Any) -> Polarity:
    """``"unipolar"`` or ``"bipolar"``."""
    return "bipolar" if choice("polarity", value, ("unipolar", "bipolar")) == "bipolar" else "unipolar"


def length_of(value: Any) -> int:
    """A stream length in bits."""
    return integer("length", value, 1, LONGEST)


def seed_of(value: Any) -> int:
    """A seed, 64 bits."""
    return integer("seed", value, 0, 2**64 - 1)


def _array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}.filled(...)")
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{name} must be an array of numbers; got {type(value).__name__} that NumPy refuses: {error}"
        ) from None


def values(name: str, value: ArrayLike, polarity: Polarity) -> NDArray[np.float64]:
    """A C-contiguous float64 array of values in the range of the polarity."""
    array = _array(name, value)
    if array.dtype.kind not in "biuf":
        remedy = " (for a Bitstream use forward_prepacked)" if type(value).__name__ == "Bitstream" else ""
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}{remedy}")
    with np.errstate(over="ignore"):  # a long double may overflow to infinity, refused below
        floats = np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)
    low, high = RANGES[polarity]
    wrong = ~((floats >= low) & (floats <= high))
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), floats.shape))
        remedy = ' For [-1, 1] use polarity="bipolar".' if polarity == "unipolar" else " Scale the values first."
        raise ValueError(
            f"{polarity} {name} must lie in [{low:g}, {high:g}]; got {floats[index]} at index {index}.{remedy}"
        )
    return floats


def words32(name: str, value: ArrayLike, components: int) -> NDArray[np.uint32]:
    """An array of 32-bit unsigned integers of shape (..., components)."""
    array = _array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}")
    if array.ndim == 0 or array.shape[-1] != components:
        raise ValueError(f"{name} must have shape (..., {components}); got {array.shape}")
    wrong = (array < 0) | (array > 0xFFFF_FFFF)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
        raise ValueError(f"{name} must lie in [0, 2**32 - 1]; got {array[index]} at index {index}")
    return array.astype("<u4")


def integers16(name: str, value: Any) -> NDArray[np.int16]:
    """A C-contiguous int16 array of integers of 16 bits, of any shape."""
    array = _array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}. Round them, and use .astype(np.int16).")
    if array.dtype != np.int16:
        wrong = (array < -(2**15)) | (array >= 2**15)
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
            where = f" at index {index}" if index else ""
            raise ValueError(f"{name} must be from -32768 to 32767; got {array[index]}{where}")
    return np.ascontiguousarray(array, dtype="<i2").reshape(array.shape)
