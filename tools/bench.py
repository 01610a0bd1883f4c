"""Measure scgpu on this machine, beside its peers and the machine's ceilings: ``scgpu bench`` in a checkout.

Usage: python tools/bench.py [--device NAME] [--section NAME] [--threads N] [--json FILE] [--markdown FILE] [--png FILE]
"""

from __future__ import annotations

import sys

from scgpu.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
