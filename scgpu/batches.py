"""Counts of a layer or a stack for more samples than memory or one sitting holds: batch by batch, each one kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.activation import Activation
from scgpu.archive import Archive, Format
from scgpu.backend import require_host_memory
from scgpu.checkpoint import Log, Record, digest_of
from scgpu.dense import DenseLayer
from scgpu.pipeline import Pending, submit_stack
from scgpu.progress import progress_of

FORMAT = Format("row of batches", 1, "counts_in_batches")
AT_ONCE = 2  # batches on their way: a GPU works on one while the other is prepared or kept
MOST = 2**32 - 1


def counts_in_batches(
    layers: Sequence[DenseLayer],
    activations: Sequence[Activation],
    x: Any,
    seed: int,
    first_sample: int,
    *,
    batch_size: int,
    out: NDArray[np.uint64] | None,
    progress: bool | Callable[[int, int], None] | None,
    checkpoint: str | os.PathLike[str] | None,
) -> NDArray[np.uint64]:
    """Counts of the last layer for rows of x; see `DenseLayer.counts_in_batches`."""
    work = Batches(layers, activations, x, seed, first_sample, batch_size, out)
    with (
        nullcontext() if checkpoint is None else Log(checkpoint, FORMAT) as log,
        progress_of(progress, work.count, " samples") as bar,
    ):
        if log is not None:
            log.begin(work.key())
            log.records(work.take)
        bar.update(work.done)
        for record in work.batches():
            if log is not None:
                log.keep(record)
            bar.update(work.done)
    if isinstance(work.out, np.memmap):
        work.out.flush()
    return work.out


class Batches:
    """The work: rows, the layers that they go through, where the counts go, and how many rows are done."""

    def __init__(
        self,
        layers: Sequence[DenseLayer],
        activations: Sequence[Activation],
        x: Any,
        seed: int,
        first_sample: int,
        batch_size: int,
        out: NDArray[np.uint64] | None,
    ) -> None:
        self._layers, self._activations = layers, activations
        self.x = x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x)
        inputs, neurons = layers[0].n_inputs, layers[-1].n_neurons
        if len(self.x.shape) != 2 or self.x.shape[1] != inputs:
            raise ValueError(f"x must have shape (samples, {inputs}); got {tuple(self.x.shape)}")
        self.count = count = int(self.x.shape[0])
        self._seed = arguments.seed_of(seed)
        self._first_sample = arguments.integer("first_sample", first_sample, 0, 2**32 - max(count, 1))
        self._batch_size = arguments.integer("batch_size", batch_size, 1, MOST)
        self.done = 0
        if out is None:
            require_host_memory(8 * count * neurons)
            out = np.empty((count, neurons), np.uint64)
        elif not isinstance(out, np.ndarray) or out.dtype != np.uint64:
            found = f"dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise TypeError(f"out must be an ndarray or memmap of uint64; got {found}")
        elif out.shape != (count, neurons):
            raise ValueError(f"out must have shape (samples, n_neurons) = {(count, neurons)}; got {out.shape}")
        elif not out.flags.writeable:
            raise ValueError("out must be writeable; a memmap is with mode 'r+' or 'w+'")
        elif isinstance(self.x, np.ndarray) and np.may_share_memory(out, self.x):
            raise ValueError("out shares memory with x; give an array of its own")
        self.out = out

    def key(self) -> dict[str, Any]:
        """What the work is, but for the rows themselves."""
        stack = [_described(layer) for layer in self._layers]
        activations = [
            activation.integers(layer.n_inputs, layer.length, layer.polarity)
            for layer, activation in zip(self._layers, self._activations, strict=False)
        ]
        layers = digest_of([stack, activations], {str(k): one.weights for k, one in enumerate(self._layers)})
        return {"layers": layers, "seed": self._seed, "first_sample": self._first_sample}

    def _rows(self, begin: int, end: int) -> NDArray[np.float64]:
        return arguments.values(f"x[{begin}:{end}]", self.x[begin:end], self._layers[0].polarity)

    def take(self, contents: Archive) -> None:
        """Put the counts of a record where they belong, if they are those of these rows."""
        rows = arguments.integer("rows", contents.header.get("rows"), 1, MOST)
        begin, end = self.done, self.done + rows
        if end > self.count:
            raise ValueError(f"it has counts of {end:,} rows, and x has {self.count:,}")
        if digest_of("x", {"x": self._rows(begin, end)}) != contents.header.get("x"):
            raise ValueError(f"x[{begin}:{end}] are others now than those that it has counts of")
        self.out[begin:end] = contents.array("counts", np.dtype("<u4"), (rows, self.out.shape[1]))
        self.done = end

    def batches(self) -> Iterator[Record]:
        """Do what is left; give what makes the record of each batch when it is done."""
        on_the_way: deque[tuple[int, str, Pending]] = deque()
        try:
            for begin in range(self.done, self.count, self._batch_size):
                on_the_way.append(self._start(begin, min(begin + self._batch_size, self.count)))
                if len(on_the_way) == AT_ONCE:
                    yield self._land(*on_the_way.popleft())
        except Exception:  # a batch that is refused takes none with it that was started before
            while on_the_way:
                yield self._land(*on_the_way.popleft())
            raise
        while on_the_way:
            yield self._land(*on_the_way.popleft())

    def _start(self, begin: int, end: int) -> tuple[int, str, Pending]:
        rows = self._rows(begin, end)
        submitted = submit_stack(self._layers, self._activations, rows, self._seed, self._first_sample + begin)
        return end - begin, digest_of("x", {"x": rows}), submitted

    def _land(self, rows: int, digest: str, submitted: Pending) -> Record:
        begin, end = self.done, self.done + rows
        self.out[begin:end] = submitted.counts()
        self.done = end
        return lambda: ({"rows": rows, "x": digest}, {"counts": self.out[begin:end].astype("<u4")})


def _described(layer: DenseLayer) -> dict[str, Any]:
    """What the bits of a layer depend on, but for its weights."""
    names = ("n_inputs", "n_neurons", "length", "seed", "polarity", "tensor_id", "weight_streams", "sequence")
    generator: Any = None
    if layer.sng is not None:
        held = {
            name: digest_of(None, {name: value}) if isinstance(value, np.ndarray) else value
            for name, value in vars(layer.sng).items()
        }
        generator = [type(layer.sng).__qualname__, held]
    return {**{name: getattr(layer, name) for name in names}, "sng": generator}
