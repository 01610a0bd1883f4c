"""Measure the dense shader against the published one, on one adapter, in one run.

The published shape (tools/published_dense.wgsl) and ours take turns through the same
plumbing: the same buffers, one submission each, the counts read back and compared. Beside
them stands a kernel that only reads the weights (tools/load_words.wgsl): the ceiling for
one sample. For a batch, which re-uses what it reads, the share of that rate is given by the
words that our kernel's tiles read.

Usage: python tools/published_dense.py [--device NAME] [--shape 512x256 ...] [--variant NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import scgpu
from scgpu import _abi, _wgsl
from scgpu.backend import Step
from scgpu.devices import backend_of

HERE = Path(__file__).resolve().parent
LENGTH = 1024
SHAPES = ("512x256", "1000x500")
BATCHES = (1, 64, 256)
# What the shader is for: times the published shape, for one sample and for batches.
BARS = {1: 2.0, 64: 5.0, 256: 5.0}

DENSE = _abi.OPS["dense"]
PUBLISHED = dataclasses.replace(
    DENSE,
    name="published_dense",
    buffers=tuple(dataclasses.replace(buffer, wgsl="") for buffer in DENSE.buffers),
    work_items="neuron_count * sample_count",
    variants=({"wg_size": 256},),
    imports={},
    specialised={},
    choose=lambda params, adapter: 0,
    legal=lambda params, variant: True,
    shape_class=lambda params: "",
)
LOAD = dataclasses.replace(
    PUBLISHED,
    name="load_words",
    buffers=tuple(dataclasses.replace(buffer, wgsl="vec4<u32>" * (buffer.dtype == "u64")) for buffer in DENSE.buffers),
    work_items="-(-neuron_count // 64)",
    variants=({"wg_size": 8},),
)


@dataclass(frozen=True)
class Row:
    """One shape: medians of the published kernel, ours, and of reading the weights alone."""

    shape: str
    batch: int
    variant: str
    published_ms: float
    ours_ms: float
    load_ms: float
    load_share: float

    @property
    def ratio(self) -> float:
        """How many times as fast as the published shape."""
        return self.published_ms / self.ours_ms


def register() -> None:
    """Let backends run the kernels of this folder too."""
    ours = _wgsl.source
    foreign = {op.name: op for op in (PUBLISHED, LOAD)}
    _abi.OPS.update(foreign)

    def source(name: str, files: tuple[tuple[str, str], ...] = ()) -> _wgsl.Source:
        return _wgsl.expand(foreign[name], HERE) if name in foreign else ours(name, files)

    vars(_wgsl)["source"] = source


def medians(works: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Median milliseconds of each piece of work, taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times[0]) < 5:
        for work, taken in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken) for taken in times]


def words_read(samples: int, neurons: int, variant: _abi.Variant) -> float:
    """How often a variant reads a row's word, for one read of the weights."""
    lanes_s = variant["wg_size"] // (variant["lanes_k"] * variant["lanes_n"])
    tile_n, tile_s = variant["neuron_tile"], variant["sample_tile"]
    if variant["stage_depth"]:
        tile_n, tile_s = tile_n * variant["lanes_n"], tile_s * lanes_s
    return (-(-samples // tile_s) * neurons + -(-neurons // tile_n) * samples) / neurons


def measure(
    device: scgpu.Device, shape: tuple[int, int], batch: int, variants: Sequence[str], seconds: float
) -> list[Row]:
    """One row for each variant, or for the one that the backend takes by itself."""
    backend: Any = backend_of(device)
    n_inputs, neurons = shape
    row_words = n_inputs * LENGTH // 64
    rng = np.random.default_rng(0)
    weights = backend.upload(rng.integers(0, 2**64, neurons * row_words, dtype=np.uint64))
    inputs = backend.upload(rng.integers(0, 2**64, batch * row_words, dtype=np.uint64))
    counts = backend.empty("u32", batch * neurons)
    values = (batch, neurons, row_words, 0, row_words, 0, neurons, 0, 0, 0)
    params = dict(zip(DENSE.params, values, strict=True))

    def work(op: str) -> Callable[[], list[Any]]:
        return lambda: backend.execute([Step(op, params, (weights, inputs, counts))], [counts])

    names = list(_abi.DENSE_VARIANTS)
    rows = []
    for name in variants or [names[backend._variant(DENSE, params)]]:
        index = names.index(name)
        if index not in DENSE.admissible(params, backend.adapter):
            raise SystemExit(f"variant {name} is not admissible for {shape} on {device}")
        with backend.forced("dense", index):
            expected, found = work("published_dense")()[0].copy(), work("dense")()[0]
            if not np.array_equal(expected, found):
                raise SystemExit(f"variant {name} gives other counts than the published kernel")
            work("load_words")()
            published, ours, load = medians([work(op) for op in ("published_dense", "dense", "load_words")], seconds)
        share = load * words_read(batch, neurons, DENSE.variants[index]) / ours
        rows.append(Row(f"{n_inputs}x{neurons}", batch, name, published, ours, load, share))
    return rows


def main() -> int:
    """Command line entry; exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="gpu", help="the adapter (default: gpu)")
    parser.add_argument("--variant", action="append", default=[], choices=list(_abi.DENSE_VARIANTS))
    parser.add_argument("--shape", action="append", help="only this shape, as 512x256; may be repeated")
    parser.add_argument("--batch", type=int, action="append", help="only this batch; may be repeated")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    device = scgpu.device(options.device)
    if device.kind != "gpu":
        raise SystemExit(f"--device {options.device}: {device} is no GPU adapter")
    register()
    print(f"{device}, {device.driver}, L = {LENGTH}, {time.strftime('%Y-%m-%d')}\n")
    print("| shape | batch | variant | published ms | ours ms | times as fast | bar | load ms | share of load rate |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    rows = []
    for shape in options.shape or SHAPES:
        n_inputs, neurons = map(int, shape.split("x"))
        for batch in options.batch or BATCHES:
            for row in measure(device, (n_inputs, neurons), batch, options.variant, options.seconds):
                rows.append(row)
                print(
                    f"| {row.shape} | {row.batch} | {row.variant} | {row.published_ms:.2f} | {row.ours_ms:.2f} "
                    f"| {row.ratio:.2f} | {BARS.get(batch, 5.0):.0f} | {row.load_ms:.2f} "
                    f"| {100 * row.load_share:.0f} % |",
                    flush=True,
                )
    if options.json:
        figures = [{**asdict(row), "ratio": row.ratio} for row in rows]
        options.json.write_text(json.dumps({"device": str(device), "rows": figures}, indent=2) + "\n")
    return int(any(row.ratio < BARS.get(row.batch, 5.0) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
