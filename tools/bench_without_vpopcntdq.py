"""Run ``scgpu bench`` with the peer's engine kept from VPOPCNTDQ, as on processors without that instruction.

The engine asks the processor once and keeps the answer in a word of its own memory. This clears the one bit there
after which it names another tier, so that both sides can be compared on the instructions that most processors
have::

    python tools/bench_without_vpopcntdq.py --device cpu:x86_64_v4 --section batch --threads 1

Linux and x86-64 alone. Options are those of ``scgpu bench``.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scgpu.cli import main

package = importlib.import_module("sc_neurocore_engine")
engine = importlib.import_module("sc_neurocore_engine.sc_neurocore_engine")
ENGINE = str(engine.__file__)

ASKED = 1 << 63  # of the words that hold answers
PEER_TIER, WANTED_TIER = "avx512-vpopcntdq", "avx512bw"


def _answers() -> Iterator[ctypes.c_uint64]:
    """Words of the engine's writable memory that may be answers of the processor."""
    before = ""
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        place, rights, *rest = line.split()
        # What is not in the file follows the file's own pages.
        mine = ENGINE in line or (len(rest) == 3 and ENGINE in before)
        before = line
        if not mine or not rights.startswith("rw"):
            continue
        begin, end = (int(text, 16) for text in place.split("-"))
        words: Any = (ctypes.c_uint64 * ((end - begin) // 8)).from_address(begin)
        words = np.frombuffer(words, np.uint64)
        for index in np.flatnonzero(words >= ASKED):
            yield ctypes.c_uint64.from_address(begin + 8 * int(index))


def forget_vpopcntdq() -> None:
    """Clear the bit by which the engine knows of VPOPCNTDQ.

    Raises
    ------
    RuntimeError
        It was not found: the engine is another one, or the processor has no such instruction.
    """
    if package.simd_tier() == PEER_TIER:
        for word in _answers():
            answer = word.value
            for bit in range(63):
                if answer >> bit & 1:
                    word.value = answer & ~(1 << bit)
                    if package.simd_tier() == WANTED_TIER:
                        return
                    word.value = answer
    raise RuntimeError(f"the peer's tier is {package.simd_tier()}; nothing was changed")


if __name__ == "__main__":
    forget_vpopcntdq()
    print(f"the peer's tier is {package.simd_tier()} now", file=sys.stderr)
    raise SystemExit(main(["bench", *sys.argv[1:]]))
