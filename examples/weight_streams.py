"""Independent and shared weight streams: how wrong one neuron is, and how alike two neurons' errors are.

Usage: python examples/weight_streams.py [--device DEVICE] [--layers LAYERS]
"""

from __future__ import annotations

import argparse

import numpy as np

import scgpu

N_INPUTS, N_NEURONS = 64, 32


def errors(x: np.ndarray, seed: int, length: int, **options: object) -> np.ndarray:
    """Errors (sample, neuron) of a layer whose last neuron has the weights of its first."""
    weights = np.random.default_rng(seed).random((N_NEURONS, N_INPUTS))
    weights[-1] = weights[0]
    layer = scgpu.DenseLayer(N_INPUTS, N_NEURONS, length, seed, weights=weights, **options)
    return layer.forward(x, seed=1000 + seed) - x @ weights.T


def main() -> None:
    """Print root mean square errors and mean correlations over some random layers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="see `scgpu info` (default: auto)")
    parser.add_argument("--layers", type=int, default=12, help="random layers to average over (default: 12)")
    options = parser.parse_args()
    x = np.random.default_rng(0).random((400, N_INPUTS))
    print(f"{'length':>8} {'weight streams':>16} {'RMS error':>10} {'correlation':>12} {'equal weights':>14}")
    for length in (256, 1024):
        for kind, sequence in (("independent", None), ("shared", "philox"), ("shared", "ramp")):
            squares, alike, twins = [], [], []
            for seed in range(options.layers):
                e = errors(x, seed, length, weight_streams=kind, sequence=sequence, device=options.device)
                correlations = np.corrcoef(e[:, :-1].T)[np.triu_indices(N_NEURONS - 1, 1)]
                squares.append(np.mean(e**2))
                alike.append(correlations.mean())
                twins.append(np.corrcoef(e[:, 0], e[:, -1])[0, 1])
            name = (sequence and f"{kind} {sequence}") or kind
            figures = f"{np.sqrt(np.mean(squares)):>10.4f} {np.mean(alike):>12.2f} {np.mean(twins):>14.2f}"
            print(f"{length:>8} {name:>16} {figures}")


if __name__ == "__main__":
    main()
