"""Kernels run between guard pages: who reads or writes beside a buffer dies of it.

Usage: python tests/guard_pages.py LIBRARY NUMBER

Runs NUMBER parity cases of every operation, and cases large enough for several threads, on
every usable SIMD tier of a build of the native library, each once with the end and once with
the beginning of every buffer at a page that nobody may touch. Prints one JSON object; the
last line of standard error says which call was running when the process died.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from test_threads import large_cases

import scgpu
from scgpu import _cpu, parity
from scgpu._abi import OPS
from scgpu.devices import backend_of

Side = Literal["beginning", "end"]
SIDES: tuple[Side, ...] = ("beginning", "end")
SLACK = 0xA7  # what lies between a buffer and the page at its other side
THREADS = 3
NOTHING = 0  # PROT_NONE


def exact(case: parity.Case) -> parity.Case:
    """The case with buffers as long as the kernel may touch, and no longer."""
    sizes = OPS[case.op].sizes(*case.params.values())
    buffers = tuple(array[:size] for array, size in zip(case.buffers, sizes, strict=True))
    return parity.Case(case.op, case.params, buffers)


class Guarded:
    """A copy of an array that ends, or begins, at a guard page; another one is at the other side.

    The outermost element lies in the guard page itself where ``spoiled``: a kernel that needs it dies.
    """

    def __init__(self, array: np.ndarray[Any, Any], side: Side, spoiled: bool = False) -> None:
        page = mmap.PAGESIZE
        inner = -(-array.nbytes // page) * page
        memory = mmap.mmap(-1, inner + 2 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        octets = np.frombuffer(memory, np.uint8)
        first = octets.ctypes.data
        begin = page if side == "beginning" else page + inner - array.nbytes
        if spoiled:
            begin += -array.itemsize if side == "beginning" else array.itemsize
        octets[page : page + inner] = SLACK
        octets[begin : begin + array.nbytes] = array.view(np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (first, first + page + inner):
            if protect(ctypes.c_void_p(guard), ctypes.c_size_t(page), NOTHING):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._octets = octets[page : page + inner]
        self._begin = begin - page
        self._array = array
        self.address = first + begin

    def content(self) -> np.ndarray[Any, Any]:
        """The array as it is now."""
        return self._octets[self._begin : self._begin + self._array.nbytes].view(self._array.dtype)

    def slack_is_whole(self) -> bool:
        """True when nobody wrote between the array and the page at its other side."""
        end = self._begin + self._array.nbytes
        return bool((self._octets[: self._begin] == SLACK).all() and (self._octets[end:] == SLACK).all())


def call(tier: int, case: parity.Case, buffers: Sequence[Guarded]) -> int:
    """Hand the buffers to the library, as long as they are; returns its status."""
    arguments: list[int] = [*case.params.values()]
    for buffer, array in zip(buffers, case.buffers, strict=True):
        arguments += (buffer.address, array.size)
    status: int = getattr(_cpu.library(), case.op)(tier, _cpu.CALLS[case.op].pack(*arguments))
    return status


def run(cases: Sequence[parity.Case], expected: Sequence[list[np.ndarray[Any, Any]]]) -> dict[str, Any]:
    """Every case on every tier and side; returns how many there were, and those with a wrong bit."""
    wrong = []
    calls = 0
    for tier in scgpu.simd_tiers():
        index = list(_cpu._tiers()).index(tier)
        for side in SIDES:
            for case, right in zip(cases, expected, strict=True):
                os.write(2, f"{tier}, guarded {side}: {case}\n".encode())
                buffers = [Guarded(array, side) for array in case.buffers]
                status = call(index, case, buffers)
                calls += 1
                same = all((buffer.content() == a).all() for buffer, a in zip(buffers, right, strict=True))
                if status or not same or not all(buffer.slack_is_whole() for buffer in buffers):
                    wrong.append(f"{tier}, guarded {side}: {case}")
    return {"calls": calls, "wrong": wrong}


def dies(cases: Sequence[parity.Case], buffer: int, side: Side) -> bool:
    """True when some case ends a child by a segmentation fault, once a buffer's outermost element is spoiled."""
    if (child := os.fork()) == 0:
        faulthandler.disable()  # pytest's would tell all about it
        try:
            for case in cases:
                if case.buffers[buffer].size:
                    call(0, case, [Guarded(array, side, k == buffer) for k, array in enumerate(case.buffers)])
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def main() -> None:
    """Command line entry."""
    _cpu.LIBRARY = Path(sys.argv[1])
    oracle = backend_of(scgpu.device("numpy"))
    cases = [exact(case) for op in OPS for case in parity.cases(op, int(sys.argv[2]), 3)]
    large = [exact(case) for case in large_cases()]
    found = run(cases, [case.run(oracle) for case in cases])
    scgpu.set_num_threads(THREADS)
    more = run(large, [case.run(oracle) for case in large])
    print(json.dumps({"calls": found["calls"] + more["calls"], "wrong": found["wrong"] + more["wrong"]}))


if __name__ == "__main__":
    main()
