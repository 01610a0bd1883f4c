"""The network of UnarySim's kind: its layers cycle by cycle, and what it reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import tables, unary_network
from scgpu.unary_units import torch_numbers

ROOT = Path(__file__).resolve().parent.parent


def _case(seed: int, inputs: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    bits = (rng.random((5, inputs, 256)) < rng.random((5, inputs, 1))).astype(np.uint8)
    return bits, rng.integers(-128, 129, (3, inputs + 1)).astype(np.int16)


def _weight_bits(layer: Any, dimensions: list[int]) -> Any:
    numbers = np.stack([torch_numbers(dimension) >> np.uint32(24) for dimension in dimensions])
    return (layer[..., None] + 128 > numbers).astype(np.int64)


@pytest.mark.parametrize("inputs", [1, 6, 64])
def test_conditional_cycles_are_products_added_up(
    chosen: scgpu.Device, inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary_network, "STREAMS_AT_ONCE", 5 * 65 * 100)  # pieces that do not divide the 256 cycles
    bits, layer = _case(inputs, inputs)
    found = unary_network.conditional_cycles(bits, layer, chosen)
    streams = [scgpu.Bitstream.from_bits(bits[:, i], polarity="bipolar", device="numpy") for i in range(inputs)]
    streams.append(scgpu.thermometer([256] * 5, 256, polarity="bipolar", device="numpy"))
    weights = _weight_bits(layer, [0] * (inputs + 1))
    for neuron, own in enumerate(weights.astype(np.uint8)):
        products = [
            scgpu.conditional_product(
                x, scgpu.Bitstream.from_bits(np.tile(w, (5, 1)), polarity="bipolar", device="numpy")
            )
            for x, w in zip(streams, own, strict=True)
        ]
        assert np.array_equal(scgpu.unary_add(products).bits(), found[:, neuron])


@pytest.mark.parametrize("scaled", [0, 7])
@pytest.mark.parametrize("inputs", [6, 64])
def test_gaines_cycles_are_gates_and_a_counter(chosen: scgpu.Device, inputs: int, scaled: int) -> None:
    bits, layer = _case(inputs, inputs)
    weights = _weight_bits(layer, list(range(inputs + 1)))
    x = np.concatenate([bits, np.ones((5, 1, 256), np.uint8)], axis=1)
    equal = (x[:, None] == weights).sum(axis=2)  # batch, neuron, time
    width = {6: 3, 64: 6}[inputs]
    limits = torch_numbers(6, 1 << width) >> np.uint32(32 - width)
    counter = np.full((5, 3), 128)
    found = unary_network.gaines_cycles(bits, layer, scaled, chosen)
    for t in range(256):
        counter = np.clip(counter + 2 * equal[..., t] - inputs - 1, 0, 255)
        expected = equal[..., t] >= limits[t % limits.size] if scaled else counter > 128
        assert np.array_equal(found[..., t], expected), t


def test_outputs_are_the_same_on_every_device(chosen: scgpu.Device) -> None:
    model = unary_network.UnaryModel(unary_network.load_unary_model().layers[1:], 0)
    images = np.random.default_rng(3).random((4, 64))
    for unit in ("uGEMM", "counter"):
        found = unary_network.unary_outputs(model, images, unit, chosen)
        assert np.array_equal(found, unary_network.unary_outputs(model, images, unit, "numpy"))
        assert found.shape == (4, 10) and len(np.unique(found)) > 4


def test_model_is_one_of_8_bits() -> None:
    model = unary_network.load_unary_model()
    assert [layer.shape for layer in model.layers] == [(64, 65), (64, 65), (10, 65)]
    assert all(layer.dtype == np.int16 and np.abs(layer).max() <= 128 for layer in model.layers)
    x = np.full((1, 64), 0.5)
    h = np.clip(model.layers[0] / 128 @ np.append(x, 1), 0, 1)
    h = np.clip(model.layers[1] / 128 @ np.append(h, 1), 0, 1)
    expected = np.clip(model.layers[2] / 128 @ np.append(h, 1), -1, 1)
    assert model.scores(x)[0] == pytest.approx(expected, abs=1e-12)


def test_training_writes_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("train_unary_digits", ROOT / "examples" / "train_unary_digits.py")
    assert spec is not None and spec.loader is not None
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    monkeypatch.setattr(training, "EPOCHS", 4)
    training.main(["--output", str(tmp_path / "model.npz")])
    model = unary_network.load_unary_model(tmp_path / "model.npz")
    assert [layer.shape for layer in model.layers] == [(64, 65), (64, 65), (10, 65)]
    digits = model.digits()
    assert digits.test_inputs.min() == 0 and digits.test_inputs.max() == 1
    assert np.mean(model.scores(digits.test_inputs).argmax(axis=1) == digits.test_labels) > 0.6


def test_page_has_the_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    page = (ROOT / "docs" / "tables.md").read_text()
    rows = list(tables._network("cpu"))
    assert [row.verdict for row in rows] == ["other data"] * 4
    assert [row.difference is None for row in rows] == [False, False, False, True]
    floating, gemm, counter, scaled = (row.ours for row in rows)
    assert floating > 97 and floating - 1 < gemm < floating + 1 and scaled < counter < 60
    tables._print(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(line in page for line in lines)


def test_without_scikit_learn_the_network_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scgpu import cli

    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    assert cli.main(["tables", "--device", "cpu", "--table", "network"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "pip install 'scgpu[demo]'" in captured.err
    monkeypatch.setattr(tables, "TABLES", {"prefixes": lambda device: iter(()), "network": tables._network})
    monkeypatch.setattr(tables, "_print", lambda rows: None)
    assert cli.main(["tables", "--device", "cpu"]) == 0
