"""The native library refuses every call whose parameters, lengths or addresses do not fit, and so does Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import fuzz_native
import numpy as np
import pytest

import scgpu
from scgpu import _abi, _cpu, parity
from scgpu.backend import DTYPES, Step, check_step

ROOT = Path(__file__).resolve().parent.parent
CASES = os.environ.get("SCGPU_FUZZ_NATIVE", "100")  # calls of each operation


def test_no_call_crashes_or_leaves_its_buffers() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "fuzz_native.py"), "--cases", CASES],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\nexit status {done.returncode}\n{done.stderr}"
    found = re.search(r"^(\d+) calls, none wrong$", done.stdout, re.M)
    assert found and int(found.group(1)) > len(_abi.OPS) * int(CASES) // 2
    for status in ("done", *(text for number, text in _cpu.STATUSES.items() if number != 2)):
        assert re.search(rf"{status}: [1-9]", done.stdout), status


@pytest.mark.parametrize("op", [name for name, op in _abi.OPS.items() if op.requires])
def test_python_refuses_the_same_parameters(op: str) -> None:
    refused: set[str] = set()
    for seed in range(4000):
        rng = np.random.default_rng(seed)
        params = dict(parity.MAKERS[op](rng).params)
        for name in rng.choice(_abi.OPS[op].params, 2):
            params[name] = int(rng.choice(np.array(fuzz_native.HOSTILE)))
        if all(_abi.OPS[op].conditions(*params.values())):
            continue
        # Buffers of nothing: the parameters are looked at first.
        buffers = tuple(np.empty(0, DTYPES[buffer.dtype]) for buffer in _abi.OPS[op].buffers)
        with pytest.raises(ValueError, match=f"{op} needs ") as caught:
            check_step(Step(op, params, buffers))
        refused.add(str(caught.value).partition("; got ")[0].removeprefix(f"{op} needs "))
        if refused == set(_abi.OPS[op].requires):
            return
    assert refused == set(_abi.OPS[op].requires)


def test_a_refused_call_says_why() -> None:
    step = Step("count", {}, ())
    assert "a buffer is too short" in str(_cpu._refused(step, 1))
    assert "status 77" in str(_cpu._refused(step, 77))


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_arrays_that_are_not_aligned_are_read_right(device: str) -> None:
    words = np.arange(1, 9, dtype="<u8")
    shifted = np.frombuffer(b"\xff" + words.tobytes(), "<u8", offset=1)
    assert not shifted.flags.aligned
    assert np.array_equal(scgpu.popcount(shifted.reshape(8, 1), device=device), np.bitwise_count(words))
    assert np.array_equal(
        scgpu.unpack(shifted.reshape(2, 4), 256, device=device), scgpu.unpack(words.reshape(2, 4), 256, device=device)
    )
    out = np.frombuffer(bytearray(9), "<u8", offset=1)
    with pytest.raises(ValueError, match="out must be"):
        scgpu.pack(np.ones((1, 64), np.uint8), out=out.reshape(1, 1), device=device)
