"""profile: where the time of a piece of code goes, on the devices and on the host."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from scgpu import _trace, arguments, ceiling
from scgpu._trace import Event
from scgpu.backend import Device

_Key = tuple[str, str, Device]


@dataclass(frozen=True)
class Total:
    """All calls of one operation, or all stages of one name, on one device.

    Attributes
    ----------
    name, kind, device
        As of `Event`.
    calls : int
        Their number.
    seconds : float
        Their time together.
    nbytes, bits : int
        Their bytes and stream bits together.
    """

    name: str
    kind: str
    device: Device
    calls: int
    seconds: float
    nbytes: int
    bits: int

    def ceiling(self) -> tuple[str, float] | None:
        """What bounds the operation on this machine, and the share of that ceiling that was reached.

        ``"read"``: its bytes at the rate at which the device reads as many; ``"products"``: its products at
        the rate of rows that stay in cache; whichever takes longer. Measured at the first call. None for
        stages.
        """
        if self.kind != "kernel":
            return None
        bounds: list[tuple[float, str]] = []
        if self.nbytes and (rate := ceiling.read_rate(self.device, self.nbytes // self.calls)):
            bounds.append((self.nbytes / rate, "read"))
        if self.name == "dense" and (rate := ceiling.product_rate(self.device)):
            bounds.append((self.bits / 64 / rate, "products"))
        if not bounds:
            return None
        least, what = max(bounds)
        return what, least / self.seconds


class Profile:
    """What `profile` collected.

    Attributes
    ----------
    events : list of Event
        Kernel calls and stages, in the order in which they became known.
    begin, end : int
        `time.perf_counter_ns` when the block was entered and left.
    """

    def __init__(self) -> None:
        self._sink = _trace.Sink()
        self._stack = ExitStack()
        self.begin = self.end = 0

    def __enter__(self) -> Profile:
        if self.begin:
            raise RuntimeError("a profile is used once; call scgpu.profile() again")
        self.begin = time.perf_counter_ns()
        self._stack.enter_context(_trace.shared(self._sink))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
        finally:
            self.end = time.perf_counter_ns()

    @property
    def events(self) -> list[Event]:
        """Kernel calls and stages so far."""
        return list(self._sink.events)

    @property
    def untimed(self) -> list[Device]:
        """Adapters in use that have no timestamps: their kernels are in no event."""
        return list(self._sink.untimed)

    def totals(self) -> list[Total]:
        """Events summed up by operation or stage and device: kernels first, the longest first."""
        groups: dict[_Key, list[Event]] = {}
        for event in self.events:
            groups.setdefault((event.kind, event.name, event.device), []).append(event)
        totals = [
            Total(
                name,
                kind,
                device,
                len(group),
                sum(event.duration for event in group) / 1e9,
                sum(event.nbytes for event in group),
                sum(event.bits for event in group),
            )
            for (kind, name, device), group in groups.items()
        ]
        return sorted(totals, key=lambda total: (total.kind, -total.seconds))

    def table(self, *, ceilings: bool = True) -> str:
        """The totals as text.

        Parameters
        ----------
        ceilings : bool
            Compare kernels with what the machine can do at best; the first time this measures it, for a
            fraction of a second each.
        """
        if not isinstance(ceilings, bool):
            raise TypeError(f"ceilings must be True or False; got {arguments.shown(ceilings)}")
        kernels = [["kernel", "device", "calls", "ms", "us each", "GB/s", "Gbit/s", "of ceiling"]]
        stages = [["stage", "device", "calls", "ms", "us each", "MB"]]
        for total in self.totals():
            row = [total.name, str(total.device), str(total.calls), f"{1e3 * total.seconds:.3f}"]
            row.append(f"{1e6 * total.seconds / total.calls:.1f}")
            if total.kind == "stage":
                stages.append([*row, f"{total.nbytes / 1e6:.3f}" if total.nbytes else ""])
                continue
            row += [f"{amount / 1e9 / total.seconds:.2f}" if amount else "" for amount in (total.nbytes, total.bits)]
            found = total.ceiling() if ceilings else None
            kernels.append([*row, f"{100 * found[1]:.0f} % {found[0]}" if found else ""])
        notes = [
            f"{device} has no timestamps: its kernels are not listed, their time is within 'wait' and 'submit'"
            for device in self.untimed
        ]
        return "\n".join([*_aligned(kernels), "", *_aligned(stages), *notes]) + "\n"

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write a trace that chrome://tracing and ui.perfetto.dev show: GPU kernels above the host's threads."""
        trace = {"traceEvents": list(_trace_events(self.events, self.begin)), "displayTimeUnit": "ns"}
        arguments.path("path", path).write_text(json.dumps(trace, indent=1) + "\n", encoding="utf-8")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _trace_events(events: Iterable[Event], origin: int) -> Iterable[dict[str, Any]]:
    """Events in the format of Chrome's traces, times in microseconds from ``origin``."""
    processes: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    for event in sorted(events, key=lambda event: event.begin):
        place = f"GPU: {event.device}" if event.gpu else "host"
        lane = "kernels" if event.gpu else event.thread
        if place not in processes:
            processes[place] = len(processes) + 1
            yield _name("process_name", place, processes[place], 0)
        process = processes[place]
        if (place, lane) not in threads:
            threads[place, lane] = len(threads) + 1
            yield _name("thread_name", lane, process, threads[place, lane])
        yield {
            "name": event.name,
            "cat": event.kind,
            "ph": "X",
            "ts": (event.begin - origin) / 1000,
            "dur": event.duration / 1000,
            "pid": process,
            "tid": threads[place, lane],
            "args": {"device": str(event.device), "bytes": event.nbytes, "bits": event.bits, **event.params},
        }


def _name(what: str, name: str, process: int, thread: int) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def profile() -> Profile:
    """Collect the times of everything that scgpu does inside a ``with`` block.

    On adapters with timestamps each kernel is timed by the adapter itself; on ``cpu`` and ``numpy``
    by the host. The stages of a call are timed on the host: ``check`` (arguments, thresholds, steps),
    ``upload``, ``record``, ``submit``, ``wait``, ``read``. Results stay the same to the bit; kernels
    cannot overlap on an adapter while they are timed.

    All threads are collected, those of other blocks too: of nested blocks, and of blocks in several
    threads, each gets everything that begins while it is open. Leaving the block waits for the times
    of what was submitted inside.

    Returns
    -------
    Profile
        ``table()`` is a text, ``export(path)`` writes a trace for chrome://tracing or Perfetto,
        ``totals()`` and ``events`` are the figures.

    Examples
    --------
    >>> import scgpu
    >>> layer = scgpu.DenseLayer(8, 4, device="cpu")
    >>> with scgpu.profile() as prof:
    ...     values = layer.forward([0.5] * 8)
    >>> sorted((total.name, total.calls) for total in prof.totals() if total.kind == "kernel")
    [('dense', 1), ('encode', 1)]
    """
    return Profile()
