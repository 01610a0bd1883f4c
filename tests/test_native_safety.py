"""The native library with every check of Zig's on, between guard pages, and its files' own unit tests.

Builds in other modes than the shipped one are kept in the user's cache folder, by digest of the sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_cpu_ref
import builds
import platformdirs
import pytest
from guard_pages import SIDES, Guarded, call, dies, exact
from test_threads import large_cases

import scgpu
from scgpu import _cpu, parity
from scgpu._abi import OPS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="NOT RUN: guard pages are made by mprotect")

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("safe", "debug")
CASES = 60
WEEK = 7 * 24 * 3600


def built(mode: str) -> Path:
    """The library in a mode, kept in the cache folder where that can be written."""
    sources = [*sorted(build_cpu_ref.SOURCE.glob("*.zig")), ROOT / "tools" / "build_cpu_ref.py"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = platformdirs.user_cache_path("scgpu-native")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = builds.FOLDER
    library = folder / f"{mode}-{digest}{_cpu.LIBRARY.suffix}"
    if not library.exists():
        unfinished = folder / f"{mode}-{os.getpid()}.part"
        build_cpu_ref.build(unfinished, mode=mode)
        unfinished.replace(library)
        for old in folder.glob(f"{mode}-*"):
            if time.time() - old.stat().st_mtime > WEEK:
                old.unlink(missing_ok=True)
    return library


BUILDS = [(built, mode) for mode in CHECKED]


@pytest.fixture(scope="module", params=("fast", *CHECKED))
def library(request: pytest.FixtureRequest) -> Path:
    """The shipped library, and the ones that check every sum, cast and index."""
    return _cpu.LIBRARY if request.param == "fast" else builds.made(built, request.param)


def python(code: str, library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code of the tests in a fresh interpreter."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tools", ROOT / "tests")))
    return subprocess.run(
        [sys.executable, *([code] if code.endswith(".py") else ["-c", code]), str(library), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_operation_between_guard_pages(library: Path) -> None:
    done = python(str(ROOT / "tests" / "guard_pages.py"), library, str(CASES))
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    found = json.loads(done.stdout)
    calls = (CASES * len(OPS) + len(large_cases())) * len(scgpu.simd_tiers()) * len(SIDES)
    assert found == {"calls": calls, "wrong": []}
    print(f"{library.name}: {calls} calls between guard pages, 0 wrong bits, 0 accesses outside")


@pytest.mark.parametrize("op", OPS)
def test_guard_pages_see_one_element_too_far(op: str) -> None:
    cases = [exact(case) for case in parity.cases(op, CASES, 3)]
    for index, buffer in enumerate(OPS[op].buffers):
        for side in SIDES:
            assert dies(cases, index, side), (buffer.name, side)


@pytest.mark.parametrize("op", OPS)
def test_a_buffer_one_element_short_is_refused(op: str) -> None:
    short_buffer = 1
    for case in parity.cases(op, 10, 4):
        whole = exact(case)
        for index, array in enumerate(whole.buffers):
            if array.size:
                buffers = (*whole.buffers[:index], array[:-1], *whole.buffers[index + 1 :])
                short = parity.Case(op, whole.params, buffers)
                assert call(0, short, [Guarded(one, "end") for one in buffers]) == short_buffer


OVERFLOW = """
import sys
from pathlib import Path
import numpy as np
from guard_pages import Guarded, call
from scgpu import _cpu, parity
from scgpu._abi import OPS
_cpu.LIBRARY = Path(sys.argv[1])
ones = {"stream_count", "word_count", "word_end", "input_count", "input_stride", "scale", "limit"}
params = {name: int(name in ones) for name in OPS["accumulate"].params} | {"tail_bits": 64}
held = 0x7fff_ffff  # above every limit: the first bit that is added overflows
buffers = (np.full(1, 2**64 - 1, np.uint64), np.full(1, held, np.int32), np.zeros(1, np.uint64))
print(call(0, parity.Case("accumulate", params, buffers), [Guarded(array, "end") for array in buffers]))
"""


@pytest.mark.parametrize("mode", CHECKED)
def test_checks_are_on(mode: str) -> None:
    done = python(OVERFLOW, builds.made(built, mode))
    assert done.returncode == -signal.SIGABRT and "integer overflow" in done.stderr, (done.stdout, done.stderr)


def unit_tests(mode: str, cpu: str, folder: Path) -> None:
    """Run the tests in the files of ``cpu_ref/``, compiled in a mode for a CPU."""
    folder.mkdir()
    flags = ["-O", mode, "-mcpu", cpu, *build_cpu_ref.CHECKED_FLAGS, "-fstrip"]
    build_cpu_ref._zig("test", *flags, str(build_cpu_ref.SOURCE / "tests.zig"), cwd=folder)


def test_unit_tests_of_the_files(tmp_path: Path) -> None:
    cpus = {**build_cpu_ref.X86_64_TIERS, **build_cpu_ref.OTHER_TIERS}
    usable = [cpus[tier] for tier in scgpu.simd_tiers()]
    runs = [("safe", usable[-1]), *(("debug", cpu) for cpu in usable)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda one: unit_tests(*one, tmp_path / "-".join(one)), runs):
            pass


def test_every_file_with_unit_tests_is_run() -> None:
    root = (build_cpu_ref.SOURCE / "tests.zig").read_text()
    for path in build_cpu_ref.SOURCE.glob("*.zig"):
        if path.name != "tests.zig":
            assert ('\ntest "' in path.read_text()) == (f'@import("{path.name}")' in root), path.name


def test_a_unit_test_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests.zig").write_text('test "wrong" {\n    return error.Wrong;\n}\n')
    monkeypatch.setattr(build_cpu_ref, "SOURCE", tmp_path)
    with pytest.raises(build_cpu_ref.BuildError, match="1 failed"):
        unit_tests("debug", "baseline", tmp_path / "run")
