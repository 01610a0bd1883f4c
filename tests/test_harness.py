"""The harness distrusts itself: one flipped bit, anywhere, must be seen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu import cli, parity
from scgpu._abi import OPS
from scgpu.backend import Backend
from scgpu.devices import backend_of


class Flipped:
    """A backend whose first result of one operation has one bit flipped, anywhere in its buffers."""

    largest_buffer = 1 << 62

    def __init__(self, inner: Any, op: str, buffer: int, element: int) -> None:
        self.device = inner.device
        self._inner, self._op, self._buffer, self._element = inner, op, buffer, element

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, steps: Any, read: Any = ()) -> list[Any]:
        out = [array.copy() for array in self._inner.execute(steps, read)]
        if steps and steps[0].op == self._op:
            dtype = out[self._buffer].dtype
            out[self._buffer].flat[self._element] ^= dtype.type(1 << 17 % (8 * dtype.itemsize))
        return out


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("element", [0, -1])
def test_harness_sees_one_flipped_bit_in_any_buffer(
    op: str, element: int, chosen: scgpu.Device, oracle: Backend
) -> None:
    for buffer in range(len(OPS[op].buffers)):
        broken: Any = Flipped(backend_of(chosen), op, buffer, element)
        for case in parity.cases(op, 3, 0):
            if not case.buffers[buffer].size:
                continue  # prefix with no order has nothing to flip there
            assert parity.wrong_words(case, case.run(broken), oracle) == 1
            assert parity.wrong_words(case, case.run(backend_of(chosen)), oracle) == 0


def test_assert_parity_fails_on_a_flipped_bit(
    chosen: scgpu.Device, oracle: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Flipped(backend_of(chosen), "count", 1, 0)
    monkeypatch.setattr("conftest.backend_of", lambda device: broken)
    with pytest.raises(AssertionError):
        assert_parity("count", chosen, oracle, number=1)


def test_harness_sees_a_word_that_was_not_written(oracle: Backend) -> None:
    for op in OPS:
        # some cases have nothing to write: no spikes, or an empty range of words
        assert any(
            parity.wrong_words(case, [array.copy() for array in case.buffers], oracle) > 0
            for case in parity.cases(op, 5, 0)
        ), op


def test_cases_are_the_same_for_the_same_seed() -> None:
    for op in OPS:
        first, again, other = (list(parity.cases(op, 3, seed)) for seed in (5, 5, 6))
        assert [case.params for case in first] == [case.params for case in again]
        assert all(
            np.array_equal(a, b)
            for c, d in zip(first, again, strict=True)
            for a, b in zip(c.buffers, d.buffers, strict=True)
        )
        assert [case.params for case in first] != [case.params for case in other]


def test_cases_reach_the_edges() -> None:
    lengths, polarities, operations = set(), set(), set()
    for case in parity.cases("encode", 200, 0):
        lengths.add(64 * (case.params["word_count"] - 1) + case.params["tail_bits"])
    for case in parity.cases("dense", 100, 0):
        polarities.add((case.params["bipolar"], case.params["accumulate"]))
    for case in parity.cases("bitwise", 100, 0):
        operations.add(case.params["operation"])
    assert lengths == set(parity.LENGTHS)
    assert len(polarities) == 4 and operations == {0, 1, 2, 3}


def test_parity_command_reports_a_flipped_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(device: scgpu.Device) -> Any:
        inner = backend_of(device)
        return Flipped(inner, "dense", 2, 0) if device.kind == "cpu" else inner

    monkeypatch.setattr(parity, "backend_of", broken)
    assert cli.main(["parity", "--device", "cpu", "--cases", "2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["cases"] == 2 * len(OPS) and found["wrong"] == 2
    assert found["devices"][0]["wrong"]["dense"] == 2
    assert cli.main(["parity", "--device", "cpu", "--cases", "2"]) == 1
    assert "2 WRONG" in capsys.readouterr().out
