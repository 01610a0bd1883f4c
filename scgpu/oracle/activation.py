"""activation: counts to thresholds in exact integers (contract, section 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def activation(
    counts: NDArray[np.uint32],
    thresholds: NDArray[np.uint32],
    *,
    element_count: int,
    offset: int,
    full_scale: int,
    floor: int,
) -> None:
    """thresholds = max(floor, floor((counts - offset) * 2**32 / full_scale)), 'always' at full scale."""
    for i, count in enumerate(counts[:element_count].tolist()):
        c = max(count - offset, 0)
        thresholds[i] = max(floor, 0xFFFF_FFFF if c >= full_scale else (c << 32) // full_scale)
