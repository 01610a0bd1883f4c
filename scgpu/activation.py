"""activation: what happens to a layer's counts before the next layer encodes them again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Step

KINDS = ("clip", "relu")
HALF = 1 << 31  # threshold of bipolar zero


@dataclass(frozen=True)
class Activation:
    """A function from counts to stream values, in exact integers.

    A neuron's value v (see `DenseLayer.forward`) becomes the stream value v / scale, clipped
    to [0, 1] (unipolar) or [-1, 1] (bipolar); ``"relu"`` clips below at 0 in both.

    With L bits, n inputs and scale s (default n, the largest value), the kernel computes from
    a count c, in integers,

    * unipolar: offset = 0, full scale D = floor(s L + 1/2);
    * bipolar: offset = floor((n - s) L / 2 + 1/2), D = floor(s L + 1/2), since the count of
      value v is (v + n) L / 2;
    * threshold = floor(max(c - offset, 0) 2**32 / D), 'always' where c - offset >= D, at least
      2**31 for a bipolar ReLU.

    Attributes
    ----------
    kind : {"clip", "relu"}
        Shape of the function.
    scale : float, optional
        Value of v that becomes 1, in (0, n]; default n.
    """

    kind: Literal["clip", "relu"] = "clip"
    scale: float | None = None

    def __post_init__(self) -> None:
        arguments.choice("activation", self.kind, KINDS)
        if self.scale is None:
            return
        # A NumPy scalar would round the products below to its own precision.
        object.__setattr__(self, "scale", arguments.real("scale", self.scale, 0.0))

    def integers(self, input_count: int, length: int, polarity: Polarity) -> dict[str, int]:
        """Kernel parameters for a layer of ``input_count`` inputs at ``length`` bits."""
        scale = input_count if self.scale is None else self.scale
        if scale > input_count:
            raise ValueError(
                f"scale={scale} is above {input_count}, the largest value of a layer of {input_count} inputs; "
                "use a smaller scale, or None"
            )
        bipolar = polarity == "bipolar"
        return {
            "offset": math.floor((input_count - scale) * length / 2 + 0.5) if bipolar else 0,
            "full_scale": max(1, math.floor(scale * length + 0.5)),
            "floor": HALF if bipolar and self.kind == "relu" else 0,
        }


def activation_step(counts: Any, thresholds: Any, element_count: int, integers: dict[str, int]) -> Step:
    """The kernel call that turns counts into thresholds."""
    return Step("activation", {"element_count": element_count, **integers}, (counts, thresholds))
