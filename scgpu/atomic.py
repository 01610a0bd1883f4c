"""atomic: files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SCRATCH = ".scgpu-"
"""How the name of a file that is being written begins."""


@contextmanager
def replacing(path: str | os.PathLike[str], *, sole_writer: bool = False) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` that takes its place at the end of the block, and is gone when the block fails.

    The file is on the disk before it takes the place, so that not even a power cut leaves half of it; then
    the folder is.

    Parameters
    ----------
    path : path
        The file to replace or make.
    sole_writer : bool
        Nobody else writes ``path`` at this time: the file beside it then has a name of its own, and what a
        process that was killed left there is written over instead of piling up.

    Raises
    ------
    OSError
        The file cannot be written; it names ``path``. What was at ``path`` is still there.
    """
    target = Path(path)
    # Not tempfile: its files are for nobody but the user, whatever the umask says.
    name = target.name if sole_writer else os.urandom(6).hex()
    scratch = target.with_name(f"{SCRATCH}{name}.tmp")
    try:
        with scratch.open("w+b" if sole_writer else "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if error.filename == str(scratch):
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(target)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the name of a file last: what a folder lists is written apart from what its files hold.

    Where folders cannot be opened or synchronised, as on Windows and some network file systems, the
    system sees to that itself, or nobody can.
    """
    try:
        folder = os.open(Path(path).parent, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)
