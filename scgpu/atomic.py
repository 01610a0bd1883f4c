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
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` that takes its place at the end of the block, and is gone when the block fails.

    Raises
    ------
    OSError
        The file cannot be written; it names ``path``. What was at ``path`` is still there.
    """
    target = Path(path)
    # Not tempfile: its files are for nobody but the user, whatever the umask says.
    scratch = target.with_name(f"{SCRATCH}{os.urandom(6).hex()}.tmp")
    try:
        with scratch.open("x+b") as file:
            yield file
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if error.filename == str(scratch):
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
