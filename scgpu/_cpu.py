"""The native backend: the only module that loads the Zig library."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scgpu import _abi
from scgpu.backend import Device, HostBackend, Step, check_step
from scgpu.errors import DeviceError, NativeLibraryError

SUFFIXES = {"darwin": ".dylib", "win32": ".dll"}
LIBRARY = Path(__file__).with_name("scgpu_cpu" + SUFFIXES.get(sys.platform, ".so"))
REMEDY = "reinstall scgpu, or in a checkout run: python tools/build_cpu_ref.py"
TIER_VARIABLE = "SCGPU_SIMD_TIER"


def _call_struct(op: _abi.Op) -> type[ctypes.Structure]:
    fields: list[tuple[str, Any]] = [(name, ctypes.c_uint32) for name in op.params]
    for buffer in op.buffers:
        fields += [(buffer.name, ctypes.c_void_p), (f"{buffer.name}_len", ctypes.c_uint64)]
    return type(op.name.capitalize(), (ctypes.Structure,), {"_fields_": fields})


_CALLS: Mapping[str, type[ctypes.Structure]] = {name: _call_struct(op) for name, op in _abi.OPS.items()}


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
    for name, call in _CALLS.items():
        function = lib[f"scgpu_{name}"]
        function.argtypes = [ctypes.c_uint32, ctypes.POINTER(call)]
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


class NativeBackend(HostBackend):
    """Runs steps in the Zig library at one SIMD tier."""

    def __init__(self, device: Device, tier: str) -> None:
        self.device = device
        self._library = library()
        self._tier = list(_tiers()).index(tier)

    def execute(self, steps: Sequence[Step], read: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Run steps one after the other."""
        for step in steps:
            op = check_step(step)
            arguments: list[int] = list(step.params.values())
            for buffer in step.buffers:
                # .ctypes.data says the same at three times the cost
                arguments += (buffer.__array_interface__["data"][0], buffer.size)
            status = getattr(self._library, op.name)(self._tier, ctypes.byref(_CALLS[op.name](*arguments)))
            if status:
                raise NativeLibraryError(f"the native library refused {op.name} with status {status}; {REMEDY}")
        return list(read)
