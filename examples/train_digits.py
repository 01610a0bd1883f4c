"""Train the network that ``scgpu demo`` runs: 64 pixels, 32 hidden neurons, 10 digits.

    python examples/train_digits.py

writes ``scgpu/data/digits.npz`` from half of scikit-learn's handwritten digits; the demo
scores the other half. Needs NumPy and scikit-learn and takes a few seconds.

The network is the one that bipolar bitstreams compute, without biases (a pixel that is
always 0 is a constant input of -1):

    hidden = clip(W1 x / HIDDEN_SCALE, -1, 1),  outputs = W2 hidden,  all weights in [-1, 1].

It is trained with the noise that streams of L bits would add. A product w x of two bipolar
streams is the mean of L bits of +1 or -1, so the sum over the inputs has the variance
sum(1 - (w x)**2) / L. Each training image meets a random L of `LENGTHS`, much shorter than
what the network is meant for, and the gradient runs through the deviation as well: weights
that keep their products near +-1, where a stream has no noise, are learnt to be cheap.

The same seed gives the same file, whichever BLAS kernel is used: each adds in its own order,
so the operands of every sum are rounded to multiples of `GRID` first, and the sums are then
exact in float64 in any order. What is left to the platform is NumPy's random stream and the
last bit of exp, which the rounding hides in all but rare cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scgpu.demo import Digits, Model, load_digits

Array = NDArray[np.float64]

OUTPUT = Path(__file__).resolve().parents[1] / "scgpu" / "data" / "digits.npz"
SPLIT_SEED = 0
SEED = 0

# Chosen by 3-fold cross-validation within the training half.
HIDDEN = 32
HIDDEN_SCALE = 2.0
LENGTHS = (32.0, 64.0, 128.0, 256.0)
TEMPERATURE = 2.0
SHIFTED = 0.15  # share of the training images that are moved by one pixel
EPOCHS = 600
BATCH = 64
LEARNING_RATE = 0.02

GRID = 2.0**-20
WEIGHT_GRID = 2.0**-16  # of the weights written: exact in float32
SMALLEST_VARIANCE = 1e-3  # keeps the gradient of the deviation finite


def on_grid(values: Array, grid: float = GRID) -> Array:
    """The nearest multiples of ``grid``."""
    return np.rint(values / grid) * grid


def matmul(left: Array, right: Array) -> Array:
    """left @ right of the rounded operands: exact while sums of |products| stay below 2**13."""
    return np.asarray(on_grid(left) @ on_grid(right))


def shifts(x: Array) -> Array:
    """The images as they are and moved by one pixel each way, shape (5, n, 64); new pixels are empty."""
    padded = np.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.stack([padded[:, row : row + 8, column : column + 8].reshape(-1, 64) for row, column in corners])


class NoisyLayer:
    """Products with the noise of bipolar streams, and their gradients."""

    def __init__(self, inputs: int, neurons: int, rng: np.random.Generator) -> None:
        self.weights = rng.uniform(-0.5, 0.5, (neurons, inputs))
        self._first_moment = np.zeros_like(self.weights)
        self._second_moment = np.zeros_like(self.weights)
        self._first_decay = self._second_decay = 1.0

    def forward(self, x: Array, lengths: Array, rng: np.random.Generator) -> Array:
        """Sums of products of ``lengths`` bits, shape (batch, neurons)."""
        self._x = x
        exact = matmul(x, self.weights.T)
        variance = x.shape[1] - matmul(x**2, self.weights.T**2)
        deviation = np.sqrt(np.maximum(variance, SMALLEST_VARIANCE) / lengths)
        noise = on_grid(rng.standard_normal(exact.shape))
        self._slope = noise / (deviation * lengths)
        return np.asarray(exact + deviation * noise)

    def backward(self, gradient: Array) -> tuple[Array, Array]:
        """Gradients by the weights and by the inputs, from the one by the sums."""
        # d deviation / d w = -w x**2 / (deviation L), and likewise for x.
        through_noise = gradient * self._slope
        by_weights = matmul(gradient.T, self._x) - matmul(through_noise.T, self._x**2) * self.weights
        by_inputs = matmul(gradient, self.weights) - matmul(through_noise, self.weights**2) * self._x
        return by_weights, by_inputs

    def step(self, gradient: Array, rate: float) -> None:
        """One step of Adam, then back into [-1, 1]."""
        self._first_moment = 0.9 * self._first_moment + 0.1 * gradient
        self._second_moment = 0.999 * self._second_moment + 0.001 * gradient**2
        self._first_decay *= 0.9
        self._second_decay *= 0.999
        mean = self._first_moment / (1 - self._first_decay)
        spread = np.sqrt(self._second_moment / (1 - self._second_decay))
        self.weights = np.clip(self.weights - rate * mean / (spread + 1e-8), -1.0, 1.0)


def gradient_of_loss(outputs: Array, labels: NDArray[np.int64]) -> Array:
    """Gradient of the cross-entropy of softmax(outputs / TEMPERATURE), summed over the batch."""
    scaled = outputs / TEMPERATURE
    likelihood = on_grid(np.exp(scaled - scaled.max(axis=1, keepdims=True)))
    probabilities = likelihood / likelihood.sum(axis=1, keepdims=True)
    return np.asarray((probabilities - np.eye(10)[labels]) / TEMPERATURE)


def train(digits: Digits, seed: int) -> Model:
    """Train on the training half."""
    rng = np.random.default_rng(seed)
    versions = shifts(digits.train_inputs)
    labels = digits.train_labels
    hidden_layer, output_layer = NoisyLayer(64, HIDDEN, rng), NoisyLayer(HIDDEN, 10, rng)
    batches = -(-len(labels) // BATCH)
    for epoch in range(EPOCHS):
        version = np.where(rng.random(len(labels)) < SHIFTED, rng.integers(1, len(versions), len(labels)), 0)
        order = rng.permutation(len(labels))
        for batch in range(batches):
            rows = order[batch * BATCH : (batch + 1) * BATCH]
            lengths = rng.choice(LENGTHS, (len(rows), 1))
            sums = hidden_layer.forward(versions[version[rows], rows], lengths, rng)
            hidden = np.clip(sums / HIDDEN_SCALE, -1.0, 1.0)
            outputs = output_layer.forward(hidden, lengths, rng)
            by_output_weights, by_hidden = output_layer.backward(gradient_of_loss(outputs, labels[rows]))
            by_sums = np.where(np.abs(sums) < HIDDEN_SCALE, by_hidden / HIDDEN_SCALE, 0.0)
            by_hidden_weights, _ = hidden_layer.backward(by_sums)
            rate = LEARNING_RATE * (1 - (epoch * batches + batch) / (EPOCHS * batches))
            hidden_layer.step(by_hidden_weights, rate)
            output_layer.step(by_output_weights, rate)
    return Model(
        on_grid(hidden_layer.weights, WEIGHT_GRID),
        on_grid(output_layer.weights, WEIGHT_GRID),
        HIDDEN_SCALE,
        SPLIT_SEED,
    )


def save(model: Model, path: Path) -> None:
    """Write the file that `scgpu.demo.load_model` reads."""
    np.savez(
        path,
        hidden_weights=model.hidden_weights.astype("<f4"),
        output_weights=model.output_weights.astype("<f4"),
        hidden_scale=np.float64(model.hidden_scale),
        split_seed=np.int64(model.split_seed),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write, and say how well the float network does."""
    parser = argparse.ArgumentParser(description="Train the digits network of `scgpu demo`.")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the training (default: {SEED})")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"file to write (default: {OUTPUT})")
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"--seed must not be negative; got {options.seed}")
    if options.output.suffix != ".npz" or not options.output.parent.is_dir():
        parser.error(f"--output must be a .npz file in a directory that exists; got {options.output}")
    digits = load_digits(SPLIT_SEED)
    model = train(digits, options.seed)
    save(model, options.output)
    for name, inputs, labels in (
        ("training", digits.train_inputs, digits.train_labels),
        ("test", digits.test_inputs, digits.test_labels),
    ):
        accuracy = np.mean(model.scores(inputs).argmax(axis=1) == labels)
        print(f"float accuracy, {name} half ({len(labels)} images): {100 * accuracy:.2f} %")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
