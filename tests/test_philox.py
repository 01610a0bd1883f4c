"""philox: Random123's known answers, an independent implementation, parity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import VECTORS, assert_parity
from hypothesis import given
from hypothesis import strategies as st
from randomgen import Philox

import scgpu
from scgpu.backend import Backend

WORD = st.integers(0, 2**32 - 1)


def known_answers() -> list[tuple[int, list[int], list[int], list[int]]]:
    rows = []
    for line in (VECTORS / "philox4x32.txt").read_text().splitlines():
        if not line.startswith("#"):
            rounds, *words = line.split()
            w = [int(word, 16) for word in words]
            assert len(w) == 10 and any(w[6:]), "the vector file is broken"
            rows.append((int(rounds), w[:4], w[4:6], w[6:]))
    return rows


def test_philox_oracle_matches_known_answers() -> None:
    rows = known_answers()
    assert len(rows) == 6
    for rounds, counter, key, expected in rows:
        assert scgpu.philox4x32(counter, key, rounds, device="numpy").tolist() == expected


def test_philox_matches_known_answers(chosen: scgpu.Device) -> None:
    for rounds, counter, key, expected in known_answers():
        assert scgpu.philox4x32(counter, key, rounds, device=chosen).tolist() == expected


def test_philox_matches_golden(chosen: scgpu.Device, golden: dict[str, Any]) -> None:
    case = golden["gpu"]["philox"]
    assert np.array_equal(scgpu.philox4x32(case["counter"], case["key"], device=chosen), case["out"])


@given(counter=st.lists(WORD, min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
def test_philox_oracle_equals_randomgen(counter: list[int], key: list[int]) -> None:
    # randomgen advances its counter before the first block
    number = sum(word << 32 * i for i, word in enumerate(counter))
    before = (number - 1) % 2**128
    generator = Philox(number=4, width=32, counter=before, key=key[0] | key[1] << 32)
    expected = generator.random_raw(4).astype(np.uint64)
    assert scgpu.philox4x32(counter, key, device="numpy").tolist() == expected.tolist()


def test_philox_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("philox", chosen, oracle)


def test_philox_past_65535_workgroups(chosen: scgpu.Device) -> None:
    blocks = 65_535 * 64 + 65
    counter = np.zeros((blocks, 4), np.uint32)
    counter[:, 0] = np.arange(blocks)
    words = scgpu.philox4x32(counter, [1, 2], device=chosen)
    for index in (0, 65_535 * 64 - 1, 65_535 * 64, blocks - 1):
        assert words[index].tolist() == scgpu.philox4x32([index, 0, 0, 0], [1, 2], device="numpy").tolist()
    assert np.array_equal(words, scgpu.philox4x32(counter, [1, 2], device="cpu"))


def test_philox_broadcasts_key(chosen: scgpu.Device) -> None:
    words = scgpu.philox4x32(np.zeros((3, 1, 4), int), np.arange(8).reshape(4, 2), device=chosen)
    assert words.shape == (3, 4, 4) and words.dtype == np.uint32
    assert words[2, 1].tolist() == scgpu.philox4x32([0, 0, 0, 0], [2, 3], device="numpy").tolist()
    assert scgpu.philox4x32(np.zeros((0, 4), int), [0, 0], device=chosen).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 0, 0], [0, 0]), ValueError, r"counter must have shape \(\.\.\., 4\); got \(3,\)"),
        (([0, 0, 0, -1], [0, 0]), ValueError, r"counter must lie in .* got -1 at index \(3,\)"),
        (([0, 0, 0, 0], [0, 2**32]), ValueError, r"key must lie in .* got 4294967296 at index \(1,\)"),
        (([0.0, 0, 0, 0], [0, 0]), TypeError, "counter must hold integers"),
        (([0, 0, 0, 0], [0, 0], 0), ValueError, "rounds must be from 1 to 16; got 0"),
        (([0, 0, 0, 0], [0, 0], True), TypeError, "rounds must be an integer"),
        ((np.zeros((3, 4), int), np.zeros((2, 2), int)), ValueError, "broadcast"),
    ],
)
def test_philox_rejects(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scgpu.philox4x32(*arguments, device="cpu")
