"""Network: a stack of dense layers whose activations never leave the device."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.activation import Activation
from scgpu.backend import Device
from scgpu.batches import counts_in_batches
from scgpu.dense import DenseLayer
from scgpu.device_choice import choice_of
from scgpu.pipeline import Pending, submit_stack
from scgpu.placement import common_device


def _between(
    layers: Sequence[DenseLayer], activation: str | Activation | Sequence[str | Activation]
) -> list[Activation]:
    """Activations between layers that fit together, one for each place."""
    for index, (before, after) in enumerate(zip(layers, layers[1:], strict=False), 1):
        if after.n_inputs != before.n_neurons:
            raise ValueError(
                f"layers[{index}] must have the {before.n_neurons} inputs that layers[{index - 1}] has neurons; "
                f"got {after.n_inputs}"
            )
        if after.polarity != before.polarity:
            raise ValueError(
                f"layers[{index}] must have the polarity of layers[{index - 1}], {before.polarity}; "
                f"got {after.polarity}"
            )
    places = len(layers) - 1
    one = isinstance(activation, (str, Activation))
    chosen = [activation] * places if one else arguments.listed("activation", activation, "names")
    if len(chosen) != places:
        raise ValueError(f"activation must be one, or one for each of the {places} places; got {len(chosen)}")
    activations: list[Activation] = []
    for index, (layer, item) in enumerate(zip(layers, chosen, strict=False)):
        if not isinstance(item, (str, Activation)):
            raise TypeError(f"activation[{index}] must be a name or an Activation; got {type(item).__name__}")
        made = Activation(item) if isinstance(item, str) else item  # type: ignore[arg-type]
        made.integers(layer.n_inputs, layer.length, layer.polarity)  # refuses a scale that does not fit
        activations.append(made)
    return activations


class Network:
    """A stack of dense layers.

    Counts of one layer become thresholds of the next one's input streams in integers, on
    the device. A call is one submission, unless the thresholds or counts of its batch are
    more than one buffer of the device holds.

    Parameters
    ----------
    layers : sequence of DenseLayer
        Of one polarity, and one device where it was given (layers of device "auto" go where the
        whole network is expected to be fastest), each with as many inputs as the one before has neurons;
        lengths may differ. The network makes layers of its own from them, with their sizes,
        seeds and weights, and the index in the network as tensor id (contract, section 2), so
        that equal seeds do not mean equal streams. The given layers stay as they are.
    activation : str, Activation or sequence of them
        Between each layer and the next: ``"clip"``, ``"relu"``, or an `Activation` with a
        scale. One for all, or one for each of the ``len(layers) - 1`` places.

    Raises
    ------
    ValueError
        No layers, or layers or activations that do not fit together.
    TypeError
        Something that is not a layer or an activation.
    """

    def __init__(
        self,
        layers: Sequence[DenseLayer],
        activation: str | Activation | Sequence[str | Activation] = "clip",
    ) -> None:
        given = arguments.listed("layers", layers, "DenseLayer")
        if not given:
            raise ValueError("layers must hold at least one DenseLayer; got none")
        for index, layer in enumerate(given):
            if not isinstance(layer, DenseLayer):
                raise TypeError(f"layers[{index}] must be a DenseLayer; got {type(layer).__name__}")
        self.activations = _between(given, activation)
        device = common_device([layer.placement for layer in given])
        for index, layer in enumerate(given):
            # Where it was made for: a layer may have moved since, when its device was lost.
            if layer.placement.device != device and not layer.placement.expected:
                raise ValueError(
                    f"layers[{index}] must be on one device with the other layers, {device}; "
                    f"got {layer.placement.device}"
                )
        losses = {layer._form.device.on_device_loss for layer in given}
        loss: Literal["failover", "raise"] = "raise" if "raise" in losses else "failover"
        isolate = device.kind == "gpu" and any(layer._form.device.isolated for layer in given)
        self.layers = [
            DenseLayer(**{**layer._options(), "tensor_id": index}, device=device, isolate=isolate, on_device_loss=loss)
            for index, layer in enumerate(given)
        ]
        self._automatic = all(layer.placement.automatic for layer in given)

    @classmethod
    def _of(cls, layers: list[DenseLayer], activations: Sequence[str | Activation], automatic: bool) -> Self:
        """A network of layers that are nobody else's, have their tensor ids and lie on one device."""
        made = object.__new__(cls)
        made.activations = _between(layers, activations)
        made.layers = layers
        made._automatic = automatic
        return made

    @property
    def device(self) -> Device:
        """Where the network runs."""
        return self.layers[0].device

    @property
    def n_inputs(self) -> int:
        """Inputs of the first layer."""
        return self.layers[0].n_inputs

    @property
    def n_neurons(self) -> int:
        """Neurons of the last layer."""
        return self.layers[-1].n_neurons

    def counts(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> NDArray[np.uint64]:
        """Counts of the last layer; parameters, shape and errors as `DenseLayer.counts`."""
        return self.submit(x, seed, first_sample).counts()

    def counts_in_batches(
        self,
        x: Any,
        seed: int = 42,
        first_sample: int = 0,
        *,
        batch_size: int = 4096,
        out: NDArray[np.uint64] | None = None,
        progress: bool | Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> NDArray[np.uint64]:
        """Counts of the last layer, batch by batch; parameters, shape and errors as `DenseLayer.counts_in_batches`."""
        return counts_in_batches(
            self.layers,
            self.activations,
            x,
            seed,
            first_sample,
            batch_size=batch_size,
            out=out,
            progress=progress,
            checkpoint=checkpoint,
        )

    def values_of(self, counts: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Counts of the last layer as values; see `DenseLayer.values_of`."""
        return self.layers[-1].values_of(counts)

    def forward(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> NDArray[np.float64]:
        """Values of the last layer; parameters, shape and errors as `DenseLayer.forward`."""
        return self.submit(x, seed, first_sample).result()

    def submit(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> Pending:
        """Start `forward`, and return without waiting; parameters, bounds and errors as `DenseLayer.submit`."""
        return submit_stack(self.layers, self.activations, x, seed, first_sample)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers and activations into one file, which `load` reads; errors as `DenseLayer.save`."""
        from scgpu import layer_file

        layer_file.save_network(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | int | Device = "auto") -> Network:
        """Read a network that `save` wrote, to any device; parameters and errors as `DenseLayer.load`."""
        from scgpu import layer_file

        return layer_file.load_network(cls, path, device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as parameters and weights; ``"auto"`` stays so, another device is one of its kind."""
        from scgpu import layer_file

        options = [layer._options() for layer in self.layers]
        choice = choice_of(self.layers[0]._form.device, self._automatic)
        return layer_file.unpickled_network, (type(self), options, self.activations, choice)

    def __copy__(self) -> Self:
        """A network of its own on the same device; the streams, which nobody changes, are shared."""
        return self._of([copy.copy(layer) for layer in self.layers], self.activations, self._automatic)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __repr__(self) -> str:
        sizes = "-".join(str(n) for n in (self.n_inputs, *(layer.n_neurons for layer in self.layers)))
        return f"Network({sizes}, device={str(self.device)!r})"
