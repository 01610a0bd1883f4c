"""What a profile collects, and the marks that backends set for it.

A backend asks `active` once for each call. Only when it is true does it make a `Recorder`,
which writes events into the sinks that were open when the call began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from scgpu import _abi
from scgpu.backend import DTYPES, Device
from scgpu.forks import ForkLock

active = False
"""True while any profile is open."""

_lock = ForkLock()
_shared: tuple[Sink, ...] = ()
_private_count = 0
_local = threading.local()


@dataclass(frozen=True)
class Event:
    """One kernel call, or one stage of a call.

    Attributes
    ----------
    name : str
        Operation, or stage: ``"check"``, ``"upload"``, ``"record"``, ``"submit"``, ``"wait"``, ``"read"``.
    kind : {"kernel", "stage"}
        Which of the two.
    device : Device
        Where it ran, or for which device the host worked.
    gpu : bool
        True when the device measured it, with timestamps of its own.
    thread : str
        Name of the Python thread, for what the host measured.
    begin, duration : int
        Nanoseconds of `time.perf_counter_ns`; a duration is at least 1. A GPU's clock is moved so that its
        events lie between their submission and the moment when they were known to be over.
    nbytes : int
        Bytes of the kernel's buffers, each counted once, or bytes moved by the stage.
    bits : int
        Stream bits that the kernel makes, reads or multiplies.
    params : Mapping[str, int]
        The kernel's parameters.
    """

    name: str
    kind: Literal["kernel", "stage"]
    device: Device
    gpu: bool
    thread: str
    begin: int
    duration: int
    nbytes: int = 0
    bits: int = 0
    params: Mapping[str, int] = field(default_factory=dict)


class Sink:
    """Events, devices whose kernels could not be timed, and submissions that still owe their times."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.untimed: dict[Device, None] = {}
        self.owed: dict[object, Callable[[], None]] = {}

    def settle(self) -> None:
        """Wait for the times that are owed."""
        for settle in tuple(self.owed.values()):
            settle()
        self.owed.clear()


@contextmanager
def shared(sink: Sink) -> Iterator[None]:
    """Collect what every thread does."""
    global active, _shared
    with _lock:
        _shared = (*_shared, sink)
        active = True
    try:
        yield
    finally:
        with _lock:
            _shared = tuple(other for other in _shared if other is not sink)
            active = bool(_shared or _private_count)
        sink.settle()


@contextmanager
def private() -> Iterator[Sink]:
    """Collect what this thread does, and hide it from every other sink."""
    global active, _private_count
    sink, before = Sink(), getattr(_local, "sink", None)
    with _lock:
        _private_count += 1
        active = True
    _local.sink = sink
    try:
        yield sink
    finally:
        _local.sink = before
        with _lock:
            _private_count -= 1
            active = bool(_shared or _private_count)
        sink.settle()


class Recorder:
    """Measures one call: each mark ends what began with the mark before."""

    def __init__(self, device: Device, sinks: tuple[Sink, ...]) -> None:
        self.device = device
        self.sinks = sinks
        self.mark = time.perf_counter_ns()

    def skip(self) -> None:
        """What happened since the last mark belongs to no stage."""
        self.mark = time.perf_counter_ns()

    def stage(self, name: str, nbytes: int = 0) -> None:
        """A stage ends here."""
        begin, self.mark = self.mark, time.perf_counter_ns()
        self._emit(Event(name, "stage", self.device, False, _thread(), begin, max(self.mark - begin, 1), nbytes))

    def kernel(self, op: _abi.Op, params: Mapping[str, int]) -> None:
        """A kernel that the host ran ends here."""
        begin, self.mark = self.mark, time.perf_counter_ns()
        self.timed_kernel(op, params, begin, self.mark, gpu=False)

    def timed_kernel(self, op: _abi.Op, params: Mapping[str, int], begin: int, end: int, *, gpu: bool) -> None:
        """A kernel ran from ``begin`` to ``end``."""
        values = tuple(params.values())
        nbytes = sum(
            size * DTYPES[buffer.dtype].itemsize for size, buffer in zip(op.sizes(*values), op.buffers, strict=True)
        )
        thread = "" if gpu else _thread()
        bits = op.bits(*values)
        duration = max(end - begin, 1)
        self._emit(Event(op.name, "kernel", self.device, gpu, thread, begin, duration, nbytes, bits, dict(params)))

    def untimed(self) -> None:
        """Kernels ran whose times nobody measures."""
        for sink in self.sinks:
            sink.untimed[self.device] = None

    def owe(self, submission: object, settle: Callable[[], None]) -> None:
        """``settle`` will deliver a submission's times; a sink that closes calls it first."""
        for sink in self.sinks:
            sink.owed[submission] = settle

    def paid(self, submission: object) -> None:
        """The times were delivered."""
        for sink in self.sinks:
            sink.owed.pop(submission, None)

    def _emit(self, event: Event) -> None:
        for sink in self.sinks:
            sink.events.append(event)


def _thread() -> str:
    return threading.current_thread().name


def recorder(device: Device) -> Recorder | None:
    """A recorder for a call that begins now, where somebody collects."""
    own: Sink | None = getattr(_local, "sink", None)
    sinks = _shared if own is None else (own,)
    return Recorder(device, sinks) if sinks else None
