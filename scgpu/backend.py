"""What a device is, and what every backend offers: buffers, and steps that run over them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi
from scgpu.errors import TooLargeError

DTYPES: dict[str, np.dtype[Any]] = {"i16": np.dtype("<i2"), "u32": np.dtype("<u4"), "u64": np.dtype("<u8")}

SMALL_BYTES = 1 << 26  # below this, asking the system for its free memory costs more than it tells


@dataclass(frozen=True)
class Device:
    """Something that scgpu runs on. Every device returns the same bits.

    Attributes
    ----------
    index : int
        Place in `devices`.
    kind : {"gpu", "cpu", "numpy"}
        A wgpu adapter, the Zig library, or the NumPy oracle.
    name : str
        Adapter name; for ``cpu`` and ``numpy`` the kind itself.
    backend : str
        ``"Vulkan"``, ``"Metal"``, ``"D3D12"``, ``"OpenGL"``, ``"Zig"`` or ``"NumPy"``.
    type : str
        ``"DiscreteGPU"``, ``"IntegratedGPU"``, ``"VirtualGPU"``, or ``"CPU"`` for the host
        and for software adapters.
    driver : str
        The adapter's driver.
    limits : Mapping[str, int]
        The adapter's limits, by their WebGPU names.
    tier : str
        SIMD tier of ``cpu``.
    threads : int
        Threads that ``cpu`` and ``numpy`` used when the device was chosen.
    """

    index: int
    kind: Literal["gpu", "cpu", "numpy"]
    name: str
    backend: str
    type: str
    driver: str = ""
    limits: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    tier: str = ""
    threads: int = field(default=0, compare=False)

    @property
    def software(self) -> bool:
        """True for a GPU adapter that runs on the host's processor."""
        return self.kind == "gpu" and self.type == "CPU"

    def __str__(self) -> str:
        return f"{self.name} [{' '.join(filter(None, (self.backend, self.tier)))}]"


class Buffer(Protocol):
    """Memory of one backend: a NumPy array on the host backends."""

    @property
    def size(self) -> int:
        """Number of elements."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: int16, uint32 or uint64."""
        ...


class Step(NamedTuple):
    """One kernel call: an operation of `scgpu._abi`, its parameters, its buffers in order."""

    op: str
    params: Mapping[str, int]
    buffers: tuple[Any, ...]


class Backend(Protocol):
    """A place where steps run. Steps see each other's results, in order."""

    device: Device
    largest_buffer: int
    """Bytes that one buffer may have."""

    def require(self, nbytes: int) -> None:
        """Raise `TooLargeError` when a buffer of so many bytes cannot be had."""
        ...

    def require_total(self, nbytes: int) -> None:
        """Raise `TooLargeError` when so many bytes, in buffers of any size, are known not to fit."""
        ...

    def empty(self, dtype: str, size: int) -> Any:
        """Make a buffer of unspecified content; `TooLargeError` when it does not fit."""
        ...

    def upload(self, array: NDArray[Any]) -> Any:
        """Make a buffer holding an array of int16, uint32 or uint64; the backend may keep the array itself."""
        ...

    def execute(self, steps: Sequence[Step], read: Sequence[Any] = ()) -> list[NDArray[Any]]:
        """Run steps, then return the contents of the buffers in ``read`` as 1-D arrays."""
        ...


def check_step(step: Step) -> _abi.Op:
    """Refuse a step whose parameters or buffers do not fit its operation; return the operation."""
    op = _abi.OPS[step.op]
    if tuple(step.params) != op.params:
        raise TypeError(f"{op.name} takes the parameters {op.params}; got {tuple(step.params)}")
    values = step.params.values()
    if min(values) < 0 or max(values) > 0xFFFF_FFFF:
        raise ValueError(f"{op.name}: a parameter of {dict(step.params)} does not fit 32 bits")
    if len(step.buffers) != len(op.buffers):
        raise TypeError(f"{op.name} takes {len(op.buffers)} buffers; got {len(step.buffers)}")
    for declared, buffer, needed in zip(op.buffers, step.buffers, op.sizes(*values), strict=True):
        if buffer.dtype != DTYPES[declared.dtype]:
            raise TypeError(f"{op.name}: {declared.name} must be {declared.dtype}; got {buffer.dtype}")
        if buffer.size < needed:
            raise ValueError(f"{op.name}: {declared.name} has {buffer.size} elements; {needed} are needed")
    return op


def free_memory() -> int:
    """Bytes of host memory that can be used without swapping (a large guess where unknown)."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def require_host_memory(nbytes: int) -> None:
    """Raise `TooLargeError` when the host has not so many bytes free."""
    # Linux hands out more than it has and kills the process at the first touch.
    if nbytes > SMALL_BYTES and nbytes > (free := free_memory()):
        raise TooLargeError(f"{nbytes:,} bytes are needed and {free:,} are free; use a smaller batch, length or layer")


class HostBackend:
    """Buffers for the backends whose memory is the host's: NumPy arrays."""

    largest_buffer: int = 1 << 62

    def require(self, nbytes: int) -> None:
        """Refuse memory that the machine does not have before it is touched."""
        require_host_memory(nbytes)

    def require_total(self, nbytes: int) -> None:
        """The same for a total: host memory is one piece."""
        self.require(nbytes)

    def empty(self, dtype: str, size: int) -> NDArray[Any]:
        """Make an array of unspecified content."""
        nbytes = size * DTYPES[dtype].itemsize
        self.require(nbytes)
        try:
            return np.empty(size, DTYPES[dtype])
        except (MemoryError, ValueError) as error:
            raise TooLargeError(f"{nbytes:,} bytes are needed; use a smaller batch, length or layer") from error

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """Use the array itself, flattened."""
        return np.ascontiguousarray(array).reshape(-1)
