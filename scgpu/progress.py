"""Progress of long work: a bar on standard error, or what the caller wants to be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

PATIENCE = 1.0  # seconds before a bar that nobody asked for appears


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def update(self, done: int) -> None:
        """So much is done."""
        ...


class _Silent:
    def update(self, done: int) -> None:
        """Nobody wants to know."""


class _Told:
    def __init__(self, tell: Callable[[int, int], None], total: int) -> None:
        self._tell, self._total = tell, total

    def update(self, done: int) -> None:
        self._tell(done, self._total)


class _Bar:
    def __init__(self, total: int, unit: str, asked: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=total,
            unit=unit,
            unit_scale=True,
            leave=asked,
            disable=None if not asked else False,
            delay=0 if asked else PATIENCE,
        )

    def update(self, done: int) -> None:
        self.bar.update(done - self.bar.n)


@contextmanager
def progress_of(
    progress: bool | Callable[[int, int], None] | None, total: int, unit: str = " steps"
) -> Iterator[Progress]:
    """What to tell: a bar (True; None where standard error is a terminal), nothing (False), or a callable.

    Raises
    ------
    TypeError
        ``progress`` is something else.
    """
    if callable(progress):
        yield _Told(progress, total)
        return
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(
            f"progress must be True, False, None or a callable of two numbers; got {type(progress).__name__}"
        )
    if progress is False:
        yield _Silent()
        return
    bar = _Bar(total, unit, asked=bool(progress))
    try:
        yield bar
    finally:
        bar.bar.close()
