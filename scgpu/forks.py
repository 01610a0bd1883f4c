"""Forks: locks that a forked child finds free, whichever thread of its parent held them."""

from __future__ import annotations

import os
import threading


class ForkLock:
    """A re-entrant lock that no thread of the parent holds in a forked child.

    Of the parent's threads the child has only the one that forked. What another one held at
    that moment would stay locked for ever.
    """

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._renew()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        with _renewal:
            if self._process == os.getpid():
                return
            # The thread that forked may hold it itself, and will release it.
            if self._lock.acquire(blocking=False):
                self._lock.release()
            else:
                self._lock = threading.RLock()
            self._process = os.getpid()


_renewal = threading.Lock()


def _forget() -> None:
    global _renewal
    _renewal = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
