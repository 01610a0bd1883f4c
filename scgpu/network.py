"""Network: a stack of dense layers whose activations never leave the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu.activation import Activation
from scgpu.backend import Device
from scgpu.dense import DenseLayer
from scgpu.pipeline import Pending, submit_stack
from scgpu.placement import common_device


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
        given = list(layers)
        if not given:
            raise ValueError("layers must hold at least one DenseLayer; got none")
        for index, layer in enumerate(given):
            if not isinstance(layer, DenseLayer):
                raise TypeError(f"layers[{index}] must be a DenseLayer; got {type(layer).__name__}")
        for index, (before, after) in enumerate(zip(given, given[1:], strict=False), 1):
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
        device = common_device([layer.placement for layer in given])
        for index, layer in enumerate(given):
            # Where it was made for: a layer may have moved since, when its device was lost.
            if layer.placement.device != device and not layer.placement.expected:
                raise ValueError(
                    f"layers[{index}] must be on one device with the other layers, {device}; "
                    f"got {layer.placement.device}"
                )
        places = len(given) - 1
        chosen = [activation] * places if isinstance(activation, (str, Activation)) else list(activation)
        if len(chosen) != places:
            raise ValueError(f"activation must be one, or one for each of the {places} places; got {len(chosen)}")
        self.activations: list[Activation] = []
        for index, (layer, item) in enumerate(zip(given, chosen, strict=False)):
            if not isinstance(item, (str, Activation)):
                raise TypeError(f"activation[{index}] must be a name or an Activation; got {type(item).__name__}")
            made = Activation(item) if isinstance(item, str) else item  # type: ignore[arg-type]
            made.integers(layer.n_inputs, layer.length, layer.polarity)  # refuses a scale that does not fit
            self.activations.append(made)
        self.layers: list[DenseLayer] = [
            DenseLayer(
                layer.n_inputs,
                layer.n_neurons,
                layer.length,
                layer.seed,
                weights=layer.weights,
                polarity=layer.polarity,
                max_batch=layer.max_batch,
                tensor_id=index,
                weight_streams=layer.weight_streams,
                sequence=layer.sequence,
                sng=layer.sng or "bernoulli",
                device=device,
            )
            for index, layer in enumerate(given)
        ]

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

    def forward(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> NDArray[np.float64]:
        """Values of the last layer; parameters, shape and errors as `DenseLayer.forward`."""
        return self.submit(x, seed, first_sample).result()

    def submit(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> Pending:
        """Start `forward`, and return without waiting; parameters, bounds and errors as `DenseLayer.submit`."""
        return submit_stack(self.layers, self.activations, x, seed, first_sample)

    def __repr__(self) -> str:
        sizes = "-".join(str(n) for n in (self.n_inputs, *(layer.n_neurons for layer in self.layers)))
        return f"Network({sizes}, device={str(self.device)!r})"
