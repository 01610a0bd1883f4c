"""Devices: the list, selectors, environment variables, machines that lack something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import scgpu
from scgpu import _cpu, _gpu, devices
from scgpu._abi import OPS
from scgpu.backend import DTYPES, Step
from scgpu.devices import backend_of

SOURCE = Path(__file__).parent.parent


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with variables set; an empty value removes one."""
    env = {**os.environ, **environment}
    for name in [name for name, value in environment.items() if not value]:
        del env[name]
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120, check=False
    )


@pytest.fixture
def fake_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five adapters of every kind, in an order that is not the preferred one."""
    kinds = (
        ("llvmpipe", "Vulkan", "CPU"),
        ("Intel Iris", "Vulkan", "IntegratedGPU"),
        ("NVIDIA H200", "Vulkan", "DiscreteGPU"),
        ("Virtio", "Vulkan", "VirtualGPU"),
        ("NVIDIA H200", "OpenGL", "DiscreteGPU"),
    )
    found = [scgpu.Device(i, "gpu", name, backend, kind) for i, (name, backend, kind) in enumerate(kinds)]
    module: Any = sys.modules["scgpu.devices"]
    monkeypatch.setattr(module, "_found", (found, {}, []))
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)


def test_devices_lists_adapters_then_cpu_then_numpy() -> None:
    found = scgpu.devices()
    assert [device.index for device in found] == list(range(len(found)))
    assert [device.kind for device in found[-2:]] == ["cpu", "numpy"]
    assert all(device.kind == "gpu" for device in found[:-2])
    assert found[-2].tier == scgpu.simd_tier() and found[-2].threads == scgpu.num_threads()
    for device in found[:-2]:
        assert device.limits["max-storage-buffer-binding-size"] >= 1 << 27
        assert device.driver and device.backend and device.type


def test_gpu_asks_for_the_adapters_own_limits(gpu: scgpu.Device) -> None:
    backend: Any = backend_of(gpu)
    for name in ("max-storage-buffer-binding-size", "max-buffer-size", "max-compute-workgroups-per-dimension"):
        assert backend._gpu.limits[name] == gpu.limits[name]
    assert backend is backend_of(scgpu.device(gpu.index))


@pytest.mark.usefixtures("fake_adapters")
@pytest.mark.parametrize(
    ("selector", "variable", "expected"),
    [
        ("auto", "", 2),
        ("gpu", "", 2),
        ("AUTO ", "", 2),
        ("auto", "iris", 1),
        ("gpu", "opengl", 4),
        ("auto", "3", 3),
        ("auto", "CPU", 0),
        ("iris", "", 1),
        ("nvidia", "", 2),
        ("OpenGL", "", 4),
        ("integrated", "", 1),
        (3, "", 3),
        ("3", "", 3),
        ("cpu", "iris", 5),
        ("numpy", "iris", 6),
    ],
)
def test_device_selects(selector: Any, variable: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv("SC_GPU_ADAPTER", variable)
    assert scgpu.device(selector).index == expected


@pytest.mark.usefixtures("fake_adapters")
def test_device_selects_simd_tiers() -> None:
    for tier in scgpu.simd_tiers():
        assert scgpu.device(f"cpu:{tier}").tier == tier
    assert scgpu.device(scgpu.device("numpy")) == scgpu.device("numpy")


def test_auto_prefers_the_cpu_to_a_software_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    software = scgpu.Device(0, "gpu", "llvmpipe", "Vulkan", "CPU")
    monkeypatch.setattr(sys.modules["scgpu.devices"], "_found", ([software], {}, []))
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    assert scgpu.device("auto").kind == "cpu"
    assert scgpu.device("gpu") == software
    monkeypatch.setenv("SC_GPU_ADAPTER", "LLVM")
    assert scgpu.device("auto") == software


def test_auto_runs_on_what_it_chooses(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    assert scgpu.encode([0.5]).device == scgpu.device("auto")
    monkeypatch.setenv("SC_GPU_ADAPTER", str(gpu.index))
    assert scgpu.encode([0.5]).device == scgpu.device("auto") == gpu
    monkeypatch.delenv("SC_GPU_ADAPTER")
    devices = sys.modules["scgpu.devices"]
    hardware = scgpu.Device(1, "gpu", "iris", "Vulkan", "IntegratedGPU")
    monkeypatch.setattr(devices, "_found", ([scgpu.Device(0, "gpu", "llvmpipe", "Vulkan", "CPU"), hardware], {}, []))
    monkeypatch.setattr(devices, "FailoverBackend", lambda chosen, *_: chosen)
    monkeypatch.setattr(devices, "_surviving", {})
    assert devices.backend_for("auto") == hardware


def test_gpu_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["scgpu.devices"], "_found", ([], {}, ["wgpu found no adapter: install one"]))
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    with pytest.raises(
        scgpu.DeviceError, match=r"no GPU adapter is usable; usable are 0: cpu .*, 1: numpy .*; wgpu found no"
    ):
        scgpu.device("gpu")
    assert scgpu.device("auto").kind == "cpu"


@pytest.mark.usefixtures("fake_adapters")
@pytest.mark.parametrize(
    ("selector", "error", "message"),
    [
        (
            "radeon",
            scgpu.DeviceError,
            r"device 'radeon' matches no GPU adapter; usable are 0: llvmpipe \[Vulkan\], 1: Intel",
        ),
        (99, scgpu.DeviceError, "device 99: there is no such index; usable are"),
        ("99", scgpu.DeviceError, "there is no such index"),
        (-1, scgpu.DeviceError, "there is no such index"),
        ("", scgpu.DeviceError, "matches no GPU adapter"),
        ("cpu:sse9", scgpu.DeviceError, "there is no such tier; usable here: "),
        (None, TypeError, "device must be a name, an index or a Device; got None"),
        (True, TypeError, "device must be a name"),
        (1.5, TypeError, "device must be a name"),
    ],
)
def test_device_rejects(selector: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.device(selector)


@pytest.mark.usefixtures("fake_adapters")
@pytest.mark.parametrize("variable", ["radeon", "17"])
def test_adapter_variable_without_match_is_an_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_GPU_ADAPTER", variable)
    for selector in ("auto", "gpu"):
        with pytest.raises(scgpu.DeviceError, match=f"SC_GPU_ADAPTER='{variable}' matches no GPU adapter; usable are"):
            scgpu.device(selector)


def test_device_of_another_machine_is_refused() -> None:
    with pytest.raises(scgpu.DeviceError, match="is not a device of this machine; usable are"):
        backend_of(scgpu.Device(40, "gpu", "Voodoo", "Vulkan", "DiscreteGPU"))


def test_simd_tier_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for tier in scgpu.simd_tiers():
        monkeypatch.setenv("SCGPU_SIMD_TIER", tier)
        assert scgpu.simd_tier() == tier and scgpu.device("cpu").tier == tier
    monkeypatch.setenv("SCGPU_SIMD_TIER", "x86_64_v9")
    with pytest.raises(scgpu.DeviceError, match=r"SCGPU_SIMD_TIER='x86_64_v9': there is no such tier; usable here: "):
        scgpu.simd_tier()
    with pytest.raises(scgpu.DeviceError, match="SCGPU_SIMD_TIER"):
        scgpu.encode([0.5], device="cpu")


def test_tier_that_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = list(_cpu._tiers())[-1]
    monkeypatch.setattr(_cpu, "_tiers", lambda: {"baseline": True, name: False})
    monkeypatch.setenv("SCGPU_SIMD_TIER", name)
    with pytest.raises(scgpu.DeviceError, match=f"SCGPU_SIMD_TIER='{name}': this processor cannot run it"):
        scgpu.simd_tier()


def test_native_library_refuses_what_does_not_fit() -> None:
    lib = _cpu.library()

    def packed(op: str, **values: int) -> bytes:
        return _cpu.CALLS[op].pack(*(values.get(name, 0) for name in fields(op)))

    def fields(op: str) -> list[str]:
        buffers = [(buffer.name, f"{buffer.name}_len") for buffer in OPS[op].buffers]
        return [*OPS[op].params, *(name for pair in buffers for name in pair)]

    sizes = {"stream_count": 2, "word_count": 3, "segment_words": 3, "segment_count": 1, "words_len": 6}
    short = packed("count", **sizes, counts_len=1)
    assert lib.count(0, short) == 1  # short buffer: refused before any pointer is read
    assert lib.count(99, short) == 1
    assert lib.count(99, packed("count", **sizes, counts_len=2)) == 4  # null: refused before the tier is looked for
    assert lib.count(99, packed("count", **sizes, counts_len=2, words=4096, counts=4096)) == 2  # no such tier
    none = packed("dense", sample_count=0, neuron_count=1, count_stride=1, counts_len=0)
    assert lib.dense(0, none) == 1  # sizes that are differences do not wrap
    assert lib.scgpu_tier_name(99) is None and not lib.scgpu_tier_usable(99)


def test_steps_take_the_memory_that_was_meant() -> None:
    backend = backend_of(scgpu.device("cpu"))
    params = {"stream_count": 2, "word_count": 3, "segment_words": 3, "segment_count": 1}
    words = np.arange(12, dtype=np.uint64)
    expected = np.bitwise_count(words[:6]).reshape(2, 3).sum(axis=1)
    words.flags.writeable = False
    for _ in range(2):  # the second time from what was kept of the first
        counts = np.zeros(2, np.uint32)
        backend.execute([Step("count", params, (words, counts))])
        assert counts.tolist() == expected.tolist()
        with pytest.raises(ValueError, match=r"a buffer must be C-contiguous; got strides \(16,\)"):
            backend.execute([Step("count", params, (words[::2], counts))])
        with pytest.raises(ValueError, match="counts has 1 elements; 2 are needed"):
            backend.execute([Step("count", params, (words, counts[:1]))])
        with pytest.raises(TypeError, match="words must be u64; got uint32"):
            backend.execute([Step("count", params, (counts, counts))])


@pytest.mark.parametrize(("dtype", "size"), [("u64", 2048), ("u64", 5001), ("u32", 4099), ("u32", 10**6 + 1)])
def test_large_buffers_of_the_host_begin_at_a_cache_line(dtype: str, size: int) -> None:
    for _ in range(8):
        buffer = backend_of(scgpu.device("cpu")).empty(dtype, size)
        assert buffer.ctypes.data % 64 == 0 and buffer.shape == (size,) and buffer.dtype == DTYPES[dtype]
        buffer[:] = 1
        assert int(buffer.sum()) == size


def test_missing_library_leaves_the_rest_working() -> None:
    code = """
import scgpu, sys
from pathlib import Path
from scgpu import _cpu
_cpu.LIBRARY = Path("/nowhere/scgpu_cpu.so")
assert [d.kind for d in scgpu.devices()][-1] == "numpy" and "cpu" not in [d.kind for d in scgpu.devices()]
assert any("does not load" in text and "reinstall" in text for text in scgpu.problems())
assert scgpu.encode([1.0], 64, device="numpy").count() == 64
try:
    scgpu.encode([1.0], 64, device="cpu")
except scgpu.NativeLibraryError as error:
    assert "reinstall scgpu" in str(error)
    print("told")
"""
    done = python(code)
    assert done.stdout == "told\n", done.stderr


BROKEN_WGPU = """
import sys, types
class Broken(types.ModuleType):
    def __getattr__(self, name):
        raise OSError("no libwgpu")
sys.modules["wgpu"] = Broken("wgpu")
"""
NO_DRIVERS = dict.fromkeys(
    ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES", "LIBGL_DRIVERS_PATH"), "/none"
)


@pytest.mark.parametrize(
    "breakage",
    [
        "import sys; sys.modules['wgpu'] = None",
        BROKEN_WGPU,
        f"import os; os.environ.update({NO_DRIVERS})",
    ],
)
def test_without_gpu_the_cpu_works_and_info_says_why(breakage: str) -> None:
    code = f"""
{breakage}
import scgpu
assert scgpu.device("auto").kind == "cpu"
assert scgpu.encode([1.0], 64).count() == 64
assert len(scgpu.problems()) == 1
from scgpu.cli import main
status = main(["info"])
try:
    scgpu.device("gpu")
except scgpu.DeviceError as error:
    print("refused", error)
raise SystemExit(status)
"""
    done = python(code, SC_GPU_ADAPTER="")
    assert done.returncode == 0, done.stderr
    assert "wgpu" in done.stdout.split("missing")[1]
    assert "refused device 'gpu': no GPU adapter is usable" in done.stdout


def test_adapter_without_the_feature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        features: ClassVar[frozenset[str]] = frozenset()
        info: ClassVar[dict[str, str]] = {
            "device": "Old GPU",
            "backend_type": "Vulkan",
            "adapter_type": "DiscreteGPU",
            "description": "1.0",
        }
        limits: ClassVar[dict[str, int]] = {}

    monkeypatch.setattr(_gpu, "adapters", lambda: [Old()])
    monkeypatch.setattr(sys.modules["scgpu.devices"], "_found", None)
    assert [device.kind for device in scgpu.devices()] == ["cpu", "numpy"]
    assert any(
        "Old GPU [Vulkan] lacks the feature 'immediates': update its driver" in text for text in scgpu.problems()
    )


def test_import_is_quick_and_lazy() -> None:
    done = python("import sys, scgpu; print('wgpu' in sys.modules, 'matplotlib' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


def test_first_use_is_quiet() -> None:
    # Mesa's EGL complains on stderr where XDG_RUNTIME_DIR is not set
    done = python("import scgpu; print(len(scgpu.devices()))", XDG_RUNTIME_DIR="")
    assert done.returncode == 0 and done.stderr == ""
    done = python("import os, scgpu; scgpu.devices(); print('XDG_RUNTIME_DIR' in os.environ)", XDG_RUNTIME_DIR="")
    assert done.stdout == "False\n"


def test_module_is_reachable_beside_the_function() -> None:
    assert callable(devices) and sys.modules["scgpu.devices"].devices is devices
