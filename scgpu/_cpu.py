"""The native backend: the only module that loads the Zig library."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi, _trace
from scgpu.backend import Changes, Device, HostBackend, HostProgram, Step, check_step
from scgpu.errors import DeviceError, NativeLibraryError

SUFFIXES = {"darwin": ".dylib", "win32": ".dll"}
LIBRARY = Path(__file__).with_name("scgpu_cpu" + SUFFIXES.get(sys.platform, ".so"))
REMEDY = "reinstall scgpu, or in a checkout run: python tools/build_cpu_ref.py"
TIER_VARIABLE = "SCGPU_SIMD_TIER"
# Of abi.Status in cpu_ref/abi.zig.
STATUSES = {
    1: "a buffer is too short",
    2: "the processor cannot run the SIMD tier",
    (NOT_FITTING := 3): "the parameters do not fit together",
    4: "a buffer has no address, or one that is not aligned",
}

# The call structs of cpu_ref/abi.zig: parameters, then address and number of elements of each
# buffer. Packed bytes belong to one call alone, so threads may call at once.
CALLS: Mapping[str, struct.Struct] = {
    op.name: struct.Struct("@" + "I" * len(op.params) + "PQ" * len(op.buffers)) for op in _abi.OPS.values()
}


ADDRESS = struct.Struct("@P")
COPIED_BYTES = 1 << 12  # up to so many, copying an array costs less than handing its address on


@cache
def library() -> ctypes.CDLL:
    """The loaded library, after its boundary was compared with `scgpu._abi`."""
    try:
        lib = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise NativeLibraryError(f"the native library {LIBRARY.name} does not load ({error}); {REMEDY}") from error
    lib.scgpu_digest.restype = ctypes.c_uint32
    found, expected = lib.scgpu_digest(), _abi.digest()
    if found != expected:
        raise NativeLibraryError(
            f"{LIBRARY.name} was built for boundary {found:08x}, this scgpu has {expected:08x}; {REMEDY}"
        )
    lib.scgpu_tier_count.restype = ctypes.c_uint32
    lib.scgpu_tier_name.argtypes = [ctypes.c_uint32]
    lib.scgpu_tier_name.restype = ctypes.c_char_p
    lib.scgpu_tier_usable.argtypes = [ctypes.c_uint32]
    lib.scgpu_tier_usable.restype = ctypes.c_bool
    for function in (lib.scgpu_serve, lib.scgpu_set_threads):
        function.argtypes = [ctypes.c_uint32]
        function.restype = None
    for function in (lib.scgpu_threads, lib.scgpu_most_threads):
        function.restype = ctypes.c_uint32
    lib.scgpu_reset_threads.restype = None
    u32, u64, address = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t
    lib.scgpu_route.argtypes = [address, u64, address, u64, u32, u32]
    lib.scgpu_route.restype = u32
    for name in CALLS:
        function = lib[f"scgpu_{name}"]
        function.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
        function.restype = ctypes.c_uint32
        setattr(lib, name, function)
    return lib


@cache
def _tiers() -> dict[str, bool]:
    lib = library()
    return {lib.scgpu_tier_name(i).decode(): lib.scgpu_tier_usable(i) for i in range(lib.scgpu_tier_count())}


def simd_tiers() -> list[str]:
    """SIMD tiers of the native library that this machine can run, slowest first.

    Raises
    ------
    NativeLibraryError
        When the library is missing or does not belong to this version.
    """
    return [name for name, usable in _tiers().items() if usable]


def simd_tier() -> str:
    """SIMD tier in use: the fastest usable one, or the one that ``SCGPU_SIMD_TIER`` names.

    Raises
    ------
    DeviceError
        When ``SCGPU_SIMD_TIER`` names a tier that is unknown or that this machine cannot run.
    NativeLibraryError
        When the library is missing or does not belong to this version.
    """
    forced = os.environ.get(TIER_VARIABLE, "")
    return usable_tier(forced, TIER_VARIABLE) if forced else simd_tiers()[-1]


def usable_tier(name: str, source: str) -> str:
    """The tier called ``name``, or a `DeviceError` that says which ``source`` asked for it."""
    if name not in simd_tiers():
        why = "this processor cannot run it" if name in _tiers() else "there is no such tier"
        raise DeviceError(f"{source}={name!r}: {why}; usable here: {', '.join(simd_tiers())}")
    return name


_addressof, _char_of = ctypes.addressof, ctypes.c_char.from_buffer


def _address(array: NDArray[Any]) -> int:
    """Where the memory of a C-contiguous array begins; `ValueError` for another one."""
    try:
        # .ctypes.data says the same at six times the cost
        return _addressof(_char_of(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # a read-only or an empty array
        if not array.flags.c_contiguous:
            raise ValueError(f"a buffer must be C-contiguous; got strides {array.strides}") from None
        return array.ctypes.data


def route(order: NDArray[np.uint16], index_bits: int, masks: NDArray[np.uint64]) -> None:
    """Write the masks of the networks of 2**index_bits bits that put streams in orders, a row each.

    Raises
    ------
    ValueError
        When a row is not a permutation, or does not fit into such a network.
    NativeLibraryError
        When the library is missing, does not belong to this version, or refuses the call.
    """
    status = library().scgpu_route(_address(order), order.size, _address(masks), masks.size, len(order), index_bits)
    if status == NOT_FITTING:
        raise ValueError(f"order must have permutations of at most {1 << index_bits} positions in its rows")
    if status:
        raise NativeLibraryError(f"the native library refused route ({STATUSES.get(status, status)}); {REMEDY}")


class NativeBackend(HostBackend):
    """Runs steps in the Zig library at one SIMD tier."""

    def __init__(self, device: Device, tier: str) -> None:
        self.device = device
        self._tier = list(_tiers()).index(tier)
        self._calls = {name: (layout.pack, getattr(library(), name)) for name, layout in CALLS.items()}

    def execute(self, steps: Sequence[Step], read: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Run steps one after the other."""
        recorder = _trace.recorder(self.device) if _trace.active else None
        for step in steps:
            function, call = self._packed(step)
            if recorder:
                recorder.stage("check")
            status = function(self._tier, call)
            if status:
                raise _refused(step, status)
            if recorder:
                recorder.kernel(_abi.OPS[step.op], step.params)
        return list(read)

    def _packed(self, step: Step) -> tuple[Any, bytes]:
        """The function of a step and its call struct, checked."""
        check_step(step)
        arguments: list[int] = [*step.params.values()]
        for buffer in step.buffers:
            arguments += (_address(buffer), buffer.size)
        pack, function = self._calls[step.op]
        return function, pack(*arguments)

    def program(
        self, steps: Sequence[Step], read: Sequence[NDArray[Any]], scratch: Sequence[NDArray[Any]] = ()
    ) -> HostProgram:
        """Steps and buffers to read, whose call structs are packed once, and again where parameters change.

        Where the array of a submission is for a buffer that steps only read, and whose contents mean nothing
        afterwards, the kernels read the array itself.
        """
        tier = self._tier
        # Changes, and the steps and calls that they make: one name, so that Ctrl-C finds or leaves all three.
        packed: tuple[Changes, Sequence[Step], list[tuple[Any, bytes]]] = (
            {},
            steps,
            [self._packed(step) for step in steps],
        )
        stand_ins = {id(buffer): _places(steps, buffer) for buffer in scratch if not any(buffer is one for one in read)}

        def run(source: NDArray[Any] | None, array: NDArray[Any] | None, changes: Changes) -> None:
            nonlocal packed
            before, now, calls = packed
            if changes != before:
                touched = {*changes, *before}
                now = [step.changed(changes) for step in steps]
                calls = [
                    self._packed(step) if step.op in touched else call for step, call in zip(now, calls, strict=True)
                ]
                packed = changes, now, calls
            if source is not None and array is not None:
                places = stand_ins.get(id(source)) if array.nbytes > COPIED_BYTES else None
                if places and not _trace.active and _stands_in(array, source):
                    calls, address = list(calls), ADDRESS.pack(_address(array))
                    for index, place in places:
                        function, call = calls[index]
                        calls[index] = function, call[:place] + address + call[place + ADDRESS.size :]
                else:
                    self.write(source, array)
            if _trace.active:
                self.execute(now)
                return
            for step, (function, call) in zip(now, calls, strict=True):
                if status := function(tier, call):
                    raise _refused(step, status)

        return HostProgram(read, run)


def _places(steps: Sequence[Step], buffer: NDArray[Any]) -> list[tuple[int, int]]:
    """Steps that take a buffer, and where its address lies in their call structs.

    None where a step writes to it, or takes a part of its memory by another array.
    """
    places = []
    for index, step in enumerate(steps):
        op = _abi.OPS[step.op]
        first = struct.calcsize("@" + "I" * len(op.params) + "0P")
        for slot, (declared, given) in enumerate(zip(op.buffers, step.buffers, strict=True)):
            if given is buffer:
                if declared.access != "in":
                    return []
                places.append((index, first + slot * struct.calcsize("@PQ")))
            elif np.may_share_memory(given, buffer):
                return []
    return places


def _stands_in(array: NDArray[Any], buffer: NDArray[Any]) -> bool:
    """Whether kernels may read the one in place of the other."""
    flags = array.flags
    return array.dtype == buffer.dtype and array.size == buffer.size and flags.c_contiguous and flags.aligned


def _refused(step: Step, status: int) -> NativeLibraryError:
    why = STATUSES.get(status, f"status {status}")
    return NativeLibraryError(f"the native library refused {step.op} ({why}); {REMEDY}")
