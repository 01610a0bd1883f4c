"""archive: one file of arrays and a header, versioned, without pickled objects, checked while it is read."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgpu.atomic import replacing
from scgpu.backend import require_host_memory
from scgpu.errors import TooLargeError

HEADER = "header"
READ_BYTES = 1 << 24
ZIP_MAGIC = b"PK\x03\x04"

# What zipfile, NumPy and json raise at contents that were damaged or made up; RuntimeError is zipfile's word for
# encryption, and for methods of compression that it does not know.
DAMAGES = (ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

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
    with replacing(path) as file:
        write(file, file_format, header, arrays)


def write(file: BinaryIO, file_format: Format, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write to an open file what `save` writes."""
    text = json.dumps({"format": file_format.name, "version": file_format.version, **header})
    # Bytes, not a string: NumPy writes strings in 4 bytes a character.
    octets = np.frombuffer(text.encode(), np.uint8)
    rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # readers know no other order
    np.savez(file, allow_pickle=False, **{HEADER: octets, **rows})


def load(path: str | os.PathLike[str], file_format: Format, make: Callable[[Archive], Made]) -> Made:
    """Open a file that `save` wrote, and what ``make`` makes of it.

    Raises
    ------
    OSError
        There is no such file, or it cannot be read.
    ValueError
        The file is of another kind or version, was cut short, or does not fit together.
    TooLargeError
        What is in it does not fit the memory of the machine.
    """
    with Path(path).open("rb") as file:
        return read(file, os.fspath(path), file_format, make)


def read(file: BinaryIO, where: str, file_format: Format, make: Callable[[Archive], Made]) -> Made:
    """What ``make`` makes of an open file; errors, which name ``where`` it is, as those of `load`."""
    try:
        with _opened(file, file_format) as contents:
            return make(Archive(contents, file_format))
    except TooLargeError:
        raise
    except DAMAGES as error:
        raise ValueError(f"{where!r} cannot be loaded as a {file_format.kind}: {error}") from error


def _opened(file: BinaryIO, file_format: Format) -> zipfile.ZipFile:
    magic = file.read(len(ZIP_MAGIC))
    if magic != ZIP_MAGIC:
        raise ValueError(f"it was not written by {file_format.writer}" if magic else "it is empty")
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise ValueError("its end is missing: it was cut short or damaged; copy it again") from None


class Archive:
    """An open file: its header, and its arrays as they are asked for."""

    def __init__(self, contents: zipfile.ZipFile, file_format: Format) -> None:
        self._contents = contents
        self._format = file_format
        self.header = self._header()

    def _header(self) -> dict[str, Any]:
        kind, version, writer = self._format
        known = f"{HEADER}.npy" in self._contents.namelist()
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

    def array(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> NDArray[Any]:
        """An array, which must have this type and shape (None: any) before memory is taken for it."""
        try:
            info = self._contents.getinfo(f"{name}.npy")
        except KeyError:
            raise ValueError(f"the array {name} is missing") from None
        with self._contents.open(info) as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError(f"the array {name} has a header that {self._format.writer} does not write")
            found, by_columns, kind = np.lib.format.read_array_header_1_0(member)
            if by_columns:
                raise ValueError(f"the array {name} is in an order that {self._format.writer} does not write")
            if kind != dtype or found != (found if shape is None else shape):
                wanted = "any shape" if shape is None else f"shape {shape}"
                raise ValueError(f"{name} must be {dtype} of {wanted}; it is {kind} of shape {found}")
            nbytes = math.prod(found) * dtype.itemsize
            if info.file_size - member.tell() != nbytes:
                raise ValueError(f"{name} must have {nbytes} bytes; it has {info.file_size - member.tell()}")
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
