"""Layers, networks and bitstreams that are saved, pickled and copied: the same bits after it, on every device."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recording import sealed

import scgpu
from scgpu import device_choice, sng
from scgpu.device_choice import choice_of, selector_of
from scgpu.devices import backend_of

X = np.random.default_rng(0).random((4, 5))
OPTIONS: list[dict[str, Any]] = [
    {},
    {"polarity": "bipolar", "seed": 2**64 - 1, "tensor_id": 2**24 - 1, "max_batch": 3},
    {"weight_streams": "shared"},
    {"weight_streams": "shared", "sequence": "ramp", "polarity": "bipolar"},
    {"sng": "lfsr"},
    {"sng": sng.Lfsr(8, "galois", taps=(8, 5, 3, 2), start=45, sharing="stream")},
    {"sng": sng.Sobol(shift=True, sharing="stream")},
    {"sng": sng.Halton(sharing="stream")},
    {"sng": sng.VanDerCorput(3)},
    {"sng": sng.Counter()},
    {"sng": sng.NumberTable(np.arange(14).reshape(2, 7) << 28, sharing="stream")},
]


def equal(one: Any, other: Any) -> bool:
    """The same bits out of two layers or networks, and two objects."""
    assert one is not other and repr(one) == repr(other) and one.device == other.device
    return bool(np.array_equal(one.counts(X, 5, 2), other.counts(X, 5, 2)))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options).partition(" object at ")[0])
def test_layers_and_networks_are_the_same_afterwards(
    options: dict[str, Any], chosen: scgpu.Device, tmp_path: Path
) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, **options, device=chosen)
    pair = [layer, scgpu.DenseLayer(3, 2, 70, **options, device=chosen)]
    for made in (layer, scgpu.Network(pair, scgpu.Activation("relu", 1.5)), scgpu.Network([layer])):
        path = tmp_path / "file"
        made.save(path)
        octets = path.read_bytes()
        loaded = type(made).load(str(path), chosen)
        for twin in (loaded, pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
            assert equal(twin, made)
            twin.save(path)
            assert path.read_bytes() == octets
        on_host = type(made).load(path, "numpy")
        assert on_host.device.kind == "numpy" and np.array_equal(on_host.counts(X, 5, 2), made.counts(X, 5, 2))
    assert [one.tensor_id for one in scgpu.Network.load(path, chosen).layers] == [0]


@given(
    n_inputs=st.integers(1, 6),
    n_neurons=st.integers(1, 6),
    length=st.integers(1, 200),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_layer_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, n_inputs: int, n_neurons: int, length: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("layer") / "layer.npz"
    layer = scgpu.DenseLayer(n_inputs, n_neurons, length, seed, device="cpu")
    layer.save(path)
    loaded = scgpu.DenseLayer.load(path, "cpu")
    assert np.array_equal(loaded.weights, layer.weights) and loaded.packed_weights == layer.packed_weights
    with np.load(path, allow_pickle=False) as stored:  # a plain .npz
        assert np.array_equal(stored["weights"], layer.weights)
        header = json.loads(bytes(stored["header"]))
    assert (header["format"], header["version"], header["layer"]["seed"]) == ("scgpu dense layer", 1, seed)


def test_copies_are_their_own(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, device=chosen)
    network = scgpu.Network([layer, scgpu.DenseLayer(3, 2, 70, device=chosen)])
    before = layer.counts(X), network.counts(X)
    for way in (copy.copy, copy.deepcopy):
        twin, stack = way(layer), way(network)
        twin.weights = np.zeros((3, 5))
        stack.layers[0].weights = np.zeros((3, 5))
        stack.activations.clear()
        assert not twin.counts(X).any()
        assert np.array_equal(layer.counts(X), before[0]) and np.array_equal(network.counts(X), before[1])


def test_bitstreams_are_pickled_and_copied(chosen: scgpu.Device) -> None:
    a = scgpu.encode(X, 100, 3, sng="sobol", device=chosen)
    again = pickle.loads(pickle.dumps(a))
    assert again == a and again.device == chosen and again is not a
    both = [scgpu.encode(X, 100, correlated_with=one, device=chosen) for one in (a, again)]
    assert both[0] == both[1]  # the generator came with it
    assert copy.copy(a) is a and copy.deepcopy([a])[0] is a  # nobody changes them
    for shape in ((), (0,), (2, 0, 3)):
        one = scgpu.Bitstream.from_words(np.zeros((*shape, 2), np.uint64), 65, polarity="bipolar", device=chosen)
        assert pickle.loads(pickle.dumps(one)) == one


def test_bitstreams_in_parts_are_pickled(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scgpu.encode(X, 100, device=gpu)
    monkeypatch.setattr(backend_of(gpu), "largest_buffer", 100)
    assert len(scgpu.encode(X, 100, device=gpu)._parts) > 1
    assert pickle.loads(pickle.dumps(scgpu.encode(X, 100, device=gpu))) == whole


def test_auto_stays_auto_and_others_stay_what_they_are(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SC_GPU_ADAPTER", raising=False)
    for made in (scgpu.DenseLayer(5, 3), scgpu.Network([scgpu.DenseLayer(5, 3), scgpu.DenseLayer(3, 2)])):
        assert made.device.kind == "cpu"  # no hardware GPU here, or a smaller layer than pays
        octets = pickle.dumps(made)
        with monkeypatch.context() as there:
            there.setenv("SC_GPU_ADAPTER", gpu.backend)
            assert pickle.loads(octets).device == gpu
        again = pickle.loads(pickle.dumps(pickle.loads(octets)))
        assert (again.placement if isinstance(again, scgpu.DenseLayer) else again.layers[0].placement).device == (
            made.device
        )
    mixed = scgpu.Network([scgpu.DenseLayer(5, 3), scgpu.DenseLayer(3, 2, device="cpu")])
    assert not mixed._automatic
    with monkeypatch.context() as there:
        there.setenv("SC_GPU_ADAPTER", gpu.backend)
        assert pickle.loads(pickle.dumps(mixed)).device == scgpu.device("cpu")


def test_another_machine_has_other_devices(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert selector_of(choice_of(gpu)) == gpu
    kept = choice_of(gpu)._replace(on_device_loss="raise")
    found: Any = selector_of(kept)
    assert (found.kind, found.index, found.on_device_loss) == ("gpu", gpu.index, "raise")
    other: Any = selector_of(kept._replace(name="an adapter of another machine"))
    assert other.kind == "gpu" and other.on_device_loss == "raise"
    for device in ("cpu", "numpy"):
        assert selector_of(choice_of(scgpu.device(device))) == scgpu.device(device)
    lowest = scgpu.device(f"cpu:{scgpu.simd_tiers()[-1]}")
    assert selector_of(choice_of(lowest)) == lowest
    assert selector_of(choice_of(lowest)._replace(tier="of another processor")) == scgpu.device("cpu")
    octets = [pickle.dumps(scgpu.DenseLayer(2, 2, device=gpu)), pickle.dumps(scgpu.encode([0.5], device=gpu))]
    octets.append(pickle.dumps(scgpu.Network([scgpu.DenseLayer(2, 2, device=gpu)])))
    without = [device for device in scgpu.devices() if device.kind != "gpu"]
    monkeypatch.setattr(device_choice, "devices", lambda: without)
    for one in octets:
        with pytest.raises(scgpu.DeviceError, match=r"pickled on the GPU adapter .*no adapter is usable here .*'auto'"):
            pickle.loads(one)


@pytest.mark.parametrize("device", ["auto", "gpu"])
@pytest.mark.parametrize("loss", ["failover", "raise"])
def test_what_the_loss_of_a_device_does_is_kept(device: str, loss: Any) -> None:
    layer = scgpu.DenseLayer(5, 3, device=device, on_device_loss=loss)
    network = scgpu.Network([layer, scgpu.DenseLayer(3, 2, device=device)])
    for made in (layer, network):
        for twin in (made, pickle.loads(pickle.dumps(made)), copy.copy(made)):
            layers = twin.layers if isinstance(twin, scgpu.Network) else [twin]
            assert {one._form.device.on_device_loss for one in layers} == {loss}


def _counts(layer: Any) -> Any:
    return layer.counts(X, 5)


def test_layers_travel_to_other_processes(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, device=chosen)
    network = scgpu.Network([layer, scgpu.DenseLayer(3, 2, 70, device=chosen)])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for made in (layer, network):
            assert np.array_equal(pool.apply(_counts, (made,)), made.counts(X, 5))


class Own(sng.Sng):
    sharing: sng.Sharing = "tensor"

    def numbers(self, sequence: int, length: int, seed: int) -> sng.Numbers:
        return np.arange(length, dtype=np.uint32) << 20


def test_generators_of_others_are_pickled_but_not_saved(tmp_path: Path) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, sng=Own(), device="cpu")
    assert equal(pickle.loads(pickle.dumps(layer)), layer)
    with pytest.raises(TypeError, match=r"cannot be saved: a file has generators of scgpu\.sng alone"):
        layer.save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_number_table_shows_its_numbers() -> None:
    table = sng.NumberTable([3, 1, 2])
    assert table.rows.tolist() == [[3, 1, 2]] and table.rows.dtype == np.uint32
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0] = 0


Header = dict[str, Any]


def changed(path: Path, change: Callable[[Header, dict[str, Any]], None]) -> Path:
    """The file with something else in it."""
    with np.load(path) as stored:
        held: dict[str, Any] = {name: stored[name] for name in stored.files}
    header = json.loads(bytes(held["header"]))
    change(header, held)
    held["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with zipfile.ZipFile(path, "w") as contents:
        for name, array in held.items():
            with contents.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    return sealed(path)


def of_layer(**change: Any) -> Callable[[Header, dict[str, Any]], None]:
    return lambda header, held: header["layer"].update(change)


def array(name: str, value: Any) -> Callable[[Header, dict[str, Any]], None]:
    return lambda header, held: held.update({name: value}) if value is not None else held.pop(name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (of_layer(n_inputs=6), r"weights must be float64 of shape \(3, 6\); it is float64 of shape \(3, 5\)"),
        (of_layer(n_neurons=0), "n_neurons must be from 1"),
        (of_layer(n_neurons=2.0), "n_neurons must be an integer"),
        (of_layer(length=0), "length must be from 1"),
        (of_layer(length="long"), "length must be an integer"),
        (of_layer(seed=-1), "seed must be from 0"),
        (of_layer(polarity="other"), "polarity must be one of"),
        (of_layer(max_batch=0), "max_batch must be from 1"),
        (of_layer(tensor_id=2**24), "tensor_id must be from 0"),
        (of_layer(weight_streams="none"), "weight_streams must be one of"),
        (of_layer(sequence="philox"), "sequence='philox' needs"),
        (of_layer(sng={"kind": "other"}), "kind must be one of 'lfsr', .*; got 'other'"),
        (of_layer(sng={"kind": "lfsr", "width": 99}), "width must be from 3 to 32"),
        (of_layer(sng={"kind": "lfsr", "__class__": 1}), "unexpected keyword argument"),
        (of_layer(sng={"kind": "lfsr", "width": 8, "taps": [8, 1]}), "taps must be those of a maximal register"),
        (of_layer(sng={"kind": "table", "sharing": "tensor"}), "the array numbers is missing"),
        (of_layer(sng=5), "int"),
        (lambda header, held: header.update(layer=None), "a layer of its header must have n_inputs, .*; got None"),
        (lambda header, held: header["layer"].pop("seed"), "a layer of its header must have"),
        (lambda header, held: header.pop("layer"), "KeyError: 'layer'"),
        (array("weights", np.full((3, 5), np.nan)), r"weights must lie in \[0, 1\]; got nan at index \(0, 0\)"),
        (array("weights", np.full((3, 5), -0.1)), r"got -0.1 at index"),
        (array("weights", np.zeros((3, 5), np.float32)), "weights must be float64"),
        (array("weights", None), "the array weights is missing"),
    ],
)
def test_layer_files_reject(change: Any, text: str, tmp_path: Path) -> None:
    scgpu.DenseLayer(5, 3, 100, device="cpu").save(tmp_path / "file")
    path = changed(tmp_path / "file", change)
    with pytest.raises(ValueError, match=text) as caught:
        scgpu.DenseLayer.load(path, "cpu")
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded as a dense layer: ")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda header, held: header.update(layers=[]), "its header must list layers and activations"),
        (lambda header, held: header.update(activations=None), "its header must list layers and activations"),
        (lambda header, held: header.update(activations=[]), "one for each of the 1 places; got 0"),
        (lambda header, held: header["activations"][0].update(kind="tanh"), "activation must be one of"),
        (lambda header, held: header["activations"][0].update(scale=99), "scale=99.* is above 5"),
        (lambda header, held: header["activations"][0].update(scale=float("nan")), "scale must be finite"),
        (lambda header, held: header["activations"][0].update(more=1), "unexpected keyword argument"),
        (lambda header, held: header["layers"].reverse(), r"0\.weights must be float64 of shape \(2, 3\)"),
        (lambda header, held: header["layers"].pop(), "one for each of the 0 places; got 1"),
        (lambda header, held: header["layers"][1].update(polarity="bipolar"), r"the polarity of layers\[0\]"),
        (array("1.weights", None), r"the array 1\.weights is missing"),
    ],
)
def test_network_files_reject(change: Any, text: str, tmp_path: Path) -> None:
    layers = [scgpu.DenseLayer(5, 3, 100, device="cpu"), scgpu.DenseLayer(3, 2, 100, device="cpu")]
    scgpu.Network(layers, scgpu.Activation("clip", 2.0)).save(tmp_path / "file")
    path = changed(tmp_path / "file", change)
    with pytest.raises(ValueError, match=text) as caught:
        scgpu.Network.load(path, "cpu")
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded as a network: ")


def test_what_is_wrong_with_the_device_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, device="cpu")
    layer.save(tmp_path / "layer")
    scgpu.Network([layer]).save(tmp_path / "network")
    for load, name in ((scgpu.DenseLayer.load, "layer"), (scgpu.Network.load, "network")):
        with pytest.raises(scgpu.DeviceError, match="'no such device' matches no GPU adapter"):
            load(tmp_path / name, "no such device")
        with pytest.raises(TypeError, match="device must be a name"):
            load(tmp_path / name, 1.5)
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "nothing", "cpu")

    def lost(*arguments: Any, **options: Any) -> Any:
        raise scgpu.DeviceLostError("the device is gone")

    monkeypatch.setattr("scgpu.layer_file._options", lost)
    with pytest.raises(scgpu.DeviceLostError, match="the device is gone"):
        scgpu.DenseLayer.load(tmp_path / "layer", "cpu")


def test_a_layer_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    layer = scgpu.DenseLayer(5, 3, 100, device="cpu")
    for save in (layer.save, scgpu.Network([layer]).save):
        with pytest.raises(FileNotFoundError, match="missing/file"):
            save(tmp_path / "missing" / "file")
