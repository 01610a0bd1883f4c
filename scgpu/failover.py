"""failover: a backend that outlives its device.

Every kernel is deterministic and every device gives the same bits, so the contents of a buffer are known by how
they came to be: an array that was uploaded, or the result of steps over other contents. `FailoverBackend` keeps
that beside each buffer. When the device goes away it starts the next one, makes there what is asked for, and
finishes the call.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi
from scgpu.backend import DTYPES, Backend, Changes, Device, Program, Step, Submission
from scgpu.errors import DeviceLossWarning, DeviceLostError, DeviceMemoryError, ScgpuError, TooLargeError
from scgpu.forks import ForkLock

LOSSES = (DeviceLostError, DeviceMemoryError)

# Contents that were made in more steps than this, or that hold on to more memory than that, are read back: what is
# kept of a long run, or of an accumulation, is bounded, and so is what a failover has to do again.
LONGEST_HISTORY = 64
HISTORY_BYTES = 1 << 20
HISTORY_SHARE = 4  # of the bytes of the contents themselves

Result = TypeVar("Result")


class Contents:
    """What is in a buffer, as a value: an array, or a buffer of a `Made` run. It never changes.

    ``depth`` counts the runs behind it, ``nbytes`` is what it holds on to.
    """

    __slots__ = ("__weakref__", "array", "depth", "nbytes", "owner", "run", "slot")

    def __init__(self, owner: FailoverBuffer | None, array: NDArray[Any] | None, run: Made | None, slot: int) -> None:
        self.owner = None if owner is None else weakref.ref(owner)
        self.array = array
        self.run = run
        self.slot = slot
        # Only what outlasts its call has a history that somebody asks for.
        self.depth, self.nbytes = (0, 0) if owner is None else _history(array, run)


class Recipe(NamedTuple):
    """Steps over numbered buffers: of these types and sizes, of which some are written to."""

    buffers: tuple[tuple[str, int], ...]
    steps: tuple[tuple[str, Mapping[str, int], tuple[int, ...]], ...]
    written: frozenset[int]


class Made:
    """A run of a recipe over contents (None: unspecified ones)."""

    __slots__ = ("changes", "inputs", "recipe")

    def __init__(self, recipe: Recipe, changes: Changes, inputs: list[Contents | None]) -> None:
        self.recipe = recipe
        self.changes = changes
        self.inputs = inputs


def _history(array: NDArray[Any] | None, run: Made | None) -> tuple[int, int]:
    """Runs behind contents, and bytes that they hold on to."""
    if run is None:
        return 0, 0 if array is None else array.nbytes
    known = [one for one in run.inputs if one is not None]
    return 1 + max((one.depth for one in known), default=0), sum(one.nbytes for one in known)


class FailoverBuffer:
    """A buffer of a `FailoverBackend`: its contents, and where they lie on the device in use."""

    __slots__ = ("__weakref__", "_backend", "_era", "_place", "contents", "dtype", "kind", "size")

    def __init__(self, backend: FailoverBackend, kind: str, size: int) -> None:
        self._backend = backend
        self.kind = kind
        self.dtype = DTYPES[kind]
        self.size = size
        self.contents: Contents | None = None
        self._era: Era | None = None
        self._place: Any = None

    def put(self, era: Era, place: Any) -> None:
        """Say where the contents lie."""
        self._place = place
        self._era = era

    def found(self, era: Era) -> Any:
        """Where the contents lie on the device of an era, or None."""
        return self._place if self._era is era else None


class Era:
    """The time that one device serves."""

    def __init__(self, backend: Backend, device: Device) -> None:
        self.backend = backend
        self.device = device


class _Remaking:
    """Contents made again on the device of an era, each once."""

    def __init__(self, era: Era) -> None:
        self._era = era
        self._backend = era.backend
        self._places: dict[Contents, Any] = {}
        self._runs: dict[Made, list[Any]] = {}

    def place(self, buffer: FailoverBuffer) -> Any:
        """Where a buffer lies on the device, put there when it does not."""
        place = buffer.found(self._era)
        if place is None:
            contents = buffer.contents
            place = self._backend.empty(buffer.kind, buffer.size) if contents is None else self._shared(contents)
            buffer.put(self._era, place)
        return place

    def arrays(self, wanted: Sequence[Contents]) -> list[NDArray[Any]]:
        """Contents as arrays of the caller's own."""
        return [np.array(one) for one in self._backend.execute([], [self._shared(contents) for contents in wanted])]

    def _shared(self, contents: Contents) -> Any:
        """A buffer with these contents, which nobody may write to while contents are being made."""
        # A chain of runs may be longer than Python's stack.
        waiting = [contents]
        while waiting:
            one = waiting[-1]
            if self._found(one) is None:
                run = one.run
                if run is None:
                    assert one.array is not None
                    self._places[one] = self._backend.upload(one.array.copy())
                elif missing := [given for given in run.inputs if given is not None and self._found(given) is None]:
                    waiting += missing
                    continue
                else:
                    self._run(run)
            waiting.pop()
        return self._found(contents)

    def _found(self, contents: Contents) -> Any:
        owner = None if contents.owner is None else contents.owner()
        if owner is not None and owner.contents is contents and (place := owner.found(self._era)) is not None:
            return place
        if contents.run is not None and contents.run in self._runs:
            return self._runs[contents.run][contents.slot]
        return self._places.get(contents)

    def _run(self, run: Made) -> None:
        backend, recipe = self._backend, run.recipe
        places = []
        for slot, ((kind, size), contents) in enumerate(zip(recipe.buffers, run.inputs, strict=True)):
            if contents is None:
                places.append(backend.empty(kind, size))
            elif slot in recipe.written:
                (array,) = backend.execute([], [self._found(contents)])
                places.append(backend.upload(np.array(array)))
            else:
                places.append(self._found(contents))
        backend.execute(
            [
                Step(op, {**params, **run.changes.get(op, {})}, tuple(places[slot] for slot in slots))
                for op, params, slots in recipe.steps
            ]
        )
        self._runs[run] = places


class FailoverSubmission:
    """Steps on their way, to be run again elsewhere when their device goes away."""

    def __init__(self, backend: FailoverBackend, era: Era, inner: Submission, read: list[Contents]) -> None:
        self._backend = backend
        self._era = era
        self._inner: Submission | None = inner
        self._read = read
        self._arrays: list[NDArray[Any]] | None = None

    def done(self) -> bool:
        """True when `result` would not wait."""
        inner = self._inner
        try:
            return inner is None or inner.done()
        except LOSSES:
            return True

    def result(self) -> list[NDArray[Any]]:
        """Wait, and return the contents of the buffers read."""
        inner, arrays = self._inner, self._arrays
        if arrays is None:
            assert inner is not None
            try:
                arrays = inner.result()
            except LOSSES as error:
                self._backend.fail_over(self._era, error)
                arrays = self._backend.arrays(self._read)
            self._arrays = arrays
            self._inner = None
            self._read = []  # with them go the arrays and buffers that they would be made of
        return arrays


class FailoverProgram:
    """Steps and buffers to read, looked up again on each device that serves."""

    def __init__(
        self,
        backend: FailoverBackend,
        steps: Sequence[Step],
        read: Sequence[FailoverBuffer],
        scratch: Sequence[FailoverBuffer],
    ) -> None:
        slots: dict[FailoverBuffer, int] = {}
        for buffer in (*read, *(buffer for step in steps for buffer in step.buffers)):
            if not isinstance(buffer, FailoverBuffer) or buffer._backend is not backend:
                other = getattr(getattr(buffer, "_backend", None), "device", "the host")
                raise ValueError(f"a buffer of {other} was given to {backend.device}")
            slots.setdefault(buffer, len(slots))
        numbered = [tuple(slots[buffer] for buffer in step.buffers) for step in steps]
        written = {
            slot
            for step, places in zip(steps, numbered, strict=True)
            for slot, declared in zip(places, _abi.OPS[step.op].buffers, strict=True)
            if declared.access != "in"
        }
        self._backend = backend
        self._steps = steps
        self._slots = slots
        self._read = [slots[buffer] for buffer in read]
        self._buffers = list(slots)
        self._recipe = Recipe(
            tuple((buffer.kind, buffer.size) for buffer in self._buffers),
            tuple((step.op, step.params, places) for step, places in zip(steps, numbered, strict=True)),
            frozenset(written),
        )
        self._scratch = set(scratch)
        self._kept = [buffer not in self._scratch for buffer in self._buffers]
        self._changed = [(slot, self._buffers[slot]) for slot in sorted(written) if self._kept[slot]]
        self._era: Era | None = None
        self._inner: Program | None = None
        self._lock = ForkLock()
        backend.attempt(self._program)

    def _program(self, era: Era) -> Program:
        """The steps on the device of an era."""
        if self._era is not era or self._inner is None:
            places = self._backend.places(era, self._buffers)
            steps = [
                Step(op, params, tuple(places[slot] for slot in slots)) for op, params, slots in self._recipe.steps
            ]
            self._inner = era.backend.program(steps, [places[slot] for slot in self._read])
            self._era = era
        return self._inner

    def submit(
        self,
        source: FailoverBuffer | None = None,
        array: NDArray[Any] | None = None,
        changes: Changes = MappingProxyType({}),
    ) -> FailoverSubmission:
        """Start the steps, after an upload; parameters as `scgpu.backend.Program.submit`."""
        given = None
        if source is not None and array is not None:
            given = Contents(source, np.array(array).reshape(-1), None, 0)
        submission = self._backend.attempt(lambda era: self._start(era, source, given, changes))
        if self._changed:
            self._backend.shorten([buffer for _, buffer in self._changed])
        return submission

    def _start(
        self, era: Era, source: FailoverBuffer | None, given: Contents | None, changes: Changes
    ) -> FailoverSubmission | None:
        """Start the steps on the device of an era; None when another one serves meanwhile."""
        program = self._program(era)
        inputs = [buffer.contents if kept else None for buffer, kept in zip(self._buffers, self._kept, strict=True)]
        place, array, noted = None, None, []
        if source is not None and given is not None:
            place, array = self._backend.places(era, [source])[0], given.array
            if source in self._slots:
                inputs[self._slots[source]] = given
            if source not in self._scratch:
                noted.append(given)
        if era.backend.host_arrays:  # threads that compute at once must not share the buffers
            with self._lock:
                inner = program.submit(place, array, changes)
        else:
            inner = program.submit(place, array, changes)
        run = Made(self._recipe, changes, inputs)
        made = {slot: Contents(buffer, None, run, slot) for slot, buffer in self._changed}
        if not self._backend.note(era, [*noted, *made.values()]):
            return None
        read = [made.get(slot) or self._read_from(run, slot) for slot in self._read]
        return FailoverSubmission(self._backend, era, inner, read)

    def _read_from(self, run: Made, slot: int) -> Contents:
        """What is read of a buffer that keeps nothing, or that the steps do not write to."""
        given = run.inputs[slot]
        if slot in self._recipe.written:
            return Contents(None, None, run, slot)
        if given is None:
            buffer = self._buffers[slot]
            return Contents(None, np.zeros(buffer.size, buffer.dtype), None, 0)
        return given


class FailoverBackend:
    """Runs steps on one device and, when that is lost, on the next.

    Parameters
    ----------
    device : Device
        The first one.
    start : callable
        Starts the backend of a device.
    following : callable
        The devices to try after the first, in order.
    """

    host_arrays = False

    def __init__(
        self, device: Device, start: Callable[[Device], Backend], following: Callable[[Device], Sequence[Device]]
    ) -> None:
        self.lock = ForkLock()
        self._start = start
        self._following = following
        self._first = device
        self._left: list[Device] | None = None
        self._largest: int | None = None
        self.era = Era(start(device), device)

    @property
    def device(self) -> Device:
        """Where steps run now."""
        return self.era.device

    @property
    def largest_buffer(self) -> int:
        """Bytes that one buffer may have: those of the first device, so that tensors are cut alike ever after."""
        return self.era.backend.largest_buffer if self._largest is None else self._largest

    def require(self, nbytes: int) -> None:
        """Raise `TooLargeError` when a buffer of so many bytes cannot be had."""
        self.era.backend.require(nbytes)

    def require_total(self, nbytes: int) -> None:
        """Raise `TooLargeError` when so many bytes are known not to fit."""
        self.era.backend.require_total(nbytes)

    def empty(self, dtype: str, size: int) -> FailoverBuffer:
        """Make a buffer of unspecified content."""
        buffer = FailoverBuffer(self, dtype, size)

        def make(era: Era) -> FailoverBuffer:
            buffer.put(era, era.backend.empty(dtype, size))
            return buffer

        return self.attempt(make)

    def upload(self, array: NDArray[Any]) -> FailoverBuffer:
        """Copy an array into a new buffer."""
        # The copy is what the buffer is made of again; the caller may write to the array.
        flat = np.array(array, order="C").reshape(-1)
        buffer = FailoverBuffer(self, next(name for name, dtype in DTYPES.items() if dtype == flat.dtype), flat.size)
        buffer.contents = Contents(buffer, flat, None, 0)

        def make(era: Era) -> FailoverBuffer:
            buffer.put(era, era.backend.upload(flat.copy() if era.backend.host_arrays else flat))
            return buffer

        return self.attempt(make)

    def write(self, buffer: FailoverBuffer, array: NDArray[Any]) -> None:
        """Put an array into a buffer of its size and type."""
        flat = np.array(array, order="C").reshape(-1)
        if buffer._backend is not self or flat.dtype != buffer.dtype or flat.size != buffer.size:
            raise ValueError(f"a buffer of {buffer.size} {buffer.dtype} was given {flat.size} {flat.dtype}")
        contents = Contents(buffer, flat, None, 0)

        def put(era: Era) -> bool | None:
            era.backend.write(self.places(era, [buffer])[0], flat)
            return self.note(era, [contents]) or None

        self.attempt(put)

    def execute(self, steps: Sequence[Step], read: Sequence[FailoverBuffer] = ()) -> list[NDArray[Any]]:
        """Run steps, then return the contents of the buffers in ``read``."""
        return self.submit(steps, read).result()

    def submit(self, steps: Sequence[Step], read: Sequence[FailoverBuffer] = ()) -> FailoverSubmission:
        """Start what `execute` does."""
        return self.program(steps, read).submit()

    def program(
        self, steps: Sequence[Step], read: Sequence[FailoverBuffer], scratch: Sequence[FailoverBuffer] = ()
    ) -> FailoverProgram:
        """Steps and buffers to read, to be submitted any number of times."""
        return FailoverProgram(self, steps, read, scratch)

    def attempt(self, call: Callable[[Era], Result | None]) -> Result:
        """What a call gives on the device in use; on the next one where it is lost, or changes meanwhile (None)."""
        while True:
            era = self.era
            try:
                result = call(era)
            except LOSSES as error:
                self.fail_over(era, error)
                continue
            if result is not None:
                return result

    def places(self, era: Era, buffers: Sequence[FailoverBuffer]) -> list[Any]:
        """Where buffers lie on the device of an era, made again there as far as they do not."""
        found = [buffer.found(era) for buffer in buffers]
        if all(place is not None for place in found):
            return found
        with self.lock:
            remaking = _Remaking(era)
            try:
                return [remaking.place(buffer) for buffer in buffers]
            except LOSSES:
                raise
            except TooLargeError as error:  # what fitted the device before need not fit this one
                raise DeviceMemoryError(str(error)) from error

    def arrays(self, wanted: Sequence[Contents]) -> list[NDArray[Any]]:
        """Contents, made again."""

        def made(era: Era) -> list[NDArray[Any]]:
            with self.lock:
                return _Remaking(era).arrays(wanted)

        return self.attempt(made)

    def note(self, era: Era, changed: Sequence[Contents]) -> bool:
        """Remember what buffers hold now; False when the device changed meanwhile and the call counts for nothing."""
        if not changed:
            return self.era is era
        with self.lock:
            if self.era is not era:
                return False
            for contents in changed:
                assert contents.owner is not None
                owner = contents.owner()
                if owner is not None:
                    owner.contents = contents
            return True

    def shorten(self, buffers: Sequence[FailoverBuffer]) -> None:
        """Read back what has become too much to make again."""
        long = [buffer for buffer in buffers if _too_much(buffer)]
        if not long:
            return
        found = [(buffer, buffer.contents) for buffer in long]
        try:
            arrays = self.execute([], long)
        except TooLargeError:  # then it is made again, however long that takes
            return
        with self.lock:
            for (buffer, contents), array in zip(found, arrays, strict=True):
                if buffer.contents is contents:
                    buffer.contents = Contents(buffer, np.array(array), None, 0)

    def fail_over(self, era: Era, error: ScgpuError) -> None:
        """Let the next device serve, unless another thread has seen to it.

        Raises
        ------
        ScgpuError
            The error itself, when there is no other device.
        """
        with self.lock:
            if self.era is not era:
                return
            if self._left is None:
                self._left = list(self._following(self._first))
            self._largest = self.largest_buffer
            while self._left:
                device = self._left.pop(0)
                try:
                    backend = self._start(device)
                except ScgpuError:
                    continue
                if backend.largest_buffer >= self._largest:
                    self.era = Era(backend, device)
                    break
            else:
                raise error
        _warn(f"{era.device} failed ({error}); its work goes on on {device}, with the same bits")


def _too_much(buffer: FailoverBuffer) -> bool:
    contents = buffer.contents
    if contents is None or contents.run is None:
        return False
    most = max(HISTORY_BYTES, HISTORY_SHARE * buffer.size * buffer.dtype.itemsize)
    return contents.depth > LONGEST_HISTORY or contents.nbytes > most


def _warn(text: str) -> None:
    """Warn at the line that called scgpu."""
    here, level, frame = str(Path(__file__).parent), 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, DeviceLossWarning, stacklevel=level)
