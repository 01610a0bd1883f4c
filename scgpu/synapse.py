"""Synapses that learn from the times of spikes, in fixed point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.fixed_point import signed
from scgpu.lif import HIGH, LOW, Format


class StdpSynapse:
    """Synapses with spike-timing-dependent plasticity (pairs, exponential traces), in fixed point.

    A spike before the synapse adds ``a_plus`` to a trace, a spike behind it the size of ``a_minus``
    to another; both decay. A spike behind potentiates by the first trace, a spike before
    depresses by the second; of two at once only the potentiation counts.

    This is the reference's rule with one defect left out. There a negative ``a_minus``, such as its
    default -16, makes the trace negative, so that depression raises the weight, past ``w_max``. Here
    the sign of ``a_minus`` does not matter: 16 and -16 depress by 16. For a positive ``a_minus`` every
    weight is the reference's.

    Parameters
    ----------
    initial_weight : int or array_like of int
        One synapse, or an array of them; -32768 to 32767, not clipped to the limits of `step`.
    data_width : int
        Bits of a number, 1 to 16.
    fraction : int
        Bits that a product is shifted to the right, 0 to 31.

    Raises
    ------
    ValueError
        A number out of range.
    TypeError
        Something that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> synapse = scgpu.StdpSynapse(1000)
    >>> synapse.step(pre=1, post=0, a_plus=64, a_minus=64)
    >>> synapse.step(pre=0, post=1, a_plus=64, a_minus=64)  # it may have helped to make the spike
    >>> synapse.weight
    1015
    >>> synapse.step(pre=1, post=0, a_plus=64, a_minus=64)  # this one came too late
    >>> synapse.weight
    1000
    """

    def __init__(self, initial_weight: ArrayLike, data_width: int = 16, fraction: int = 8) -> None:
        self._format = Format.checked(data_width, fraction)
        self._weight = arguments.integers16("initial_weight", initial_weight).astype(np.int64)
        self._before = np.zeros_like(self._weight)
        self._behind = np.zeros_like(self._weight)

    @property
    def weight(self) -> int | NDArray[np.int16]:
        """The weights: an int for one synapse, else an int16 array of the shape given."""
        return int(self._weight) if self._weight.ndim == 0 else self._weight.astype(np.int16)

    def _spikes(self, name: str, value: Any) -> NDArray[np.bool_]:
        array = arguments.array_of(name, value)
        if array.dtype.kind not in "biu" or ((array != 0) & (array != 1)).any():
            raise ValueError(f"{name} must be 0 or 1, or an array of them; got {arguments.shown(value)}")
        if array.ndim and array.shape != self._weight.shape:
            raise ValueError(f"{name} must be a number or have the shape {self._weight.shape}; got {array.shape}")
        return array.astype(np.bool_)

    def step(
        self,
        pre: ArrayLike,
        post: ArrayLike,
        a_plus: int = 16,
        a_minus: int = 16,
        decay: int = 250,
        w_min: int = 0,
        w_max: int = 32767,
    ) -> None:
        """Advance by one step.

        Parameters
        ----------
        pre, post : bool, 0 or 1, or an array of the shape of the weights
            Whether the neuron before the synapse, and the one behind it, fired.
        a_plus, a_minus : int
            What a spike adds to the trace before and behind; -32768 to 32767. The sign of
            ``a_minus`` does not matter. A negative ``a_plus`` makes a spike behind depress.
        decay : int
            Share of a trace that is left after a step, times 2**fraction.
        w_min, w_max : int
            Least weight after a depression, largest after a potentiation.

        Raises
        ------
        ValueError
            A number out of range, spikes that are not 0 or 1 or of another shape, ``w_min`` above
            ``w_max``; the synapse stays as it was.
        TypeError
            Something that is no integer.
        """
        pre_spikes, post_spikes = self._spikes("pre", pre), self._spikes("post", post)
        a_plus = arguments.integer("a_plus", a_plus, LOW, HIGH)
        a_minus = abs(arguments.integer("a_minus", a_minus, LOW, HIGH))
        decay = arguments.integer("decay", decay, LOW, HIGH)
        w_min = arguments.integer("w_min", w_min, LOW, HIGH)
        w_max = arguments.integer("w_max", w_max, w_min, HIGH)
        width, fraction = self._format

        def masked(value: Any) -> Any:
            return signed(value, width)

        before = masked(self._before * decay >> fraction)
        behind = masked(self._behind * decay >> fraction)
        self._before = np.where(pre_spikes, masked(before + a_plus), before)
        self._behind = np.where(post_spikes, masked(behind + a_minus), behind)
        raised = masked(np.minimum(self._weight + (self._before * abs(a_plus) >> fraction), w_max))
        lowered = masked(np.maximum(self._weight - (self._behind * a_minus >> fraction), w_min))
        self._weight = np.where(post_spikes, raised, np.where(pre_spikes, lowered, self._weight))
