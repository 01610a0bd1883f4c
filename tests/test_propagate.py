"""propagate: what a spike adds, parity, forms of weights and their refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu.backend import Backend
from scgpu.propagate import propagate_step


def cells(n: int, device: Any = "numpy") -> scgpu.Population:
    return scgpu.Population(n, scgpu.LifParameters(20, 256), device=device)


def delivered(projection: scgpu.Projection, spikes: list[tuple[int, int]], clock: int, slots: int) -> Any:
    """The inbox after spikes, pairs of (source, step), of one interval of 10 steps from bit 50 on."""
    backend = projection.target._backend
    words = np.full(projection.source.count, (1 << 50) - 1 | 0xF << 60, "<u8")  # spikes before and after it
    for source, step in spikes:
        words[source] |= np.uint64(1 << (50 + step))
    inbox = backend.upload(np.zeros(slots * projection.target.count, "<i4"))
    step = propagate_step(
        projection,
        backend.upload(np.array([clock], "<u4")),
        backend.upload(words),
        inbox,
        word_begin=0,
        word_stride=1,
        first_bit=50,
        slot_count=slots,
        step_offset=2,
        step_count=10,
    )
    return backend.execute([step], [inbox])[0].reshape(slots, -1).tolist()


CSR = ([0, 2, 2, 5], [0, 1, 0, 0, 1], [5, -7, 1, 2, 3])


def test_propagate_known_answers(chosen: scgpu.Device) -> None:
    source, target = cells(3, chosen), cells(2, chosen)
    dense = scgpu.Projection(source, target, [[5, -7], [0, 0], [3, 3]], delay=4)
    sparse = scgpu.Projection(source, target, CSR, delay=4)
    for projection in (dense, sparse):
        # steps 100 + 2 + k + 4, in slots of 12
        assert delivered(projection, [(0, 0), (0, 9), (1, 3), (2, 9)], 100, 12) == [
            *([0, 0] for _ in range(7)),
            [8, -4],
            [0, 0],
            [0, 0],
            [5, -7],
            [0, 0],
        ]
        assert delivered(projection, [], 100, 12) == [[0, 0]] * 12


def test_weights_may_be_a_matrix_with_rows(chosen: scgpu.Device) -> None:
    source, target = cells(3, chosen), cells(2, chosen)
    indptr, indices, data = map(np.array, CSR)
    matrix = SimpleNamespace(indptr=indptr, indices=indices, data=data, shape=(3, 2), format="csr")
    one = scgpu.Projection(source, target, matrix)
    assert one.weights.tolist() == CSR[2] and one.synapse_count == 5 and one.longest_row == 3
    assert delivered(one, [(2, 0)], 0, 4) == delivered(scgpu.Projection(source, target, CSR), [(2, 0)], 0, 4)
    assert repr(one) == "Projection(3 -> 2 neurons, 5 synapses, delay=1)"
    matrix.format = "csc"
    with pytest.raises(ValueError, match=r"CSR matrix of shape \(3, 2\).*got csc of shape"):
        scgpu.Projection(source, target, matrix)


def test_no_synapses_are_no_error(chosen: scgpu.Device) -> None:
    empty = scgpu.Projection(cells(3, chosen), cells(2, chosen), ([0, 0, 0, 0], np.zeros(0, int), np.zeros(0, int)))
    assert delivered(empty, [(0, 0), (2, 5)], 0, 4) == [[0, 0]] * 4
    assert empty.largest_sums().tolist() == [0, 0]


def test_propagate_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("propagate", chosen, oracle, number=80)


def test_propagate_with_more_than_one_chunk_of_a_row(chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(1)
    source, target = cells(70, chosen), cells(2500, chosen)
    weights = rng.integers(-9, 9, (70, 2500))
    spikes = [(int(s), int(k)) for s, k in zip(rng.integers(0, 70, 40), rng.integers(0, 10, 40), strict=True)]
    expected = np.zeros((16, 2500), np.int64)
    for s, k in sorted(set(spikes)):
        expected[(100 + 2 + k + 6) % 16] += weights[s]
    rows = np.arange(0, 70 * 2500 + 1, 2500)
    for given in (weights, (rows, np.tile(np.arange(2500), 70), weights.reshape(-1))):
        assert delivered(scgpu.Projection(source, target, given, delay=6), spikes, 100, 16) == expected.tolist()


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        (np.zeros((2, 3), int), ValueError, r"shape \(3, 2\), \(source, target\); got \(2, 3\)"),
        (np.zeros((3, 2)), TypeError, "weights must hold integers; got dtype float64"),
        ([[0, 0], [0, 40000], [0, 0]], ValueError, "weights"),
        (([0, 1], [0]), ValueError, r"\(indptr, indices, data\); got 2 arrays"),
        (([0, 1, 1], [0], [1]), ValueError, "indptr must have 4 numbers, one more than .* got 3"),
        (([0, 1, 1, 2], [0], [1]), ValueError, "end with the number of synapses, 1; got 0 and 2"),
        (([1, 1, 1, 1], [0], [1]), ValueError, "got 1 and 1"),
        (([0, 2, 1, 3], [0, 1, 1], [1, 1, 1]), ValueError, "indptr must not fall; got 1 at index 1"),
        (([0, 1, 1, 1], [2], [1]), ValueError, "indices must be 0 to 1, .*; got 2 at index 0"),
        (([0, 1, 1, 2], [0, -1], [1, 1]), ValueError, "got -1 at index 1"),
        (([0, 2, 2, 2], [1, 0], [1, 1]), ValueError, "must not fall within a row; sort each row; got 0 at index 0"),
        (([0, 1, 1, 1], [0.0], [1]), TypeError, "weights.indices must be a 1-D array of integers; got float64"),
        (([0, 1, 1, 1], [0], [1.0]), TypeError, "weights.data must hold integers"),
        (([0, 1, 1, 1], [0], [40000]), ValueError, "weights.data"),
        (([0, 1, 1, 1], [0], [1, 2]), ValueError, r"one number for each index, 1; got \(2,\)"),
    ],
)
def test_projection_rejects_weights(weights: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        scgpu.Projection(cells(3), cells(2), weights)


def test_rows_may_begin_lower_than_the_one_before_ended() -> None:
    one = scgpu.Projection(cells(3), cells(2), ([0, 2, 2, 3], [0, 1, 0], [1, 2, 3]))
    assert one.synapse_count == 3


def test_projection_rejects_other_things() -> None:
    source, target = cells(3), cells(2)
    weights = np.zeros((3, 2), int)
    with pytest.raises(TypeError, match="source must be a Population, BernoulliSource or SpikeTrain; got str"):
        scgpu.Projection("cells", target, weights)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target must be a Population; got NoneType"):
        scgpu.Projection(source, None, weights)  # type: ignore[arg-type]
    for delay in (0, 65537):
        with pytest.raises(ValueError, match=f"delay must be .*1 to 65536; got {delay}"):
            scgpu.Projection(source, target, weights, delay=delay)
    with pytest.raises(TypeError, match="delay"):
        scgpu.Projection(source, target, weights, delay=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plasticity must be a PairStdp or None; got bool"):
        scgpu.Projection(source, target, weights, plasticity=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"source is on cpu.* and target on numpy.*; make both with the same device="):
        scgpu.Projection(cells(3, "cpu"), target, weights)


def test_projection_keeps_what_it_was_given() -> None:
    weights = np.array([[1, 2], [3, 4], [5, 6]], np.int16)
    one = scgpu.Projection(cells(3), cells(2), weights)
    weights[:] = 0
    assert one.weights.tolist() == [[1, 2], [3, 4], [5, 6]]
    one.weights[:] = 7
    assert one.weights.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert one.largest_sums().tolist() == [9, 12]
