"""The command line: ``scgpu`` with one of `COMMANDS`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from scgpu import bench, demo, info, live, parity, raster, tables, tune
from scgpu._version import __version__
from scgpu.errors import ScgpuError

COMMANDS: dict[str, tuple[Any, str]] = {
    "info": (info, "show devices, limits, SIMD tiers, versions, and what is missing"),
    "demo": (demo, "classify real handwritten digits and prove the bits equal on every device"),
    "parity": (parity, "compare every operation on every device of this machine with the oracle"),
    "bench": (bench, "measure speeds beside peers and the machine's own ceilings"),
    "raster": (raster, "draw a recording of a spiking network: spikes, population rates, membrane potentials"),
    "tune": (tune, "measure the variants of the shaders on the GPU adapters and remember the fastest"),
    "tables": (tables, "compute published figures of stochastic computing again: published, ours, difference"),
    "live": (live, "run a spiking network in a window, drawn on the GPU that runs it"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scgpu",
        description="Stochastic computing on any GPU and CPU, the same bits everywhere.",
        epilog="SC_GPU_ADAPTER chooses the adapter of 'auto' and 'gpu'; SCGPU_SIMD_TIER the CPU's SIMD tier.",
    )
    parser.add_argument("--version", action="version", version=f"scgpu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0 for success, 1 for a difference between devices, 2 for a usage error or a device
        that is not there, 130 when interrupted.
    """
    options = _parser().parse_args(argv)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except (ScgpuError, ValueError, TypeError) as error:
        print(f"scgpu {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"scgpu {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone: nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
