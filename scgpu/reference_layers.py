"""Layers of the reference system (SC-NeuroCore) over `scgpu.DenseLayer`; docs/migration.md says what differs.

All forwards of one layer give the same bits for one seed, on every device. Values are counts times 1 / length
as the reference has them, not counts divided by length: the last bit differs where length is no power of two.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu._cpu import simd_tier
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.dense import DenseLayer
from scgpu.devices import device as device_of
from scgpu.encode import encode
from scgpu.errors import DeviceError
from scgpu.lfsr16 import DEFAULT_SEED
from scgpu.threads import set_num_threads

GPU_SEED = 42  # of forwards of the reference's GPU layer where none is given
NO_GPU = "No GPU available. Check Vulkan/Metal drivers."

Words = NDArray[np.uint64] | Sequence[Any] | Bitstream


def batch_encode(
    probs: ArrayLike, length: int = 1024, seed: int = DEFAULT_SEED, *, device: str | int | Device = "cpu"
) -> NDArray[np.uint64]:
    """Words of the streams that a layer's forwards make of its inputs: those of `scgpu.encode`.

    Parameters
    ----------
    probs : array_like, shape (n,)
        In [0, 1].
    length : int
        Bits of each stream.
    seed : int
        0 to 2**64 - 1.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (n, W)
        W is ``ceil(length / 64)``; bits past ``length`` are 0.

    Raises
    ------
    ValueError
        A number out of range or not finite, or a wrong shape.
    TypeError
        Something that is not numbers.
    """
    numbers = arguments.probabilities("probs", probs)
    if numbers.ndim != 1:
        raise ValueError(f"probs must have shape (n,); got {numbers.shape}")
    return encode(numbers, length, seed, device=device).words.copy()


def batch_encode_numpy(
    probs: ArrayLike, length: int = 1024, seed: int = DEFAULT_SEED, *, device: str | int | Device = "cpu"
) -> NDArray[np.uint64]:
    """As `batch_encode`."""
    return batch_encode(probs, length, seed, device=device)


class _ReferenceLayer:
    """What the two layers share: a `DenseLayer`, and the reference's way to make values of its counts."""

    def __init__(self, dense: DenseLayer) -> None:
        self._dense = dense

    @property
    def dense(self) -> DenseLayer:
        """The `scgpu.DenseLayer` that does the work, and has everything beyond the reference's names."""
        return self._dense

    @property
    def n_inputs(self) -> int:
        """Inputs of a sample."""
        return self._dense.n_inputs

    @property
    def n_neurons(self) -> int:
        """Neurons, that is outputs of a sample."""
        return self._dense.n_neurons

    @property
    def length(self) -> int:
        """Bits of each stream."""
        return self._dense.length

    @property
    def device(self) -> Device:
        """Where the layer runs."""
        return self._dense.device

    def _values(self, counts: NDArray[np.uint64]) -> NDArray[np.float64]:
        return counts.astype(np.float64) * (1.0 / self.length)

    def _sample(self, inputs: ArrayLike, seed: int, first_sample: int = 0) -> NDArray[np.float64]:
        """Values of one sample."""
        x = arguments.values("inputs", inputs, "unipolar")
        if x.shape != (self.n_inputs,):
            raise ValueError(
                f"inputs must have shape ({self.n_inputs},); got {x.shape}. Use the batch forward for more."
            )
        return self._values(self._dense.counts(x, seed, first_sample))

    @classmethod
    def _of(cls, dense: DenseLayer) -> Self:
        """A layer around one that is there."""
        if dense.polarity != "unipolar":
            raise ValueError(f"{cls.__name__} needs a unipolar layer; that of the file is {dense.polarity}")
        made = object.__new__(cls)
        made._dense = dense
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer into one file; as `scgpu.DenseLayer.save`, whose `load` reads it too."""
        self._dense.save(path)

    def __copy__(self) -> Self:
        return self._of(copy.copy(self._dense))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self._dense)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.n_inputs}, {self.n_neurons}, length={self.length}, "
            f"device={str(self.device)!r})"
        )


def _unpickled(made: type[_ReferenceLayer], dense: DenseLayer) -> _ReferenceLayer:
    return made._of(dense)


def _adapter(selector: str | int | Device) -> Device:
    """The GPU adapter that a selector means, or a `RuntimeError` that says what to do."""
    try:
        found = device_of(selector)
    except DeviceError as error:
        raise RuntimeError(f"{NO_GPU} {error}. scgpu.DenseLayer runs without one.") from error
    if found.kind != "gpu":
        raise ValueError(f"device must be a GPU adapter; got {found}. scgpu.DenseLayer runs on every device.")
    return found


class GpuDenseLayer(_ReferenceLayer):
    """The reference's dense layer on a GPU.

    Its bits and values are those of `VectorizedSCLayer` and `scgpu.DenseLayer` on any other device, exactly.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Size, as `scgpu.DenseLayer`.
    length : int
        Bits of each stream.
    seed : int
        Seed of the weights and their streams.
    max_batch : int
        Samples that go through together; more go in pieces.
    device : str, int or Device
        Which adapter; the default is the one in ``SC_GPU_ADAPTER``, else the best. Software ones count.

    Attributes
    ----------
    n_inputs, n_neurons, length : int
        The same.
    device : Device
        The adapter.
    dense : DenseLayer
        The layer underneath.

    Raises
    ------
    RuntimeError
        No GPU adapter is usable, or none is what was asked for; the message says what to install.
    ValueError, TypeError, TooLargeError
        As `scgpu.DenseLayer`; a device that is no GPU.

    Examples
    --------
    >>> import scgpu
    >>> if scgpu.GpuDenseLayer.is_gpu_available():
    ...     layer = scgpu.GpuDenseLayer(3, 2, length=1024)
    ...     assert layer.forward_fast([0.2, 0.5, 1.0]).shape == (2,)
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        length: int = 1024,
        seed: int = 24301,
        max_batch: int = 256,
        *,
        device: str | int | Device = "gpu",
    ) -> None:
        super().__init__(DenseLayer(n_inputs, n_neurons, length, seed, max_batch=max_batch, device=_adapter(device)))

    @staticmethod
    def is_gpu_available() -> bool:
        """Whether a GPU adapter is usable, the one in ``SC_GPU_ADAPTER`` where it names one."""
        try:
            return device_of("gpu").kind == "gpu"
        except DeviceError:
            return False

    def gpu_name(self) -> str:
        """Name of the adapter."""
        return self.device.name

    def forward_fast(self, inputs: ArrayLike, seed: int = GPU_SEED) -> NDArray[np.float64]:
        """Values of the neurons for one sample.

        Parameters
        ----------
        inputs : array_like, shape (n_inputs,)
            In [0, 1].
        seed : int
            Seed of the input streams.

        Returns
        -------
        ndarray of float64, shape (n_neurons,)
            In [0, n_inputs].

        Raises
        ------
        ValueError
            A number out of range or not finite, or a wrong shape.
        TypeError
            Something that is not numbers.
        """
        return self._sample(inputs, seed)

    def forward_batch(self, inputs_flat: ArrayLike, n_samples: int, seed: int = GPU_SEED) -> NDArray[np.float64]:
        """Values of the neurons for some samples, one after the other; sample 0 is what `forward_fast` gives.

        Parameters
        ----------
        inputs_flat : array_like, shape (n_samples * n_inputs,) or (n_samples, n_inputs)
            In [0, 1].
        n_samples : int
            Any number; ``max_batch`` of them at a time.
        seed : int
            Seed of the input streams; sample b has sample index b.

        Returns
        -------
        ndarray of float64, shape (n_samples * n_neurons,)

        Raises
        ------
        ValueError, TypeError
            As `forward_fast`; a number of samples that the inputs have not.
        """
        x = arguments.values("inputs_flat", inputs_flat, "unipolar")
        samples = arguments.integer("n_samples", n_samples, 0, 2**32 - 1)
        if x.shape not in ((samples * self.n_inputs,), (samples, self.n_inputs)):
            raise ValueError(
                f"inputs_flat must have n_samples * n_inputs = {samples} * {self.n_inputs} numbers; got shape {x.shape}"
            )
        return self._values(self._dense.counts(x.reshape(samples, self.n_inputs), seed)).reshape(-1)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | int | Device = "gpu") -> Self:
        """Read a layer that `save` or `scgpu.DenseLayer.save` wrote; errors as `scgpu.DenseLayer.load` and here."""
        return cls._of(DenseLayer.load(path, _adapter(device)))


class VectorizedSCLayer(_ReferenceLayer):
    """The reference's dense layer with its six forwards, which are one here.

    ``forward``, ``forward_fast``, ``forward_numpy``, row 0 of ``forward_batch_numpy``, and ``forward_prepacked`` and
    ``forward_prepacked_numpy`` of ``batch_encode(inputs, length, seed)`` give the same values for one seed. Row b of
    a batch is what ``forward(row, seed, first_sample=b)`` gives.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Size, as `scgpu.DenseLayer`.
    length : int
        Bits of each stream.
    use_gpu : bool
        Run on the adapter that ``SC_GPU_ADAPTER`` names, or on the best one, instead of on the CPU.
    seed : int
        Seed of the weights and their streams.
    device : str, int or Device, optional
        Where to run, in place of what ``use_gpu`` says.

    Attributes
    ----------
    n_inputs, n_neurons, length : int
        The same.
    device : Device
        Where the layer runs.
    weights : ndarray of float64, shape (n_neurons, n_inputs)
        Read-only; assign a whole new array to change them.
    dense : DenseLayer
        The layer underneath.

    Raises
    ------
    RuntimeError
        ``use_gpu``, and no GPU adapter is usable.
    ValueError, TypeError, TooLargeError
        As `scgpu.DenseLayer`; ``use_gpu`` with a device that is no GPU.

    Examples
    --------
    >>> import scgpu
    >>> layer = scgpu.VectorizedSCLayer(2, 1, length=100)
    >>> layer.set_weights([[1.0, 0.0]])
    >>> layer.forward([1.0, 0.5]).tolist(), layer.forward_batch_numpy([[0.0, 1.0], [1.0, 1.0]]).tolist()
    ([1.0], [[0.0], [1.0]])
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        length: int = 1024,
        use_gpu: bool = False,
        *,
        seed: int = 24301,
        device: str | int | Device | None = None,
    ) -> None:
        super().__init__(DenseLayer(n_inputs, n_neurons, length, seed, device=_where(use_gpu, device)))

    batch_encode = staticmethod(batch_encode)
    batch_encode_numpy = staticmethod(batch_encode_numpy)
    set_num_threads = staticmethod(set_num_threads)
    simd_tier = staticmethod(simd_tier)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights, read-only."""
        return self._dense.weights

    @weights.setter
    def weights(self, weights: ArrayLike) -> None:
        self.set_weights(weights)

    def get_weights(self) -> NDArray[np.float64]:
        """A copy of the weights: float64 of shape (n_neurons, n_inputs)."""
        return self._dense.weights.copy()

    def set_weights(self, weights: ArrayLike) -> None:
        """Take other weights and encode them; the next call uses them, and a refused array changes nothing.

        Parameters
        ----------
        weights : array_like, shape (n_neurons, n_inputs)
            In [0, 1].

        Raises
        ------
        ValueError
            A number out of range or not finite, or a wrong shape.
        TypeError
            Something that is not numbers.
        """
        self._dense.weights = weights

    def refresh_packed_weights(self) -> None:
        """Encode the weights anew. Streams always are those of the weights, so that nothing changes."""
        self._dense.weights = self._dense.weights

    def forward(self, inputs: ArrayLike, seed: int = DEFAULT_SEED, *, first_sample: int = 0) -> NDArray[np.float64]:
        """Values of the neurons for one sample.

        Parameters
        ----------
        inputs : array_like, shape (n_inputs,)
            In [0, 1].
        seed : int
            Seed of the input streams.
        first_sample : int
            Sample index: b for the bits of row b of a batch.

        Returns
        -------
        ndarray of float64, shape (n_neurons,)
            In [0, n_inputs].

        Raises
        ------
        ValueError
            A number out of range or not finite, or a wrong shape.
        TypeError
            Something that is not numbers.
        """
        return self._sample(inputs, seed, first_sample)

    def forward_fast(
        self, inputs: ArrayLike, seed: int = DEFAULT_SEED, *, first_sample: int = 0
    ) -> NDArray[np.float64]:
        """As `forward`."""
        return self._sample(inputs, seed, first_sample)

    def forward_numpy(
        self, inputs: ArrayLike, seed: int = DEFAULT_SEED, *, first_sample: int = 0
    ) -> NDArray[np.float64]:
        """As `forward`."""
        return self._sample(inputs, seed, first_sample)

    def forward_batch_numpy(self, inputs: ArrayLike, seed: int = DEFAULT_SEED) -> NDArray[np.float64]:
        """Values of the neurons for a batch, float64 of shape (batch, n_neurons).

        Parameters
        ----------
        inputs : array_like, shape (batch, n_inputs)
            In [0, 1], in any memory order.
        seed : int
            Seed of the input streams; row b has sample index b.

        Raises
        ------
        ValueError, TypeError
            As `forward`.
        """
        x = arguments.values("inputs", inputs, "unipolar")
        if x.ndim != 2 or x.shape[1] != self.n_inputs:
            raise ValueError(f"inputs must have shape (batch, {self.n_inputs}); got {x.shape}")
        return self._values(self._dense.counts(x, seed))

    def forward_prepacked(self, packed_inputs: Words, *, weights: Words | None = None) -> NDArray[np.float64]:
        """Values of the neurons for input streams that exist already.

        Parameters
        ----------
        packed_inputs : ndarray of uint64, lists of int, or Bitstream, shape (n_inputs, W) or (n_inputs,)
            Words, such as of `batch_encode`. Bits past ``length`` do not count.
        weights : ndarray of uint64, lists of int, or Bitstream, shape (n_neurons, n_inputs, W), optional
            Weight streams for this call in place of the layer's own.

        Returns
        -------
        ndarray of float64, shape (n_neurons,)

        Raises
        ------
        ValueError
            A wrong shape, or a `Bitstream` of another length or polarity.
        TypeError
            Words that are not uint64.
        """
        inputs = self._streams("packed_inputs", packed_inputs, (self.n_inputs,))
        given = None if weights is None else self._streams("weights", weights, (self.n_neurons, self.n_inputs))
        return self._values(self._dense.counts_prepacked(inputs, weights=given))

    def forward_prepacked_numpy(self, packed_inputs: Words, *, weights: Words | None = None) -> NDArray[np.float64]:
        """As `forward_prepacked`."""
        return self.forward_prepacked(packed_inputs, weights=weights)

    def _streams(self, name: str, words: Words, shape: tuple[int, ...]) -> Bitstream:
        """Streams of the layer's length on its device."""
        if isinstance(words, Bitstream):
            if words.shape != shape:
                raise ValueError(f"{name} must have shape {shape}; got {words.shape}")
            return words
        array = arguments.words_or_lists(words, name)
        expected = (*shape, -(-self.length // 64))
        if array.shape != expected:
            raise ValueError(f"{name} must have shape {expected} for length={self.length}; got {array.shape}")
        array = array.copy(order="C")
        if self.length % 64:
            array[..., -1] &= np.uint64((1 << self.length % 64) - 1)
        return Bitstream.from_words(array, self.length, device=self.device)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], use_gpu: bool = False, *, device: str | int | Device | None = None
    ) -> Self:
        """Read a layer that `save` or `scgpu.DenseLayer.save` wrote; errors as `scgpu.DenseLayer.load` and here."""
        return cls._of(DenseLayer.load(path, _where(use_gpu, device)))


def _where(use_gpu: bool, selector: str | int | Device | None) -> str | int | Device:
    """The device that the two arguments mean."""
    if not isinstance(use_gpu, (bool, np.bool_)):
        raise TypeError(f"use_gpu must be True or False; got {use_gpu!r}")
    if use_gpu:
        return _adapter("gpu" if selector is None else selector)
    return "cpu" if selector is None else selector
