"""What some tests have compiled, which takes minutes: in a whole run beside the others, from the start.

Most tests use one processor. A test module says what it will ask for in ``BUILDS``, as functions and their
arguments. They are called in a process of their own, which gives way to the tests and sees nothing of what those patch.
Where tests run in several processes (``pytest -n``) no processor is idle: each builds what its tests ask for.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

WHOLE_RUN = 2000  # tests; who runs fewer may need no builds
ALONE = "PYTEST_XDIST_WORKER" not in os.environ
_VARIABLE = "SCGPU_TEST_BUILDS"  # tells that process where the tests look

if _VARIABLE not in os.environ or not ALONE:
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="scgpu-builds-")
    atexit.register(shutil.rmtree, os.environ[_VARIABLE], ignore_errors=True)
FOLDER = Path(os.environ[_VARIABLE])


def _give_way() -> None:
    if os.name == "posix":
        os.nice(10)


_pool: ProcessPoolExecutor | None = None
_made: dict[Any, Future[Path]] = {}


def start(make: Callable[..., Path], *arguments: Any) -> None:
    """Let ``made`` find its result there."""
    global _pool
    if _pool is None:
        _pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _give_way)
    _made[make, arguments] = _pool.submit(make, *arguments)


def made(make: Callable[..., Path], *arguments: Any) -> Path:
    """What ``make(*arguments)`` returns, which is called once in a run."""
    found = _made.get((make, arguments))
    if found is None or found.cancel():  # its turn has not come
        found = _made[make, arguments] = Future()
        try:
            found.set_result(make(*arguments))
        except BaseException as error:
            found.set_exception(error)
            raise
    return found.result()


def stop() -> None:
    """Make no more of what was started."""
    if _pool is not None:
        _pool.shutdown(cancel_futures=True)
