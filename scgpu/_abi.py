"""The boundary between Python and the kernels, declared once as data.

An operation is one `Op`: its u32 parameters in order, and its buffers in order with
their element type and size. From this table come

* the Zig call structs and their length checks (``cpu_ref/abi.zig``, written by
  ``tools/gen_abi.py``; the build refuses a stale file, and `digest` is compared when
  the library is loaded),
* the WGSL parameter block and bindings (``#import abi``, rendered when a shader is loaded),
* the ctypes structs and the GPU bind group layouts.

Sizes are sums, products and quotients of parameters, written so that both Python and Zig can
evaluate them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

CONTRACT_VERSION = 1

Params = Mapping[str, int]


def _function(names: Iterable[str], expression: str) -> Callable[..., Any]:
    """The expression as a function of the names, by position; the expressions are this file's own."""
    function: Callable[..., Any] = eval(f"lambda {', '.join(names)}: {expression}", {"__builtins__": {}})
    return function


@dataclass(frozen=True)
class Buffer:
    """One buffer of an operation.

    Parameters
    ----------
    name : str
        Name in WGSL, Zig and Python.
    dtype : {"i16", "u32", "u64"}
        Element type. On a GPU a u64 element is a ``vec2<u32>``, low half first, and two i16
        elements are a ``u32``, the first in the low half.
    access : {"in", "out", "inout"}
        How the kernel uses it. ``inout`` is read before it is written.
    size : str
        Elements the kernel may touch, as an expression over the parameters.
    """

    name: str
    dtype: Literal["i16", "u32", "u64"]
    access: Literal["in", "out", "inout"]
    size: str


@dataclass(frozen=True)
class Op:
    """One operation: the same name in ``shaders/``, ``cpu_ref/``, ``scgpu/`` and ``tests/``.

    ``work_items`` counts what ``work_item`` names (an invocation, or a whole workgroup);
    it may use the parameters and the override constants of the variant in use.
    ``choose`` gives the index of the variant for a set of parameters. Variants differ in
    speed alone, never in a bit.
    """

    name: str
    params: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    work_items: str
    work_item: Literal["invocation", "workgroup"] = "invocation"
    variants: tuple[dict[str, int], ...] = ({"wg_size": 64},)
    choose: Callable[[Params], int] = field(default=lambda params: 0)
    constants: dict[str, int] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> Callable[..., tuple[int, ...]]:
        """Elements that the kernel may touch of each buffer, from the parameters in order."""
        return _function(self.params, f"({', '.join(buffer.size for buffer in self.buffers)},)")

    @cached_property
    def _items(self) -> Callable[..., int]:
        return _function((*self.params, *self.variants[0]), self.work_items)

    def workgroups(self, params: Params, variant: int) -> int:
        """Workgroups to dispatch for these parameters."""
        overrides = self.variants[variant]
        items = self._items(*params.values(), *overrides.values())
        return items if self.work_item == "workgroup" else -(-items // overrides["wg_size"])


_STREAMS = "stream_count * word_count"
_COUNTS = "count_offset + (sample_count - 1) * count_stride + neuron_count"

# Below these many streams or counts the lanes of a GPU share one, or most of them would idle.
FEW_STREAMS = 1 << 12
FEW_COUNTS = 1 << 14
# Above this length more invocations share a stream: none makes more than 65,535 loop trips.
LONG_STREAM = 1 << 17


def _inputs(kind: str) -> str:
    """Elements of an array that is read by neuron and step, with strides that may be 0."""
    return f"(neuron_count - 1) * {kind}_neuron_stride + (step_begin + step_count - 1) * {kind}_step_stride + 1"


def _trace(kind: str) -> str:
    """Elements of a recorded array, a row for each neuron."""
    return f"record_{kind}s * ((neuron_count - 1) * {kind}_stride + step_begin + step_count)"


OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op(
            "philox",
            params=("block_count", "rounds"),
            buffers=(
                Buffer("counters", "u32", "in", "4 * block_count"),
                Buffer("keys", "u32", "in", "2 * block_count"),
                Buffer("words", "u32", "out", "4 * block_count"),
            ),
            work_items="block_count",
        ),
        Op(
            "encode",
            params=(
                "sample_count",
                "stream_count",
                "word_count",
                "tail_bits",
                "first_sample",
                "first_stream",
                "threshold_offset",
                "domain",
                "key_lo",
                "key_hi",
            ),
            buffers=(
                Buffer("thresholds", "u32", "in", "threshold_offset + sample_count * stream_count"),
                Buffer("words", "u64", "out", "sample_count * stream_count * word_count"),
            ),
            work_items="sample_count * stream_count * word_count",
        ),
        Op(
            "dense",
            params=(
                "sample_count",
                "neuron_count",
                "row_words",
                "word_begin",
                "word_end",
                "count_offset",
                "count_stride",
                "initial",
                "accumulate",
                "bipolar",
            ),
            buffers=(
                Buffer("weights", "u64", "in", "neuron_count * row_words"),
                Buffer("inputs", "u64", "in", "sample_count * row_words"),
                Buffer("counts", "u32", "inout", _COUNTS),
            ),
            work_items="-(-neuron_count // 4) * -(-sample_count // sample_tile)",
            work_item="workgroup",
            variants=tuple(
                {"wg_size": 64, "sample_tile": sample_tile, "xor_products": xor_products}
                for sample_tile in (1, 4)
                for xor_products in (0, 1)
            ),
            choose=lambda params: 2 * (params["sample_count"] > 1) + (params["bipolar"] != 0),
        ),
        Op(
            "prefix",
            params=(
                "sample_begin",
                "sample_count",
                "input_count",
                "input_begin",
                "input_end",
                "length",
                "order_bits",
                "order_stride",
            ),
            buffers=(
                Buffer("words", "u64", "in", "(sample_begin + sample_count) * input_count * ((length + 63) // 64)"),
                Buffer(
                    "order",
                    "u32",
                    "in",
                    "(input_end - input_begin - 1) * order_stride + (length * order_bits + 31) // 32",
                ),
                Buffer("entries", "u64", "out", "sample_count * input_count * (length // 32 + 1)"),
            ),
            work_items="sample_count * (input_end - input_begin) * stream_lanes",
            variants=tuple(
                {"wg_size": 64, "stream_lanes": stream_lanes, "position_bits": bits}
                for stream_lanes in (8, 32)
                for bits in (0, 16, 32)
            ),
            choose=lambda params: (
                3 * (params["sample_count"] * params["input_count"] < FEW_STREAMS or params["length"] > LONG_STREAM)
                + params["order_bits"] // 16
            ),
        ),
        Op(
            "lookup",
            params=(
                "sample_count",
                "neuron_count",
                "input_count",
                "input_begin",
                "input_end",
                "length",
                "rank_bits",
                "rank_stride",
                "count_offset",
                "count_stride",
                "initial",
                "accumulate",
                "bipolar",
            ),
            buffers=(
                Buffer("ranks", "u32", "in", "(input_count - 1) * rank_stride + (neuron_count * rank_bits + 31) // 32"),
                Buffer("entries", "u64", "in", "sample_count * input_count * (length // 32 + 1)"),
                Buffer("counts", "u32", "inout", _COUNTS),
            ),
            work_items="-(-neuron_count * input_lanes // wg_size) * -(-sample_count // sample_tile)",
            work_item="workgroup",
            variants=tuple(
                {
                    "wg_size": 64,
                    "input_lanes": input_lanes,
                    "sample_tile": sample_tile,
                    "xor_products": xor_products,
                }
                for sample_tile in (1, 4)
                for input_lanes in (1, 8)
                for xor_products in (0, 1)
            ),
            choose=lambda params: (
                4 * (params["sample_count"] > 1)
                + 2 * (params["neuron_count"] * params["sample_count"] < FEW_COUNTS)
                + (params["bipolar"] != 0)
            ),
        ),
        Op(
            "count",
            params=("stream_count", "word_count", "segment_words", "segment_count"),
            buffers=(
                Buffer("words", "u64", "in", _STREAMS),
                Buffer("counts", "u32", "out", "stream_count * segment_count"),
            ),
            work_items="stream_count * segment_count",
            work_item="workgroup",
        ),
        Op(
            "bitwise",
            params=("operation", "stream_count", "word_count", "tail_bits"),
            buffers=(
                Buffer("left", "u64", "in", _STREAMS),
                Buffer("right", "u64", "in", _STREAMS),
                Buffer("result", "u64", "out", _STREAMS),
            ),
            work_items=_STREAMS,
            constants={"bit_and": 0, "bit_or": 1, "bit_xor": 2, "bit_not": 3},
        ),
        Op(
            "activation",
            params=("element_count", "offset", "full_scale", "floor"),
            buffers=(
                Buffer("counts", "u32", "in", "element_count"),
                Buffer("thresholds", "u32", "out", "element_count"),
            ),
            work_items="element_count",
        ),
        Op(
            "lif",
            params=(
                "neuron_count",
                "step_begin",
                "step_count",
                "data_width",
                "fraction",
                "parameter_stride",
                "current_neuron_stride",
                "current_step_stride",
                "noise_neuron_stride",
                "noise_step_stride",
                "record_words",
                "word_begin",
                "row_words",
                "record_spikes",
                "spike_stride",
                "record_voltages",
                "voltage_stride",
            ),
            buffers=(
                Buffer("parameters", "i16", "in", "6 * parameter_stride"),
                Buffer("state", "i16", "inout", "2 * neuron_count"),
                Buffer("currents", "i16", "in", _inputs("current")),
                Buffer("noises", "i16", "in", _inputs("noise")),
                Buffer(
                    "words",
                    "u64",
                    "out",
                    "record_words * ((neuron_count - 1) * row_words + word_begin + (step_count + 63) // 64)",
                ),
                Buffer("spikes", "u32", "out", _trace("spike")),
                Buffer("voltages", "i16", "out", _trace("voltage")),
                Buffer("counts", "u32", "inout", "neuron_count"),
            ),
            work_items="neuron_count",
            variants=tuple(
                {"wg_size": 64, "varying_input": varying, "spike_records": spikes, "voltage_records": voltages}
                for varying in (0, 1)
                for spikes in (0, 1)
                for voltages in (0, 1)
            ),
            choose=lambda params: (
                4 * (params["current_step_stride"] + params["noise_step_stride"] > 0)
                + 2 * (params["record_spikes"] != 0)
                + (params["record_voltages"] != 0)
            ),
        ),
    )
}

# Above this many steps one kernel call is split: an invocation makes a loop trip for each. A
# multiple of 64, so that every part begins at a word.
PASS_STEPS = 1 << 14

# Above this many inputs one kernel call is split into passes too: one invocation may look up them all.
PASS_INPUTS = 1 << 13

# Above this many 64-bit words one kernel call is split into passes. Software rasterisers end
# an invocation after 65,535 loop trips, all its loops summed; 64 invocations share these words
# and make 8,192 trips.
PASS_WORDS = 1 << 19


def digest() -> int:
    """32-bit digest of the table; the native library carries the one it was built from."""
    text = repr(
        (
            CONTRACT_VERSION,
            [
                (op.name, op.params, [repr(buffer) for buffer in op.buffers], sorted(op.constants.items()))
                for op in OPS.values()
            ],
        )
    )
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
