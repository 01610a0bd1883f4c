"""lookup: a layer's products with shared weight streams, one look-up for each weight."""

from __future__ import annotations

from typing import Any

from scgpu._abi import PASS_INPUTS
from scgpu.arguments import Polarity
from scgpu.backend import Step


def lookup_steps(
    ranks: Any,
    entries: Any,
    counts: Any,
    *,
    sample_count: int,
    neuron_count: int,
    input_count: int,
    length: int,
    rank_bits: int,
    rank_stride: int,
    count_offset: int,
    count_stride: int,
    polarity: Polarity,
) -> list[Step]:
    """Kernel calls that count the products of entries (sample, input) with ranks (input, neuron)."""
    bipolar = polarity == "bipolar"
    return [
        Step(
            "lookup",
            {
                "sample_count": sample_count,
                "neuron_count": neuron_count,
                "input_count": input_count,
                "input_begin": begin,
                "input_end": min(begin + PASS_INPUTS, input_count),
                "length": length,
                "rank_bits": rank_bits,
                "rank_stride": rank_stride,
                "count_offset": count_offset,
                "count_stride": count_stride,
                "initial": input_count * length if bipolar else 0,
                "accumulate": int(begin > 0),
                "bipolar": int(bipolar),
            },
            (ranks, entries, counts),
        )
        for begin in range(0, input_count, PASS_INPUTS)
    ]
