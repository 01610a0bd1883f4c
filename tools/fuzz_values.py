"""Hostile values for the fuzzer of the public interface: what stands in the place of a right argument."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

SMALL = 300  # integers from here to HUGE would be right for a size, and large
HUGE = 2**40


class Hostile(NamedTuple):
    """A value, made anew for each call (a generator is used up by one), and what is known of it."""

    label: str
    make: Callable[[], Any]
    number: bool = True
    """False for what no argument that is a number, or an array of them, may take."""


class Sub(np.ndarray):
    """A subclass of ndarray that does nothing else."""


class Count(int):
    """A subclass of int."""


class Share(float):
    """A subclass of float."""


class Word(str):
    """A subclass of str."""

    __slots__ = ()


class Failing:
    """Whatever is asked of it raises what no caller expects."""

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("asked of a hostile object")

    __array__ = __index__ = __int__ = __float__ = __len__ = __bool__ = __iter__ = __getitem__ = __repr__ = _fail
    __hash__ = object.__hash__


class Arrays:
    """An object that turns itself into an array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self._array, dtype=dtype)


class Indexed:
    """An object that is an integer by ``__index__`` alone."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


def _numbers() -> list[Hostile]:
    """Scalars that are numbers in some way."""
    integers = (-(10**30), -(2**63), -1, 0, 1, 2, 3, 5, 7, 63, 64, 65, 127, 128, 255, SMALL)
    found = [Hostile(repr(value), lambda value=value: value) for value in integers]  # type: ignore[misc]
    for big in (HUGE, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400):
        found.append(Hostile(f"{float(min(big, 10**300)):g}", lambda value=big: value))  # type: ignore[misc]
    for real in (-0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, -1.0, 1e-300, 1e300, 5e-324):
        found.append(Hostile(repr(real), lambda value=real: value))  # type: ignore[misc]
    for scalar in (np.uint8(3), np.int64(-1), np.uint64(2**64 - 1), np.float32(0.5), np.float16(1), np.longdouble(1)):
        found.append(Hostile(repr(scalar), lambda value=scalar: value))  # type: ignore[misc]
    found += [
        Hostile("a Fraction", lambda: Fraction(1, 2)),
        Hostile("True", lambda: True),
        Hostile("np.False_", lambda: np.False_),
        Hostile("an int of a subclass", lambda: Count(3)),
        Hostile("a float of a subclass", lambda: Share(0.5)),
        Hostile("an object with __index__", lambda: Indexed(3)),
        Hostile("an array of one integer", lambda: np.array([3])),
        Hostile("a 0-d array", lambda: np.array(3)),
        Hostile("a 0-d array of float", lambda: np.array(0.5)),
    ]
    return found


def _others() -> list[Hostile]:
    """What is no number, and no array of numbers."""
    masked = np.ma.MaskedArray([0.25, 0.5, 1.0], [False, True, False])
    made: dict[str, Callable[[], Any]] = {
        "nan": lambda: float("nan"),
        "inf": lambda: float("inf"),
        "-inf": lambda: float("-inf"),
        "np.float32(nan)": lambda: np.float32("nan"),
        "1j": lambda: 1j,
        "np.complex64(1)": lambda: np.complex64(1),
        "Decimal": lambda: Decimal("0.5"),
        "Decimal(NaN)": lambda: Decimal("NaN"),
        "''": str,
        "'1'": lambda: "1",
        "'nan'": lambda: "nan",
        "'0x3'": lambda: "0x3",
        "a long word": lambda: "w" * 5000,
        "a word with a null": lambda: "a\0b",
        "a lone surrogate": lambda: "\ud800",
        "a word of a subclass": lambda: Word("unipolar"),
        "b''": bytes,
        "b'1'": lambda: b"1",
        "{}": dict,
        "{0: 1}": lambda: {0: 1},
        "a set": lambda: {1, 2},
        "Ellipsis": lambda: Ellipsis,
        "NotImplemented": lambda: NotImplemented,
        "a slice": lambda: slice(None),
        "a function": lambda: len,
        "a class": lambda: int,
        "an object": object,
        "an object that fails": Failing,
        "a list of objects that fail": lambda: [Failing()],
        "a generator": lambda: (k for k in range(3)),
        "an iterator": lambda: iter([0.5, 0.5]),
        "a ragged list": lambda: [[1, 2], [3]],
        "a ragged list of arrays": lambda: [np.zeros(3), np.zeros(4)],
        "a list with itself inside": _circular,
        "a deep list": _deep,
        "a list of words": lambda: ["1", "2", "3"],
        "a list with None": lambda: [0, None, 1],
        "a list with a complex": lambda: [0, 1j, 1],
        "a masked array": lambda: masked.copy(),
        "an array of objects": lambda: np.array([1, None, "x"], object),
        "an array of integers as objects": lambda: np.array([1, 0, 1], object),
        "an array of words": lambda: np.array(["1", "0", "1"]),
        "an array of bytes": lambda: np.array([b"1", b"0"]),
        "an array of times": lambda: np.array([1, 2, 3], "M8[s]"),
        "an array of durations": lambda: np.array([1, 0, 1], "m8[s]"),
        "a structured array": lambda: np.zeros(3, [("a", "<i4")]),
        "an array of nothing": lambda: np.zeros(3, "V4"),
        "a path": lambda: Path("nowhere/at/all"),
        "a context manager": contextlib.nullcontext,
        "a memory view": lambda: memoryview(b"abc").cast("c"),
    }
    return [Hostile(label, make, number=False) for label, make in made.items()]


def _circular() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


def _deep() -> list[Any]:
    inside: list[Any] = []
    for _ in range(2000):
        inside = [inside]
    return inside


NUMBERS, OTHERS = _numbers(), _others()
NONE = Hostile("None", lambda: None)


def _strided(array: NDArray[Any]) -> NDArray[Any]:
    """Equal numbers, every second element of a larger array along each axis."""
    larger = np.zeros([2 * size for size in array.shape], array.dtype)
    view = larger[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _backwards(array: NDArray[Any]) -> NDArray[Any]:
    turned = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[turned])[turned]


def _shifted(array: NDArray[Any]) -> NDArray[Any]:
    """Equal numbers that begin between two elements."""
    octets = np.zeros(array.nbytes + 1, np.uint8)
    octets[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return octets[1:].view(array.dtype).reshape(array.shape) if array.size else array


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    locked = array.copy()
    locked.flags.writeable = False
    return locked


# Ways to hand over the same numbers. What `plain` makes of each is the array itself.
DISGUISES: dict[str, Callable[[NDArray[Any]], Any]] = {
    "Fortran order": lambda array: np.array(array, order="F"),
    "every second element": _strided,
    "backwards": _backwards,
    "transposed twice": lambda array: np.ascontiguousarray(array.T).T,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "read-only": _locked,
    "not aligned": _shifted,
    "a subclass": lambda array: array.copy().view(Sub),
    "nested lists": lambda array: array.tolist(),
    "a tuple": lambda array: tuple(array) if array.ndim else array,
    "a list of arrays": lambda array: list(array) if array.ndim else array,
    "an object with __array__": Arrays,
    "a memory view of it": lambda array: np.ascontiguousarray(array).data if array.dtype.kind in "iufb" else array,
    "broadcast": lambda array: np.broadcast_to(array.reshape(-1)[0], array.shape) if array.size else array,
}
DTYPES = ("?", "i1", "u1", "<i2", ">i2", "<i4", ">u4", "<i8", ">i8", "<u8", ">u8", "<f2", "<f4", ">f8", "g")
NOT_NUMBERS = ("<c8", ">c16", "O", "U5", "M8[s]", "m8[s]")
ODD = (-1, 2, 127, 128, 255, 256, -32769, 32768, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63), 0.5, 1.5, 1e300)
WRONG = (float("nan"), float("inf"), float("-inf"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    with _quiet():
        return array.astype(dtype)


def _spoiled(array: NDArray[Any], place: int, number: Any) -> Any:
    """The array with another number at one place, of a type that holds it where there is one."""
    values = array.astype(object) if array.size else np.zeros(1, object)
    values.reshape(-1)[place % values.size] = number
    return np.array(values.tolist())


@st.composite
def _disguised(draw: st.DrawFn, right: NDArray[Any]) -> Hostile:
    """The right numbers, or nearly, in another form."""
    array, label, number = right, "the right numbers", True
    kind = draw(st.integers(0, 5))
    if kind == 1:
        dtype = draw(st.sampled_from(DTYPES))
        array, label = _cast(right, dtype), f"of dtype {dtype}"
    elif kind == 2:
        dtype = draw(st.sampled_from(NOT_NUMBERS))
        return Hostile(f"of dtype {dtype}", lambda: _cast(right, dtype), number=False)
    elif kind == 3:
        odd, place = draw(st.sampled_from(ODD)), draw(st.integers(0, 99))
        array, label = _spoiled(right, place, odd), f"with {odd} at {place}"
    elif kind == 4:
        wrong, place = draw(st.sampled_from(WRONG)), draw(st.integers(0, 99))
        array, label, number = _spoiled(right, place, wrong), f"with {wrong} at {place}", False
    elif kind == 5:
        how = draw(st.sampled_from(("shorter", "longer", "one more axis", "flat", "empty")))
        array, label = _reshaped(right, how), how
    forms = [form for form in DISGUISES if number or form != "broadcast"]  # which would hide a number
    form = draw(st.sampled_from(forms))
    if array.dtype.kind not in "biuf":  # what NumPy makes of numbers that are too large
        return Hostile(label, lambda: array.copy(), number=number)
    return Hostile(f"{label}, {form}", lambda: DISGUISES[form](array.copy()), number=number)


def _reshaped(array: NDArray[Any], how: str) -> NDArray[Any]:
    if how == "one more axis":
        return array[np.newaxis]
    if how == "flat":
        return array.reshape(-1)
    if how == "empty":
        return np.zeros((*array.shape[:-1], 0), array.dtype)
    if not array.ndim:
        return array.reshape(1)
    return array[:-1] if how == "shorter" else np.concatenate([array, array[-1:]])


def _arbitrary(limit: int) -> st.SearchStrategy[Hostile]:
    """Arrays of any type and shape, unlike the right ones; a single number is none that would be a large size."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    types = st.sampled_from([np.dtype(name) for name in (*DTYPES, "<c16", "U2", "S2", "M8[s]")])
    arrays = types.flatmap(lambda dtype: hnp.arrays(dtype, shapes))

    def hostile(array: NDArray[Any]) -> Hostile:
        odd = array.dtype.kind not in "biuf" or bool(array.dtype.kind == "f" and not np.isfinite(array).all())
        return Hostile(f"{array.dtype} of shape {array.shape}", array.copy, number=not odd)

    def small(array: NDArray[Any]) -> bool:
        return array.ndim > 0 or array.dtype.kind not in "iu" or not limit < int(array) < HUGE

    return arrays.filter(small).map(hostile)


@cache
def _anything(limit: int) -> st.SearchStrategy[Hostile]:
    """Values that have nothing to do with the right one."""

    def allowed(one: Hostile) -> bool:
        value = one.make()
        return not (isinstance(value, (int, float, np.number, Indexed)) and limit < _number(value) < HUGE)

    known = [NONE, *OTHERS, *(one for one in NUMBERS if allowed(one))]
    return st.one_of(st.sampled_from(known), st.sampled_from(known), _arbitrary(limit))


def _near(number: int) -> Hostile:
    return Hostile(repr(number), lambda: number)


def hostile(right: Any, limit: int = SMALL) -> st.SearchStrategy[Hostile]:
    """What may stand in the place of a right value; no integer between ``limit`` and `HUGE`."""
    if isinstance(right, (np.ndarray, list)) and (array := np.asarray(right)).dtype.kind in "biuf":
        return st.one_of(_anything(limit), _disguised(array), _disguised(array))
    if type(right) is int and limit > 0:
        return st.one_of(_anything(limit), st.integers(-3, limit).map(_near))
    return _anything(limit)


def _number(value: Any) -> float:
    try:
        return float(value.__index__() if isinstance(value, Indexed) else value)
    except OverflowError:
        return float("inf")


def plain(value: Any) -> Any:
    """The same numbers in the plainest form: Python's own, or a C-contiguous array in the machine's order."""
    if isinstance(value, Arrays):
        value = np.asarray(value)
    if isinstance(value, memoryview):
        value = np.array(value)
    if isinstance(value, np.ndarray):
        return np.array(value, value.dtype.newbyteorder("="), order="C", subok=False)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Indexed):
        return value.__index__()
    if isinstance(value, (list, tuple)) and any(isinstance(one, np.ndarray) for one in value):
        return [one.tolist() for one in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
