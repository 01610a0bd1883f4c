"""Sweeps: results in the order of the points, the same from a checkpoint; what is refused, and what errors say."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu

RESULTS: list[Any] = [
    3,
    -(2**70),
    True,
    0.1,
    float("inf"),
    np.float32(0.1),
    np.int16(-3),
    np.bool_(False),
    np.complex128(1 + 2j),
    np.array(7),
    np.zeros((0, 3), np.uint8),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.random.default_rng(0).random((3, 4))),
    {},
    {"count": 3, "words": np.array([2**64 - 1], np.uint64), "mean": np.float64(0.5)},
]


def result(k: int) -> Any:
    """One of everything that a function may return."""
    return RESULTS[k]


def same(a: Any, b: Any) -> bool:
    """Equal in type and value."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    return type(a) is type(b) and (not isinstance(a, np.ndarray) or a.dtype == b.dtype) and bool(np.array_equal(a, b))


def test_results_from_a_checkpoint_are_the_same_in_value_and_type(tmp_path: Path) -> None:
    for _ in range(2):
        found = scgpu.sweep(result, {"k": range(len(RESULTS))}, checkpoint=tmp_path / "sweep")
        assert all(map(same, found, RESULTS))
    assert np.isnan(scgpu.sweep(lambda: float("nan"), [{}], checkpoint=tmp_path / "nan")[0])
    assert np.isnan(scgpu.sweep(lambda: float("nan"), [{}], checkpoint=tmp_path / "nan")[0])


def test_a_grid_is_a_list_of_points() -> None:
    seen: list[Any] = []
    scgpu.sweep(lambda **point: seen.append(point), {"a": [1, 2], "b": ("x", "y")})
    assert seen == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    again: list[Any] = []
    scgpu.sweep(lambda **point: again.append(point), iter(seen))
    assert again == seen
    assert scgpu.sweep(len, []) == scgpu.sweep(len, {"obj": []}) == []


def test_results_belong_to_their_points(tmp_path: Path) -> None:
    calls: list[Any] = []

    def count(**point: Any) -> int:
        calls.append(point)
        return len(calls)

    path = tmp_path / "sweep"
    points: list[dict[str, Any]] = [
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": [1]},
        {"b": 1},
        {},
    ]
    points += [{"a": np.arange(3)}, {"a": np.arange(3, dtype=np.int8)}, {"a": 1}]
    assert scgpu.sweep(count, points, checkpoint=path) == list(range(1, 12))  # 1 stands there twice
    assert scgpu.sweep(count, [points[3], {"a": 9}, {"a": np.int64(1)}], checkpoint=path) == [4, 12, 1]
    assert scgpu.sweep(count, points[::-1], checkpoint=path) == [1, *range(10, 1, -1), 11]
    assert len(calls) == 12


def test_an_exception_names_the_point_and_loses_nothing(tmp_path: Path) -> None:
    def root(x: float) -> float:
        if x < 0:
            raise ArithmeticError("below 0")
        return x**0.5

    points = {"x": [4, 9, -1, 16]}
    for path in (None, tmp_path / "sweep"):
        with pytest.raises(scgpu.SweepError, match=r"points\[2\] = {'x': -1} \(ArithmeticError: below 0\)") as caught:
            scgpu.sweep(root, points, checkpoint=path)
        assert caught.value.results == [2.0, 3.0] and caught.value.point == {"x": -1}
        assert isinstance(caught.value.__cause__, ArithmeticError)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.point, copy.results) == (str(caught.value), {"x": -1}, [2.0, 3.0])
    assert repr(str(tmp_path / "sweep")) in str(caught.value)
    calls: list[float] = []
    root_again = root

    def noted(x: float) -> float:
        calls.append(x)
        return root_again(abs(x))

    noted.__qualname__ = root.__qualname__
    assert scgpu.sweep(noted, points, checkpoint=tmp_path / "sweep") == [2.0, 3.0, 1.0, 4.0] and calls == [-1, 16]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", r"the result at points\[0\] = {} must be a number, an ndarray of numbers, .*; got str"),
        ([1, 2], "got list"),
        (None, "got NoneType"),
        (np.array(["a"]), "got ndarray"),
        (np.array([None]), "got ndarray"),
        (np.ma.array([1], mask=[True]), "got MaskedArray"),
        ({"a": {"b": 1}}, "got dict at 'a'"),
        ({1: 2}, "must have strings as keys; got 1"),
    ],
)
def test_results_that_are_no_numbers_are_refused(tmp_path: Path, value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        scgpu.sweep(lambda: value, [{}], checkpoint=tmp_path / "sweep")
    assert scgpu.sweep(lambda: value, [{}])[0] is value


def test_points_that_cannot_be_known_again_are_refused(tmp_path: Path) -> None:
    for value in (scgpu.device("cpu"), Fraction(1, 2), 1j, np.array(["a"]), {"a": 1}):
        with pytest.raises(TypeError, match=r"points\[1\]\['a'\] must be a number, .*functools.partial"):
            scgpu.sweep(len, [{"a": 1}, {"a": value}], checkpoint=tmp_path / "sweep")
    for point in ([1], "a", {1: 2}):
        with pytest.raises(TypeError, match=r"points\[0\] must be a dict of keyword arguments"):
            scgpu.sweep(len, [point])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_progress_is_told(tmp_path: Path) -> None:
    for path in (None, tmp_path / "sweep", tmp_path / "sweep"):
        told: list[tuple[int, int]] = []
        scgpu.sweep(lambda x: x, {"x": range(3)}, checkpoint=path, progress=lambda *done, told=told: told.append(done))
        assert told == [(1, 3), (2, 3), (3, 3)]
