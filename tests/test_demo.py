"""The digits demo: accuracy, the proof across devices, the picture, and how it fails."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import scgpu
from scgpu import demo
from scgpu.parity import all_devices

for module in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(module, reason="needs the extra scgpu[demo]")

TRAINING = Path(__file__).resolve().parents[1] / "examples" / "train_digits.py"
COUNTS = scgpu.Network.counts
Counts = NDArray[np.uint64]


def options(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(argv)


def run(*argv: str) -> tuple[int, str, str]:
    """Status, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = demo.run(options(*argv))
    return status, out.getvalue(), err.getvalue()


def picture_of(path: Path) -> NDArray[np.float64]:
    from matplotlib import image

    return np.asarray(image.imread(path, format="png"))[..., :3]


def patch_counts(patch: pytest.MonkeyPatch, change: Callable[[scgpu.Network, Counts], None]) -> None:
    def counts(self: scgpu.Network, x: ArrayLike, seed: int = 42, first_sample: int = 0) -> Counts:
        found = COUNTS(self, x, seed, first_sample)
        change(self, found)
        return found

    patch.setattr(scgpu.Network, "counts", counts)


def others() -> list[scgpu.Device]:
    return [one for one in (*all_devices(), scgpu.device("numpy")) if one != scgpu.device("cpu")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON object of a run at 16 and 1024 bits."""
    path = tmp_path_factory.mktemp("demo") / "digits.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "ORACLE_BITS", 100 * 1024)  # the oracle needs seconds for all images
        status, out, err = run("--device", "cpu", "--lengths", "16,1024", "--output", str(path), "--json")
    assert (status, err) == (0, "")
    result: dict[str, Any] = json.loads(out)
    assert result["pictures"] == [str(path)]
    return result


def test_streams_read_as_well_as_floats(found: dict[str, Any]) -> None:
    short, long = found["results"]
    assert (short["length"], long["length"]) == (16, 1024)
    assert found["float_accuracy"] >= 0.97
    assert abs(long["accuracy"] - found["float_accuracy"]) <= 0.005
    assert 0.94 <= short["accuracy"] < found["float_accuracy"]


def test_accuracy_is_that_of_the_counts(found: dict[str, Any]) -> None:
    model = demo.load_model()
    digits = demo.load_digits(model.split_seed)
    read = model.network(16, scgpu.device("cpu")).counts(digits.test_inputs, 42).argmax(axis=1)
    assert found["results"][0]["accuracy"] == np.mean(read == digits.test_labels)


def test_every_other_device_is_compared(found: dict[str, Any]) -> None:
    short, long = found["results"]
    assert short["device"] == long["device"] == str(scgpu.device("cpu"))
    *fast, oracle = (str(other) for other in others())
    assert short["same_bits_on"] == [*fast, oracle]
    assert long["same_bits_on"] == [*fast, f"{oracle} (first 100 of 899 images)"]


def test_rates(found: dict[str, Any]) -> None:
    model = demo.load_model()
    products = sum(weights.size for weights in (model.hidden_weights, model.output_weights))
    for result in found["results"]:
        assert result["images_per_second"] > 0
        expected = result["images_per_second"] * products * result["length"]
        assert result["bits_per_second"] == pytest.approx(expected)


def test_picture_has_curve_and_digits(found: dict[str, Any]) -> None:
    pixels = picture_of(Path(found["pictures"][0]))
    height, width, _ = pixels.shape
    assert height > 500
    assert width > 1000
    for half in (pixels[:, : width // 2], pixels[:, width // 2 :]):
        assert 0.01 < np.mean(half.min(axis=2) < 0.9) < 0.6
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50


def test_table(tmp_path: Path) -> None:
    path = tmp_path / "digits.png"
    status, out, err = run("--device", "cpu", "--lengths", "16", "--output", str(path))
    assert (status, err) == (0, "")
    (proof,) = (line for line in out.splitlines() if line.startswith("Same bits on:"))
    for one in (scgpu.device("cpu"), *others()):
        assert str(one) in proof
    assert proof.endswith(f"({len(others()) + 1} devices, {8990 * len(others()):,} counts compared, 0 differ)")
    assert "product" in out
    assert str(path) in out
    assert path.exists()


def test_one_wrong_count_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(network: scgpu.Network, counts: Counts) -> None:
        if network.device.kind == "numpy":
            counts[898, 9] ^= 1

    patch_counts(monkeypatch, spoil)
    arguments = ("--device", "cpu", "--lengths", "16", "--output", str(tmp_path / "digits.png"))
    status, out, err = run(*arguments, "--json")
    assert status == 1
    (line,) = err.splitlines()
    assert line.startswith("NOT PROVEN at 16 bits: numpy [NumPy]: 1 of 8990 counts differ")
    assert "image 898, output 9" in line
    assert json.loads(out)["results"][0]["same_bits_on"] == [str(one) for one in others() if one.kind != "numpy"]
    status, out, _ = run(*arguments)
    assert status == 1
    assert "1 differ). NOT THE SAME OR FAILED: numpy [NumPy]" in out


def test_a_failing_device_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: scgpu.Network, counts: Counts) -> None:
        if network.device.kind == "numpy":
            raise scgpu.GpuError("the device is lost")

    patch_counts(monkeypatch, fail)
    status, out, err = run("--device", "cpu", "--lengths", "16", "--output", str(tmp_path / "digits.png"), "--json")
    assert status == 1
    assert "numpy [NumPy]: GpuError: the device is lost" in err
    assert "numpy [NumPy]" not in json.loads(out)["results"][0]["same_bits_on"]


def test_partial_proof_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ORACLE_BITS", 16 * 10)
    arguments = ("--device", "cpu", "--lengths", "16", "--output", str(tmp_path / "digits.png"))
    status, out, _ = run(*arguments, "--json")
    assert status == 0
    assert json.loads(out)["results"][0]["same_bits_on"][-1] == "numpy [NumPy] (first 10 of 899 images)"
    status, out, _ = run(*arguments)
    assert "numpy [NumPy] (first 10 of 899 images at 16 bits)" in out


def test_interrupt_keeps_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(network: scgpu.Network, counts: Counts) -> None:
        if network.layers[0].length == 32 and network.device.kind == "numpy":
            raise KeyboardInterrupt

    patch_counts(monkeypatch, interrupt)
    path = tmp_path / "digits.png"
    arguments = ("--device", "cpu", "--lengths", "16,32,64", "--output", str(path))
    status, out, err = run(*arguments)
    assert status == 130
    assert "interrupted" in err
    assert "numpy [NumPy] (not at 32 bits)" in out
    assert len(picture_of(path))
    status, out, _ = run(*arguments, "--json")
    assert status == 130
    first, second = json.loads(out)["results"]
    assert first["same_bits_on"][-1] == "numpy [NumPy]"
    assert second["same_bits_on"] == [str(one) for one in others() if one.kind != "numpy"]


def test_interrupt_before_any_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(network: scgpu.Network, counts: Counts) -> None:
        raise KeyboardInterrupt

    patch_counts(monkeypatch, interrupt)
    path = tmp_path / "digits.png"
    status, out, _ = run("--device", "cpu", "--lengths", "16", "--output", str(path), "--json")
    assert (status, json.loads(out)["results"], json.loads(out)["pictures"]) == (130, [], [])
    assert not path.exists()


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("rich", "rich")])
def test_missing_extra(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run() == (2, "", f"scgpu demo needs {package}; run: pip install 'scgpu[demo]'\n")


@pytest.mark.parametrize("lengths", ["", "0", "-16", "16,", "1e3", "sixteen", "65537", "²"])
def test_bad_lengths(lengths: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        options(f"--lengths={lengths}")
    assert stopped.value.code == 2
    assert "is not a length from 1 to 65536" in capsys.readouterr().err


def test_lengths_are_run_once_and_in_order() -> None:
    assert options("--lengths", "64, 16,64").lengths == [64, 16]
    assert options().lengths == [2**k for k in range(4, 13)]


def test_bad_device_and_output(tmp_path: Path) -> None:
    with pytest.raises(scgpu.DeviceError, match="no-such-device"):
        run("--device", "no-such-device", "--output", str(tmp_path / "digits.png"))
    with pytest.raises(ValueError, match="--output"):
        run("--device", "cpu", "--output", str(tmp_path / "missing" / "digits.png"))


def test_shipped_network_is_what_the_training_gives(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    environment = {**os.environ, "PYTHONPATH": str(Path(scgpu.__file__).parents[1])}
    subprocess.run([sys.executable, str(TRAINING), "--output", str(path)], check=True, env=environment)
    with np.load(demo.MODEL, allow_pickle=False) as shipped, np.load(path, allow_pickle=False) as trained:
        assert sorted(shipped) == ["hidden_scale", "hidden_weights", "output_weights", "split_seed"]
        for name in shipped:
            assert shipped[name].dtype == trained[name].dtype
            np.testing.assert_array_equal(shipped[name], trained[name])


def test_split_is_stratified_and_disjoint() -> None:
    digits = demo.load_digits(demo.load_model().split_seed)
    assert digits.train_inputs.shape == (898, 64)
    assert digits.test_inputs.shape == (899, 64)
    assert abs(digits.test_inputs).max() == 1
    halves = [np.bincount(labels, minlength=10) for labels in (digits.train_labels, digits.test_labels)]
    assert abs(halves[0] - halves[1]).max() <= 1
    joined = np.concatenate([digits.train_inputs, digits.test_inputs])
    assert len(np.unique(joined, axis=0)) == len(joined) == 1797


def test_long_streams_approach_the_float_network() -> None:
    model = demo.load_model()
    x = demo.load_digits(model.split_seed).test_inputs[:32]
    length = 65536
    error = model.network(length, scgpu.device("cpu")).forward(x) - model.scores(x)
    # Deviations: the hidden values' own, at most sqrt(64 / L) / scale each through 32 weights, and the products'.
    bound = np.sqrt(32 * 64 / length) / model.hidden_scale + np.sqrt(32 / length)
    assert abs(error).max() < 5 * bound
    assert abs(error).mean() > 0
