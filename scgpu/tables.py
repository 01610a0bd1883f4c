"""tables: figures that others published about stochastic computing, computed again and set beside them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import unary_network, unary_units
from scgpu.arguments import Polarity
from scgpu.backend import Device
from scgpu.devices import device as chosen_device
from scgpu.exhaustive_products import generator_pairs, product_errors

PREFIXES = (16, 32, 64, 128, 256)
SEEDS = 64
TITLES = {
    "products": "Products of all 256 x 256 pairs of 8-bit numbers, L = 256 unless said",
    "prefixes": "The same products, by length: root of the mean square error of AND",
    "units": "Units of UnarySim, 8-bit values, L = 256: root of the mean square error",
    "network": "UnarySim's network, published for MNIST, ours of digits of 8 x 8 pixels: images read right, %",
}

# Mean, RMS and largest error of AND, RMS error of XNOR, in the order of `generator_pairs`.
PRODUCTS = (
    ("0.190", "0.00237", "0.0101", "0.00949"),
    ("0.391", "0.00434", "0.0108", "0.0174"),
    ("0.367", "0.00456", "0.0152", "0.0123"),
    ("0.595", "0.00759", "0.0308", "0.0304"),
    ("3.92", "0.0507", "0.124", "0.209"),
    ("8.33", "0.1054", "0.25", "0.422"),
)
SOBOL_PREFIXES = ("0.0462", "0.0225", "0.0114", "0.0056", "0.0024")
BERNOULLI_PREFIXES = ("0.0932", "0.0659", "0.0466", "0.0329", "0.0233")


@dataclass(frozen=True)
class Row:
    """A published figure, and the same computed here.

    Attributes
    ----------
    table, case, measure : str
        What it is; ``table`` is a key of `TITLES`.
    published : str
        With the digits that were published; "-" where nothing was.
    ours : float
        Computed here.
    sampling : float
        One standard deviation of what random numbers do to either figure: the operands that a published
        one was drawn with, or the seeds of ours. 0 where nothing is random.
    same_data : bool
        Whether ours should agree with the published figure: not where it is of other data.
    """

    table: str
    case: str
    measure: str
    published: str
    ours: float
    sampling: float = 0.0
    same_data: bool = True

    @property
    def digits(self) -> int:
        """Decimals of the published figure."""
        return len(self.published.partition(".")[2])

    @property
    def difference(self) -> float | None:
        """Ours less the published figure."""
        return None if self.published == "-" else self.ours - float(self.published)

    @property
    def verdict(self) -> str:
        """How they agree: to all digits, within sampling error, but for 1 in the last digit, or not."""
        if not self.same_data or self.difference is None:
            return "other data"
        unit = 10.0**-self.digits
        if f"{self.ours:.{self.digits}f}" == self.published:
            return "all digits"
        if self.sampling:
            return "within sampling error" if abs(self.difference) <= unit / 2 + 3 * self.sampling else "DIFFERS"
        return "last digit differs by 1" if abs(self.difference) <= unit else "DIFFERS"


def _products(device: str | int | Device) -> Iterator[Row]:
    measures = ("mean error, %", "RMSE", "largest error", "RMSE, bipolar")
    for (name, first, second, length), published in zip(generator_pairs(), PRODUCTS, strict=True):
        errors = product_errors(first, second, length, device=device)
        case = name if length == 256 else f"{name}, L = {length}"
        ours = (100 * errors.mean, errors.rms, errors.largest, errors.bipolar_rms)
        for measure, figure, value in zip(measures, published, ours, strict=True):
            yield Row("products", case, measure, figure, value)
    made = [product_errors("bernoulli", "bernoulli", seed=seed, device=device) for seed in range(SEEDS)]
    for measure, figure, values in (
        ("RMSE", "0.0233", [one.rms for one in made]),
        ("RMSE, bipolar", "0.0589", [one.bipolar_rms for one in made]),
    ):
        yield Row("products", f"Bernoulli, theory; ours {SEEDS} seeds", measure, figure, *_mean_of(values))


def _mean_of(values: list[float]) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5


def _prefixes(device: str | int | Device) -> Iterator[Row]:
    for length, published in zip(PREFIXES, SOBOL_PREFIXES, strict=True):
        ours = product_errors("sobol", "sobol", length, device=device).rms
        yield Row("prefixes", "Sobol dimension 1 x dimension 2", f"L = {length}", published, ours)
    for length, published in zip(PREFIXES, BERNOULLI_PREFIXES, strict=True):
        made = [product_errors("bernoulli", "bernoulli", length, seed=seed, device=device).rms for seed in range(SEEDS)]
        case = f"Bernoulli, theory; ours {SEEDS} seeds"
        yield Row("prefixes", case, f"L = {length}", published, *_mean_of(made))


def _units(device: str | int | Device) -> Iterator[Row]:
    polarities: tuple[Polarity, ...] = ("bipolar", "unipolar")
    for unit, figures in (("uMUL", ("0.00788", "0.00317")), ("Gaines", ("0.0234", "0.00665"))):
        for polarity, published in zip(polarities, figures, strict=True):
            measured = unary_units.multiplication(unit, polarity, device)
            yield Row("units", f"multiplication, {unit}", polarity, published, measured.rms, measured.sampling)
    for unit, bits, published in (("counter", 5, "0.0036"), ("register", 16, "0.0263"), ("register", 4, "0.0638")):
        ours = unary_units.rectification(unit, bits, device)
        yield Row("units", f"ReLU, {unit} of {bits} bits", "bipolar", published, ours)
    for name, published in (("tanh", "0.0174"), ("exp", "0.0252")):
        yield Row("units", f"{name}, series, Sobol", "unipolar", published, unary_units.series(name, device))
    for name, generator, dead, published in (
        ("tanh", "LFSR", 1, "0.0433"),
        ("tanh", "system", 0, "0.0183"),
        ("exp", "LFSR", 0, "0.0249"),
        ("exp", "system", 0, "0.0149"),
    ):
        measured = unary_units.drawn_series(name, generator, dead, device)
        case = f"{name}, series, {generator}" + (f", {dead} of 100 in state 0" if dead else "")
        yield Row("units", case, "unipolar", published, measured.rms, measured.sampling)
    for name, function, unit, figures in (
        ("square root", unary_units.root, "emitted", ("0.04416", "0.03315")),
        ("square root", unary_units.root, "JK", ("0.0722", "0.0873")),
        ("square root", unary_units.root, "plain", ("0.0722", "0.108")),
        ("division", unary_units.division, "CORDIV", ("0.0850", "0.0491")),
        ("division", unary_units.division, "Gaines", ("0.645", "0.0860")),
    ):
        for polarity, published in zip(polarities, figures, strict=True):
            yield Row("units", f"{name}, {unit}", polarity, published, function(unit, polarity, device))


def _network(device: str | int | Device) -> Iterator[Row]:
    model = unary_network.load_unary_model()
    digits = model.digits()
    right = digits.test_labels

    def row(case: str, published: str, outputs: NDArray[Any]) -> Row:
        share = float(np.mean(outputs.argmax(axis=1) == right))
        return Row("network", case, f"{right.size} images", published, 100 * share, same_data=False)

    yield row("floating point", "96.08", model.scores(digits.test_inputs))
    for case, unit, published in (
        ("uGEMM", "uGEMM", "94.74"),
        ("Gaines, sum by a counter", "counter", "88.58"),
        ("Gaines, scaled addition", "scaled", "-"),
    ):
        yield row(case, published, unary_network.unary_outputs(model, digits.test_inputs, unit, device))


TABLES: dict[str, Callable[[str | int | Device], Iterator[Row]]] = {
    "products": _products,
    "prefixes": _prefixes,
    "units": _units,
    "network": _network,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu tables``."""
    parser.add_argument("--device", default="auto", help="auto, gpu, cpu, numpy, an index or a name (default: auto)")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this; may be repeated (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _entry(row: Row) -> dict[str, Any]:
    return {
        **{"table": row.table, "case": row.case, "measure": row.measure},
        **{"published": row.published, "ours": row.ours, "difference": row.difference},
        **{"sampling": row.sampling, "verdict": row.verdict},
    }


def _print(rows: list[Row]) -> None:
    for table in dict.fromkeys(row.table for row in rows):
        width = max(len(row.case) for row in rows if row.table == table)
        print(f"{TITLES[table]}\n")
        print(f"  {'':<{width}}  {'':<13}  {'published':>9}  {'ours':>9}  {'difference':>10}  {'sampling':>8}")
        for row in (row for row in rows if row.table == table):
            places = (row.digits + 2, 6) if row.same_data else (2, 2)
            ours = f"{row.ours:.{places[0]}f}"
            difference = "-" if row.difference is None else f"{row.difference:+.{places[1]}f}"
            sampling = f"{row.sampling:8.6f}" if row.sampling else f"{'-':>8}"
            print(
                f"  {row.case:<{width}}  {row.measure:<13}  {row.published:>9}  {ours:>9}  "
                f"{difference:>10}  {sampling}  {row.verdict}"
            )
        print()


def run(options: argparse.Namespace) -> int:
    """``scgpu tables``: 0 when every figure is as published, to a digit or its sampling error, else 1."""
    device = chosen_device(options.device)
    rows: list[Row] = []
    chosen = options.table or list(TABLES)
    if "network" in chosen and find_spec("sklearn") is None:
        print("scgpu tables: the network needs scikit-learn: pip install 'scgpu[demo]'", file=sys.stderr)
        if options.table:
            return 2
        chosen.remove("network")
    for table in chosen:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{TITLES[table]}", end="", file=sys.stderr, flush=True)
        rows += TABLES[table](device)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    failed = sum(row.verdict == "DIFFERS" for row in rows)
    if options.json:
        print(json.dumps({"device": str(device), "rows": [_entry(row) for row in rows]}, indent=2))
    else:
        _print(rows)
        print(f"{len(rows)} figures on {device}: {failed} not as published")
    return int(failed > 0)
