"""The reference's layers: its documented GPU tests by name, its vectors, forwards that are one, refusals.

The names from test_gpu_layer_creation to test_gpu_adapter_name are those of the reference's list of eleven GPU
integration tests; where it allows 5 %, nothing but equality passes here.
"""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import GpuDenseLayer, VectorizedSCLayer, reference, reference_layers

SIZE = (64, 32)
FORWARDS = ("forward", "forward_fast", "forward_numpy")


def ramp(n: int) -> Any:
    return np.arange(n) / n


def test_gpu_layer_creation(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(*SIZE, device=gpu)
    assert (layer.n_inputs, layer.n_neurons, layer.length, layer.device) == (64, 32, 1024, gpu)
    assert layer.dense.seed == 24301 and layer.dense.max_batch == 256
    assert GpuDenseLayer.is_gpu_available() is True
    assert GpuDenseLayer(3, 2).device.kind == "gpu"


def test_gpu_output_shape(gpu: scgpu.Device) -> None:
    out = GpuDenseLayer(*SIZE, device=gpu).forward_fast([0.5] * 64, 42)
    assert out.shape == (32,) and out.dtype == np.float64


def test_gpu_output_non_negative(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(128, 64, 1024, 42, 1, device=gpu)
    assert layer.forward_fast(ramp(128)).min() >= 0
    assert layer.forward_batch(ramp(16 * 128), 16).min() >= 0


def test_gpu_output_range(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(128, 64, 1024, 42, 16, device=gpu)
    assert layer.forward_fast(ramp(128)).max() <= 128
    assert layer.forward_batch(ramp(16 * 128), 16).max() <= 128


def test_gpu_deterministic(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(*SIZE, device=gpu)
    first = layer.forward_fast(ramp(64), 42)
    assert np.array_equal(layer.forward_fast(ramp(64), 42), first)
    assert np.array_equal(GpuDenseLayer(*SIZE, device=gpu).forward_fast(ramp(64)), first)  # 42 is the default


@pytest.mark.parametrize("length", [1, 100, 1000, 4096])
def test_gpu_cpu_agreement(gpu: scgpu.Device, length: int) -> None:
    layer = GpuDenseLayer(*SIZE, length, 42, device=gpu)
    for device in ("cpu", "numpy"):
        plain = VectorizedSCLayer(*SIZE, length, seed=42, device=device)
        for seed in (0, 42, 2**64 - 1):
            assert np.array_equal(layer.forward_fast(ramp(64), seed), plain.forward_fast(ramp(64), seed))
        batch = layer.forward_batch(ramp(5 * 64), 5, 7)
        assert np.array_equal(batch, plain.forward_batch_numpy(ramp(5 * 64).reshape(5, 64), 7).reshape(-1))


def test_gpu_batch(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(*SIZE, max_batch=3, device=gpu)
    x = ramp(8 * 64)
    out = layer.forward_batch(x, 8, 42)  # more than max_batch, which the reference answers with a panic
    assert out.shape == (8 * 32,)
    assert np.array_equal(out[:32], layer.forward_fast(x[:64], 42))
    assert np.array_equal(layer.forward_batch(x.reshape(8, 64), 8), out)
    for row in range(8):
        alone = layer.dense.counts(x[64 * row : 64 * (row + 1)], 42, first_sample=row) * (1.0 / 1024)
        assert np.array_equal(out[32 * row : 32 * (row + 1)], alone)
    assert layer.forward_batch([], 0).shape == (0,)


def test_gpu_zero_inputs(gpu: scgpu.Device) -> None:
    assert not GpuDenseLayer(*SIZE, device=gpu).forward_fast(np.zeros(64)).any()


def test_gpu_all_ones(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(32, 16, 4096, 99, device=gpu)
    out = layer.forward_fast(np.ones(32))
    # nothing is left of the inputs: the ones of the weights' streams
    ones = layer.dense.packed_weights.count().sum(axis=1)
    assert np.array_equal(out, ones / 4096) and np.array_equal(out, layer.forward_fast(np.ones(32), 5))
    assert np.abs(out - layer.dense.weights.sum(axis=1)).max() < 6 * np.sqrt(32 / (4 * 4096))


def test_gpu_different_seeds(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(*SIZE, device=gpu)
    assert (layer.forward_fast([0.5] * 64, 1) != layer.forward_fast([0.5] * 64, 2)).any()
    assert (GpuDenseLayer(*SIZE, seed=1, device=gpu).forward_fast(ramp(64)) != layer.forward_fast(ramp(64))).any()


def test_gpu_adapter_name(gpu: scgpu.Device) -> None:
    name = GpuDenseLayer(*SIZE, device=gpu).gpu_name()
    assert name == gpu.name and name


def test_without_a_gpu_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_GPU_ADAPTER", "no such adapter")
    assert GpuDenseLayer.is_gpu_available() is False
    for make in (lambda: GpuDenseLayer(3, 2), lambda: VectorizedSCLayer(3, 2, use_gpu=True)):
        with pytest.raises(RuntimeError, match=r"^No GPU available\. Check Vulkan/Metal drivers\. SC_GPU_ADAPTER='no"):
            make()
    monkeypatch.delenv("SC_GPU_ADAPTER")
    nothing: Any = [], {}, ["wgpu found no adapter: install a Vulkan loader"]
    monkeypatch.setattr(sys.modules["scgpu.devices"], "_search", lambda: nothing)
    assert GpuDenseLayer.is_gpu_available() is False
    with pytest.raises(RuntimeError, match=r"drivers\. device 'gpu': no GPU .*install a Vulkan.* runs without one"):
        GpuDenseLayer(3, 2)


def test_golden_streams_and_counts(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    seen = 0
    for name, case in golden["dense"].items():
        if name.startswith("mac"):
            weights, inputs, counts = case["weights"], case["inputs"], case["counts"]
            n_neurons, n_inputs, words = weights.shape
            layer = VectorizedSCLayer(n_inputs, n_neurons, 64 * words, device=chosen)
            out = layer.forward_prepacked(inputs, weights=weights)
            assert np.array_equal(out, counts * (1.0 / (64 * words)))
            seen += 1
        elif name.startswith("lay"):
            weights, length = case["packed_weights"], int(case["length"])
            layer = VectorizedSCLayer(weights.shape[1], weights.shape[0], length, device=chosen)
            for inputs, expected in zip(case["packed_inputs"], case["out"], strict=True):
                # with garbage past the length, on purpose
                for forward in (layer.forward_prepacked, layer.forward_prepacked_numpy):
                    assert np.array_equal(forward(inputs, weights=weights), expected)
                assert np.array_equal(layer.forward_prepacked(inputs.tolist(), weights=weights.tolist()), expected)
            seen += 1
    assert seen > 8


def test_golden_weights_of_0_and_1(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    cases = [case for name, case in golden["dense"].items() if name.startswith("w01_")]
    assert len(cases) > 2
    for case in cases:
        n_neurons, n_inputs = case["weights01"].shape
        layer = VectorizedSCLayer(n_inputs, n_neurons, int(case["length"]), device=chosen)
        layer.set_weights(case["weights01"])
        for forward in (layer.forward_prepacked, layer.forward_prepacked_numpy):
            assert np.array_equal(forward(case["packed_inputs"]), case["out_prepacked"])
        for x, expected in zip(case["x01"], case["out_x01"], strict=True):
            for name in FORWARDS:
                assert np.array_equal(getattr(layer, name)(x), expected), name
            assert np.array_equal(layer.forward_prepacked(layer.batch_encode(x, layer.length)), expected)
        assert np.array_equal(layer.forward_batch_numpy(case["x01"]), case["out_x01"])


@given(
    n_inputs=st.integers(1, 9),
    n_neurons=st.integers(1, 9),
    length=st.sampled_from((1, 63, 64, 65, 130, 1000)),
    batch=st.integers(0, 4),
    seed=st.integers(0, 2**64 - 1),
)
def test_all_six_forwards_are_one(
    chosen: scgpu.Device, n_inputs: int, n_neurons: int, length: int, batch: int, seed: int
) -> None:
    layer = VectorizedSCLayer(n_inputs, n_neurons, length, device=chosen)
    x = np.random.default_rng(seed % 1000).random((batch, n_inputs))
    rows = layer.forward_batch_numpy(np.asfortranarray(x), seed)  # the reference reads it transposed
    assert rows.shape == (batch, n_neurons)
    for b in range(batch):
        for name in FORWARDS:
            assert np.array_equal(getattr(layer, name)(x[b].tolist(), seed, first_sample=b), rows[b]), name
    if batch:
        for encoded in (
            reference.batch_encode(x[0], length, seed, device=chosen),
            layer.batch_encode_numpy(x[0], length, seed),
            scgpu.encode(x[0], length, seed, device="numpy"),
        ):
            for forward in (layer.forward_prepacked, layer.forward_prepacked_numpy):
                assert np.array_equal(forward(encoded), rows[0])
        values = layer.dense.values_of(layer.dense.counts(x, seed))
        assert np.allclose(rows, values, rtol=3e-16, atol=0)


def test_values_are_counts_times_the_reciprocal() -> None:
    layer = VectorizedSCLayer(49, 1, 49)
    layer.set_weights(np.ones((1, 49)))
    x = np.ones(49)
    assert layer.forward(x)[0] == 49 * 49 * (1.0 / 49) != 49.0 == layer.dense.forward(x)[0]


def test_default_seeds_are_those_of_the_reference() -> None:
    layer, x = VectorizedSCLayer(5, 3, device="cpu"), ramp(5)
    assert layer.dense.seed == 24301 and layer.length == 1024
    for name in FORWARDS:
        assert np.array_equal(getattr(layer, name)(x), layer.forward(x, 44257))
    assert np.array_equal(layer.forward_batch_numpy(x[None])[0], layer.forward(x))
    assert np.array_equal(layer.forward_prepacked(layer.batch_encode(x)), layer.forward(x))
    assert np.array_equal(reference.batch_encode_numpy(x), layer.batch_encode_numpy(x, 1024, 44257))


def test_weights(chosen: scgpu.Device) -> None:
    layer = VectorizedSCLayer(3, 2, 100, device=chosen)
    before, x = layer.get_weights(), [0.1, 0.5, 0.9]
    first = layer.forward(x)
    before[:] = 1  # a copy
    assert np.array_equal(layer.forward(x), first) and (layer.get_weights() < 1).all()
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0, 0] = 1.0
    layer.set_weights(before.tolist())
    counts = layer.batch_encode(x, 100)
    assert np.array_equal(layer.forward(x), [np.bitwise_count(counts).sum() * (1.0 / 100)] * 2)
    layer.refresh_packed_weights()
    layer.weights = np.zeros((2, 3))
    assert not layer.forward(x).any() and not layer.get_weights().any()
    for weights, error, text in (
        (np.zeros((3, 2)), ValueError, r"weights must have shape \(n_neurons, n_inputs\) = \(2, 3\); got \(3, 2\)"),
        ([[0.1, 0.2, np.nan]] * 2, ValueError, r"weights must lie in \[0, 1\]; got nan at index \(0, 2\)"),
        ([[0.1, 0.2, 1.5]] * 2, ValueError, r"got 1.5 at index \(0, 2\)"),
        ([["a"] * 3] * 2, TypeError, "weights must hold real numbers"),
        ([[1.0], [1.0, 2.0]], TypeError, "weights must be an array of numbers"),
    ):
        with pytest.raises(error, match=text):
            layer.set_weights(weights)
        assert not layer.get_weights().any()


def test_where_a_layer_runs(gpu: scgpu.Device) -> None:
    assert VectorizedSCLayer(2, 2).device == scgpu.device("cpu")
    assert VectorizedSCLayer(2, 2, use_gpu=True).device.kind == "gpu"
    assert VectorizedSCLayer(2, 2, use_gpu=True, device=gpu).device == gpu
    assert repr(VectorizedSCLayer(2, 3, device="numpy")) == (
        "VectorizedSCLayer(2, 3, length=1024, device='numpy [NumPy]')"
    )
    assert VectorizedSCLayer.set_num_threads is scgpu.set_num_threads
    assert VectorizedSCLayer.simd_tier() == scgpu.simd_tier()


VECTORIZED = VectorizedSCLayer(3, 2, 100)
WORDS = np.zeros((3, 2), np.uint64)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: VECTORIZED.forward([0.1, 0.2]), ValueError, r"inputs must have shape \(3,\); got \(2,\)"),
        (lambda: VECTORIZED.forward_fast([[0.1, 0.2, 0.3]]), ValueError, r"got \(1, 3\)\. Use the batch"),
        (lambda: VECTORIZED.forward_numpy([0.1, np.nan, 0.3]), ValueError, r"got nan at index \(1,\)"),
        (lambda: VECTORIZED.forward([0.1, 1.1, 0.3]), ValueError, r"inputs must lie in \[0, 1\]; got 1.1"),
        (lambda: VECTORIZED.forward(["a"] * 3), TypeError, "inputs must hold real numbers"),
        (lambda: VECTORIZED.forward([0.1, 0.2, 0.3], -1), ValueError, "seed must be from 0"),
        (lambda: VECTORIZED.forward_batch_numpy([0.1, 0.2, 0.3]), ValueError, r"shape \(batch, 3\); got \(3,\)"),
        (lambda: VECTORIZED.forward_batch_numpy([[0.1]]), ValueError, r"shape \(batch, 3\); got \(1, 1\)"),
        (
            lambda: VECTORIZED.forward_prepacked(WORDS[:2]),
            ValueError,
            r"packed_inputs must have shape \(3, 2\) for len",
        ),
        (lambda: VECTORIZED.forward_prepacked(WORDS.astype(float)), TypeError, "packed_inputs must be an ndarray of u"),
        (lambda: VECTORIZED.forward_prepacked([[-1, 0]] * 3), ValueError, r"packed_inputs\[0, 0\] must be from 0"),
        (lambda: VECTORIZED.forward_prepacked(7), TypeError, "packed_inputs must be an array of uint64, or lists"),
        (
            lambda: VECTORIZED.forward_prepacked_numpy(WORDS, weights=WORDS),
            ValueError,
            r"weights must have shape \(2, 3, 2\) for length=100; got \(3, 2\)",
        ),
        (
            lambda: VECTORIZED.forward_prepacked(scgpu.encode([0.1] * 2, 100, device="cpu")),
            ValueError,
            r"packed_inputs must have shape \(3,\); got \(2,\)",
        ),
        (
            lambda: VECTORIZED.forward_prepacked(scgpu.encode([0.1] * 3, 99, device="cpu")),
            ValueError,
            "must have the layer's length 100; got 99",
        ),
        (lambda: VECTORIZED.batch_encode([[0.1]]), ValueError, r"probs must have shape \(n,\); got \(1, 1\)"),
        (lambda: reference.batch_encode_numpy([1.5]), ValueError, r"probs must lie in \[0, 1\]; got 1.5"),
        (lambda: VectorizedSCLayer(0, 2), ValueError, "n_inputs must be from 1"),
        (lambda: VectorizedSCLayer(2, 2, 0), ValueError, "length must be from 1"),
        (lambda: VectorizedSCLayer(2, 2, use_gpu="yes"), TypeError, "use_gpu must be True or False; got 'yes'"),
        (
            lambda: VectorizedSCLayer(2, 2, use_gpu=True, device="cpu"),
            ValueError,
            "device must be a GPU adapter; got cpu",
        ),
        (lambda: GpuDenseLayer(2, 2, device="cpu"), ValueError, "device must be a GPU adapter; got cpu"),
        (lambda: GpuDenseLayer(2, 2, max_batch=0), ValueError, "max_batch must be from 1"),
    ],
)
def test_layers_reject(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_gpu_layer_rejects(gpu: scgpu.Device) -> None:
    layer = GpuDenseLayer(3, 2, device=gpu)
    for call, error, text in (
        (lambda: layer.forward_fast([0.1]), ValueError, r"inputs must have shape \(3,\); got \(1,\)"),
        (lambda: layer.forward_fast([0.1, 0.2, np.inf]), ValueError, "got inf at index"),
        (
            lambda: layer.forward_batch([0.1] * 5, 2),
            ValueError,
            r"n_samples \* n_inputs = 2 \* 3 numbers; got shape \(5,",
        ),
        (lambda: layer.forward_batch([0.1] * 3, 1.0), TypeError, "n_samples must be an integer"),
        (lambda: layer.forward_batch([0.1] * 3, -1), ValueError, "n_samples must be from 0"),
    ):
        with pytest.raises(error, match=text):
            call()


def test_layers_are_pickled_copied_and_saved(chosen: scgpu.Device, tmp_path: Path) -> None:
    x = ramp(5)
    kinds: list[Any] = [VectorizedSCLayer] + ([GpuDenseLayer] if chosen.kind == "gpu" else [])
    for kind in kinds:
        layer = kind(5, 3, 100, device=chosen)
        expected = layer.forward_fast(x)
        layer.save(tmp_path / "layer")
        twins = [pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)]
        twins.append(kind.load(tmp_path / "layer", device=chosen))
        for twin in twins:
            assert type(twin) is kind and twin.device == chosen
            assert np.array_equal(twin.forward_fast(x), expected)
            twin.dense.weights = np.zeros((3, 5))  # its own
            assert np.array_equal(layer.forward_fast(x), expected) and not twin.forward_fast(x).any()
        loaded = scgpu.DenseLayer.load(tmp_path / "layer", "numpy")
        assert np.array_equal(loaded.counts(x, 44257), layer.dense.counts(x, 44257))
    assert VectorizedSCLayer.load(tmp_path / "layer").device == scgpu.device("cpu")
    scgpu.DenseLayer(2, 2, polarity="bipolar", device="cpu").save(tmp_path / "bipolar")
    with pytest.raises(ValueError, match="VectorizedSCLayer needs a unipolar layer; that of the file is bipolar"):
        VectorizedSCLayer.load(tmp_path / "bipolar")


def test_every_public_method_of_the_issue_is_there() -> None:
    names = "forward forward_fast forward_numpy forward_prepacked forward_prepacked_numpy forward_batch_numpy"
    more = "get_weights set_weights refresh_packed_weights batch_encode batch_encode_numpy set_num_threads simd_tier"
    for name in (*names.split(), *more.split()):
        assert callable(getattr(VectorizedSCLayer, name)), name
    for name in ("batch_encode", "batch_encode_numpy"):
        assert getattr(reference, name) is getattr(reference_layers, name)
