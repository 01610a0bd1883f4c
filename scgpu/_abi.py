"""The boundary between Python and the kernels, declared once as data.

An operation is one `Op`: its u32 parameters in order, and its buffers in order with
their element type and size. From this table come

* the Zig call structs and their length checks (``cpu_ref/abi.zig``, written by
  ``tools/gen_abi.py``; the build refuses a stale file, and `digest` is compared when
  the library is loaded),
* the WGSL parameter block and bindings (``#import abi``, rendered when a shader is loaded),
* the packed call structs and the GPU bind group layouts.

Sizes are sums, products and quotients of parameters, written so that both Python and Zig can
evaluate them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

CONTRACT_VERSION = 1

# Files of shaders/shared/ that need a wgpu feature.
FEATURES = {"workgroup_sum_subgroup": "subgroup", "multiply_wide_int64": "shader-int64"}

Params = Mapping[str, int]
Variant = dict[str, int]

# Software rasterisers end an invocation after 65,535 loop trips, all its loops summed, silently.
# What the last sums of a kernel take is below the difference.
MAX_TRIPS = 64_000


def _function(names: Iterable[str], expression: str) -> Callable[..., Any]:
    """The expression as a function of the names, by position; the expressions are this file's own."""
    function: Callable[..., Any] = eval(f"lambda {', '.join(names)}: {expression}", {"__builtins__": {}})
    return function


@dataclass(frozen=True)
class Adapter:
    """What the choice of a variant depends on, besides the parameters.

    Parameters
    ----------
    features : frozenset of str
        wgpu features that the device was made with.
    software : bool
        The adapter is a program on the host's processor.
    """

    features: frozenset[str] = frozenset()
    software: bool = False


@dataclass(frozen=True)
class Buffer:
    """One buffer of an operation.

    Parameters
    ----------
    name : str
        Name in WGSL, Zig and Python.
    dtype : {"u8", "i16", "i32", "u32", "u64"}
        Element type. On a GPU a u64 element is a ``vec2<u32>``, low half first, and four u8
        elements or two i16 are a ``u32``, the first in the lowest place.
    access : {"in", "out", "inout"}
        How the kernel uses it. ``inout`` is read before it is written.
    size : str
        Elements the kernel may touch, as an expression over the parameters.
    wgsl : str, optional
        Type of an array element in the shader, where it reads several elements at once or
        several invocations may write one.
    """

    name: str
    dtype: Literal["u8", "i16", "i32", "u32", "u64"]
    access: Literal["in", "out", "inout"]
    size: str
    wgsl: str = field(default="", repr=False)  # the digest is of what both sides know


@dataclass(frozen=True)
class Op:
    """One operation: the same name in ``shaders/``, ``cpu_ref/``, ``scgpu/`` and ``tests/``.

    ``work_items`` counts what ``work_item`` names (an invocation, or a whole workgroup);
    it may use the parameters and the entries of the variant in use.

    An entry of a variant is an override constant of the shader or, where ``imports`` has
    its name, the number of the file that ``#import NAME`` inlines. ``specialised`` names
    override constants that take the value of a parameter, one of ``specialised_values``.
    ``choose`` gives the index of the default variant, ``legal`` says whether a variant can
    compute some parameters, and ``shape_class`` names the parameters that share a tuned
    variant. Variants differ in speed alone, never in a bit. ``stream_bits`` counts, for
    profiles, the bits of streams that are made, read or multiplied. ``requires`` are conditions
    on the parameters without which a kernel, however long its buffers, would leave them or never end.
    """

    name: str
    params: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    work_items: str
    work_item: Literal["invocation", "workgroup"] = "invocation"
    variants: tuple[Variant, ...] = ({"wg_size": 64},)
    imports: dict[str, tuple[str, ...]] = field(default_factory=dict)
    specialised: dict[str, str] = field(default_factory=dict)
    specialised_values: tuple[int, ...] = (0, 1)
    choose: Callable[[Params, Adapter], int] = field(default=lambda params, adapter: 0)
    legal: Callable[[Params, Variant], bool] = field(default=lambda params, variant: True)
    shape_class: Callable[[Params], str] = field(default=lambda params: "")
    constants: dict[str, int] = field(default_factory=dict)
    stream_bits: str = "0"
    requires: tuple[str, ...] = ()

    @cached_property
    def conditions(self) -> Callable[..., tuple[bool, ...]]:
        """Whether each of ``requires`` holds, from the parameters in order."""
        return _function(self.params, f"({', '.join(self.requires)},)" if self.requires else "()")

    @cached_property
    def bits(self) -> Callable[..., int]:
        """Stream bits of a call, from the parameters in order."""
        return _function(self.params, self.stream_bits)

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

    def files(self, variant: int) -> tuple[tuple[str, str], ...]:
        """For each import that varies its name and the file that it means in a variant."""
        return tuple((name, files[self.variants[variant][name]]) for name, files in self.imports.items())

    def overrides(self, variant: int, params: Params) -> dict[str, int]:
        """Override constants of a variant for these parameters."""
        fixed = {name: value for name, value in self.variants[variant].items() if name not in self.imports}
        return fixed | {name: params[source] for name, source in self.specialised.items()}

    def admissible(self, params: Params, adapter: Adapter) -> list[int]:
        """Indices of the variants that compute these parameters on an adapter."""
        return [
            index
            for index, variant in enumerate(self.variants)
            if self.legal(params, variant)
            and all(FEATURES.get(file) in (None, *adapter.features) for _, file in self.files(index))
        ]


def _form(
    lanes: tuple[int, int, int],
    tile: tuple[int, int],
    *,
    stage_depth: int = 0,
    carry_save: int = 0,
    words: int = 1,
    workgroup_sum: int = 0,
) -> Variant:
    """A variant from its lanes (k, n, s) and its tile (samples, neurons)."""
    lanes_k, lanes_n, lanes_s = lanes
    return {
        "wg_size": lanes_k * lanes_n * lanes_s,
        "lanes_k": lanes_k,
        "lanes_n": lanes_n,
        "sample_tile": tile[0],
        "neuron_tile": tile[1],
        "stage_depth": stage_depth,
        "carry_save": carry_save,
        "words": words,
        "workgroup_sum": workgroup_sum,
    }


# Workgroups of 8 suit software rasterisers, where 8 invocations are one vector of the processor
# and all of them, however many, share its cores. Hardware wants 64 and more, rows brought to
# workgroup memory once for a whole block of outputs, and loads of 16 bytes by neighbours.
DENSE_VARIANTS: dict[str, Variant] = {
    # One sample: the weights are read once, by all invocations of a workgroup together.
    "row64-pair": _form((64, 1, 1), (1, 4), words=0),
    "row64": _form((64, 1, 1), (1, 4)),
    "row64-subgroup": _form((64, 1, 1), (1, 4), workgroup_sum=1),
    "row256": _form((256, 1, 1), (1, 1)),
    "row256-subgroup": _form((256, 1, 1), (1, 1), workgroup_sum=1),
    "row8-pair": _form((8, 1, 1), (1, 8), words=0),
    "row8": _form((8, 1, 1), (1, 8)),
    "row8-subgroup": _form((8, 1, 1), (1, 8), workgroup_sum=1),
    "rows8": _form((1, 8, 1), (1, 8)),
    # A few samples, or rows so long that the invocations must share them.
    "split8-2x8": _form((8, 1, 1), (2, 8)),
    "split8-8x8": _form((8, 1, 1), (8, 8)),
    "split8-8x8-subgroup": _form((8, 1, 1), (8, 8), workgroup_sum=1),
    "split64-4x4-pair": _form((64, 1, 1), (4, 4), words=0),
    "split64-4x4": _form((64, 1, 1), (4, 4)),
    "split64-4x4-subgroup": _form((64, 1, 1), (4, 4), workgroup_sum=1),
    "split8-4x32": _form((8, 8, 1), (4, 4)),
    # Batches: a workgroup computes a block of samples x neurons.
    "block8x64-pair": _form((1, 8, 1), (8, 8), words=0),
    "block8x64": _form((1, 8, 1), (8, 8)),
    "block8x64-carry": _form((1, 8, 1), (8, 8), carry_save=1),
    "block32x32": _form((1, 8, 8), (4, 4)),
    "staged32x32-pair": _form((1, 8, 8), (4, 4), stage_depth=16, words=0),
    "staged32x32": _form((1, 8, 8), (4, 4), stage_depth=8),
    "staged32x32-carry": _form((1, 8, 8), (4, 4), stage_depth=8, carry_save=1),
    "staged64x64": _form((1, 8, 8), (8, 8), stage_depth=4),
    "staged64x64-carry": _form((1, 8, 8), (8, 8), stage_depth=4, carry_save=1),
}


def _dense_legal(params: Params, variant: Variant) -> bool:
    """Whether a variant of dense computes these parameters, within the trips of software rasterisers."""
    words_per_element = 1 + variant["words"]
    if any(params[name] % words_per_element for name in ("row_words", "word_begin", "word_end")):
        return False
    elements = (params["word_end"] - params["word_begin"]) // words_per_element
    depth = variant["stage_depth"]
    if not depth:
        return -(-elements // variant["lanes_k"]) <= MAX_TRIPS
    lanes_s = variant["wg_size"] // variant["lanes_n"]
    rows = variant["lanes_n"] * variant["neuron_tile"] + lanes_s * variant["sample_tile"]
    # The last test of a loop counts as a trip too.
    trips = (-(-rows * depth // variant["wg_size"]) + 1) + (depth + 1) + 1
    return -(-elements // depth) * trips <= MAX_TRIPS


def _preferred(params: Params, adapter: Adapter) -> Iterator[str]:
    """Names of dense variants, the best first; one of the last two is legal for any parameters."""
    samples, outputs = params["sample_count"], params["sample_count"] * params["neuron_count"]
    subgroup = "subgroup" in adapter.features
    if adapter.software:
        if samples == 1:
            if params["neuron_count"] >= 256:  # 64 to a workgroup, and each core wants some
                yield "rows8"
            yield from ("row8-subgroup", "row8") if subgroup else ("row8",)
            yield "row8-pair"
        else:
            if samples < 4:
                yield "split8-2x8"
            elif params["neuron_count"] > 64:
                yield "block8x64-carry"
            yield from ("split8-8x8-subgroup", "split8-8x8") if subgroup else ("split8-8x8",)
            yield "block8x64-pair"
    elif samples < 4:
        # 512 workgroups and more keep a large GPU busy with four neurons each.
        rows = ("row64", "row256") if outputs >= 2048 else ("row256", "row64")
        for name in rows:
            yield from (f"{name}-subgroup", name) if subgroup else (name,)
    else:
        # A block is a workgroup, and an adapter has up to 150 multiprocessors.
        if outputs >= 64 * 64 * 256:
            yield "staged64x64-carry"
        if outputs >= 32 * 32 * 64:
            yield from ("staged32x32-carry", "staged32x32-pair")
        yield from ("split64-4x4-subgroup", "split64-4x4") if subgroup else ("split64-4x4",)
    yield "row64-pair" if samples == 1 else "split64-4x4-pair"


def _choose_dense(params: Params, adapter: Adapter) -> int:
    """Index of the default variant of dense."""
    names = list(DENSE_VARIANTS)
    return next(names.index(name) for name in _preferred(params, adapter) if _dense_legal(params, DENSE_VARIANTS[name]))


def _dense_class(params: Params) -> str:
    """The class of shapes that share a tuned variant; rows of an odd number of words have none."""
    if params["row_words"] % 2:
        return ""
    samples = params["sample_count"]
    batch = "1 sample" if samples == 1 else "2 to 7 samples" if samples < 8 else "8 samples or more"
    neurons = "few" if params["neuron_count"] <= 64 else "many"
    rows = "short" if params["word_end"] - params["word_begin"] <= 4096 else "long"
    return f"{batch}, {neurons} neurons, {rows} rows"


# How Philox multiplies: by 16-bit halves, or with 64-bit integers.
_MULTIPLY_WIDE: dict[str, Any] = {
    "variants": ({"wg_size": 64, "multiply_wide": 0}, {"wg_size": 64, "multiply_wide": 1}),
    "imports": {"multiply_wide": ("multiply_wide", "multiply_wide_int64")},
    "choose": lambda params, adapter: int("shader-int64" in adapter.features),
}

_STREAMS = "stream_count * word_count"
_BITS = "stream_count * (64 * word_count - 64 + tail_bits)"
_COUNTS = "count_offset + (sample_count - 1) * count_stride + neuron_count"

# Below these many streams or counts the lanes of a GPU share one, or most of them would idle.
FEW_STREAMS = 1 << 12
FEW_COUNTS = 1 << 14
# Up to this many words of a stream are counted by one invocation; 64 of them would mostly add up zeros.
SHORT_SEGMENT = 16
# Above this length more invocations share a stream: none makes more than 65,535 loop trips.
LONG_STREAM = 1 << 17


def _inputs(kind: str) -> str:
    """Elements of an array that is read by neuron and step, with strides that may be 0."""
    return f"(neuron_count - 1) * {kind}_neuron_stride + (step_begin + step_count - 1) * {kind}_step_stride + 1"


def _trace(kind: str) -> str:
    """Elements of a recorded array, a row for each neuron."""
    return f"record_{kind}s * ((neuron_count - 1) * {kind}_stride + record_begin + step_count)"


# What stands in the innermost loop is fixed when a pipeline is made: each call has one variant.
LIF_VARIANTS: tuple[Variant, ...] = tuple(
    {"wg_size": 64, "varying_input": varying, "spike_records": spikes, "voltage_records": voltages}
    for varying in (0, 1)
    for spikes in (0, 1)
    for voltages in (0, 1)
)


def _lif_variant(params: Params) -> int:
    varying = params["current_step_stride"] + params["noise_step_stride"] > 0
    return 4 * varying + 2 * (params["record_spikes"] != 0) + (params["record_voltages"] != 0)


# A workgroup looks at the spikes of some sources and adds a chunk of their rows. At most
# group_sources * 64 * (row_chunk / wg_size + 1) loop trips.
PROPAGATE_VARIANTS: tuple[Variant, ...] = (
    {"wg_size": 64, "group_sources": 32, "row_chunk": 1024},
    {"wg_size": 8, "group_sources": 32, "row_chunk": 128},
)


# Above this many steps one kernel call is split: an invocation makes a loop trip for each. A
# multiple of 64, so that every part begins at a word.
PASS_STEPS = 1 << 14

_TAIL = "tail_bits >= 1 and tail_bits <= 64"
_WORDS = "word_begin <= word_end and word_end <= word_count"
_INPUTS = "input_begin <= input_end and input_end <= input_count"
_IN_A_WORD = "step_count >= 1 and first_bit + step_count <= 64"
_SLOTS = "slot_count >= 1"
_FORMAT = "data_width >= 1 and data_width <= 16 and fraction <= 31"
_FEW_STEPS = f"step_count <= {PASS_STEPS}"
_SYNAPSES = "dense <= 1 and dense * source_count * target_count == dense * synapse_count"
# Widths of networks of exchanges.
INDEX_BITS = range(9, 14)
_NETWORK = " or ".join(f"index_bits == {bits} and width == {1 << bits}" for bits in INDEX_BITS)
_LONGEST_LOOKUP = "length <= 1048576"  # 2**20 bits

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
            requires=("rounds <= 16",),
            work_items="block_count",
            **_MULTIPLY_WIDE,
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
                "first_word",
                "threshold_offset",
                "domain",
                "key_lo",
                "key_hi",
            ),
            buffers=(
                Buffer("thresholds", "u32", "in", "threshold_offset + sample_count * stream_count"),
                Buffer("words", "u64", "out", "sample_count * stream_count * word_count"),
            ),
            requires=(_TAIL,),
            work_items="sample_count * stream_count * word_count",
            **_MULTIPLY_WIDE,
            stream_bits="64 * sample_count * stream_count * word_count",
        ),
        Op(
            "compare",
            params=(
                "sample_count",
                "stream_count",
                "word_count",
                "tail_bits",
                "period",
                "sequence_count",
                "place_stride",
                "threshold_offset",
            ),
            buffers=(
                Buffer("thresholds", "u32", "in", "threshold_offset + sample_count * stream_count"),
                Buffer("places", "u32", "in", "2 * ((stream_count - 1) * place_stride + 1)"),
                Buffer("sequences", "u32", "in", "sequence_count * period"),
                Buffer("words", "u64", "out", "sample_count * stream_count * word_count"),
            ),
            requires=(_TAIL, "period >= 1 and sequence_count >= 1"),
            work_items="-(-sample_count * stream_count // (4 * fours)) * word_count",
            # Loads are dear where a processor plays the GPU, and eight rows share them.
            variants=({"wg_size": 64, "fours": 1}, {"wg_size": 64, "fours": 2}),
            choose=lambda params, adapter: int(
                adapter.software and params["sample_count"] * params["stream_count"] > 4
            ),
            specialised={"own_places": "place_stride"},
            stream_bits="64 * sample_count * stream_count * word_count",
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
                Buffer("weights", "u64", "in", "neuron_count * row_words", wgsl="Words"),
                Buffer("inputs", "u64", "in", "sample_count * row_words", wgsl="Words"),
                Buffer("counts", "u32", "inout", _COUNTS),
            ),
            work_items="-(-neuron_count // (lanes_n * neuron_tile)) "
            "* -(-sample_count // (wg_size // (lanes_k * lanes_n) * sample_tile))",
            work_item="workgroup",
            variants=tuple(DENSE_VARIANTS.values()),
            imports={
                "words": ("words_pair", "words_quad"),
                "workgroup_sum": ("workgroup_sum", "workgroup_sum_subgroup"),
            },
            specialised={"xor_products": "bipolar"},
            choose=_choose_dense,
            legal=_dense_legal,
            shape_class=_dense_class,
            stream_bits="64 * sample_count * neuron_count * (word_end - word_begin)",
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
            requires=(_INPUTS, "order_bits == 0 or order_bits == 16 or order_bits == 32", _LONGEST_LOOKUP),
            work_items="sample_count * (input_end - input_begin) * stream_lanes",
            variants=tuple({"wg_size": 64, "stream_lanes": stream_lanes} for stream_lanes in (8, 32)),
            specialised={"position_bits": "order_bits"},
            specialised_values=(0, 16, 32),
            choose=lambda params, adapter: int(
                params["sample_count"] * params["input_count"] < FEW_STREAMS or params["length"] > LONG_STREAM
            ),
            legal=lambda params, variant: variant["stream_lanes"] == 32 or params["length"] <= LONG_STREAM,
            stream_bits="sample_count * (input_end - input_begin) * length",
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
            requires=(_INPUTS, "rank_bits == 16 or rank_bits == 32", _LONGEST_LOOKUP),
            work_items="-(-neuron_count * input_lanes // wg_size) * -(-sample_count // sample_tile)",
            work_item="workgroup",
            variants=tuple(
                {"wg_size": 64, "input_lanes": input_lanes, "sample_tile": sample_tile}
                for sample_tile in (1, 4)
                for input_lanes in (1, 8)
            ),
            specialised={"xor_products": "bipolar"},
            choose=lambda params, adapter: (
                2 * (params["sample_count"] > 1) + (params["neuron_count"] * params["sample_count"] < FEW_COUNTS)
            ),
            stream_bits="sample_count * neuron_count * (input_end - input_begin) * length",
        ),
        Op(
            "count",
            params=("stream_count", "word_count", "segment_words", "segment_count"),
            buffers=(
                Buffer("words", "u64", "in", _STREAMS),
                Buffer("counts", "u32", "out", "stream_count * segment_count"),
            ),
            work_items="-(-stream_count * segment_count * lanes // wg_size)",
            work_item="workgroup",
            variants=({"wg_size": 64, "lanes": 64}, {"wg_size": 64, "lanes": 1}),
            choose=lambda params, adapter: int(params["segment_words"] <= SHORT_SEGMENT),
            legal=lambda params, variant: params["segment_words"] <= MAX_TRIPS * variant["lanes"],
            stream_bits=f"64 * {_STREAMS}",
        ),
        Op(
            "bitwise",
            params=("operation", "stream_count", "word_count", "tail_bits", "source_word", "first_word"),
            buffers=(
                Buffer("left", "u64", "in", f"source_word + {_STREAMS}"),
                Buffer("right", "u64", "in", f"source_word + {_STREAMS}"),
                Buffer("result", "u64", "out", f"first_word + {_STREAMS}"),
            ),
            requires=("operation <= 3", _TAIL),
            work_items=_STREAMS,
            stream_bits=f"64 * {_STREAMS}",
            constants={"bit_and": 0, "bit_or": 1, "bit_xor": 2, "bit_not": 3},
        ),
        Op(
            "delay",
            params=("stream_count", "word_count", "tail_bits", "word_shift", "bit_shift"),
            buffers=(
                Buffer("words", "u64", "in", _STREAMS),
                Buffer("result", "u64", "out", _STREAMS),
            ),
            requires=(_TAIL, "bit_shift <= 63"),
            work_items=_STREAMS,
            stream_bits=f"64 * {_STREAMS}",
        ),
        Op(
            "accumulate",
            params=(
                "stream_count",
                "word_count",
                "tail_bits",
                "word_begin",
                "word_end",
                "input_count",
                "input_stride",
                "first_word",
                "shift",
                "offset",
                "scale",
                "limit",
            ),
            buffers=(
                Buffer("inputs", "u64", "in", "((input_count - 1) * input_stride + stream_count) * word_count"),
                Buffer("numbers", "i32", "inout", "stream_count"),
                Buffer("result", "u64", "out", f"first_word + {_STREAMS}"),
            ),
            requires=(
                _TAIL,
                _WORDS,
                "input_count <= 32768 and shift <= 1",
                "offset <= 1073741824 and scale <= 1073741824 and limit <= 1073741824",  # 2**30
            ),
            work_items="stream_count",
            # Bits in which a kernel counts the ones at one time.
            variants=({"wg_size": 64, "field": 8}, {"wg_size": 64, "field": 16}),
            choose=lambda params, adapter: int(params["input_count"] > 255),
            legal=lambda params, variant: params["input_count"] < 1 << variant["field"],
            stream_bits="64 * input_count * stream_count * (word_end - word_begin)",
        ),
        Op(
            "conditional",
            params=(
                "stream_count",
                "word_count",
                "tail_bits",
                "word_begin",
                "word_end",
                "period",
                "bipolar",
                "first_input",
                "first_weight",
            ),
            buffers=(
                Buffer("inputs", "u64", "in", f"first_input * word_count + {_STREAMS}"),
                Buffer("weights", "u64", "in", "(first_weight + stream_count) * ((period + 63) // 64)"),
                Buffer("places", "u32", "inout", "2 * stream_count"),
                Buffer("result", "u64", "out", f"first_input * word_count + {_STREAMS}"),
            ),
            requires=(_TAIL, _WORDS, "period >= 1 and period <= 2147483648"),  # 2**31
            work_items="stream_count",
            stream_bits="64 * stream_count * (word_end - word_begin)",
        ),
        Op(
            "pack",
            params=("stream_count", "word_count", "tail_bits", "first_word"),
            buffers=(
                Buffer("bits", "u8", "in", _BITS),
                Buffer("words", "u64", "out", f"first_word + {_STREAMS}"),
                Buffer("refused", "u32", "inout", "1", wgsl="atomic<u32>"),
            ),
            requires=(_TAIL,),
            work_items=_STREAMS,
            stream_bits=_BITS,
        ),
        Op(
            "unpack",
            params=("stream_count", "word_count", "tail_bits", "first_word"),
            buffers=(
                Buffer("words", "u64", "in", f"first_word + {_STREAMS}"),
                Buffer("bits", "u8", "out", _BITS),
            ),
            requires=(_TAIL,),
            work_items=f"-(-{_BITS} // 4)",
            stream_bits=_BITS,
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
                "first_bit",
                "row_words",
                "record_begin",
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
                    "inout",
                    "record_words * ((neuron_count - 1) * row_words + word_begin + (step_count + 63) // 64)",
                ),
                Buffer("spikes", "u32", "out", _trace("spike")),
                Buffer("voltages", "i16", "out", _trace("voltage")),
                Buffer("counts", "u32", "inout", "neuron_count"),
            ),
            requires=(
                _FORMAT,
                "parameter_stride == 1 or parameter_stride >= 1 and parameter_stride >= neuron_count",
                "first_bit == 0 or first_bit + step_count <= 64",
                "record_words <= 1 and record_spikes <= 1 and record_voltages <= 1",
            ),
            work_items="neuron_count",
            variants=LIF_VARIANTS,
            choose=lambda params, adapter: _lif_variant(params),
            legal=lambda params, variant: LIF_VARIANTS.index(variant) == _lif_variant(params),
            stream_bits="neuron_count * step_count",
        ),
        Op(
            "drive",
            params=(
                "neuron_count",
                "step_offset",
                "step_count",
                "slot_count",
                "constant_stride",
                "current_neuron_stride",
                "current_step_count",
                "row_stride",
            ),
            buffers=(
                Buffer("clock", "u32", "in", "1"),
                Buffer("inbox", "i32", "inout", "slot_count * neuron_count"),
                Buffer("constants", "i16", "in", "(neuron_count - 1) * constant_stride + 1"),
                Buffer("currents", "i16", "in", "(neuron_count - 1) * current_neuron_stride + current_step_count"),
                Buffer("drives", "i16", "out", "(step_count - 1) * row_stride + neuron_count"),
            ),
            requires=(_SLOTS, _FEW_STEPS),
            work_items="(neuron_count + 1) // 2 * step_count",
        ),
        Op(
            "propagate",
            params=(
                "source_count",
                "target_count",
                "target_begin",
                "target_end",
                "synapse_count",
                "longest_row",
                "dense",
                "step_offset",
                "step_count",
                "first_bit",
                "word_begin",
                "word_stride",
                "delay",
                "slot_count",
            ),
            buffers=(
                Buffer("clock", "u32", "in", "1"),
                Buffer("words", "u64", "in", "word_begin + (source_count - 1) * word_stride + 1"),
                Buffer("rows", "u32", "in", "(1 - dense) * (source_count + 1)"),
                Buffer("targets", "u32", "in", "(1 - dense) * synapse_count"),
                Buffer("weights", "i16", "in", "synapse_count"),
                Buffer("inbox", "i32", "inout", "slot_count * target_count", wgsl="atomic<i32>"),
            ),
            requires=(_SLOTS, _IN_A_WORD, _SYNAPSES, "target_begin <= target_end and target_end <= target_count"),
            work_items="-(-source_count // group_sources) * -(-longest_row // row_chunk)",
            work_item="workgroup",
            variants=PROPAGATE_VARIANTS,
            choose=lambda params, adapter: int(adapter.software),
            stream_bits="source_count * step_count",
        ),
        Op(
            "trace",
            params=(
                "neuron_count",
                "step_count",
                "first_bit",
                "word_begin",
                "word_stride",
                "data_width",
                "fraction",
                "amplitude",
                "decay",
                "trace_stride",
            ),
            buffers=(
                Buffer("words", "u64", "in", "word_begin + (neuron_count - 1) * word_stride + 1"),
                Buffer("state", "i32", "inout", "neuron_count"),
                Buffer("traces", "i32", "out", "(step_count - 1) * trace_stride + neuron_count"),
            ),
            requires=(_IN_A_WORD, _FORMAT),
            work_items="neuron_count",
            stream_bits="neuron_count * step_count",
        ),
        Op(
            "stdp",
            params=(
                "source_count",
                "target_count",
                "synapse_count",
                "step_offset",
                "step_count",
                "first_bit",
                "source_word_begin",
                "source_word_stride",
                "target_word_begin",
                "delay",
                "slot_count",
                "data_width",
                "fraction",
                "a_plus",
                "a_minus",
                "w_min",
                "w_max",
                "dense",
            ),
            buffers=(
                Buffer("clock", "u32", "in", "1"),
                Buffer("source_words", "u64", "in", "source_word_begin + (source_count - 1) * source_word_stride + 1"),
                Buffer("target_words", "u64", "in", "target_word_begin + target_count"),
                Buffer("source_traces", "i32", "in", "step_count * source_count"),
                Buffer("target_traces", "i32", "in", "step_count * target_count"),
                Buffer("sources", "u32", "in", "(1 - dense) * synapse_count"),
                Buffer("targets", "u32", "in", "(1 - dense) * synapse_count"),
                Buffer("weights", "i16", "inout", "synapse_count"),
                Buffer("inbox", "i32", "inout", "slot_count * target_count", wgsl="atomic<i32>"),
            ),
            requires=(
                _SLOTS,
                _IN_A_WORD,
                _FORMAT,
                _SYNAPSES,
                "synapse_count == 0 or source_count >= 1 and target_count >= 1",
            ),
            work_items="-(-synapse_count // 2)",
            specialised={"all_pairs": "dense"},
            stream_bits="(source_count + target_count) * step_count",
        ),
        Op(
            "poisson",
            params=(
                "neuron_count",
                "block_begin",
                "block_end",
                "step_offset",
                "step_count",
                "slot_count",
                "domain",
                "key_lo",
                "key_hi",
                "weight",
                "entry_count",
            ),
            buffers=(
                Buffer("clock", "u32", "in", "1"),
                Buffer("thresholds", "u32", "in", "entry_count"),
                Buffer("inbox", "i32", "inout", "slot_count * neuron_count"),
            ),
            requires=(_SLOTS, _FEW_STEPS),
            work_items="block_end - block_begin",
            **_MULTIPLY_WIDE,
        ),
        Op(
            "fsm",
            params=(
                "stream_count",
                "word_count",
                "tail_bits",
                "word_begin",
                "word_end",
                "input_count",
                "output_count",
                "state_count",
            ),
            buffers=(
                Buffer("first", "u64", "in", _STREAMS),
                Buffer("second", "u64", "in", f"input_count // 2 * {_STREAMS}"),
                Buffer("third", "u64", "in", f"input_count // 3 * {_STREAMS}"),
                # k inputs make 2**k rows of a state: 2, 4 or 8
                Buffer("table", "u32", "in", "state_count * (input_count * input_count - input_count + 2)"),
                Buffer("states", "u32", "inout", "stream_count"),
                Buffer("result", "u64", "out", _STREAMS),
                Buffer("other", "u64", "out", f"output_count // 2 * {_STREAMS}"),
            ),
            requires=(
                _TAIL,
                _WORDS,
                "input_count >= 1 and input_count <= 3",
                "output_count >= 1 and output_count <= 2",
                "state_count >= 1 and state_count <= 65536",
            ),
            work_items="stream_count",
            specialised={"inputs": "input_count"},
            specialised_values=(1, 2, 3),
            stream_bits="64 * stream_count * (word_end - word_begin)",
        ),
        Op(
            "permute",
            params=(
                "sample_begin",
                "sample_count",
                "input_count",
                "input_begin",
                "input_end",
                "length",
                "width",
                "index_bits",
            ),
            buffers=(
                Buffer("words", "u64", "in", "(sample_begin + sample_count) * input_count * ((length + 63) // 64)"),
                Buffer("masks", "u64", "in", "(input_end - input_begin) * (index_bits + 8) * (width // 64)"),
                Buffer("permuted", "u64", "out", "sample_count * input_count * ((length + 63) // 64)"),
            ),
            requires=(_INPUTS, _NETWORK, "length <= width"),
            work_items="sample_count * (input_end - input_begin)",
            work_item="workgroup",
            stream_bits="sample_count * (input_end - input_begin) * length",
        ),
    )
}

# Above this many inputs one kernel call is split into passes too: one invocation may look up them all.
PASS_INPUTS = 1 << 13

# Above this many 64-bit words one kernel call is split into passes. Software rasterisers end
# an invocation after 65,535 loop trips, all its loops summed; where 64 invocations share these
# words they make 8,192 trips each.
PASS_WORDS = 1 << 19


def digest() -> int:
    """32-bit digest of the table; the native library carries the one it was built from."""
    text = repr(
        (
            CONTRACT_VERSION,
            [
                (op.name, op.params, [repr(buffer) for buffer in op.buffers], op.requires, sorted(op.constants.items()))
                for op in OPS.values()
            ],
        )
    )
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
