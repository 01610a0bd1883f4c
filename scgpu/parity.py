"""parity: every operation and variant on every device of this machine against the NumPy oracle.

A case is data: an operation, its parameters and its input arrays. Output buffers start
filled with a sentinel and are longer than the kernel may write, so a word that was not
written, or written past the end, differs like any wrong bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _cpu, _gpu, arguments
from scgpu._abi import INDEX_BITS, OPS
from scgpu.backend import DTYPES, Backend, Device, Step
from scgpu.devices import backend_of, device, devices
from scgpu.errors import NativeLibraryError, ScgpuError
from scgpu.permute import CHUNK, STRIDES
from scgpu.prefix import rows32

SENTINEL = 0xCACACACACACACACA
GUARD = 67  # elements after each output that no kernel may touch

LENGTHS = (1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 1000, 1024, 2111)
THRESHOLDS = (0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFE, 0xFFFF_FFFF)

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Case:
    """One kernel call to compare: buffers in the operation's order, inputs and pre-filled outputs."""

    op: str
    params: dict[str, int]
    buffers: Arrays = field(repr=False)

    def run(self, backend: Backend) -> list[NDArray[Any]]:
        """Every buffer after the call, guards included."""
        buffers = tuple(backend.upload(array.copy()) for array in self.buffers)
        return backend.execute([Step(self.op, self.params, buffers)], buffers)

    def runs(self, backend: Backend) -> Iterator[list[NDArray[Any]]]:
        """The same for every variant that the backend has of the operation."""
        if not isinstance(backend, _gpu.GpuBackend):
            yield self.run(backend)
            return
        for variant in OPS[self.op].admissible(self.params, backend.adapter):
            with backend.forced(self.op, variant):
                yield self.run(backend)


def wrong_words(case: Case, got: Sequence[NDArray[Any]], oracle: Backend) -> int:
    """Elements that differ from the oracle's, inputs and guards included."""
    return sum(int((a != b).sum()) for a, b in zip(got, case.run(oracle), strict=True))


def make_case(op: str, params: dict[str, int], inputs: dict[str, NDArray[Any]]) -> Case:
    """A case from its inputs; outputs get the sentinel and a guard, ``inout`` ones the guard."""
    buffers = []
    for buffer, size in zip(OPS[op].buffers, OPS[op].sizes(*params.values()), strict=True):
        guard = np.full(GUARD, SENTINEL, "<u8").view(DTYPES[buffer.dtype])[:GUARD]
        if buffer.access == "out":
            buffers.append(np.resize(guard, size + GUARD))
        else:
            given = inputs[buffer.name].astype(DTYPES[buffer.dtype]).reshape(-1)
            buffers.append(np.concatenate([given, guard]) if buffer.access == "inout" else given)
    return Case(op, params, tuple(buffers))


Rng = np.random.Generator


def _u32(rng: Rng, size: int) -> NDArray[np.uint32]:
    return rng.integers(0, 2**32, size, dtype=np.uint32)


def _length(rng: Rng) -> tuple[int, int]:
    """Words of a stream and bits in its last one."""
    length = int(rng.choice(LENGTHS))
    word_count = -(-length // 64)
    return word_count, length - 64 * (word_count - 1)


def _streams(rng: Rng, streams: int, word_count: int, tail_bits: int) -> NDArray[np.uint64]:
    words = rng.integers(0, 2**64, (streams, word_count), dtype=np.uint64)
    words[:, -1] &= np.uint64((1 << tail_bits) - 1)
    return words


def _philox(rng: Rng) -> Case:
    blocks = int(rng.integers(1, 300))
    counters, keys = _u32(rng, 4 * blocks), _u32(rng, 2 * blocks)
    counters[:4], keys[:2] = (0, 0xFFFF_FFFF, 1, 0), (0xFFFF_FFFF, 0)
    params = {"block_count": blocks, "rounds": int(rng.choice((1, 7, 10, 16)))}
    return make_case("philox", params, {"counters": counters, "keys": keys})


def _encode(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    samples, streams, offset = int(rng.integers(1, 5)), int(rng.integers(1, 13)), int(rng.choice((0, 1, 39)))
    thresholds = np.where(
        rng.random(offset + samples * streams) < 0.5,
        rng.choice(np.array(THRESHOLDS, np.uint32), offset + samples * streams),
        _u32(rng, offset + samples * streams) & np.uint32(0xFFFF_FFFF << int(rng.integers(0, 32)) & 0xFFFF_FFFF),
    )
    params = {
        "sample_count": samples,
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        "first_sample": int(rng.choice((0, 5, 2**32 - samples))),
        "first_stream": int(rng.choice((0, 3, 2**32 - streams))),
        "first_word": int(rng.choice((0, 1, 130, 2**28 - word_count, int(rng.integers(2**28 - word_count))))),
        "threshold_offset": offset,
        "domain": int(_u32(rng, 1)[0]),
        "key_lo": int(_u32(rng, 1)[0]),
        "key_hi": int(_u32(rng, 1)[0]),
    }
    return make_case("encode", params, {"thresholds": thresholds})


def _compare(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    samples, streams, sequences = (int(rng.integers(1, high)) for high in (5, 13, 4))
    period = int(rng.choice((1, 2, 3, 31, 63, 64, 65, 100, 255, 256, 1000, 1024, 2048, 4099)))
    place_stride = int(rng.integers(2))
    offset = int(rng.choice((0, 0, 9)))
    size = offset + samples * streams
    coarse = np.uint32(0xFFFF_FFFF << int(rng.choice((0, 24, 29))) & 0xFFFF_FFFF)
    numbers = _u32(rng, sequences * period) & coarse
    numbers[rng.random(numbers.size) < 0.05] = 0xFFFF_FFFF
    thresholds = np.where(rng.random(size) < 0.5, rng.choice(np.array(THRESHOLDS, np.uint32), size), _u32(rng, size))
    placed = streams if place_stride else 1
    params = {
        "sample_count": samples,
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        "period": period,
        "sequence_count": sequences,
        "place_stride": place_stride,
        "threshold_offset": offset,
    }
    phases = rng.choice(np.array((0, period - 1, int(rng.integers(period)))), placed)
    places = np.stack([rng.integers(0, sequences, placed), phases], axis=1)
    return make_case("compare", params, {"thresholds": thresholds, "places": places, "sequences": numbers})


def _counts(rng: Rng, neurons: int, most: int) -> dict[str, int]:
    """Where the counts of dense and lookup lie, and what they start from."""
    return {
        "count_offset": int(rng.integers(0, 9)),
        "count_stride": neurons + int(rng.choice((0, 0, 5))),
        "initial": int(rng.choice((0, most, 0xFFFF_FFFF))),
        "accumulate": int(rng.integers(2)),
        "bipolar": int(rng.integers(2)),
    }


def _dense(rng: Rng) -> Case:
    samples, neurons = int(rng.choice((1, 2, 3, 4, 5, 9))), int(rng.choice((1, 2, 3, 4, 7, 33, 70)))
    row_words = int(rng.choice((1, 2, 7, 16, 63, 64, 65, 200, 1000)))
    begin, end = sorted(int(i) for i in rng.integers(0, row_words + 1, 2))
    if rng.random() < 0.5:
        begin, end = 0, row_words
    params = {
        "sample_count": samples,
        "neuron_count": neurons,
        "row_words": row_words,
        "word_begin": begin,
        "word_end": end,
        **_counts(rng, neurons, 64 * row_words),
    }
    inputs: dict[str, NDArray[Any]] = {
        "weights": rng.integers(0, 2**64, neurons * row_words, dtype=np.uint64),
        "inputs": rng.integers(0, 2**64, samples * row_words, dtype=np.uint64),
        "counts": _u32(rng, OPS["dense"].sizes(*params.values())[2]),
    }
    return make_case("dense", params, inputs)


def _prefix(rng: Rng) -> Case:
    length = int(rng.choice((*LENGTHS, 2048, 4096, 4100, 9000)))
    skipped, samples, inputs = int(rng.integers(3)), int(rng.integers(1, 4)), int(rng.integers(1, 5))
    begin, end = (int(i) for i in sorted(rng.choice(inputs + 1, 2, replace=False)))
    order_bits = int(rng.choice((0, 16, 32)))
    orders = np.stack([rng.permutation(length) for _ in range(begin, end)]).astype("<u2" if order_bits == 16 else "<u4")
    order, stride = rows32(orders) if order_bits else (np.zeros(1, np.uint32), 0)
    word_count = -(-length // 64)
    params = {
        "sample_begin": skipped,
        "sample_count": samples,
        "input_count": inputs,
        "input_begin": begin,
        "input_end": end,
        "length": length,
        "order_bits": order_bits,
        "order_stride": stride,
    }
    words = _streams(rng, (skipped + samples) * inputs, word_count, length - 64 * (word_count - 1))
    return make_case("prefix", params, {"words": words, "order": order})


def _lookup(rng: Rng) -> Case:
    length = int(rng.choice((*LENGTHS, 2048, 4096, 8192)))
    samples, neurons = int(rng.choice((1, 2, 3, 4, 5, 9))), int(rng.choice((1, 2, 3, 16, 33, 70, 300, 1030)))
    inputs = int(rng.integers(1, 40))
    begin, end = sorted(int(i) for i in rng.integers(0, inputs + 1, 2))
    if rng.random() < 0.5:
        begin, end = 0, inputs
    rank_bits = int(rng.choice((16, 32)))
    ranks, stride = rows32(rng.integers(0, length, (inputs, neurons), endpoint=True).astype(f"<u{rank_bits // 8}"))
    bits = rng.integers(0, 2, (samples * inputs, 32 * (length // 32 + 1)), dtype=np.uint8)
    bits[:, length:] = 0
    groups = bits.reshape(samples * inputs, -1, 32).sum(axis=2, dtype=np.uint64)
    entries = np.packbits(bits, axis=1, bitorder="little").view("<u4") | (groups.cumsum(1) - groups) << np.uint64(32)
    params = {
        "sample_count": samples,
        "neuron_count": neurons,
        "input_count": inputs,
        "input_begin": begin,
        "input_end": end,
        "length": length,
        "rank_bits": rank_bits,
        "rank_stride": stride,
        **_counts(rng, neurons, inputs * length),
    }
    size = OPS["lookup"].sizes(*params.values())[2]
    return make_case("lookup", params, {"ranks": ranks, "entries": entries, "counts": _u32(rng, size)})


def _count(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams, segment_words = int(rng.integers(1, 40)), int(rng.integers(1, word_count + 1))
    params = {
        "stream_count": streams,
        "word_count": word_count,
        "segment_words": segment_words,
        "segment_count": -(-word_count // segment_words),
    }
    return make_case("count", params, {"words": _streams(rng, streams, word_count, tail_bits)})


def _bitwise(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams = int(rng.integers(1, 40))
    params = {
        "operation": int(rng.integers(4)),
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        "source_word": int(rng.choice((0, 0, 3))),
        "first_word": int(rng.choice((0, 0, 5))),
    }
    size = params["source_word"] + streams * word_count
    inputs: dict[str, NDArray[Any]] = {
        name: rng.integers(0, 2**64, size, dtype=np.uint64) for name in ("left", "right")
    }
    return make_case("bitwise", params, inputs)


def _delay(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams = int(rng.integers(1, 40))
    params = {
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        "word_shift": int(rng.choice((0, 0, 1, word_count // 2, word_count))),
        "bit_shift": int(rng.choice((0, 1, 31, 32, 33, 63, int(rng.integers(64))))),
    }
    return make_case("delay", params, {"words": _streams(rng, streams, word_count, tail_bits)})


def _some_words(rng: Rng, word_count: int) -> dict[str, int]:
    """Words of a stream that one call goes through: all of them, or a part."""
    begin, end = sorted(int(i) for i in rng.integers(0, word_count + 1, 2))
    if rng.random() < 0.5:
        begin, end = 0, word_count
    return {"word_begin": begin, "word_end": end}


def _accumulate(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams, inputs = int(rng.choice((1, 2, 5, 16, 17, 40))), int(rng.choice((1, 2, 3, 7, 16, 255, 256, 300)))
    if inputs > 100:
        word_count, streams = min(word_count, 3), min(streams, 5)
    shift = int(rng.integers(2))
    scale = int(rng.integers(1, inputs, endpoint=True)) << shift
    params = {
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        **_some_words(rng, word_count),
        "input_count": inputs,
        "input_stride": streams + int(rng.choice((0, 0, 3))),
        "first_word": int(rng.choice((0, 0, 2))),
        "shift": shift,
        "offset": int(rng.choice((0, inputs, inputs // 2))),
        "scale": scale,
        "limit": int(rng.choice((scale, scale + 1, 2 * scale, 1000 + scale, 2**30))),
    }
    sizes = OPS["accumulate"].sizes(*params.values())
    rare = rng.integers(0, 2**64, sizes[0], dtype=np.uint64)
    given: dict[str, NDArray[Any]] = {
        "inputs": rng.integers(0, 2**64, sizes[0], dtype=np.uint64) & (rare if rng.random() < 0.5 else ~np.uint64(0)),
        "numbers": rng.integers(-scale, params["limit"], streams) if rng.random() < 0.5 else np.zeros(streams, int),
    }
    return make_case("accumulate", params, given)


def _conditional(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams, period = int(rng.integers(1, 40)), int(rng.choice((1, 2, 7, 31, 32, 33, 63, 64, 65, 100, 255, 256, 1000)))
    params = {
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        **_some_words(rng, word_count),
        "period": period,
        "bipolar": int(rng.integers(2)),
        "first_input": int(rng.choice((0, 0, 2))),
        "first_weight": int(rng.choice((0, 0, 3))),
    }
    rows = -(-period // 64)
    inputs: dict[str, NDArray[Any]] = {
        "inputs": _streams(rng, params["first_input"] + streams, word_count, tail_bits),
        "weights": _streams(rng, params["first_weight"] + streams, rows, period - 64 * (rows - 1)),
        "places": rng.choice(np.array((0, period - 1, int(rng.integers(period)))), 2 * streams),
    }
    return make_case("conditional", params, inputs)


def _rows(rng: Rng) -> dict[str, int]:
    """Parameters of pack and unpack: streams of any length, whose rows of bits begin at any byte."""
    word_count, tail_bits = _length(rng)
    return {
        "stream_count": int(rng.integers(1, 40)),
        "word_count": word_count,
        "tail_bits": tail_bits,
        "first_word": int(rng.choice((0, 0, 5))),
    }


def _pack(rng: Rng) -> Case:
    params = _rows(rng)
    bits = rng.integers(0, 2, OPS["pack"].sizes(*params.values())[0], dtype=np.uint8)
    if rng.random() < 0.5:
        bits[int(rng.integers(bits.size))] = int(rng.choice((2, 128, 255)))
    return make_case("pack", params, {"bits": bits, "refused": np.zeros(1, np.uint32)})


def _unpack(rng: Rng) -> Case:
    params = _rows(rng)
    size = OPS["unpack"].sizes(*params.values())[0]
    return make_case("unpack", params, {"words": rng.integers(0, 2**64, size, dtype=np.uint64)})


def _activation(rng: Rng) -> Case:
    elements = int(rng.integers(1, 300))
    full_scale = int(rng.choice((1, 2, 3, 1000, 0x8000_0000, 0xFFFF_FFFF, int(_u32(rng, 1)[0]) | 1)))
    offset = int(rng.choice((0, 1, full_scale // 2)))
    counts = rng.integers(0, min(2 * full_scale, 2**32 - 1), elements, dtype=np.uint32, endpoint=True)
    params = {
        "element_count": elements,
        "offset": offset,
        "full_scale": full_scale,
        "floor": int(rng.choice((0, 1 << 31))),
    }
    return make_case("activation", params, {"counts": counts})


def _i16(rng: Rng, size: int) -> NDArray[np.int16]:
    """Numbers of 16 bits, many of them near 0 or at an end of the range."""
    sizes = rng.integers(0, 17, size)
    return (rng.integers(-(2**15), 2**15, size) >> sizes).astype(np.int16)


def _lif(rng: Rng) -> Case:
    neurons, steps = (
        int(rng.choice((1, 1, 2, 3, 40, 64, 130, 200))),
        int(rng.choice((1, 2, 13, 15, 33, 63, 64, 65, 200, 600, 2200))),
    )
    begin = int(rng.choice((0, 0, 64, 2)))
    record_begin = int(rng.choice((0, 0, begin, 13)))
    first_bit = int(rng.integers(65 - steps)) if steps < 64 and rng.random() < 0.7 else 0
    usual = rng.random() < 0.5
    table = rng.integers(-50, 300, (6, neurons if rng.random() < 0.5 else 1))
    if usual:
        table[:4] = rng.integers([[1], [200], [-40], [-40]], [[128], [300], [40], [40]], table[:4].shape)
        table[5] %= 5
    else:
        table[:] = _i16(rng, table.size).reshape(table.shape)
        table[5] >>= int(rng.integers(16))
    strides = [rng.choice(((0, 0), (1, 0), (steps + begin, 1), (1, neurons), (0, 1))).tolist() for _ in range(2)]
    params = {
        "neuron_count": neurons,
        "step_begin": begin,
        "step_count": steps,
        "data_width": 16 if usual else int(rng.integers(1, 17)),
        "fraction": 8 if usual else int(rng.integers(0, 32)),
        "parameter_stride": table.shape[1],
        "current_neuron_stride": strides[0][0],
        "current_step_stride": strides[0][1],
        "noise_neuron_stride": strides[1][0],
        "noise_step_stride": strides[1][1],
        "record_words": int(rng.integers(2)),
        "word_begin": int(rng.integers(3)),
        "first_bit": first_bit,
        "row_words": 1 if steps <= 64 and rng.random() < 0.4 else -(-steps // 64) + 2 + int(rng.integers(2)),
        "record_begin": record_begin,
        "record_spikes": int(rng.integers(2)),
        "spike_stride": record_begin + steps + int(rng.integers(3)),
        "record_voltages": int(rng.integers(2)),
        "voltage_stride": (record_begin + steps + 1) // 2 * 2 + 2 * int(rng.integers(2)),
    }
    sizes = dict(zip((buffer.name for buffer in OPS["lif"].buffers), OPS["lif"].sizes(*params.values()), strict=True))
    inputs: dict[str, NDArray[Any]] = {name: _i16(rng, sizes[name]) for name in ("state", "currents", "noises")}
    if usual:
        inputs["currents"] %= 200
        inputs["noises"] %= 30
    inputs["state"][1::2] >>= int(rng.choice((7, 13, 15)))
    inputs["words"] = rng.integers(0, 2**64, sizes["words"], dtype=np.uint64)
    return make_case("lif", params, {**inputs, "parameters": table, "counts": _u32(rng, neurons)})


def _signed(number: int) -> int:
    """A number as a parameter: 32 bits of two's complement."""
    return number & 0xFFFF_FFFF


def _spikes(rng: Rng, size: int, share: float) -> NDArray[np.uint64]:
    """Words of which about a share of the bits is 1, all of a word in some of them."""
    bits = rng.random((size, 64)) < share
    bits[rng.random(size) < 0.02] = True
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").reshape(-1)


def _interval(rng: Rng) -> dict[str, int]:
    """Steps that one call makes of a word's 64."""
    steps = int(rng.choice((1, 2, 15, 16, 33, 64)))
    return {"step_count": steps, "first_bit": int(rng.integers(0, 64 - steps, endpoint=True))}


def _clock(rng: Rng) -> NDArray[np.uint32]:
    return np.array([rng.choice((0, 1, 1000, 2**32 - 5000))], np.uint32)


def _drive(rng: Rng) -> Case:
    neurons, steps = int(rng.choice((1, 2, 3, 33, 64, 200, 1001))), int(rng.choice((1, 2, 13, 64)))
    of_array = int(rng.choice((0, 0, 100, 1200)))
    params = {
        "neuron_count": neurons,
        "step_offset": int(rng.choice((0, max(of_array - steps, 0), int(rng.integers(200))))),
        "step_count": steps,
        "slot_count": int(rng.choice((1, 2, 15, 64, 100))),
        "constant_stride": int(rng.integers(2)),
        "current_neuron_stride": of_array * int(rng.integers(2)),
        "current_step_count": of_array,
        "row_stride": neurons + neurons % 2 + 2 * int(rng.integers(2)),
    }
    sizes = OPS["drive"].sizes(*params.values())
    most = int(rng.choice((200, 2**15, 2**31)))
    inputs: dict[str, NDArray[Any]] = {
        "clock": _clock(rng),
        "inbox": rng.integers(-most, most, sizes[1]),
        "constants": _i16(rng, sizes[2]),
        "currents": _i16(rng, sizes[3]),
    }
    return make_case("drive", params, inputs)


def _synapses(rng: Rng, sources: int, targets: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Rows of sorted targets, some of them empty, some with a target twice."""
    lengths = rng.integers(0, 2 * targets, sources) * (rng.random(sources) < 0.8)
    lengths[0] = max(lengths[0], 1)
    columns = [np.sort(rng.integers(0, targets, length)) for length in lengths]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32), np.concatenate(columns).astype(np.uint32)


def _propagate(rng: Rng) -> Case:
    sources, targets = (int(rng.choice((1, 2, 7, 33, 64, 200))) for _ in range(2))
    dense = int(rng.integers(2))
    rows, columns = _synapses(rng, sources, targets)
    begin = int(rng.choice((0, 0, targets // 3)))
    params = {
        "source_count": sources,
        "target_count": targets,
        "target_begin": begin,
        "target_end": int(rng.choice((targets, targets, begin + (targets - begin) // 2))),
        "synapse_count": sources * targets if dense else columns.size,
        "longest_row": targets if dense else int(np.diff(rows).max()),
        "dense": dense,
        "step_offset": int(rng.integers(200)),
        **_interval(rng),
        "word_begin": int(rng.integers(3)),
        "word_stride": int(rng.choice((1, 4))),
        "delay": int(rng.choice((1, 15, 70))),
        "slot_count": int(rng.choice((1, 15, 64, 100))),
    }
    sizes = OPS["propagate"].sizes(*params.values())
    inputs: dict[str, NDArray[Any]] = {
        "clock": _clock(rng),
        "words": _spikes(rng, sizes[1], rng.choice((0.0, 0.01, 0.1, 0.7))),
        "rows": rows[: sizes[2]],
        "targets": columns[: sizes[3]],
        "weights": _i16(rng, sizes[4]),
        "inbox": rng.integers(-(2**31), 2**31, sizes[5]),
    }
    return make_case("propagate", params, inputs)


def _trace(rng: Rng) -> Case:
    neurons, interval = int(rng.choice((1, 2, 7, 16, 33, 130))), _interval(rng)
    usual = rng.random() < 0.5
    params = {
        "neuron_count": neurons,
        **interval,
        "word_begin": int(rng.integers(4)),
        "word_stride": int(rng.choice((1, 1, 3))),
        "data_width": 16 if usual else int(rng.integers(1, 17)),
        "fraction": 8 if usual else int(rng.integers(0, 32)),
        "amplitude": int(rng.integers(1, 64)) if usual else _signed(int(rng.choice((-(2**15), 2**15, -7, 1000)))),
        "decay": 250 if usual else _signed(int(_i16(rng, 1)[0])),
        "trace_stride": neurons + int(rng.choice((0, 0, 3))),
    }
    inputs: dict[str, NDArray[Any]] = {
        "words": _spikes(rng, OPS["trace"].sizes(*params.values())[0], 0.1),
        "state": _i16(rng, neurons),
    }
    return make_case("trace", params, inputs)


def _rule(rng: Rng) -> dict[str, int]:
    """Parameters of stdp that say how weights change."""
    if rng.random() < 0.5:
        w_max = int(rng.choice((200, 2**15 - 1)))
        return {"data_width": 16, "fraction": 8, "a_plus": 64, "a_minus": 50, "w_min": _signed(-100), "w_max": w_max}
    w_min, w_max = sorted(int(number) for number in _i16(rng, 2))
    return {
        "data_width": int(rng.integers(1, 17)),
        "fraction": int(rng.integers(0, 32)),
        "a_plus": int(rng.choice((0, 1, 1000, 2**15))),
        "a_minus": int(rng.choice((0, 1, 1000, 2**15))),
        "w_min": _signed(w_min),
        "w_max": _signed(w_max),
    }


def _stdp(rng: Rng) -> Case:
    source_count, target_count = int(rng.choice((1, 2, 9, 30))), int(rng.choice((1, 3, 64, 65, 130, 200)))
    dense = int(rng.integers(2))
    synapses = source_count * target_count if dense else int(rng.choice((1, 7, 64, 65, 700, 1501)))
    slots, rule, interval = int(rng.choice((1, 2, 17, 70))), _rule(rng), _interval(rng)
    params = {
        "source_count": source_count,
        "target_count": target_count,
        "synapse_count": synapses,
        "step_offset": int(rng.integers(100)),
        **interval,
        "source_word_begin": int(rng.integers(3)),
        "source_word_stride": int(rng.choice((1, 1, 4))),
        "target_word_begin": int(rng.integers(3)),
        "delay": int(rng.integers(1, slots, endpoint=True)),
        "slot_count": slots,
        **rule,
        "dense": dense,
    }
    sizes = dict(zip((buffer.name for buffer in OPS["stdp"].buffers), OPS["stdp"].sizes(*params.values()), strict=True))
    # some sources neither fire nor have a trace
    quiet = rng.random(source_count) < 0.5
    source_words = _spikes(rng, sizes["source_words"], 0.03)
    source_words[params["source_word_begin"] :: params["source_word_stride"]][:source_count][quiet] = 0
    source_traces = _i16(rng, sizes["source_traces"]).reshape(-1, source_count)
    source_traces[:, quiet] = 0
    inputs: dict[str, NDArray[Any]] = {
        "clock": _clock(rng),
        "source_words": source_words,
        "target_words": _spikes(rng, sizes["target_words"], 0.03),
        "source_traces": source_traces,
        "target_traces": _i16(rng, sizes["target_traces"]),
        "sources": np.sort(rng.integers(0, source_count, sizes["sources"])),
        "targets": rng.integers(0, target_count, sizes["targets"]),
        "weights": _i16(rng, synapses) if rng.random() < 0.5 else rng.integers(0, 200, synapses),
        "inbox": rng.integers(-(2**31), 2**31, sizes["inbox"]),
    }
    return make_case("stdp", params, inputs)


def _poisson(rng: Rng) -> Case:
    neurons, slots = int(rng.choice((1, 2, 3, 4, 5, 100, 127, 128, 129, 700))), int(rng.choice((1, 2, 3, 16, 65)))
    begin, end = (int(i) for i in sorted(rng.choice(-(-neurons // 4) + 1, 2, replace=False)))
    if rng.random() < 0.5:
        begin, end = 0, -(-neurons // 4)
    entries = int(rng.choice((1, 2, 3, 7, 8, 21, 300, 1300)))
    # at random, with equal ones and the ends of the range among them, or crowded in its middle
    thresholds = rng.choice(np.concatenate([np.array(THRESHOLDS, np.uint32), _u32(rng, 50)]), entries)
    if rng.random() < 0.5:
        thresholds = np.uint32(1 << 31) + (_u32(rng, entries) >> np.uint32(rng.integers(2, 32)))
    params = {
        "neuron_count": neurons,
        "block_begin": begin,
        "block_end": end,
        "step_offset": int(rng.choice((0, 5, 64))),
        "step_count": int(rng.choice((1, 2, 15, 64))),
        "slot_count": slots,
        "domain": int(_u32(rng, 1)[0]),
        "key_lo": int(_u32(rng, 1)[0]),
        "key_hi": int(_u32(rng, 1)[0]),
        "weight": int(_i16(rng, 1)[0] | 1) & 0xFFFF_FFFF,
        "entry_count": entries,
    }
    inputs: dict[str, NDArray[Any]] = {
        "clock": rng.choice(np.array((0, 1, 2**32 - 200, int(_u32(rng, 1)[0])), np.uint32), 1),
        "thresholds": np.sort(thresholds),
        "inbox": _u32(rng, slots * neurons).view(np.int32) >> np.int32(rng.choice((0, 16))),
    }
    return make_case("poisson", params, inputs)


def _fsm(rng: Rng) -> Case:
    word_count, tail_bits = _length(rng)
    streams, inputs, outputs = (int(rng.integers(1, high)) for high in (40, 4, 3))
    streams += int(rng.choice((0, 0, 64)))  # so many go side by side where loads can be gathered
    # from tables that a kernel may widen to several bits at once to those of the largest machine
    states = int(rng.choice((1, 2, 5, 16, 32, 33, 200, 600, 3000, 2**16)))
    params = {
        "stream_count": streams,
        "word_count": word_count,
        "tail_bits": tail_bits,
        **_some_words(rng, word_count),
        "input_count": inputs,
        "output_count": outputs,
        "state_count": states,
    }
    entries = states << inputs
    written = rng.integers(0, 2, (2, entries), dtype=np.uint32)
    arrays: dict[str, NDArray[Any]] = {
        name: _streams(rng, streams, word_count, tail_bits) for name in ("first", "second", "third")[:inputs]
    }
    arrays |= {name: np.zeros(1, np.uint64) for name in ("second", "third")[inputs - 1 :]}
    arrays["table"] = rng.integers(0, states, entries, dtype=np.uint32) | written[0] << 16 | written[1] << 24
    arrays["states"] = rng.integers(0, states, streams, dtype=np.uint32)
    return make_case("fsm", params, arrays)


def _permute(rng: Rng) -> Case:
    index_bits = int(rng.choice(INDEX_BITS))
    width = 1 << index_bits
    length = int(rng.choice((1, 63, 64, 65, 500, width - 1, width)))
    skipped, samples, inputs = int(rng.integers(3)), int(rng.integers(1, 4)), int(rng.integers(1, 5))
    begin, end = (int(i) for i in sorted(rng.choice(inputs + 1, 2, replace=False)))
    word_count = -(-min(length, width) // 64)
    params = {
        "sample_begin": skipped,
        "sample_count": samples,
        "input_count": inputs,
        "input_begin": begin,
        "input_end": end,
        "length": min(length, width),
        "width": width,
        "index_bits": index_bits,
    }
    words = _streams(rng, (skipped + samples) * inputs, word_count, min(length, width) - 64 * (word_count - 1))
    # Masks are 1 at both bits or at neither; those of whole chunks stand for both.
    masks = rng.integers(0, 2, (end - begin, index_bits + 8, width), dtype=np.uint8).reshape(end - begin, -1, CHUNK)
    outers, chunks = (index_bits - 9) * width // CHUNK // 2, width // CHUNK
    inner = masks[:, outers : outers + len(STRIDES) * chunks].reshape(end - begin, chunks, len(STRIDES), CHUNK)
    for stage, stride in enumerate(STRIDES):
        pairs = inner[:, :, stage].reshape(end - begin, chunks, -1, 2, stride)
        pairs[..., 1, :] = pairs[..., 0, :]
    packed = np.packbits(masks, axis=-1, bitorder="little").reshape(-1).view("<u8")
    return make_case("permute", params, {"words": words, "masks": packed})


MAKERS: dict[str, Callable[[Rng], Case]] = {
    "philox": _philox,
    "encode": _encode,
    "compare": _compare,
    "dense": _dense,
    "prefix": _prefix,
    "lookup": _lookup,
    "count": _count,
    "bitwise": _bitwise,
    "delay": _delay,
    "accumulate": _accumulate,
    "conditional": _conditional,
    "pack": _pack,
    "unpack": _unpack,
    "activation": _activation,
    "lif": _lif,
    "drive": _drive,
    "propagate": _propagate,
    "trace": _trace,
    "stdp": _stdp,
    "poisson": _poisson,
    "fsm": _fsm,
    "permute": _permute,
}


def cases(op: str, number: int, seed: int) -> Iterator[Case]:
    """``number`` random cases of an operation, the same ones for the same seed."""
    for index in range(number):
        yield MAKERS[op](np.random.default_rng([seed, list(OPS).index(op), index]))


def all_devices() -> list[Device]:
    """Every device but the oracle, ``cpu`` once for each usable SIMD tier."""
    found = [known for known in devices() if known.kind == "gpu"]
    try:
        found += [device(f"cpu:{tier}") for tier in _cpu.simd_tiers()]
    except NativeLibraryError:
        pass  # devices() leaves it out too; `scgpu info` says why
    return found


@dataclass
class Row:
    """What one device did: cases and cases with a wrong bit, by operation."""

    device: str
    cases: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    error: str = ""


def compare(chosen: Device, number: int, seed: int, progress: Callable[[str], None]) -> Row:
    """Run ``number`` cases of each operation on a device against the oracle."""
    row = Row(str(chosen))
    oracle = backend_of(device("numpy"))
    try:
        backend = backend_of(chosen)
        for op in OPS:
            progress(f"{chosen}: {op}")
            row.cases[op] = row.wrong[op] = 0
            for case in cases(op, number, seed):
                row.cases[op] += 1
                row.wrong[op] += any(wrong_words(case, got, oracle) for got in case.runs(backend))
    except ScgpuError as error:
        row.error = f"{type(error).__name__}: {error}"
    return row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu parity``."""
    parser.add_argument("--device", help="only this device (default: every adapter and every SIMD tier)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random cases (default: 0)")
    parser.add_argument("--cases", type=int, default=50, help="cases for each operation and device (default: 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """``scgpu parity``: 0 when every device gave the oracle's bits, 1 when one did not."""
    number = arguments.integer("--cases", options.cases, 1, 1_000_000)
    seed = arguments.integer("--seed", options.seed, 0, 2**64 - 1)
    chosen = [device(options.device)] if options.device else all_devices()
    interactive = sys.stderr.isatty()

    def progress(text: str) -> None:
        if interactive:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    rows = [compare(one, number, seed, progress) for one in chosen]
    progress("")
    total = sum(sum(row.cases.values()) for row in rows)
    wrong = sum(sum(row.wrong.values()) for row in rows)
    failed = wrong > 0 or total == 0 or any(row.error for row in rows)
    if options.json:
        print(json.dumps({"cases": total, "wrong": wrong, "devices": [asdict(row) for row in rows]}, indent=2))
        return int(failed)
    width = max((len(row.device) for row in rows), default=6)
    print(f"{'device':<{width}}" + "".join(f"{op:>12}" for op in OPS))
    for row in rows:
        cells = []
        for op in OPS:
            done, bad = row.cases.get(op, 0), row.wrong.get(op, 0)
            cells.append("not run" if not done else f"{bad} WRONG" if bad else f"{done} ok")
        print(f"{row.device:<{width}}" + "".join(f"{cell:>12}" for cell in cells))
        if row.error:
            print(f"  {row.error}")
    if not any(one.kind == "gpu" for one in chosen):
        print("no GPU adapter was compared; `scgpu info` says what is missing")
    print(f"{total} cases against the oracle (seed {seed}): {wrong} with a wrong bit")
    return int(failed)
