"""drive: what a step of it makes, parity, currents and their refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu.backend import Backend
from scgpu.devices import backend_for
from scgpu.drive import Currents, drive_step


def cells(device: Any = "numpy", n: int = 3) -> scgpu.Population:
    return scgpu.Population(n, scgpu.LifParameters(0, 256), name="cells", device=device)


def test_drive_known_answers(chosen: scgpu.Device) -> None:
    backend = backend_for(chosen)
    population = cells(chosen)
    currents = Currents(
        population,
        [scgpu.ConstantCurrent(population, [1, 2, -3]), scgpu.ConstantCurrent(population, 100)],
        [scgpu.CurrentArray(population, [[10] * 9, [20] * 9, [30] * 8 + [31]])],
    )
    inbox = backend.upload(np.array([[0, 1, 2], [40000, -40000, 5], [7, 7, 7], [-9, -9, -9]], "<i4"))
    drives = backend.upload(np.full(8, 77, "<i2"))
    # steps 8 and 9: slots 0 and 1 of 4; the array ends with step 8
    step = drive_step(
        population,
        currents,
        backend.upload(np.array([5], "<u4")),
        inbox,
        drives,
        slot_count=4,
        step_offset=3,
        step_count=2,
    )
    made, left = backend.execute([step], [drives, inbox])
    assert made.reshape(2, 4)[:, :3].tolist() == [[111, 123, 130], [32767, -32768, 102]]
    assert made.reshape(2, 4)[:, 3].tolist() == [77, 77]
    assert left.reshape(4, 3).tolist() == [[0, 0, 0], [0, 0, 0], [7, 7, 7], [-9, -9, -9]]


def test_drive_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("drive", chosen, oracle, number=80)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda p: scgpu.ConstantCurrent("cells", 1), TypeError, "target must be a Population; got str"),
        (lambda p: scgpu.ConstantCurrent(p, 40000), ValueError, "value"),
        (lambda p: scgpu.ConstantCurrent(p, 1.5), TypeError, "value must hold integers; got dtype float64"),
        (lambda p: scgpu.ConstantCurrent(p, [1, 2]), ValueError, r"shape \(3,\); got \(2,\)"),
        (lambda p: scgpu.CurrentArray(None, [1]), TypeError, "target must be a Population; got NoneType"),
        (lambda p: scgpu.CurrentArray(p, 7), ValueError, r"\(steps,\) or \(3, steps\).*; got \(\)"),
        (lambda p: scgpu.CurrentArray(p, np.zeros((2, 5), int)), ValueError, r"got \(2, 5\)"),
        (lambda p: scgpu.CurrentArray(p, np.zeros((3, 5))), TypeError, "float64"),
        (
            lambda p: Currents(p, [scgpu.ConstantCurrent(p, 30000)] * 2, []),
            ValueError,
            "of population 'cells' add up to 60000 .. 60000; at most",
        ),
        (lambda p: Currents(p, [], [scgpu.CurrentArray(p, [1])] * 2), ValueError, "has 2 CurrentArray inputs; add"),
    ],
)
def test_drive_rejects(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make(cells())
