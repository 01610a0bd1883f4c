"""Threads of the ``cpu`` device: how many, and their start.

Python starts the threads and the native library puts them to work: they wait in native
code without the interpreter's lock, and the library needs no thread library of its own.
"""

from __future__ import annotations

import os
import threading

from scgpu import arguments
from scgpu._cpu import library
from scgpu.forks import ForkLock

VARIABLE = "SCGPU_NUM_THREADS"

_lock = ForkLock()
_workers: list[threading.Thread] = []
_started = False


def _forget() -> None:
    # A forked child has the calling thread alone; it starts workers of its own at first use.
    global _started
    # Also when the parent was about to start them.
    if _started or _workers:
        library().scgpu_reset_threads()
    _workers.clear()
    _started = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _default() -> int:
    most = int(library().scgpu_most_threads())
    forced = os.environ.get(VARIABLE, "").strip()
    if forced:
        if not forced.isdecimal() or not 1 <= int(forced) <= 1024:
            raise ValueError(f"{VARIABLE} must be a number from 1 to 1024; got {forced!r}")
        return min(int(forced), most)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, most)


def num_threads() -> int:
    """Threads that the ``cpu`` device uses, the calling one among them.

    Returns
    -------
    int
        What `set_num_threads` was given last, else ``SCGPU_NUM_THREADS``, else the number of
        processors that this process may use. 1 on systems where the library has no pool (all
        but Linux).

    Raises
    ------
    ValueError
        When ``SCGPU_NUM_THREADS`` is not a number from 1 to 1024.
    NativeLibraryError
        When the native library does not load.
    """
    return int(library().scgpu_threads()) if _started else _default()


def set_num_threads(n: int) -> None:
    """Let the ``cpu`` device use ``n`` threads, the calling one among them.

    May be called at any time, also while other threads compute. No result depends on it.

    Parameters
    ----------
    n : int
        1 to 1024.

    Raises
    ------
    ValueError
        Another number.
    TypeError
        Not an integer.
    NativeLibraryError
        When the native library does not load.
    """
    global _started
    count = arguments.integer("n", n, 1, 1024)
    lib = library()
    with _lock:
        lib.scgpu_set_threads(min(count, lib.scgpu_most_threads()))
        wanted = lib.scgpu_threads() - 1
        for worker in _workers[wanted:]:
            worker.join()  # leaves at the end of the chunk it works on
        del _workers[wanted:]
        for index in range(len(_workers) + 1, wanted + 1):
            worker = threading.Thread(target=lib.scgpu_serve, args=(index,), name=f"scgpu-{index}", daemon=True)
            worker.start()
            _workers.append(worker)
        _started = True


def start() -> None:
    """Start the default number of threads, unless a number was set already."""
    if not _started:
        set_num_threads(_default())
