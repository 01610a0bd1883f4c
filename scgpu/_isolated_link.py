"""The way to a helper process: the process itself, messages, and memory that both sides see.

Messages are plain data over a socket that the helper inherits. Contents of buffers above
`INLINE_BYTES` go through anonymous shared memory, whose file descriptor travels in the message
that first needs it: it has no name, so nothing is left of it when both sides are gone, however
they went.

Only two threads touch the socket, one for each direction. Python runs signal handlers in the main
thread alone, so that Ctrl-C never leaves half a message: whoever calls hands over a `Call`, in one
step that is done or not done, and waits for its lock.
"""

from __future__ import annotations

import builtins
import contextlib
import itertools
import marshal
import mmap
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import errors
from scgpu._gpu_raw import TIMEOUT_VARIABLE, device_timeout
from scgpu.backend import SMALL_BYTES, require_host_memory
from scgpu.errors import DeviceLostError, GpuError, TooLargeError

INLINE_BYTES = 1 << 14  # up to here a message costs less than shared memory
IDLE_BYTES = 256 << 20  # shared memory kept for the next call
PIECE_BYTES = 1 << 16
CHECK_SECONDS = 0.25  # between two looks at a helper that does not answer
CLOSE_SECONDS = 2.0
STDERR_BYTES = 1 << 20  # what a helper's drivers may write before it is thrown away

_LENGTH = struct.Struct("<I")
# The helper finds modules where this process does.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[3:]
from scgpu._isolated_server import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""

Failure = tuple[str, tuple[Any, ...]]


def message(content: tuple[Any, ...]) -> bytes:
    """Plain data with its length in front."""
    body = marshal.dumps(content)
    return _LENGTH.pack(len(body)) + body


class Inbox:
    """Messages out of the pieces in which a socket delivers them."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[Any, ...]]:
        """The messages that a piece completes."""
        octets = self._octets
        octets += piece
        while len(octets) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(octets)[0]
            if len(octets) < end:
                return
            body = bytes(octets[_LENGTH.size : end])
            del octets[:end]
            yield marshal.loads(body)  # noqa: S302 - from a process of our own


def failure_of(error: Exception) -> Failure:
    """An error as plain data: the nearest class that the other side knows, and its arguments."""
    name = next(
        one.__name__
        for one in type(error).__mro__
        if one is getattr(errors, one.__name__, None) or one is getattr(builtins, one.__name__, None)
    )
    return name, tuple(one if isinstance(one, (str, int, float)) else str(one) for one in error.args)


def error_of(failure: Failure) -> Exception:
    """The error that `failure_of` described."""
    name, arguments = failure
    kind = getattr(errors, name, None) or getattr(builtins, name)
    found = kind(*arguments)
    assert isinstance(found, Exception)
    return found


def _anonymous(nbytes: int) -> int:
    """File descriptor of so many bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("scgpu")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        # What cannot be had is an error here, and would be a signal at the first touch.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, nbytes)
        else:
            os.ftruncate(descriptor, nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class _Legacy(weakref.ref[Any]):
    """An object, and what it leaves when it goes."""

    __slots__ = ("left",)
    left: Any


class Legacies:
    """What objects leave when they go, collected by one thread.

    No finaliser in Python does this: Ctrl-C may meet one, which ends it and loses the Ctrl-C.
    """

    def __init__(self) -> None:
        self._gone: deque[_Legacy] = deque()
        self._alive: dict[int, _Legacy] = {}

    def expect(self, thing: object, left: Any) -> None:
        """Once a thing is gone, `collect` gives what it leaves."""
        legacy = _Legacy(thing, self._gone.append)
        legacy.left = left
        self._alive[id(legacy)] = legacy

    def collect(self) -> list[Any]:
        """What the things that are gone have left since the last time."""
        found = []
        while self._gone:
            legacy = self._gone.popleft()
            del self._alive[id(legacy)]
            found.append(legacy.left)
        return found


class Segment:
    """Shared memory. The helper lets go of it when this object does."""

    descriptor: int | None = None  # until __init__, which Ctrl-C may interrupt, has made it
    legacy: _Legacy | None = None  # of its lease

    def __init__(self, number: int, nbytes: int, released: Legacies) -> None:
        self.number = number
        self.nbytes = nbytes
        released.expect(self, number)
        self.descriptor = _anonymous(nbytes)
        self.memory = mmap.mmap(self.descriptor, nbytes)

    def introduced(self) -> None:
        """The helper has it; the mapping keeps the memory."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __del__(self) -> None:
        self.introduced()


class Lease:
    """A segment in use; it returns to the pool when this object goes."""

    def __init__(self, segment: Segment, returned: deque[_Legacy]) -> None:
        self.segment = segment
        # Each holds the other: what Ctrl-C keeps from the pool is garbage, and given up on both sides.
        legacy = _Legacy(self, returned.append)
        legacy.left = segment
        segment.legacy = legacy

    def octets(self, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes, as an array."""
        return np.frombuffer(self.segment.memory, np.uint8, nbytes)


class Segments:
    """Segments, the idle ones by size."""

    def __init__(self, numbers: Iterator[int], released: Legacies) -> None:
        self._numbers = numbers
        self._released = released
        self._returned: deque[_Legacy] = deque()
        self._idle: dict[int, list[Segment]] = {}
        self._lock = threading.RLock()

    @staticmethod
    def capacity(nbytes: int) -> int:
        """Powers of two up to 1 MiB, whole MiB above: few sizes, little waste."""
        if nbytes <= 1 << 20:
            return 1 << max(PIECE_BYTES.bit_length() - 1, (nbytes - 1).bit_length())
        return -(-nbytes // (1 << 20)) << 20

    def lease(self, nbytes: int) -> Lease:
        """Shared memory of at least so many bytes.

        Raises
        ------
        TooLargeError
            When the host has no such memory.
        """
        capacity = self.capacity(nbytes)
        with self._lock:
            self._collect()
            idle = self._idle.get(capacity)
            if idle:
                return Lease(idle.pop(), self._returned)
        if capacity > SMALL_BYTES:
            require_host_memory(capacity)
        try:
            return Lease(Segment(next(self._numbers), capacity, self._released), self._returned)
        except (OSError, ValueError, OverflowError) as error:
            raise TooLargeError(
                f"{nbytes:,} bytes of shared memory cannot be had ({error}); use a smaller batch, length or layer"
            ) from error

    def _collect(self) -> None:
        while self._returned:
            try:
                segment = self._returned.popleft().left
            except IndexError:  # a signal handler was here, too
                return
            segment.legacy = None
            if segment.nbytes + sum(nbytes * len(idle) for nbytes, idle in self._idle.items()) <= IDLE_BYTES:
                self._idle.setdefault(segment.nbytes, []).append(segment)

    def clear(self) -> None:
        """Let go of what is idle, for good. Takes no lock, which a thread of a forked child's parent may have held."""
        self._returned.clear()
        self._idle = {}


class Call:
    """A request, and the answer to it.

    Attributes
    ----------
    number : int
        Of its own among calls, buffers, programs and segments.
    kind, content : str and bytes
        What is asked, as plain data.
    keep : object
        What must not be released before the helper has the message.
    leases : sequence of Lease
        Shared memory that is in use until the answer is there.
    landing : Call, optional
        What gets the results of a submission, which come later; the answer to the call itself is that it started.
    over : bool
        True when the answer is there: ``value``, or ``failure``.
    """

    def __init__(
        self, number: int, kind: str, content: tuple[Any, ...], keep: object, leases: Sequence[Lease] = ()
    ) -> None:
        self.number = number
        self.kind = kind
        # Here, so that what is no plain data is refused where it was given.
        self.content = marshal.dumps(content)
        self.keep = keep
        self.leases = leases
        self.nbytes = sum(lease.segment.nbytes for lease in leases)
        self.landing: Call | None = None
        self.over = False
        self.value: Any = None
        self.failure: Failure | None = None
        self.lock = threading.Lock()
        self.lock.acquire()

    def settle(self, failure: Failure | None, value: Any) -> None:
        """The answer is there."""
        self.failure, self.value = failure, value
        self.leases = self.keep = ()
        self.over = True
        self.lock.release()


def _started(stderr: Any) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A helper process, and the socket to it."""
    # Last: "" in sys.path means another folder after a change of the working one.
    modules = [*map(str, sys.path), str(Path(__file__).resolve().parent.parent)]
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), str(os.getpid()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C in the terminal is for this process
            )
        except BaseException:
            ours.close()
            raise
    return ours, process


class Link:
    """A helper process, and the calls that it is asked.

    Parameters
    ----------
    name : str
        Whose process it is, for messages.
    """

    def __init__(self, name: str) -> None:
        if not hasattr(socket, "send_fds"):
            raise GpuError(
                f"{name}: isolate=True needs sockets that pass file descriptors, which this system has not; "
                "use isolate=False"
            )
        if not sys.executable or getattr(sys, "frozen", False):
            raise GpuError(f"{name}: isolate=True needs a Python interpreter to start, and there is none here")
        self._name = name
        self._timeout = device_timeout()
        self.numbers = itertools.count(1)
        self.released = Legacies()
        self.segments = Segments(self.numbers, self.released)
        self.lost = ""  # or why the helper is of no use any more
        self._reason = ""
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._outbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._pending: dict[int, Call] = {}
        self._heard = time.monotonic()
        try:
            self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the helper
            self._socket, self.process = _started(self._stderr)
        except OSError as error:
            raise GpuError(f"{name}: its helper process does not start ({error})") from error
        self._threads = [
            threading.Thread(target=work, name=f"scgpu {work.__name__[1:]} {self.process.pid}", daemon=True)
            for work in (self._write, self._read)
        ]
        _links.add(self)
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise when the helper is gone, or another process's."""
        self.check_process()
        if self.lost:
            raise DeviceLostError(self.lost)

    def check_process(self) -> None:
        """Refuse a forked child, whose parent alone gets the answers."""
        if os.getpid() != self._owner:
            raise GpuError(
                "this isolated GPU device belongs to the parent of a forked process; make layers and bitstreams "
                "anew in the child, or start it with multiprocessing's 'spawn'"
            )

    def start(self, call: Call) -> None:
        """Hand a call over; returns at once."""
        self.check()
        self._outbox.put(call)

    def ask(self, kind: str, content: tuple[Any, ...] = (), keep: object = (), leases: Sequence[Lease] = ()) -> Any:
        """Hand a call over, and wait for its answer."""
        call = Call(next(self.numbers), kind, content, keep, leases)
        self.start(call)
        return self.answer(call)

    def answer(self, call: Call) -> Any:
        """The answer to a call, as soon as it is there."""
        self.wait(call)
        if call.failure is not None:
            raise error_of(call.failure)
        return call.value

    def wait(self, call: Call) -> None:
        """Wait until a call is over, by an answer or by the helper's end."""
        begin = time.monotonic()
        while not call.over:
            if call.lock.acquire(timeout=CHECK_SECONDS):
                call.lock.release()
                return
            silent = time.monotonic() - max(begin, self._heard)
            if self.process.poll() is not None:
                self._end()
            elif 0 < self._timeout < silent:
                self._reason = f"gave no answer for {silent:.1f} seconds ({TIMEOUT_VARIABLE} sets how many it may take)"
                self.process.kill()

    def _write(self) -> None:
        while True:
            call = self._outbox.get()
            if call is None:
                return
            with self._lock:
                self._pending[call.number] = call
                if call.landing is not None:
                    self._pending[call.landing.number] = call.landing
                if self.lost:
                    self._fail_pending()
                    continue
            self._send(call)
            call.keep = ()
            del call

    def _send(self, call: Call) -> None:
        # These were dropped before: no call that is still to come names them.
        released = self.released.collect()
        fresh = [lease.segment for lease in call.leases if lease.segment.descriptor is not None]
        introduced = tuple((segment.number, segment.nbytes) for segment in fresh)
        octets = message((call.number, call.kind, introduced, tuple(released), call.content))
        descriptors = [segment.descriptor for segment in fresh if segment.descriptor is not None]
        try:
            sent = socket.send_fds(self._socket, [octets], descriptors) if descriptors else 0
            self._socket.sendall(memoryview(octets)[sent:])
        except OSError:
            return  # the helper is gone, and the thread that reads says so
        for segment in fresh:
            segment.introduced()

    def _read(self) -> None:
        inbox = Inbox()
        while True:
            try:
                piece = self._socket.recv(PIECE_BYTES)
            except OSError:
                piece = b""
            if not piece:
                break
            self._heard = time.monotonic()
            for number, failure, value in inbox.feed(piece):
                with self._lock:
                    call = self._pending.pop(number, None)
                    # What did not start has no results to wait for.
                    landing = call.landing if call is not None and failure is not None else None
                    if landing is not None:
                        self._pending.pop(landing.number, None)
                for one in (call, landing):
                    if one is not None:
                        one.settle(failure, value)
                del call, landing, one
        self._end()

    def _fail_pending(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
            for call in pending.values():
                call.settle((DeviceLostError.__name__, (self.lost,)), None)

    def _end(self) -> None:
        """The helper is gone, or must go: whoever waits learns why."""
        try:
            status = self.process.wait(CLOSE_SECONDS / 2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        with self._lock:
            if not self.lost:
                self.lost = (
                    f"{self._name}: its helper process {self.process.pid} {self._reason or _described(status)}"
                    f"{self._last_words()}; what was on it is lost: call scgpu.restart_device, and "
                    "make layers and bitstreams anew"
                )
            self._fail_pending()
        self.segments.clear()

    def _last_words(self) -> str:
        """The last lines that the helper wrote to standard error."""
        try:
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - 1000))
            lines = self._stderr.read().decode(errors="replace").split("\n")
        except (OSError, ValueError):
            return ""
        told = " / ".join(line.strip() for line in lines if line.strip())
        return f" ({told[-500:]})" if told else ""

    def close(self) -> None:
        """End the helper, and wait for its end."""
        if os.getpid() != self._owner:
            return
        self._outbox.put(None)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(CLOSE_SECONDS)
        self._socket.close()
        self._stderr.close()

    def leave(self) -> None:
        """In a forked child: give up what belongs to the parent, whose end the helper must notice."""
        with contextlib.suppress(OSError):
            self._socket.close()
            self._stderr.close()
        self.segments.clear()
        self.process.returncode = 0  # nobody waits for it here, and nobody complains


def _described(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _leave_all() -> None:
    for link in list(_links):
        link.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def watch(parent: int, end: Callable[[], None]) -> None:
    """In a helper: call ``end`` when the parent process dies, whatever else goes on."""
    try:
        descriptor = os.pidfd_open(parent)
    except (AttributeError, OSError):
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
    else:
        if os.getppid() == parent:
            select.select([descriptor], [], [])
    end()
