"""Single neurons step by step: fixed point, as hardware has them, and floating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.fixed_point import signed
from scgpu.lif import HIGH, LOW, Format


class FixedPointLif:
    """A leaky integrate-and-fire neuron in fixed point, one step at a time.

    All numbers are integers; a value x stands for x / 2**fraction. Sums and products keep the low
    ``data_width`` bits and their sign: they wrap, they do not saturate. For many steps or neurons
    use `batch_lif_run`, `batch_lif_run_multi` or `batch_lif_run_varying`, whose bits are the same.

    Parameters
    ----------
    data_width : int
        Bits of a number, 1 to 16.
    fraction : int
        Bits that a product is shifted to the right, 0 to 31.
    v_rest, v_reset, v_threshold : int
        Where v leaks to, what it is after a spike, and from where on it fires; -32768 to 32767,
        taken as they are, whatever the width.
    refractory_period : int
        Steps at rest after a spike; 0 or less means none.

    Raises
    ------
    ValueError
        A number out of range.
    TypeError
        Something that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> neuron = scgpu.FixedPointLif()
    >>> [neuron.step(leak_k=20, gain_k=256, i_t=128) for _ in range(4)]
    [(0, 128), (0, 246), (1, 0), (0, 0)]
    """

    def __init__(
        self,
        data_width: int = 16,
        fraction: int = 8,
        v_rest: int = 0,
        v_reset: int = 0,
        v_threshold: int = 256,
        refractory_period: int = 2,
    ) -> None:
        self._format = Format.checked(data_width, fraction)
        self._v_rest = arguments.integer("v_rest", v_rest, LOW, HIGH)
        self._v_reset = arguments.integer("v_reset", v_reset, LOW, HIGH)
        self._v_threshold = arguments.integer("v_threshold", v_threshold, LOW, HIGH)
        self._period = arguments.integer("refractory_period", refractory_period, LOW, HIGH)
        self._v, self._refractory = self._v_rest, 0

    def step(self, leak_k: int, gain_k: int, i_t: int, noise_in: int = 0) -> tuple[int, int]:
        """Advance by one step.

        Parameters
        ----------
        leak_k : int
            Share of ``v_rest - v`` that flows back in a step, times 2**fraction.
        gain_k : int
            Weight of the current, times 2**fraction.
        i_t : int
            Input current.
        noise_in : int
            Added to v.

        Returns
        -------
        spike, v : int
            0 or 1, and v after the step in ``data_width`` bits.

        Raises
        ------
        ValueError
            A number outside -32768 to 32767.
        TypeError
            Something that is no integer.
        """
        leak_k = arguments.integer("leak_k", leak_k, LOW, HIGH)
        gain_k = arguments.integer("gain_k", gain_k, LOW, HIGH)
        i_t = arguments.integer("i_t", i_t, LOW, HIGH)
        noise_in = arguments.integer("noise_in", noise_in, LOW, HIGH)
        width, fraction = self._format
        if self._refractory > 0:
            self._refractory -= 1
            self._v = self._v_rest
            return 0, signed(self._v, width)
        difference = signed(self._v_rest - self._v, min(2 * width, 16))
        leak = difference * leak_k >> fraction
        self._v = signed(self._v + leak + (i_t * gain_k >> fraction) + noise_in, width)
        if self._v < self._v_threshold:
            return 0, self._v
        self._v = self._v_reset
        self._refractory = self._period
        return 1, signed(self._v, width)

    def get_state(self) -> dict[str, int]:
        """``v`` and ``refractory_counter``; v is ``v_rest`` or ``v_reset`` as given where a step set it so."""
        return {"v": self._v, "refractory_counter": self._refractory}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continue from what `get_state` gave.

        Raises
        ------
        ValueError
            Other keys than its two, or a number outside -32768 to 32767; the state stays as it was.
        TypeError
            Something that is no integer.
        """
        arguments.keys("state", state, "v", "refractory_counter")
        v = arguments.integer("v", state["v"], LOW, HIGH)
        refractory = arguments.integer("refractory_counter", state["refractory_counter"], LOW, HIGH)
        self._v, self._refractory = v, refractory

    def reset(self) -> None:
        """Back to rest: v is ``v_rest``, and no refractory step is left."""
        self._v, self._refractory = self._v_rest, 0


def _floats(name: str, value: Any) -> NDArray[Any]:
    """A non-empty array of finite floating-point numbers."""
    array = arguments.array_of(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold floating-point numbers; got dtype {array.dtype}. Use .astype(np.float64).")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty; got shape {array.shape}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
        raise ValueError(f"{name} must be finite; got {array[index]} at index {index}")
    return array


def lif_step(
    v: ArrayLike,
    i_t: ArrayLike,
    v_rest: float,
    v_reset: float,
    v_threshold: float,
    alpha: float,
    resistance: float,
    noise: ArrayLike,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """One step of leaky integrate-and-fire neurons in floating point.

    ``v1 = v + (v_rest - v) * alpha + i_t * resistance + noise``; where ``v1 >= v_threshold`` there is
    a spike, and v becomes ``v_reset``.

    Everything is computed in float64, in this order, on the host; no device rounds otherwise. The
    tolerance to another evaluation of the formula in float64 (an order of its own, or fused
    multiply-adds) is 1e-10 + 1e-9 |v|; within it of the threshold a spike may differ.

    Parameters
    ----------
    v, i_t, noise : array_like of floats, all of one shape
        Potentials, input currents, and what is added; finite, at least one.
    v_rest, v_reset, v_threshold : float
        Finite.
    alpha, resistance : float
        Share of ``v_rest - v`` that flows back in a step, and weight of the current; finite, above 0.

    Returns
    -------
    v : ndarray
        Of the widest dtype among ``v``, ``i_t`` and ``noise``, rounded to it once.
    spikes : ndarray of uint8
        0 or 1.

    Raises
    ------
    ValueError
        NaN or an infinity, an empty array, arrays of several shapes, ``alpha`` or ``resistance`` not
        above 0.
    TypeError
        Something that is not floating-point.

    Examples
    --------
    >>> import scgpu
    >>> v, spikes = scgpu.lif_step([0.5, 0.9], [0.25, 0.5], 0.0, 0.0, 1.0, 0.5, 1.0, [0.0, 0.25])
    >>> v.tolist(), spikes.tolist()
    ([0.5, 0.0], [0, 1])
    """
    arrays = {name: _floats(name, value) for name, value in (("v", v), ("i_t", i_t), ("noise", noise))}
    shape = arrays["v"].shape
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape of v, {shape}; got {array.shape}")
    rest, reset, threshold = (
        arguments.real(name, value)
        for name, value in (("v_rest", v_rest), ("v_reset", v_reset), ("v_threshold", v_threshold))
    )
    alpha, resistance = arguments.real("alpha", alpha, 0.0), arguments.real("resistance", resistance, 0.0)
    potential, current, added = (array.astype(np.float64) for array in arrays.values())
    reached = potential + (rest - potential) * alpha + current * resistance + added
    spikes = reached >= threshold
    after = np.where(spikes, reset, reached).astype(np.result_type(*arrays.values()))
    return after, spikes.astype(np.uint8)
