"""tune: find the fastest variant of each shader on the GPU adapters of this machine, and remember it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, cast

from scgpu import _abi, tuning
from scgpu.backend import Device
from scgpu.devices import backend_of, device, devices
from scgpu.errors import DeviceError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu tune``."""
    parser.add_argument("--device", help="only this adapter (default: every GPU adapter)")
    parser.add_argument("--clear", action="store_true", help="forget what was tuned instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _adapters(selector: str | None) -> list[Device]:
    if selector is not None:
        chosen = device(selector)
        if chosen.kind != "gpu":
            raise DeviceError(f"--device {selector!r} is {chosen}, which has nothing to tune; name a GPU adapter")
        return [chosen]
    found = [known for known in devices() if known.kind == "gpu"]
    if not found:
        raise DeviceError("there is no GPU adapter to tune; `scgpu info` says what is missing")
    return found


def _names(row: tuning.Row) -> dict[str, float]:
    """Microseconds by the names of the variants."""
    names = list(_abi.DENSE_VARIANTS)
    return {names[variant]: round(taken, 1) for variant, taken in row.microseconds.items()}


def _tune(chosen: Device, interactive: bool) -> dict[str, Any]:
    def progress(text: str) -> None:
        if interactive:
            print(f"\r\x1b[K{chosen}: {text}" if text else "\r\x1b[K", end="", file=sys.stderr, flush=True)

    backend = cast(tuning.TunableBackend, backend_of(chosen))
    rows = tuning.measure(backend, progress)
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
        "file": str(tuning.cache_file(chosen)),
        "problem": tuning.save(chosen, backend.tuned),
    }


def _print(found: dict[str, Any]) -> None:
    print(found["device"])
    width = max(len(entry["class"]) for entry in found["classes"])
    for entry in found["classes"]:
        taken = entry["microseconds"]
        line = f"  {entry['op']}  {entry['class']:<{width}}  {entry['fastest']:<20}"
        if entry["fastest"] in taken and entry["default"] in taken:
            gain = taken[entry["default"]] / taken[entry["fastest"]]
            line += f" {taken[entry['fastest']]:>10,.0f} us  {gain:5.2f} times the default ({entry['default']})"
        print(line)
        for name in entry["wrong"]:
            print(f"    {name} gives wrong bits and is not used: a fault of the driver; run `scgpu parity`")
    print(f"  {found['problem'] or 'remembered in ' + found['file']}")


def run(options: argparse.Namespace) -> int:
    """``scgpu tune``: 0 when every variant gave the right bits, 1 when one did not."""
    adapters = _adapters(options.device)
    if options.clear:
        cleared = {str(chosen): tuning.clear(chosen) for chosen in adapters}
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
