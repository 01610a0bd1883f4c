"""conditional: uMUL bit by bit against a stepped oracle, its closed form, layers, published figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of

POLARITIES = st.sampled_from(("unipolar", "bipolar"))


def stepped_product(inputs: Any, weights: Any, bipolar: bool) -> list[int]:
    """The unit of uGEMM cycle by cycle: two indices, of which an input bit moves one."""
    index, index_inverse, out = 0, 0, []
    for bit in inputs:
        if bit:
            out.append(int(weights[index]))
            index = (index + 1) % len(weights)
        elif bipolar:
            out.append(1 - int(weights[index_inverse]))
            index_inverse = (index_inverse + 1) % len(weights)
        else:
            out.append(0)
    return out


def random_bits(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return (rng.random(shape) < rng.random((*shape[:-1], 1))).astype(np.uint8)


@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.sampled_from((1, 64, 100, 257)),
    period=st.sampled_from((1, 7, 64, 100, 300)),
    polarity=POLARITIES,
)
def test_conditional_equals_a_stepped_oracle(
    chosen: scgpu.Device, seed: int, length: int, period: int, polarity: Any
) -> None:
    x, w = random_bits(seed, 2, 3, length), random_bits(seed + 1, 2, 3, period)
    inputs, weights = (scgpu.Bitstream.from_bits(bits, polarity=polarity, device=chosen) for bits in (x, w))
    product = scgpu.conditional_product(inputs, weights)
    assert product.polarity == polarity and product.length == length and product.device == chosen
    expected = [[stepped_product(x[i, j], w[i, j], polarity == "bipolar") for j in range(3)] for i in range(2)]
    assert product.bits().tolist() == expected
    counts = scgpu.conditional_counts(inputs, weights)
    assert counts.dtype == np.uint64 and np.array_equal(counts, np.sum(expected, axis=-1))


def test_conditional_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("conditional", chosen, oracle, number=80)


def test_conditional_keeps_its_places_between_long_calls(chosen: scgpu.Device) -> None:
    # 2^17 bits: a GPU makes them in several passes; a marked weight bit turns up once in a period
    length, period = 1 << 17, 1001
    x = scgpu.Bitstream.from_bits(np.ones((1, length), np.uint8), device=chosen)
    mark = np.arange(period)[None] == 1000
    product = scgpu.conditional_product(x, scgpu.Bitstream.from_bits(mark, device=chosen))
    assert np.flatnonzero(product.bits()[0]).tolist() == list(range(1000, length, period))


@given(
    seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 4), neurons=st.integers(1, 4), period=st.sampled_from((7, 100))
)
def test_conditional_layer_sums_products(
    chosen: scgpu.Device, seed: int, batch: int, neurons: int, period: int
) -> None:
    x, w = random_bits(seed, batch, 3, 100), random_bits(seed + 1, neurons, 3, period)
    for polarity in ("unipolar", "bipolar"):
        inputs, weights = (scgpu.Bitstream.from_bits(bits, polarity=polarity, device=chosen) for bits in (x, w))  # type: ignore[arg-type]
        counts = scgpu.conditional_layer(inputs, weights)
        assert counts.dtype == np.uint64 and counts.shape == (batch, neurons)
        for s, n in np.ndindex(batch, neurons):
            ones = [sum(stepped_product(x[s, i], w[n, i], polarity == "bipolar")) for i in range(3)]
            assert counts[s, n] == sum(ones)


def test_a_layer_of_sorted_inputs_is_conditional(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(5, 4, 256, device=chosen)
    x = scgpu.encode(np.random.default_rng(0).random((6, 5)), 256, 3, device=chosen)
    ones = scgpu.thermometer(x.count(), 256, device=chosen)
    assert np.array_equal(layer.counts_prepacked(ones), scgpu.conditional_layer(x, layer.packed_weights))


def test_all_products_of_8_bit_values_have_the_published_error(chosen: scgpu.Device) -> None:
    # the ones of the input alone count, so that it may as well come from a counter
    values = np.arange(256)
    van_der_corput = np.array([int(f"{t:08b}"[::-1], 2) for t in range(256)])
    weight_bits = values[:, None] > van_der_corput
    shuffled = np.random.default_rng(0).permuted(values[:, None] > values, axis=1)
    x = scgpu.Bitstream.from_bits(shuffled[:, None], device=chosen)
    w = scgpu.Bitstream.from_bits(weight_bits[:, None], device=chosen)
    counts = scgpu.conditional_layer(x, w)
    assert np.array_equal(counts, np.pad(np.cumsum(weight_bits, axis=1), ((0, 0), (1, 0)))[:, :256].T)
    errors = counts / 256 - np.outer(values, values) / 65536
    assert f"{np.abs(errors).mean():.5f}" == "0.00391"
    assert f"{np.sqrt((errors**2).mean()):.5f}" == "0.00434" and f"{np.abs(errors).max():.4f}" == "0.0108"


def test_conditional_of_one_and_of_none(chosen: scgpu.Device) -> None:
    one = scgpu.thermometer(40, 100, device=chosen)
    assert scgpu.conditional_counts(one, one) == 40 and scgpu.conditional_product(one, ~one).count() == 0
    none = scgpu.thermometer(np.empty((0, 3), int), 100, device=chosen)
    assert scgpu.conditional_product(none, none).shape == (0, 3)
    assert scgpu.conditional_counts(none, none).shape == (0, 3)
    assert scgpu.conditional_layer(none, scgpu.thermometer([[1, 2, 3]], 100, device=chosen)).shape == (0, 1)


def test_conditional_in_several_buffers(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = (
        scgpu.Bitstream.from_bits(random_bits(seed, 7, 3, 500), polarity="bipolar", device="numpy") for seed in (1, 2)
    )
    expected = scgpu.conditional_counts(x, w), scgpu.conditional_layer(x, w)
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 400)
    a, b = x.to(gpu), w.to(gpu)
    assert len(a._parts) > 1
    assert np.array_equal(scgpu.conditional_counts(a, b), expected[0])
    assert np.array_equal(scgpu.conditional_layer(a, b), expected[1])
    assert scgpu.conditional_product(a, b) == scgpu.conditional_product(x, w)
    # weights in fewer buffers than the inputs, and none that they share
    long = scgpu.Bitstream.from_bits(random_bits(3, 7, 3, 90), polarity="bipolar", device="numpy")
    assert len(long.to(gpu)._parts) < len(a._parts)
    assert scgpu.conditional_product(a, long.to(gpu)) == scgpu.conditional_product(x, long)
    assert scgpu.conditional_product(long.to(gpu), a) == scgpu.conditional_product(long, x)


@pytest.mark.parametrize("function", [scgpu.conditional_product, scgpu.conditional_counts, scgpu.conditional_layer])
def test_conditional_rejects(function: Any) -> None:
    a = scgpu.thermometer([[3, 4]], 70, device="cpu")
    with pytest.raises(TypeError, match="inputs must be a Bitstream; got list"):
        function([1], a)
    with pytest.raises(TypeError, match="weights must be a Bitstream; got float"):
        function(a, 0.5)
    with pytest.raises(ValueError, match="equal polarity; got 'unipolar' and 'bipolar'"):
        function(a, scgpu.thermometer([[3, 4]], 70, polarity="bipolar", device="cpu"))
    with pytest.raises(ValueError, match="shape"):
        function(a, scgpu.thermometer([[3, 4, 5]], 70, device="cpu"))


def test_conditional_layer_rejects() -> None:
    a = scgpu.thermometer([3, 4], 70, device="cpu")
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, n_inputs\) and weights .* got \(2,\) and"):
        scgpu.conditional_layer(a, a)
    with pytest.raises(ValueError, match="n_inputs must be from 1"):
        scgpu.conditional_layer(*[scgpu.thermometer(np.empty((3, 0), int), 70, device="cpu")] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_input": 1}, "inputs has 1 elements; 2 are needed"),
        ({"first_weight": 1}, "weights has 2 elements; 4 are needed"),
        ({"period": 129}, "weights has 2 elements; 3 are needed"),
        ({"stream_count": 0, "word_count": 2**32}, "does not fit 32 bits"),
    ],
)
def test_conditional_step_rejects(change: dict[str, int], message: str, chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    params = {"stream_count": 1, "word_count": 1, "tail_bits": 64, "word_begin": 0, "word_end": 1, "period": 128}
    params |= {"bipolar": 0, "first_input": 0, "first_weight": 0}
    buffers = (backend.empty("u64", 1), backend.empty("u64", 2), backend.empty("u32", 2), backend.empty("u64", 1))
    with pytest.raises(ValueError, match=message):
        backend.execute([Step("conditional", {**params, **change}, buffers)])


def test_conditional_product_has_a_longest_period() -> None:
    x = scgpu.thermometer([1], 64, device="cpu")
    long = scgpu.Bitstream(x._backend, x._parts, x.shape, 2**31 + 1, "unipolar")  # words that nobody looks at
    with pytest.raises(ValueError, match="length of the weights must be from 1 to 2147483648; got 2147483649"):
        scgpu.conditional_product(x, long)
