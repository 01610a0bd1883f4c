"""The GPU backend. It and `scgpu._gpu_raw` alone import wgpu.

One `GpuBackend` per adapter, made at its first use, shared by every thread of the
process. It keeps pipelines, bind groups, storage buffers and staging buffers for the
next call. Parameters travel as immediates: lavapipe compiles a kernel anew at every
dispatch when they are uniforms. What is done once goes through wgpu-py, what every
submission does through `scgpu._gpu_raw`.
"""

from __future__ import annotations

import importlib
import logging
import os
import struct
import sys
import tempfile
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi, _trace, _wgsl
from scgpu._gpu_raw import (
    CALLS_PER_TIMER,
    Copy,
    Dispatch,
    HungError,
    NativeQueue,
    Readback,
    Timer,
    disown,
    ending,
    gate,
    gated,
)
from scgpu.backend import DTYPES, Changes, Device, Step, check_step, require_host_memory
from scgpu.errors import DeviceLostError, DeviceMemoryError, GpuError, TooLargeError

REQUIRED_FEATURE = "immediates"
TIMESTAMPS = "timestamp-query"
POOL_BYTES = 256 << 20  # idle buffers kept for the next call
BIND_GROUPS = 256
# Submissions whose results were not fetched yet, and the bytes that they keep in staging and
# upload memory. At either bound `GpuBackend.submit` fetches the oldest first.
IN_FLIGHT = 8
IN_FLIGHT_BYTES = 256 << 20

_STORAGE = "STORAGE|COPY_SRC|COPY_DST"
_COMPUTE = 4  # shader stage flag


def _is_news(record: logging.LogRecord) -> bool:
    """False for what wgpu-py logs of a lost device: our own error or warning says it once."""
    return not record.getMessage().startswith(("DEVICE LOST!", "The WGPU device was lost"))


@cache
def _wgpu() -> Any:
    import wgpu

    logging.getLogger("wgpu").addFilter(_is_news)
    return wgpu


@contextmanager
def _quiet_egl() -> Iterator[None]:
    """Mesa's EGL complains on stderr, and works, where no XDG_RUNTIME_DIR is set."""
    if sys.platform != "linux" or "XDG_RUNTIME_DIR" in os.environ:
        yield
        return
    os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    try:
        yield
    finally:
        os.environ.pop("XDG_RUNTIME_DIR", None)


OUT_OF_MEMORY = "Not enough memory left"
LOST = ("device is lost", "Device lost", "has been destroyed")


def _fault(error: BaseException) -> Literal["lost", "memory"] | None:
    """What happened to the device, where an error tells of it and not of the call."""
    text = str(error)
    if isinstance(error, HungError) or any(words in text for words in LOST):
        return "lost"
    if isinstance(error, _wgpu().GPUOutOfMemoryError) or OUT_OF_MEMORY in text:
        return "memory"
    return None


class _Translated(AbstractContextManager[None]):
    """A block whose wgpu errors become ours, and whose backend learns when its device is lost."""

    __slots__ = ("_backend", "_what")

    def __init__(self, what: str, backend: GpuBackend | None = None) -> None:
        self._what = what
        self._backend = backend

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # One that was translated nearer to its cause stays as it is.
        if error is None or isinstance(error, GpuError) or not isinstance(error, (_wgpu().GPUError, RuntimeError)):
            return
        fault = _fault(error)
        if fault == "lost":
            lost = DeviceLostError(f"{self._what}: {error}")
            if self._backend is not None:
                self._backend.lose(lost, hung=isinstance(error, HungError))
            raise lost from error
        if fault == "memory":
            raise DeviceMemoryError(
                f"{self._what}: the adapter has no memory left; use a smaller batch or layer"
            ) from error
        raise GpuError(f"{self._what}: {error}") from error


_started = False


def forget() -> bool:
    """In a forked child: leave what the parent has of wgpu alone; False when it has nothing."""
    if _started:
        disown()
    return _started


@gated
def adapters() -> list[Any]:
    """Every adapter of this machine, Vulkan, Metal and DX12 before OpenGL.

    Raises
    ------
    GpuError
        When wgpu cannot be imported, or its search for adapters fails.
    """
    global _started
    _started = True
    try:
        with _quiet_egl():
            ending()
            return sorted(_wgpu().gpu.enumerate_adapters_sync(), key=lambda a: a.info["backend_type"] == "OpenGL")
    except Exception as error:  # a broken native library raises anything
        raise GpuError(f"wgpu does not start ({type(error).__name__}: {error}); run: pip install wgpu") from error


def versions() -> dict[str, str]:
    """Versions of wgpu and of the wgpu-native inside."""
    native = importlib.import_module("wgpu.backends.wgpu_native")
    return {"wgpu": _wgpu().__version__, "wgpu-native": native.__version__}


def _whole(nbytes: int) -> int:
    """Bytes that a copy moves: whole units of four."""
    return -(-nbytes // 4) * 4


class GpuBuffer:
    """A typed part of a pooled storage buffer; the memory returns to the pool with the object."""

    def __init__(self, backend: GpuBackend, raw: Any, dtype: str, size: int) -> None:
        self.raw = raw
        self.size = size
        self.dtype = DTYPES[dtype]
        self._backend = backend

    def __del__(self) -> None:
        # May run inside any call of any thread: only an atomic append is allowed here.
        self._backend._released.append(self.raw)


class _Pool:
    """wgpu buffers of one usage, the idle ones by capacity."""

    def __init__(self, device: Any, usage: str, largest: int) -> None:
        self._device = device
        self._usage = usage
        self._largest = largest & ~15
        # Every buffer is held here until it is destroyed. Were a buffer in use held by its GpuBuffer
        # alone, the garbage collector could finalise both in one cycle, and the pool would be
        # given a released buffer, at whose next use wgpu-native aborts.
        self._owned: set[Any] = set()
        self._idle: dict[int, list[Any]] = {}
        self._idle_bytes = 0

    def capacity(self, nbytes: int) -> int:
        """Powers of two up to 1 MiB, whole MiB above: few sizes, little waste."""
        if nbytes <= 1 << 20:
            return 1 << max(8, (nbytes - 1).bit_length())
        return min(-(-nbytes // (1 << 20)) << 20, self._largest)

    @gated
    def take(self, nbytes: int) -> Any:
        capacity = self.capacity(nbytes)
        idle = self._idle.get(capacity)
        if idle:
            self._idle_bytes -= capacity
            return idle.pop()
        try:
            raw = self._device.create_buffer(size=capacity, usage=self._usage)
        except _wgpu().GPUError as error:
            if _fault(error) != "memory" or not self._idle_bytes:
                raise
            self._release_idle()
            raw = self._device.create_buffer(size=capacity, usage=self._usage)
        self._owned.add(raw)
        return raw

    def _release_idle(self) -> None:
        for raw in [raw for kept in self._idle.values() for raw in kept]:
            self.forget(raw)
            raw.destroy()
        self._idle.clear()
        self._idle_bytes = 0

    def give(self, raw: Any) -> bool:
        """Keep the buffer for later, or destroy it and return False when enough are kept."""
        if self._idle_bytes + raw.size > POOL_BYTES:
            self.forget(raw)
            raw.destroy()
            return False
        self._idle.setdefault(raw.size, []).append(raw)
        self._idle_bytes += raw.size
        return True

    def forget(self, raw: Any) -> None:
        """Give up a buffer that must not be used again."""
        self._owned.discard(raw)


class _Pipeline:
    """The compiled variants of one operation, with the layout that they share."""

    def __init__(self, device: Any, op: _abi.Op) -> None:
        self._device = device
        self._op = op
        self._modules: dict[tuple[tuple[str, str], ...], Any] = {}
        self._variants: dict[tuple[int, ...], Any] = {}
        self.bind_group_layout = device.create_bind_group_layout(
            entries=[
                {
                    "binding": index,
                    "visibility": _COMPUTE,
                    "buffer": {"type": "read-only-storage" if buffer.access == "in" else "storage"},
                }
                for index, buffer in enumerate(op.buffers)
            ]
        )
        self._layout = device.create_pipeline_layout(
            bind_group_layouts=[self.bind_group_layout], immediate_size=4 * len(op.params)
        )

    def variant(self, index: int, params: _abi.Params) -> Any:
        key = (index, *(params[name] for name in self._op.specialised.values()))
        if key not in self._variants:
            files = self._op.files(index)
            source = _wgsl.source(self._op.name, files)
            try:
                if files not in self._modules:
                    self._modules[files] = self._device.create_shader_module(code=source.text, label=self._op.name)
                self._variants[key] = self._device.create_compute_pipeline(
                    layout=self._layout,
                    compute={
                        "module": self._modules[files],
                        "entry_point": self._op.name,
                        "constants": self._op.overrides(index, params),
                    },
                )
            except _wgpu().GPUError as error:
                if _fault(error):
                    raise  # not the shader's: who called tells it
                raise GpuError(f"shader {self._op.name}: {source.locate(str(error))}") from error
        return self._variants[key]


class _Flight:
    """A submission whose results are on their way into a staging buffer.

    The backend holds it until its results are fetched, also when nobody wants them any more:
    a staging buffer that wgpu-native still writes to must not be used again, it would abort.
    """

    def __init__(self, backend: GpuBackend, mapping: Readback, nbytes: int, timing: _Timing | None) -> None:
        self._backend = backend
        self._mapping = mapping
        self._timing = timing
        self._content: NDArray[np.uint8] | None = None
        self._error: Exception | None = None
        self._left = self._usable = self._over = False
        # Re-entrant, for a signal handler that computes while the main thread waits here.
        self._lock = threading.RLock()
        self.nbytes = nbytes
        # Who may ask for the results. Ctrl-C may meet a finaliser, but no weak reference.
        self.owner: weakref.ref[GpuSubmission] | None = None

    @property
    def wanted(self) -> bool:
        """True while somebody may ask for the results."""
        return self.owner is not None and self.owner() is not None

    @property
    def ready(self) -> bool:
        """True when the device has finished, or failed."""
        return self._mapping.status is not None

    def finish(self) -> None:
        """Wait for the results, take them out of the staging buffer, and give that back.

        Ctrl-C may raise from anywhere here; the next call goes on where this one stopped.
        """
        queue, mapping = self._backend._queue, self._mapping
        with self._lock:
            if self._over:
                return
            recorder = _trace.recorder(self._backend.device) if _trace.active else None
            queue.wait(mapping)
            known = time.perf_counter_ns()
            if self._over:  # by a signal handler that waited for it, too
                return
            if recorder:
                recorder.stage("wait")
            try:
                if self._content is None and (self.wanted or self._timing is not None):
                    with self._backend._reading:
                        self._content = queue.read(mapping)
                if not self._left and self._backend.lost is None:
                    self._left = True  # an unmap that was interrupted must not be tried again
                    queue.unmap(mapping)
                    self._usable = True
            except Exception as error:
                self._error = error
                self._usable = False
            if recorder:
                recorder.stage("read", mapping.nbytes)
            self._backend._land(self, mapping.buffer, self._usable)
            self._over = True
            if self._timing is not None:
                self._timing.land(self, self._content, known)

    def settle(self) -> None:
        """Deliver the times of the kernels; a failure is for `result` to tell."""
        try:
            self._backend._check()
            self.finish()
        except GpuError:
            pass

    def result(self) -> NDArray[np.uint8]:
        """The bytes that were read back."""
        self.finish()
        if self._error is not None:
            raise self._error
        assert self._content is not None
        return self._content


class _Clock:
    """Where a GPU's timestamps lie in the host's time, as far as its submissions show it."""

    def __init__(self) -> None:
        self._least, self._most = -(1 << 100), 1 << 100

    def offset(self, first: int, last: int, submitted: int, known: int) -> int:
        """Nanoseconds to add, so that ``first`` to ``last`` lie between ``submitted`` and ``known``."""
        least, most = submitted - first, known - last
        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:  # the clocks drifted apart
            self._least, self._most = least, max(least, most)
        return (self._least + self._most) // 2


class _Timing:
    """Times of a submission's kernels, read back behind its results."""

    def __init__(
        self, backend: GpuBackend, recorder: _trace.Recorder, calls: list[tuple[_abi.Op, dict[str, int]]]
    ) -> None:
        self._backend = backend
        self._recorder = recorder
        self._calls = calls
        self.timers = [backend._timer() for _ in range(Timer.needed(len(calls)))]
        self.nbytes = 16 * len(calls)
        self.submitted = 0

    def copies(self, staging: Any, offset: int) -> Iterator[Copy]:
        """Copies of the timestamps to a staging buffer."""
        whole = 16 * CALLS_PER_TIMER
        for index, timer in enumerate(self.timers):
            yield Copy(timer.buffer, staging, offset + index * whole, min(whole, self.nbytes - index * whole))

    def land(self, flight: _Flight, content: NDArray[np.uint8] | None, known: int) -> None:
        """Tell the profiles when the kernels ran, which were known to be over at the time ``known``."""
        self._backend._timers.extend(self.timers)
        self._recorder.paid(flight)
        if content is not None:
            ticks = content[len(content) - self.nbytes :].view(np.uint64)
            stamps = [int(tick * self._backend._period) for tick in ticks.tolist()]
            offset = self._backend._clock.offset(min(stamps), max(stamps), self.submitted, known)
            for (op, params), begin, end in zip(self._calls, stamps[::2], stamps[1::2], strict=True):
                self._recorder.timed_kernel(op, params, begin + offset, end + offset, gpu=True)


class GpuSubmission:
    """Steps that a GPU runs, and buffers that it reads back. Dropping it is harmless."""

    _flight: _Flight | None = None  # until __init__, which Ctrl-C may interrupt, has set it

    def __init__(self, backend: GpuBackend, flight: _Flight | None, read: Sequence[GpuBuffer]) -> None:
        self._backend = backend
        self._flight = flight
        self._layout = [(buffer.size, buffer.dtype) for buffer in read]
        self._result: list[NDArray[Any]] | None = None

    def done(self) -> bool:
        """True when `result` would not wait."""
        if self._flight is None or self._result is not None or self._backend.lost is not None:
            return True
        self._backend._check()
        if not self._flight.ready:
            self._backend._queue.poll()
        return self._flight.ready

    def result(self) -> list[NDArray[Any]]:
        """Wait, and return the contents of the buffers read."""
        if self._result is None:
            content = np.empty(0, np.uint8)
            if self._flight is not None:
                self._backend._check()
                with _Translated(self._backend._run, self._backend):
                    content = self._flight.result()
            arrays, begin = [], 0
            for size, dtype in self._layout:
                end = begin + size * dtype.itemsize
                arrays.append(content[begin:end].view(dtype))
                begin += _whole(end - begin)
            self._result = arrays
        return self._result


Call = tuple[_abi.Op, Mapping[str, int]]


class GpuProgram:
    """Steps and buffers to read, checked and looked up.

    May be submitted again before the last time is over, with the same buffers: the device
    keeps the order of uploads, kernels and copies.
    """

    def __init__(self, backend: GpuBackend, steps: Sequence[Step], read: Sequence[GpuBuffer]) -> None:
        backend._check()
        recorder = _trace.recorder(backend.device) if _trace.active else None
        ops = [check_step(step) for step in steps]
        for buffer in (*read, *(buffer for step in steps for buffer in step.buffers)):
            if buffer._backend is not backend:
                raise ValueError(f"a buffer of {buffer._backend.device} was given to {backend.device}")
        with backend._lock, _Translated(backend._run, backend):
            # Whatever can be refused is refused before any recording starts.
            self._dispatches = [backend._dispatch(op, step) for op, step in zip(ops, steps, strict=True)]
        self._backend = backend
        self._steps = steps  # they hold the buffers
        self._calls: list[Call] = [(op, step.params) for op, step in zip(ops, steps, strict=True)]
        self._read = read
        self._nbytes = sum(_whole(buffer.size * buffer.dtype.itemsize) for buffer in read)
        if recorder:
            recorder.stage("check")

    def submit(
        self,
        source: GpuBuffer | None = None,
        array: NDArray[Any] | None = None,
        changes: Changes = MappingProxyType({}),
    ) -> GpuSubmission:
        """Start the steps, after an upload; waits for the oldest submission when too many are in flight.

        Parameters
        ----------
        source, array : GpuBuffer and ndarray, optional
            Buffer that gets the array first.
        changes : Mapping
            By operation, parameters that all of its steps get instead of those they were checked with;
            the sizes of buffers and the number of work items may not depend on them.
        """
        backend = self._backend
        backend._check()
        recorder = _trace.recorder(backend.device) if _trace.active else None
        calls, dispatches = self._calls, self._dispatches
        if changes:
            calls = [
                (op, {**params, **changes[op.name]}) if op.name in changes else (op, params) for op, params in calls
            ]
            dispatches = [
                Dispatch(dispatch.pipeline, dispatch.bind_group, _block(op, params), dispatch.grid)
                if op.name in changes
                else dispatch
                for dispatch, (op, params) in zip(dispatches, calls, strict=True)
            ]
        with _Translated(backend._run, backend):
            backend._reap()
            while True:
                with backend._lock:
                    oldest = backend._oldest_when_full(self._nbytes)
                    if oldest is None:
                        if recorder:
                            recorder.skip()
                        backend._collect()
                        if source is not None and array is not None:
                            backend._write(source, array, recorder)
                        return backend._start(calls, dispatches, self._read, self._nbytes, recorder)
                oldest.finish()


def _block(op: _abi.Op, params: Mapping[str, int]) -> bytes:
    """Parameters as the shader's immediates."""
    return struct.pack(f"<{len(op.params)}I", *params.values())


# Nothing of a device that hangs may be released: wgpu-native would wait for it.
_HUNG: list[GpuBackend] = []


class GpuBackend:
    """Runs steps on one adapter. Every call is one submission, its readback included.

    Once the device is lost, ``lost`` says why, and every call raises it.

    The lock guards the pools and the order of submissions; nobody holds it while waiting.
    """

    def __init__(self, device: Device, adapter: Any) -> None:
        self.device = device
        self.host_arrays = False
        with gate, _quiet_egl(), _Translated(f"start of {device}"):
            # Without required_limits wgpu-native gives the adapter's own maxima.
            timed = TIMESTAMPS in adapter.features
            optional = sorted({TIMESTAMPS, *_abi.FEATURES.values()} & set(adapter.features))
            try:
                self._gpu = adapter.request_device_sync(label="scgpu", required_features=[REQUIRED_FEATURE, *optional])
            except AssertionError as error:
                # Ctrl-C met wgpu-py's callback, which swallows it and then misses its result.
                raise KeyboardInterrupt from error
        limits = self._gpu.limits
        # Kernels index the bytes of a buffer with 32 bits.
        self.largest_buffer = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"], (1 << 32) - 4)
        self._workgroups_per_dimension: int = limits["max-compute-workgroups-per-dimension"]
        self._storage = _Pool(self._gpu, _STORAGE, self.largest_buffer)
        self._staging = _Pool(self._gpu, "MAP_READ|COPY_DST", limits["max-buffer-size"])
        self._released: deque[Any] = deque()
        self._pipelines: dict[str, _Pipeline] = {}
        self._bind_groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._queue = NativeQueue(self._gpu)
        self._in_flight: deque[_Flight] = deque()
        # For profiles: nanoseconds of a tick (0 without timestamps), the clocks, idle timers.
        self._period = self._queue.timestamp_period() if timed else 0.0
        self._clock = _Clock()
        self._timers: list[Timer] = []
        self._uploaded = 0  # bytes since the last submission
        self._lock = threading.RLock()
        self._reading = threading.RLock()
        self._process = os.getpid()
        self._run = f"run on {device}"
        self.lost: DeviceLostError | None = None
        self.submissions = 0
        self.adapter = _abi.Adapter(frozenset(optional), device.software)
        # Variants to use instead of the defaults, by operation and class of shapes.
        self.tuned: dict[tuple[str, str], int] = {}
        self._forced: dict[str, int] = {}

    def _check(self) -> None:
        """Refuse a device that is lost, or another process's."""
        if self.lost is not None:
            raise DeviceLostError(str(self.lost))
        if os.getpid() != self._process:
            raise GpuError(
                "this GPU device belongs to the parent of a forked process, and its driver does not survive a fork: "
                "start the child with multiprocessing's 'spawn' or 'forkserver', or use device='cpu'"
            )

    def destroy(self) -> None:
        """Destroy the device, with all that is on it, between two calls of other threads: a loss that was asked for."""
        with self._lock, self._reading:
            self.lose(DeviceLostError(f"{self._run}: the device was destroyed"))
            self._gpu.destroy()

    def lose(self, error: DeviceLostError, *, hung: bool = False) -> None:
        """From now on every call raises; wgpu-native, which aborts at some calls then, is left alone."""
        if self.lost is None:
            self.lost = error
            self._queue.abandon()
            self._in_flight.clear()
            if hung:
                _HUNG.append(self)

    @property
    def wgpu_device(self) -> Any:
        """The device of wgpu-py, for `scgpu._render`, which draws with it."""
        self._check()
        return self._gpu

    def translated(self, what: str) -> AbstractContextManager[None]:
        """A block whose wgpu errors become ours."""
        return _Translated(what, self)

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

    def empty(self, dtype: str, size: int) -> GpuBuffer:
        """Make a buffer of unspecified content."""
        self._check()
        nbytes = max(size, 1) * DTYPES[dtype].itemsize
        self.require(nbytes)
        with self._lock, _Translated(f"allocation on {self.device}", self):
            self._collect()
            return GpuBuffer(self, self._storage.take(nbytes), dtype, size)

    def upload(self, array: NDArray[Any]) -> GpuBuffer:
        """Copy an array into a new buffer."""
        flat = np.ascontiguousarray(array).reshape(-1)
        buffer = self.empty(next(name for name, dtype in DTYPES.items() if dtype == flat.dtype), flat.size)
        if flat.size:
            recorder = _trace.recorder(self.device) if _trace.active else None
            with self._lock, _Translated(f"upload to {self.device}", self):
                self._write(buffer, flat, recorder)
        return buffer

    def write(self, buffer: GpuBuffer, array: NDArray[Any]) -> None:
        """Put an array into a buffer of its size and type, between the submissions before and after."""
        self._check()
        flat = np.ascontiguousarray(array).reshape(-1)
        if buffer._backend is not self or flat.dtype != buffer.dtype or flat.size != buffer.size:
            raise ValueError(f"a buffer of {buffer.size} {buffer.dtype} was given {flat.size} {flat.dtype}")
        if flat.size:
            recorder = _trace.recorder(self.device) if _trace.active else None
            with self._lock, _Translated(f"upload to {self.device}", self):
                self._write(buffer, flat, recorder)

    def _write(self, buffer: GpuBuffer, array: NDArray[Any], recorder: _trace.Recorder | None) -> None:
        octets = array.view(np.uint8)
        if octets.size % 4:
            octets = np.concatenate([octets, np.zeros(-octets.size % 4, np.uint8)])
        self._queue.write(buffer.raw, octets)
        self._uploaded += array.nbytes
        if recorder:
            recorder.stage("upload", array.nbytes)

    def execute(self, steps: Sequence[Step], read: Sequence[GpuBuffer] = ()) -> list[NDArray[Any]]:
        """Run steps, and read buffers back, in one submission."""
        return self.submit(steps, read).result()

    def submit(self, steps: Sequence[Step], read: Sequence[GpuBuffer] = ()) -> GpuSubmission:
        """Start steps and the reading of buffers; waits for the oldest submission when too many are in flight."""
        return self.program(steps, read).submit()

    def program(
        self, steps: Sequence[Step], read: Sequence[GpuBuffer], scratch: Sequence[GpuBuffer] = ()
    ) -> GpuProgram:
        """Steps and buffers to read, checked and looked up, to be submitted any number of times."""
        return GpuProgram(self, steps, read)

    def _start(
        self,
        calls: Sequence[Call],
        dispatches: Sequence[Dispatch],
        read: Sequence[GpuBuffer],
        nbytes: int,
        recorder: _trace.Recorder | None,
    ) -> GpuSubmission:
        timing = self._timing(recorder, calls) if recorder and calls else None
        total = nbytes + (timing.nbytes if timing else 0)
        if not dispatches and not total:
            return GpuSubmission(self, None, read)
        staging = self._staging.take(total) if total else None
        flight = None
        try:
            copies, offset = [], 0
            for buffer in read:
                if part := _whole(buffer.size * buffer.dtype.itemsize):
                    copies.append(Copy(buffer.raw, staging, offset, part))
                    offset += part
            if timing:
                copies += timing.copies(staging, offset)
            recorded = self._queue.record(dispatches, copies, timing.timers if timing else ())
            if recorder:
                recorder.stage("record")
            self._queue.submit(recorded)
            self.submissions += 1
            if staging is not None:
                flight = _Flight(self, self._queue.map(staging, total), total + self._uploaded, timing)
                self._in_flight.append(flight)
            self._uploaded = 0
        except BaseException:
            # The staging buffer may be pending: wgpu-native aborts when it is submitted again.
            if flight not in self._in_flight:
                self._staging.forget(staging)
            raise
        if recorder:
            if timing and flight:
                timing.submitted = recorder.mark
                recorder.owe(flight, flight.settle)
            recorder.stage("submit")
        submission = GpuSubmission(self, flight if nbytes else None, read)
        if flight and nbytes:
            flight.owner = weakref.ref(submission)
        return submission

    def _timing(self, recorder: _trace.Recorder, calls: Sequence[Call]) -> _Timing | None:
        """What times these calls, where the adapter can."""
        if not self._period:
            recorder.untimed()
            return None
        return _Timing(self, recorder, [(op, dict(params)) for op, params in calls])

    def _timer(self) -> Timer:
        return self._timers.pop() if self._timers else Timer(self._gpu)

    def _oldest_when_full(self, nbytes: int) -> _Flight | None:
        """The submission to wait for before another one with ``nbytes`` to read may start."""
        flying = self._in_flight
        nbytes += self._uploaded
        if flying and (len(flying) >= IN_FLIGHT or sum(f.nbytes for f in flying) + nbytes > IN_FLIGHT_BYTES):
            return flying[0]
        return None

    def _reap(self) -> None:
        """Give back the staging buffers of results that nobody wants any more."""
        unwanted = [flight for flight in tuple(self._in_flight) if not flight.wanted]
        if unwanted:
            self._queue.poll()
            for flight in unwanted:
                if flight.ready:
                    flight.finish()

    def _land(self, flight: _Flight, staging: Any, usable: bool) -> None:
        """A submission is over; its staging buffer is free again, unless something went wrong."""
        with self._lock:
            if flight not in self._in_flight:
                return
            self._in_flight.remove(flight)
            if usable:
                self._staging.give(staging)
            else:
                self._staging.forget(staging)

    @gated
    def _dispatch(self, op: _abi.Op, step: Step) -> Dispatch:
        """Pipeline, bind group, parameter block and grid of one step."""
        pipeline = self._pipelines.get(op.name)
        if pipeline is None:
            pipeline = self._pipelines[op.name] = _Pipeline(self._gpu, op)
        variant = self._variant(op, step.params)
        grid = self._grid(op.workgroups(step.params, variant))
        block = _block(op, step.params)
        return Dispatch(pipeline.variant(variant, step.params), self._bind_group(pipeline, op, step), block, grid)

    def _variant(self, op: _abi.Op, params: _abi.Params) -> int:
        """The variant of a step: the forced one, else the tuned one where it is legal, else the default."""
        if op.name in self._forced:
            return self._forced[op.name]
        tuned = self.tuned.get((op.name, op.shape_class(params)))
        if tuned is not None and tuned in op.admissible(params, self.adapter):
            return tuned
        return op.choose(params, self.adapter)

    @contextmanager
    def forced(self, op_name: str, variant: int) -> Iterator[None]:
        """Run every step of an operation by one variant, for tests and for tuning.

        The caller sees to it that the variant is admissible; other threads wait.
        """
        with self._lock:
            self._forced[op_name] = variant
            try:
                yield
            finally:
                del self._forced[op_name]

    def _bind_group(self, pipeline: _Pipeline, op: _abi.Op, step: Step) -> Any:
        key = (op.name, *(buffer.raw for buffer in step.buffers))
        group = self._bind_groups.get(key)
        if group is None:
            group = self._gpu.create_bind_group(
                layout=pipeline.bind_group_layout,
                entries=[
                    {"binding": index, "resource": {"buffer": buffer.raw}} for index, buffer in enumerate(step.buffers)
                ],
            )
            self._bind_groups[key] = group
            if len(self._bind_groups) > BIND_GROUPS:
                self._bind_groups.popitem(last=False)
        else:
            self._bind_groups.move_to_end(key)
        return group

    def _grid(self, workgroups: int) -> tuple[int, int, int]:
        """Fold a number of workgroups into three dimensions, each within the adapter's limit."""
        limit = self._workgroups_per_dimension
        x = max(1, min(workgroups, limit))
        y = max(1, min(-(-workgroups // x), limit))
        z = -(-workgroups // (x * y))
        if z > limit:
            raise TooLargeError(
                f"{workgroups:,} workgroups are needed and {self.device} allows {limit:,} in each dimension; "
                "use a smaller batch or layer, or device='cpu'"
            )
        return x, y, z

    def _collect(self) -> None:
        """Return the memory of dropped buffers to the pool."""
        while self._released:
            raw = self._released.popleft()
            if not self._storage.give(raw):
                for key in [key for key in self._bind_groups if raw in key]:
                    del self._bind_groups[key]
