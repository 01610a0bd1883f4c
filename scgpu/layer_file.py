"""The files of dense layers and networks, for their `save` and `load`; and how they are made again from a pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scgpu import archive, arguments, sng
from scgpu.activation import Activation
from scgpu.archive import Archive, Format
from scgpu.backend import Device
from scgpu.dense import DenseLayer
from scgpu.device_choice import DeviceChoice, selector_of
from scgpu.devices import device as device_of
from scgpu.network import Network
from scgpu.placement import Shape, common_device, place

LAYER = Format("dense layer", 1, "DenseLayer.save")
NETWORK = Format("network", 1, "Network.save")
GENERATORS: dict[str, type[Any]] = {
    "lfsr": sng.Lfsr,
    "sobol": sng.Sobol,
    "halton": sng.Halton,
    "van_der_corput": sng.VanDerCorput,
    "counter": sng.Counter,
}
OPTIONS = (
    *("n_inputs", "n_neurons", "length", "seed", "polarity"),
    *("max_batch", "tensor_id", "weight_streams", "sequence"),
)

Entry = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def _described(layer: DenseLayer) -> tuple[Entry, Arrays]:
    """What stands in a file of a layer."""
    entry: Entry = {name: getattr(layer, name) for name in OPTIONS}
    arrays: Arrays = {"weights": layer.weights}
    generator = layer.sng
    if generator is None:
        return {**entry, "sng": None}, arrays
    if type(generator) is sng.NumberTable:
        arrays["numbers"] = generator.rows
        return {**entry, "sng": {"kind": "table", "sharing": generator.sharing}}, arrays
    kinds = [kind for kind, made in GENERATORS.items() if type(generator) is made]
    if not kinds or not is_dataclass(generator):
        raise TypeError(
            f"sng={generator!r} cannot be saved: a file has generators of scgpu.sng alone; "
            "scgpu.sng.NumberTable holds the numbers of any other"
        )
    return {**entry, "sng": {"kind": kinds[0], **asdict(generator)}}, arrays


def _generator(contents: Archive, entry: Any, prefix: str) -> sng.Sng | str:
    """The generator of an entry."""
    if entry is None:
        return "bernoulli"
    options = dict(entry)
    kind = arguments.choice("kind", options.pop("kind", None), (*GENERATORS, "table"))
    if kind == "table":
        return sng.NumberTable(contents.array(f"{prefix}numbers", np.dtype("<u4"), None), **options)
    if isinstance(options.get("taps"), list):
        options["taps"] = tuple(options["taps"])
    made: sng.Sng = GENERATORS[kind](**options)
    return made


def _options(contents: Archive, entry: Any, prefix: str) -> dict[str, Any]:
    """Arguments of `DenseLayer` from an entry; its sizes are those of arrays that the file has."""
    if not isinstance(entry, dict) or not {*OPTIONS, "sng"} <= set(entry):
        raise ValueError(f"a layer of its header must have {', '.join(OPTIONS)} and sng; got {entry!r:.200}")
    n_neurons = arguments.integer("n_neurons", entry["n_neurons"], 1, 2**32 - 1)
    n_inputs = arguments.integer("n_inputs", entry["n_inputs"], 1, 2**32 - 1)
    weights = contents.array(f"{prefix}weights", np.dtype("<f8"), (n_neurons, n_inputs))
    options = {name: entry[name] for name in OPTIONS}
    return {**options, "weights": weights, "sng": _generator(contents, entry["sng"], prefix)}


def save_layer(layer: DenseLayer, path: str | os.PathLike[str]) -> None:
    """Write a layer."""
    entry, arrays = _described(layer)
    archive.save(path, LAYER, {"layer": entry}, arrays)


def load_layer(made: type[DenseLayer], path: str | os.PathLike[str], device: str | int | Device) -> DenseLayer:
    """Make the layer of a file, on any device."""
    device_of(device)  # what is wrong with it is no fault of the file
    return archive.load(
        path, LAYER, lambda contents: made(**_options(contents, contents.header["layer"], ""), device=device)
    )


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network."""
    entries, arrays = [], {}
    for index, layer in enumerate(network.layers):
        entry, found = _described(layer)
        entries.append(entry)
        arrays.update({f"{index}.{name}": array for name, array in found.items()})
    header = {"layers": entries, "activations": [asdict(one) for one in network.activations]}
    archive.save(path, NETWORK, header, arrays)


def load_network(made: type[Network], path: str | os.PathLike[str], device: str | int | Device) -> Network:
    """Make the network of a file, on any device."""
    device_of(device)

    def read(contents: Archive) -> Network:
        entries, activations = contents.header["layers"], contents.header["activations"]
        if not isinstance(entries, list) or not isinstance(activations, list) or not entries:
            raise ValueError("its header must list layers and activations")
        options = [_options(contents, entry, f"{index}.") for index, entry in enumerate(entries)]
        return network_of(made, options, [Activation(**one) for one in activations], device)

    return archive.load(path, NETWORK, read)


def network_of(
    made: type[Network],
    options: Sequence[Mapping[str, Any]],
    activations: Sequence[Activation],
    device: str | int | Device,
    on_device_loss: Literal["failover", "raise"] | None = None,
) -> Network:
    """A network of layers that are given by their arguments, without making them twice."""
    placements = []
    for one in options:
        shared = one["weight_streams"] == "shared"
        shape = Shape(one["n_inputs"], one["n_neurons"], one["length"], one["max_batch"], shared)
        placements.append(place(device, shape))
    chosen = common_device(placements)
    layers = [
        DenseLayer(**{**one, "tensor_id": index}, device=chosen, on_device_loss=on_device_loss)
        for index, one in enumerate(options)
    ]
    return made._of(layers, activations, placements[0].automatic)


def unpickled_layer(made: type[DenseLayer], options: dict[str, Any], choice: DeviceChoice) -> DenseLayer:
    """A layer as `DenseLayer.__reduce__` describes it."""
    return made(**options, device=selector_of(choice), on_device_loss=choice.on_device_loss)


def unpickled_network(
    made: type[Network], options: list[dict[str, Any]], activations: list[Activation], choice: DeviceChoice
) -> Network:
    """A network as `Network.__reduce__` describes it."""
    return network_of(made, options, activations, selector_of(choice), choice.on_device_loss)
