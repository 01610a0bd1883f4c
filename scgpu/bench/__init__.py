"""bench: how fast this machine is with scgpu, beside its peers and the machine's own ceilings.

Everything runs in turns in one process, for some time, and medians are reported: clock
speeds drift, so compare the figures of one run and trust ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scgpu import arguments
from scgpu.backend import Device
from scgpu.devices import device
from scgpu.errors import TooLargeError
from scgpu.profile import profile
from scgpu.threads import num_threads, set_num_threads

if TYPE_CHECKING:
    from scgpu.bench.report import Row
    from scgpu.bench.works import Bench, Case

Work = Callable[[], object]

# Of scgpu.bench.works.SECTIONS, which is imported when a benchmark runs.
SECTIONS = ("one-sample", "batch", "lengths", "shared", "encode", "packing", "neurons", "machines", "unary", "networks")
LEAST_CALLS = 5


def medians(works: Mapping[str, Work], seconds: float, longest: float = float("inf")) -> dict[str, float]:
    """Median microseconds of each piece of work, taken in turns for about ``seconds`` each.

    The first call of each, which allocates and compiles, is not counted. Where it takes longer
    than ``longest`` seconds the second is the figure; where it takes four times as long, itself.
    """
    taken: dict[str, list[float]] = {}
    alone: dict[str, float] = {}
    for name, work in works.items():
        first = _seconds(work)
        if first > longest:
            alone[name] = first if first > 4 * longest else _seconds(work)
        else:
            taken[name] = []
    begin = time.perf_counter()
    while taken and (
        time.perf_counter() - begin < seconds * len(taken) or len(next(iter(taken.values()))) < LEAST_CALLS
    ):
        for name, times in taken.items():
            times.append(_seconds(works[name]))
        if time.perf_counter() - begin > longest:
            break
    times_of = {name: statistics.median(times) for name, times in taken.items()} | alone
    return {name: 1e6 * times_of[name] for name in works}


def _seconds(work: Work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Budget:
    """What would take too long, by the speeds seen so far.

    Parameters
    ----------
    longest : float
        Seconds that one call may take.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._rates: dict[str, float] = {}  # bits per microsecond

    def refusal(self, who: str, bits: int) -> str:
        """Why the work is not to be started; nothing where it is."""
        rate = self._rates.get(who)
        expected = bits / rate / 1e6 if rate else 0.0
        return f"a call would take about {expected:.1f} s" if expected > self._longest else ""

    def learn(self, who: str, bits: int, microseconds: float) -> None:
        """Remember how long so many bits took."""
        self._rates[who] = bits / microseconds


def measure(case: Case, chosen: Device, budget: Budget, seconds: float, longest: float) -> Row:
    """Measure one case: ours, the peers and the ceiling in turns."""
    from scgpu.bench.report import Row

    works: dict[str, Work] = {}
    skipped: dict[str, str] = dict(case.absent)
    for who, make in {"ours": case.ours, **case.peers}.items():
        refusal = budget.refusal(f"{case.section.split(',')[0]} {who}", case.bits)
        if refusal:
            skipped[who] = refusal
            continue
        try:
            works[who] = make()
        except (TooLargeError, MemoryError) as error:
            skipped[who] = f"it does not fit ({error})"
    least = case.ceiling() if "ours" in works else None
    if callable(least):
        works["ceiling"] = least
    taken = medians(works, seconds, longest)
    for who, microseconds in taken.items():
        budget.learn(f"{case.section.split(',')[0]} {who}", case.bits, microseconds)
    ceiling = taken.pop("ceiling", 1e6 * least if isinstance(least, float) else None)
    ours = taken.pop("ours", None)
    return Row(case.section, case.name, str(chosen), case.bits, ours, taken, ceiling, skipped)


def run_cases(bench: Bench, sections: Sequence[str], seconds: float, longest: float) -> Iterator[Row]:
    """Measure sections on a device, telling progress on a terminal."""
    from scgpu.bench import works

    budget = Budget(longest)
    for section in sections:
        for case in works.SECTIONS[section](bench):
            _progress(f"{bench.device}: {case.section}: {case.name}")
            yield measure(case, bench.device, budget, seconds, longest)
    _progress("")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _profiled(bench: Bench, sections: Sequence[str], trace: Path | None) -> str:
    """One call of ours of each case that is not large, as a profile."""
    from scgpu.bench import works

    calls = [
        case.ours()
        for section in sections
        for case in works.SECTIONS[section](bench)
        if case.bits <= works.PROFILED_BITS
    ]
    for call in calls:
        call()
    with profile() as found:
        for call in calls:
            call()
    if trace:
        found.export(trace)
    return found.table()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu bench``."""
    parser.add_argument("--device", action="append", help="measure this device; may be repeated (default: auto)")
    parser.add_argument(
        "--section", action="append", choices=SECTIONS, help="measure this; may be repeated (default: all)"
    )
    parser.add_argument("--threads", type=int, help="threads of the CPU, ours and the peer's")
    parser.add_argument("--seconds", type=float, default=0.4, help="time for each figure (default: 0.4)")
    parser.add_argument(
        "--longest", type=float, default=10.0, help="leave out what takes longer a call (default: 10 s)"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure scgpu alone")
    parser.add_argument(
        "--unarysim", type=Path, metavar="PATH", help="measure this checkout of UnarySim too (default: SCGPU_UNARYSIM)"
    )
    parser.add_argument("--profile", action="store_true", help="also print a profile of one call of each work")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write that profile as a Chrome/Perfetto trace")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file ('-': print them)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw a chart into this file")


def run(options: argparse.Namespace) -> int:
    """``scgpu bench``."""
    from scgpu.bench import peers, report, works

    if options.threads is not None:
        set_num_threads(arguments.integer("--threads", options.threads, 1, 1024))
    for name in ("seconds", "longest"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name} must be more than 0; got {getattr(options, name)}")
    engine: peers.Engine | None = None
    arrays: tuple[peers.ArrayPeer, ...] = ()
    unarysim: peers.UnarySim | str = ""
    if not options.no_peers:
        engine = peers.engine(num_threads())
        candidates = (peers.numpy_peer(), peers.cupy_peer(), peers.torch_peer())
        arrays = tuple(peer for peer in candidates if peer)
        unarysim = peers.unarysim(options.unarysim, num_threads())
    names = [peer.name for peer in (engine, *arrays, unarysim) if peer and not isinstance(peer, str)]
    sections = options.section or SECTIONS
    rows: list[Row] = []
    profiles = ""
    for selector in options.device or ["auto"]:
        bench = works.Bench(device(selector), engine, arrays, unarysim)
        rows += run_cases(bench, sections, options.seconds, options.longest)
        if options.profile or options.trace:
            profiles += f"\n{_profiled(bench, sections, options.trace)}\n"
    about = report.machine(names)
    text = json.dumps(report.as_json(rows, about), indent=2) + "\n"
    if options.json and str(options.json) != "-":
        options.json.write_text(text, encoding="utf-8")
    tables = report.markdown(rows, about) + profiles
    print(text if str(options.json) == "-" else tables, end="")
    if options.markdown:
        options.markdown.write_text(tables, encoding="utf-8")
    if options.png:
        report.chart(rows, about, options.png)
    return 0
