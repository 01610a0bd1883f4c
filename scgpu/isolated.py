"""isolated: a GPU in a process of its own, so that its death is not this one's.

Drivers and wgpu-native end the process at faults that no check of ours can foresee. With
``scgpu.device(..., isolate=True)`` that process is a helper: it holds the device, and this one
holds numbers that stand for buffers, programs and submissions. When the helper dies, every call in
flight and every later one raises `DeviceLostError`, which failover treats like any other loss.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _trace
from scgpu._gpu import IN_FLIGHT, IN_FLIGHT_BYTES
from scgpu._isolated_link import INLINE_BYTES, Call, Lease, Link
from scgpu.backend import DTYPES, Changes, Device, Step, require_host_memory
from scgpu.errors import DeviceLostError, GpuError, TooLargeError

Tuned = Mapping[tuple[str, str], int]


class IsolatedBuffer:
    """A buffer of the helper process; the helper drops it after this object is gone."""

    def __init__(self, backend: IsolatedBackend, dtype: str, size: int) -> None:
        self.number = next(backend.link.numbers)
        self.size = size
        self.dtype = DTYPES[dtype]
        self._backend = backend
        backend.link.released.expect(self, self.number)


class IsolatedSubmission:
    """Steps that the helper runs, and what it reads back. Dropping it is harmless."""

    def __init__(
        self, backend: IsolatedBackend, call: Call, read: Sequence[IsolatedBuffer], lease: Lease | None
    ) -> None:
        self._backend = backend
        self._layout = [(buffer.size, buffer.dtype) for buffer in read]
        self._nbytes = _nbytes(read)
        self._lease = lease
        self._result: list[NDArray[Any]] | None = None
        # Re-entrant, for a signal handler that computes while the main thread reads here.
        self._lock = threading.RLock()
        self._call = call
        backend.link.released.expect(self, call.number)

    def done(self) -> bool:
        """True when `result` would not wait."""
        if self._result is not None:
            return True
        self._backend.link.check_process()
        return self._call.over

    def result(self) -> list[NDArray[Any]]:
        """Wait, and return the contents of the buffers read."""
        if self._result is None:
            call, device = self._call, self._backend.device
            # A forked child sees memory that its parent uses again.
            self._backend.link.check_process()
            recorder = _trace.recorder(device) if _trace.active else None
            inline = self._backend.link.answer(call)
            if recorder:
                recorder.stage("wait")
            with self._lock:
                if self._result is None:
                    self._result = self._arrays(inline)
                    self._lease = None
            if recorder:
                recorder.stage("read", self._nbytes)
        return self._result

    def _arrays(self, inline: bytes | None) -> list[NDArray[Any]]:
        # Copies: shared memory is used again, and a forked child would share what the user keeps.
        content = np.empty(self._nbytes, np.uint8)
        if self._lease is not None:
            content[:] = self._lease.octets(self._nbytes)
        elif inline:
            content[:] = np.frombuffer(inline, np.uint8)
        arrays, begin = [], 0
        for size, dtype in self._layout:
            end = begin + size * dtype.itemsize
            arrays.append(content[begin:end].view(dtype))
            begin = end
        return arrays


class IsolatedProgram:
    """Steps and buffers to read, checked and kept by the helper."""

    def __init__(self, backend: IsolatedBackend, steps: Sequence[Step], read: Sequence[IsolatedBuffer]) -> None:
        link = backend.link
        recorder = _trace.recorder(backend.device) if _trace.active else None
        self._backend = backend
        self._read = tuple(read)
        self._calls = len(steps)
        self.number = next(link.numbers)
        link.released.expect(self, self.number)
        described, numbers = backend.described(steps), backend.numbers(read)
        link.ask("program", (self.number, described, numbers), keep=(self, steps))
        if recorder:
            recorder.stage("check")

    def submit(
        self,
        source: IsolatedBuffer | None = None,
        array: NDArray[Any] | None = None,
        changes: Changes = MappingProxyType({}),
    ) -> IsolatedSubmission:
        """Start the steps, after an upload; waits for the oldest submission when too many are in flight.

        Parameters
        ----------
        source, array : IsolatedBuffer and ndarray, optional
            Buffer that gets the array first.
        changes : Mapping
            By operation, parameters that all of its steps get instead of those they were checked with.
        """
        backend = self._backend
        number = data = None
        leases: list[Lease] = []
        if source is not None and array is not None:
            flat = backend.flat(source, array)
            (number,) = backend.numbers([source])
            data = backend.data(flat, leases)
        plain = {op: _plain(params) for op, params in changes.items()}
        content = (self.number, number, data, plain)
        return backend.launch("run", content, self._calls, self._read, (self, source), leases)


def _plain(params: Mapping[str, int]) -> dict[str, int]:
    """Parameters as Python's own integers."""
    return {name: operator.index(value) for name, value in params.items()}


def _nbytes(buffers: Sequence[IsolatedBuffer]) -> int:
    return sum(buffer.size * buffer.dtype.itemsize for buffer in buffers)


class IsolatedBackend:
    """Runs steps on one adapter, in a helper process that any thread may call.

    A submission returns when the helper has started it, and any other call when it is done, so that errors are
    raised where they are made. They arrive with the class and the text that they had there.

    `scgpu.profile` sees the stages of calls on the host ("check", "upload", "submit", "wait", "read"), and no
    kernels. The live view cannot draw from another process.

    Parameters
    ----------
    device : Device
        A GPU; its ``isolated`` is for `scgpu.devices` alone.
    tuned : Mapping
        Variants to use instead of the defaults, by operation and class of shapes.

    Attributes
    ----------
    pid : int
        Of the helper process.

    Raises
    ------
    GpuError
        When no helper can be started here, or the adapter refuses to start in it.
    DeviceLostError
        When the helper dies while it starts.
    DeviceError
        When the helper does not find the adapter.
    """

    host_arrays = False

    def __init__(self, device: Device, tuned: Tuned = MappingProxyType({})) -> None:
        self.device = device
        self._tuned = dict(tuned)
        self._flying: deque[Call] = deque()
        self.link = Link(str(device))
        # When nobody uses this backend any more, and when Python ends.
        weakref.finalize(self, self.link.close)
        self.pid = self.link.process.pid
        wanted = (device.index, device.name, device.backend, device.type, device.driver)
        self.largest_buffer: int = self.link.ask("start", (*wanted, self._listed()))

    @property
    def lost(self) -> DeviceLostError | None:
        """Why the helper is of no use any more."""
        return DeviceLostError(self.link.lost) if self.link.lost else None

    @property
    def tuned(self) -> Tuned:
        """Variants to use instead of the defaults, by operation and class of shapes."""
        return MappingProxyType(self._tuned)

    @tuned.setter
    def tuned(self, tuned: Tuned) -> None:
        self._tuned = dict(tuned)
        self.link.ask("tuned", (self._listed(),))

    def _listed(self) -> tuple[tuple[str, str, int], ...]:
        return tuple((op, shape_class, int(variant)) for (op, shape_class), variant in self._tuned.items())

    @property
    def wgpu_device(self) -> Any:
        """What `scgpu.live` draws with, which another process has."""
        raise GpuError(f"{self.device} is isolated, and nothing can be drawn by it; leave isolate out")

    def require(self, nbytes: int) -> None:
        """Refuse a buffer that is larger than the adapter can bind."""
        if nbytes > self.largest_buffer:
            raise TooLargeError(
                f"{nbytes:,} bytes are needed in one buffer and {self.device} allows {self.largest_buffer:,}; "
                "use a smaller batch, length or layer, or device='cpu'"
            )

    def require_total(self, nbytes: int) -> None:
        """Refuse what a software adapter's memory, the host's, cannot hold; a hardware one's is not told."""
        if self.device.software:
            require_host_memory(nbytes)

    def empty(self, dtype: str, size: int) -> IsolatedBuffer:
        """Make a buffer of unspecified content."""
        self.link.check()
        self.require(max(size, 1) * DTYPES[dtype].itemsize)
        buffer = IsolatedBuffer(self, dtype, operator.index(size))
        self.link.ask("empty", (buffer.number, dtype, buffer.size), keep=buffer)
        return buffer

    def upload(self, array: NDArray[Any]) -> IsolatedBuffer:
        """Copy an array into a new buffer."""
        self.link.check()
        flat = np.ascontiguousarray(array).reshape(-1)
        kind = next(name for name, dtype in DTYPES.items() if dtype == flat.dtype)
        self.require(flat.nbytes)
        buffer = IsolatedBuffer(self, kind, flat.size)
        recorder = _trace.recorder(self.device) if _trace.active else None
        leases: list[Lease] = []
        self.link.ask("upload", (buffer.number, kind, self.data(flat, leases)), buffer, leases)
        if recorder:
            recorder.stage("upload", flat.nbytes)
        return buffer

    def write(self, buffer: IsolatedBuffer, array: NDArray[Any]) -> None:
        """Put an array into a buffer of its size and type, between the submissions before and after."""
        self.link.check()
        flat = self.flat(buffer, array)
        recorder = _trace.recorder(self.device) if _trace.active else None
        leases: list[Lease] = []
        self.link.ask("write", (*self.numbers([buffer]), self.data(flat, leases)), buffer, leases)
        if recorder:
            recorder.stage("upload", flat.nbytes)

    def execute(self, steps: Sequence[Step], read: Sequence[IsolatedBuffer] = ()) -> list[NDArray[Any]]:
        """Run steps, and read buffers back, in one submission."""
        content = (self.described(steps), self.numbers(read))
        return self.launch("submit", content, len(steps), read, (steps, read), [], started=False).result()

    def submit(self, steps: Sequence[Step], read: Sequence[IsolatedBuffer] = ()) -> IsolatedSubmission:
        """Start steps and the reading of buffers; waits for the oldest submission when too many are in flight."""
        content = (self.described(steps), self.numbers(read))
        return self.launch("submit", content, len(steps), read, (steps, read), [])

    def program(
        self, steps: Sequence[Step], read: Sequence[IsolatedBuffer], scratch: Sequence[IsolatedBuffer] = ()
    ) -> IsolatedProgram:
        """Steps and buffers to read, checked and kept by the helper, to be submitted any number of times."""
        self.link.check()
        return IsolatedProgram(self, steps, read)

    def launch(
        self,
        kind: str,
        content: tuple[Any, ...],
        calls: int,
        read: Sequence[IsolatedBuffer],
        keep: object,
        leases: list[Lease],
        started: bool = True,
    ) -> IsolatedSubmission:
        """Hand a submission over, when few enough are in flight; ``calls`` kernels run untimed.

        ``started`` waits until it has started; else its result raises what kept it from that.
        """
        recorder = _trace.recorder(self.device) if _trace.active else None
        self.link.check()
        nbytes = _nbytes(read)
        lease = self.link.segments.lease(nbytes) if nbytes > INLINE_BYTES else None
        segment = None if lease is None else lease.segment.number
        if lease is not None:
            leases.append(lease)
        landing = Call(next(self.link.numbers), "", (), (), leases) if started else None
        content = (*content, landing.number if landing else None, segment)
        call = Call(next(self.link.numbers), kind, content, keep, leases)
        call.landing = landing
        self._admit(call.nbytes)
        last = landing or call
        submission = IsolatedSubmission(self, last, read, lease)
        self.link.start(call)
        self._flying.append(last)
        if started:
            self.link.answer(call)
        if recorder:
            recorder.stage("submit")
            if calls:
                recorder.untimed()
        return submission

    def _admit(self, nbytes: int) -> None:
        """Wait for the oldest submissions while another one would be too much."""
        while True:
            for call in (flying := tuple(self._flying)):
                if call.over:
                    try:
                        self._flying.remove(call)
                    except ValueError:
                        pass  # another thread was here
            flying = tuple(call for call in flying if not call.over)
            total = nbytes + sum(call.nbytes for call in flying)
            if not flying or (len(flying) < IN_FLIGHT and total <= IN_FLIGHT_BYTES):
                return
            self.link.wait(flying[0])

    def numbers(self, buffers: Sequence[IsolatedBuffer]) -> tuple[int, ...]:
        """Numbers of buffers, which must be this backend's."""
        for buffer in buffers:
            if getattr(buffer, "_backend", None) is not self:
                raise ValueError(f"a buffer of {_owner_of(buffer)} was given to {self.device}")
        return tuple(buffer.number for buffer in buffers)

    def described(self, steps: Sequence[Step]) -> tuple[Any, ...]:
        """Steps as plain data; the helper checks them."""
        return tuple((op, tuple(_plain(params).items()), self.numbers(buffers)) for op, params, buffers in steps)

    def flat(self, buffer: IsolatedBuffer, array: NDArray[Any]) -> NDArray[Any]:
        """An array as it goes into a buffer, whose size and type it must have."""
        flat = np.ascontiguousarray(array).reshape(-1)
        if flat.dtype != buffer.dtype or flat.size != buffer.size:
            raise ValueError(f"a buffer of {buffer.size} {buffer.dtype} was given {flat.size} {flat.dtype}")
        return flat

    def data(self, flat: NDArray[Any], leases: list[Lease]) -> bytes | tuple[int, int]:
        """A contiguous array for a message: itself where it is small, else a place in shared memory."""
        if flat.nbytes <= INLINE_BYTES:
            return flat.tobytes()
        lease = self.link.segments.lease(flat.nbytes)
        lease.octets(flat.nbytes)[:] = flat.view(np.uint8)
        leases.append(lease)
        return lease.segment.number, flat.nbytes


def _owner_of(buffer: object) -> str:
    backend = getattr(buffer, "_backend", None)
    return str(backend.device) if backend is not None else f"type {type(buffer).__name__}"
