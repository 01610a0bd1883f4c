"""archive: one file of arrays and a header, versioned, without pickled objects, checked before it is believed.

A file is an .npz: a zip archive of stored (not compressed) .npy members. Its archive comment is a SHA-256 of
every byte before it, so a flipped bit anywhere is found. A checksum proves nothing about who wrote a file: what
stands in one is believed only as far as it was checked, and takes no more memory than the file has bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.atomic import replacing
from scgpu.backend import require_host_memory
from scgpu.errors import ScgpuError, TooLargeError

HEADER = "header"
MEMBER = re.compile(r"[a-z0-9_.]{1,200}\.npy")
READ_BYTES = 1 << 24
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufc][0-9]{1,2})', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,18}, )*(?:[0-9]{1,18},?)?)\), \} *\n"
)
ZIP_MAGIC = b"PK\x03\x04"

# Objects that Python makes of a header, or of a directory of members, are up to 25 times as large.
MOST_HEADER_BYTES = 4 << 20
MOST_DIRECTORY_BYTES = 4 << 20

# The archive comment, and the records of the zip format before it: PKWARE, APPNOTE.TXT 6.3.10, 4.3.14 to 4.3.16.
SEAL = b"scgpu sha256 "
SEAL_BYTES = len(SEAL) + 64
END = struct.Struct("<4s4H2IH")
END_MAGIC = b"PK\x05\x06"
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
LOCATOR_MAGIC = b"PK\x06\x07"

# What zipfile, NumPy, json and a maker raise at contents that were damaged or made up; RuntimeError is zipfile's word
# for encryption, and for methods of compression that it does not know.
DAMAGES = (
    *(ValueError, TypeError, EOFError, RuntimeError, LookupError, AttributeError, ArithmeticError),
    *(zipfile.BadZipFile, struct.error),
)

Made = TypeVar("Made")


class Format(NamedTuple):
    """What a file is: a kind of thing in words, the version of its layout, and who writes it."""

    kind: str
    version: int
    writer: str

    @property
    def name(self) -> str:
        """What the header says it is."""
        return f"scgpu {self.kind}"


def save(
    path: str | os.PathLike[str], file_format: Format, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a header that is JSON and arrays into one .npz file, whatever its name; all of it or nothing.

    Equal contents give equal files.

    Raises
    ------
    OSError
        The file cannot be written; what was there is still there.
    """
    with replacing(arguments.path("path", path)) as file:
        write(file, file_format, header, arrays)


def write(file: IO[bytes], file_format: Format, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write to an open file, which can be read too, what `save` writes."""
    text = json.dumps({"format": file_format.name, "version": file_format.version, **header}).encode()
    if len(text) > MOST_HEADER_BYTES:
        raise TooLargeError(f"a header of {len(text):,} bytes is above {MOST_HEADER_BYTES:,}; save fewer parts")
    # Bytes, not a string: NumPy writes strings in 4 bytes a character.
    octets = np.frombuffer(text, np.uint8)
    plain = {name: np.asarray(arrays[name], order="C") for name in arrays}
    np.savez(file, allow_pickle=False, **{HEADER: octets, **plain})
    _seal(file)


def load(path: str | os.PathLike[str], file_format: Format, make: Callable[[Archive], Made]) -> Made:
    """Open a file that `save` wrote, and what ``make`` makes of it.

    Raises
    ------
    OSError
        There is no such file, or it cannot be read.
    ValueError
        The file is of another kind or version, was cut short or changed, or does not fit together.
    TooLargeError
        What is in it does not fit the memory of the machine.
    """
    where = arguments.path("path", path)
    mode = where.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
        raise ValueError(f"{str(where)!r} cannot be loaded as a {file_format.kind}: it is no regular file")
    with where.open("rb") as file:
        return read(file, str(where), file_format, make)


def read(file: IO[bytes], where: str, file_format: Format, make: Callable[[Archive], Made]) -> Made:
    """What ``make`` makes of an open file; errors, which name ``where`` it is, as those of `load`."""
    try:
        with _opened(file, file_format) as contents:
            return make(Archive(contents, file_format))
    except ScgpuError:  # of a device, or of its memory
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # zipfile went to where a damaged directory of the file told it to go
        raise ValueError(f"{where!r} cannot be loaded as a {file_format.kind}: it is damaged") from error
    except DAMAGES as error:
        told = str(error) if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{where!r} cannot be loaded as a {file_format.kind}: {told}") from error


def _digest(file: IO[bytes], nbytes: int) -> bytes:
    """SHA-256 of the first bytes of a file, in hexadecimal digits."""
    file.seek(0)
    found = hashlib.sha256()
    while piece := file.read(min(nbytes, 1 << 20)):
        found.update(piece)
        nbytes -= len(piece)
    return found.hexdigest().encode()


def _seal(file: IO[bytes]) -> None:
    """Put a checksum of all its bytes at the end of a zip archive."""
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", SEAL_BYTES))
    size = file.seek(0, os.SEEK_END)
    directory_bytes = _directory_bytes(file, size)
    if directory_bytes > MOST_DIRECTORY_BYTES:
        raise TooLargeError(
            f"a directory of {directory_bytes:,} bytes is above {MOST_DIRECTORY_BYTES:,}; save fewer arrays"
        )
    digest = _digest(file, size)
    file.seek(0, os.SEEK_END)
    file.write(SEAL + digest)


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """Bytes of the directory of a zip archive whose comment begins after ``size`` bytes; -1 where it has no end."""
    if size < END.size:
        return -1
    file.seek(size - min(size, END.size + LOCATOR.size + END64.size))
    tail = file.read(END.size + LOCATOR.size + END64.size)
    magic, *_, directory_bytes, _, comment_bytes = END.unpack_from(tail, len(tail) - END.size)
    # zipfile takes the last of several ends
    if magic != END_MAGIC or comment_bytes != SEAL_BYTES or tail.rfind(END_MAGIC) != len(tail) - END.size:
        return -1
    before = len(tail) - END.size - LOCATOR.size
    if before >= END64.size and tail[before:].startswith(LOCATOR_MAGIC):  # beyond 4 GiB
        directory_bytes = END64.unpack_from(tail, before - END64.size)[-2]
    return int(directory_bytes)


def _opened(file: IO[bytes], file_format: Format) -> zipfile.ZipFile:
    """The archive in a file whose checksum is right and whose members are such as `save` writes."""
    magic = file.read(len(ZIP_MAGIC))
    if magic != ZIP_MAGIC:
        raise ValueError(f"it was not written by {file_format.writer}" if magic else "it is empty")
    size = file.seek(0, os.SEEK_END)
    require_host_memory(size)
    file.seek(size - min(size, SEAL_BYTES))
    seal = file.read(SEAL_BYTES)
    directory_bytes = _directory_bytes(file, size - SEAL_BYTES)
    if not seal.startswith(SEAL) or directory_bytes < 0:
        raise ValueError(
            f"its end is missing: it was cut short or damaged, or not written by {file_format.writer}; copy it again"
        )
    if _digest(file, size - SEAL_BYTES) != seal[len(SEAL) :]:
        raise ValueError("its checksum is wrong: it was damaged or changed; copy it again")
    if directory_bytes > (most := min(MOST_DIRECTORY_BYTES, size)):
        raise ValueError(f"its directory of {directory_bytes:,} bytes is above {most:,}")
    contents = zipfile.ZipFile(file)
    _require_members(contents, size, file_format)
    return contents


def _require_members(contents: zipfile.ZipFile, size: int, file_format: Format) -> None:
    """Refuse members that `save` does not write, such as compressed ones, or two that share their bytes."""
    names, held = set(), 0
    for info in contents.infolist():
        held += info.file_size
        if not MEMBER.fullmatch(info.orig_filename) or info.filename != info.orig_filename:
            what = "has a name that no array has"
        elif info.filename in names:
            what = "is there twice"
        elif info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            what = "is compressed"
        elif info.flag_bits:
            what = "is encrypted or marked otherwise"
        elif held > size or not 0 <= info.header_offset < size:
            what = f"passes the {size:,} bytes of the file"
        else:
            names.add(info.filename)
            continue
        raise ValueError(f"its member {info.orig_filename[:80]!r} {what}; it was not written by {file_format.writer}")


def _described(member: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Type and shape of an array, of the header that `save` has NumPy write; None of another one.

    NumPy's own parser is Python's, which takes far more, and fails at times where several threads use it.
    """
    start = member.read(len(NPY_MAGIC) + 2)
    if len(start) != len(NPY_MAGIC) + 2 or not start.startswith(NPY_MAGIC):
        return None
    found = NPY_HEADER.fullmatch(member.read(int.from_bytes(start[len(NPY_MAGIC) :], "little")))
    if found is None:
        return None
    kind, shape = found.groups()
    try:
        dtype = np.dtype(kind.decode())
    except TypeError:  # of a size that no number has
        return None
    return dtype, tuple(int(one) for one in shape.split(b",") if one.strip())


class Archive:
    """An open file: its header, and its arrays as they are asked for."""

    def __init__(self, contents: zipfile.ZipFile, file_format: Format) -> None:
        self._contents = contents
        self._format = file_format
        self.header = self._header()

    def _header(self) -> dict[str, Any]:
        kind, version, writer = self._format
        known = f"{HEADER}.npy" in self._contents.namelist()
        if known and (nbytes := self._contents.getinfo(f"{HEADER}.npy").file_size) > MOST_HEADER_BYTES + 256:
            raise ValueError(f"its header of {nbytes:,} bytes is above {MOST_HEADER_BYTES:,}")
        octets = self.array(HEADER, np.dtype(np.uint8), None) if known else b""
        try:
            header = json.loads(bytes(octets))
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or header.get("format") != self._format.name:
            raise ValueError(f"it is an archive without the header of a {kind}; it was not written by {writer}")
        if header.get("version") != version:
            raise ValueError(
                f"it is of version {header.get('version')!r}, and this scgpu reads version {version}; "
                "use the scgpu that wrote it"
            )
        return header

    @contextmanager
    def _member(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None
    ) -> Iterator[tuple[IO[bytes], tuple[int, ...], int]]:
        """An array's bytes, its shape and how many they are, where it has this type and shape (None: any)."""
        try:
            info = self._contents.getinfo(f"{name}.npy")
        except KeyError:
            raise ValueError(f"the array {name} is missing") from None
        with self._contents.open(info) as member:
            described = _described(member)
            if described is None:
                raise ValueError(f"the array {name} has a header that {self._format.writer} does not write")
            kind, found = described
            if kind != dtype or found != (found if shape is None else shape):
                wanted = "any shape" if shape is None else f"shape {shape}"
                raise ValueError(f"{name} must be {dtype} of {wanted}; it is {kind} of shape {found}")
            nbytes = math.prod(found) * dtype.itemsize
            if info.file_size - member.tell() != nbytes:
                raise ValueError(f"{name} must have {nbytes} bytes; it has {info.file_size - member.tell()}")
            yield member, found, nbytes

    def shape(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """The shape of an array, as `array` checks it, without reading it."""
        with self._member(name, dtype, shape) as (_, found, _):
            return found

    def array(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> NDArray[Any]:
        """An array, which must have this type and shape (None: any) before memory is taken for it."""
        with self._member(name, dtype, shape) as (member, found, nbytes):
            require_host_memory(nbytes)
            array = np.empty(found, dtype)
            octets = array.reshape(-1).view(np.uint8)
            for begin in range(0, nbytes, READ_BYTES):  # the last piece is where the checksum is compared
                part = octets[begin : begin + READ_BYTES]
                piece = member.read(len(part))
                if len(piece) != len(part):
                    raise ValueError(f"{name} ends after {begin + len(piece)} of {nbytes} bytes")
                part[:] = np.frombuffer(piece, np.uint8)
        return array
