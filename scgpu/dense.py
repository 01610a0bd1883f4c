"""dense: a layer of stochastic products, accumulated exactly by counting."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Device
from scgpu.bitstream import Bitstream, Part
from scgpu.device_choice import DeviceChoice, choice_of
from scgpu.devices import backend_for
from scgpu.devices import device as device_of
from scgpu.encode import domain_of
from scgpu.errors import TooLargeError
from scgpu.philox import philox4x32
from scgpu.pipeline import PLAN_BYTES, Pending, Plan, Plans, submit_stack
from scgpu.placement import Shape, place
from scgpu.sequence import SEQUENCES, SequenceName
from scgpu.sng import Sng, SngName, sng_of
from scgpu.weights import (
    KINDS,
    Form,
    IndependentStreams,
    SharedStreams,
    WeightStreams,
    WeightStreamsKind,
    product_steps,
)

DRAWS_AT_ONCE = 1 << 20


def initial_weights(
    n_inputs: int, n_neurons: int, seed: int, polarity: Polarity, tensor_id: int, device: Device
) -> NDArray[np.float64]:
    """Uniform weights from the contract's generator, purpose 4 (initial values).

    Weight (n, i) comes from component 0 of the Philox block with counter
    (0, n * n_inputs + i, 0, 4 << 24 | tensor_id): u / 2**32, for bipolar layers 2 u / 2**32 - 1.
    """
    total = n_neurons * n_inputs
    flat = np.empty(total)
    key = [seed & 0xFFFF_FFFF, seed >> 32]
    at_once = min(DRAWS_AT_ONCE, backend_for(device).largest_buffer // 16)
    for begin in range(0, total, at_once):
        end = min(begin + at_once, total)
        counter = np.zeros((end - begin, 4), np.uint32)
        counter[:, 1] = np.arange(begin, end, dtype=np.uint64)
        counter[:, 3] = domain_of("initial", tensor_id)
        flat[begin:end] = philox4x32(counter, key, device=device)[:, 0]
    unit = flat.reshape(n_neurons, n_inputs) / 2.0**32
    return 2.0 * unit - 1.0 if polarity == "bipolar" else unit


class DenseLayer:
    """A dense layer of bitstreams with its weight streams on the device.

    counts[s, n] = sum over i of popcount(W[n, i] AND X[s, i]) for unipolar streams,
    popcount(XNOR) for bipolar ones: exact, the same on every device.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Size; ``n_inputs * length`` is at most 2**32 - 1 and ``n_inputs * n_neurons`` 2**32 - 1.
    length : int
        Bits of each stream.
    seed : int
        Seed of the weight streams, and of the weights where none are given.
    weights : array_like, shape (n_neurons, n_inputs), optional
        In [0, 1], or [-1, 1] for bipolar layers. Default: uniform, drawn from the seed.
    polarity : {"unipolar", "bipolar"}
        What a stream stands for.
    max_batch : int
        Samples that are encoded together; larger batches go through in pieces.
    tensor_id : int
        0 for a single layer; its index in a network.
    weight_streams : {"independent", "shared"}
        A stream of its own for each weight; or one comparator sequence for all weights of an
        input, as hardware with one random source per input has it. The accuracy of a neuron is
        the same; the errors of different neurons become more alike. Shared streams are never
        built: a product is a look-up whose cost does not grow with ``length``, which is at
        most 2**20.
    sequence : {"philox", "ramp"}
        For shared streams, the sequence: numbers of the contract's generator (default), or a
        ramp, whose weights are exact to 1 / length and whose look-ups need no reordering.
    sng : str or scgpu.sng.Sng
        Generator of weight and input streams, as in `scgpu.encode`: weights and inputs follow different
        sequences. Others than ``"bernoulli"`` need independent weight streams. Where all streams of a
        tensor share one sequence, the errors of a neuron's products add up; with ``sharing="stream"`` they
        cancel in part, which LFSRs and Halton sequences need here. Sobol' numbers do best with small seeds.
    device : str, int or Device
        See `scgpu.device`. ``"auto"`` takes the adapter in ``SC_GPU_ADAPTER``, else whichever of
        the best hardware GPU and ``cpu`` is expected to be faster for this layer with batches
        of ``max_batch``, by rates measured once on this machine; ``placement`` says why.
    isolate : bool
        Run the GPU in a helper process, see `scgpu.device`.
    on_device_loss : {"failover", "raise"}, optional
        See `scgpu.device`.

    Attributes
    ----------
    placement : Placement
        The device, and the reason for it.

    Raises
    ------
    ValueError
        A size, seed or weight out of range.
    TypeError
        Weights that are not numbers.
    TooLargeError
        A count that could pass 2**32 - 1, or weight streams that do not fit the device.

    Examples
    --------
    >>> import scgpu
    >>> layer = scgpu.DenseLayer(2, 1, length=65536, weights=[[0.5, 0.25]], device="cpu")
    >>> layer.forward([0.5, 1.0]).round(2).tolist()
    [0.5]
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        length: int = 1024,
        seed: int = 24301,
        *,
        weights: ArrayLike | None = None,
        polarity: Polarity = "unipolar",
        max_batch: int = 256,
        tensor_id: int = 0,
        weight_streams: WeightStreamsKind = "independent",
        sequence: SequenceName | None = None,
        sng: SngName | Sng = "bernoulli",
        device: str | int | Device = "auto",
        isolate: bool = False,
        on_device_loss: Literal["failover", "raise"] | None = None,
    ) -> None:
        self.n_inputs = arguments.integer("n_inputs", n_inputs, 1, 2**32 - 1)
        self.n_neurons = arguments.integer("n_neurons", n_neurons, 1, 2**32 - 1)
        self.length = arguments.length_of(length)
        self.seed = arguments.seed_of(seed)
        self.polarity = arguments.polarity_of(polarity)
        self.max_batch = arguments.integer("max_batch", max_batch, 1, 2**32 - 1)
        self.tensor_id = arguments.integer("tensor_id", tensor_id, 0, 2**24 - 1)
        self.weight_streams: WeightStreamsKind = arguments.choice("weight_streams", weight_streams, KINDS)  # type: ignore[assignment]
        self.sequence = self._sequence_of(sequence)
        self.sng = sng_of(sng)
        if self.sng is not None and self.sequence is not None:
            raise ValueError(f'sng={sng!r} needs weight_streams="independent"; got weight_streams="shared"')
        if self.n_inputs * self.length > 2**32 - 1:
            raise TooLargeError(
                f"n_inputs={self.n_inputs} times length={self.length} is {self.n_inputs * self.length}: a count "
                "could pass 2**32 - 1. Use a shorter length, or split the inputs over two layers and add their counts."
            )
        if self.n_inputs * self.n_neurons > 2**32 - 1:
            raise TooLargeError(
                f"n_inputs={self.n_inputs} times n_neurons={self.n_neurons} is more than the 2**32 - 1 streams of a "
                "tensor. Split the neurons over several layers with different tensor_id."
            )
        shape = Shape(self.n_inputs, self.n_neurons, self.length, self.max_batch, self.sequence is not None)
        placement = place(device, shape)
        chosen = device_of(placement.device, isolate=isolate, on_device_loss=on_device_loss)
        self.placement = replace(placement, device=chosen)
        self._form = Form(
            self.n_inputs, self.n_neurons, self.length, self.seed, self.polarity, self.tensor_id, chosen, self.sng
        )
        try:
            if self.sequence is None:
                IndependentStreams.neurons_per_part(self._form)
            else:
                SharedStreams.require(self._form, self.sequence)
        except TooLargeError as error:
            raise self._too_large(error) from None
        self.plans = Plans()
        if weights is None:
            weights = initial_weights(self.n_inputs, self.n_neurons, self.seed, self.polarity, self.tensor_id, chosen)
        self.weights = weights

    def _sequence_of(self, sequence: SequenceName | None) -> SequenceName | None:
        if self.weight_streams == "shared":
            name: Any = arguments.choice("sequence", "philox" if sequence is None else sequence, SEQUENCES)
            return name  # type: ignore[no-any-return]
        if sequence is not None:
            raise ValueError(f'sequence={sequence!r} needs weight_streams="shared"; leave it out')
        return None

    def _too_large(self, error: TooLargeError) -> TooLargeError:
        return TooLargeError(
            f"weight streams of n_inputs={self.n_inputs}, n_neurons={self.n_neurons}, length={self.length} "
            f"do not fit: {error}"
        )

    @property
    def device(self) -> Device:
        """Where the layer runs."""
        return self._streams.backend.device

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights, float64 (n_neurons, n_inputs), read-only: assign a whole new array to change them.

        Assignment checks the array, then encodes and uploads it; a refused array changes nothing.
        """
        return self._weights

    @weights.setter
    def weights(self, weights: ArrayLike) -> None:
        values = arguments.values("weights", weights, self.polarity)
        if values.shape != (self.n_neurons, self.n_inputs):
            raise ValueError(
                f"weights must have shape (n_neurons, n_inputs) = {(self.n_neurons, self.n_inputs)}; got {values.shape}"
            )
        try:
            streams: WeightStreams = (
                IndependentStreams(self._form, values)
                if self.sequence is None
                else SharedStreams(self._form, values, self.sequence)
            )
        except TooLargeError as error:
            raise self._too_large(error) from None
        self._weights = values.copy()
        self._weights.flags.writeable = False
        self._streams = streams
        self.plans = Plans()

    @property
    def streams(self) -> WeightStreams:
        """Weight streams on the device."""
        return self._streams

    @property
    def packed_weights(self) -> Bitstream:
        """Weight streams as bits on the layer's device, shape (n_neurons, n_inputs).

        Shared ones are made anew from the ranks.
        """
        return self._streams.packed

    def counts(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> NDArray[np.uint64]:
        """Ones in the products of the encoded inputs with the weights, summed over the inputs.

        Parameters
        ----------
        x : array_like, shape (n_inputs,) or (batch, n_inputs)
            In [0, 1], or [-1, 1] for bipolar layers. Any batch size.
        seed : int
            Seed of the input streams.
        first_sample : int
            Sample index of row 0.

        Returns
        -------
        ndarray of uint64, shape (n_neurons,) or (batch, n_neurons)
            At most ``n_inputs * length``.

        Raises
        ------
        ValueError, TypeError
            As `scgpu.encode`.
        """
        return submit_stack([self], [], x, seed, first_sample).counts()

    def counts_in_batches(
        self,
        x: Any,
        seed: int = 42,
        first_sample: int = 0,
        *,
        batch_size: int = 4096,
        out: NDArray[np.uint64] | None = None,
        progress: bool | Callable[[int, int], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> NDArray[np.uint64]:
        """`counts` of any number of samples, batch by batch: the same numbers, for any size of the batches.

        Parameters
        ----------
        x : array_like, shape (samples, n_inputs)
            As for `counts`; or a `numpy.memmap`, or anything else with a ``shape`` whose rows can be sliced,
            which may be larger than the memory: a batch is in memory at a time.
        seed, first_sample : int
            As for `counts`.
        batch_size : int
            Rows of a batch, at least 1.
        out : ndarray of uint64, shape (samples, n_neurons), optional
            Where the counts go; a `numpy.memmap` may be larger than the memory.
        progress : bool or callable, optional
            As `SpikingNetwork.run`, in samples.
        checkpoint : path, optional
            A file that keeps the counts of each batch once they are there, 4 bytes each. The same call goes on
            behind the last of them, on any device, with any ``batch_size``; rows may have been added to x.
            One process at a time may use the file.

        Returns
        -------
        ndarray of uint64, shape (samples, n_neurons)
            ``out`` where it is given; `values_of` makes values of it.

        Raises
        ------
        ValueError, TypeError
            As `counts`, for a batch when its turn comes; or an ``out`` that does not fit; or a checkpoint that is
            damaged, or of other layers, arguments or rows.
        TooLargeError
            The counts do not fit the memory; give ``out``.
        OSError
            The checkpoint cannot be read, or not be made. Where a batch cannot be written later, a
            `CheckpointWarning` says so, and the work goes on.
        """
        from scgpu.batches import counts_in_batches

        return counts_in_batches(
            [self],
            [],
            x,
            seed,
            first_sample,
            batch_size=batch_size,
            out=out,
            progress=progress,
            checkpoint=checkpoint,
        )

    def forward(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> NDArray[np.float64]:
        """Values of the neurons: `counts` as numbers.

        Unipolar counts / length, in [0, n_inputs]; bipolar 2 counts / length - n_inputs, in
        [-n_inputs, n_inputs]. Parameters and errors as `counts`.
        """
        return submit_stack([self], [], x, seed, first_sample).result()

    def submit(self, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> Pending:
        """Start `forward`, and return without waiting for it.

        So a GPU works on one batch while the next is prepared, uploaded and submitted, and the one
        before is read. At most 8 submissions of a device, or 256 MiB of their inputs and outputs,
        are on their way together: at either bound `submit` first waits for the oldest, and keeps its
        outputs in host memory. The devices ``cpu`` and ``numpy`` compute at once.

        Parameters as `forward`; x may be changed afterwards.

        Returns
        -------
        Pending
            Its ``result()`` is what `forward` returns, its ``counts()`` what `counts` does.

        Raises
        ------
        ValueError, TypeError
            As `counts`. What goes wrong on the device is raised by ``result()``.
        """
        return submit_stack([self], [], x, seed, first_sample)

    def counts_prepacked(self, inputs: Bitstream, *, weights: Bitstream | None = None) -> NDArray[np.uint64]:
        """Counts for input streams that exist already.

        Parameters
        ----------
        inputs : Bitstream, shape (n_inputs,) or (batch, n_inputs)
            Of the layer's length and polarity. Copied to the layer's device if it lies elsewhere.
        weights : Bitstream, shape (n_neurons, n_inputs), optional
            Weight streams for this call in place of the layer's own, of its length and polarity: such as
            ``scgpu.flip_bits(layer.packed_weights, 0.01)``.

        Returns
        -------
        ndarray of uint64, shape (n_neurons,) or (batch, n_neurons)

        Raises
        ------
        ValueError
            Wrong shape, length or polarity.
        TypeError
            Not a `Bitstream`.
        """
        return self._counts_prepacked(inputs, weights).astype(np.uint64)

    def _counts_prepacked(self, inputs: Bitstream, weights: Bitstream | None) -> NDArray[np.uint32]:
        """The counts of `counts_prepacked` as kernels write them."""
        self._require_streams("inputs", inputs, "forward for numbers")
        shape = inputs.shape
        if len(shape) not in (1, 2) or shape[-1] != self.n_inputs:
            raise ValueError(f"inputs must have shape ({self.n_inputs},) or (batch, {self.n_inputs}); got {shape}")
        given = None if weights is None else self._given_weights(weights)
        if shape[0] == 0:
            return np.empty((0, self.n_neurons), np.uint32)
        backend = self._streams.backend
        if inputs._backend is not backend:
            inputs = inputs._on(backend)
        outs = [self._counts_of_part(part, given) for part in inputs._parts]
        out = outs[0] if len(outs) == 1 else np.concatenate(outs)
        return out if len(shape) == 1 else out.reshape(shape[0], self.n_neurons)

    def _require_streams(self, name: str, streams: Bitstream, remedy: str) -> None:
        """Refuse what is no Bitstream of the layer's length and polarity."""
        if isinstance(streams, Bitstream) and streams.length == self.length and streams.polarity == self.polarity:
            return
        if not isinstance(streams, Bitstream):
            raise TypeError(
                f"{name} must be a Bitstream; got {type(streams).__name__}. Use Bitstream.from_words for packed words, "
                f"or {remedy}."
            )
        for kind in ("length", "polarity"):
            if getattr(streams, kind) != getattr(self, kind):
                raise ValueError(
                    f"{name} must have the layer's {kind} {getattr(self, kind)!r}; got {getattr(streams, kind)!r}"
                )

    def _given_weights(self, weights: Bitstream) -> Bitstream:
        """Weight streams of a call, checked and on the layer's device."""
        self._require_streams("weights", weights, "the layer's own weights for numbers")
        if weights.shape != (self.n_neurons, self.n_inputs):
            raise ValueError(
                f"weights must have shape (n_neurons, n_inputs) = {(self.n_neurons, self.n_inputs)}; "
                f"got {weights.shape}"
            )
        weights = weights._on(self._streams.backend)
        if any((part.begin % self.n_inputs, part.end % self.n_inputs) != (0, 0) for part in weights._parts):
            raise TooLargeError(
                f"the weight streams of one neuron (n_inputs={self.n_inputs}, length={self.length}) do not fit a "
                f"buffer of {self.device}; use a smaller length or device='cpu'"
            )
        return weights

    def _counts_of_part(self, part: Part, weights: Bitstream | None) -> NDArray[np.uint32]:
        """Counts of the samples whose input streams share a buffer."""
        batch, split = divmod(part.end - part.begin, self.n_inputs)
        if split:
            raise TooLargeError(
                f"the input streams of one sample (n_inputs={self.n_inputs}, length={self.length}) do not fit a "
                f"buffer of {self.device}; use a smaller length or device='cpu'"
            )
        streams, backend = self._streams, self._streams.backend
        if weights is None and backend.host_arrays and part.buffer.nbytes <= PLAN_BYTES:
            return self._counts_by_plan(part.buffer, batch)
        counts = backend.empty("u32", batch * self.n_neurons)
        if weights is None:
            steps = streams.steps(part.buffer, counts, streams.scratch(batch), batch)
        else:
            steps = product_steps(self._form, weights._parts, part.buffer, counts, batch)
        (out,) = backend.execute(steps, [counts])
        return out

    def _counts_by_plan(self, words: NDArray[np.uint64], batch: int) -> NDArray[np.uint32]:
        """Counts of few input streams in host memory, by kernel calls that are kept."""
        kind, streams, backend = ("products", batch), self._streams, self._streams.backend
        plan = self.plans.take(kind, [streams])
        if plan is None:
            inputs, counts = backend.empty("u64", words.size), backend.empty("u32", batch * self.n_neurons)
            scratch = streams.scratch(batch)
            steps = streams.steps(inputs, counts, scratch, batch)
            plan = Plan(backend.program(steps, [counts], [inputs, *scratch]), inputs, [streams])
        try:
            (out,) = plan.program.submit(plan.source, words).result()
        finally:
            self.plans.give(kind, plan)
        return out

    def forward_prepacked(self, inputs: Bitstream, *, weights: Bitstream | None = None) -> NDArray[np.float64]:
        """Values of the neurons for input streams that exist already; see `counts_prepacked`."""
        return self._values(self._counts_prepacked(inputs, weights))

    def values_of(self, counts: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Counts as numbers: counts / length, bipolar 2 counts / length - n_inputs."""
        counts = arguments.array_of("counts", counts)
        if not arguments.holds_integers(counts):
            raise TypeError(f"counts must hold integers; got dtype {counts.dtype}")
        return self._values(counts)

    def _values(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        """Counts as numbers, of which none rounds before the division."""
        if self.polarity == "bipolar":
            return 2.0 * counts / self.length - self.n_inputs
        return counts / self.length

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer into one file, which `load` reads back on any machine and device, bit for bit.

        An .npz file without pickled objects, whatever its name, with a checksum; nothing of it is there until
        all of it is. It holds parameters and weights; streams are made again from them.

        Raises
        ------
        OSError
            The file cannot be written.
        TypeError
            A generator of another module than `scgpu.sng`.
        """
        from scgpu import layer_file

        layer_file.save_layer(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | int | Device = "auto") -> DenseLayer:
        """Read a layer that `save` wrote.

        Parameters
        ----------
        path : str or path-like
        device : str, int or Device
            See `DenseLayer`.

        Raises
        ------
        OSError
            There is no such file, or it cannot be read.
        ValueError
            The file is no layer, is of another version, was cut short or changed, or does not fit together; a
            device that is not here (`DeviceError`).
        TooLargeError
            The streams do not fit the device, or the file not the memory of the machine.

        Examples
        --------
        >>> import scgpu, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "layer.npz")
        >>> layer = scgpu.DenseLayer(3, 2, length=100, device="cpu")
        >>> layer.save(path)
        >>> scgpu.DenseLayer.load(path, device="numpy").packed_weights == layer.packed_weights
        True
        """
        from scgpu import layer_file

        return layer_file.load_layer(cls, path, device)

    def _options(self) -> dict[str, Any]:
        """Arguments that make the layer again, but for the device."""
        return {
            "n_inputs": self.n_inputs,
            "n_neurons": self.n_neurons,
            "length": self.length,
            "seed": self.seed,
            "weights": self._weights,
            "polarity": self.polarity,
            "max_batch": self.max_batch,
            "tensor_id": self.tensor_id,
            "weight_streams": self.weight_streams,
            "sequence": self.sequence,
            "sng": self.sng or "bernoulli",
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as parameters and weights; ``"auto"`` stays so, another device is one of its kind."""
        from scgpu import layer_file

        return layer_file.unpickled_layer, (type(self), self._options(), self._choice())

    def _choice(self) -> DeviceChoice:
        """The device that was chosen, though the layer may have lost it."""
        return choice_of(self._form.device, self.placement.automatic)

    def __copy__(self) -> Self:
        """A layer of its own on the same device; the streams, which nobody changes, are shared."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.plans = Plans()
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __repr__(self) -> str:
        return (
            f"DenseLayer({self.n_inputs}, {self.n_neurons}, length={self.length}, seed={self.seed}, "
            f"polarity={self.polarity!r}, device={str(self.device)!r})"
        )
