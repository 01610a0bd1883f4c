"""Train the network that ``scgpu tables --table network`` runs: 64 pixels, 64 and 64 hidden neurons, 10 digits.

    python examples/train_unary_digits.py

writes ``scgpu/data/unary_digits.npz`` from half of scikit-learn's handwritten digits; the table scores the other
half. Needs NumPy and scikit-learn and takes a few seconds.

The network is that of UnarySim's application ``mlp``, smaller: three layers with biases, hidden values cut to
0 .. 1, outputs to -1 .. 1, weights and biases cut to -1 .. 1 and rounded to 128ths. It is trained in floating point
with dropout, so another machine's sums may give another file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scgpu.demo import Digits
from scgpu.unary_network import MODEL, UnaryModel

Array = NDArray[np.float64]

SPLIT_SEED = 0
SEED = 0
SIZES = ((64, 64), (64, 64), (64, 10))
GAIN = 5.0  # of the outputs before the softmax, so that they need not pass -1 and 1
DROPPED = 0.2
EPOCHS = 100
BATCH = 64
LEARNING_RATE = 0.003


class Layer:
    """Weights with the biases as their last column, and Adam."""

    def __init__(self, inputs: int, neurons: int, rng: np.random.Generator) -> None:
        self.weights = rng.uniform(-1, 1, (neurons, inputs + 1)) / np.sqrt(inputs)
        self._first_moment = np.zeros_like(self.weights)
        self._second_moment = np.zeros_like(self.weights)
        self._steps = 0

    def forward(self, x: Array) -> Array:
        """Sums of the inputs, and the bias."""
        self._x = np.column_stack([x, np.ones(len(x))])
        return np.asarray(self._x @ self.weights.T)

    def backward(self, gradient: Array, rate: float) -> Array:
        """One step of Adam, cut to -1 .. 1; the gradient by the inputs."""
        by_inputs = gradient @ self.weights[:, :-1]
        by_weights = gradient.T @ self._x
        self._steps += 1
        self._first_moment += 0.1 * (by_weights - self._first_moment)
        self._second_moment += 0.001 * (by_weights**2 - self._second_moment)
        mean = self._first_moment / (1 - 0.9**self._steps)
        spread = np.sqrt(self._second_moment / (1 - 0.999**self._steps))
        self.weights = np.clip(self.weights - rate * mean / (spread + 1e-8), -1, 1)
        return np.asarray(by_inputs)


def train(digits: Digits, seed: int) -> UnaryModel:
    """Train on the training half."""
    rng = np.random.default_rng(seed)
    layers = [Layer(inputs, neurons, rng) for inputs, neurons in SIZES]
    labels = digits.train_labels
    for epoch in range(EPOCHS):
        order = rng.permutation(len(labels))
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            x, slopes = digits.train_inputs[rows], []
            for layer in layers[:-1]:
                sums = layer.forward(x)
                kept = (rng.random(sums.shape) >= DROPPED) / (1 - DROPPED)
                x = np.clip(sums, 0, 1) * kept
                slopes.append(kept * ((sums > 0) & (sums < 1)))
            scaled = GAIN * layers[-1].forward(x)
            likelihood = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            gradient = likelihood / likelihood.sum(axis=1, keepdims=True) - np.eye(10)[labels[rows]]
            gradient *= GAIN / len(rows)
            rate = LEARNING_RATE * (1 - epoch / EPOCHS)
            for layer, slope in zip(reversed(layers[1:]), reversed(slopes), strict=True):
                gradient = layer.backward(gradient, rate) * slope
            layers[0].backward(gradient, rate)
    return UnaryModel(tuple(np.rint(128 * layer.weights).astype(np.int16) for layer in layers), SPLIT_SEED)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write, and say how well the float network does."""
    parser = argparse.ArgumentParser(description="Train the network of `scgpu tables --table network`.")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the training (default: {SEED})")
    parser.add_argument("--output", type=Path, default=MODEL, help=f"file to write (default: {MODEL})")
    options = parser.parse_args(argv)
    digits = UnaryModel((), SPLIT_SEED).digits()
    model = train(digits, options.seed)
    stored = {f"layer_{place}": layer for place, layer in enumerate(model.layers)}
    np.savez_compressed(options.output, split_seed=np.int64(model.split_seed), **stored)  # type: ignore[arg-type]
    for name, inputs, labels in (
        ("training", digits.train_inputs, digits.train_labels),
        ("test", digits.test_inputs, digits.test_labels),
    ):
        accuracy = np.mean(model.scores(inputs).argmax(axis=1) == labels)
        print(f"float accuracy, {name} half ({len(labels)} images): {100 * accuracy:.2f} %")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
