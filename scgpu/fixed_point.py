"""Numbers of a few bits in two's complement, as Python integers or NumPy arrays of int64."""

from __future__ import annotations

from typing import Any, TypeVar

Integers = TypeVar("Integers", int, Any)


def signed(value: Integers, width: int) -> Integers:
    """The low ``width`` bits of a number, read with their sign."""
    half = 1 << (width - 1)
    return ((value + half) & (2 * half - 1)) - half
