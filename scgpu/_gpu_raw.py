"""wgpu-native called directly, for the calls that every submission makes.

wgpu-py wraps each of them, keeps a promise and a thread for each mapping, and so doubles the
time of a small call. What is private in wgpu-py, and every call into its library, is here and
nowhere else; `NativeQueue` refuses a wgpu-py whose names it does not know.

A handle that wgpu-native does not know aborts the process. So every handle is taken from a
live wgpu-py object at the moment of the call, by the code that holds that object.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgpu.errors import GpuError

SUPPORTED = (0, 32)  # minor versions of wgpu-py change what is private, and the library inside

# Within this time the waiting thread asks again and again, which finds the end soonest, and lets
# others have the processor in between: a software adapter computes on the same ones.
SPIN_SECONDS = 0.001
# Later the waiting thread sleeps between two questions, a share of the time that has passed.
SLEEP_SHARE = 1 / 16
LONGEST_SLEEP = 0.001
# The end of the interpreter waits so long for threads inside wgpu-native, which may compile there.
LONGEST_END = 20.0

TIMEOUT_VARIABLE = "SCGPU_DEVICE_TIMEOUT"
TIMEOUT_SECONDS = 300.0  # a software adapter may need minutes for what was asked of it


ABANDONED = -1  # the status of a mapping whose device is lost; none of wgpu-native's

_give_way = getattr(os, "sched_yield", None) or (lambda: time.sleep(0))


class NativeError(RuntimeError):
    """wgpu-native reported an error; the text is its own."""


class HungError(NativeError):
    """The device finished nothing for too long."""


class Gate:
    """Lets threads into wgpu-native until the interpreter ends.

    wgpu-native calls Python back. In a daemon thread that outlives the interpreter the callback
    would unwind the thread through Rust, which aborts the process. So the end of the interpreter waits for
    those that are inside; a daemon thread that comes later is ended before it enters.
    """

    def __init__(self) -> None:
        self._inside: list[int] = []
        self._ending: int | None = None

    def __enter__(self) -> None:
        # Appending, then asking, while `close` tells, then looks: one of the two sees the other.
        thread = threading.get_ident()
        self._inside.append(thread)
        if self._ending not in (None, thread):
            self._inside.remove(thread)
            raise SystemExit

    def __exit__(self, *_: object) -> None:
        self._inside.remove(threading.get_ident())

    def close(self) -> None:
        """End other threads at their next call; wait for those inside, but not for ever."""
        thread = self._ending = threading.get_ident()
        deadline = time.monotonic() + LONGEST_END
        while any(other != thread for other in tuple(self._inside)) and time.monotonic() < deadline:
            time.sleep(LONGEST_SLEEP)

    def forget(self) -> None:
        """In a forked child: of the threads inside, it has none."""
        self._inside.clear()


gate = Gate()
atexit.register(gate.close)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def gated(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A call of wgpu-native, through the gate."""

    @wraps(call)
    def through(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with gate:
            return call(*arguments, **options)

    return through


def disown() -> None:
    """In a forked child: leave the objects of wgpu-py, which are the parent's, alone.

    Their release would wait for threads of the driver that only the parent has.
    """
    gate.forget()
    module = sys.modules.get("wgpu.backends.wgpu_native._api")
    for kind in vars(module).values() if module else ():
        if isinstance(kind, type) and "_release" in vars(kind):
            kind._release = _leave  # type: ignore[attr-defined]
    # So would Mesa at the end of the process, from a handler of C's.
    if found := ending():
        on_exit, null, handlers = found
        for handler in handlers:
            on_exit(handler, null)


def _leave(wgpu_object: Any) -> None:
    pass


@cache
def ending() -> tuple[Any, ...]:
    """What ends a process without the handlers that C libraries registered for its end; empty where unknown.

    To be called before the fork: in a child, another thread of its parent may hold the parser's lock.
    """
    ffi = importlib.import_module("cffi").FFI()
    ffi.cdef("int on_exit(void *, void *); int fcloseall(void); void _exit(int);")
    libc = ffi.dlopen(None)
    try:
        # The handler that was registered last runs first.
        handlers = [ffi.cast("void *", ffi.addressof(libc, name)) for name in ("_exit", "fcloseall")]
        return libc.on_exit, ffi.NULL, handlers
    except AttributeError:  # only glibc has them
        return ()


class Dispatch(NamedTuple):
    """One kernel call as wgpu-py objects, its parameters as bytes, and its grid."""

    pipeline: Any
    bind_group: Any
    immediates: bytes
    grid: tuple[int, int, int]


class Copy(NamedTuple):
    """The first ``nbytes`` bytes of a buffer, copied to ``offset`` of another."""

    source: Any
    target: Any
    offset: int
    nbytes: int


CALLS_PER_TIMER = 2048  # a set holds 4096 queries


class Timer:
    """Timestamps of up to `CALLS_PER_TIMER` kernel calls: before and after each, in the adapter's ticks."""

    def __init__(self, device: Any) -> None:
        self.queries = device.create_query_set(type="timestamp", count=2 * CALLS_PER_TIMER)
        self.buffer = device.create_buffer(size=16 * CALLS_PER_TIMER, usage="QUERY_RESOLVE|COPY_SRC")
        self.count = 0

    @staticmethod
    def needed(calls: int) -> int:
        """Timers for so many kernel calls."""
        return -(-calls // CALLS_PER_TIMER)


class Readback:
    """A staging buffer on its way into host memory."""

    __slots__ = ("buffer", "key", "message", "nbytes", "queue", "status")

    def __init__(self, queue: NativeQueue, key: int, buffer: Any, nbytes: int) -> None:
        self.queue = queue
        self.key = key
        self.buffer = buffer
        self.nbytes = nbytes
        self.status: int | None = None
        self.message = ""


class _Library:
    """The names of wgpu-py and of its library that are used here."""

    def __init__(self) -> None:
        wgpu = importlib.import_module("wgpu")
        remedy = f"run: pip install 'wgpu=={SUPPORTED[0]}.{SUPPORTED[1]}.*'"
        if tuple(wgpu.version_info[:2]) != SUPPORTED:
            raise GpuError(f"wgpu {wgpu.__version__} is not the version that scgpu calls directly; {remedy}")
        try:
            native = importlib.import_module("wgpu.backends.wgpu_native")
            self.ffi: Any = native.ffi
            self.lib: Any = native.lib
            self.errors: Any = importlib.import_module("wgpu.backends.wgpu_native._api").error_handler
            # A Python callable that wgpu-native calls from within a poll, in the polling thread.
            self.on_mapped = self.ffi.callback(
                "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", _on_mapped, onerror=_on_interrupt
            )
            self.mapped = self.lib.WGPUMapAsyncStatus_Success
            self.encoder = self.ffi.new("WGPUCommandEncoderDescriptor *")
            self.compute_pass = self.ffi.new("WGPUComputePassDescriptor *")
            self.commands = self.ffi.new("WGPUCommandBufferDescriptor *")
        except (AttributeError, ImportError, TypeError) as error:
            raise GpuError(f"wgpu {wgpu.__version__} lacks a name that scgpu calls directly ({error}); {remedy}") from (
                error
            )


@cache
def _library() -> _Library:
    return _Library()


_keys = itertools.count(1)
_mappings: dict[int, Readback] = {}
_interrupts: dict[int, BaseException] = {}


def _settle(status: int, message: Any, userdata: Any) -> None:
    ffi = _library().ffi
    mapping = _mappings.get(int(ffi.cast("uintptr_t", userdata)))
    if mapping is not None:
        if message.length and message.data:
            mapping.message = ffi.string(message.data, message.length).decode(errors="replace")
        mapping.queue.progress = time.perf_counter()
        mapping.status = status
        del _mappings[mapping.key]


def _on_mapped(status: int, message: Any, userdata: Any, unused: Any) -> None:
    _settle(status, message, userdata)


def _on_interrupt(kind: Any, error: BaseException, trace: Any) -> None:
    # Ctrl-C met the callback itself, where nothing can be raised: the poll raises it, and the
    # mapping is settled all the same.
    _interrupts[threading.get_ident()] = error
    found = trace.tb_frame.f_locals
    _settle(found["status"], found["message"], found["userdata"])


def device_timeout() -> float:
    """Seconds that a device may be silent."""
    text = os.environ.get(TIMEOUT_VARIABLE, "").strip()
    try:
        seconds = float(text) if text else TIMEOUT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{TIMEOUT_VARIABLE} must be a number of seconds, 0 for no limit; got {text!r}")
    return seconds


class NativeQueue:
    """Writes, submits and reads back on one wgpu device.

    Any thread may call any method, but `submit` and `map` only one at a time. Only `wait` waits, in
    steps that Ctrl-C interrupts.

    Attributes
    ----------
    timeout : float
        Seconds that a device may work without finishing anything; ``SCGPU_DEVICE_TIMEOUT``, 0 for no limit.
    progress : float
        When the device finished something last, by `time.perf_counter`.
    """

    def __init__(self, device: Any) -> None:
        self._library = _library()
        self._device = device  # keeps the handles below alive
        try:
            self._handle = device._internal
            self._queue = device.queue._internal
        except AttributeError as error:
            raise GpuError(f"wgpu's device has no handle ({error})") from error
        ffi = self._library.ffi
        self._probe = device.create_buffer(size=4, usage="COPY_DST")
        self.timeout = device_timeout()
        self.progress = 0.0
        # Staging buffers from `map` on until `unmap`: what else is done with one aborts the process.
        self._mapped: weakref.WeakSet[Any] = weakref.WeakSet()
        self._commands = ffi.new("WGPUCommandBuffer[1]")
        self._map_info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._map_info.mode = self._library.lib.WGPUCallbackMode_AllowProcessEvents
        self._map_info.callback = self._library.on_mapped

    def _raise(self, found: tuple[str, str] | None) -> None:
        if found is not None:
            raise NativeError(found[1])

    @gated
    def write(self, buffer: Any, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the start of a buffer, before what is submitted next."""
        library = self._library
        library.errors.capture("write")
        try:
            library.lib.wgpuQueueWriteBuffer(
                self._queue, buffer._internal, 0, library.ffi.from_buffer(array), array.nbytes
            )
        finally:
            found = library.errors.release("write")
        self._raise(found)

    @gated
    def record(self, dispatches: Sequence[Dispatch], copies: Sequence[Copy], timers: Sequence[Timer] = ()) -> Any:
        """Record kernel calls, then copies; the result goes to `submit`, once.

        With timers, as many as `Timer.needed` says, each call is a pass of its own that a timer measures.
        """
        library, lib = self._library, self._library.lib
        if any(copy.target in self._mapped for copy in copies):
            raise NativeError("a staging buffer is mapped, or about to be: its submission would abort the process")
        library.errors.capture("record")
        encoder, recorded = None, False
        try:
            encoder = lib.wgpuDeviceCreateCommandEncoder(self._handle, library.encoder)
            for description, group in self._passes(dispatches, timers):
                compute_pass = lib.wgpuCommandEncoderBeginComputePass(encoder, description)
                try:
                    for dispatch in group:
                        self._dispatch(compute_pass, dispatch)
                    lib.wgpuComputePassEncoderEnd(compute_pass)
                finally:
                    lib.wgpuComputePassEncoderRelease(compute_pass)
            for timer in timers:
                lib.wgpuCommandEncoderResolveQuerySet(
                    encoder, timer.queries._internal, 0, timer.count, timer.buffer._internal, 0
                )
            for source, target, offset, nbytes in copies:
                lib.wgpuCommandEncoderCopyBufferToBuffer(encoder, source._internal, 0, target._internal, offset, nbytes)
            recorded = True
        finally:
            found = library.errors.release("record")
            if encoder is not None and (found is not None or not recorded):
                lib.wgpuCommandEncoderRelease(encoder)
        self._raise(found)
        return encoder

    def _passes(
        self, dispatches: Sequence[Dispatch], timers: Sequence[Timer]
    ) -> Iterator[tuple[Any, Sequence[Dispatch]]]:
        """Descriptions of compute passes, and the kernel calls in each."""
        if not timers:
            if dispatches:
                yield self._library.compute_pass, dispatches
            return
        new = self._library.ffi.new
        for index, dispatch in enumerate(dispatches):
            timer, place = timers[index // CALLS_PER_TIMER], 2 * (index % CALLS_PER_TIMER)
            timer.count = place + 2
            writes = new("WGPUPassTimestampWrites *")
            writes.querySet = timer.queries._internal
            writes.beginningOfPassWriteIndex, writes.endOfPassWriteIndex = place, place + 1
            description = new("WGPUComputePassDescriptor *")
            description.timestampWrites = writes
            yield description, (dispatch,)

    def timestamp_period(self) -> float:
        """Nanoseconds of one tick of the adapter's timestamps."""
        return float(self._library.lib.wgpuQueueGetTimestampPeriod(self._queue))

    def _dispatch(self, compute_pass: Any, dispatch: Dispatch) -> None:
        library, lib = self._library, self._library.lib
        pipeline, bind_group, immediates, grid = dispatch
        lib.wgpuComputePassEncoderSetPipeline(compute_pass, pipeline._internal)
        lib.wgpuComputePassEncoderSetBindGroup(compute_pass, 0, bind_group._internal, 0, library.ffi.NULL)
        lib.wgpuComputePassEncoderSetImmediates(compute_pass, 0, library.ffi.from_buffer(immediates), len(immediates))
        lib.wgpuComputePassEncoderDispatchWorkgroups(compute_pass, *grid)

    def require_alive(self) -> None:
        """Raise `NativeError` when the device is lost: what follows would abort the process then."""
        library, lib = self._library, self._library.lib
        library.errors.capture("check")
        try:
            # A write of nothing is the cheapest call that finds out, and reports it.
            lib.wgpuQueueWriteBuffer(self._queue, self._probe._internal, 0, library.ffi.NULL, 0)
        finally:
            found = library.errors.release("check")
        self._raise(found)

    @gated
    def submit(self, encoder: Any) -> None:
        """Hand what `record` returned to the device, and give it up."""
        library, lib = self._library, self._library.lib
        try:
            # wgpu-native keeps a command buffer that was not submitted, and with it the device, for ever: none is
            # made of a device that is lost.
            self.require_alive()
            library.errors.capture("finish")
            try:
                commands = lib.wgpuCommandEncoderFinish(encoder, library.commands)
            finally:
                found = library.errors.release("finish")
        finally:
            lib.wgpuCommandEncoderRelease(encoder)
        try:
            self._raise(found)
            library.errors.capture("submit")
            try:
                self._commands[0] = commands
                lib.wgpuQueueSubmit(self._queue, 1, self._commands)
            finally:
                found = library.errors.release("submit")
        finally:
            lib.wgpuCommandBufferRelease(commands)
        self._raise(found)

    @gated
    def map(self, buffer: Any, nbytes: int) -> Readback:
        """Ask for the first bytes of a staging buffer, once the device has written them."""
        library = self._library
        self._mapped.add(buffer)
        mapping = Readback(self, next(_keys), buffer, nbytes)
        info = self._map_info
        info.userdata1 = library.ffi.cast("void *", mapping.key)
        _mappings[mapping.key] = mapping
        library.errors.capture("map")
        try:
            library.lib.wgpuBufferMapAsync(buffer._internal, library.lib.WGPUMapMode_Read, 0, nbytes, info[0])
        finally:
            found = library.errors.release("map")
        self._raise(found)
        return mapping

    @gated
    def poll(self) -> None:
        """Let wgpu-native find out, without waiting, which mappings are ready."""
        self._library.lib.wgpuDevicePoll(self._handle, False, self._library.ffi.NULL)
        if _interrupts and (error := _interrupts.pop(threading.get_ident(), None)) is not None:
            try:
                raise error
            finally:
                # Else the error would hold this frame, the frame the error, and both whatever was waited for.
                del error

    def wait(self, mapping: Readback) -> None:
        """Wait until a mapping is ready or has failed.

        Raises
        ------
        HungError
            When the device has finished nothing for too long.
        """
        begin = time.perf_counter()
        self.poll()
        while mapping.status is None:
            passed = time.perf_counter() - begin
            if passed < SPIN_SECONDS:
                _give_way()
            else:
                time.sleep(min(passed * SLEEP_SHARE, LONGEST_SLEEP))
            self.poll()
            idle = time.perf_counter() - max(begin, self.progress)
            if mapping.status is None and 0 < self.timeout < idle:
                raise HungError(
                    f"it has finished nothing for {idle:.1f} seconds; {TIMEOUT_VARIABLE} sets how many it may take"
                )

    def read(self, mapping: Readback) -> NDArray[np.uint8]:
        """Copy the bytes of a mapping that is ready.

        Raises
        ------
        NativeError
            When the mapping failed: the device is lost, or was out of memory.
        """
        library = self._library
        if mapping.status != library.mapped or mapping.buffer not in self._mapped:
            raise NativeError(f"Could not map buffer ({mapping.message or mapping.status})")
        self.require_alive()
        content = np.empty(mapping.nbytes, np.uint8)
        start = library.lib.wgpuBufferGetMappedRange(mapping.buffer._internal, 0, mapping.nbytes)
        library.ffi.memmove(library.ffi.from_buffer(content), start, mapping.nbytes)
        return content

    def abandon(self) -> None:
        """Expect nothing more of a device that is lost: who waits for it is told."""
        for key, mapping in tuple(_mappings.items()):
            if mapping.queue is self:
                _mappings.pop(key, None)
                mapping.message = "the device is lost"
                mapping.status = ABANDONED

    @gated
    def unmap(self, mapping: Readback) -> None:
        """Make the buffer of a mapping that is ready usable again."""
        library = self._library
        library.errors.capture("unmap")
        try:
            library.lib.wgpuBufferUnmap(mapping.buffer._internal)
        finally:
            found = library.errors.release("unmap")
        self._raise(found)
        self._mapped.discard(mapping.buffer)
