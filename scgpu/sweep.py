"""sweep: a function at many points of its parameters, each result kept as soon as it is there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.archive import Archive, Format
from scgpu.checkpoint import Log, digest_of
from scgpu.errors import SweepError
from scgpu.progress import progress_of

FORMAT = Format("sweep", 1, "scgpu.sweep")
KINDS = "biufc"  # of elements of arrays: numbers

Point = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def sweep(
    function: Callable[..., Any],
    points: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Any]],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Evaluate a function at many points of its parameters.

    Parameters
    ----------
    function : callable
        Called with the parameters of a point as keyword arguments. With a checkpoint it returns a number, an
        array of numbers, or a dict of these by name, and depends on its parameters alone.
    points : iterable of dict, or dict of iterables
        Keyword arguments for each point; or a grid, the values of each parameter, of which every combination
        is a point, in the order of `itertools.product`: the last parameter changes fastest.
    checkpoint : path, optional
        A file that keeps each result once it is there. The same call after an interruption, a kill or an
        error computes what is missing. Results belong to their points: points may be added, left out and
        put in another order, and equal points get a result each. Which function it is is known by its name
        alone: after a change to the function delete the file. One process at a time may use it.
    progress : bool or callable, optional
        As `SpikingNetwork.run`, in points.

    Returns
    -------
    list
        What the function returned, in the order of the points; the same from a checkpoint, in value and type.

    Raises
    ------
    SweepError
        The function raised an exception, which is its ``__cause__``. It names the point, and has in ``results``
        what was computed.
    TypeError
        A point is no mapping from names; with a checkpoint, a parameter is more than numbers, strings, None,
        arrays and lists of them, or a result is something else than said above.
    ValueError
        The checkpoint is damaged, or of another function.
    OSError
        The checkpoint cannot be read, or not be made. Where a result cannot be written later, a
        `CheckpointWarning` says so, and the sweep goes on.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.sweep(lambda x, y: x * y, {"x": [2, 3], "y": [10, 100]}, progress=False)
    [20, 200, 30, 300]
    """
    listed = _points(points)
    results: list[Any] = []
    if checkpoint is None:
        with progress_of(progress, len(listed), " points") as bar:
            for point in listed:
                results.append(_evaluated(function, listed, results, point, "they are in .results"))
                bar.update(len(results))
        return results
    keys = _keys(listed)
    with Log(checkpoint, FORMAT) as log, progress_of(progress, len(listed), " points") as bar:
        log.begin({"function": getattr(function, "__qualname__", type(function).__qualname__)})
        kept = dict(log.records(_read))
        for point, key in zip(listed, keys, strict=True):
            if key not in kept:
                result = _evaluated(function, listed, results, point, f"they are in .results and in {log.path!r}")
                header, arrays = _packed(result, f"the result at points[{len(results)}] = {point}")
                kept[key] = result
                log.keep(lambda record=({"point": key, **header}, arrays): record)  # type: ignore[misc]
            results.append(kept[key])
            bar.update(len(results))
    return results


def _points(points: Any) -> list[Point]:
    """The points, one dict each."""
    if isinstance(points, Mapping):
        axes = [arguments.listed(f"points[{name!r}]", values, "values") for name, values in points.items()]
        return [dict(zip(points, values, strict=True)) for values in itertools.product(*axes)]
    listed = arguments.listed("points", points, "dict")
    for index, point in enumerate(listed):
        if not isinstance(point, Mapping) or not all(isinstance(name, str) for name in point):
            raise TypeError(f"points[{index}] must be a dict of keyword arguments; got {arguments.shown(point)}")
    return [dict(point) for point in listed]


def _evaluated(
    function: Callable[..., Any], points: Sequence[Point], results: list[Any], point: Point, where: str
) -> Any:
    try:
        return function(**point)
    except Exception as error:
        raise SweepError(
            f"the function failed at points[{len(results)}] = {point} ({type(error).__name__}: {error}); the results "
            f"of {len(results)} of {len(points)} points are not lost: {where}",
            point=point,
            results=results,
        ) from error


def _keys(points: Sequence[Point]) -> list[str]:
    """What a checkpoint knows each point by: a digest of its parameters, and how many such points came before."""
    seen: dict[str, int] = {}
    keys = []
    for index, point in enumerate(points):
        named = {name: _plain(value, f"points[{index}][{name!r}]") for name, value in point.items()}
        key = digest_of(named)
        seen[key] = seen.get(key, 0) + 1
        keys.append(f"{key}.{seen[key]}")
    return keys


def _plain(value: Any, name: str) -> Any:
    """A parameter as JSON, in which different parameters differ."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one, name) for one in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS:
        return {"array": digest_of(None, {"array": value})}
    raise TypeError(
        f"{name} must be a number, a string, None, an array of numbers, or a list of them, to be known again in a "
        f"checkpoint; got {type(value).__name__}. Give it to the function by functools.partial or a closure"
    )


def _packed(result: Any, name: str) -> tuple[dict[str, Any], Arrays]:
    """A result as a header that is JSON, and arrays."""
    by_name = isinstance(result, dict)
    arrays: Arrays = {}
    entries: list[dict[str, Any]] = []
    for key, value in (result if by_name else {"": result}).items():
        entry: dict[str, Any] = {"name": key}
        if type(value) in (bool, int, float):
            entry["number"] = value  # JSON keeps every digit
        elif (type(value) is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in KINDS:
            array = np.array(value)  # a copy: the caller may change what it was given before the record is written
            arrays[str(len(entries))] = array
            entry |= {"dtype": array.dtype.str, "shape": array.shape, "scalar": isinstance(value, np.generic)}
        else:
            raise TypeError(
                f"{name} must be a number, an ndarray of numbers, or a dict of these, to be kept in a checkpoint; got "
                f"{type(value).__name__}" + (f" at {key!r}" if by_name else "")
            )
        if not isinstance(key, str):
            raise TypeError(f"{name} must have strings as keys; got {key!r}")
        entries.append(entry)
    return {"dict": by_name, "entries": entries}, arrays


def _read(contents: Archive) -> tuple[str, Any]:
    """The key of a point, and its result."""
    header = contents.header
    found = {}
    for place, entry in enumerate(header["entries"]):
        if "number" in entry:
            found[entry["name"]] = entry["number"]
            continue
        dtype = np.dtype(entry["dtype"])
        if dtype.kind not in KINDS:
            raise ValueError(f"a result must be numbers; got {dtype}")
        array = contents.array(str(place), dtype, tuple(entry["shape"]))
        found[entry["name"]] = array[()] if entry["scalar"] else array
    return header["point"], found if header["dict"] else found[""]
