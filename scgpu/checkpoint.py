"""checkpoint: what long work has done by now, in a file that survives whatever ends the work.

A log is a row of records, each with a checksum that covers it and all before it; a record is on the disk before
the work goes on. A process that is killed leaves at most one record that is cut short, which is the last one;
anything else that is not as it was written is damage, and refused. What is in a record is an `scgpu.archive`:
a header and arrays, nothing that could run.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import signal
import struct
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgpu import archive, arguments
from scgpu.archive import Archive, Format
from scgpu.atomic import replacing, sync_folder
from scgpu.backend import require_host_memory
from scgpu.errors import CheckpointWarning

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one checkpoint there
    fcntl = None  # type: ignore[assignment]

MARK = b"scgpu\r\n\x1a"
HEAD = struct.Struct("<8sQ32sI")  # mark, bytes of the payload, SHA-256, CRC-32 of these three
ORIGIN = bytes(32)  # what the checksum of the first record goes on from
BLOCK_BYTES = 1 << 20

Header = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]
Made = TypeVar("Made")
Record = Callable[[], tuple[Header, Arrays]]


def digest_of(header: Any, arrays: Arrays | None = None) -> str:
    """SHA-256 of something that is JSON, and of the names, types, shapes and elements of arrays."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted((arrays or {}).items()):
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def tell(path: str, error: OSError) -> None:
    """Warn that a checkpoint could not be written."""
    warnings.warn(
        CheckpointWarning(
            f"the checkpoint {path!r} could not be written ({error.strerror or error}); the work goes on, what was "
            "kept before is still there, and the rest is tried again with the next piece"
        ),
        stacklevel=2,
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block: what is written stands beside what it is thought to be."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    noted: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: noted.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            before(*noted[0])


def _framed(before: bytes, file_format: Format, header: Header, arrays: Arrays) -> tuple[bytes, memoryview]:
    """Head and payload of a record that follows one of a checksum."""
    packed = io.BytesIO()
    archive.write(packed, file_format, header, arrays)
    payload = packed.getbuffer()
    head = HEAD.pack(MARK, len(payload), _checksum(before, payload), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)), payload


def _checksum(before: bytes, payload: bytes | memoryview) -> bytes:
    found = hashlib.sha256(before)
    found.update(payload)
    return found.digest()


def _write(file: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class Log:
    """The file of some work, for this process alone while it is open.

    Use as a context manager; call `begin`, then `records`, then `keep` as often as there is something.

    Parameters
    ----------
    path : path
        Made where it is not there.
    file_format : Format
        What the work is.

    Attributes
    ----------
    path : str
        The file.
    empty : bool
        No work has begun in it.
    end : int
        Bytes of the records that were read or written.
    checksum : bytes
        Of these.

    Raises
    ------
    OSError
        The file cannot be opened, or another process works with it.
    ValueError
        It is something else, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], file_format: Format) -> None:
        self.path = str(arguments.path("checkpoint", path))
        self._format = file_format
        self.end, self.checksum = 0, ORIGIN
        self._waiting: deque[Record] = deque()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file = os.open(self.path, flags, 0o666)
        try:
            self._lock()
            self._first = self._next()
        except BaseException:
            os.close(self._file)
            raise
        self.empty = self._first is None

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others work with the file."""
        os.close(self._file)

    def _lock(self) -> None:
        """Keep other processes out, until this one closes the file or is gone."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "the checkpoint is in use by other work that runs now; give another path", self.path
            ) from None
        except OSError:  # a file system without locks
            pass

    def begin(self, key: Header) -> None:
        """Make sure that the file is of the work that ``key``, JSON, describes; write it where the file is empty.

        Raises
        ------
        ValueError
            It is of other work: the error says what differs.
        OSError
            The file cannot be written.
        """
        if self._first is None:
            try:
                self._append({"key": key}, {})
            except OSError as error:
                with suppress(OSError):
                    Path(self.path).unlink()  # nothing is in it
                raise OSError(error.errno, error.strerror, self.path) from error
            sync_folder(self.path)
            return
        found = self._unpacked(self._first, lambda contents: contents.header.get("key"))
        here = json.loads(json.dumps(key))
        if not isinstance(found, dict):
            raise self.refusal("its first record does not say what it is of")
        for name in {**here, **found}:
            if found.get(name) != here.get(name):
                raise self.refusal(_difference(name, found.get(name), here.get(name)))

    def refusal(self, reason: str) -> ValueError:
        """The error for a file that cannot be continued for a reason."""
        return ValueError(
            f"{self.path!r} cannot be continued as the checkpoint of this {self._format.kind}: {reason}. "
            "Give another path, or delete the file to begin anew"
        )

    def records(self, make: Callable[[Archive], Made], until: tuple[int, bytes] | None = None) -> list[Made]:
        """What ``make`` makes of each record after the first; the last one is cut off where it is not whole.

        Parameters
        ----------
        make : callable
            Called with each record's archive, in order.
        until : (int, bytes), optional
            The `end` and `checksum` at which to stop; what stands behind them is cut off.

        Raises
        ------
        ValueError
            A record is damaged, or the end is another.
        """
        made = []
        while until is None or self.end < until[0]:
            payload = self._next()
            if payload is None:
                break
            made.append(self._unpacked(payload, make))
        if until is not None and until != (self.end, self.checksum):
            raise self.refusal(f"its {self.end:,} bytes of records are not the {until[0]:,} bytes that were written")
        return made

    def keep(self, *records: Record) -> bool:
        """Write records, and those that could not be written before; warn where they cannot be written now either.

        Parameters
        ----------
        records : callables
            What makes the header and arrays of a record when it is written.

        Returns
        -------
        bool
            Everything is on the disk.
        """
        with uninterrupted():
            self._waiting += records
            try:
                while self._waiting:
                    self._append(*self._waiting[0]())
                    self._waiting.popleft()
            except OSError as error:
                tell(self.path, error)
                return False
            return True

    def _append(self, header: Header, arrays: Arrays) -> None:
        """Write a record, all of it or nothing."""
        head, payload = _framed(self.checksum, self._format, header, arrays)
        try:
            os.ftruncate(self._file, self.end)  # what was cut short, and what a failure before left
            os.lseek(self._file, self.end, os.SEEK_SET)
            _write(self._file, head)
            _write(self._file, payload)
            os.fsync(self._file)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._file, self.end)
            raise
        self._pass(head, payload)

    def _pass(self, head: bytes, payload: bytes | memoryview) -> None:
        self.end, self.checksum = self.end + len(head) + len(payload), HEAD.unpack(head)[2]

    def _next(self) -> bytes | None:
        """The payload of the next record, or None where there is none, or one that was cut short."""
        size = os.fstat(self._file).st_size
        os.lseek(self._file, self.end, os.SEEK_SET)
        head = self._read(HEAD.size)
        if MARK.startswith(head[: len(MARK)]) and len(head) < HEAD.size:
            return None
        if _is_head(head):
            _, length, checksum, _ = HEAD.unpack(head)
            if self.end + len(head) + length > size:
                return None
            require_host_memory(length)
            payload = self._read(length)
            if checksum == _checksum(self.checksum, payload):
                self._pass(head, payload)
                return payload
        if not self.end and not head.startswith(MARK) and any(head):
            raise self.refusal("it was not written by scgpu")
        # When the power goes, a file may have its length and not yet its contents: only of its last record.
        if self._goes_on():
            raise self.refusal(f"the record at byte {self.end:,} is damaged")
        warnings.warn(
            CheckpointWarning(
                f"the last record of {self.path!r} is damaged, or was not yet written when the machine went down; "
                "what it held is computed again"
            ),
            stacklevel=2,
        )
        return None

    def _goes_on(self) -> bool:
        """Whether a record begins anywhere behind one that is damaged."""
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as contents:
            place = contents.find(MARK, self.end + 1)
            while place >= 0 and not _is_head(contents[place : place + HEAD.size]):
                place = contents.find(MARK, place + 1)
        return place >= 0

    def _read(self, count: int) -> bytes:
        """Bytes at the place of the file, fewer where it ends."""
        parts = []
        while count and (part := os.read(self._file, count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _unpacked(self, payload: bytes, make: Callable[[Archive], Made]) -> Made:
        return archive.read(io.BytesIO(payload), self.path, self._format, make)


def _is_head(head: bytes) -> bool:
    """Whether bytes are the head of a record."""
    return len(head) == HEAD.size and head.startswith(MARK) and HEAD.unpack(head)[3] == zlib.crc32(head[:-4])


def _difference(name: str, found: Any, here: Any) -> str:
    """What a checkpoint is of, and what is done now."""
    if isinstance(here, str) and len(here) == 64:  # nobody can read a digest
        return f"its {name} differ from those of now"
    return f"its {name} is {found!r}, and now it is {here!r}"


def write_state(path: str, file_format: Format, header: Header, arrays: Arrays) -> None:
    """Replace a file of one record.

    Raises
    ------
    OSError
        It cannot be written; what was there is still there.
    """
    head, payload = _framed(ORIGIN, file_format, header, arrays)
    with replacing(path, sole_writer=True) as file:
        _write(file.fileno(), head)
        _write(file.fileno(), payload)


def read_state(path: str, file_format: Format, make: Callable[[Archive], Made]) -> Made:
    """What ``make`` makes of a file that `write_state` wrote.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is damaged, or something else.
    """
    with Path(path).open("rb") as file:
        head = file.read(HEAD.size)
        length, checksum = HEAD.unpack(head)[1:3] if _is_head(head) else (-1, b"")
        whole = HEAD.size + length == os.fstat(file.fileno()).st_size
        if whole:
            require_host_memory(length)
        payload = file.read(length) if whole else b""
    if not whole or checksum != _checksum(ORIGIN, payload):
        raise ValueError(f"{path!r} is damaged, or was not written by scgpu; delete it, and the checkpoint beside it")
    return archive.read(io.BytesIO(payload), path, file_format, make)
