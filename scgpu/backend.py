"""What a device is, and what every backend offers: buffers, and steps that run over them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi
from scgpu.errors import TooLargeError

DTYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype("u1"),
    "i16": np.dtype("<i2"),
    "i32": np.dtype("<i4"),
    "u32": np.dtype("<u4"),
    "u64": np.dtype("<u8"),
}

LINE_BYTES = 64  # of a cache line, and of the widest vector: loads that straddle two lines are slow
ALIGNED_BYTES = 1 << 14  # below this, aligning a buffer costs more than it gains
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
    isolated : bool
        A GPU that runs in a helper process, whose death this one survives.
    on_device_loss : {"failover", "raise"}
        What a call does when a GPU goes away: finish on another device, or raise `DeviceLostError`.
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
    isolated: bool = False
    on_device_loss: Literal["failover", "raise"] = field(default="failover", compare=False)

    def __hash__(self) -> int:
        # Every call looks its device up; these fields tell nearly all of them apart.
        return hash((self.index, self.kind, self.tier, self.isolated))

    @property
    def software(self) -> bool:
        """True for a GPU adapter that runs on the host's processor."""
        return self.kind == "gpu" and self.type == "CPU"

    def __str__(self) -> str:
        kind = " ".join(filter(None, (self.backend, self.tier, "isolated" if self.isolated else "")))
        return f"{self.name} [{kind}]"


class Buffer(Protocol):
    """Memory of one backend: a NumPy array on the host backends."""

    @property
    def size(self) -> int:
        """Number of elements."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: one of `DTYPES`."""
        ...


# Parameters by operation, for a program's steps to get instead of those they were checked with.
Changes = Mapping[str, Mapping[str, int]]


class Step(NamedTuple):
    """One kernel call: an operation of `scgpu._abi`, its parameters, its buffers in order."""

    op: str
    params: Mapping[str, int]
    buffers: tuple[Any, ...]

    def changed(self, changes: Changes) -> Step:
        """The step with the parameters that ``changes`` has for its operation."""
        return self._replace(params={**self.params, **changes[self.op]}) if self.op in changes else self


class Submission(Protocol):
    """Steps on their way, and what is read after them. Any thread may ask; dropping one is harmless."""

    def done(self) -> bool:
        """True when `result` would not wait."""
        ...

    def result(self) -> list[NDArray[Any]]:
        """Wait, and return the contents of the buffers read as 1-D arrays, the same ones every time."""
        ...


class Program(Protocol):
    """Steps and buffers to read, checked once, to be submitted again and again."""

    def submit(
        self,
        source: Any = None,
        array: NDArray[Any] | None = None,
        changes: Changes = MappingProxyType({}),
    ) -> Submission:
        """Put an array into the buffer ``source``, where there is one, and start the steps.

        ``changes`` has, by operation, parameters that all of its steps get instead of those they were
        checked with; the sizes of buffers and the number of work items may not depend on them.
        """
        ...


class Backend(Protocol):
    """A place where steps run. Steps see each other's results, in order."""

    @property
    def device(self) -> Device:
        """Where steps run now."""
        ...

    @property
    def largest_buffer(self) -> int:
        """Bytes that one buffer may have."""
        ...

    @property
    def host_arrays(self) -> bool:
        """True where buffers are NumPy arrays, and those of a caller can be written to."""
        ...

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
        """Make a buffer holding an array of a type of `DTYPES`; the backend may keep the array itself."""
        ...

    def write(self, buffer: Any, array: NDArray[Any]) -> None:
        """Put an array into a buffer of its size and type, between what was started before and what comes."""
        ...

    def execute(self, steps: Sequence[Step], read: Sequence[Any] = ()) -> list[NDArray[Any]]:
        """Run steps, then return the contents of the buffers in ``read`` as 1-D arrays."""
        ...

    def submit(self, steps: Sequence[Step], read: Sequence[Any] = ()) -> Submission:
        """Start what `execute` does; waits only when too much is on its way already."""
        ...

    def program(self, steps: Sequence[Step], read: Sequence[Any], scratch: Sequence[Any] = ()) -> Program:
        """Steps and buffers to read, to be submitted any number of times, by one thread at a time.

        ``scratch`` has those buffers whose contents mean nothing before and after a submission.
        """
        ...


@lru_cache(maxsize=1024)
def _needed(name: str, values: tuple[int, ...]) -> tuple[tuple[np.dtype[Any], int], ...]:
    """Element type and least number of elements of each buffer, for parameters that fit 32 bits."""
    op = _abi.OPS[name]
    if min(values) < 0 or max(values) > 0xFFFF_FFFF:
        raise ValueError(f"{name}: a parameter of {dict(zip(op.params, values, strict=True))} does not fit 32 bits")
    for condition, holds in zip(op.requires, op.conditions(*values), strict=True):
        if not holds:
            raise ValueError(f"{name} needs {condition}; got {dict(zip(op.params, values, strict=True))}")
    return tuple((DTYPES[buffer.dtype], size) for buffer, size in zip(op.buffers, op.sizes(*values), strict=True))


def check_step(step: Step) -> _abi.Op:
    """Refuse a step whose parameters or buffers do not fit its operation; return the operation."""
    name, params, buffers = step
    op = _abi.OPS[name]
    if tuple(params) != op.params:
        raise TypeError(f"{name} takes the parameters {op.params}; got {tuple(params)}")
    if len(buffers) != len(op.buffers):
        raise TypeError(f"{name} takes {len(op.buffers)} buffers; got {len(buffers)}")
    for buffer, (dtype, size), declared in zip(buffers, _needed(name, tuple(params.values())), op.buffers, strict=True):
        # Every small call comes by here, and the types are nearly always the same objects.
        if (found := buffer.dtype) is not dtype and found != dtype:
            raise TypeError(f"{name}: {declared.name} must be {declared.dtype}; got {found}")
        if buffer.size < size:
            raise ValueError(f"{name}: {declared.name} has {buffer.size} elements; {size} are needed")
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


class Finished:
    """A `Submission` of a backend that computes at once."""

    def __init__(self, arrays: list[NDArray[Any]]) -> None:
        self._arrays = arrays

    def done(self) -> bool:
        """Always true."""
        return True

    def result(self) -> list[NDArray[Any]]:
        """The arrays."""
        return self._arrays


Run = Callable[["NDArray[Any] | None", "NDArray[Any] | None", Changes], None]


class HostProgram:
    """A `Program` of a backend that computes at once; ``run`` does what `submit` is given."""

    def __init__(self, read: Sequence[NDArray[Any]], run: Run) -> None:
        self._read = read
        self._run = run

    def submit(
        self,
        source: Any = None,
        array: NDArray[Any] | None = None,
        changes: Changes = MappingProxyType({}),
    ) -> Finished:
        """Run the steps now; what is read is copied, for the next time writes to the same buffers."""
        self._run(source, array, changes)
        return Finished([buffer.copy() for buffer in self._read])


class HostBackend(ABC):
    """Buffers for the backends whose memory is the host's: NumPy arrays."""

    largest_buffer: int = 1 << 62
    host_arrays = True

    def require(self, nbytes: int) -> None:
        """Refuse memory that the machine does not have before it is touched."""
        require_host_memory(nbytes)

    def require_total(self, nbytes: int) -> None:
        """The same for a total: host memory is one piece."""
        self.require(nbytes)

    def empty(self, dtype: str, size: int) -> NDArray[Any]:
        """Make an array of unspecified content."""
        element = DTYPES[dtype]
        nbytes = size * element.itemsize
        self.require(nbytes)
        try:
            if nbytes < ALIGNED_BYTES:
                return np.empty(size, element)
            octets = np.empty(nbytes + LINE_BYTES, np.uint8)
            begin = -octets.__array_interface__["data"][0] % LINE_BYTES
            return octets[begin : begin + nbytes].view(element)
        except (MemoryError, ValueError) as error:
            raise TooLargeError(f"{nbytes:,} bytes are needed; use a smaller batch, length or layer") from error

    def write(self, buffer: NDArray[Any], array: NDArray[Any]) -> None:
        """Put an array into a buffer of its size and type."""
        buffer[:] = array.reshape(-1)

    @abstractmethod
    def execute(self, steps: Sequence[Step], read: Sequence[NDArray[Any]] = ()) -> list[NDArray[Any]]:
        """Run steps one after the other."""

    def program(
        self, steps: Sequence[Step], read: Sequence[NDArray[Any]], scratch: Sequence[NDArray[Any]] = ()
    ) -> HostProgram:
        """Steps and buffers to read, to be run any number of times."""

        def run(source: NDArray[Any] | None, array: NDArray[Any] | None, changes: Changes) -> None:
            if source is not None and array is not None:
                self.write(source, array)
            self.execute([step.changed(changes) for step in steps])

        return HostProgram(read, run)

    def submit(self, steps: Sequence[Step], read: Sequence[NDArray[Any]] = ()) -> Finished:
        """Run steps now."""
        return Finished(self.execute(steps, read))

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """Use the array itself, flattened."""
        flat = array if array.ndim == 1 and array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)
        return flat if flat.flags.aligned else flat.copy()
