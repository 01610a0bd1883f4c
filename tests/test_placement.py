"""placement: what "auto" takes for a layer and why, rates measured once and remembered, the cache's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import cache, placement
from scgpu.backend import Device
from scgpu.placement import Rates, Shape

SLOW_START = Rates(call=300.0, encode=1000.0, weights=1e5, products=1e6, prefix=1e5, lookup=1e5)
PROCESSOR = Rates(call=5.0, encode=100.0, weights=2000.0, products=2e4, prefix=2e4, lookup=5e3)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(placement, "_known", {})
    return tmp_path


@pytest.fixture
def hardware(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> scgpu.Device:
    """The adapter, as if it were no program on the processor, and the best one."""
    monkeypatch.setattr(Device, "software", property(lambda device: device.kind == "gpu" and device != gpu))
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    assert scgpu.device("auto") == gpu
    return gpu


def test_shape_decides(hardware: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {hardware: SLOW_START, scgpu.device("cpu"): PROCESSOR}
    monkeypatch.setattr(placement, "_known", rates)
    small = scgpu.DenseLayer(16, 8, 64, max_batch=1)
    assert small.device.kind == "cpu" and str(hardware) in small.placement.reason
    assert "expected for one sample: cpu" in small.placement.reason
    large = scgpu.DenseLayer(300, 200, 1024)
    assert large.device == hardware and "expected for a batch of 256" in large.placement.reason
    assert placement.place("auto", Shape(300, 200, 1024, 256, shared=True)).device == hardware
    assert placement.place("auto", Shape(16, 8, 64, 1, shared=True)).device.kind == "cpu"
    # the same bits either way
    x = np.random.default_rng(0).random((3, 300))
    assert np.array_equal(large.counts(x), scgpu.DenseLayer(300, 200, 1024, device="cpu").counts(x))


def test_what_was_asked_for_is_taken(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(3, 2, 64, device=chosen)
    assert layer.device == chosen and layer.placement.reason == "asked for"
    monkeypatch.setenv("SC_GPU_ADAPTER", "cpu")  # a part of the software adapters' type
    layer = scgpu.DenseLayer(3, 2, 64)
    assert layer.device.kind == "gpu" and layer.placement.reason == "SC_GPU_ADAPTER=cpu"


def test_without_a_hardware_gpu_there_is_nothing_to_measure(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    monkeypatch.setattr(Device, "software", property(lambda device: device.kind == "gpu"))
    layer = scgpu.DenseLayer(3, 2, 64)
    assert layer.device.kind == "cpu" and layer.placement.reason == "there is no hardware GPU"
    assert not list(empty_cache.iterdir())


def test_a_gpu_that_cannot_be_measured_is_not_taken(hardware: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(backend: Any) -> Rates:
        if backend.device.kind == "gpu":
            raise scgpu.GpuError("lost")
        return PROCESSOR

    monkeypatch.setattr(placement, "measure", broken)
    layer = scgpu.DenseLayer(3, 2, 64)
    assert layer.device.kind == "cpu" and layer.placement.reason == f"{hardware} could not be measured (lost)"


def test_a_network_keeps_its_layers_on_one_device(hardware: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_known", {hardware: SLOW_START, scgpu.device("cpu"): PROCESSOR})
    layers = [scgpu.DenseLayer(300, 200, 1024), scgpu.DenseLayer(200, 2, 64, max_batch=1)]
    assert layers[0].device == hardware and layers[1].device.kind == "cpu"
    net = scgpu.Network(layers)
    assert {layer.device for layer in net.layers} == {hardware}
    x = np.random.default_rng(0).random((2, 300))
    own = [scgpu.DenseLayer(300, 200, 1024, device="cpu"), scgpu.DenseLayer(200, 2, 64, device="cpu")]
    assert np.array_equal(net.counts(x), scgpu.Network(own).counts(x))


def test_rates_are_measured_once(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = placement.rates_of(chosen)
    assert min(vars(rates).values()) > 0
    monkeypatch.setattr(placement, "measure", None)
    assert placement.rates_of(chosen) is rates
    monkeypatch.setattr(placement, "_known", {})
    assert placement.rates_of(chosen) == rates  # from the file
    assert placement.forget(chosen) and not placement.forget(chosen)
    with pytest.raises(TypeError):
        placement.rates_of(chosen)


def test_rates_of_another_number_of_threads_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = scgpu.device("cpu")
    monkeypatch.setattr(placement, "num_threads", lambda: 3)
    assert not cache.write("rates", placement._key(processor), vars(PROCESSOR))
    assert placement.load(processor) == PROCESSOR
    monkeypatch.setattr(placement, "num_threads", lambda: 4)
    assert placement.load(processor) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"key": 1, "measured": 2}', "[" * 100_000])
def test_damaged_files_are_as_good_as_none(content: str, empty_cache: Path) -> None:
    processor = scgpu.device("cpu")
    cache.write("rates", placement._key(processor), vars(PROCESSOR))
    (file,) = empty_cache.iterdir()
    file.write_text(content)
    assert placement.load(processor) is None


@pytest.mark.parametrize("change", [{"call": 0.0}, {"call": "fast"}, {"call": -1.0}, {"call": None}])
def test_impossible_rates_are_measured_again(change: dict[str, Any]) -> None:
    processor = scgpu.device("cpu")
    cache.write("rates", placement._key(processor), {**vars(PROCESSOR), **change})
    assert placement.load(processor) is None


def test_files_of_other_keys_are_not_taken(empty_cache: Path) -> None:
    assert not cache.write("rates", {"scgpu": "1"}, 5)
    assert cache.read("rates", {"scgpu": "1"}) == 5
    assert cache.read("rates", {"scgpu": "2"}) is None and cache.read("tuned", {"scgpu": "1"}) is None
    (file,) = empty_cache.iterdir()
    file.write_text(json.dumps({"key": {"scgpu": "2"}, "measured": 6}))
    assert cache.read("rates", {"scgpu": "1"}) is None
    assert cache.clear("rates", {"scgpu": "1"}) and not cache.clear("rates", {"scgpu": "1"})


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    assert "set SCGPU_CACHE_DIR to a folder that can" in cache.write("rates", {}, 1)
    assert placement.rates_of(scgpu.device("cpu")).call > 0


def test_longer_work_is_expected_to_take_longer() -> None:
    for shared in (False, True):
        base = Shape(64, 32, 1024, 16, shared)
        for more in ({"n_inputs": 128}, {"n_neurons": 64}, {"length": 4096}, {"batch": 32}):
            assert PROCESSOR.microseconds(Shape(**{**vars(base), **more})) > PROCESSOR.microseconds(base)
