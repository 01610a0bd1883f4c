"""Measure encode, dense and neurons on every device, beside a peer where one is installed.

Every figure is the median of interleaved repeats: ours, the peer, ours, the peer, ... Beside
it stands a ceiling that this machine showed in the same run:

* one sample reads each weight once: the ceiling is the time to count the ones of as many bytes;
* a batch re-uses what it read: the ceiling is the time of its products alone at the rate that
  the same kernel reaches on rows that stay in the second-level cache (on a GPU: on a large
  layer); encode comes on top;
* neurons whose spikes and potentials are recorded: the ceiling is the time to fill as many bytes;
* encode, and neurons of which little is recorded, have no ceiling here but the peer.

The peer is PyPI's sc-neurocore-engine (Rust SIMD; `pip install sc-neurocore-engine`), whose
encoders use 8-bit thresholds where ours use 32.

Usage: python tools/bench.py [--device NAME ...] [--threads N] [--markdown FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import scgpu
from scgpu.backend import Step
from scgpu.devices import backend_of

LENGTH = 1024
SHAPES = ((64, 32), (256, 128), (512, 256), (1000, 500))
BATCH = 100
NEURONS = 100
STEPS = 100_000
PEER = "sc_neurocore_engine"

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One figure: our median, the peer's, and the machine's ceiling for the same work."""

    work: str
    device: str
    microseconds: float
    peer_microseconds: float | None
    ceiling_microseconds: float | None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the peer."""
        return self.peer_microseconds / self.microseconds if self.peer_microseconds else None

    @property
    def fraction(self) -> float | None:
        """Share of the ceiling that was reached."""
        return self.ceiling_microseconds / self.microseconds if self.ceiling_microseconds else None


def medians(works: Sequence[Work | None], seconds: float = 0.4) -> list[float | None]:
    """Median microseconds of each piece of work, taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        if work:
            work()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds * len(works) or len(times[0]) < 5:
        for work, taken in zip(works, times, strict=True):
            if work:
                start = time.perf_counter()
                work()
                taken.append(time.perf_counter() - start)
    return [1e6 * statistics.median(taken) if taken else None for taken in times]


def read_ceiling(device: scgpu.Device, nbytes: int) -> Work:
    """Count the ones of so many bytes, in 32 streams."""
    words = np.random.default_rng(0).integers(0, 2**64, (32, nbytes // 256), dtype=np.uint64)
    return scgpu.Bitstream.from_words(words, 64 * words.shape[1], device=device).count


def product_rate(device: scgpu.Device) -> float:
    """Products of 64 bits by 64 bits per microsecond, on the CPU with rows that stay in its second-level cache."""
    backend = backend_of(device)
    samples, neurons, row_words = (256, 256, 1024) if device.kind == "gpu" else (120, 64, 512)
    rng = np.random.default_rng(0)
    params = {
        "sample_count": samples,
        "neuron_count": neurons,
        "row_words": row_words,
        "word_begin": 0,
        "word_end": row_words,
        "count_offset": 0,
        "count_stride": neurons,
        "initial": 0,
        "accumulate": 0,
        "bipolar": 0,
    }
    buffers = (
        backend.upload(rng.integers(0, 2**64, neurons * row_words, dtype=np.uint64)),
        backend.upload(rng.integers(0, 2**64, samples * row_words, dtype=np.uint64)),
        backend.empty("u32", samples * neurons),
    )
    step = Step("dense", params, buffers)
    (taken,) = medians([lambda: backend.execute([step], [buffers[2]])])
    assert taken is not None
    return samples * neurons * row_words / taken


def rows_of(device: scgpu.Device, peer: Any, progress: Callable[[str], None]) -> Iterator[Row]:
    """All figures of a device."""
    rng = np.random.default_rng(1)
    rate = product_rate(device)
    for n_inputs, n_neurons in SHAPES:
        name = f"{n_inputs}x{n_neurons}"
        progress(f"{device}: dense {name}")
        layer = scgpu.DenseLayer(n_inputs, n_neurons, LENGTH, device=device)
        other = peer.DenseLayer(n_inputs, n_neurons, LENGTH) if peer else None
        x, batch = rng.random(n_inputs), rng.random((BATCH, n_inputs))
        streams = scgpu.encode(x, LENGTH, device=device)
        words = streams.words.copy()
        ours, theirs, ceiling = medians(
            [
                lambda layer=layer, streams=streams: layer.forward_prepacked(streams),  # type: ignore[misc]
                other and (lambda other=other, words=words: other.forward_prepacked_numpy(words)),
                read_ceiling(device, n_inputs * n_neurons * LENGTH // 8),
            ]
        )
        assert ours is not None
        yield Row(f"dense {name}, one sample, prepacked", str(device), ours, theirs, ceiling)
        ours, theirs = medians(
            [
                lambda layer=layer, batch=batch: layer.forward(batch),  # type: ignore[misc]
                other and (lambda other=other, batch=batch: other.forward_batch_numpy(batch)),
            ]
        )
        assert ours is not None
        products = BATCH * n_inputs * n_neurons * LENGTH / 64
        yield Row(f"dense {name}, batch of {BATCH}, encode included", str(device), ours, theirs, products / rate)
    progress(f"{device}: encode")
    p = rng.random(1000)
    ours, theirs = medians(
        [
            lambda: scgpu.encode(p, LENGTH, device=device),
            peer and (lambda: peer.batch_encode_numpy(p, LENGTH)),
        ]
    )
    assert ours is not None
    yield Row("encode 1000 numbers", str(device), ours, theirs, None)
    progress(f"{device}: neurons")
    yield from neuron_rows(device, peer)


def neuron_rows(device: scgpu.Device, peer: Any) -> Iterator[Row]:
    """Figures of fixed-point neurons, whose bits are the peer's."""
    currents = np.linspace(20, 300, NEURONS).astype(np.int16)
    given = (NEURONS, STEPS, 20, 256, currents)
    arrays = np.empty((NEURONS, STEPS), np.int32), np.empty((NEURONS, STEPS), np.int16)
    if peer:
        for ours, theirs in zip(
            scgpu.batch_lif_run_multi(*given, device=device), peer.batch_lif_run_multi(*given), strict=True
        ):
            assert np.array_equal(ours, theirs)

    def fresh() -> None:
        for array in arrays:
            np.empty_like(array).fill(1)

    def reused() -> None:
        for array in arrays:
            array.fill(1)

    moving = np.random.default_rng(1).integers(0, 256, (NEURONS, STEPS // 10)).astype(np.int16)
    works: list[tuple[str, Work, Work | None, Work | None]] = [
        (
            "new arrays",
            lambda: scgpu.batch_lif_run_multi(*given, device=device),
            peer and (lambda: peer.batch_lif_run_multi(*given)),
            fresh,
        ),
        (
            "into out",
            lambda: scgpu.batch_lif_run_multi(*given, out=arrays, device=device),
            peer and (lambda: peer.batch_lif_run_multi(*given)),
            reused,
        ),
        (
            "packed spikes",
            lambda: scgpu.batch_lif_run_multi(*given, record="spikes", device=device),
            peer and (lambda: peer.batch_lif_run_multi(*given)),
            None,
        ),
        (
            "a tenth of the steps, currents that change, packed spikes",
            lambda: scgpu.batch_lif_run_varying(20, 256, moving, record="spikes", device=device),
            peer and (lambda: [peer.batch_lif_run_varying(20, 256, row) for row in moving]),
            None,
        ),
        (
            "one neuron",
            lambda: scgpu.batch_lif_run(STEPS, 20, 256, 128, device=device),
            peer and (lambda: peer.batch_lif_run(STEPS, 20, 256, 128)),
            None,
        ),
    ]
    for name, work, other, ceiling in works:
        ours, theirs, least = medians([work, other, ceiling])
        assert ours is not None
        yield Row(f"neurons {NEURONS} x {STEPS}, {name}", str(device), ours, theirs, least)


def markdown(rows: Sequence[Row], peer_name: str) -> str:
    """The table, with the machine it was measured on."""
    lines = [
        f"{platform.processor() or platform.machine()}, {scgpu.num_threads()} threads, L = {LENGTH}; "
        f"peer: {peer_name}; {time.strftime('%Y-%m-%d')}.",
        "",
        "| work | device | us | peer us | times as fast | ceiling us | share of ceiling |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        numbers = [f"{row.microseconds:.1f}"]
        numbers += ["" if value is None else f"{value:.1f}" for value in (row.peer_microseconds,)]
        numbers += ["" if row.ratio is None else f"{row.ratio:.2f}"]
        numbers += ["" if row.ceiling_microseconds is None else f"{row.ceiling_microseconds:.1f}"]
        numbers += ["" if row.fraction is None else f"{100 * row.fraction:.0f} %"]
        lines.append(f"| {row.work} | {row.device} | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("Usage:")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", action="append", help="measure this device; may be repeated (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads of the CPU (the peer's: RAYON_NUM_THREADS)")
    parser.add_argument("--no-peer", action="store_true", help="do not measure the peer")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.threads:
        scgpu.set_num_threads(options.threads)
    try:
        peer = None if options.no_peer else importlib.import_module(PEER)
        peer_name = f"{PEER} {peer.__version__}, {peer.simd_tier()}" if peer else "none"
    except ImportError:
        peer, peer_name = None, f"none ({PEER} is not installed)"

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    rows = [row for name in options.device or ["cpu"] for row in rows_of(scgpu.device(name), peer, progress)]
    progress("")
    table = markdown(rows, peer_name)
    print(table, end="")
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        figures = [{**asdict(row), "ratio": row.ratio, "fraction": row.fraction} for row in rows]
        options.json.write_text(json.dumps({"peer": peer_name, "rows": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
