"""tune: measure this machine: the fastest variant of each shader on its GPUs, and what `placement` goes by."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any, cast

from scgpu import _abi, placement, tuning
from scgpu.backend import Device
from scgpu.devices import backend_of, device, devices
from scgpu.errors import DeviceError

RATES = ("encode", "weights", "products")  # of placement.Rates, in 64-bit words per microsecond


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu tune``."""
    parser.add_argument("--device", help="only this device (default: every GPU adapter and cpu)")
    parser.add_argument("--clear", action="store_true", help="forget what was tuned instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _chosen(selector: str | None) -> list[Device]:
    if selector is not None:
        chosen = device(selector)
        if chosen.kind == "numpy":
            raise DeviceError(f"--device {selector!r} is {chosen}, which has nothing to tune; name a GPU or cpu")
        return [chosen]
    return [known for known in devices() if known.kind != "numpy"]


def _names(row: tuning.Row) -> dict[str, float]:
    """Microseconds by the names of the variants."""
    names = list(_abi.DENSE_VARIANTS)
    return {names[variant]: round(taken, 1) for variant, taken in row.microseconds.items()}


def _tune(chosen: Device, interactive: bool) -> dict[str, Any]:
    def progress(text: str) -> None:
        if interactive:
            print(f"\r\x1b[K{chosen}: {text}" if text else "\r\x1b[K", end="", file=sys.stderr, flush=True)

    rows: list[tuning.Row] = []
    problem, file = "", ""
    if chosen.kind == "gpu":
        backend = cast(tuning.TunableBackend, backend_of(chosen))
        rows = tuning.measure(backend, progress)
        problem, file = tuning.save(chosen, backend.tuned), str(tuning.file_of(chosen))
    progress("rates")
    rates = placement.rates_of(chosen, fresh=True)
    progress("")
    names = list(_abi.DENSE_VARIANTS)
    return {
        "device": str(chosen),
        "classes": [
            {
                "op": row.op,
                "class": row.shape_class,
                "default": names[row.default],
                "fastest": names[row.fastest],
                "microseconds": _names(row),
                "wrong": [names[variant] for variant in row.wrong],
            }
            for row in rows
        ],
        "rates": asdict(rates),
        "file": file,
        "problem": problem,
    }


def _print(found: dict[str, Any]) -> None:
    print(found["device"])
    rates = found["rates"]
    print(
        f"  a call takes {rates['call']:,.0f} us; words/us: "
        + ", ".join(f"{name} {rates[name]:,.0f}" for name in RATES)
    )
    width = max((len(entry["class"]) for entry in found["classes"]), default=0)
    for entry in found["classes"]:
        taken = entry["microseconds"]
        line = f"  {entry['op']}  {entry['class']:<{width}}  {entry['fastest']:<20}"
        if entry["fastest"] in taken and entry["default"] in taken:
            gain = taken[entry["default"]] / taken[entry["fastest"]]
            line += f" {taken[entry['fastest']]:>10,.0f} us  {gain:5.2f} times the default ({entry['default']})"
        print(line)
        for name in entry["wrong"]:
            print(f"    {name} gives wrong bits and is not used: a fault of the driver; run `scgpu parity`")
    if found["classes"]:
        print(f"  {found['problem'] or 'remembered in ' + found['file']}")


def run(options: argparse.Namespace) -> int:
    """``scgpu tune``: 0 when every variant gave the right bits, 1 when one did not."""
    adapters = _chosen(options.device)
    if options.clear:
        cleared = {str(chosen): tuning.clear(chosen) | placement.forget(chosen) for chosen in adapters}
        if options.json:
            print(json.dumps({"cleared": cleared}, indent=2))
        else:
            for name, there in cleared.items():
                print(f"{name}: {'forgotten' if there else 'nothing was tuned'}")
        return 0
    found = [_tune(chosen, sys.stderr.isatty()) for chosen in adapters]
    if options.json:
        print(json.dumps({"devices": found}, indent=2))
    else:
        for one in found:
            _print(one)
    return int(any(entry["wrong"] for one in found for entry in one["classes"]))
