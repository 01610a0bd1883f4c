"""Deterministic streams: all products exact, what a bit is, refusals."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import exact_operands
from scgpu.deterministic import METHODS, unary_periods


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("count", "resolution"), [(1, 3), (2, 1), (2, 4), (3, 3)])
def test_all_products_are_exact(method: Any, count: int, resolution: int, chosen: scgpu.Device) -> None:
    periods = unary_periods(count, resolution, method) if method != "relatively_prime" or resolution > 1 else (2,)
    ranks = np.meshgrid(*(np.arange(n + 1) for n in periods), indexing="ij")
    operands = [rank.reshape(-1) / n for rank, n in zip(ranks, periods, strict=True)]
    streams = exact_operands(operands, resolution, method, device=chosen)
    product = reduce(lambda a, b: a & b, streams)
    assert product.length == math.prod(periods)
    assert np.array_equal(product.count(), np.prod(ranks, axis=0).reshape(-1))
    for stream, rank, n in zip(streams, ranks, periods, strict=True):
        assert np.array_equal(stream.count() * n, rank.reshape(-1) * product.length)


@pytest.mark.parametrize("method", METHODS)
def test_all_bipolar_products_are_exact(method: Any, chosen: scgpu.Device) -> None:
    n, m = unary_periods(2, 4, method)
    first, second = np.meshgrid(np.arange(n + 1), np.arange(m + 1), indexing="ij")
    a, b = exact_operands([2 * first / n - 1, 2 * second / m - 1], 4, method, polarity="bipolar", device=chosen)
    assert np.array_equal((2 * first - n) * (2 * second - m), 2 * (~(a ^ b)).count().astype(int) - n * m)
    assert a.polarity == "bipolar"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("rotation", ["11001100", "11001001"]),
        ("clock_division", ["11001100", "11111111"]),
        ("relatively_prime", ["11001100", "11011011"]),
    ],
)
def test_streams_are_the_definition(method: Any, expected: list[str], chosen: scgpu.Device) -> None:
    streams = exact_operands([[0.5], [0.5]], 2, method, device=chosen)
    assert ["".join(map(str, stream.bits()[0, :8])) for stream in streams] == expected


def test_unary_periods() -> None:
    assert unary_periods(2, 8) == (256, 255)
    assert unary_periods(3, 4) == (16, 15, 13)
    assert unary_periods(3, 8, "rotation") == (256,) * 3


@pytest.mark.parametrize(
    ("operands", "resolution", "options", "error", "message"),
    [
        ([], 4, {}, ValueError, "operands must hold one array or more"),
        ([[0.5]] * 4, 8, {}, ValueError, r"resolution=8 makes 4 operands of \d+ bits; at most 16777216"),
        ([[0.5]] * 5, 2, {}, ValueError, "resolution must be higher for 5 operands: up to 4 there are only 2"),
        ([[0.5]], 25, {}, ValueError, "resolution must be from 1 to 24; got 25"),
        ([[0.5]], 4, {"method": "rotate"}, ValueError, "method must be one of 'relatively_prime'.*got 'rotate'"),
        ([[0.5], [1.5]], 4, {}, ValueError, r"operands\[1\] must lie in \[0, 1\]; got 1.5"),
        ([["a"]], 4, {}, TypeError, r"operands\[0\] must hold real numbers"),
    ],
)
def test_exact_operands_rejects(
    operands: Any, resolution: int, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exact_operands(operands, resolution, device="cpu", **options)
