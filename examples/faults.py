"""Accuracy of the digits network against the rate of bit flips, beside the same network in 8-bit binary.

Usage: python examples/faults.py [--device DEVICE] [--lengths L ...] [--rates R ...] [--trials N] [--checkpoint FILE]
                                 [-o FIGURE]

Every stored bit flips with the same probability in both: of the inputs, of both layers' weights, and of the
hidden values. In the network of bitstreams these are the bits of the streams; in the binary one those of
8-bit numbers in two's complement. Sums and comparisons make no errors. Weights are hit once in a trial, what
belongs to an image once for each image. docs/faults.md shows the figure.
"""

from __future__ import annotations

import argparse

import numpy as np

import scgpu
from scgpu.demo import Digits, Model, load_digits, load_model

RATES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
LENGTHS = (64, 256, 1024)
INPUT, HIDDEN_WEIGHTS, HIDDEN, OUTPUT_WEIGHTS = range(4)  # tensor ids: every tensor has faults of its own
STEPS = 127  # of an 8-bit number from 0 to 1


def in_bitstreams(model: Model, x: np.ndarray, layers: list[scgpu.DenseLayer], rate: float, trial: int) -> np.ndarray:
    """The counts of the ten outputs for each image, with flips in all streams."""
    first, second = layers

    def faulty(streams: scgpu.Bitstream, tensor_id: int) -> scgpu.Bitstream:
        return scgpu.flip_bits(streams, rate, seed=trial, tensor_id=tensor_id)

    def encoded(values: np.ndarray, tensor_id: int) -> scgpu.Bitstream:
        return scgpu.encode(values, first.length, trial, polarity="bipolar", tensor_id=tensor_id, device=first.device)

    sums = first.forward_prepacked(
        faulty(encoded(x, INPUT), INPUT), weights=faulty(first.packed_weights, HIDDEN_WEIGHTS)
    )
    hidden = np.clip(sums / model.hidden_scale, -1.0, 1.0)
    return second.counts_prepacked(
        faulty(encoded(hidden, HIDDEN), HIDDEN), weights=faulty(second.packed_weights, OUTPUT_WEIGHTS)
    )


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [-1, 1] as 8-bit integers in two's complement."""
    return np.rint(STEPS * values).astype(np.int8)


def flipped_bytes(numbers: np.ndarray, rate: float, trial: int, tensor_id: int) -> np.ndarray:
    """The numbers after each of their bits has flipped with the rate, by the same generator."""
    flat = numbers.reshape(len(numbers), -1)
    bits = scgpu.Bitstream.from_words(
        np.array(flat, order="C").view(np.uint8).astype(np.uint64)[..., None], 8, device="cpu"
    )
    hit = scgpu.flip_bits(bits, rate, seed=trial, tensor_id=tensor_id)
    return hit.words[..., 0].astype(np.uint8).view(np.int8).reshape(numbers.shape).astype(np.int64)


def in_binary(model: Model, x: np.ndarray, rate: float, trial: int) -> np.ndarray:
    """The ten sums for each image in 8-bit integers, with flips in all that is stored."""
    weights = [
        flipped_bytes(to_bytes(layer), rate, trial, tensor_id)
        for layer, tensor_id in ((model.hidden_weights, HIDDEN_WEIGHTS), (model.output_weights, OUTPUT_WEIGHTS))
    ]
    sums = flipped_bytes(to_bytes(x), rate, trial, INPUT) @ weights[0].T
    hidden = to_bytes(np.clip(sums / (STEPS**2 * model.hidden_scale), -1.0, 1.0))
    return np.asarray(flipped_bytes(hidden, rate, trial, HIDDEN) @ weights[1].T)


def accuracy(outputs: np.ndarray, digits: Digits) -> float:
    """Percent of the images that are read right."""
    return float(100 * np.mean(outputs.argmax(axis=1) == digits.test_labels))


def draw(curves: dict[str, list[np.ndarray]], rates: list[float], path: str) -> None:
    """The plot: means over the trials, and bars from the worst trial to the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, trials in curves.items():
        means = np.array([one.mean() for one in trials])
        reach = np.abs([[one.mean() - one.min(), one.max() - one.mean()] for one in trials]).T
        style = {"color": "0.2", "linestyle": "--"} if name == "8-bit binary" else {}
        axes.errorbar(rates, means, yerr=reach, marker="o", markersize=4, capsize=3, label=name, **style)
    axes.axhline(10, color="0.6", linewidth=0.8, linestyle=":")
    axes.annotate(
        "chance", (0.45, 10), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points", color="0.4"
    )
    axes.set_xscale("symlog", linthresh=5e-4, linscale=0.5)  # has a place for 0
    axes.set_xlim(-2e-4, 0.5)
    axes.minorticks_off()
    axes.set_xticks([0, 0.001, 0.01, 0.1], ["0", "0.001", "0.01", "0.1"])
    axes.set_ylim(0, 100)
    axes.set_xlabel("probability that a stored bit is flipped")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"{len(next(iter(curves.values()))[0])} trials of 899 unseen digits")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print accuracies in percent, means over the trials, and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="see `scgpu info` (default: auto)")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=LENGTHS, help="bits of the streams (default: 64 256 1024)"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="probabilities of a flip")
    parser.add_argument("--trials", type=int, default=10, help="runs with other faults to average over (default: 10)")
    parser.add_argument("--checkpoint", help="file that keeps each trial; the same command goes on where it ended")
    parser.add_argument("-o", "--output", help="PNG or SVG file to write the plot to")
    options = parser.parse_args()
    model = load_model()
    digits = load_digits(model.split_seed)
    device = scgpu.device(options.device)
    networks = {f"{length} bits": model.network(length, device).layers for length in options.lengths}
    curves: dict[str, list[np.ndarray]] = {name: [] for name in (*networks, "8-bit binary")}
    print(f"{len(digits.test_labels)} digits, {options.trials} trials on {device}: accuracy in percent")
    print(f"{'rate':>8}" + "".join(f"{name:>14}" for name in curves))

    def read_right(rate: float, name: str, trial: int) -> float:
        if name in networks:
            return accuracy(in_bitstreams(model, digits.test_inputs, networks[name], rate, trial), digits)
        return accuracy(in_binary(model, digits.test_inputs, rate, trial), digits)

    for rate in options.rates:
        points = {"rate": [rate], "name": list(curves), "trial": range(options.trials)}
        found = scgpu.sweep(read_right, points, checkpoint=options.checkpoint)
        for trials, row in zip(curves.values(), np.reshape(found, (len(curves), options.trials)), strict=True):
            trials.append(row)
        print(f"{rate:>8g}" + "".join(f"{trials[-1].mean():>14.2f}" for trials in curves.values()), flush=True)
    if options.output:
        draw(curves, options.rates, options.output)


if __name__ == "__main__":
    main()
