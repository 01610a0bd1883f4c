"""Fixtures: every device of this machine, the oracle, the vectors.

A test that takes ``chosen`` runs once on each GPU adapter and each SIMD tier. Without a
GPU adapter one of them fails, unless ``--no-gpu`` says that this is meant;
so do the tests that need Valgrind without it, unless ``--no-valgrind`` does;
``SCGPU_EXPECT_ADAPTERS`` (comma-separated backends) says which adapters must be there.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import builds
import numpy as np
import pytest
from hypothesis import settings

import scgpu
from scgpu import parity
from scgpu.backend import Backend
from scgpu.devices import backend_of

VECTORS = Path(__file__).parent / "vectors"

settings.register_profile("scgpu", deadline=None, max_examples=int(os.environ.get("SCGPU_EXAMPLES", "30")))
settings.load_profile("scgpu")


# Shells start what runs in the background with Ctrl-C ignored, and tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests neither read nor write what was tuned for this machine.
os.environ["SCGPU_CACHE_DIR"] = tempfile.mkdtemp(prefix="scgpu-tests-")
atexit.register(shutil.rmtree, os.environ["SCGPU_CACHE_DIR"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-gpu", action="store_true", help="run without any GPU adapter; only the CPU is tested")
    parser.addoption("--no-valgrind", action="store_true", help="do not run the native kernels under Valgrind")


def _missing_adapters() -> list[str]:
    """Expected GPU backends that this machine lacks."""
    expected = [name.strip() for name in os.environ.get("SCGPU_EXPECT_ADAPTERS", "").split(",") if name.strip()]
    found = [device.backend for device in scgpu.devices() if device.kind == "gpu"]
    if not expected and not found:
        return ["any"]
    return [name for name in expected if name not in found]


def _label(device: scgpu.Device) -> str:
    return f"{device.backend}-{device.index}" if device.kind == "gpu" else f"cpu-{device.tier}"


def pytest_report_header(config: pytest.Config) -> list[str]:
    from scgpu import _cpu

    untested = [tier for tier in _cpu._tiers() if tier not in scgpu.simd_tiers()]
    lines = ["scgpu devices: " + ", ".join(str(device) for device in parity.all_devices())]
    if untested:
        lines.append("SIMD tiers NOT RUN (this processor cannot): " + ", ".join(untested))
    if config.getoption("--no-gpu"):
        lines.append("GPU adapters NOT RUN (--no-gpu)")
    if config.getoption("--no-valgrind"):
        lines.append("Valgrind NOT RUN (--no-valgrind)")
    return [*lines, *(f"missing: {problem}" for problem in scgpu.problems())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    no_gpu = metafunc.config.getoption("--no-gpu")
    for fixture, wanted in (("chosen", ("gpu", "cpu")), ("everywhere", ("gpu", "cpu")), ("gpu", ("gpu",))):
        if fixture not in metafunc.fixturenames:
            continue
        devices: list[Any] = [d for d in parity.all_devices() if d.kind in wanted and not (no_gpu and d.kind == "gpu")]
        if fixture == "everywhere":
            devices = [d for d in devices if d.kind == "gpu" or d.tier == scgpu.simd_tiers()[-1]]
        missing = [] if no_gpu else _missing_adapters()
        metafunc.parametrize(
            fixture,
            devices + missing,
            ids=[*map(_label, devices), *(f"missing-{name}" for name in missing)],
            indirect=True,
        )


def pytest_collection_finish(session: pytest.Session) -> None:
    if builds.ALONE and len(session.items) > builds.WHOLE_RUN and not session.config.option.collectonly:
        for module in dict.fromkeys(getattr(item, "module", None) for item in session.items):
            for make, *arguments in getattr(module, "BUILDS", ()):
                builds.start(make, *arguments)


def pytest_sessionfinish() -> None:
    builds.stop()


def _present(device: scgpu.Device | str) -> scgpu.Device:
    if isinstance(device, str):
        pytest.fail(f"no GPU adapter ({device}): install a Vulkan driver, or ask for --no-gpu")
    return device


@pytest.fixture(scope="session")
def chosen(request: pytest.FixtureRequest) -> scgpu.Device:
    """A GPU adapter, or the CPU at one SIMD tier."""
    return _present(request.param)


@pytest.fixture(scope="session")
def everywhere(request: pytest.FixtureRequest) -> scgpu.Device:
    """A GPU adapter, or the CPU at its fastest tier, where tiers make no difference."""
    return _present(request.param)


@pytest.fixture(scope="session")
def gpu(request: pytest.FixtureRequest) -> scgpu.Device:
    """A GPU adapter."""
    return _present(request.param)


@pytest.fixture(scope="session")
def oracle() -> Backend:
    """The NumPy oracle."""
    return backend_of(scgpu.device("numpy"))


@pytest.fixture(scope="session")
def vectors() -> dict[str, np.ndarray[Any, Any]]:
    """``vectors/contract1.npz``."""
    with np.load(VECTORS / "contract1.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="session")
def golden() -> dict[str, dict[str, dict[str, np.ndarray[Any, Any]]]]:
    """Vectors of the reference system: file -> case -> field -> array."""
    files: dict[str, dict[str, dict[str, np.ndarray[Any, Any]]]] = {}
    for path in sorted((VECTORS / "golden").glob("*.npz")):
        cases = files.setdefault(path.stem, {})
        with np.load(path, allow_pickle=False) as stored:
            for key in stored.files:
                case, _, field = key.rpartition("/")
                cases.setdefault(case, {})[field] = stored[key]
    return files


def assert_parity(op: str, chosen: scgpu.Device, oracle: Backend, number: int = 40, seed: int = 1) -> None:
    """``number`` random cases of an operation equal the oracle's, guards and inputs included."""
    backend = backend_of(chosen)
    for case in parity.cases(op, number, seed):
        assert parity.wrong_words(case, case.run(backend), oracle) == 0, case
