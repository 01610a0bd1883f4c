"""demo: real handwritten digits through a network of bitstreams, the same counts on every device."""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu.activation import Activation
from scgpu.backend import Device
from scgpu.dense import DenseLayer
from scgpu.devices import device
from scgpu.errors import ScgpuError
from scgpu.info import DEMO_MODULES
from scgpu.network import Network
from scgpu.parity import all_devices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from rich.console import Console
    from rich.table import Table

MODEL = Path(__file__).with_name("data") / "digits.npz"

LENGTHS = "16,32,64,128,256,512,1024,2048,4096"
LONGEST = 1 << 16  # longer streams change no prediction and make software adapters crawl
ORACLE_BITS = 1 << 22  # images times length that the oracle checks at a length: about 10 s on one core
WARM_UP_IMAGES = 64
TIMED_CALLS = 7
TIMED_SECONDS = 0.5
PAGE_ROWS, PAGE_COLUMNS = 5, 4  # misread digits in the picture


@dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits, split in halves; inputs are 2 pixel / 16 - 1 in [-1, 1].

    Attributes
    ----------
    train_inputs, test_inputs : ndarray, shape (n, 64)
        8 x 8 images.
    train_labels, test_labels : ndarray, shape (n,)
        The digits.
    """

    train_inputs: NDArray[np.float64]
    test_inputs: NDArray[np.float64]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]


def load_digits(split_seed: int) -> Digits:
    """The 1797 digits of scikit-learn: 898 for training, 899 for scoring, stratified."""
    datasets = importlib.import_module("sklearn.datasets")
    model_selection = importlib.import_module("sklearn.model_selection")
    pixels, labels = datasets.load_digits(return_X_y=True)
    halves = model_selection.train_test_split(
        2 * pixels / 16 - 1, labels, test_size=0.5, random_state=split_seed, stratify=labels
    )
    return Digits(*halves)


@dataclass(frozen=True)
class Model:
    """The trained network: outputs = W2 clip(W1 x / hidden_scale, -1, 1).

    Attributes
    ----------
    hidden_weights : ndarray, shape (H, 64)
        W1, in [-1, 1].
    output_weights : ndarray, shape (10, H)
        W2, in [-1, 1].
    hidden_scale : float
        Sum that makes a hidden value 1.
    split_seed : int
        `load_digits` of it gives the half that the network was trained on.
    """

    hidden_weights: NDArray[np.float64]
    output_weights: NDArray[np.float64]
    hidden_scale: float
    split_seed: int

    @property
    def products(self) -> int:
        """Products of one image."""
        return self.hidden_weights.size + self.output_weights.size

    def scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ten outputs of each image in float64, what streams of endless length would give."""
        hidden = np.clip(x @ self.hidden_weights.T / self.hidden_scale, -1.0, 1.0)
        return np.asarray(hidden @ self.output_weights.T)

    def network(self, length: int, chosen: Device) -> Network:
        """The same network of bipolar streams of ``length`` bits."""
        layers = [
            DenseLayer(weights.shape[1], weights.shape[0], length, weights=weights, polarity="bipolar", device=chosen)
            for weights in (self.hidden_weights, self.output_weights)
        ]
        return Network(layers, Activation("clip", self.hidden_scale))


def load_model(path: Path = MODEL) -> Model:
    """The network that ``examples/train_digits.py`` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Model(
            stored["hidden_weights"].astype(np.float64),
            stored["output_weights"].astype(np.float64),
            float(stored["hidden_scale"]),
            int(stored["split_seed"]),
        )


@dataclass(frozen=True)
class Check:
    """Counts of the first ``images`` images on another device against those of the chosen one."""

    device: Device
    images: int
    of_images: int
    counts: int = 0
    differing: int = 0
    problem: str = ""
    """What differs, or why nothing could be compared; empty when all is the same."""

    def __str__(self) -> str:
        part = f" (first {self.images} of {self.of_images} images)" if self.images < self.of_images else ""
        return f"{self.device}{part}"


@dataclass
class Result:
    """One length: what the chosen device answered, how fast, and who agrees."""

    length: int
    device: Device
    counts: NDArray[np.uint64] = field(repr=False)
    accuracy: float
    images_per_second: float
    bits_per_second: float
    checks: list[Check] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "length": self.length,
            "accuracy": self.accuracy,
            "images_per_second": self.images_per_second,
            "bits_per_second": self.bits_per_second,
            "device": str(self.device),
            "same_bits_on": [str(check) for check in self.checks if not check.problem],
        }


@dataclass
class Demo:
    """Everything that a run needs, and its results so far."""

    model: Model
    digits: Digits
    chosen: Device
    lengths: Sequence[int]
    seed: int
    results: list[Result] = field(default_factory=list)

    @cached_property
    def others(self) -> list[Device]:
        """Every adapter, every SIMD tier and the oracle, without the chosen device."""
        return [other for other in (*all_devices(), device("numpy")) if other != self.chosen]

    @cached_property
    def float_accuracy(self) -> float:
        """Share of the test images that the float64 network reads right."""
        return self.share_right(self.model.scores(self.digits.test_inputs))

    @property
    def checks(self) -> list[Check]:
        """All comparisons so far."""
        return [check for result in self.results for check in result.checks]

    def share_right(self, outputs: NDArray[Any]) -> float:
        """Share of the test images whose largest output is the right one."""
        return float(np.mean(outputs.argmax(axis=1) == self.digits.test_labels))

    def measure(self, announce: Callable[[str], None]) -> None:
        """Fill ``results``, one length after the other; an interrupt leaves what is there."""
        others = self.others
        for length in self.lengths:
            announce(f"{length} bits: {self.chosen}")
            self.results.append(self._run(length))
            for other in others:
                announce(f"{length} bits: comparing {other}")
                self.results[-1].checks.append(self._check(self.results[-1], other))

    def _run(self, length: int) -> Result:
        network, x = self.model.network(length, self.chosen), self.digits.test_inputs
        network.counts(x[:WARM_UP_IMAGES], self.seed)
        seconds: list[float] = []
        while not seconds or (sum(seconds) < TIMED_SECONDS and len(seconds) < TIMED_CALLS):
            begin = time.perf_counter()
            counts = network.counts(x, self.seed)
            seconds.append(time.perf_counter() - begin)
        rate = len(x) / statistics.median(seconds)
        bits = rate * self.model.products * length
        return Result(length, self.chosen, counts, self.share_right(counts), rate, bits)

    def _check(self, result: Result, other: Device) -> Check:
        total = len(self.digits.test_inputs)
        images = min(total, max(1, ORACLE_BITS // result.length)) if other.kind == "numpy" else total
        try:
            counts = self.model.network(result.length, other).counts(self.digits.test_inputs[:images], self.seed)
        except ScgpuError as error:
            return Check(other, images, total, problem=f"{type(error).__name__}: {error}")
        differs = counts != result.counts[:images]
        differing = int(np.count_nonzero(differs))
        return Check(other, images, total, counts.size, differing, _difference(differs, counts, result.counts))


def _difference(differs: NDArray[np.bool_], got: NDArray[np.uint64], expected: NDArray[np.uint64]) -> str:
    if not differs.any():
        return ""
    image, digit = (int(i) for i in np.unravel_index(int(np.argmax(differs)), differs.shape))
    return (
        f"{np.count_nonzero(differs)} of {differs.size} counts differ, the first one at image {image}, output "
        f"{digit}: {got[image, digit]} instead of {expected[image, digit]}"
    )


def _si(value: float) -> str:
    """A number to three digits with its SI prefix: 1.23 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def _agreement(result: Result, expected: int) -> str:
    """The table's cell on the proof of one length."""
    wrong = sum(bool(check.problem) for check in result.checks)
    if wrong:
        return f"[bold red]NOT on {wrong} of {expected}[/]"
    if len(result.checks) < expected:
        return f"[dim]{len(result.checks)} of {expected} ...[/]"
    parts = [f"{check.device.name}: {check.images} images" for check in result.checks if check.images < check.of_images]
    return f"[green]{expected} other{'s' * (expected != 1)}[/]" + (f" ({', '.join(parts)})" if parts else "")


def _table(demo: Demo) -> Table:
    from rich import box
    from rich.table import Table

    title = f"{len(demo.digits.test_labels)} handwritten digits on {demo.chosen}"
    table = Table(title=title.replace("[", r"\["), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("length", "accuracy\n%", "float\n%", "difference\npoints", "images/s", "product\nbits/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("same bits on")
    exact, others = demo.float_accuracy, len(demo.others)
    for result in demo.results:
        table.add_row(
            str(result.length),
            f"{100 * result.accuracy:.2f}",
            f"{100 * exact:.2f}",
            f"{100 * (result.accuracy - exact):+.2f}",
            _si(result.images_per_second),
            _si(result.bits_per_second),
            _agreement(result, others),
        )
    return table


def _gaps(demo: Demo, other: Device) -> str:
    """What a device was not compared on, in brackets; empty when it was compared on everything."""
    gaps = []
    for result in demo.results:
        images = sum(check.images for check in result.checks if check.device == other)
        if not images:
            gaps.append(f"not at {result.length} bits")
        elif images < len(result.counts):
            gaps.append(f"first {images} of {len(result.counts)} images at {result.length} bits")
    return f" ({', '.join(gaps)})" if gaps else ""


def _proof(demo: Demo) -> str:
    """The line that says which devices gave the same counts, and which did not."""
    compared = {check.device for check in demo.checks}
    failed = {check.device for check in demo.checks if check.problem}
    if not compared:
        return f"Nothing was compared: only {demo.chosen} was run"
    agreeing = [other for other in demo.others if other in compared - failed]
    names = [str(demo.chosen), *(f"{other}{_gaps(demo, other)}" for other in agreeing)]
    counts = sum(check.counts for check in demo.checks)
    differing = sum(check.differing for check in demo.checks)
    line = f"Same bits on: {', '.join(names)} ({len(names)} devices, {counts:,} counts compared, {differing:,} differ)"
    return line + (f". NOT THE SAME OR FAILED: {', '.join(map(str, failed))}" if failed else "")


@contextmanager
def _progress(demo: Demo, console: Console) -> Iterator[Callable[[str], None]]:
    """A function that shows what is computed now: the table and a bar on a terminal, else nothing."""
    if not console.is_terminal:
        yield lambda text: None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    )
    task = progress.add_task("starting", total=len(demo.lengths) * (1 + len(demo.others)))
    with Live(Group(_table(demo), progress), console=console, transient=True) as live:
        started = False

        def announce(text: str) -> None:
            nonlocal started
            progress.update(task, description=text.replace("[", r"\["), advance=int(started))
            started = True
            live.update(Group(_table(demo), progress))

        yield announce


def _draw_accuracy(figure: SubFigure, demo: Demo) -> None:
    axes = figure.subplots()
    results = sorted(demo.results, key=lambda result: result.length)
    lengths = [result.length for result in results]
    exact = 100 * demo.float_accuracy
    axes.axhline(exact, color="0.35", linestyle="--", linewidth=1.3, label=f"float64 network, {exact:.2f} %")
    axes.plot(
        lengths,
        [100 * result.accuracy for result in results],
        color="C0",
        marker="o",
        label=f"bitstreams, {100 * results[-1].accuracy:.2f} % at {lengths[-1]} bits",
    )
    for result in results:
        place = result.length, 100 * result.accuracy
        axes.annotate(f"{place[1]:.1f}", place, (5, -13), textcoords="offset points")
    axes.margins(0.1, 0.1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("stream length (bits)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"{len(demo.digits.test_labels)} unseen digits on {demo.chosen.name}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def _draw_page(figure: SubFigure, demo: Demo) -> None:
    """Misread digits with their ten outputs at the largest length."""
    result = max(demo.results, key=lambda one: one.length)
    outputs = demo.model.network(result.length, demo.chosen).layers[-1].values_of(result.counts)
    misread = np.flatnonzero(outputs.argmax(axis=1) != demo.digits.test_labels)
    shown = misread[: PAGE_ROWS * PAGE_COLUMNS]
    how_many = f"{len(misread)} digits" if len(shown) == len(misread) else f"{len(shown)} of {len(misread)} digits"
    figure.suptitle(
        f"{how_many} misread at {result.length} bits: written \N{RIGHTWARDS ARROW} read\n"
        "beside each its ten outputs, green as written, red as read"
    )
    if not len(shown):
        return
    low, high = outputs[shown].min(), outputs[shown].max()
    rows = max(3, -(-len(shown) // PAGE_COLUMNS))
    # A cell is an image, its bars, and a gap.
    grid = figure.subplots(rows, 3 * PAGE_COLUMNS, width_ratios=[1, 0.9, 0.12] * PAGE_COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, image in enumerate(shown):
        row, column = divmod(place, PAGE_COLUMNS)
        picture, bars, _ = grid[row, 3 * column : 3 * column + 3]
        label, values = int(demo.digits.test_labels[image]), outputs[image]
        picture.set_title(f"{label} \N{RIGHTWARDS ARROW} {values.argmax()}", fontsize=12)
        _draw_digit(picture, demo.digits.test_inputs[image])
        _draw_outputs(bars, label, values)
        bars.set_xlim(low, high)


def _draw_digit(axes: Axes, x: NDArray[np.float64]) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.imshow(x.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
    axes.spines[:].set_color("0.8")


def _draw_outputs(axes: Axes, label: int, outputs: NDArray[np.float64]) -> None:
    axes.set_axis_on()
    colours = ["0.78"] * 10
    colours[label], colours[int(outputs.argmax())] = "C2", "C3"
    axes.barh(range(10), outputs, color=colours)
    axes.axvline(0, color="0.6", linewidth=0.6)
    axes.set_xticks([])
    axes.set_yticks(range(10), [str(digit) for digit in range(10)], fontsize=6)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()


def draw(demo: Demo, path: Path) -> None:
    """Write the picture: accuracy by length, and a page of misread digits.

    Parameters
    ----------
    demo : Demo
        With at least one result.
    path : Path
        PNG file, whatever its suffix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25], wspace=0.03, squeeze=False)[0]
    _draw_accuracy(left, demo)
    _draw_page(right, demo)
    figure.savefig(path, format="png", dpi=110)


def _lengths(text: str) -> list[int]:
    """``--lengths``: each length once, in the order given."""
    lengths: dict[int, None] = {}
    for item in text.split(","):
        if not (item.strip().isascii() and item.strip().isdigit() and 1 <= int(item) <= LONGEST):
            raise argparse.ArgumentTypeError(
                f"{item.strip()!r} is not a length from 1 to {LONGEST}; give bits separated by commas, like 16,1024"
            )
        lengths[int(item)] = None
    return list(lengths)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu demo``."""
    parser.add_argument("--device", default="auto", help="auto, gpu, cpu, numpy, an index or a name (default: auto)")
    parser.add_argument(
        "--lengths",
        type=_lengths,
        default=LENGTHS,
        help=f"stream lengths in bits, separated by commas (default: {LENGTHS})",
    )
    parser.add_argument("--seed", type=int, default=42, help="seed of the input streams (default: 42)")
    parser.add_argument("--output", default="digits.png", help="PNG file to write (default: digits.png)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _missing_package() -> str | None:
    for module, package in DEMO_MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            return package
    return None


def _report(demo: Demo, console: Console, pictures: Sequence[str], as_json: bool) -> None:
    """The results on stdout; what differs on stderr too, so that nothing hides it."""
    if as_json:
        results = [result.as_json() for result in demo.results]
        found = {"float_accuracy": demo.float_accuracy, "results": results, "pictures": list(pictures)}
        print(json.dumps(found, indent=2))
    else:
        console.print(_table(demo))
        console.print(_proof(demo), markup=False, highlight=False, soft_wrap=True)
        for path in pictures:
            console.print(f"Picture: {path}", markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()
    for result in demo.results:
        for check in result.checks:
            if check.problem:
                print(f"NOT PROVEN at {result.length} bits: {check}: {check.problem}", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """``scgpu demo``.

    Returns
    -------
    int
        0 when every device gave the same counts, 1 when one did not or failed, 2 when a
        module is missing or the picture cannot be written, 130 when interrupted.
    """
    missing = _missing_package()
    if missing:
        print(f"scgpu demo needs {missing}; run: pip install 'scgpu[demo]'", file=sys.stderr)
        return 2
    from rich.console import Console

    seed, path = arguments.seed_of(options.seed), arguments.writable_file("--output", options.output)
    model = load_model()
    demo = Demo(model, load_digits(model.split_seed), device(options.device), options.lengths, seed)
    # The live view never mixes with a redirected stdout.
    live, console = Console(stderr=options.json or not sys.stdout.isatty()), Console()
    interrupted = False
    try:
        with _progress(demo, live) as announce:
            demo.measure(announce)
    except KeyboardInterrupt:
        interrupted = True
    status, pictures = int(any(check.problem for check in demo.checks)), []
    if demo.results:
        try:
            draw(demo, path)
            pictures.append(str(path))
        except OSError as error:
            print(f"scgpu demo: --output {str(path)!r} could not be written: {error}", file=sys.stderr)
            status = status or 2
    _report(demo, console, pictures, options.json)
    if interrupted:
        print("scgpu demo: interrupted", file=sys.stderr)
    return 130 if interrupted else status
