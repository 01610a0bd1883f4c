"""SIMD tiers of other processors, under an emulator (Debian: qemu-user), against the oracle."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build_cpu_ref
import numpy as np
import pytest

from scgpu import parity
from scgpu._abi import OPS
from scgpu.backend import Backend

# tier -> emulator, Zig target, CPU. AVX-512 has no emulator in Debian.
EMULATED = {
    "aarch64": ("qemu-aarch64", "aarch64-linux-none", build_cpu_ref.OTHER_TIERS["baseline"]),
    "x86_64_v3": ("qemu-x86_64", "x86_64-linux-none", build_cpu_ref.X86_64_TIERS["x86_64_v3"]),
}
CASES = 25

Runner = Callable[[list[parity.Case]], list[list[np.ndarray[Any, Any]]]]


def message(case: parity.Case) -> bytes:
    """The call in the format of ``cpu_ref/emulate.zig``."""
    parts = [struct.pack("<I", list(OPS).index(case.op)), struct.pack(f"<{len(case.params)}I", *case.params.values())]
    for array in case.buffers:
        parts += [struct.pack("<Q", array.size), array.tobytes()]
    return b"".join(parts)


@pytest.fixture(scope="module", params=EMULATED)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs cases through the kernels of a tier, compiled for it and started in its emulator."""
    emulator, target, cpu = EMULATED[request.param]
    if not shutil.which(emulator):
        if os.environ.get("SCGPU_EXPECT_EMULATED"):
            pytest.fail(f"SCGPU_EXPECT_EMULATED is set and {emulator} is missing: apt install qemu-user")
        pytest.skip(f"NOT RUN: tier {request.param} needs {emulator} (apt install qemu-user)")
    folder: Path = tmp_path_factory.mktemp("emulated")
    (folder / "tier.zig").write_text(f'pub const name = "{request.param}";\n')
    flags = ["-target", target, "-mcpu", cpu, "-O", "fast", "-fstrip"]
    modules = ["--dep", "tier", f"-Mroot={build_cpu_ref.SOURCE / 'emulate.zig'}", f"-Mtier={folder / 'tier.zig'}"]
    build_cpu_ref._zig("build-exe", "--name", "emulate", *flags, *modules, cwd=folder)

    def run_cases(cases: list[parity.Case]) -> list[list[np.ndarray[Any, Any]]]:
        done = subprocess.run(
            [emulator, str(folder / "emulate")], input=b"".join(map(message, cases)), capture_output=True, check=True
        )
        out, position = [], 0
        for case in cases:
            buffers = []
            for array in case.buffers:
                buffers.append(np.frombuffer(done.stdout, array.dtype, array.size, position))
                position += array.nbytes
            out.append(buffers)
        assert position == len(done.stdout)
        return out

    return run_cases


@pytest.mark.parametrize("op", OPS)
def test_emulated_tier_parity(op: str, run: Runner, oracle: Backend) -> None:
    cases = list(parity.cases(op, CASES, 2))
    for case, got in zip(cases, run(cases), strict=True):
        assert parity.wrong_words(case, got, oracle) == 0, case


def test_emulated_tier_refuses_short_buffers(run: Runner) -> None:
    case = next(parity.cases("count", 1, 0))
    short = parity.Case(case.op, {**case.params, "stream_count": case.params["stream_count"] + 1000}, case.buffers)
    with pytest.raises(subprocess.CalledProcessError):
        run([short])
