"""unpack: known answers, the definition bit by bit, parity, every length, refusals, `out`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from test_pack import LENGTHS

import scgpu
from scgpu.backend import Backend


def random_words(shape: tuple[int, ...], length: int) -> Any:
    return np.random.default_rng(length).integers(0, 2**64, (*shape, -(-length // 64)), dtype=np.uint64)


@pytest.mark.parametrize(
    ("words", "length", "bits"),
    [
        ([11], 4, [1, 1, 0, 1]),
        ([11], 6, [1, 1, 0, 1, 0, 0]),
        ([1 << 63], 64, [0] * 63 + [1]),
        ([0, 1], 65, [0] * 64 + [1]),
        ([2**64 - 1, 3], 66, [1] * 66),
        ([[2], [3]], 2, [[0, 1], [1, 1]]),
        ([[1], [0], [1], [1], [0]], 1, [[1], [0], [1], [1], [0]]),
    ],
)
def test_unpack_known_answers(words: Any, length: int, bits: Any, chosen: scgpu.Device) -> None:
    unpacked = scgpu.unpack(np.array(words, np.uint64), length, device=chosen)
    assert unpacked.tolist() == bits and unpacked.dtype == np.uint8


def test_unpack_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    cases = [case for case in golden["pack"].values() if "bits" in case]
    assert len(cases) > 15
    assert golden["pack"]["short"]["packed"][-1] >> np.uint64(150 % 64)  # ones past the length
    for case in cases:
        length = case["bits"].shape[-1]
        assert np.array_equal(scgpu.unpack(case["packed"], length, device=chosen), case["bits"])


def test_unpack_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("unpack", chosen, oracle)


@pytest.mark.parametrize("length", LENGTHS)
def test_unpack_equals_the_definition(length: int, chosen: scgpu.Device) -> None:
    words = random_words((5,), length)
    expected = [[int(row[t // 64]) >> (t % 64) & 1 for t in range(length)] for row in words]
    for device in (chosen, "numpy"):
        assert scgpu.unpack(words, length, device=device).tolist() == expected
        assert scgpu.unpack(words[1], length, device=device).tolist() == expected[1]


@pytest.mark.parametrize(("shape", "length"), [((0,), 0), ((3, 0), 0), ((0, 2), 65), ((2, 0, 1), 1)])
def test_unpack_of_nothing(shape: tuple[int, ...], length: int, chosen: scgpu.Device) -> None:
    bits = scgpu.unpack(np.empty(shape, np.uint64), length, device=chosen)
    assert bits.shape == (*shape[:-1], length) and bits.dtype == np.uint8
    out = np.empty(bits.shape, np.uint8)
    assert scgpu.unpack(np.empty(shape, np.uint64), length, out=out, device=chosen) is out


def test_unpack_reads_any_layout_and_changes_nothing(chosen: scgpu.Device) -> None:
    base = np.random.default_rng(0).integers(0, 2**64, (6, 8), dtype=np.uint64)
    for part in (base[::2, ::4], np.asfortranarray(base), base.T, base[:, 1:], base.astype(">u8")):
        before = part.copy()
        part.flags.writeable = False
        length = 64 * part.shape[-1]
        expected = scgpu.unpack(np.ascontiguousarray(before, np.uint64), length, device="numpy")
        assert np.array_equal(scgpu.unpack(part, length, device=chosen), expected)
        assert np.array_equal(part, before)


@pytest.mark.parametrize(("shape", "length"), [((), 1000), ((5,), 1), ((5,), 3), ((4,), 65), ((2, 3), 130)])
def test_unpack_into_out(shape: tuple[int, ...], length: int, chosen: scgpu.Device) -> None:
    # the bytes around the output belong to someone else
    size = int(np.prod(shape, dtype=np.int64)) * length
    room = np.full(size + 20, 7, np.uint8)
    out = room[9 : 9 + size].reshape(*shape, length)
    words = random_words(shape, length)
    assert scgpu.unpack(words, length, out=out, device=chosen) is out
    assert np.array_equal(out, scgpu.unpack(words, length, device="numpy"))
    assert (room[:9] == 7).all() and (room[9 + size :] == 7).all()


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((1, 64), np.uint8), ValueError, r"out must have shape \(64,\); got \(1, 64\)"),
        (np.empty(64, np.bool_), TypeError, "out must be an ndarray of uint8; got dtype bool"),
        (bytearray(64), TypeError, "out must be an ndarray of uint8; got bytearray"),
        (np.empty(128, np.uint8)[::2], ValueError, "out must be C-contiguous, aligned and writeable"),
    ],
)
def test_unpack_rejects_a_wrong_out(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.unpack(np.zeros(1, np.uint64), 64, out=out)


@pytest.mark.parametrize(
    ("words", "length", "error", "message"),
    [
        (np.zeros((2, 2), np.uint64), 64, ValueError, r"have shape \(\.\.\., 1\) for length=64; got \(2, 2\)"),
        (np.zeros(1, np.uint64), 0, ValueError, r"have shape \(\.\.\., 0\) for length=0; got \(1,\)"),
        (np.zeros(1, np.uint64), -1, ValueError, "length must be from 0 to 17179869120; got -1"),
        (np.zeros(1, np.uint64), 2**34, ValueError, "length must be from 0"),
        (np.zeros(1, np.uint64), 64.0, TypeError, "length must be an integer"),
        (np.zeros(1, np.int64), 64, TypeError, "words must be an ndarray of uint64; got dtype int64"),
        (np.zeros(1, np.uint32), 32, TypeError, "words must be uint64; got uint32"),
        ([1], 64, TypeError, "words must be an ndarray of uint64; got list"),
        (np.array(3, np.uint64), 64, ValueError, r"words must have shape \(\.\.\., W\); got a single word"),
        (np.ma.zeros(1, np.uint64), 64, TypeError, "words must be an ndarray of uint64"),
    ],
)
def test_unpack_rejects(words: Any, length: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.unpack(words, length)


def test_unpack_rejects_what_does_not_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.zeros(1 << 21, np.uint64)
    streams = scgpu.Bitstream.from_words(words, 1 << 27, device="cpu")
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: 1 << 26)
    for call in (lambda: scgpu.unpack(words, 1 << 27), streams.bits):
        with pytest.raises(scgpu.TooLargeError, match="134,217,728 bytes are needed and 67,108,864 are free"):
            call()
