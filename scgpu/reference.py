"""Names of the reference system (SC-NeuroCore) over scgpu's operations; docs/migration.md says what differs.

Arrays of packed words go to the device and come back within a call. What stays there is a
`Bitstream`: `to_device` makes one, and the ``gpu_`` functions take it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.count import popcount as popcount_streams
from scgpu.devices import backend_for, device, devices, problems
from scgpu.errors import DeviceError, TooLargeError
from scgpu.lfsr16 import DEFAULT_SEED, lfsr_streams
from scgpu.pack import pack
from scgpu.reference_layers import batch_encode as batch_encode
from scgpu.reference_layers import batch_encode_numpy as batch_encode_numpy
from scgpu.unpack import unpack
from scgpu.weights import dense_steps

PRIORITY = ("gpu", "cpu", "numpy")
Words = TypeVar("Words", NDArray[np.uint64], Bitstream)


@dataclass(frozen=True)
class ScBackend:
    """What `get_backend` chose.

    Attributes
    ----------
    device : Device
        Where `sc_forward` runs.
    """

    device: Device

    @property
    def name(self) -> str:
        """``"gpu"``, ``"cpu"`` or ``"numpy"``."""
        return self.device.kind

    def sc_forward(
        self,
        weights_packed: NDArray[np.uint64] | Bitstream,
        input_probs: ArrayLike,
        *,
        length: int,
        seed: int = DEFAULT_SEED,
    ) -> NDArray[np.float64]:
        """As `scgpu.sc_forward`."""
        length = arguments.length_of(length)
        weights = _weight_streams(weights_packed, length, self.device)
        probabilities = arguments.probabilities("input_probs", input_probs).reshape(-1)
        if probabilities.size != weights.shape[1]:
            raise ValueError(
                f"input_probs must have one number for each of the {weights.shape[1]} inputs of weights_packed; "
                f"got shape {np.shape(input_probs)}"
            )
        return _products(weights, lfsr_streams(probabilities, length, seed, device=self.device)) / length


def available_backends() -> dict[str, bool]:
    """What `get_backend` can give on this machine, in the order of preference.

    Returns
    -------
    dict of str to bool
        ``"gpu"``: an adapter is usable, a software one counts; ``"cpu"``: the native library loads;
        ``"numpy"``: always. `scgpu.problems` says what is missing.
    """
    kinds = {found.kind for found in devices()}
    return {name: name in kinds for name in PRIORITY}


def get_backend(name: str | int | Device = "auto") -> ScBackend:
    """Choose where `sc_forward` runs. Every backend returns the same bits.

    Parameters
    ----------
    name : str, int or Device
        ``"gpu"``, ``"cpu"``, ``"numpy"``, ``"auto"``, or any other selector of `scgpu.device`.

    Returns
    -------
    ScBackend
        With ``name``, ``device`` and ``sc_forward``.

    Raises
    ------
    ValueError
        A name that means nothing here (a `DeviceError`).
    RuntimeError
        One of the three names, and this machine has no such device; the message says why.
    TypeError
        Something else.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.get_backend("numpy").name
    'numpy'
    """
    known = isinstance(name, str) and name in ("auto", *PRIORITY)
    if isinstance(name, str) and name in PRIORITY and not (available := available_backends())[name]:
        there = [one for one in available if available[one]]
        raise RuntimeError(f"backend {name!r} is not available, only {there} are; {'; '.join(problems())}")
    try:
        return ScBackend(device(name))
    except DeviceError as error:
        if known:
            raise
        raise DeviceError(
            f"unknown backend {arguments.shown(name)}; choose 'auto', one of {PRIORITY}, or a device: {error}"
        ) from None


def sc_forward(
    weights_packed: NDArray[np.uint64] | Bitstream,
    input_probs: ArrayLike,
    *,
    length: int,
    backend: str | int | Device | ScBackend = "auto",
    seed: int = DEFAULT_SEED,
) -> NDArray[np.float64]:
    """A dense layer of packed weight streams, its inputs encoded by 16-bit shift registers.

    ``out[j] = sum over i of popcount(weights[j, i] AND x[i]) / length``, where ``x[i]`` is the stream
    that `scgpu.lfsr16.lfsr_streams` makes of ``input_probs[i]``. Bit for bit the reference's, on every
    backend. `scgpu.DenseLayer` has better streams, and keeps its weights on the device.

    Parameters
    ----------
    weights_packed : ndarray of uint64 or Bitstream, shape (n_neurons, n_inputs, W) or (n_neurons, n_inputs)
        Weight streams of W = ``ceil(length / 64)`` words. Bits past ``length`` do not count.
    input_probs : array_like
        ``n_inputs`` numbers in [0, 1], in C order where they have more than one axis.
    length : int
        Bits of each stream; ``n_inputs * length`` is at most 2**32 - 1.
    backend : str, int, Device or ScBackend
        What `get_backend` takes or gives.
    seed : int
        0 to 2**32 - 1; input i starts at the low 16 bits of ``seed + i``.

    Returns
    -------
    ndarray of float64, shape (n_neurons,)
        In [0, n_inputs].

    Raises
    ------
    ValueError
        A wrong shape or size, a probability out of range or not finite, a length or seed out of range.
    TypeError
        Weights that are not uint64, probabilities that are no numbers.
    RuntimeError
        As `get_backend`.
    TooLargeError
        A count that could pass 2**32 - 1, or streams that do not fit the device.

    Examples
    --------
    >>> import numpy as np
    >>> import scgpu
    >>> scgpu.sc_forward(np.full((1, 1, 1), 2**64 - 1, np.uint64), [0.5], length=64, backend="cpu").tolist()
    [0.46875]
    """
    chosen = backend if isinstance(backend, ScBackend) else get_backend(backend)
    return chosen.sc_forward(weights_packed, input_probs, length=length, seed=seed)


def sc_forward_numpy(
    weights_packed: NDArray[np.uint64], input_probs: ArrayLike, length: int, seed: int = DEFAULT_SEED
) -> NDArray[np.float64]:
    """`sc_forward` by the NumPy oracle."""
    return sc_forward(weights_packed, input_probs, length=length, backend="numpy", seed=seed)


def _weight_streams(weights: NDArray[np.uint64] | Bitstream, length: int, chosen: Device) -> Bitstream:
    """Weights of `sc_forward` on a device, checked against the length."""
    if isinstance(weights, Bitstream):
        shape = (*weights.shape, -(-weights.length // 64))
    else:
        shape = arguments.words64(weights, "weights_packed").shape
    if len(shape) != 3 or shape[1] == 0 or shape[2] != -(-length // 64):
        raise ValueError(
            f"weights_packed must have shape (n_neurons, n_inputs, {-(-length // 64)}) for length={length}, with at "
            f"least one input; got {shape}"
        )
    _require_counts(shape[1], length)
    return _resident("weights_packed", weights, chosen)


def _resident(name: str, words: NDArray[np.uint64] | Bitstream, where: str | int | Device) -> Bitstream:
    """Streams on a device: those of an array for this call alone, all bits of their words counting."""
    if isinstance(words, Bitstream):
        return words.to(where)
    array = np.ascontiguousarray(arguments.words64(words, name), "<u8")
    length = arguments.length_of(64 * array.shape[-1])
    return Bitstream._uploaded(backend_for(where), array, array.shape[:-1], length, "unipolar")


def _require_counts(n_inputs: int, length: int) -> None:
    """Raise `TooLargeError` when ones of so many streams need more than the 32 bits that kernels count in."""
    if n_inputs * length > 2**32 - 1:
        raise TooLargeError(
            f"{n_inputs} inputs of {length} bits: a count could pass 2**32 - 1. Split the inputs, and add what the "
            "parts give."
        )


def _products(weights: Bitstream, inputs: Bitstream) -> NDArray[np.uint64]:
    """Ones of the ANDs of weights (neuron, input) with inputs (input,), summed over the inputs."""
    backend = weights._backend
    n_neurons, n_inputs = weights.shape
    if n_neurons == 0:
        return np.zeros(0, np.uint64)
    if len(inputs._parts) > 1:
        raise TooLargeError(
            f"the streams of {n_inputs} inputs of {inputs.length} bits do not fit a buffer of {inputs.device}; use "
            "the device 'cpu', or split the inputs, and add what the parts give"
        )
    counts = backend.empty("u32", n_neurons)
    steps = [
        step
        for part in weights._parts
        for step in dense_steps(
            part.buffer,
            inputs._buffer,
            counts,
            sample_count=1,
            neuron_count=(part.end - part.begin) // n_inputs,
            row_words=n_inputs * -(-inputs.length // 64),
            count_offset=part.begin // n_inputs,
            count_stride=n_neurons,
        )
    ]
    (out,) = backend.execute(steps, [counts])
    return out.astype(np.uint64)


def pack_bitstream(bits: ArrayLike, *, device: str | int | Device = "cpu") -> NDArray[np.uint64]:
    """Words from bytes, of which those that are not 0 stand for a one. `scgpu.pack` refuses all but 0 and 1.

    Parameters
    ----------
    bits : array_like of bool or of integers from 0 to 255, shape (..., length)
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (..., W)
        Bit t is ``(words[..., t // 64] >> (t % 64)) & 1``; bits past ``length`` are 0.

    Raises
    ------
    ValueError
        An integer out of range, or a single one without an axis.
    TypeError
        No integers, or rows of several lengths.
    """
    return pack(arguments.nonzero_bytes(bits), device=device)


def unpack_bitstream(
    packed: NDArray[np.uint64] | Sequence[Any],
    original_length: int,
    original_shape: Sequence[int] | None = None,
    *,
    device: str | int | Device = "cpu",
) -> NDArray[np.uint8]:
    """Single bits of words: the reverse of `pack_bitstream`. `scgpu.unpack` takes the length of one stream.

    Parameters
    ----------
    packed : ndarray of uint64 or lists of int, shape (W,) or (n, W)
    original_length : int
        Bits of all streams together; what the words hold beyond them is left out.
    original_shape : sequence of int, optional
        Shape of the result: (n, length) for n streams, any shape of ``original_length`` elements for
        one. Default: (original_length,) or (n, original_length / n).
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint8
        0 and 1.

    Raises
    ------
    ValueError
        More bits than the words have, a number of bits that the streams do not share evenly, a shape
        that does not fit.
    TypeError
        Words that are not uint64, a length that is no integer.
    """
    words = arguments.words_or_lists(packed, "packed")
    if words.ndim > 2:
        raise ValueError(f"packed must have shape (W,) or (n, W); got {words.shape}")
    total = arguments.integer("original_length", original_length, 0, 2**63 - 1)
    rows = math.prod(words.shape[:-1])
    length, rest = divmod(total, max(rows, 1))
    if rest or length > 64 * words.shape[-1] or (rows == 0 and total):
        raise ValueError(
            f"original_length must be {rows} times at most {64 * words.shape[-1]} bits for packed of shape "
            f"{words.shape}; got {total}"
        )
    shape = (*words.shape[:-1], length)
    if original_shape is not None:
        wanted = tuple(original_shape)
        if math.prod(wanted) != total or (words.ndim == 2 and wanted != shape):
            raise ValueError(
                f"original_shape must be {shape} for original_length={total} and packed of shape {words.shape}"
                f"{'' if words.ndim == 2 else ', or another of as many elements'}; got {wanted}"
            )
        shape = wanted
    return unpack(words[..., : -(-length // 64)], length, device=device).reshape(shape)


def popcount(packed: NDArray[np.uint64] | Sequence[Any], *, device: str | int | Device = "cpu") -> int:
    """Ones in all words together, an int. `scgpu.popcount` counts each stream.

    Parameters
    ----------
    packed : ndarray of uint64 or lists of int, shape (..., W)
    device : str, int or Device
        See `scgpu.device`.

    Raises
    ------
    TypeError
        Words that are not uint64, or no integers.
    ValueError
        An integer of a list that is no word.
    """
    return int(np.sum(popcount_streams(arguments.words_or_lists(packed, "packed"), device=device)))


def vec_popcount(packed: NDArray[np.uint64], *, device: str | int | Device = "cpu") -> int:
    """As `popcount`."""
    return popcount(packed, device=device)


def _evaluated(
    formula: Callable[..., Bitstream], where: str | int | Device, length: int | None, **operands: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """A formula of bitstreams on arrays of words, broadcast but for their last axis."""
    arrays = [arguments.words64(array, name) for name, array in operands.items()]
    shapes = [array.shape for array in arrays]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        shape = ()
    if len({last for *_, last in shapes}) > 1 or not shape:
        found = ", ".join(f"{name} {array.shape}" for name, array in operands.items())
        raise ValueError(f"words must have equal last axes, and others that broadcast; got {found}")
    if length is not None:
        length = arguments.length_of(length)
        for name, array in operands.items():
            arguments.require_clear_tails(arguments.streams(array, length, name), length, name)
    if 0 in shape:
        return np.empty(shape, np.uint64)
    bits = arguments.length_of(64 * shape[-1]) if length is None else length
    backend = backend_for(where)
    streams = (
        Bitstream._uploaded(
            backend, np.ascontiguousarray(np.broadcast_to(array, shape), "<u8"), shape[:-1], bits, "unipolar"
        )
        for array in arrays
    )
    return formula(*streams)._flat().reshape(shape)


def vec_and(a: NDArray[np.uint64], b: NDArray[np.uint64], *, device: str | int | Device = "cpu") -> NDArray[np.uint64]:
    """``a & b``: the product of independent unipolar streams. For a `Bitstream` use the operators.

    Parameters
    ----------
    a, b : ndarray of uint64, shape (..., W)
        Words; the axes before the last broadcast.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (..., W)

    Raises
    ------
    ValueError
        Shapes that do not go together.
    TypeError
        Words that are not uint64.
    """
    return _evaluated(operator.and_, device, None, a=a, b=b)


def vec_xnor(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    *,
    length: int | None = None,
    device: str | int | Device = "cpu",
) -> NDArray[np.uint64]:
    """``~(a ^ b)``: the product of independent bipolar streams.

    Parameters
    ----------
    a, b : ndarray of uint64, shape (..., W)
        Words; the axes before the last broadcast.
    length : int, optional
        Bits of each stream: those past it are 0 in the result, and must be in the operands. Without it
        every bit of a word counts, as in the reference.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    ndarray of uint64, shape (..., W)

    Raises
    ------
    ValueError
        Shapes that do not go together, or not with the length; ones past the length.
    TypeError
        Words that are not uint64.
    """
    return _evaluated(lambda left, right: ~(left ^ right), device, length, a=a, b=b)


def vec_not(
    a: NDArray[np.uint64], *, length: int | None = None, device: str | int | Device = "cpu"
) -> NDArray[np.uint64]:
    """``~a``: 1 - p, or minus a bipolar value. Parameters and errors as `vec_xnor`."""
    return _evaluated(operator.invert, device, length, a=a)


def vec_mux(
    select: NDArray[np.uint64],
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    *,
    device: str | int | Device = "cpu",
) -> NDArray[np.uint64]:
    """``a`` where ``select`` is 1, else ``b``: the scaled sum s a + (1 - s) b. Parameters and errors as `vec_and`."""
    return _evaluated(lambda s, one, zero: zero ^ (s & (one ^ zero)), device, None, select=select, a=a, b=b)


def to_device(
    words: NDArray[np.uint64] | Bitstream, length: int | None = None, *, device: str | int | Device = "auto"
) -> Bitstream:
    """Packed words on a device, for the ``gpu_`` functions and for everything that takes a `Bitstream`.

    Parameters
    ----------
    words : ndarray of uint64, shape (..., W), or Bitstream
        Copied, unless it is a `Bitstream` that lies there already.
    length : int, optional
        Bits of each stream, whose words have none past it. Default: all 64 W bits; for a `Bitstream`,
        its own.
    device : str, int or Device
        See `scgpu.device`.

    Raises
    ------
    ValueError
        A length that does not fit the words, or ones past it.
    TypeError
        Words that are not uint64: single bits go there with ``Bitstream.from_bits``.
    """
    if isinstance(words, Bitstream):
        if length not in (None, words.length):
            raise ValueError(f"length of a Bitstream is its own, {words.length}; got {length}. Leave it out.")
        return words.to(device)
    array = arguments.words64(words)
    return Bitstream.from_words(array, 64 * array.shape[-1] if length is None else length, device=device)


def to_host(words: NDArray[Any] | Bitstream) -> NDArray[Any]:
    """Words of a `Bitstream`, read-only; an array as it is.

    Raises
    ------
    TypeError
        Neither of them.
    """
    if isinstance(words, Bitstream):
        return words.words
    if not isinstance(words, np.ndarray):
        raise TypeError(f"words must be a Bitstream or an ndarray; got {type(words).__name__}")
    return words


def gpu_pack_bitstream(bits: ArrayLike, *, device: str | int | Device = "auto") -> NDArray[np.uint64]:
    """`pack_bitstream` on the device. ``Bitstream.from_bits`` leaves the words there."""
    return pack_bitstream(bits, device=device)


def gpu_vec_and(a: Words, b: Words, *, device: str | int | Device = "auto") -> Words:
    """`vec_and` on the device; of two `Bitstream`, ``a & b``, where they lie.

    Raises
    ------
    ValueError
        As `vec_and`, or as ``a & b``.
    TypeError
        Neither two arrays of uint64 nor two `Bitstream`.
    """
    if isinstance(a, Bitstream) and isinstance(b, Bitstream):
        return a & b
    return vec_and(a, b, device=device)


def gpu_popcount(words: NDArray[np.uint64] | Bitstream, *, device: str | int | Device = "auto") -> NDArray[np.uint64]:
    """Ones of each single word, uint64 of the shape of the words. ``Bitstream.count`` has those of each stream.

    Parameters
    ----------
    words : ndarray of uint64, shape (..., W), or Bitstream
    device : str, int or Device
        Where to count the words of an array; a `Bitstream` is counted where it lies.

    Raises
    ------
    TypeError
        Words that are not uint64.
    """
    if not isinstance(words, Bitstream) and arguments.words64(words).size == 0:
        return np.zeros(words.shape, np.uint64)
    streams = _resident("words", words, words.device if isinstance(words, Bitstream) else device)
    word_count, backend = -(-streams.length // 64), streams._backend
    counts = []
    # A product with ones counts them. The operation count has a workgroup for each stream, wasted on one word.
    ones = backend.upload(np.full(1, 2**64 - 1, np.uint64))
    for part in streams._parts:
        total = (part.end - part.begin) * word_count
        each = backend.empty("u32", total)
        steps = dense_steps(part.buffer, ones, each, sample_count=1, neuron_count=total, row_words=1)
        counts += backend.execute(steps, [each])
    return np.concatenate(counts, dtype=np.uint64).reshape(*streams.shape, word_count)


def gpu_vec_mac(
    weights: NDArray[np.uint64] | Bitstream,
    inputs: NDArray[np.uint64] | Bitstream,
    *,
    device: str | int | Device = "auto",
) -> NDArray[np.uint64]:
    """Ones of the ANDs of weight and input streams, summed over the inputs; not divided by the length.

    Parameters
    ----------
    weights : ndarray of uint64 or Bitstream, shape (n_neurons, n_inputs, W) or (n_neurons, n_inputs)
    inputs : ndarray of uint64 or Bitstream, shape (n_inputs, W) or (n_inputs,)
        With as many words; nothing is broadcast.
    device : str, int or Device
        Where to count when both are arrays; else where ``weights``, or else ``inputs``, lies.

    Returns
    -------
    ndarray of uint64, shape (n_neurons,)

    Raises
    ------
    ValueError
        Shapes that do not go together.
    TypeError
        Words that are not uint64.
    TooLargeError
        A count that could pass 2**32 - 1, or streams that do not fit the device.
    """
    shapes = []
    for name, words in (("weights", weights), ("inputs", inputs)):
        if isinstance(words, Bitstream):
            shapes.append((*words.shape, -(-words.length // 64)))
        else:
            shapes.append(arguments.words64(words, name).shape)
    if len(shapes[0]) != 3 or shapes[0][1:] != shapes[1]:
        raise ValueError(
            "weights must have shape (n_neurons, n_inputs, W) and inputs (n_inputs, W), with the same n_inputs and W; "
            f"got {shapes[0]} and {shapes[1]}"
        )
    if 0 in shapes[0]:
        return np.zeros(shapes[0][0], np.uint64)
    _require_counts(shapes[0][1], 64 * shapes[0][2])
    where = next((words.device for words in (weights, inputs) if isinstance(words, Bitstream)), device)
    return _products(_resident("weights", weights, where), _resident("inputs", inputs, where))


def _fill(name: str, out: Any, result: NDArray[np.uint64]) -> None:
    """Put numbers into an array of their shape that can hold them."""
    if not isinstance(out, np.ndarray) or out.dtype.kind not in "iuf":
        found = f"dtype {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"{name} must be an array of integers or floating-point numbers; got {found}")
    if out.shape != result.shape or not out.flags.writeable:
        how = "" if out.flags.writeable else " that is read-only"
        raise ValueError(f"{name} must be writeable and have shape {result.shape}; got {out.shape}{how}")
    with np.errstate(over="ignore"):
        held = result.astype(out.dtype)
    if not np.array_equal(held, result):
        raise ValueError(f"{name} of dtype {out.dtype} cannot hold {result.max()}; use uint64")
    out[...] = held


def jit_pack_bits(bitstream: ArrayLike, packed_arr: NDArray[np.uint64], *, device: str | int | Device = "cpu") -> None:
    """`pack_bitstream` into an array that is there; ``scgpu.pack(..., out=)`` does it without a copy.

    Parameters
    ----------
    bitstream : array_like of bool or of integers from 0 to 255, shape (..., length)
    packed_arr : ndarray of uint64, shape (..., W)
        W is ``ceil(length / 64)``: no bit is dropped.
    device : str, int or Device
        See `scgpu.device`.

    Raises
    ------
    ValueError
        As `pack_bitstream`; an array of another shape, or read-only.
    TypeError
        As `pack_bitstream`; an array of another type.
    """
    _fill("packed_arr", arguments.words64(packed_arr, "packed_arr"), pack_bitstream(bitstream, device=device))


def jit_vec_mac(
    weights: NDArray[np.uint64],
    inputs: NDArray[np.uint64],
    outputs: NDArray[Any],
    *,
    device: str | int | Device = "cpu",
) -> None:
    """`gpu_vec_mac` into an array that is there.

    Parameters
    ----------
    weights, inputs
        As `gpu_vec_mac`.
    outputs : ndarray of integers or floats, shape (n_neurons,)
        Of a type that holds the counts exactly; unchanged where it does not.
    device : str, int or Device
        See `scgpu.device`.

    Raises
    ------
    ValueError
        As `gpu_vec_mac`; outputs of another shape, read-only, or too narrow for a count.
    TypeError
        As `gpu_vec_mac`; outputs that hold no numbers.
    """
    _fill("outputs", outputs, gpu_vec_mac(weights, inputs, device=device))
