"""info: what this installation has, and what it lacks."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from scgpu import _cpu, _gpu, placement
from scgpu._version import __version__
from scgpu.devices import device, devices, problems
from scgpu.errors import NativeLibraryError

DEMO_MODULES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}
LIVE_MODULES = {"PIL": "pillow", "rendercanvas": "rendercanvas", "glfw": "glfw"}
LAYERS = ((64, 32), (256, 128), (1000, 500), (4096, 4096))
SHOWN_LIMITS = (
    "max-storage-buffer-binding-size",
    "max-buffer-size",
    "max-compute-workgroups-per-dimension",
    "max-compute-invocations-per-workgroup",
    "max-compute-workgroup-storage-size",
)


def _versions() -> dict[str, str]:
    found = {"scgpu": __version__, "python": platform.python_version(), "numpy": np.__version__}
    try:
        return {**found, **_gpu.versions()}
    except Exception as error:  # a broken wgpu raises anything; it is reported, not fatal
        return {**found, "wgpu": f"does not import ({type(error).__name__})"}


def _missing() -> list[str]:
    texts = problems()
    if not any(known.kind == "gpu" and not known.software for known in devices()):
        texts.append("no hardware GPU adapter: 'auto' takes cpu; for a GPU install its vendor's Vulkan driver")
    for command, modules in (("demo", DEMO_MODULES), ("live", LIVE_MODULES)):
        absent = [package for module, package in modules.items() if importlib.util.find_spec(module) is None]
        if absent:
            texts.append(f"`scgpu {command}` needs {', '.join(absent)}; run: pip install 'scgpu[{command}]'")
    return texts


def _auto() -> dict[str, Any]:
    """What ``"auto"`` means for streams, and for layers of some shapes."""
    placed = {f"{n}x{m}": placement.place("auto", placement.Shape(n, m, 1024, 256)) for n, m in LAYERS}
    return {
        "device": str(device("auto")),
        "layers": {name: (str(one.device), one.reason) for name, one in placed.items()},
    }


def collect() -> dict[str, Any]:
    """Everything that ``scgpu info --json`` prints."""
    try:
        tier: str | None = _cpu.simd_tier()
        tiers = _cpu.simd_tiers()
    except NativeLibraryError:
        tier, tiers = None, []
    known = devices()
    return {
        "devices": [{**asdict(one), "limits": dict(one.limits), "software": one.software} for one in known],
        "auto": _auto() if tier or any(one.kind == "gpu" for one in known) else None,
        "tier": tier,
        "tiers": tiers,
        "versions": _versions(),
        "missing": _missing(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu info``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """``scgpu info``."""
    found = collect()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print("devices")
    for one in found["devices"]:
        kind = "software adapter" if one["software"] else one["type"]
        facts = [one["backend"], kind, one["driver"]]
        if one["tier"]:
            facts.append(f"tier {one['tier']}")
        if one["threads"]:
            facts.append(f"{one['threads']} thread" + "s" * (one["threads"] > 1))
        print(f"  {one['index']}  {one['name']}: {', '.join(filter(None, facts))}")
        for limit in SHOWN_LIMITS:
            if limit in one["limits"]:
                print(f"       {limit} = {one['limits'][limit]:,}")
    if found["auto"]:
        print(f"auto      {found['auto']['device']}")
        for name, (chosen, reason) in found["auto"]["layers"].items():
            print(f"          layer {name}: {chosen}; {reason}")
    print(f"tiers     {', '.join(found['tiers']) or 'none'} (in use: {found['tier']})")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    print("missing   " + ("nothing" if not found["missing"] else ""))
    for text in found["missing"]:
        print(f"  - {text}")
    return 0
