"""encode: vectors, the definition bit by bit, parity, edges, statistics, refusals."""

from __future__ import annotations

import math
from typing import Any

import make_vectors
import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st
from randomgen import Philox

import scgpu
from scgpu.backend import Backend
from scgpu.devices import backend_of
from scgpu.encode import encode_step, thresholds_of

LENGTHS = (1, 31, 32, 33, 63, 64, 65, 1000)
EDGES = (0.0, 2.0**-33, 2.0**-32, 0.5, 1 - 2.0**-32, 1.0)


def naive_stream(
    p: float, length: int, seed: int, stream: int, sample: int, c3: int, resolution: int = 32, first: int = 0
) -> list[int]:
    """The contract's definition in Python integers, one bit at a time from ``first`` on, with randomgen's Philox."""
    threshold = min(math.floor(p * 2**resolution + 0.5) * 2 ** (32 - resolution), 2**32 - 1)
    bits = []
    for t in range(first, first + length):
        j, lane = divmod(t, 32)
        u = 0
        for b in range(8):
            c = 8 * j + b | stream << 32 | sample << 64 | c3 << 96
            before = (c - 1) % 2**128
            draws = Philox(number=4, width=32, counter=before, key=seed).random_raw(4)
            for component in range(4):
                u |= (int(draws[component]) >> lane & 1) << (31 - (4 * b + component))
        bits.append(int(u < threshold or threshold == 2**32 - 1))
    return bits


@pytest.mark.parametrize(
    ("options", "c3"),
    [
        ({}, 0),
        ({"seed": 2**64 - 1, "first_sample": 2**32 - 2}, 0),
        ({"purpose": "noise", "tensor_id": 5}, 3 << 24 | 5),
        ({"resolution": 3}, 0),
    ],
)
def test_encode_oracle_is_the_definition(options: dict[str, Any], c3: int) -> None:
    p = np.array([[0.3, 2.0**-32, 1.0], [0.999, 0.5, 0.0]])
    bits = scgpu.encode(p, 70, device="numpy", **options).bits()
    for sample in range(2):
        for stream in range(3):
            first = options.get("first_sample", 0)
            expected = naive_stream(
                p[sample, stream], 70, options.get("seed", 0), stream, first + sample, c3, options.get("resolution", 32)
            )
            assert bits[sample, stream].tolist() == expected


@pytest.mark.parametrize("name", make_vectors.ENCODE)
def test_encode_matches_vectors(name: str, chosen: scgpu.Device, vectors: dict[str, Any]) -> None:
    options = make_vectors.ENCODE[name]
    values = make_vectors.encode_values(options.get("polarity", "unipolar"))
    assert np.array_equal(scgpu.encode(values, device=chosen, **options).words, vectors[f"encode/{name}"])


def test_encode_vectors_are_the_oracles() -> None:
    made = make_vectors.compute("numpy")
    with np.load(make_vectors.TARGET) as stored:
        assert set(made) == set(stored.files)
        assert all(np.array_equal(made[name], stored[name]) for name in made)


@pytest.mark.parametrize("resolution", [1, 2, 3, 4, 5, 6, 7, 8])
def test_encode_thresholds_exhaustively(resolution: int, chosen: scgpu.Device) -> None:
    p = np.arange(2**resolution + 1) / 2**resolution
    streams = scgpu.encode(p, 65, 3, resolution=resolution, device=chosen)
    assert streams == scgpu.encode(p, 65, 3, resolution=resolution, device="numpy")
    # a coarse comparator decides by the first draws alone: exact probabilities need no more
    assert streams == scgpu.encode(p, 65, 3, device="numpy")


def test_encode_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("encode", chosen, oracle)


@given(
    p=st.lists(st.sampled_from(EDGES) | st.floats(0, 1), min_size=0, max_size=9),
    length=st.sampled_from(LENGTHS) | st.integers(1, 600),
    seed=st.sampled_from((0, 2**32, 2**64 - 1)) | st.integers(0, 2**64 - 1),
    first_sample=st.sampled_from((0, 2**32 - 1)) | st.integers(0, 2**32 - 1),
    resolution=st.integers(1, 32),
    tensor_id=st.integers(0, 2**24 - 1),
    bipolar=st.booleans(),
)
def test_encode_equals_oracle(chosen: scgpu.Device, p: list[float], bipolar: bool, **options: Any) -> None:
    options["polarity"] = "bipolar" if bipolar else "unipolar"
    values = np.array(p, float) * 2 - 1 if bipolar else np.array(p, float)
    streams = scgpu.encode(values, device=chosen, **options)
    assert streams == scgpu.encode(values, device="numpy", **options)
    assert streams.shape == (len(p),)


@pytest.mark.parametrize("length", LENGTHS)
def test_encode_edges(length: int, chosen: scgpu.Device) -> None:
    streams = scgpu.encode([0.0, 1.0, 1 - 2.0**-33, 2.0**-34], length, device=chosen)
    assert streams.count().tolist() == [0, length, length, 0]
    tail = length % 64
    if tail:
        assert not (streams.words[:, -1] >> np.uint64(tail)).any()


def test_encode_batch_equals_single_samples(chosen: scgpu.Device) -> None:
    p = np.linspace(0, 1, 28).reshape(4, 7)
    batch = scgpu.encode(p, 130, 9, first_sample=6, device=chosen)
    assert batch.shape == (4, 7)
    for row in range(4):
        single = scgpu.encode(p[row], 130, 9, first_sample=6 + row, device=chosen)
        assert np.array_equal(single.words, batch.words[row])


def test_encode_columns_equal_streams_encoded_alone(chosen: scgpu.Device) -> None:
    p = np.linspace(0, 1, 14).reshape(2, 7)
    whole = scgpu.encode(p, 130, 9, first_stream=2**32 - 7, device=chosen)
    for i in range(7):
        alone = scgpu.encode(p[:, i : i + 1], 130, 9, first_stream=2**32 - 7 + i, device=chosen)
        assert np.array_equal(alone.words[:, 0], whole.words[:, i])
    with pytest.raises(ValueError, match="first_stream must be from 0 to 4294967289; got 4294967290"):
        scgpu.encode(p, 130, 9, first_stream=2**32 - 6, device=chosen)


def test_encode_prefix_of_longer_stream(chosen: scgpu.Device) -> None:
    short, long = (scgpu.encode([0.3, 0.7], length, 1, device=chosen).bits() for length in (65, 1000))
    assert np.array_equal(short, long[:, :65])


def words_from(
    first_word: int, width: int, thresholds: np.ndarray[Any, np.dtype[np.uint32]], chosen: scgpu.Device
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Words first_word .. first_word + width of each stream, from one kernel call."""
    backend = backend_of(chosen)
    words = backend.empty("u64", thresholds.size * width)
    step = encode_step(
        backend.upload(thresholds.reshape(-1)),
        words,
        sample_count=len(thresholds),
        stream_count=thresholds.shape[1],
        length=64 * width,
        seed=2**63 + 9,
        first_sample=4,
        first_word=first_word,
        domain=3 << 24,
    )
    return backend.execute([step], [words])[0].reshape(*thresholds.shape, width)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 129])
def test_encode_goes_on_where_a_stream_was_left(width: int, chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(width)
    thresholds = rng.integers(0, 2**32, (3, 5), dtype=np.uint32) >> rng.integers(0, 32, (3, 5), dtype=np.uint32)
    thresholds[0, :3] = (0, 2**32 - 1, 2**31)
    whole = words_from(0, 300 + width, thresholds, chosen)
    for first_word in (0, 1, 63, 128, 129, 300):
        piece = words_from(first_word, width, thresholds, chosen)
        assert np.array_equal(piece, whole[:, :, first_word : first_word + width]), first_word


def test_encode_last_words_of_the_longest_stream(chosen: scgpu.Device) -> None:
    # bit by bit from the definition: word 2**28 - 2 begins at stream word j = 2**29 - 4
    thresholds = thresholds_of(np.array([[0.3, 0.9]]), "unipolar")
    words = words_from(2**28 - 2, 2, thresholds, chosen)
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
    for stream, p in enumerate((0.3, 0.9)):
        expected = naive_stream(p, 128, 2**63 + 9, stream, 4, 3 << 24, first=64 * (2**28 - 2))
        assert bits[0, stream].tolist() == expected


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0)])
def test_encode_empty(shape: tuple[int, ...], chosen: scgpu.Device) -> None:
    streams = scgpu.encode(np.zeros(shape), 100, device=chosen)
    assert streams.shape == shape and streams.words.shape == (*shape, 2)
    assert streams.count().shape == shape and streams.bits().shape == (*shape, 100)
    assert (~streams).words.shape == (*shape, 2)


WIDTHS = (*range(1, 20), 31, 127, 128, 129, 136, 257)


@pytest.mark.parametrize("resolution", [3, 4, 5, 8, 9, 32])
def test_encode_words_of_any_streams_together(resolution: int, chosen: scgpu.Device) -> None:
    # kernels take words of neighbouring streams together, and apart those that the first draws leave undecided
    rng = np.random.default_rng(resolution)
    for width in WIDTHS:
        samples, streams = (3, 11) if width < 20 else (1, 3)
        exact = rng.integers(0, 2**resolution + 1, (samples, streams)) / 2**resolution
        exact[0, :3] = (0.0, 1.0, exact[0, 0])
        mixed = np.where(rng.random(exact.shape) < 0.5, exact, rng.random(exact.shape))
        for p in (exact, mixed):
            for length in (64 * width, 64 * width - int(rng.integers(1, 64))):
                options = {"first_stream": 2**32 - streams, "first_sample": 2**32 - samples}
                got = scgpu.encode(p, length, width, device=chosen, **options)
                assert got == scgpu.encode(p, length, width, device="numpy", **options), (width, length)


def test_encode_past_65535_workgroups(chosen: scgpu.Device) -> None:
    # 2 streams of (65,535 * 64 + 65) / 2 words, more than fit one dispatch dimension
    words = (65_535 * 64 + 65) // 2 + 1
    streams = scgpu.encode([0.5, 0.25], 64 * words, 11, device=chosen)
    assert 2 * words > 65_535 * 64
    assert streams == scgpu.encode([0.5, 0.25], 64 * words, 11, device="cpu:x86_64_v2" if _is_x86() else "cpu")
    sigma = math.sqrt(0.25 / (64 * words))
    assert abs(streams.value()[0] - 0.5) < 5 * sigma


def _is_x86() -> bool:
    return "x86_64_v2" in scgpu.simd_tiers()


def test_encode_accepts_any_layout(chosen: scgpu.Device) -> None:
    base = np.linspace(0, 1, 60).reshape(6, 10)
    expected = scgpu.encode(base[::2, ::3].copy(), 100, device="numpy")
    readonly = base.copy()
    readonly.flags.writeable = False
    for array in (base[::2, ::3], np.asfortranarray(base[::2, ::3]), readonly[::2, ::3], base[::2, ::3].tolist()):
        assert scgpu.encode(array, 100, device=chosen) == expected
    assert scgpu.encode(base.astype(">f8")[::2, ::3], 100, device=chosen) == expected
    assert scgpu.encode(np.array([0, 1]), 100, device=chosen) == scgpu.encode([0.0, 1.0], 100, device="numpy")
    assert scgpu.encode(np.array([False, True]), 9, device=chosen).count().tolist() == [0, 9]
    half = np.array([0.1, 0.7], np.float16)
    assert scgpu.encode(half, 99, device=chosen) == scgpu.encode(half.astype(float), 99, device="numpy")


def test_encode_mean_within_5_sigma() -> None:
    p = np.linspace(0.01, 0.99, 50)
    length = 1 << 16
    error = scgpu.encode(p, length, 123, device="cpu").value() - p
    assert np.all(np.abs(error) < 5 * np.sqrt(p * (1 - p) / length))
    assert abs(error.mean()) < 5 * math.sqrt(0.25 / (50 * length))


def test_encode_streams_are_independent() -> None:
    # products of streams that differ in index, sample, purpose, tensor or seed by one
    length = 1 << 16
    base = scgpu.encode([0.5, 0.5], length, 7, device="cpu")
    others = [
        scgpu.encode([0.5, 0.5], length, 8, device="cpu"),
        scgpu.encode([0.5, 0.5], length, 7, first_sample=1, device="cpu"),
        scgpu.encode([0.5, 0.5], length, 7, purpose="weight", device="cpu"),
        scgpu.encode([0.5, 0.5], length, 7, tensor_id=1, device="cpu"),
    ]
    sigma = math.sqrt(0.25 * 0.75 / length)
    for other in others:
        assert np.all(np.abs((base & other).value() - 0.25) < 5 * sigma)
    words = base.words
    cross = np.bitwise_count(words[0] & words[1]).sum() / length
    assert abs(cross - 0.25) < 5 * sigma


@pytest.mark.parametrize(
    ("p", "options", "error", "message"),
    [
        (
            [[0.5, 0.1, 0.2, 1.2]],
            {},
            ValueError,
            r"unipolar p must lie in \[0, 1\]; got 1.2 at index \(0, 3\).*bipolar",
        ),
        ([0.5, math.nan], {}, ValueError, r"got nan at index \(1,\)"),
        ([math.inf], {}, ValueError, r"got inf at index \(0,\)"),
        ([-1e-300], {}, ValueError, r"got -1e-300"),
        ([-1.5], {"polarity": "bipolar"}, ValueError, r"bipolar p must lie in \[-1, 1\]; got -1.5"),
        (0.5, {}, ValueError, r"p must have shape \(n,\) or \(batch, n\); got \(\)"),
        (np.zeros((2, 2, 2)), {}, ValueError, r"got \(2, 2, 2\)"),
        (["a"], {}, TypeError, "p must hold real numbers"),
        ([None], {}, TypeError, "p must hold real numbers"),
        ([1j], {}, TypeError, "p must hold real numbers; got dtype complex128"),
        ([[1], [1, 1]], {}, TypeError, "p must be an array of numbers"),
        (np.ma.masked_array([0.5], [True]), {}, TypeError, "masked"),
        ([0.5], {"length": 0}, ValueError, "length must be from 1 to 17179869120; got 0"),
        ([0.5], {"length": -1}, ValueError, "length must be from 1"),
        ([0.5], {"length": 2**34}, ValueError, "length must be from 1"),
        ([0.5], {"length": 10.0}, TypeError, "length must be an integer.*got 10.0 of type float"),
        ([0.5], {"seed": -1}, ValueError, "seed must be from 0 to 18446744073709551615; got -1"),
        ([0.5], {"seed": 2**64}, ValueError, "seed must be from 0"),
        ([0.5], {"seed": None}, TypeError, "seed must be an integer"),
        ([0.5], {"resolution": 33}, ValueError, "resolution must be from 1 to 32; got 33"),
        ([0.5], {"resolution": 0}, ValueError, "resolution must be from 1 to 32; got 0"),
        ([0.5], {"tensor_id": 2**24}, ValueError, "tensor_id must be from 0"),
        ([0.5], {"purpose": "weights"}, ValueError, "purpose must be one of 'input', 'weight'"),
        ([0.5], {"polarity": "both"}, ValueError, "polarity must be one of 'unipolar', 'bipolar'; got 'both'"),
        ([[0.5], [0.5]], {"first_sample": 2**32 - 1}, ValueError, "first_sample must be from 0 to 4294967294"),
        ([0.5] * 1000, {"length": 2**34 - 64}, ValueError, r"p of shape \(1000,\) at length=17179869120 does not fit"),
    ],
)
def test_encode_rejects(p: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.encode(p, **{"length": 64, "device": "cpu", **options})


def test_encode_too_large_for_a_gpu_buffer(gpu: scgpu.Device) -> None:
    length = 2**34 - 64
    with pytest.raises(
        scgpu.TooLargeError, match=r"p of shape \(100,\) at length=17179869120 does not fit.*device='cpu'"
    ):
        scgpu.encode([0.5] * 100, length, device=gpu)
    assert scgpu.encode([1.0], 64, device=gpu).count().tolist() == [64]
