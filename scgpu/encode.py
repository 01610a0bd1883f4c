"""encode: numbers become Bernoulli bitstreams (stochastic number generation)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device, Step
from scgpu.bitstream import Bitstream, Part, part_ranges
from scgpu.compare import compare_step
from scgpu.devices import backend_for
from scgpu.errors import TooLargeError
from scgpu.sng import Sng, SngName, Source, sng_of, table_of

PURPOSES = {"input": 0, "weight": 1, "select": 2, "noise": 3, "initial": 4}
Purpose = Literal["input", "weight", "select", "noise", "initial"]
LOOKED_AT_FIRST = 1 << 20  # numbers; of more of them the memory for their streams is looked for before


def thresholds_of(values: NDArray[np.float64], polarity: Polarity, resolution: int = 32) -> NDArray[np.uint32]:
    """Comparator thresholds of values in range (contract, section 3).

    T = min(floor(p * 2**R + 0.5) * 2**(32 - R), 2**32 - 1) with p the value, or
    (value + 1) / 2 for bipolar ones; R is the resolution of the comparator in bits.
    """
    p = (values + 1.0) / 2.0 if polarity == "bipolar" else values
    steps = p * 2.0**resolution
    steps += 0.5
    if resolution < 32:  # else the conversion to integers is the floor
        np.floor(steps, out=steps)
        steps *= 2.0 ** (32 - resolution)
    return np.minimum(steps, 2.0**32 - 1, out=steps).astype("<u4")


def domain_of(purpose: str, tensor_id: int) -> int:
    """Counter word c3: what the random numbers are for, and in which tensor."""
    return PURPOSES[purpose] << 24 | tensor_id


def encode_step(
    thresholds: Any,
    words: Any,
    *,
    sample_count: int,
    stream_count: int,
    length: int,
    seed: int,
    first_sample: int,
    domain: int,
    first_stream: int = 0,
    first_word: int = 0,
    threshold_offset: int = 0,
) -> Step:
    """The kernel call that turns thresholds of (sample, stream) into words of (sample, stream, word).

    Word w of a row is word ``first_word + w`` of its stream; a stream has 2**28 of them.
    """
    word_count = -(-length // 64)
    params = {
        "sample_count": sample_count,
        "stream_count": stream_count,
        "word_count": word_count,
        "tail_bits": length - 64 * (word_count - 1),
        "first_sample": first_sample,
        "first_stream": first_stream,
        "first_word": first_word,
        "threshold_offset": threshold_offset,
        "domain": domain,
        "key_lo": seed & 0xFFFF_FFFF,
        "key_hi": seed >> 32,
    }
    return Step("encode", params, (thresholds, words))


def _source_of(other: object, shape: tuple[int, ...], length: int) -> Source:
    """The source of the streams that new ones are to be correlated with."""
    if not isinstance(other, Bitstream):
        raise TypeError(f"correlated_with must be a Bitstream; got {type(other).__name__}")
    if other._source is None:
        raise ValueError("correlated_with must be what encode returned; streams made otherwise have no generator")
    if (other.shape, other.length) != (shape, length):
        raise ValueError(
            f"correlated_with must have the shape {shape} of p and length={length}; "
            f"got shape {other.shape} and length={other.length}"
        )
    return other._source


def stream_step(
    backend: Backend,
    source: Source,
    thresholds: Any,
    words: Any,
    *,
    sample: int,
    sample_count: int,
    stream_count: int,
    length: int,
    stream: int = 0,
    threshold_offset: int = 0,
) -> Step:
    """The kernel call that makes streams of a source, from sample ``sample`` and column ``stream`` on."""
    first_stream = source.first_stream + stream
    if source.sng is None:
        return encode_step(
            thresholds,
            words,
            sample_count=sample_count,
            stream_count=stream_count,
            length=length,
            seed=source.seed,
            first_sample=source.first_sample + sample,
            first_stream=first_stream,
            domain=source.purpose << 24 | source.tensor_id,
            threshold_offset=threshold_offset,
        )
    table = table_of(backend, source, first_stream, stream_count, length)
    return compare_step(
        thresholds,
        table.places,
        table.numbers,
        words,
        sample_count=sample_count,
        stream_count=stream_count,
        length=length,
        period=table.period,
        sequence_count=table.sequence_count,
        place_stride=table.place_stride,
        threshold_offset=threshold_offset,
    )


def _ranges(backend: Backend, shape: tuple[int, ...], length: int) -> list[tuple[int, int]]:
    """`part_ranges` of streams for p of this shape."""
    try:
        return part_ranges(backend, shape, length)
    except TooLargeError as error:
        raise TooLargeError(f"p of shape {shape} at length={length} does not fit: {error}") from None


def encode(
    p: ArrayLike,
    length: int = 1024,
    seed: int = 0,
    *,
    polarity: Polarity = "unipolar",
    resolution: int = 32,
    first_sample: int = 0,
    first_stream: int = 0,
    purpose: Purpose = "input",
    tensor_id: int = 0,
    sng: SngName | Sng = "bernoulli",
    correlated_with: Bitstream | None = None,
    device: str | int | Device = "auto",
) -> Bitstream:
    """Encode numbers as bitstreams.

    Bit t of a stream is 1 if and only if U(t) < T, with T the threshold of its number. For Bernoulli
    streams, the default, U(t) for stream i in sample b is the 32-bit number that Philox4x32-10 gives for (seed,
    purpose, tensor_id, first_sample + b, first_stream + i, t); other generators have rules of their own. The bits
    are the same on every device, for any batch split.

    Parameters
    ----------
    p : array_like, shape (n,) or (batch, n)
        Numbers in [0, 1], or in [-1, 1] for bipolar streams.
    length : int
        Bits of each stream, 1 to 2**34 - 64; 1 to 2**24 for generators that do not repeat.
    seed : int
        0 to 2**64 - 1.
    polarity : {"unipolar", "bipolar"}
        A stream's share of ones is p, or (p + 1) / 2.
    resolution : int
        Bits of the comparator, 1 to 32: p is rounded to a multiple of 2**-resolution.
    first_sample : int
        Sample index of row 0; row b of a batch equals the row encoded alone with
        ``first_sample=b``. Generators other than Bernoulli ignore it: all samples use the same numbers.
    first_stream : int
        Stream index of column 0; columns from i on of an array equal those columns encoded
        alone with ``first_stream=i``.
    purpose : {"input", "weight", "select", "noise", "initial"}
        What the streams are for; streams of different purposes are independent.
    tensor_id : int
        0 to 2**24 - 1, the layer's index in a network; different ids are independent.
    sng : str or scgpu.sng.Sng
        The generator: ``"bernoulli"``, ``"lfsr"`` (16 bits), ``"sobol"``, ``"halton"``, ``"van_der_corput"``,
        ``"counter"``, or one of `scgpu.sng` with parameters, such as ``scgpu.sng.Lfsr(8, form="galois")``.
        Tensors that differ in purpose, or in tensor_id + seed, get sequences of their own, so that products of
        their streams are right; the last two generators have one sequence. The streams of a tensor share
        one unless the generator has ``sharing="stream"``.
    correlated_with : Bitstream, optional
        Streams from `encode`, of this shape and length: use the numbers that they used, for min, max and
        differences. Their generator, seed, purpose, tensor_id, first_sample and first_stream then count, and those
        given here do not.
    device : str, int or Device
        See `scgpu.device`.

    Returns
    -------
    Bitstream
        Of shape (n,) or (batch, n), on the device.

    Raises
    ------
    ValueError
        A value out of range or not finite (the index is named), a wrong shape or option.
    TypeError
        Something that is not numbers.
    TooLargeError
        The streams do not fit the device's memory.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.encode([0.0, 0.25, 1.0], length=65536, device="cpu").value().round(2).tolist()
    [0.0, 0.25, 1.0]
    >>> a = scgpu.encode([0.25], 256, sng="sobol", device="cpu")
    >>> b = scgpu.encode([0.75], 256, sng="sobol", tensor_id=1, device="cpu")
    >>> c = scgpu.encode([0.75], 256, correlated_with=a, device="cpu")
    >>> [float((a & other).value()[0]) for other in (b, c)]  # a product, and a minimum
    [0.1875, 0.25]
    """
    polarity = arguments.polarity_of(polarity)
    length = arguments.length_of(length)
    seed = arguments.seed_of(seed)
    resolution = arguments.integer("resolution", resolution, 1, 32)
    tensor_id = arguments.integer("tensor_id", tensor_id, 0, 2**24 - 1)
    arguments.choice("purpose", purpose, tuple(PURPOSES))
    backend = backend_for(device)
    if isinstance(p, np.ndarray) and p.size > LOOKED_AT_FIRST:  # looking at the numbers takes long
        _ranges(backend, p.shape, length)
    values = arguments.values("p", p, polarity)
    if values.ndim not in (1, 2):
        raise ValueError(f"p must have shape (n,) or (batch, n); got {values.shape}. Use p.reshape(-1) or p[None].")
    shape = values.shape
    sample_count, stream_count = values.reshape(-1, shape[-1]).shape if values.size else (0, 0)
    first_sample = arguments.integer("first_sample", first_sample, 0, 2**32 - max(sample_count, 1))
    first_stream = arguments.integer("first_stream", first_stream, 0, 2**32 - max(stream_count, 1))
    if values.size > 2**32 - 1:
        raise TooLargeError(f"p has {values.size:,} values; at most 2**32 - 1 streams fit one call: split the batch")
    source = Source(sng_of(sng), seed, PURPOSES[purpose], tensor_id, first_sample, first_stream)
    if correlated_with is not None:
        source = _source_of(correlated_with, shape, length)
    parts = []
    for begin, end in _ranges(backend, shape, length):
        parts.append(Part(begin, end, backend.empty("u64", (end - begin) * -(-length // 64))))
    thresholds = thresholds_of(values, polarity, resolution).reshape(-1)
    for begin, end, words in parts:
        if begin == end:
            continue
        sample, stream = divmod(begin, stream_count)  # a part is some rows, or some streams of one
        step = stream_step(
            backend,
            source,
            backend.upload(thresholds[begin:end]),
            words,
            sample=sample,
            sample_count=max((end - begin) // stream_count, 1),
            stream=stream,
            stream_count=min(end - begin, stream_count),
            length=length,
        )
        backend.execute([step])
    return Bitstream(backend, parts, shape, length, polarity, source)
