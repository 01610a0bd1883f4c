"""Populations: neurons of one kind whose state stays on a device."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Device, require_host_memory
from scgpu.devices import backend_for
from scgpu.lif import MOST, Format, Input, Neurons


@dataclass(frozen=True, eq=False)
class LifParameters:
    """What leaky integrate-and-fire neurons of a population are, in fixed point; see `FixedPointLif`.

    Attributes
    ----------
    leak_k : int or array_like of int, shape (n,)
        Share of ``v_rest - v`` that flows back in a step, times 2**fraction.
    gain_k : int or array_like of int, shape (n,)
        Weight of the current, times 2**fraction: 2**fraction adds a current to v as it is.
    v_rest, v_reset, v_threshold, refractory_period : int or array_like of int, shape (n,)
        See `FixedPointLif`; -32768 to 32767.
    data_width : int
        Bits of a number, 1 to 16.
    fraction : int
        Bits that a product is shifted to the right, 0 to 31.
    """

    leak_k: ArrayLike
    gain_k: ArrayLike
    v_rest: ArrayLike = 0
    v_reset: ArrayLike = 0
    v_threshold: ArrayLike = 256
    refractory_period: ArrayLike = 2
    data_width: int = 16
    fraction: int = 8


class Population:
    """Leaky integrate-and-fire neurons in fixed point, with their state in buffers of a device.

    They start from rest. A `SpikingNetwork` advances them; a population belongs to one network.

    Parameters
    ----------
    n : int
        Neurons, 1 to 2**32 - 1.
    params : LifParameters
        What they are.
    name : str, optional
        What records are found by; a network calls a population without one ``population_0``,
        ``population_1``, ... by its place.
    device : str, int or Device
        See `scgpu.device`.

    Raises
    ------
    ValueError
        A number out of range, or an array that is not of one number for each neuron.
    TypeError
        Something that is no integer, or ``params`` of another type.
    TooLargeError
        The state does not fit the device's memory.

    Examples
    --------
    >>> import scgpu
    >>> cells = scgpu.Population(3, scgpu.LifParameters(leak_k=20, gain_k=256), name="cells", device="cpu")
    >>> network = scgpu.SpikingNetwork([cells], inputs=[scgpu.ConstantCurrent(cells, [0, 60, 120])])
    >>> network.run(100, record="counts")["cells"].counts.tolist()
    [0, 14, 20]
    """

    def __init__(
        self, n: int, params: LifParameters, *, name: str | None = None, device: str | int | Device = "auto"
    ) -> None:
        self.count = arguments.integer("n", n, 1, MOST)
        if not isinstance(params, LifParameters):
            raise TypeError(f"params must be LifParameters; got {type(params).__name__}")
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"name must be a string that is not empty, or None; got {arguments.shown(name)}")
        self.name = name
        self.params = params
        numbers = {field.name: getattr(params, field.name) for field in fields(params)}
        number_format = Format.checked(numbers.pop("data_width"), numbers.pop("fraction"))
        # What comes in is made anew for every few steps, a row for each: see `drive_step`.
        current = Input(np.zeros(0, "<i2"), 1, self.row_stride)
        silence = Input(np.zeros(1, "<i2"), 0, 0)
        require_host_memory(12 * self.count)  # the state, as it is made and uploaded
        self._neurons = Neurons.checked(self.count, numbers, number_format, current, silence)
        self._backend = backend_for(device)
        self._table = self._backend.upload(self._neurons.table)
        self._noise = self._backend.upload(silence.values)
        self._state = self._backend.upload(self._neurons.rest())
        self._network: weakref.ref[Any] | None = None

    def _require_free(self) -> None:
        """Refuse a population that another network advances."""
        if self._network is not None and self._network() is not None:
            raise ValueError(f"population {self.name!r} is part of another network; make one of its own")

    def _join(self, network: Any, name: str) -> None:
        """Belong to a network, under ``name`` where there is no other."""
        self._network = weakref.ref(network)
        self.name = self.name or name

    @property
    def row_stride(self) -> int:
        """Elements between the currents of two steps: on a GPU no two steps may share 32 bits."""
        return self.count + self.count % 2

    @property
    def device(self) -> Device:
        """Where the neurons are."""
        return self._backend.device

    def get_state(self) -> dict[str, NDArray[np.int16]]:
        """``v`` and ``refractory_counter`` of every neuron, int16 of shape (n,), fetched from the device."""
        (state,) = self._backend.execute([], [self._state])
        v, refractory = state.reshape(self.count, 2).T.copy()
        return {"v": v, "refractory_counter": refractory}

    def set_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Continue from what `get_state` gave, or from other potentials.

        Parameters
        ----------
        state : Mapping
            ``v`` and ``refractory_counter``: a number each, or an array of shape (n,); -32768 to 32767.

        Raises
        ------
        ValueError
            Other keys, a wrong shape, or a number out of range; the state stays as it was.
        TypeError
            Something that is no integer.
        """
        arguments.keys("state", state, "v", "refractory_counter")
        given = np.empty((self.count, 2), "<i2")
        for column, name in enumerate(("v", "refractory_counter")):
            values = arguments.integers16(name, state[name])
            if values.shape not in ((), (self.count,)):
                raise ValueError(f"{name} must be a number or have shape ({self.count},); got {values.shape}")
            given[:, column] = values
        self._backend.write(self._state, given)

    def reset(self) -> None:
        """Back to rest: every v is ``v_rest``, and no refractory step is left."""
        self._backend.write(self._state, self._neurons.rest())

    def __repr__(self) -> str:
        return f"Population({self.count}, name={self.name!r}, device={str(self.device)!r})"
