"""How a product of two bitstreams approaches the exact product as the streams grow.

Usage: python examples/precision.py [--device DEVICE]
"""

from __future__ import annotations

import argparse

import numpy as np

import scgpu


def main() -> None:
    """Print the root mean square error of 1,000 products for each length, and what theory expects."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="see `scgpu info` (default: auto)")
    device = scgpu.device(parser.parse_args().device)
    rng = np.random.default_rng(0)
    a, b = rng.random(1000), rng.random(1000)
    product = a * b
    print(f"1,000 products a AND b on {device}")
    print(f"{'length':>8} {'RMS error':>10} {'expected':>10}")
    for length in (16, 64, 256, 1024, 4096, 16384):
        x = scgpu.encode(a, length, seed=1, device=device)
        y = scgpu.encode(b, length, seed=1, purpose="weight", device=device)
        error = (x & y).value() - product
        expected = np.sqrt(np.mean(product * (1 - product)) / length)
        print(f"{length:>8} {np.sqrt(np.mean(error**2)):>10.5f} {expected:>10.5f}")


if __name__ == "__main__":
    main()
