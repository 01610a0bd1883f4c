"""Fuzz the boundary of the native library: calls with parameters, lengths and addresses that do not fit.

Usage: python tools/fuzz_native.py [--cases N] [--seed S] [--op OP]

Each case begins as a valid one. Some of its parameters are replaced by others, up to 2**32 - 1; some
buffers are made shorter, lose their address, or start between two elements. What `scgpu._abi` says of
the call tells the status that must come back. A call that is refused must leave every byte as it was;
one that is accepted must leave the guards around its buffers. Prints the calls by operation and status,
and exits with 1 at the first one that is wrong: a crash is for the caller of this program to see.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi, _cpu, parity
from scgpu.backend import DTYPES

HOSTILE = (0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 2**14, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
LONGEST = 1 << 16  # elements of a buffer: longer ones are handed over too short
MOST_WORK = 10_000_000  # a valid call of more than this takes as long as it asks for
GUARD = 128  # bytes before and behind each buffer
OK, SHORT, _, PARAMETERS, ADDRESS = range(5)
COUNTS = ("_count", "rounds")
# Buffers of indices: what they hold is checked where it is made, not at every call.
INDICES = {"places", "order", "ranks", "rows", "targets", "sources", "table", "states", "entries"}

Rng = np.random.Generator


class Natural(int):
    """A number whose differences stop at 0, as those of the library's checks do."""

    def __add__(self, other: int) -> Natural:
        return Natural(int(self) + int(other))

    def __mul__(self, other: int) -> Natural:
        return Natural(int(self) * int(other))

    def __floordiv__(self, other: int) -> Natural:
        return Natural(int(self) // int(other))

    def __sub__(self, other: int) -> Natural:
        return Natural(max(0, int(self) - int(other)))

    def __rsub__(self, other: int) -> Natural:
        return Natural(max(0, int(other) - int(self)))

    __radd__, __rmul__ = __add__, __mul__


def needed_of(op: _abi.Op, params: dict[str, int]) -> tuple[int, ...]:
    """Elements of each buffer that the library asks for."""
    return op.sizes(*map(Natural, params.values()))


class Memory(NamedTuple):
    """A buffer between guards: all of its bytes, where it begins, and its elements."""

    octets: NDArray[np.uint8]
    address: int
    size: int


def _hostile(rng: Rng, value: int) -> int:
    kind = rng.integers(3)
    if kind == 0:
        return int(rng.choice(np.array(HOSTILE)))
    if kind == 1:
        return max(0, min(2**32 - 1, value + int(rng.integers(-2, 3))))
    return int(rng.integers(0, 2**32)) >> int(rng.integers(32))


def _memory(rng: Rng, content: NDArray[np.generic] | None, dtype: np.dtype[np.generic], size: int) -> Memory:
    """A buffer of so many elements; now and then without an address, or between two elements."""
    octets = np.full(size * dtype.itemsize + 2 * GUARD, 0xCA, np.uint8)
    begin = octets.ctypes.data + GUARD
    if content is not None:
        octets[GUARD : len(octets) - GUARD] = content.view(np.uint8)
    kind = rng.random()
    if kind < 0.02:
        return Memory(octets, 0, size)
    if kind < 0.04 and dtype.itemsize > 1:
        return Memory(octets, begin + 1, size)
    return Memory(octets, begin, size)


def _make(op: _abi.Op, rng: Rng) -> tuple[dict[str, int], list[Memory]]:
    """Parameters and buffers of a call."""
    case = parity.MAKERS[op.name](rng)
    params = dict(case.params)
    changed = rng.choice(len(params), min(len(params), int(rng.integers(0, 4))), replace=False)
    for index in changed:
        name = op.params[index]
        params[name] = _hostile(rng, params[name])
    memories = []
    for buffer, given, needed in zip(op.buffers, case.buffers, needed_of(op, params), strict=True):
        dtype = DTYPES[buffer.dtype]
        size = min(int(needed), LONGEST)
        if rng.random() < 0.05:
            size = int(rng.integers(0, size, endpoint=True))
        if len(changed) == 0 and size <= given.size:
            content = given[:size].copy()
        else:
            octets = size * dtype.itemsize
            content = np.frombuffer(bytes(octets) if buffer.name in INDICES else rng.bytes(octets), dtype)
        memories.append(_memory(rng, content, dtype, size))
    return params, memories


def expected_status(op: _abi.Op, params: dict[str, int], memories: list[Memory]) -> int:
    """What the library must answer."""
    values = tuple(params.values())
    if not all(op.conditions(*values)):
        return PARAMETERS
    if any(memory.size < needed for memory, needed in zip(memories, needed_of(op, params), strict=True)):
        return SHORT
    for memory, buffer in zip(memories, op.buffers, strict=True):
        if memory.size and (not memory.address or memory.address % DTYPES[buffer.dtype].itemsize):
            return ADDRESS
    return OK


def _wrong(memories: list[Memory], before: list[NDArray[np.uint8]], status: int) -> bool:
    """Whether a byte changed that must not."""
    for memory, old in zip(memories, before, strict=True):
        same = memory.octets == old
        if not (same.all() if status else same[:GUARD].all() and same[-GUARD:].all()):
            return True
    return False


def fuzz(name: str, cases: int, seed: int) -> tuple[dict[int, int], str]:
    """Calls of an operation by status, and what was wrong with the last one."""
    op, library = _abi.OPS[name], _cpu.library()
    tiers = [index for index, usable in enumerate(_cpu._tiers().values()) if usable]
    seen = dict.fromkeys((OK, SHORT, PARAMETERS, ADDRESS), 0)
    for number in range(cases):
        rng = np.random.default_rng([seed, list(_abi.OPS).index(name), number])
        params, memories = _make(op, rng)
        expected = expected_status(op, params, memories)
        work = math.prod(max(1, value) for key, value in params.items() if key.endswith(COUNTS))
        if expected == OK and work > MOST_WORK:
            continue
        before = [memory.octets.copy() for memory in memories]
        call = _cpu.CALLS[name].pack(*params.values(), *(part for memory in memories for part in memory[1:]))
        status = getattr(library, f"scgpu_{name}")(int(rng.choice(tiers)), call)
        seen[status] = seen.get(status, 0) + 1
        if status != expected:
            return seen, f"{name}, case {number}: status {status}, not {expected}; {params}"
        if _wrong(memories, before, status):
            return seen, f"{name}, case {number}: status {status} and bytes changed that must not; {params}"
    return seen, ""


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="calls of each operation (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (default: 0)")
    parser.add_argument("--op", choices=_abi.OPS, help="only this operation")
    options = parser.parse_args()
    total = 0
    for name in [options.op] if options.op else _abi.OPS:
        seen, problem = fuzz(name, options.cases, options.seed)
        total += sum(seen.values())
        print(f"{name:<12}" + "".join(f"{_cpu.STATUSES.get(status, 'done')}: {seen[status]}; " for status in seen))
        sys.stdout.flush()
        if problem:
            print(problem)
            return 1
    print(f"{total} calls, none wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
