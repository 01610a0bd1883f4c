"""raster: pictures of recordings: the spikes of each neuron, rates of populations, membrane potentials."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.atomic import replacing
from scgpu.recording import MOST, PopulationRecord, Recording

if TYPE_CHECKING:
    import argparse

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Of Okabe and Ito, told apart with every kind of colour vision; without their yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")  # of lines, when the colours begin anew

FORMATS = ("png", "svg")
DPI = 130
WIDTH = 11.0  # inches
RASTER_INCHES = 8.0  # of all populations together, where they are not very many
LEGEND_COLUMNS = 5
NEURONS = 200  # rows of a population in a raster, unless the caller says otherwise
MOST_NEURONS = 5000
MOST_POINTS = 300_000  # spikes of a population in a raster: about what its pixels can show apart
FEW_POINTS = 2000  # with fewer each may be larger than its row
MOST_VECTORS = 20_000  # spikes that an .svg holds one by one
MOST_BINS = 4000  # of a rate, and half the points of a potential: more than a picture has columns
DEFAULT_BINS = 100
MOST_PANELS = 40
LONGEST_NAME = 40
CV_NEURONS = 500  # whose intervals the summary of `scgpu raster` looks at
DEFAULT_TRACES = 4
GREY, FAINT = "0.35", "0.75"


@dataclass(frozen=True)
class View:
    """The steps and populations of a recording that a picture shows.

    Attributes
    ----------
    recording : Recording
        All of it.
    begin, end : int
        Steps from ``begin`` and before ``end``.
    names : tuple of str
        Populations, in the recording's order.
    """

    recording: Recording
    begin: int
    end: int
    names: tuple[str, ...]

    @classmethod
    def checked(
        cls, recording: Recording, begin: int | None, end: int | None, populations: Sequence[str] | None
    ) -> View:
        """The view, or an error that says what the recording has."""
        if not isinstance(recording, Recording):
            raise TypeError(f"recording must be a Recording; got {type(recording).__name__}")
        first, last = recording.first_step, recording.first_step + recording.n_steps
        if first == last:
            raise ValueError("this recording has no steps; there is nothing to draw")
        low = arguments.integer("begin", first if begin is None else begin, first, last - 1)
        high = arguments.integer("end", last if end is None else end, low + 1, last)
        if populations is None:
            names = tuple(recording)
        else:
            chosen = arguments.listed("populations", populations, "names")
            for name in chosen:
                _record(recording, name)
            names = tuple(name for name in recording if name in chosen)
        return cls(recording, low, high, names)

    @property
    def span(self) -> int:
        """Steps."""
        return self.end - self.begin

    @property
    def unit(self) -> tuple[float, str]:
        """What a step is on the axis of time, and the name of its unit."""
        seconds = self.recording.step_seconds
        if seconds is None:
            return 1, "steps"
        return (1000 * seconds, "ms") if seconds * self.span < 10 else (seconds, "s")

    def times(self, steps: Any) -> Any:
        """Steps in the unit of the axis."""
        return np.asarray(steps) * self.unit[0]

    def lasting(self, steps: int) -> str:
        """A number of steps as a time: 2.5 ms."""
        scale, unit = self.unit
        return f"{steps:,} step{'s' * (steps > 1)}" if unit == "steps" else f"{steps * scale:,.4g} {unit}"

    def rate(self, spikes_per_step: Any) -> Any:
        """Spikes per neuron and step, in hertz where the length of a step is known."""
        return spikes_per_step / (self.recording.step_seconds or 1)

    @property
    def rate_unit(self) -> str:
        """Of `rate`."""
        return "Hz" if self.recording.step_seconds else "spikes/step"

    def colour(self, name: str) -> str:
        """A population's colour, the same in every picture of the recording."""
        return COLOURS[list(self.recording).index(name) % len(COLOURS)]

    def style(self, name: str) -> str:
        """A population's line."""
        return STYLES[list(self.recording).index(name) // len(COLOURS) % len(STYLES)]

    def spiking(self) -> list[PopulationRecord]:
        """The populations whose spikes were recorded."""
        return [self.recording[name] for name in self.names if self.recording[name].words is not None]


@dataclass(frozen=True)
class Panel:
    """A part of a picture: its height in inches, and what draws it."""

    inches: float
    draw: Callable[[Axes], None]


def require_matplotlib() -> None:
    """Raise `ImportError` with what to install where Matplotlib is missing."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError("pictures need matplotlib; run: pip install 'scgpu[plot]'") from error


def _record(recording: Recording, name: str) -> PopulationRecord:
    if not isinstance(name, str) or name not in recording:
        known = ", ".join(map(repr, recording)) or "none"
        raise ValueError(f"no population {arguments.shown(name)} in this recording; it has {known}")
    return recording[name]


def _neurons(count: int) -> str:
    return f"{count:,} neuron{'s' * (count != 1)}"


def _short(name: str) -> str:
    """A name that fits a picture."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def _titled(axes: Axes, title: str, colour: str, facts: Sequence[str]) -> None:
    """What a panel shows, at its left, and what is to be known of it, at its right."""
    # A name may hold any characters; none of them is an instruction to Matplotlib.
    axes.set_title(title, loc="left", color=colour, fontsize=10, fontweight="bold", pad=4, parse_math=False)
    axes.set_title(" \N{MIDDLE DOT} ".join(filter(None, facts)), loc="right", color=GREY, fontsize=8.5, pad=4)


def _thinned(
    steps: NDArray[np.int64], neurons: NDArray[np.int64], span: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """At most `MOST_POINTS` spikes: of each neuron the first one in every so many steps, and how many these are."""
    pitch = 1
    if len(steps) > MOST_POINTS:
        pitch = max(2, span // MOST_BINS)
        width = int(neurons.max()) + 1
        while True:
            _, kept = np.unique(steps // pitch * width + neurons, return_index=True)
            if len(kept) <= MOST_POINTS:
                steps, neurons = steps[kept], neurons[kept]
                break
            pitch *= 2
    return steps, neurons, pitch


def _spread(count: int, number: int) -> NDArray[np.int64]:
    """So many of ``count`` neurons, evenly."""
    return np.arange(number) * count // max(number, 1)


def _draw_spikes(view: View, record: PopulationRecord, rows: int, inches: float, axes: Axes) -> None:
    shown = _spread(record.count, rows)
    steps, neurons, pitch = _thinned(*record.events(view.begin, view.end, neurons=shown), view.span)
    axes.plot(
        view.times(steps),
        neurons,
        linestyle="none",
        marker="|",
        markersize=min(max(0.8 * 72 * inches / max(rows, 1), 2.2 if len(steps) > FEW_POINTS else 4), 9),
        markeredgewidth=0.9,
        color=view.colour(record.name),
        rasterized=len(steps) > MOST_VECTORS,
    )
    some = f"{rows:,} of {record.count:,} neurons drawn" if rows < record.count else _neurons(record.count)
    mean = view.rate(record.population_rate(view.span, view.begin, view.end)[0]) if record.count else 0.0
    silent = "no spikes" if not mean else f"mean {mean:.3g} {view.rate_unit}"
    merged = f"spikes of a neuron within {view.lasting(pitch)} drawn as one" if pitch > 1 else ""
    _titled(axes, _short(record.name), view.colour(record.name), [some, merged, silent])
    rim = 0.5 + 0.02 * record.count
    axes.set_ylim(-rim, max(record.count - 1, 0) + rim)
    axes.set_ylabel("neuron")
    if record.count <= 3:
        axes.set_yticks(range(record.count))
    else:
        axes.locator_params(axis="y", nbins=max(2, round(2 * inches)), integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _raster_panels(view: View, neurons: int) -> list[Panel]:
    neurons = arguments.integer("neurons", neurons, 1, MOST_NEURONS)
    records = view.spiking()
    rows = [min(record.count, neurons) for record in records]
    wished = [min(0.2 * math.sqrt(number), 2.8) for number in rows]
    shrink = min(1.0, RASTER_INCHES / max(sum(wished), 1))
    return [
        Panel(inches, partial(_draw_spikes, view, record, number, inches))
        for record, number, inches in zip(records, rows, (max(shrink * wish, 0.5) for wish in wished), strict=True)
    ]


def _nice(steps: float) -> int:
    """The largest of 1, 2, 5, 10, 20 ... that is not above."""
    power = int(10 ** int(math.log10(max(steps, 1))))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= max(steps, 1))


def _draw_rates(view: View, bin_steps: int | None, axes: Axes) -> None:
    asked = _nice(view.span / DEFAULT_BINS) if bin_steps is None else bin_steps
    width = asked * -(-view.span // (asked * MOST_BINS))
    edges = view.times(np.append(np.arange(view.begin, view.end, width), view.end))
    records = view.spiking()
    top = 0.0
    for record in records:
        rates = view.rate(record.population_rate(width, view.begin, view.end))
        top = max(top, float(np.nanmax(rates, initial=0)))
        axes.stairs(
            rates,
            edges,
            baseline=None,
            color=view.colour(record.name),
            linestyle=view.style(record.name),
            linewidth=1.3,
            label="a population",  # its name comes below: Matplotlib hides labels that begin with _
        )
    widened = f", widened from {view.lasting(asked)}" if width != asked else ""
    _titled(axes, "population rates", "black", [f"bins of {view.lasting(width)}{widened}"])
    lines = -(-len(records) // LEGEND_COLUMNS)
    axes.set_ylim(0, (1.1 + 0.16 * lines) * top or 1)  # the legend's lines have room above the rates
    axes.set_ylabel("rate (Hz)" if view.rate_unit == "Hz" else "rate per neuron\n(spikes/step)")
    legend = axes.legend(loc="upper right", ncols=LEGEND_COLUMNS, fontsize=8.5, frameon=False)
    for text, record in zip(legend.get_texts(), records, strict=True):
        text.set_parse_math(False)
        text.set_text(_short(record.name))


def _rate_panels(view: View, bin_steps: int | None) -> list[Panel]:
    if bin_steps is not None:
        bin_steps = arguments.integer("bin_steps", bin_steps, 1, MOST)
    return [Panel(1.7, partial(_draw_rates, view, bin_steps))] if view.spiking() else []


def _envelope(values: NDArray[np.int16]) -> tuple[NDArray[np.int64], int]:
    """Which points of a long line to draw: the least and the greatest of every so many, and how many these are."""
    width = -(-len(values) // MOST_BINS)
    if width <= 2:
        return np.arange(len(values)), 1
    padded = np.concatenate([values, np.full(-len(values) % width, values[-1])]).reshape(-1, width)
    ends = np.stack([padded.argmin(axis=1), padded.argmax(axis=1)], axis=1)
    ends.sort(axis=1)
    points = (ends + width * np.arange(len(padded))[:, None]).reshape(-1)
    return np.minimum(points, len(values) - 1), width


def _draw_voltage(view: View, record: PopulationRecord, neuron: int, axes: Axes) -> None:
    assert record.voltages is not None
    colour = view.colour(record.name)
    first = view.begin - record.first_step
    values = record.voltages[neuron, first : first + view.span]
    points, width = _envelope(values)
    axes.plot(view.times(view.begin + points), values[points], color=colour, linewidth=0.9)
    spikes = 0
    if record.words is not None:
        steps, neurons = record.events(view.begin, view.end, neurons=[neuron])
        spikes = len(steps)
        steps, _, _ = _thinned(steps, neurons, view.span)
        place = axes.get_xaxis_transform()  # time, and a share of the panel's height
        axes.plot(
            view.times(steps), np.full(len(steps), 0.93), "|", transform=place, color="black", markersize=5, zorder=3
        )
    ticks = f"{spikes:,} spike{'s' * (spikes != 1)} (ticks)" if spikes else ""
    thinned = f"least and greatest of every {view.lasting(width)}" if width > 1 else ""
    _titled(axes, f"{_short(record.name)}, neuron {neuron}", colour, [thinned, ticks])
    axes.margins(y=0.05)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))
    axes.set_ylabel("potential")
    axes.locator_params(axis="y", nbins=3, integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _default_traces(view: View) -> dict[str, list[int]]:
    """Neurons of each population whose potentials were recorded, spread over it, few in all."""
    records = [view.recording[name] for name in view.names if view.recording[name].voltages is not None]
    most = max(1, DEFAULT_TRACES // max(1, len(records)))
    numbers = {record.name: min(most, record.count) for record in records}
    chosen = {name: _spread(view.recording[name].count, number).tolist() for name, number in numbers.items()}
    return dict(list(chosen.items())[:DEFAULT_TRACES])


def _voltage_panels(view: View, traces: Mapping[str, Sequence[int]] | None) -> list[Panel]:
    panels = []
    if traces is not None and not isinstance(traces, Mapping):
        raise TypeError(f"traces must be a mapping from names to neurons; got {type(traces).__name__}")
    for name, neurons in (_default_traces(view) if traces is None else traces).items():
        record = _record(view.recording, name)
        if record.voltages is None:
            raise ValueError(
                f"the potentials of {name!r} were not recorded; run with record={{{name!r}: 'voltages'}} or 'both'"
            )
        for neuron in arguments.listed(f"traces[{name!r}]", neurons, "neurons"):
            index = arguments.integer(f"neuron of {name!r}", neuron, 0, record.count - 1)
            panels.append(Panel(0.8, partial(_draw_voltage, view, record, index)))
    return panels


def _drawn(view: View, panels: Sequence[Panel], figure: Figure | SubFigure | None) -> Any:
    """Draw panels below each other on one axis of time."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter, StrMethodFormatter

    if len(panels) > MOST_PANELS:
        raise ValueError(f"a picture has at most {MOST_PANELS} panels; got {len(panels)}; name fewer populations")
    heights = [panel.inches for panel in panels]
    if figure is None:
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.28 * len(panels) + 0.7), layout="constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    first: Axes | None = None
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(grid[place], sharex=first)
        first = first or axes
        panel.draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(color=FAINT, labelsize=8.5, labelbottom=place == len(panels) - 1)
        axes.yaxis.label.set_fontsize(9)
        axes.grid(axis="x", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
    unit = view.unit[1]
    axes.set_xlabel("step" if unit == "steps" else f"time ({unit})", fontsize=10)
    edge = 0.005 * view.span
    axes.set_xlim(view.times(view.begin - edge), view.times(view.end + edge))
    axes.locator_params(axis="x", nbins=10, integer=unit == "steps")
    axes.xaxis.set_major_formatter(
        StrMethodFormatter("{x:,.0f}") if unit == "steps" else ScalarFormatter(useOffset=False)
    )
    figure.align_ylabels()
    return figure


def _require(panels: Sequence[Panel], view: View, what: str, record: str) -> None:
    if not panels:
        populations = ", ".join(map(repr, view.names)) or "no populations"
        raise ValueError(f"this recording has no {what} of {populations}; run with record={{name: {record}}}")


def plot_raster(
    recording: Recording,
    *,
    begin: int | None = None,
    end: int | None = None,
    neurons: int = NEURONS,
    populations: Sequence[str] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Any:
    """Draw a spike raster: a tick for each spike, a row for each neuron, a panel for each population.

    Needs Matplotlib (``pip install 'scgpu[plot]'``), like all pictures. Of large recordings a part is drawn, always
    the same, and each panel says so: ``neurons`` rows spread over the population, and spikes of a neuron that would
    fall on one spot as one tick.

    Parameters
    ----------
    recording : Recording
        With spikes of at least one population.
    begin, end : int, optional
        Only steps from ``begin`` and before ``end`` (default: all).
    neurons : int
        The most rows of a population, 1 to 5,000.
    populations : sequence of str, optional
        Only these (default: all whose spikes were recorded).
    figure : matplotlib.figure.Figure or SubFigure, optional
        Where to draw (default: a new figure that belongs to no window; ``savefig`` writes it).

    Returns
    -------
    matplotlib.figure.Figure
        Or ``figure``.

    Raises
    ------
    ValueError
        No spikes were recorded; steps or populations that the recording has not; numbers out of range.
    ImportError
        Without Matplotlib.
    """
    view = View.checked(recording, begin, end, populations)
    panels = _raster_panels(view, neurons)
    _require(panels, view, "spikes", "'spikes'")
    return _drawn(view, panels, figure)


def plot_rates(
    recording: Recording,
    *,
    begin: int | None = None,
    end: int | None = None,
    bin_steps: int | None = None,
    populations: Sequence[str] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Any:
    """Draw the mean rate of each population over time.

    Parameters
    ----------
    bin_steps : int, optional
        Steps of a bin, at least 1 (default: about 100 bins). More than 4,000 bins are merged, and the panel says so.
    recording, begin, end, populations, figure
        As for `plot_raster`.

    Returns
    -------
    matplotlib.figure.Figure
        Or ``figure``.

    Raises
    ------
    ValueError, ImportError
        As for `plot_raster`.
    """
    view = View.checked(recording, begin, end, populations)
    panels = _rate_panels(view, bin_steps)
    _require(panels, view, "spikes", "'spikes'")
    return _drawn(view, panels, figure)


def plot_voltages(
    recording: Recording,
    traces: Mapping[str, Sequence[int]] | None = None,
    *,
    begin: int | None = None,
    end: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> Any:
    """Draw membrane potentials, a panel for each neuron, with its spikes above where they were recorded.

    Of potentials of more than 8,000 steps the least and the greatest of every so many steps are drawn, and the
    panel says so: no peak is lost.

    Parameters
    ----------
    traces : mapping of str to sequence of int, optional
        Neurons of each population, at most 40 in all (default: about four, spread over all that were recorded).
    recording, begin, end, figure
        As for `plot_raster`.

    Returns
    -------
    matplotlib.figure.Figure
        Or ``figure``.

    Raises
    ------
    ValueError
        No potentials were recorded; steps, populations or neurons that the recording has not.
    ImportError
        Without Matplotlib.
    """
    view = View.checked(recording, begin, end, None)
    panels = _voltage_panels(view, traces)
    _require(panels, view, "potentials", "'voltages'")
    return _drawn(view, panels, figure)


def plot_recording(
    recording: Recording,
    traces: Mapping[str, Sequence[int]] | None = None,
    *,
    begin: int | None = None,
    end: int | None = None,
    neurons: int = NEURONS,
    bin_steps: int | None = None,
    populations: Sequence[str] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Any:
    """Draw all that was recorded on one axis of time: spike raster, population rates, membrane potentials.

    Parameters
    ----------
    traces
        As for `plot_voltages`; an empty mapping leaves potentials out.
    bin_steps
        As for `plot_rates`.
    recording, begin, end, neurons, populations, figure
        As for `plot_raster`.

    Returns
    -------
    matplotlib.figure.Figure
        Or ``figure``.

    Raises
    ------
    ValueError
        Neither spikes nor potentials were recorded; what `plot_raster` and `plot_voltages` refuse.
    ImportError
        Without Matplotlib.
    """
    view = View.checked(recording, begin, end, populations)
    panels = [*_raster_panels(view, neurons), *_rate_panels(view, bin_steps), *_voltage_panels(view, traces)]
    _require(panels, view, "spikes or potentials", "'spikes'")
    return _drawn(view, panels, figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu raster``."""
    parser.add_argument("file", metavar="FILE", help="what Recording.save wrote")
    parser.add_argument("-o", "--output", default="raster.png", help=".png or .svg file to write (default: raster.png)")
    parser.add_argument("--from", dest="begin", type=int, metavar="STEP", help="first step to show (default: all)")
    parser.add_argument("--to", dest="end", type=int, metavar="STEP", help="step to end before")
    parser.add_argument("--population", action="append", metavar="NAME", help="only this; may be repeated")
    parser.add_argument(
        "--neurons", type=int, default=NEURONS, metavar="N", help=f"most rows of a population (default: {NEURONS})"
    )
    parser.add_argument("--bin", type=int, metavar="STEPS", help="bins of the rates (default: about 100 of them)")
    parser.add_argument(
        "--voltages",
        action="append",
        metavar="NAME:I,J,...",
        help="potentials of these neurons, like exc:0,1,2; may be repeated (default: about four)",
    )
    parser.add_argument("--no-voltages", action="store_true", help="show no potentials")
    parser.add_argument("--step-seconds", type=float, metavar="S", help="length of a step, where the file has none")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _traces(options: argparse.Namespace) -> dict[str, list[int]] | None:
    """``--voltages`` and ``--no-voltages``."""
    if options.no_voltages:
        return {}
    traces: dict[str, list[int]] = {}
    for text in options.voltages or ():
        name, _, numbers = text.rpartition(":")
        items = [item.strip() for item in numbers.split(",")]
        if not name or not all(item.isascii() and item.isdigit() for item in items):
            raise ValueError(f"--voltages must be a population and its neurons, like exc:0,1,2; got {text!r}")
        traces.setdefault(name, []).extend(map(int, items))
    return traces or None


def _range(options: argparse.Namespace, recording: Recording) -> tuple[int, int]:
    """``--from`` and ``--to``, of which at least one step must be left."""
    first, last = recording.first_step, recording.first_step + recording.n_steps
    begin = first if options.begin is None else options.begin
    end = last if options.end is None else options.end
    if not first <= begin < end <= last:
        has = f"from {first} to {last}" if recording.n_steps else "none"
        raise ValueError(f"--from {begin} --to {end} is no range of this recording's steps; it has {has}")
    return begin, end


def _loaded(options: argparse.Namespace) -> Recording:
    try:
        recording = Recording.load(options.file)
    except OSError as error:
        raise ValueError(
            f"{options.file!r} cannot be read: {error.strerror}; name what Recording.save wrote"
        ) from error
    seconds = recording.step_seconds if options.step_seconds is None else options.step_seconds
    return Recording(
        recording.values(), first_step=recording.first_step, n_steps=recording.n_steps, step_seconds=seconds
    )


def _summary(recording: Recording) -> list[dict[str, Any]]:
    """Figures of each population over the whole recording; None for what cannot be said.

    ``cv_isi`` is the mean over at most `CV_NEURONS` neurons, spread over the population.
    """
    rows = []
    for record in recording.values():
        rate = float(record.rates().mean()) if record.count and record.n_steps else None
        sample = _spread(record.count, min(record.count, CV_NEURONS))
        known = np.empty(0) if record.words is None else record.cv_isi(neurons=sample)
        known = known[~np.isnan(known)]
        rows.append(
            {
                "name": record.name,
                "neurons": record.count,
                "spikes": int(record.counts.sum()),
                "spikes_per_step": rate,
                "hertz": rate / recording.step_seconds if rate is not None and recording.step_seconds else None,
                "cv_isi": float(known.mean()) if known.size else None,
            }
        )
    return rows


def _print(recording: Recording, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{recording.n_steps:,} steps from {recording.first_step:,}")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        rate = f"{row['spikes_per_step'] or 0:.4g} spikes/step" if row["hertz"] is None else f"{row['hertz']:.4g} Hz"
        variation = "" if row["cv_isi"] is None else f", intervals vary by {row['cv_isi']:.2f}"
        print(f"  {row['name']:<{width}}  {_neurons(row['neurons'])}, {row['spikes']:,} spikes, {rate}{variation}")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _write(figure: Figure, path: Path) -> None:
    """The picture, the same bytes for the same figure."""
    matplotlib = importlib.import_module("matplotlib")
    kind = path.suffix[1:].lower()
    metadata = {"Date": None} if kind == "svg" else None
    try:
        with matplotlib.rc_context({"svg.hashsalt": "scgpu"}), replacing(path) as file:
            figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)
    except OSError as error:
        raise ValueError(f"--output {str(path)!r} could not be written: {error.strerror}") from error


def run(options: argparse.Namespace) -> int:
    """``scgpu raster``.

    Returns
    -------
    int
        0 when the picture was written, 2 when Matplotlib is missing.
    """
    try:
        require_matplotlib()
    except ImportError as error:
        print(f"scgpu raster: {error}", file=sys.stderr)
        return 2
    path = arguments.writable_file("--output", options.output)
    if path.suffix[1:].lower() not in FORMATS:
        raise ValueError(f"--output must end in .png or .svg; got {options.output!r}")
    traces = _traces(options)
    _progress(f"reading {options.file}")
    try:
        recording = _loaded(options)
        begin, end = _range(options, recording)
        _progress(f"drawing {path}")
        figure = plot_recording(
            recording,
            traces,
            begin=begin,
            end=end,
            neurons=options.neurons,
            bin_steps=options.bin,
            populations=options.population,
        )
        figure.suptitle(Path(options.file).name, x=0.01, ha="left", fontsize=12, parse_math=False)
        _write(figure, path)
        rows = _summary(recording)
    finally:
        _progress("")
    if options.json:
        steps = {"first_step": recording.first_step, "n_steps": recording.n_steps}
        found = {**steps, "step_seconds": recording.step_seconds, "populations": rows, "picture": str(path)}
        print(json.dumps(found, indent=2))
    else:
        _print(recording, rows)
        print(f"Picture: {path}")
    return 0
