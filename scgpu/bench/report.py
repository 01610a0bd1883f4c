"""Report: figures as a table, as JSON, and as a chart."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scgpu import _cpu
from scgpu._version import __version__
from scgpu.threads import num_threads


@dataclass(frozen=True)
class Row:
    """Medians of one piece of work, in microseconds.

    Attributes
    ----------
    section, name, device : str
        What was measured, and where.
    bits : int
        Bits of streams that the work makes, packs, counts or multiplies.
    microseconds : float or None
        Ours; None where ``skipped`` says why.
    peers : dict
        Those of the peers, by name.
    ceiling : float or None
        The least time that the machine could take, measured.
    skipped : dict
        What was not measured, "ours" or a peer, and why.
    """

    section: str
    name: str
    device: str
    bits: int
    microseconds: float | None
    peers: dict[str, float]
    ceiling: float | None
    skipped: dict[str, str] = field(default_factory=dict)

    def ratio(self, peer: str) -> float | None:
        """How many times as fast as a peer."""
        theirs = self.peers.get(peer)
        return theirs / self.microseconds if theirs and self.microseconds else None

    @property
    def share(self) -> float | None:
        """Share of the ceiling that was reached."""
        return self.ceiling / self.microseconds if self.ceiling and self.microseconds else None


def machine(peer_names: Sequence[str]) -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "date": time.strftime("%Y-%m-%d"),
        "scgpu": __version__,
        "processor": model,
        "tier": _cpu.simd_tier(),
        "threads": num_threads(),
        "peers": list(peer_names),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 1e5 else f"{value:,.0f}"


def markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """A table for each section and device."""
    lines = [
        f"{about['date']}, scgpu {about['scgpu']}, {about['processor']}, tier {about['tier']}, "
        f"{about['threads']} threads. Peers: {', '.join(about['peers']) or 'none'}.",
    ]
    for section, device in dict.fromkeys((row.section, row.device) for row in rows):
        chosen = [row for row in rows if (row.section, row.device) == (section, device)]
        names = list(dict.fromkeys(name for row in chosen for name in row.peers))
        head = ["work", "us", "Gbit/s", *(cell for name in names for cell in (f"{name} us", "times as fast"))]
        lines += ["", f"{section}, {device}:", ""]
        lines += [f"| {' | '.join([*head, 'ceiling us', 'share of ceiling'])} |"]
        lines += ["|---|" + "---:|" * (len(head) + 1)]
        for row in chosen:
            rate = row.bits / row.microseconds / 1e3 if row.microseconds else None
            cells = [row.name, _number(row.microseconds), _number(rate)]
            for name in names:
                ratio = row.ratio(name)
                cells += [_number(row.peers.get(name)), "" if ratio is None else f"{ratio:.2f}"]
            cells += [_number(row.ceiling), "" if row.share is None else f"{100 * row.share:.0f} %"]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"\nNot measured: {row.name}, {who}: {why}." for row in chosen for who, why in row.skipped.items()]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "about": dict(about),
        "rows": [{**asdict(row), "ratios": {name: row.ratio(name) for name in row.peers}} for row in rows],
    }


COLOURS = {"ours": "tab:blue", "sc_neurocore_engine": "tab:red", "numpy": "tab:green"}


def _series(rows: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """Bits and Gbit/s of each line of a panel."""
    series: dict[str, list[tuple[int, float]]] = {}
    for row in sorted(rows, key=lambda row: row.bits):
        lines = {row.device: row.microseconds, f"ceiling of {row.device}": row.ceiling, **row.peers}
        for name, taken in lines.items():
            if taken:
                series.setdefault(name, []).append((row.bits, row.bits / taken / 1e3))
    return series


def chart(rows: Sequence[Row], about: Mapping[str, Any], path: Path) -> None:
    """Speed against size on logarithmic axes: ours, the peers', the ceiling.

    One panel for each section that was measured at two sizes or more.

    Raises
    ------
    ValueError
        When there is no such section.
    ImportError
        Without Matplotlib.
    """
    from matplotlib.figure import Figure

    by_section = {
        section: [row for row in rows if row.section == section] for section in dict.fromkeys(r.section for r in rows)
    }
    panels = {section: chosen for section, chosen in by_section.items() if len({row.bits for row in chosen}) > 1}
    if not panels:
        raise ValueError("--png needs a section of two sizes or more, such as one-sample, batch or lengths")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(6.4 * columns, 4.2 * lines), layout="constrained")
    for index, (section, chosen) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(lines, columns, index)
        for name, points in _series(chosen).items():
            ceiling = name.startswith("ceiling")
            colour = "tab:orange" if ceiling else COLOURS.get("ours" if name == chosen[0].device else name)
            axes.loglog(*zip(*points, strict=True), "--" if ceiling else "o-", color=colour, label=name, markersize=4)
        axes.set(title=section, xlabel="bits of streams", ylabel="Gbit/s")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize=7)
    figure.suptitle(f"scgpu {about['scgpu']}, {about['date']}, {about['processor']}, {about['threads']} threads")
    figure.savefig(path, dpi=110)
