"""Network: vectors, equality with the layers run one by one, one submission, refusals."""

from __future__ import annotations

from typing import Any

import make_vectors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.activation import HALF
from scgpu.devices import backend_of


@pytest.mark.parametrize("name", make_vectors.NETWORK)
def test_network_matches_vectors(name: str, chosen: scgpu.Device, vectors: dict[str, Any]) -> None:
    net = make_vectors.network(name, chosen)
    x = make_vectors.inputs((4, net.n_inputs), net.layers[0].polarity)
    assert np.array_equal(net.counts(x, seed=2**40 + 1), vectors[f"network/{name}/counts"])


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_network_is_its_layers_one_by_one(polarity: Any, chosen: scgpu.Device) -> None:
    layers = [
        scgpu.DenseLayer(6, 5, 100, polarity=polarity, device=chosen),
        scgpu.DenseLayer(5, 3, 170, polarity=polarity, device=chosen),
    ]
    net = scgpu.Network(layers, scgpu.Activation("relu", 2.0))
    x = make_vectors.inputs((4, 6), polarity)
    first = scgpu.DenseLayer(6, 5, 100, polarity=polarity, weights=layers[0].weights, device="numpy")
    second = scgpu.DenseLayer(5, 3, 170, polarity=polarity, weights=layers[1].weights, tensor_id=1, device="numpy")
    integers = scgpu.Activation("relu", 2.0).integers(6, 100, polarity)
    c = np.maximum(first.counts(x, 9).astype(object) - integers["offset"], 0)
    t = np.where(c >= integers["full_scale"], 2**32 - 1, c * 2**32 // integers["full_scale"])
    t = np.maximum(t, HALF if polarity == "bipolar" else 0)
    # a 32-bit threshold is a probability again: T / 2**32, 'always' as 1
    p = np.where(t == 2**32 - 1, 1.0, t.astype(float) / 2**32)
    hidden = scgpu.encode(p, 170, 9, tensor_id=1, device="numpy")
    hidden = scgpu.Bitstream.from_words(hidden.words, 170, polarity=polarity, device="numpy")
    assert np.array_equal(net.counts(x, 9), second.counts_prepacked(hidden))
    assert np.array_equal(net.forward(x, 9), second.forward_prepacked(hidden))


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    length=st.sampled_from((1, 33, 64, 65, 200)),
    batch=st.integers(0, 7),
    max_batch=st.integers(1, 4),
    polarity=st.sampled_from(("unipolar", "bipolar")),
    kind=st.sampled_from(("clip", "relu")),
    seed=st.integers(0, 2**64 - 1),
)
def test_network_equals_oracle(
    chosen: scgpu.Device,
    sizes: list[int],
    length: int,
    batch: int,
    max_batch: int,
    polarity: Any,
    kind: Any,
    seed: int,
) -> None:
    nets = [
        scgpu.Network(
            [
                scgpu.DenseLayer(n, m, length + n, polarity=polarity, max_batch=max_batch, device=device)
                for n, m in zip(sizes, sizes[1:], strict=False)
            ],
            scgpu.Activation(kind, min(sizes) / 2),
        )
        for device in (chosen, scgpu.device("numpy"))
    ]
    x = make_vectors.inputs((batch, sizes[0]), polarity)
    assert np.array_equal(nets[0].counts(x, seed, 7), nets[1].counts(x, seed, 7))


def test_network_pieces_and_single_samples_agree(chosen: scgpu.Device) -> None:
    layers = [scgpu.DenseLayer(6, 5, 100, max_batch=3, device=chosen), scgpu.DenseLayer(5, 2, 100, device=chosen)]
    net = scgpu.Network(layers)
    x = np.random.default_rng(0).random((8, 6))
    batch = net.forward(x, 1, first_sample=4)
    for row in range(8):
        assert np.array_equal(net.forward(x[row], 1, first_sample=4 + row), batch[row])
    assert net.forward(np.zeros((0, 6))).shape == (0, 2)


def test_network_makes_one_submission(gpu: scgpu.Device) -> None:
    layers = [scgpu.DenseLayer(6, 5, 100, max_batch=3, device=gpu), scgpu.DenseLayer(5, 2, 100, device=gpu)]
    net = scgpu.Network(layers)
    backend: Any = backend_of(gpu)
    for batch in (1, 3, 50):
        before = backend.submissions
        net.forward(np.zeros((batch, 6)))
        assert backend.submissions == before + 1


def test_network_layers_are_its_own(chosen: scgpu.Device) -> None:
    given_layers = [scgpu.DenseLayer(4, 4, 64, device=chosen), scgpu.DenseLayer(4, 4, 64, device=chosen)]
    net = scgpu.Network(given_layers)
    assert [layer.tensor_id for layer in net.layers] == [0, 1]
    assert [layer.tensor_id for layer in given_layers] == [0, 0]
    # equal seeds and equal weights, different streams
    assert np.array_equal(net.layers[0].weights, net.layers[1].weights)
    assert net.layers[0].packed_weights != net.layers[1].packed_weights
    assert repr(net).startswith("Network(4-4-4, device=")
    assert net.device == chosen


def test_network_of_one_layer_is_the_layer(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(4, 3, 64, device=chosen)
    x = np.random.default_rng(0).random((2, 4))
    assert np.array_equal(scgpu.Network([layer]).counts(x), layer.counts(x))


def dense(n: int = 4, m: int = 4, **options: Any) -> scgpu.DenseLayer:
    return scgpu.DenseLayer(n, m, 64, **{"device": "cpu", **options})


@pytest.mark.parametrize(
    ("layers", "activation", "error", "message"),
    [
        (lambda: [], "clip", ValueError, "layers must hold at least one DenseLayer"),
        (lambda: [dense(), 3], "clip", TypeError, r"layers\[1\] must be a DenseLayer; got int"),
        (lambda: [dense(), dense(5, 2)], "clip", ValueError, r"layers\[1\] must have the 4 inputs .* got 5"),
        (lambda: [dense(), dense(polarity="bipolar")], "clip", ValueError, r"must have the polarity of layers\[0\]"),
        (
            lambda: [dense(), dense(device="numpy")],
            "clip",
            ValueError,
            r"layers\[1\] must be on .* cpu .*; got numpy",
        ),
        (lambda: [dense(), dense()], "tanh", ValueError, "activation must be one of"),
        (lambda: [dense(), dense()], ["clip", "clip"], ValueError, "one for each of the 1 places; got 2"),
        (lambda: [dense(), dense()], [3], TypeError, r"activation\[0\] must be a name or an Activation"),
        (lambda: [dense(), dense()], scgpu.Activation("clip", 4.5), ValueError, "scale=4.5 is above 4"),
    ],
)
def test_network_rejects(layers: Any, activation: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.Network(layers(), activation)
