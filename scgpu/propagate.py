"""propagate: spikes into the inboxes of the neurons behind, and the synapses they go through."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.backend import Step
from scgpu.errors import TooLargeError
from scgpu.population import Population
from scgpu.spike_source import SpikeSource
from scgpu.stdp import PairStdp

LONGEST_DELAY = 1 << 16


def _index_array(name: str, value: Any) -> NDArray[np.int64]:
    array = arguments.array_of(name, value)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be a 1-D array of integers; got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _require(right: NDArray[np.bool_], message: str, values: NDArray[Any]) -> None:
    """Refuse the first value that is not right, and say where it is."""
    if not right.all():
        index = int(np.argmin(right))
        raise ValueError(f"{message}; got {values[index]} at index {index}")


def _compressed(indptr: Any, indices: Any, n_sources: int, n_targets: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Checked rows and targets, uint32."""
    rows, targets = _index_array("weights.indptr", indptr), _index_array("weights.indices", indices)
    if rows.size != n_sources + 1:
        raise ValueError(
            f"weights.indptr must have {n_sources + 1} numbers, one more than the source has neurons; got {rows.size}"
        )
    if rows[0] != 0 or rows[-1] != targets.size:
        raise ValueError(
            f"weights.indptr must begin with 0 and end with the number of synapses, {targets.size}; "
            f"got {rows[0]} and {rows[-1]}"
        )
    _require(np.diff(rows) >= 0, "weights.indptr must not fall", rows[1:])
    allowed = (targets >= 0) & (targets < n_targets)
    _require(allowed, f"weights.indices must be 0 to {n_targets - 1}, the neurons of the target", targets)
    rises = np.diff(targets) >= 0
    starts = rows[1:-1]
    rises[starts[(starts > 0) & (starts < targets.size)] - 1] = True
    _require(rises, "weights.indices must not fall within a row; sort each row", targets[1:])
    return rows.astype("<u4"), targets.astype("<u4")


class Projection:
    """Synapses from the neurons of a source to those of a population, with one delay.

    A spike of source neuron i in step t adds the weight of each of its synapses to the current of
    the neuron behind in step ``t + delay``.

    Parameters
    ----------
    source : Population, BernoulliSource or SpikeTrain
        Whose spikes go in.
    target : Population
        Whose neurons get them, on the same device.
    weights : array of int, (n_source, n_target); or a CSR matrix of that shape; or its three arrays
        Fixed-point weights, -32768 to 32767. A matrix with ``indptr``, ``indices`` and ``data`` (as
        SciPy's CSR) or a tuple of these: row i holds the synapses of source neuron i, its indices
        do not fall; the same target may stand there twice.
    delay : int
        Steps from a spike to its arrival, 1 to 65536.
    plasticity : PairStdp, optional
        How the weights learn; they stay as they are without.

    Raises
    ------
    ValueError
        A wrong shape, a number out of range, unsorted or wrong indices, another device.
    TypeError
        Something that is no integer, or of a wrong type.
    TooLargeError
        2**32 synapses or more, or more than the device holds.

    Examples
    --------
    >>> import numpy as np, scgpu
    >>> first, second = (scgpu.Population(2, scgpu.LifParameters(20, 256), device="cpu") for _ in range(2))
    >>> scgpu.Projection(first, second, np.array([[0, 300], [300, 0]]), delay=3)
    Projection(2 -> 2 neurons, 4 synapses, delay=3)
    """

    def __init__(
        self,
        source: Population | SpikeSource,
        target: Population,
        weights: Any,
        *,
        delay: int = 1,
        plasticity: PairStdp | None = None,
    ) -> None:
        if not isinstance(source, (Population, SpikeSource)):
            raise TypeError(f"source must be a Population, BernoulliSource or SpikeTrain; got {type(source).__name__}")
        if not isinstance(target, Population):
            raise TypeError(f"target must be a Population; got {type(target).__name__}")
        if isinstance(source, Population) and source._backend is not target._backend:
            raise ValueError(
                f"source is on {source.device} and target on {target.device}; make both with the same device="
            )
        if plasticity is not None and not isinstance(plasticity, PairStdp):
            raise TypeError(f"plasticity must be a PairStdp or None; got {type(plasticity).__name__}")
        self.source, self.target, self.plasticity = source, target, plasticity
        self.delay = arguments.integer("delay", delay, 1, LONGEST_DELAY)
        rows, targets, given = self._synapses(weights)
        self._initial = given
        self.dense = rows is None
        self.synapse_count = given.size
        self.longest_row = target.count if rows is None else int(np.diff(rows).max(initial=0))
        self._host_rows = np.zeros(0, "<u4") if rows is None else rows
        self._host_targets = np.zeros(0, "<u4") if targets is None else targets
        upload = target._backend.upload
        self._rows, self._targets = upload(self._host_rows), upload(self._host_targets)
        self._weights = upload(given if plasticity is None else given.copy())
        # Plastic synapses are looked at one by one, whoever their source is.
        owners = np.repeat(np.arange(source.count, dtype="<u4"), np.diff(self._host_rows)) if rows is not None else None
        self._sources = upload(owners if plasticity is not None and owners is not None else np.zeros(0, "<u4"))

    def _synapses(self, weights: Any) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[np.int16]]:
        """Rows and targets, None where every source meets every target, and the weights in their order."""
        shape = self.source.count, self.target.count
        dense = isinstance(weights, np.ndarray)  # some arrays refuse to be asked for their data
        names = () if dense else ("indptr", "indices", "data")
        parts = weights if isinstance(weights, tuple) else tuple(getattr(weights, name, None) for name in names)
        if dense or any(part is None for part in parts):
            given = arguments.integers16("weights", weights)
            if given.shape != shape:
                raise ValueError(f"weights must have shape {shape}, (source, target); got {given.shape}")
            rows = targets = None
        else:
            if len(parts) != 3:
                raise ValueError(f"weights must be (indptr, indices, data); got {len(parts)} arrays")
            if getattr(weights, "format", "csr") != "csr" or getattr(weights, "shape", shape) != shape:
                raise ValueError(
                    f"weights must be a CSR matrix of shape {shape}, (source, target); got "
                    f"{getattr(weights, 'format', 'csr')} of shape {getattr(weights, 'shape', shape)}"
                )
            given = arguments.integers16("weights.data", parts[2])
            rows, targets = _compressed(parts[0], parts[1], *shape)
            if given.shape != targets.shape:
                raise ValueError(f"weights.data must have one number for each index, {targets.size}; got {given.shape}")
        if given.size >= 2**32:
            raise TooLargeError(f"{given.size:,} synapses; a projection has at most 2**32 - 1: split the population")
        return rows, targets, np.array(given.reshape(-1), "<i2")

    @property
    def weights(self) -> NDArray[np.int16]:
        """The weights now: of shape (n_source, n_target), or those of the synapses in the order of a CSR's data."""
        (found,) = self.target._backend.execute([], [self._weights])
        found = found[: self.synapse_count].copy()
        return found.reshape(self.source.count, self.target.count) if self.dense else found

    def largest_sums(self) -> NDArray[np.int64]:
        """For each neuron of the target the most that can arrive in one step, in size."""
        count = self.target.count
        if self.plasticity is not None:
            if self.dense:
                return np.full(count, self.source.count * 2**15, np.int64)
            return np.bincount(self._host_targets, minlength=count).astype(np.int64) * 2**15
        sizes = np.abs(self._initial.astype(np.int32))
        if self.dense:
            return np.asarray(sizes.reshape(-1, count).sum(axis=0, dtype=np.int64))
        sums: NDArray[np.int64] = np.bincount(self._host_targets, weights=sizes, minlength=count).astype(np.int64)
        return sums

    def reset(self) -> None:
        """Back to the weights given at the start."""
        if self.plasticity is not None:
            self.target._backend.write(self._weights, self._initial)

    def __repr__(self) -> str:
        return (
            f"Projection({self.source.count} -> {self.target.count} neurons, {self.synapse_count:,} synapses, "
            f"delay={self.delay})"
        )


def propagate_step(
    projection: Projection,
    clock: Any,
    words: Any,
    inbox: Any,
    *,
    word_begin: int,
    word_stride: int,
    first_bit: int,
    slot_count: int,
    step_offset: int,
    step_count: int,
) -> Step:
    """The kernel call that takes the spikes of some steps to the inbox of the target."""
    params = {
        "source_count": projection.source.count,
        "target_count": projection.target.count,
        "target_begin": 0,
        "target_end": projection.target.count,
        "synapse_count": projection.synapse_count,
        "longest_row": projection.longest_row,
        "dense": int(projection.dense),
        "step_offset": step_offset,
        "step_count": step_count,
        "first_bit": first_bit,
        "word_begin": word_begin,
        "word_stride": word_stride,
        "delay": projection.delay,
        "slot_count": slot_count,
    }
    return Step("propagate", params, (clock, words, projection._rows, projection._targets, projection._weights, inbox))
