"""lookup: shared weight streams equal AND and popcount over the same streams; parity, limits, refusals."""

from __future__ import annotations

from typing import Any

import make_vectors
import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu._abi import PASS_INPUTS
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of

SEQUENCES: Any = pytest.mark.parametrize("sequence", ["philox", "ramp"])
POLARITIES: Any = pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])


def plain_counts(weights: scgpu.Bitstream, inputs: scgpu.Bitstream) -> np.ndarray[Any, Any]:
    """Counts of products by AND or XNOR, bit by bit."""
    w, x = weights.bits().astype(np.int64), inputs.bits().astype(np.int64)
    ones = np.einsum("nil,sil->sn", w, x)
    return ones + np.einsum("nil,sil->sn", 1 - w, 1 - x) if weights.polarity == "bipolar" else ones


def test_lookup_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("lookup", chosen, oracle, number=60)


@given(
    n_inputs=st.integers(1, 9),
    n_neurons=st.sampled_from((1, 2, 15, 16, 17, 33, 70, 130, 520)),
    length=st.sampled_from((1, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 2048, 4096, 4097)) | st.integers(1, 300),
    batch=st.integers(0, 6),
    seed=st.integers(0, 2**64 - 1),
    polarity=st.sampled_from(("unipolar", "bipolar")),
    sequence=st.sampled_from(("philox", "ramp")),
    data=st.data(),
)
def test_lookup_is_and_popcount_over_the_same_streams(
    chosen: scgpu.Device,
    n_inputs: int,
    n_neurons: int,
    length: int,
    batch: int,
    seed: int,
    polarity: Any,
    sequence: Any,
    data: st.DataObject,
) -> None:
    p = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).random((batch + n_neurons, n_inputs))
    p[p < 0.1], p[p > 0.9] = 0.0, 1.0
    values = 2 * p - 1 if polarity == "bipolar" else p
    weights, x = values[batch:], values[:batch]
    options: dict[str, Any] = {"polarity": polarity, "weights": weights, "weight_streams": "shared"}
    layer = scgpu.DenseLayer(
        n_inputs, n_neurons, length, seed, sequence=sequence, max_batch=4, device=chosen, **options
    )
    inputs = scgpu.encode(x, length, 3, polarity=polarity, first_sample=2, device=chosen)
    expected = plain_counts(layer.packed_weights, inputs)
    assert np.array_equal(layer.counts(x, 3, first_sample=2), expected)
    assert np.array_equal(layer.counts_prepacked(inputs), expected)
    oracle = scgpu.DenseLayer(n_inputs, n_neurons, length, seed, sequence=sequence, device="numpy", **options)
    assert oracle.packed_weights == layer.packed_weights
    assert np.array_equal(oracle.counts(x, 3, first_sample=2), expected)


@POLARITIES
@pytest.mark.parametrize("length", [1, 64, 65, 1000])
def test_shared_streams_are_the_contracts(length: int, polarity: Any, chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(
        7, 5, length, 2**50 + 1, polarity=polarity, tensor_id=3, weight_streams="shared", device=chosen
    )
    assert layer.sequence == "philox"
    for n in range(5):
        row = scgpu.encode(
            layer.weights[n], length, 2**50 + 1, polarity=polarity, purpose="weight", tensor_id=3, device="numpy"
        )
        assert np.array_equal(layer.packed_weights.words[n], row.words)


def test_ramp_streams_are_thermometers(chosen: scgpu.Device) -> None:
    weights = [[0.0, 0.25, 0.5, 1.0, 2.0**-32]]
    layer = scgpu.DenseLayer(5, 1, 8, weights=weights, weight_streams="shared", sequence="ramp", device=chosen)
    assert layer.packed_weights.words[0, :, 0].tolist() == [0, 0b11, 0b1111, 0xFF, 1]


@SEQUENCES
def test_shared_layer_matches_a_layer_of_its_packed_weights(sequence: Any, chosen: scgpu.Device) -> None:
    shared = scgpu.DenseLayer(40, 30, 500, weight_streams="shared", sequence=sequence, device=chosen)
    plain = scgpu.DenseLayer(40, 30, 500, weights=shared.weights, device=chosen)
    plain.streams.parts = [(0, shared.packed_weights)]  # type: ignore[attr-defined]
    x = make_vectors.inputs((9, 40), "unipolar")
    assert np.array_equal(shared.counts(x), plain.counts(x))


@POLARITIES
def test_shared_layers_in_a_network(polarity: Any, chosen: scgpu.Device) -> None:
    def network(device: Any) -> scgpu.Network:
        layers = [
            scgpu.DenseLayer(9, 20, 300, polarity=polarity, weight_streams="shared", device=device),
            scgpu.DenseLayer(20, 8, 200, polarity=polarity, device=device),
            scgpu.DenseLayer(8, 3, 257, polarity=polarity, weight_streams="shared", sequence="ramp", device=device),
        ]
        return scgpu.Network(layers, "clip")

    net, oracle = network(chosen), network("numpy")
    assert [layer.sequence for layer in net.layers] == ["philox", None, "ramp"]
    x = make_vectors.inputs((5, 9), polarity)
    assert np.array_equal(net.counts(x, 11), oracle.counts(x, 11))


@POLARITIES
@pytest.mark.parametrize("largest", [2048, 2500, 4096])
def test_shared_streams_in_several_buffers(
    largest: int, polarity: Any, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layer(device: Any) -> scgpu.DenseLayer:
        return scgpu.DenseLayer(9, 150, 500, polarity=polarity, weight_streams="shared", device=device)

    oracle = layer("numpy")
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", largest)  # 64 neurons' ranks take 1152, an input's order 1000 bytes
    monkeypatch.setattr(backend, "_workgroups_per_dimension", 3)
    monkeypatch.setattr("scgpu.weights.ENTRY_BYTES", 2500)  # two samples' entries
    split = layer(gpu)
    assert len(split.streams._ranks) == -(-150 // (largest // 1152 * 64))  # type: ignore[attr-defined]
    assert len(split.streams._orders) == (3 if largest == 4096 else 5)  # type: ignore[attr-defined]
    x = 2 * np.random.default_rng(1).random((7, 9)) - 1 if polarity == "bipolar" else np.full((7, 9), 0.3)
    assert np.array_equal(split.counts(x, 5), oracle.counts(x, 5))
    assert split.packed_weights == oracle.packed_weights
    monkeypatch.setattr(backend, "largest_buffer", 1100)
    with pytest.raises(scgpu.TooLargeError, match="one sample's input streams need 1,152 bytes"):
        split.counts(x)


def test_shared_layer_with_more_inputs_than_a_pass(chosen: scgpu.Device) -> None:
    n_inputs = 2 * PASS_INPUTS + 5
    for polarity in ("unipolar", "bipolar"):
        options: dict[str, Any] = {"polarity": polarity, "weight_streams": "shared", "sequence": "ramp"}
        layer = scgpu.DenseLayer(n_inputs, 3, 33, device=chosen, **options)
        native = scgpu.DenseLayer(n_inputs, 3, 33, device="cpu", **options)
        x = (np.arange(5 * n_inputs) % 5 / 4).reshape(5, n_inputs)
        inputs = scgpu.encode(x, 33, 42, polarity=polarity, device="cpu")  # type: ignore[arg-type]
        assert np.array_equal(layer.counts(x), native.counts(x))
        assert np.array_equal(native.counts(x), plain_counts(native.packed_weights, inputs))


def test_shared_weights_are_small(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(64, 128, 4096, weight_streams="shared", device=chosen)
    ranks = [buffer for *_, buffer in layer.streams._ranks]  # type: ignore[attr-defined]
    assert sum(4 * buffer.size for buffer in ranks) == 2 * 64 * 128


def test_shared_streams_estimate_the_product() -> None:
    x = np.random.default_rng(1).random((40, 64))
    for sequence in ("philox", "ramp"):
        layer = scgpu.DenseLayer(64, 32, 4096, weight_streams="shared", sequence=sequence, device="cpu")  # type: ignore[arg-type]
        error = layer.forward(x) - x @ layer.weights.T
        assert np.all(np.abs(error) < 6 * np.sqrt(64 / (4 * 4096)))


def test_shared_weights_set(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(3, 2, 64, weight_streams="shared", device=chosen)
    layer.weights = [[1, 0, 1], [0, 0, 0]]  # type: ignore[assignment]
    assert layer.forward(np.ones(3)).tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="unipolar weights must lie in"):
        layer.weights = [[1, 0, 1], [0, 0, 2]]  # type: ignore[assignment]
    assert layer.forward(np.ones(3)).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_streams": "both"}, ValueError, "weight_streams must be one of 'independent', 'shared'; got 'both'"),
        ({"sequence": "ramp"}, ValueError, "sequence='ramp' needs weight_streams=\"shared\""),
        ({"weight_streams": "shared", "sequence": "sobol"}, ValueError, "sequence must be one of 'philox', 'ramp'"),
        ({"weight_streams": "shared", "length": 2**20 + 1}, ValueError, "at most 1,048,576 bits; got length=1048577"),
    ],
)
def test_lookup_rejects_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.DenseLayer(**{"n_inputs": 3, "n_neurons": 2, "length": 64, "device": "cpu", **options})


def test_shared_streams_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: 1 << 20)
    with pytest.raises(scgpu.TooLargeError, match=r"weight streams of n_inputs=1024.*do not fit.*smaller"):
        scgpu.DenseLayer(1024, 64, 65_000, weights=np.zeros((64, 1024)), weight_streams="shared", device="cpu")


@pytest.mark.parametrize("length", [127, 128, 129, 8192, 8193])
@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_streams_are_ordered_by_networks_where_these_are_wide_enough(length: int, polarity: Any) -> None:
    options: dict[str, Any] = {"weight_streams": "shared", "polarity": polarity, "seed": 3}
    layer, plain = (scgpu.DenseLayer(5, 3, length, device=device, **options) for device in ("cpu", "numpy"))
    x = np.random.default_rng(length).random((2, 5))
    streams = scgpu.encode(x, length, polarity=polarity, device="cpu")
    with scgpu.profile() as profile:
        counts = layer.counts_prepacked(streams)
    assert np.array_equal(counts, plain.counts_prepacked(streams))
    assert ("permute" in {event.name for event in profile.events}) == (128 <= length <= 8192)


def test_networks_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # the order takes 64 MiB, the networks 80
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: 100 << 20)
    with pytest.raises(scgpu.TooLargeError, match=r"weight streams of n_inputs=8192.*do not fit"):
        scgpu.DenseLayer(8192, 1, 4096, weights=np.zeros((1, 8192)), weight_streams="shared", device="cpu")


def test_shared_weights_are_not_unpacked_beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(64, 300, 65_536, weight_streams="shared", sequence="ramp", device="cpu")
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: 1 << 20)
    with pytest.raises(scgpu.TooLargeError, match="157,286,400 bytes are needed"):
        _ = layer.packed_weights


def test_few_neurons_of_many_inputs_fit_a_small_buffer(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 4096)  # the ranks of 3 neurons take 800, of 64 12,800 bytes
    options: dict[str, Any] = {"weight_streams": "shared", "sequence": "ramp"}
    layer = scgpu.DenseLayer(100, 3, 33, device=gpu, **options)
    oracle = scgpu.DenseLayer(100, 3, 33, device="numpy", **options)
    x = np.full((2, 100), 0.3)
    assert np.array_equal(layer.counts(x), oracle.counts(x))


def test_lookup_rejects_short_buffers(chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    layer = scgpu.DenseLayer(2, 5, 64, weight_streams="shared", device=chosen)
    inputs = scgpu.encode([0.5, 0.5], 64, device=chosen)
    *_, step = layer.streams.steps(inputs._buffer, backend.empty("u32", 5), layer.streams.scratch(1), 1)
    ranks, entries, counts = step.buffers
    short = backend.empty("u32", 5)
    with pytest.raises(ValueError, match="lookup: ranks has 5 elements; 6 are needed"):
        backend.execute([Step("lookup", step.params, (short, entries, counts))])
    with pytest.raises(ValueError, match="lookup: counts has 4 elements; 5 are needed"):
        backend.execute([Step("lookup", step.params, (ranks, entries, backend.empty("u32", 4)))])
