"""Checks of what callers pass in: every error names the argument, the value and the remedy."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu.errors import TooLargeError

Polarity = Literal["unipolar", "bipolar"]

LONGEST = 2**34 - 64
RANGES: dict[str, tuple[float, float]] = {"unipolar": (0.0, 1.0), "bipolar": (-1.0, 1.0)}


MOST_SHOWN = 200  # characters of a value in a message


def shown(value: Any) -> str:
    """A value in the words of a message: short, and whatever the value makes of itself."""
    try:
        text = repr(value)
    except Exception:  # an object that fails, a list in thousands of lists, an integer of too many digits
        return f"something of type {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def integer(name: str, value: Any, low: int, high: int) -> int:
    """A Python int from ``low`` to ``high``, both included."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer from {low} to {high}; got {value!r}")
    try:
        number = operator.index(value)
    except Exception:  # __index__ of any class may raise anything
        raise TypeError(
            f"{name} must be an integer from {low} to {high}; got {shown(value)} of type {type(value).__name__}"
        ) from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}; got {shown(number)}")
    return number


def seconds(name: str, value: Any) -> float:
    """A duration, a finite number from 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number of seconds; got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds from 0; got {value}")
    return float(value)


def holds_integers(array: NDArray[Any]) -> bool:
    """Whether the numbers of an array are integers; those of an empty list are none of another kind."""
    return array.dtype.kind in "iu" or (array.size == 0 and array.dtype == np.float64)


def real(name: str, value: Any, low: float = -math.inf) -> float:
    """A finite float above ``low``, of any real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {shown(value)} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an integer, or a fraction of integers
        number = math.inf
    if not math.isfinite(number) or number <= low:
        above = "" if low == -math.inf else f" and above {low:g}"
        raise ValueError(f"{name} must be finite{above}; got {number}")
    return number


def listed(name: str, value: Any, what: str) -> list[Any]:
    """The things in a sequence."""
    try:
        if not isinstance(value, (str, bytes, Mapping)):
            return list(value)
    except Exception as error:  # it cannot be iterated, or fails on the way
        raise TypeError(f"{name} must be a sequence of {what}; got {type(value).__name__}") from error
    raise TypeError(f"{name} must be a sequence of {what}; got {type(value).__name__}")


def keys(name: str, value: Any, *wanted: str) -> None:
    """Refuse what is no mapping with exactly these keys."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping; got {type(value).__name__}")
    if set(value) != set(wanted):
        raise ValueError(
            f"{name} must have the keys {' and '.join(map(repr, wanted))}; got {shown(sorted(map(str, value)))}"
        )


def path(name: str, value: Any) -> Path:
    """The path of a file, as a string or an object that says it."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(text := os.fspath(value), str):
        raise TypeError(f"{name} must be the path of a file; got {shown(value)} of type {type(value).__name__}")
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeError:
        possible = False
    if not possible:
        raise ValueError(f"{name} must be what a file can be called; got {shown(text)}")
    return Path(text)


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """One of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {shown(value)}")
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


def array_of(name: str, value: Any) -> NDArray[Any]:
    """What NumPy makes of a value, or a `TypeError`."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}.filled(...)")
    try:
        return np.asarray(value)
    except MemoryError as error:
        raise TooLargeError(f"{name} does not fit the memory as an array") from error
    except Exception as error:  # __array__ of any class may raise anything
        raise TypeError(
            f"{name} must be an array of numbers; got {type(value).__name__} that NumPy refuses: {error}"
        ) from None


def values(name: str, value: ArrayLike, polarity: Polarity) -> NDArray[np.float64]:
    """A C-contiguous float64 array of values in the range of the polarity."""
    remedy = ' For [-1, 1] use polarity="bipolar".' if polarity == "unipolar" else " Scale the values first."
    return _between(name, value, *RANGES[polarity], kind=f"{polarity} ", remedy=remedy)


def probabilities(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """A C-contiguous float64 array of probabilities, 0 to 1."""
    return _between(name, value, 0.0, 1.0)


def _between(
    name: str, value: ArrayLike, low: float, high: float, *, kind: str = "", remedy: str = ""
) -> NDArray[np.float64]:
    """A C-contiguous float64 array of real numbers of a range, both ends included."""
    array = array_of(name, value)
    if array.dtype.kind not in "biuf":
        hint = " (for a Bitstream use forward_prepacked)" if type(value).__name__ == "Bitstream" else ""
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}{hint}")
    if array.dtype == np.float64:
        floats = array if array.flags.c_contiguous else array.copy(order="C")
    else:
        with np.errstate(over="ignore"):  # a long double may overflow to infinity, refused below
            floats = np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)
    # the least and the greatest of numbers with a NaN among them are NaN, which is in no range
    if floats.size and not (
        np.minimum.reduce(floats, axis=None) >= low and np.maximum.reduce(floats, axis=None) <= high
    ):
        wrong = ~((floats >= low) & (floats <= high))
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), floats.shape))
        raise ValueError(f"{kind}{name} must lie in [{low:g}, {high:g}]; got {floats[index]} at index {index}.{remedy}")
    return floats


def bits(value: ArrayLike) -> NDArray[np.uint8]:
    """A C-contiguous array of bits, one to a byte, of shape (..., length).

    The values of a uint8 or bool array are not looked at: the kernel that reads them does that.
    """
    array = value if type(value) is np.ndarray else array_of("bits", value)
    if array.dtype.kind not in "biu":
        raise TypeError(f"bits must hold booleans or the integers 0 and 1; got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"bits must have shape (..., length); got the single value {array[()]!r}")
    if array.shape[-1] > LONGEST:
        raise ValueError(f"bits may have at most {LONGEST} bits in a stream; got shape {array.shape}")
    if array.dtype.char not in "B?":
        require_bits(array)
        array = array.astype(np.uint8)
    array = np.ascontiguousarray(array)
    return array if array.dtype.char == "B" else array.view(np.uint8)


def require_bits(array: NDArray[Any]) -> None:
    """Refuse an array that holds anything but 0 and 1, and say where."""
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
        raise ValueError(f"bits must be 0 or 1; got {array[index]} at index {index}. For truth values pass bits != 0.")


def nonzero_bytes(value: ArrayLike) -> NDArray[np.bool_]:
    """Where an array of bytes, in any integer type, is not 0."""
    array = array_of("bits", value)
    if array.size == 0:  # an empty list has no type of its own
        return array.astype(np.bool_)
    if array.dtype.kind not in "biu":
        raise TypeError(f"bits must hold booleans or integers from 0 to 255; got dtype {array.dtype}")
    if array.dtype.char not in "B?":
        wrong = (array < 0) | (array > 255)
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
            raise ValueError(f"bits must lie in [0, 255]; got {array[index]} at index {index}")
    nonzero: NDArray[np.bool_] = array != 0
    return nonzero


def words64(words: Any, name: str = "words") -> NDArray[np.uint64]:
    """Packed words, an array of uint64 of shape (..., W) in any layout."""
    if isinstance(words, np.ma.MaskedArray) or not isinstance(words, np.ndarray) or words.dtype.kind != "u":
        found = f"dtype {words.dtype}" if isinstance(words, np.ndarray) else type(words).__name__
        raise TypeError(f"{name} must be an ndarray of uint64; got {found}")
    if words.dtype.itemsize != 8:
        raise TypeError(f"{name} must be uint64; got {words.dtype}. Use .view(np.uint64) on little-endian rows.")
    if words.ndim == 0:
        raise ValueError(f"{name} must have shape (..., W); got a single word")
    return words


def words_or_lists(value: Any, name: str) -> NDArray[np.uint64]:
    """Packed words from an array, or from the lists of integers that the reference's engine gives."""
    if isinstance(value, np.ndarray):
        return words64(value, name)
    if not isinstance(value, Sequence):
        raise TypeError(f"{name} must be an array of uint64, or lists of integers; got {type(value).__name__}")
    numbers = np.array(value, dtype=object)
    for index, number in np.ndenumerate(numbers):
        integer(f"{name}{list(index)}", number, 0, 2**64 - 1)
    return numbers.astype(np.uint64)


def streams(words: Any, length: int, name: str = "words") -> NDArray[np.uint64]:
    """Packed words of streams of ``length`` bits, in any layout."""
    array = words64(words, name)
    if array.shape[-1] != -(-length // 64):
        raise ValueError(f"{name} must have shape (..., {-(-length // 64)}) for length={length}; got {array.shape}")
    return array


def require_clear_tails(words: NDArray[np.uint64], length: int, name: str = "words") -> None:
    """Refuse streams with ones past ``length``, and say which."""
    tail_bits = length % 64
    if tail_bits and words.size and (broken := words[..., -1] >> np.uint64(tail_bits) != 0).any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(broken)), broken.shape))
        raise ValueError(
            f"{name} has ones past length={length} in stream {index}; clear the last word's bits "
            f"from {tail_bits} up, or give the length they belong to"
        )


def output(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], source: NDArray[Any]) -> None:
    """Refuse an array that cannot take a result of this shape and type, made from ``source``."""
    if type(out) is not np.ndarray or out.dtype != dtype:
        found = f"dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out must be an ndarray of {dtype.name}; got {found}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}; got {out.shape}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writeable; leave it away to get a new array")
    if np.may_share_memory(out, source):
        raise ValueError("out shares memory with what it is made from; leave it away to get a new array")


def words32(name: str, value: ArrayLike, components: int) -> NDArray[np.uint32]:
    """An array of 32-bit unsigned integers of shape (..., components)."""
    array = array_of(name, value)
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
    array = array_of(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}. Round them, and use .astype(np.int16).")
    if array.dtype != np.int16:
        wrong = (array < -(2**15)) | (array >= 2**15)
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
            where = f" at index {index}" if index else ""
            raise ValueError(f"{name} must be from -32768 to 32767; got {array[index]}{where}")
    return np.ascontiguousarray(array, dtype="<i2").reshape(array.shape)


def writable_file(name: str, value: str) -> Path:
    """The path of a file to write, refused before the work when it cannot be written."""
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a directory that exists; got {value!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{name} {value!r} is not writable; choose another file")
    return path


def integers(name: str, value: ArrayLike, low: int, high: int) -> NDArray[np.int64]:
    """An array of integers from ``low`` to ``high``, of any shape."""
    array = array_of(name, value)
    if not holds_integers(array):
        raise TypeError(f"{name} must hold integers; got dtype {array.dtype}")
    wrong = (array < low) | (array > high)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
        raise ValueError(f"{name} must be from {low} to {high}; got {array[index]} at index {index}")
    return array.astype(np.int64)


def reals(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """An array of finite numbers, of any shape."""
    array = array_of(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    floats = array.astype(np.float64)
    wrong = ~np.isfinite(floats)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), floats.shape))
        raise ValueError(f"{name} must be finite; got {floats[index]} at index {index}")
    return floats
