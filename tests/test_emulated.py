"""SIMD tiers under an emulator, against the oracle: those of other processors, and all that Valgrind knows.

Every buffer ends at a guard page (``cpu_ref/emulate.zig``), as long as the kernel may touch and no longer.
Valgrind's memcheck also sees what depends on memory that nobody has written.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build_cpu_ref
import builds
import numpy as np
import pytest
from guard_pages import exact

from scgpu import parity
from scgpu._abi import OPS
from scgpu.backend import Backend

MEMCHECK = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=no")

# name -> emulator, its Debian package, tier. AVX-512 has no emulator in Debian.
EMULATED = {
    "aarch64": (("qemu-aarch64",), "qemu-user", "aarch64"),
    "x86_64_v3": (("qemu-x86_64",), "qemu-user", "x86_64_v3"),
    "memcheck-x86_64_v2": (MEMCHECK, "valgrind", "x86_64_v2"),
    "memcheck-x86_64_v3": (MEMCHECK, "valgrind", "x86_64_v3"),
}
CASES = 25


class EmulatorError(Exception):
    """The program ended with a status other than 0: a crash, a refusal, or what memcheck found."""


Runner = Callable[[list[parity.Case]], list[list[np.ndarray[Any, Any]]]]


def message(case: parity.Case) -> bytes:
    """The call in the format of ``cpu_ref/emulate.zig``."""
    parts = [struct.pack("<I", list(OPS).index(case.op)), struct.pack(f"<{len(case.params)}I", *case.params.values())]
    for array in case.buffers:
        parts += [struct.pack("<Q", array.size), array.tobytes()]
    return b"".join(parts)


def executable(tier: str) -> Path:
    """The kernels of a tier as a program."""
    folder = builds.FOLDER / f"emulated-{tier}"
    folder.mkdir()
    (folder / "tier.zig").write_text(f'pub const name = "{tier}";\n')
    if tier in build_cpu_ref.X86_64_TIERS:
        flags = ["-target", "x86_64-linux-none", "-mcpu", build_cpu_ref.X86_64_TIERS[tier], "-fvalgrind"]
    else:
        flags = ["-target", f"{tier}-linux-none", "-mcpu", build_cpu_ref.OTHER_TIERS["baseline"]]
    modules = ["--dep", "tier", f"-Mroot={build_cpu_ref.SOURCE / 'emulate.zig'}", f"-Mtier={folder / 'tier.zig'}"]
    build_cpu_ref._zig("build-exe", "--name", "emulate", *flags, "-O", "fast", "-fstrip", *modules, cwd=folder)
    return folder / "emulate"


BUILDS = [
    (executable, tier)
    for tier in sorted({tier for emulator, _, tier in EMULATED.values() if shutil.which(emulator[0])})
]


@pytest.fixture(scope="module", params=EMULATED)
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs cases through the kernels of a tier, compiled for it and started in its emulator."""
    emulator, package, tier = EMULATED[request.param]
    if package == "valgrind" and request.config.getoption("--no-valgrind"):
        pytest.skip(f"NOT RUN: {request.param} (--no-valgrind)")
    if not shutil.which(emulator[0]):
        if package == "valgrind" or os.environ.get("SCGPU_EXPECT_EMULATED"):
            pytest.fail(f"{request.param} needs {emulator[0]}: apt install {package}")
        pytest.skip(f"NOT RUN: tier {request.param} needs {emulator[0]} (apt install {package})")
    program = builds.made(executable, tier)

    def run_cases(cases: list[parity.Case]) -> list[list[np.ndarray[Any, Any]]]:
        done = subprocess.run(
            [*emulator, str(program)], input=b"".join(map(message, cases)), capture_output=True, check=False
        )
        if done.returncode:
            raise EmulatorError(done.returncode, done.stderr.decode(errors="replace"))
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
    cases = [exact(case) for case in parity.cases(op, CASES, 2)]
    for case, got in zip(cases, run(cases), strict=True):
        assert parity.wrong_words(case, got, oracle) == 0, case


def test_emulated_tier_refuses_short_buffers(run: Runner) -> None:
    case = next(parity.cases("count", 1, 0))
    short = parity.Case(case.op, {**case.params, "stream_count": case.params["stream_count"] + 1000}, case.buffers)
    with pytest.raises(EmulatorError):
        run([short])
