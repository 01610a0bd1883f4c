"""What runs in the helper process of an isolated GPU: a `GpuBackend`, and the calls that come for it.

One thread does everything, so that calls take effect in the order in which they came. While the
device works it asks in turns whether another call is here and whether the oldest submission is
over. Answers to submissions are sent unasked.
"""

from __future__ import annotations

import marshal
import mmap
import os
import select
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu._gpu import GpuBackend
from scgpu._gpu_raw import LONGEST_SLEEP, SLEEP_SHARE, SPIN_SECONDS, _give_way
from scgpu._isolated_link import PIECE_BYTES, STDERR_BYTES, Inbox, failure_of, message, watch
from scgpu.backend import DTYPES, Changes, Device, Step, Submission
from scgpu.devices import adapter_of

_MOST_DESCRIPTORS = 16  # that come with one piece; a message has at most two

Params = tuple[tuple[str, int], ...]
Data = bytes | tuple[int, int]  # inline, or number and bytes of a segment


class _Started:
    """A submission on its way, and where its results go: a segment, or the answer itself."""

    def __init__(self, submission: Submission, landing: int | None, segment: int | None) -> None:
        self.submission = submission
        self.landing = landing  # number of the answer with the results, where there is another one before
        self.segment = segment


class Server:
    """Answers the calls of one parent process."""

    def __init__(self, link: socket.socket) -> None:
        self._socket = link
        self._inbox = Inbox()
        self._descriptors: deque[int] = deque()
        self._gpu: Any = None  # until the first call
        # What the parent named: buffers, programs and segments.
        self._objects: dict[int, Any] = {}
        self._flying: dict[int, _Started] = {}
        self._since = 0.0
        self._kinds: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "tuned": self._tuned,
            "empty": self._empty,
            "upload": self._upload,
            "write": self._write,
            "program": self._program,
            "submit": self._submit,
            "run": self._run,
        }

    def serve(self) -> None:
        """Work until the parent closes its end."""
        while True:
            if self._readable():
                piece, descriptors, _, _ = socket.recv_fds(self._socket, PIECE_BYTES, _MOST_DESCRIPTORS)
                if not piece:
                    return
                self._descriptors += descriptors
                for call in self._inbox.feed(piece):
                    self._answer(*call)
                if os.fstat(2).st_size > STDERR_BYTES:
                    os.ftruncate(2, 0)
                    os.lseek(2, 0, os.SEEK_SET)
            self._deliver()

    def _readable(self) -> bool:
        """Wait for a call; while the device works only as long as a wait for it may last."""
        if not self._flying:
            return True
        passed = time.perf_counter() - self._since
        pause = 0.0 if passed < SPIN_SECONDS else min(passed * SLEEP_SHARE, LONGEST_SLEEP)
        readable = bool(select.select([self._socket], [], [], pause)[0])
        if not readable and not pause:
            _give_way()
        return readable

    def _answer(
        self,
        number: int,
        kind: str,
        introduced: Sequence[tuple[int, int]],
        released: Sequence[int],
        content: bytes,
    ) -> None:
        for segment, nbytes in introduced:
            descriptor = self._descriptors.popleft()
            self._objects[segment] = mmap.mmap(descriptor, nbytes)
            os.close(descriptor)
        for one in released:
            self._objects.pop(one, None)
            if self._flying.pop(one, None) is not None:  # a submission whose results nobody wants
                self._reply(one, None, None)
        try:
            value = self._kinds[kind](*marshal.loads(content))  # noqa: S302 - from our parent
        except Exception as error:
            self._reply(number, error, None)
            return
        if isinstance(value, _Started):
            if not self._flying:
                self._since = time.perf_counter()
            if value.landing is not None:
                self._reply(number, None, None)
                number = value.landing
            self._flying[number] = value
        else:
            self._reply(number, None, value)

    def _reply(self, number: int, error: Exception | None, value: Any) -> None:
        self._socket.sendall(message((number, None if error is None else failure_of(error), value)))

    def _deliver(self) -> None:
        """Send the results of the submissions that are over; they end in their order."""
        while self._flying:
            number, oldest = next(iter(self._flying.items()))
            try:
                if not oldest.submission.done():
                    return
                value = self._results(oldest)
            except Exception as error:
                self._reply(number, error, None)
            else:
                self._reply(number, None, value)
            del self._flying[number]
            self._since = time.perf_counter()

    def _results(self, started: _Started) -> bytes | None:
        arrays = [array.view(np.uint8) for array in started.submission.result()]
        if started.segment is None:
            return b"".join(array.tobytes() for array in arrays)
        octets = np.frombuffer(self._objects[started.segment], np.uint8)
        begin = 0
        for array in arrays:
            octets[begin : begin + array.size] = array
            begin += array.size
        return None

    def _start(self, index: int, name: str, backend: str, kind: str, driver: str, tuned: Any) -> int:
        chosen = Device(index, "gpu", name, backend, kind, driver)
        self._gpu = GpuBackend(chosen, adapter_of(chosen))
        self._tuned(tuned)
        return int(self._gpu.largest_buffer)

    def _tuned(self, tuned: Sequence[tuple[str, str, int]]) -> None:
        self._gpu.tuned = {(op, shape_class): variant for op, shape_class, variant in tuned}

    def _array(self, dtype: np.dtype[Any], data: Data) -> NDArray[Any]:
        if isinstance(data, bytes):
            return np.frombuffer(data, dtype)
        segment, nbytes = data
        return np.frombuffer(self._objects[segment], np.uint8, nbytes).view(dtype)

    def _empty(self, number: int, dtype: str, size: int) -> None:
        self._objects[number] = self._gpu.empty(dtype, size)

    def _upload(self, number: int, dtype: str, data: Data) -> None:
        self._objects[number] = self._gpu.upload(self._array(DTYPES[dtype], data))

    def _write(self, number: int, data: Data) -> None:
        buffer = self._objects[number]
        self._gpu.write(buffer, self._array(buffer.dtype, data))

    def _steps(self, steps: Sequence[tuple[str, Params, Sequence[int]]]) -> list[Step]:
        return [
            Step(op, dict(params), tuple(self._objects[buffer] for buffer in buffers)) for op, params, buffers in steps
        ]

    def _buffers(self, numbers: Sequence[int]) -> list[Any]:
        return [self._objects[number] for number in numbers]

    def _program(self, number: int, steps: Any, read: Sequence[int]) -> None:
        self._objects[number] = self._gpu.program(self._steps(steps), self._buffers(read))

    def _submit(self, steps: Any, read: Sequence[int], landing: int | None, segment: int | None) -> _Started:
        return _Started(self._gpu.submit(self._steps(steps), self._buffers(read)), landing, segment)

    def _run(
        self,
        program: int,
        source: int | None,
        data: Data | None,
        changes: Changes,
        landing: int | None,
        segment: int | None,
    ) -> _Started:
        buffer = None if source is None else self._objects[source]
        array = None if buffer is None or data is None else self._array(buffer.dtype, data)
        return _Started(self._objects[program].submit(buffer, array, changes), landing, segment)


def main(descriptor: int, parent: int) -> None:
    """Serve the parent at the other end of an inherited socket, and end with it."""
    threading.Thread(target=watch, args=(parent, lambda: os._exit(0)), daemon=True).start()
    status = 0
    try:
        # A low number, whatever the parent has open: select takes no others.
        low = os.dup(descriptor)
        os.close(descriptor)
        Server(socket.socket(fileno=low)).serve()
    except ConnectionError:
        pass  # the parent is gone
    except BaseException:
        traceback.print_exc()
        status = 1
    # The driver's own end takes time, and may fail where nobody can be told.
    os._exit(status)
