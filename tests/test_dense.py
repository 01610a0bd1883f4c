"""dense: vectors, golden cases, parity, long rows, batches, the layer's life, refusals."""

from __future__ import annotations

import threading
from typing import Any

import make_vectors
import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import _abi, parity
from scgpu._abi import PASS_WORDS
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of


@pytest.mark.parametrize("name", make_vectors.DENSE)
def test_dense_matches_vectors(name: str, chosen: scgpu.Device, vectors: dict[str, Any]) -> None:
    n_inputs, n_neurons, batch, options = make_vectors.DENSE[name]
    layer = scgpu.DenseLayer(n_inputs, n_neurons, device=chosen, **options)
    x = make_vectors.inputs((batch, n_inputs), layer.polarity)
    assert np.array_equal(layer.weights, vectors[f"dense/{name}/weights"])
    assert np.array_equal(layer.packed_weights.words, vectors[f"dense/{name}/packed_weights"])
    assert np.array_equal(layer.counts(x, seed=5, first_sample=2), vectors[f"dense/{name}/counts"])
    assert np.array_equal(layer.forward(x, seed=5, first_sample=2), vectors[f"dense/{name}/values"])


def test_dense_matches_golden_counts(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    backend = backend_of(chosen)
    cases = [case for name, case in golden["dense"].items() if name.startswith("mac")]
    assert len(cases) > 3
    for case in cases:
        neurons, *row = case["weights"].shape
        row_words = int(np.prod(row))
        params = {
            "sample_count": 1,
            "neuron_count": neurons,
            "row_words": row_words,
            "word_begin": 0,
            "word_end": row_words,
            "count_offset": 0,
            "count_stride": neurons,
            "initial": 0,
            "accumulate": 0,
            "bipolar": 0,
        }
        counts = backend.empty("u32", neurons)
        buffers = (backend.upload(case["weights"]), backend.upload(case["inputs"]), counts)
        (out,) = backend.execute([Step("dense", params, buffers)], [counts])
        assert np.array_equal(out, case["counts"])


def test_dense_matches_golden_binary_layers(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    cases = [case for name, case in golden["dense"].items() if name.startswith("w01_")]
    assert len(cases) > 1
    for case in cases:
        neurons, inputs = case["weights01"].shape
        length = int(case["length"])
        layer = scgpu.DenseLayer(inputs, neurons, length, weights=case["weights01"], device=chosen)
        # the reference multiplies by the reciprocal of the length
        assert np.array_equal(layer.counts(case["x01"]) * (1.0 / length), case["out_x01"])


def test_dense_is_the_definition() -> None:
    for polarity in ("unipolar", "bipolar"):
        layer = scgpu.DenseLayer(5, 3, 77, polarity=polarity, device="numpy")  # type: ignore[arg-type]
        x = make_vectors.inputs((2, 5), polarity)
        streams = scgpu.encode(x, 77, 42, polarity=polarity, device="numpy").bits()  # type: ignore[arg-type]
        weights = layer.packed_weights.bits()
        for s in range(2):
            for n in range(3):
                equal = weights[n] == streams[s]
                products = equal if polarity == "bipolar" else weights[n] & streams[s]
                assert layer.counts(x)[s, n] == int(products.sum())


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_dense_exhaustively(length: int, polarity: Any, chosen: scgpu.Device) -> None:
    # every pair of streams of up to 4 bits, as one neuron and one sample each
    words = np.arange(2**length, dtype=np.uint64)[:, None]
    layer = scgpu.DenseLayer(1, 2**length, length, polarity=polarity, device=chosen)
    streams = scgpu.Bitstream.from_words(words[:, None], length, polarity=polarity, device=chosen)
    layer.streams.parts = [(0, streams)]  # type: ignore[attr-defined]
    counts = layer.counts_prepacked(scgpu.Bitstream.from_words(words[:, None], length, polarity=polarity))
    for x in range(2**length):
        for w in range(2**length):
            product = ~(x ^ w) & (2**length - 1) if polarity == "bipolar" else x & w
            assert counts[x, w] == product.bit_count()


def test_dense_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("dense", chosen, oracle, number=60)


VARIANTS = list(_abi.DENSE_VARIANTS)


def dense_case(samples: int, neurons: int, row_words: int, bipolar: int) -> parity.Case:
    """Whole rows of random words."""
    rng = np.random.default_rng([samples, neurons, row_words, bipolar])
    params = {
        "sample_count": samples,
        "neuron_count": neurons,
        "row_words": row_words,
        "word_begin": 0,
        "word_end": row_words,
        "count_offset": 3,
        "count_stride": neurons + 2,
        "initial": 64 * row_words if bipolar else 0,
        "accumulate": 0,
        "bipolar": bipolar,
    }
    inputs = {
        "weights": rng.integers(0, 2**64, neurons * row_words, dtype=np.uint64),
        "inputs": rng.integers(0, 2**64, samples * row_words, dtype=np.uint64),
        "counts": rng.integers(0, 2**32, 3 + samples * (neurons + 2), dtype=np.uint32),
    }
    return parity.make_case("dense", params, inputs)


@pytest.mark.parametrize("bipolar", [0, 1])
def test_dense_blocks_of_samples(bipolar: int, chosen: scgpu.Device) -> None:
    # more samples than a block of cpu_ref/dense.zig, rows whose panels are copied, and a rest of each
    samples, neurons, row_words = 133, 67, 8_300
    case = dense_case(samples, neurons, row_words, bipolar)
    weights, inputs, found = case.run(backend_of(chosen))
    weights = weights[: neurons * row_words].reshape(neurons, row_words)
    inputs = inputs[: samples * row_words].reshape(samples, row_words)
    for n, row in enumerate(weights):
        ones = np.bitwise_count(row ^ inputs if bipolar else row & inputs).sum(1)
        expected = 64 * row_words - ones if bipolar else ones
        assert np.array_equal(found[3 + n :: neurons + 2][:samples], expected), n


def assert_variant(name: str, case: parity.Case, gpu: scgpu.Device, oracle: Backend) -> bool:
    """Compare one forced variant with the oracle; False where it is not admissible."""
    backend: Any = backend_of(gpu)
    variant = VARIANTS.index(name)
    if variant not in _abi.OPS["dense"].admissible(case.params, backend.adapter):
        return False
    with backend.forced("dense", variant):
        assert parity.wrong_words(case, case.run(backend), oracle) == 0, (name, case)
    assert (variant, case.params["bipolar"]) in backend._pipelines["dense"]._variants
    return True


@pytest.mark.parametrize("name", VARIANTS)
def test_dense_variant_parity(name: str, gpu: scgpu.Device, oracle: Backend) -> None:
    if "subgroup" in name and "subgroup" not in backend_of(gpu).adapter.features:  # type: ignore[attr-defined]
        assert not assert_variant(name, dense_case(1, 1, 2, 0), gpu, oracle)
        return
    # several workgroups in both directions, whole and ragged, rows shorter and longer than a stage
    for shape in ((1, 1, 2), (2, 9, 34), (9, 5, 16), (67, 70, 6), (130, 129, 2)):
        for bipolar in (0, 1):
            assert assert_variant(name, dense_case(*shape, bipolar), gpu, oracle)
    random_cases = sum(assert_variant(name, case, gpu, oracle) for case in parity.cases("dense", 40, seed=8))
    assert random_cases >= (40 if name.endswith("pair") else 5)


@pytest.mark.parametrize("name", VARIANTS)
def test_dense_variant_on_its_longest_rows(name: str, gpu: scgpu.Device, oracle: Backend) -> None:
    # llvmpipe ends an invocation after 65,535 loop trips: what is admissible must be below
    op, variant = _abi.OPS["dense"], _abi.DENSE_VARIANTS[name]
    longest = PASS_WORDS
    while not op.legal({"row_words": longest, "word_begin": 0, "word_end": longest}, variant):
        longest -= 256
    assert longest > 20_000
    for row_words in (longest, longest + 254):
        assert assert_variant(name, dense_case(2, 2, min(row_words, PASS_WORDS), 0), gpu, oracle) or (
            row_words > longest or "subgroup" in name
        )


@given(
    samples=st.integers(1, 10_000),
    neurons=st.integers(1, 100_000),
    words=st.integers(0, PASS_WORDS),
    begin=st.integers(0, 2 * PASS_WORDS),
    subgroup=st.booleans(),
    software=st.booleans(),
)
def test_dense_default_variant_is_admissible(
    samples: int, neurons: int, words: int, begin: int, subgroup: bool, software: bool
) -> None:
    op = _abi.OPS["dense"]
    values = (samples, neurons, begin + words, begin, begin + words, 0, neurons, 0, 0, 0)
    params = dict(zip(op.params, values, strict=True))
    adapter = _abi.Adapter(frozenset({"subgroup"} if subgroup else ()), software)
    assert op.choose(params, adapter) in op.admissible(params, adapter)


@given(
    n_inputs=st.integers(1, 40),
    n_neurons=st.integers(1, 12),
    length=st.sampled_from((1, 31, 32, 33, 63, 64, 65, 1000)) | st.integers(1, 300),
    batch=st.integers(0, 9),
    seed=st.integers(0, 2**64 - 1),
    max_batch=st.integers(1, 5),
    bipolar=st.booleans(),
    data=st.data(),
)
def test_dense_equals_oracle(
    chosen: scgpu.Device,
    n_inputs: int,
    n_neurons: int,
    length: int,
    batch: int,
    seed: int,
    max_batch: int,
    bipolar: bool,
    data: st.DataObject,
) -> None:
    p = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).random((batch + n_neurons, n_inputs))
    p[p < 0.1], p[p > 0.9] = 0.0, 1.0
    values = 2 * p - 1 if bipolar else p
    options: dict[str, Any] = {"polarity": "bipolar" if bipolar else "unipolar", "weights": values[batch:]}
    layer = scgpu.DenseLayer(n_inputs, n_neurons, length, seed, max_batch=max_batch, device=chosen, **options)
    oracle = scgpu.DenseLayer(n_inputs, n_neurons, length, seed, device="numpy", **options)
    x = values[:batch]
    counts = layer.counts(x, seed, first_sample=3)
    assert counts.dtype == np.uint64 and counts.shape == (batch, n_neurons)
    assert np.array_equal(counts, oracle.counts(x, seed, first_sample=3))
    assert np.array_equal(layer.forward(x, seed), oracle.forward(x, seed))


def test_dense_rows_longer_than_a_pass(chosen: scgpu.Device) -> None:
    # llvmpipe ends an invocation after 65,535 loop trips: long rows go through in passes
    n_inputs, length = 300, 1 << 18
    assert n_inputs * length // 64 > 2 * PASS_WORDS
    for polarity in ("unipolar", "bipolar"):
        options: dict[str, Any] = {"polarity": polarity, "weights": np.full((3, n_inputs), 0.5)}
        x = (np.arange(5 * n_inputs) % 5 / 4).reshape(5, n_inputs)
        layer = scgpu.DenseLayer(n_inputs, 3, length, max_batch=3, device=chosen, **options)
        native = scgpu.DenseLayer(n_inputs, 3, length, device="cpu", **options)
        assert np.array_equal(layer.counts(x), native.counts(x))
        words = scgpu.encode(x, length, 42, polarity=polarity, device="cpu").words  # type: ignore[arg-type]
        ones = np.bitwise_count(native.packed_weights.words[2] & words[3]).sum()
        if polarity == "unipolar":
            assert native.counts(x)[3, 2] == ones


def test_dense_past_65535_workgroups(chosen: scgpu.Device) -> None:
    weights = np.random.default_rng(4).random((70_000, 1))
    layer = scgpu.DenseLayer(1, 70_000, 64, weights=weights, device=chosen)
    oracle = scgpu.DenseLayer(1, 70_000, 64, weights=weights, device="numpy")
    assert np.array_equal(layer.counts([[0.3], [0.9]]), oracle.counts([[0.3], [0.9]]))


def test_dense_past_65535_workgroups_of_one_neuron(gpu: scgpu.Device, oracle: Backend) -> None:
    case, op = dense_case(1, 70_000, 2, 0), _abi.OPS["dense"]
    assert op.workgroups(case.params, VARIANTS.index("row256")) == 70_000
    assert assert_variant("row256", case, gpu, oracle)


def test_dense_largest_count(chosen: scgpu.Device) -> None:
    # n_inputs * length = 2**32 - 1 exactly is one count below the wrap; a part of it is run here
    layer = scgpu.DenseLayer(3, 2, 2**22, weights=np.ones((2, 3)), device=chosen)
    assert layer.counts(np.ones(3)).tolist() == [3 * 2**22] * 2
    with pytest.raises(scgpu.TooLargeError, match=r"n_inputs=4 times length=1073741824 is 4294967296"):
        scgpu.DenseLayer(4, 1, 2**30, device=chosen)


def test_dense_layer_larger_than_a_buffer(chosen: scgpu.Device) -> None:
    # 131 MiB of weight streams; software adapters bind 128
    weights = np.zeros((1050, 1024))
    weights[:, ::7], weights[::3, ::5], weights[1024:, 1::2] = 1.0, 0.5, 1.0
    layer = scgpu.DenseLayer(1024, 1050, 1024, weights=weights, device=chosen)
    native = scgpu.DenseLayer(1024, 1050, 1024, weights=weights, device="cpu")
    x = (np.arange(2 * 1024) % 3 / 2).reshape(2, 1024)
    counts = layer.counts(x)
    assert np.array_equal(counts, native.counts(x))
    assert counts[0, 1] == 1024 * weights[1] @ (x[0] == 1.0) + sum(
        scgpu.encode(x[0], 1024, 42, device="cpu").count()[(weights[1] == 1.0) & (x[0] == 0.5)]
    )
    if chosen.kind == "gpu" and backend_of(chosen).largest_buffer < 131 << 20:
        assert len(layer.streams.parts) == 2  # type: ignore[attr-defined]


def test_dense_batch_equals_single_samples(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 4, 100, max_batch=2, device=chosen)
    x = np.random.default_rng(0).random((5, 6))
    batch = layer.forward(x, seed=1, first_sample=10)
    for row in range(5):
        single = layer.forward(x[row], seed=1, first_sample=10 + row)
        assert single.shape == (4,) and np.array_equal(single, batch[row])


def test_dense_forward_prepacked(chosen: scgpu.Device) -> None:
    for polarity in ("unipolar", "bipolar"):
        layer = scgpu.DenseLayer(6, 4, 100, polarity=polarity, device=chosen)  # type: ignore[arg-type]
        x = make_vectors.inputs((3, 6), polarity)
        for device in (chosen, "numpy"):
            streams = scgpu.encode(x, 100, 42, polarity=polarity, device=device)  # type: ignore[arg-type]
            assert np.array_equal(layer.forward_prepacked(streams), layer.forward(x))
            assert np.array_equal(layer.counts_prepacked(streams), layer.counts(x))
        one = scgpu.encode(x[0], 100, 42, polarity=polarity, device=chosen)  # type: ignore[arg-type]
        assert np.array_equal(layer.forward_prepacked(one), layer.forward(x[0]))
    empty = scgpu.encode(np.zeros((0, 6)), 100, device=chosen)
    unipolar = scgpu.DenseLayer(6, 4, 100, device=chosen)
    assert unipolar.forward_prepacked(empty).shape == unipolar.forward(np.zeros((0, 6))).shape == (0, 4)


@pytest.mark.parametrize("weight_streams", ["independent", "shared"])
def test_dense_takes_weight_streams_for_a_call(weight_streams: Any, chosen: scgpu.Device) -> None:
    x = np.random.default_rng(2).random((5, 6))
    other = scgpu.DenseLayer(6, 4, 100, 99, weights=np.random.default_rng(3).random((4, 6)), device=chosen)
    layer = scgpu.DenseLayer(6, 4, 100, weight_streams=weight_streams, device=chosen)
    streams = scgpu.encode(x, 100, 42, device=chosen)
    own = layer.counts(x)
    for replaced in (other.packed_weights, other.packed_weights.to("numpy")):
        assert np.array_equal(layer.counts_prepacked(streams, weights=replaced), other.counts(x))
        assert np.array_equal(layer.forward_prepacked(streams, weights=replaced), other.forward(x))
    assert np.array_equal(layer.counts_prepacked(streams, weights=layer.packed_weights), own)
    assert np.array_equal(layer.counts_prepacked(streams), own) and not np.array_equal(own, other.counts(x))
    bipolar = scgpu.DenseLayer(6, 4, 100, polarity="bipolar", device=chosen)
    flipped = bipolar.counts_prepacked(
        scgpu.encode(x, 100, polarity="bipolar", device=chosen), weights=~bipolar.packed_weights
    )
    assert np.array_equal(flipped, 600 - bipolar.counts(x, seed=0))


def test_dense_weight_streams_for_a_call_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(3).random((7, 3))
    plain = scgpu.encode(weights, 500, 1, purpose="weight", device="numpy")
    inputs = scgpu.encode(np.random.default_rng(4).random((2, 3)), 500, device="numpy")
    expected = scgpu.DenseLayer(3, 7, 500, device="numpy").counts_prepacked(inputs, weights=plain)
    layer = scgpu.DenseLayer(3, 7, 500, device=gpu)
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 400)  # two rows of three streams
    assert np.array_equal(layer.counts_prepacked(inputs, weights=plain), expected)
    monkeypatch.setattr(backend, "largest_buffer", 128)  # two streams
    with pytest.raises(scgpu.TooLargeError, match=r"weight streams of one neuron \(n_inputs=3, length=500\)"):
        layer.counts_prepacked(inputs, weights=plain)


def test_dense_weights_set(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(3, 2, 64, device=chosen)
    drawn = layer.weights.copy()
    layer.weights = [[1, 0, 1], [0, 0, 0]]  # type: ignore[assignment]
    assert layer.forward(np.ones(3)).tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0, 0] = 0.5
    with pytest.raises(ValueError, match=r"unipolar weights must lie in .* got 2.0 at index \(1, 2\)"):
        layer.weights = [[1, 0, 1], [0, 0, 2]]  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"weights must have shape \(n_neurons, n_inputs\) = \(2, 3\); got \(3, 2\)"):
        layer.weights = np.zeros((3, 2))
    # a refused assignment changes nothing, and the layer goes on
    assert layer.weights.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert layer.forward(np.ones(3)).tolist() == [2.0, 0.0]
    layer.weights = np.asfortranarray(drawn)
    assert layer.packed_weights == scgpu.DenseLayer(3, 2, 64, device="numpy").packed_weights


def test_dense_weights_are_the_contracts_initial_values() -> None:
    layer = scgpu.DenseLayer(4, 3, 64, seed=2**40 + 5, tensor_id=9, device="numpy")
    for n in range(3):
        for i in range(4):
            word = scgpu.philox4x32([0, n * 4 + i, 0, 4 << 24 | 9], [5, 2**8], device="numpy")[0]
            assert layer.weights[n, i] == word / 2**32
    bipolar = scgpu.DenseLayer(4, 3, 64, seed=2**40 + 5, tensor_id=9, polarity="bipolar", device="numpy")
    assert np.array_equal(bipolar.weights, 2 * layer.weights - 1)


def test_dense_estimates_the_product() -> None:
    layer = scgpu.DenseLayer(64, 32, 4096, device="cpu")
    x = np.random.default_rng(1).random((50, 64))
    error = layer.forward(x) - x @ layer.weights.T
    assert np.all(np.abs(error) < 6 * np.sqrt(64 / (4 * 4096)))
    assert abs(error.mean()) < 0.02
    bipolar = scgpu.DenseLayer(64, 32, 4096, polarity="bipolar", device="cpu")
    error = bipolar.forward(2 * x - 1) - (2 * x - 1) @ bipolar.weights.T
    assert np.all(np.abs(error) < 6 * np.sqrt(64 / 4096))


def test_dense_from_many_threads(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(20, 10, 200, device=chosen)
    x = np.random.default_rng(2).random((6, 20))
    expected = [scgpu.DenseLayer(20, 10, 200, device="numpy").counts(x, seed) for seed in range(8)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            if not np.array_equal(layer.counts(x, seed), expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_dense_repr_and_attributes() -> None:
    layer = scgpu.DenseLayer(4, 3, 64, device="numpy")
    assert repr(layer) == "DenseLayer(4, 3, length=64, seed=24301, polarity='unipolar', device='numpy [NumPy]')"
    assert layer.device == scgpu.device("numpy") and layer.max_batch == 256


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_inputs": 0}, ValueError, "n_inputs must be from 1"),
        ({"n_neurons": 0}, ValueError, "n_neurons must be from 1"),
        ({"n_neurons": -5}, ValueError, "n_neurons must be from 1"),
        ({"n_inputs": 2.0}, TypeError, "n_inputs must be an integer"),
        ({"length": 0}, ValueError, "length must be from 1"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"max_batch": 0}, ValueError, "max_batch must be from 1"),
        ({"polarity": "x"}, ValueError, "polarity must be one of"),
        ({"n_inputs": 2**16, "length": 2**16}, ValueError, "could pass 2.*32 - 1.*shorter length"),
        ({"n_inputs": 2**20, "n_neurons": 2**20, "length": 1}, ValueError, "Split the neurons"),
        ({"n_inputs": 2**12, "n_neurons": 2**18, "length": 2**19}, ValueError, "weight streams of .* do not fit"),
        ({"weights": [[0.5, 0.5]]}, ValueError, r"weights must have shape .* = \(2, 3\); got \(1, 2\)"),
        ({"weights": "no"}, TypeError, "weights must hold real numbers"),
        ({"weights": [[0.5, 0.5, float("nan")], [0, 0, 0]]}, ValueError, r"got nan at index \(0, 2\)"),
        ({"device": "no such device"}, ValueError, "matches no GPU adapter; usable are"),
    ],
)
def test_dense_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.DenseLayer(**{"n_inputs": 3, "n_neurons": 2, "length": 64, "device": "cpu", **options})


def test_dense_rejects_weights_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: 1 << 20)
    with pytest.raises(scgpu.TooLargeError, match=r"weight streams of n_inputs=1024.*do not fit.*smaller"):
        scgpu.DenseLayer(1024, 1024, 4096, weights=np.zeros((1024, 1024)), device="cpu")


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([0.5, 0.5], {}, ValueError, r"x must have shape \(3,\) or \(batch, 3\); got \(2,\)"),
        (np.zeros((2, 2, 3)), {}, ValueError, "x must have shape"),
        (0.5, {}, ValueError, "x must have shape"),
        ([0.5, 0.5, 1.5], {}, ValueError, r"unipolar x must lie in .* got 1.5 at index \(2,\)"),
        ([0.5, 0.5, float("nan")], {}, ValueError, "got nan"),
        (["a", "b", "c"], {}, TypeError, "x must hold real numbers"),
        ([0.5, 0.5, 0.5], {"seed": -1}, ValueError, "seed must be from 0"),
        ([0.5, 0.5, 0.5], {"first_sample": 2**32}, ValueError, "first_sample must be from 0"),
    ],
)
def test_dense_forward_rejects(
    x: Any, options: dict[str, Any], error: type[Exception], message: str, chosen: scgpu.Device
) -> None:
    layer = scgpu.DenseLayer(3, 2, 64, weights=np.ones((2, 3)), device=chosen)
    with pytest.raises(error, match=message):
        layer.forward(x, **options)
    assert layer.forward([1, 1, 0]).tolist() == [2.0, 2.0]


def test_dense_prepacked_rejects(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(3, 2, 64, device=chosen)
    with pytest.raises(TypeError, match=r"inputs must be a Bitstream; got ndarray\. Use Bitstream\.from_words"):
        layer.forward_prepacked(np.zeros((3, 1), np.uint64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inputs must have the layer's length 64; got 65"):
        layer.forward_prepacked(scgpu.encode([0.5] * 3, 65, device=chosen))
    with pytest.raises(ValueError, match="polarity 'unipolar'; got 'bipolar'"):
        layer.forward_prepacked(scgpu.encode([0.5] * 3, 64, polarity="bipolar", device=chosen))
    with pytest.raises(ValueError, match=r"inputs must have shape \(3,\) or \(batch, 3\); got \(4,\)"):
        layer.forward_prepacked(scgpu.encode([0.5] * 4, 64, device=chosen))
    good = scgpu.encode([0.5] * 3, 64, device=chosen)
    with pytest.raises(TypeError, match="weights must be a Bitstream; got ndarray"):
        layer.forward_prepacked(good, weights=np.zeros((2, 3)))  # type: ignore[arg-type]
    for wrong in (scgpu.encode([[0.5] * 3] * 2, 65, device=chosen), scgpu.encode([[0.5] * 2] * 3, 64, device=chosen)):
        with pytest.raises(ValueError, match=r"weights must have (the layer's length 64|shape .* = \(2, 3\))"):
            layer.counts_prepacked(good, weights=wrong)
    with pytest.raises(TypeError, match="for a Bitstream use forward_prepacked"):
        layer.forward(scgpu.encode([0.5] * 3, 64, device=chosen))  # type: ignore[arg-type]
