"""Write ``tests/vectors/contract1.npz`` with the NumPy oracle, or check that it still holds.

The file is the evidence for the contract's version: it changes only with a new version.

Usage: python tools/make_vectors.py [--check]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import scgpu

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "contract1.npz"

P = (0.0, 2.0**-32, 2.0**-33, 0.1, 0.25, 0.5, 0.75, 0.999, 1 - 2.0**-32, 1.0)

# One line per case: name -> keyword arguments of scgpu.encode.
ENCODE: dict[str, dict[str, Any]] = {
    "default": {"length": 1024},
    **{f"length_{n}": {"length": n, "seed": n} for n in (1, 31, 32, 33, 63, 64, 65, 1000)},
    **{f"resolution_{r}": {"length": 257, "resolution": r} for r in (1, 2, 8, 16, 31)},
    "largest_seed": {"length": 130, "seed": 2**64 - 1},
    "last_sample": {"length": 130, "seed": 2**32, "first_sample": 2**32 - 1},
    "purpose_weight": {"length": 130, "purpose": "weight", "tensor_id": 3},
    "purpose_select": {"length": 130, "purpose": "select"},
    "purpose_noise": {"length": 130, "purpose": "noise", "tensor_id": 2**24 - 1},
    "purpose_initial": {"length": 130, "purpose": "initial"},
    "bipolar": {"length": 300, "seed": 9, "polarity": "bipolar"},
}

# name -> (n_inputs, n_neurons, batch, keyword arguments of scgpu.DenseLayer).
DENSE: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "unipolar": (10, 6, 3, {"length": 1024}),
    "bipolar": (10, 6, 3, {"length": 1000, "polarity": "bipolar", "seed": 2**63}),
    "one_bit": (3, 2, 5, {"length": 1}),
    "single": (1, 1, 1, {"length": 65, "seed": 0}),
    "tensor_7": (33, 5, 2, {"length": 127, "tensor_id": 7}),
    "shared": (10, 6, 3, {"length": 1000, "weight_streams": "shared"}),
    "shared_bipolar": (5, 4, 2, {"length": 2100, "weight_streams": "shared", "polarity": "bipolar", "tensor_id": 3}),
    "shared_ramp": (10, 6, 3, {"length": 1024, "weight_streams": "shared", "sequence": "ramp"}),
    "shared_wide": (2, 3, 1, {"length": 70000, "weight_streams": "shared", "polarity": "bipolar"}),
}

# name -> (sizes, polarity, activation).
NETWORK: dict[str, tuple[tuple[int, ...], str, scgpu.Activation]] = {
    "clip": ((7, 5, 3), "unipolar", scgpu.Activation("clip")),
    "clip_scaled": ((7, 5, 4, 3), "bipolar", scgpu.Activation("clip", 2.5)),
    "relu": ((7, 5, 3), "bipolar", scgpu.Activation("relu", 3.0)),
}


def encode_values(polarity: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probabilities of the encode cases, or their bipolar values."""
    return 2 * np.array(P) - 1 if polarity == "bipolar" else np.array(P)


def inputs(shape: tuple[int, ...], polarity: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Exactly representable inputs that need no random generator."""
    grid = (np.arange(np.prod(shape)) * 37 % 101).reshape(shape) / 128
    return 2 * grid - 1 if polarity == "bipolar" else grid


def network(name: str, device: str | scgpu.Device) -> scgpu.Network:
    """The network of a case."""
    sizes, polarity, activation = NETWORK[name]
    layers = [
        scgpu.DenseLayer(n, m, 200 + n, polarity=polarity, device=device)  # type: ignore[arg-type]
        for n, m in zip(sizes, sizes[1:], strict=False)
    ]
    return scgpu.Network(layers, activation)


def compute(device: str | scgpu.Device) -> dict[str, np.ndarray[Any, Any]]:
    """Every vector, computed on a device."""
    out: dict[str, np.ndarray[Any, Any]] = {}
    for name, options in ENCODE.items():
        values = encode_values(options.get("polarity", "unipolar"))
        out[f"encode/{name}"] = scgpu.encode(values, device=device, **options).words
    for name, (n_inputs, n_neurons, batch, options) in DENSE.items():
        layer = scgpu.DenseLayer(n_inputs, n_neurons, device=device, **options)
        x = inputs((batch, n_inputs), layer.polarity)
        out[f"dense/{name}/weights"] = layer.weights
        out[f"dense/{name}/packed_weights"] = layer.packed_weights.words
        out[f"dense/{name}/counts"] = layer.counts(x, seed=5, first_sample=2)
        out[f"dense/{name}/values"] = layer.forward(x, seed=5, first_sample=2)
    for name in NETWORK:
        net = network(name, device)
        x = inputs((4, net.n_inputs), net.layers[0].polarity)
        out[f"network/{name}/counts"] = net.counts(x, seed=2**40 + 1)
    return out


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a vector differs")
    made = compute("numpy")
    if not parser.parse_args().check:
        np.savez_compressed(TARGET, **made)  # type: ignore[arg-type]
        return
    with np.load(TARGET, allow_pickle=False) as stored:
        wrong = sorted(made.keys() ^ set(stored.files))
        wrong += [name for name in stored.files if name in made and not np.array_equal(made[name], stored[name])]
    if wrong:
        raise SystemExit(f"{TARGET.name}: {', '.join(wrong)} differ from what the oracle gives now")


if __name__ == "__main__":
    main()
