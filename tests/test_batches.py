"""Counts in batches: those of one call for any size of batch, from and into arrays of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu


class Rows:
    """Something with a shape that can be sliced, such as a dataset in a file; counts what is asked for together."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, rows: slice) -> np.ndarray[Any, Any]:
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found


def stack(device: Any) -> scgpu.Network:
    """Two layers."""
    first = scgpu.DenseLayer(6, 5, 100, polarity="bipolar", device=device)
    return scgpu.Network([first, scgpu.DenseLayer(5, 3, 170, polarity="bipolar", device=device)], "relu")


def test_batches_are_one_call(chosen: scgpu.Device) -> None:
    net = stack(chosen)
    x = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    whole = net.counts(x, 9, 4)
    for size in (1, 7, 50, 1000):
        assert np.array_equal(net.counts_in_batches(x, 9, 4, batch_size=size), whole)
    layer = net.layers[0]
    assert np.array_equal(layer.counts_in_batches(x.tolist(), batch_size=9), layer.counts(x))
    assert np.array_equal(net.values_of(whole), net.forward(x, 9, 4))


def test_rows_and_counts_may_be_larger_than_memory(tmp_path: Path) -> None:
    net = stack("cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (50, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint64, (50, 3))
    rows = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert net.counts_in_batches(rows, out=out, batch_size=8, checkpoint=tmp_path / "c") is out
    del out
    assert np.array_equal(np.load(tmp_path / "out.npy"), net.counts(x)) and rows.most == 8
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.uint64, (50, 3))  # empty again
    assert np.array_equal(net.counts_in_batches(rows, out=out, checkpoint=tmp_path / "c"), net.counts(x))


def test_no_samples(tmp_path: Path) -> None:
    for _ in range(2):
        assert stack("cpu").counts_in_batches(np.zeros((0, 6)), checkpoint=tmp_path / "c").shape == (0, 3)


def test_a_batch_that_is_refused_loses_none_before(tmp_path: Path) -> None:
    net = stack("cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    wrong = x.copy()
    wrong[33, 2] = 2
    told: list[int] = []
    with pytest.raises(ValueError, match=r"x\[30:40\] must lie in \[-1, 1\]; got 2.0 at index \(3, 2\)"):
        net.counts_in_batches(wrong, batch_size=10, checkpoint=tmp_path / "c", progress=lambda n, _: told.append(n))
    assert told == [0, 10, 20, 30]
    told.clear()
    found = net.counts_in_batches(x, checkpoint=tmp_path / "c", progress=lambda n, _: told.append(n))
    assert told == [30, 50] and np.array_equal(found, net.counts(x))


def test_counts_in_batches_rejects() -> None:
    net = stack("cpu")
    x = np.zeros((5, 6))
    for rows in (np.zeros(6), np.zeros((5, 7)), np.zeros((1, 5, 6))):
        with pytest.raises(ValueError, match=r"x must have shape \(samples, 6\); got"):
            net.counts_in_batches(rows)
    frozen = np.zeros((5, 3), np.uint64)
    frozen.flags.writeable = False
    for out, error, text in (
        (np.zeros((5, 3)), TypeError, "out must be an ndarray or memmap of uint64; got dtype float64"),
        ([0], TypeError, "got list"),
        (np.zeros((5, 4), np.uint64), ValueError, r"out must have shape \(samples, n_neurons\) = \(5, 3\)"),
        (frozen, ValueError, "out must be writeable"),
        (x.view(np.uint64)[:, :3], ValueError, "out shares memory with x"),
    ):
        with pytest.raises(error, match=text):
            net.counts_in_batches(x, out=out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be from 1"):
        net.counts_in_batches(x, batch_size=0)
    with pytest.raises(ValueError, match="first_sample must be from 0 to 4294967291"):
        net.counts_in_batches(x, first_sample=2**32 - 4)
    with pytest.raises(ValueError, match="seed must be from 0"):
        net.counts_in_batches(x, seed=-1)
