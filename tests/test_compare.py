"""compare: known answers, the definition bit by bit, parity, edges, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend
from scgpu.compare import LONGEST_PERIOD, compare_step
from scgpu.devices import backend_of

Numbers = np.ndarray[Any, np.dtype[np.uint32]]


def streams(
    chosen: scgpu.Device | str, thresholds: list[list[int]], places: list[list[int]], sequences: Numbers, length: int
) -> list[list[list[int]]]:
    """Bits of (sample, stream) from one kernel call."""
    backend = backend_of(scgpu.device(chosen) if isinstance(chosen, str) else chosen)
    samples, count = np.shape(thresholds)
    words = backend.empty("u64", samples * count * -(-length // 64))
    step = compare_step(
        backend.upload(np.array(thresholds, "<u4")),
        backend.upload(np.array(places, "<u4")),
        backend.upload(sequences.astype("<u4")),
        words,
        sample_count=samples,
        stream_count=count,
        length=length,
        period=sequences.shape[1],
        sequence_count=len(sequences),
        place_stride=int(len(places) > 1),
    )
    (out,) = backend.execute([step], [words])
    bits = np.unpackbits(out.view(np.uint8).reshape(samples, count, -1), axis=-1, bitorder="little")
    assert not bits[..., length:].any()
    made: list[list[list[int]]] = bits[..., :length].tolist()
    return made


def test_compare_known_answers(chosen: scgpu.Device) -> None:
    sequences = np.array([[0, 4, 2, 6, 1], [7, 5, 3, 2**32 - 1, 2**32 - 2]], np.uint32)
    made = streams(chosen, [[3, 5, 2**32 - 1]], [[0, 0], [0, 3], [1, 1]], sequences, 7)
    assert made == [[[1, 0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1]]]
    made = streams(chosen, [[4, 0], [8, 2**32 - 2]], [[1, 2]], sequences, 6)
    # one place for all: 3, 2**32 - 1, 2**32 - 2, 7, 5, 3
    assert made == [[[1, 0, 0, 0, 0, 1], [0] * 6], [[1, 0, 0, 1, 1, 1]] * 2]


@given(
    period=st.sampled_from((1, 2, 63, 64, 65, 127, 128, 129)) | st.integers(1, 400),
    length=st.sampled_from((1, 63, 64, 65)) | st.integers(1, 5000),
    seed=st.integers(0, 2**32),
)
def test_compare_is_the_definition(chosen: scgpu.Device, period: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sequences = rng.integers(0, 2**32, (2, period), dtype=np.uint32) & np.uint32(0xF << 28)
    thresholds = [[int(rng.integers(16)) << 28, 2**32 - 1], [int(rng.integers(2**32)), 0]]
    places = [[int(rng.integers(2)), int(rng.integers(period))] for _ in range(2)]
    made = streams(chosen, thresholds, places, sequences, length)
    for sample in range(2):
        for stream, (sequence, phase) in enumerate(places):
            threshold = thresholds[sample][stream]
            numbers = sequences[sequence].tolist()
            expected = [int(numbers[(phase + t) % period] < threshold or threshold == 2**32 - 1) for t in range(length)]
            assert made[sample][stream] == expected


def test_compare_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("compare", chosen, oracle, number=80)


@pytest.mark.parametrize("period", [3, 2**16 - 1, LONGEST_PERIOD - 1, LONGEST_PERIOD])
def test_compare_finds_its_place_in_long_streams(period: int, chosen: scgpu.Device) -> None:
    # a marked number turns up once in a period, far from where the stream began
    length = 2**27 + 64
    sequences = np.zeros((1, period), np.uint32)
    sequences[0, 1] = 1
    backend = backend_of(chosen)
    words = backend.empty("u64", length // 64)
    step = compare_step(
        backend.upload(np.array([1], "<u4")),
        backend.upload(np.array([0, period - 1], "<u4")),
        backend.upload(sequences),
        words,
        sample_count=1,
        stream_count=1,
        length=length,
        period=period,
        sequence_count=1,
        place_stride=0,
    )
    (out,) = backend.execute([step], [words])
    bits = np.flatnonzero(np.unpackbits(~out[-2000:].view(np.uint8), bitorder="little")) + length - 128_000
    t = np.arange(length - 128_000, length)
    assert np.array_equal(bits, t[(t - 2) % period == 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period": 2**32}, "does not fit 32 bits"),
        ({"sequence_count": 3}, "sequences has 8 elements; 12 are needed"),
        ({"stream_count": 3}, "thresholds has 2 elements; 3 are needed"),
        ({"place_stride": 1}, "places has 2 elements; 4 are needed"),
        ({"length": 65}, "words has 2 elements; 4 are needed"),
    ],
)
def test_compare_rejects(change: dict[str, int], message: str, chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    sizes = {"sample_count": 1, "stream_count": 2, "length": 64, "period": 4, "sequence_count": 2, "place_stride": 0}
    buffers = [backend.upload(np.zeros(size, "<u4")) for size in (2, 2, 8)]
    with pytest.raises(ValueError, match=message):
        backend.execute([compare_step(*buffers, backend.empty("u64", 2), **{**sizes, **change})])
