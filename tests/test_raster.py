"""Pictures of recordings: what is drawn, how much of it, in which units; and the command `scgpu raster`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import PopulationRecord, Recording, cli, raster

pytest.importorskip("matplotlib", reason="needs the extra scgpu[plot]")


def recorded(
    name: str, bits: np.ndarray[Any, Any], first_step: int = 0, voltages: np.ndarray[Any, Any] | None = None
) -> PopulationRecord:
    words = scgpu.pack(bits) if bits.size else np.zeros((len(bits), -(-bits.shape[1] // 64)), np.uint64)
    return PopulationRecord(
        name, len(bits), first_step=first_step, n_steps=bits.shape[1], words=words, voltages=voltages
    )


def example(step_seconds: float | None = None, n_steps: int = 300, first_step: int = 40) -> Recording:
    """Two populations with spikes, the second with potentials, and one of which spikes were only counted."""
    rng = np.random.default_rng(3)
    exc = rng.random((30, n_steps)) < 0.05
    inh = rng.random((10, n_steps)) < 0.1
    voltages = rng.integers(-500, 500, (10, n_steps)).astype(np.int16)
    counted = PopulationRecord("counted", 2, first_step=first_step, n_steps=n_steps, counts=np.ones(2, np.uint64))
    records = [recorded("exc", exc, first_step), counted, recorded("inh", inh, first_step, voltages)]
    return Recording(records, first_step=first_step, n_steps=n_steps, step_seconds=step_seconds)


def points(axes: Any) -> tuple[Any, Any]:
    """Of the first line of a panel."""
    return axes.lines[0].get_data()


def titles(figure: Any) -> list[tuple[str, str]]:
    return [(axes.get_title("left"), axes.get_title("right")) for axes in figure.axes]


def shapes_of(path: Path) -> np.ndarray[Any, Any]:
    from matplotlib import image

    return np.asarray(image.imread(path))[..., :3]


def test_raster_draws_every_spike() -> None:
    recording = example()
    figure = scgpu.plot_raster(recording)
    assert len(figure.axes) == 2
    for axes, name in zip(figure.axes, ("exc", "inh"), strict=True):
        times, neurons = points(axes)
        steps, expected = recording[name].events()
        assert np.array_equal(times, steps) and np.array_equal(neurons, expected)
        low, high = axes.get_xlim()
        assert low < 40 and high > 340 and low > 30
        assert axes.get_ylabel() == "neuron"
    assert figure.axes[-1].get_xlabel() == "step"
    mean = recording["exc"].population_rate(300)[0]
    assert titles(figure)[0] == ("exc", f"30 neurons · mean {mean:.3g} spikes/step")


def test_time_is_in_ms_and_rates_in_hertz_where_the_step_is_known() -> None:
    recording = example(step_seconds=5e-4)
    figure = scgpu.plot_recording(recording, {"inh": [4]}, bin_steps=20)
    assert figure.axes[-1].get_xlabel() == "time (ms)"
    assert np.allclose(points(figure.axes[0])[0], 0.5 * recording["exc"].events()[0], rtol=1e-12)
    rates = figure.axes[2]
    assert rates.get_ylabel() == "rate (Hz)" and titles(figure)[2] == ("population rates", "bins of 10 ms")
    for patch, name in zip(rates.patches, ("exc", "inh"), strict=True):
        values, edges, _ = patch.get_data()
        assert np.array_equal(values, recording[name].population_rate(20) / 5e-4)
        assert np.allclose(edges, np.arange(40, 341, 20) * 0.5, rtol=1e-12)
    assert f"mean {recording['exc'].population_rate(300)[0] / 5e-4:.3g} Hz" in titles(figure)[0][1]
    assert scgpu.plot_raster(example(step_seconds=0.1)).axes[-1].get_xlabel() == "time (s)"


def test_without_a_step_length_rates_are_per_step() -> None:
    figure = scgpu.plot_rates(example(), bin_steps=7)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "rate per neuron\n(spikes/step)" and axes.get_xlabel() == "step"
    values, edges, _ = axes.patches[0].get_data()
    assert np.array_equal(values, example()["exc"].population_rate(7)) and edges[0] == 40 and edges[-1] == 340
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["exc", "inh"]


def test_voltages_are_drawn_with_their_spikes() -> None:
    recording = example()
    figure = scgpu.plot_voltages(recording, {"inh": [0, 7]}, begin=50, end=250)
    assert [title for title, _ in titles(figure)] == ["inh, neuron 0", "inh, neuron 7"]
    for axes, neuron in zip(figure.axes, (0, 7), strict=True):
        times, values = points(axes)
        voltages = recording["inh"].voltages
        assert voltages is not None
        assert np.array_equal(times, np.arange(50, 250)) and np.array_equal(values, voltages[neuron, 10:210])
        steps, _ = recording["inh"].events(50, 250, neurons=[neuron])
        assert np.array_equal(axes.lines[1].get_xdata(), steps)
        assert axes.get_title("right") == f"{len(steps)} spikes (ticks)"
    assert [title for title, _ in titles(scgpu.plot_voltages(recording))] == [f"inh, neuron {i}" for i in (0, 2, 5, 7)]


def test_a_population_has_one_colour_everywhere() -> None:
    from matplotlib.colors import to_hex

    figure = scgpu.plot_recording(example(), {"inh": [1]})
    raster_exc, raster_inh, rates, voltage = figure.axes
    colours = [to_hex(axes.lines[0].get_color()) for axes in (raster_exc, raster_inh, voltage)]
    assert colours[1] == colours[2] != colours[0]
    assert [to_hex(patch.get_edgecolor()) for patch in rates.patches] == colours[:2]
    alone = scgpu.plot_raster(example(), populations=["inh"])
    assert to_hex(alone.axes[0].lines[0].get_color()) == colours[1]


def test_a_range_and_fewer_neurons() -> None:
    recording = example()
    figure = scgpu.plot_raster(recording, begin=100, end=164, neurons=7)
    times, neurons = points(figure.axes[0])
    shown = [k * 30 // 7 for k in range(7)]
    steps, expected = recording["exc"].events(100, 164, neurons=shown)
    assert np.array_equal(times, steps) and np.array_equal(neurons, expected) and len(times)
    assert titles(figure)[0][1].startswith("7 of 30 neurons drawn")


def test_many_spikes_are_thinned_and_the_figure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MOST_POINTS", 500)
    bits = np.ones((20, 1000), np.uint8)
    figure = scgpu.plot_raster(Recording([recorded("exc", bits)], first_step=0, n_steps=1000))
    times, neurons = points(figure.axes[0])
    assert 100 < len(times) <= 500 and set(neurons) == set(range(20)) and set(times) <= set(range(1000))
    assert "spikes of a neuron within 64 steps drawn as one" in titles(figure)[0][1]
    again = scgpu.plot_raster(Recording([recorded("exc", bits)], first_step=0, n_steps=1000))
    assert np.array_equal(points(again.axes[0]), (times, neurons))


def test_many_bins_are_merged_and_the_figure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MOST_BINS", 50)
    figure = scgpu.plot_rates(example(), bin_steps=4)
    assert titles(figure) == [("population rates", "bins of 8 steps, widened from 4 steps")]
    assert np.array_equal(figure.axes[0].patches[0].get_data()[0], example()["exc"].population_rate(8))


@pytest.mark.parametrize("n_steps", [100, 101, 149, 300])
def test_long_potentials_keep_their_peaks(monkeypatch: pytest.MonkeyPatch, n_steps: int) -> None:
    monkeypatch.setattr(raster, "MOST_BINS", 10)
    recording = example(n_steps=n_steps)
    voltages = recording["inh"].voltages
    assert voltages is not None
    figure = scgpu.plot_voltages(recording, {"inh": [3]})
    times, values = points(figure.axes[0])
    width = -(-n_steps // 10)
    assert len(times) <= 20 and np.array_equal(values, voltages[3][times.astype(int) - 40])
    for begin in range(0, n_steps, width):
        part = voltages[3, begin : begin + width]
        drawn = values[(times >= 40 + begin) & (times < 40 + begin + width)]
        assert (drawn.min(), drawn.max()) == (part.min(), part.max())
    assert (np.diff(times) >= 0).all()
    assert f"least and greatest of every {width} steps" in titles(figure)[0][1]


def test_a_large_recording_is_drawn_in_seconds() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (20_000, 1563), dtype=np.uint64)  # 2 billion steps of neurons
    for shift in (7, 13):
        words &= np.roll(words, shift, axis=0)
    words[:, -1] &= np.uint64(2**32 - 1)
    record = PopulationRecord("exc", 20_000, first_step=0, n_steps=100_000, words=words)
    begin = time.perf_counter()
    figure = scgpu.plot_recording(Recording([record], first_step=0, n_steps=100_000), bin_steps=1)
    assert time.perf_counter() - begin < 20  # about 1 on an idle core
    assert len(points(figure.axes[0])[0]) <= raster.MOST_POINTS
    assert "200 of 20,000 neurons drawn" in titles(figure)[0][1]


@pytest.mark.parametrize("n_steps", [1, 2, 63, 64, 65])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_small_recordings_are_drawn_without_a_warning(tmp_path: Path, n_steps: int, count: int, rate: float) -> None:
    bits = np.full((count, n_steps), rate, np.uint8)
    record = recorded("exc", bits, voltages=np.zeros((count, n_steps), np.int16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = scgpu.plot_recording(Recording([record], first_step=0, n_steps=n_steps))
        figure.savefig(tmp_path / "small.png", dpi=40)
    assert len(points(figure.axes[0])[0]) == count * n_steps * rate
    assert ("no spikes" in titles(figure)[0][1]) == (count == 0 or rate == 0)


def test_names_are_not_instructions(tmp_path: Path) -> None:
    names = ["$\\frac$", "_hidden", "x" * 100]
    bits = np.eye(5, 20, dtype=np.uint8)
    recording = Recording([recorded(name, bits) for name in names], first_step=0, n_steps=20)
    figure = scgpu.plot_recording(recording)
    figure.savefig(tmp_path / "names.svg")
    assert [title for title, _ in titles(figure)][:3] == ["$\\frac$", "_hidden", "x" * 39 + "…"]
    legend = figure.axes[3].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["$\\frac$", "_hidden", "x" * 39 + "…"]


def test_a_figure_of_the_caller_is_drawn_into() -> None:
    from matplotlib.figure import Figure

    mine = Figure(layout="constrained")
    left, right = mine.subfigures(1, 2)
    assert scgpu.plot_raster(example(), figure=left) is left and scgpu.plot_rates(example(), figure=right) is right
    assert len(mine.axes) == 3


def test_pictures_need_something_to_draw() -> None:
    recording = example()
    counted = Recording([recording["counted"]], first_step=40, n_steps=300)
    for draw in (scgpu.plot_raster, scgpu.plot_rates):
        with pytest.raises(ValueError, match=r"has no spikes of 'counted'; run with record=\{name: 'spikes'\}"):
            draw(counted)
    with pytest.raises(ValueError, match="has no spikes or potentials of 'counted'"):
        scgpu.plot_recording(counted)
    with pytest.raises(ValueError, match="has no potentials of 'counted'"):
        scgpu.plot_voltages(counted)
    with pytest.raises(ValueError, match="of no populations"):
        scgpu.plot_raster(Recording([], first_step=0, n_steps=5))
    with pytest.raises(ValueError, match="potentials of 'exc' were not recorded"):
        scgpu.plot_voltages(recording, {"exc": [0]})
    with pytest.raises(ValueError, match="neuron of 'inh' must be from 0 to 9; got 10"):
        scgpu.plot_voltages(recording, {"inh": [10]})
    with pytest.raises(ValueError, match="no population 'other' in this recording; it has 'exc', 'counted', 'inh'"):
        scgpu.plot_raster(recording, populations=["other"])
    with pytest.raises(TypeError, match="populations must be a sequence of names; got str"):
        scgpu.plot_raster(recording, populations="exc")
    with pytest.raises(ValueError, match="has no steps"):
        scgpu.plot_raster(Recording([], first_step=0, n_steps=0))
    for begin, end, text in ((39, None, "begin must be from 40 to 339"), (50, 50, "end must be from 51 to 340")):
        with pytest.raises(ValueError, match=text):
            scgpu.plot_recording(recording, begin=begin, end=end)
    with pytest.raises(ValueError, match="neurons must be from 1"):
        scgpu.plot_raster(recording, neurons=0)
    with pytest.raises(ValueError, match="bin_steps must be from 1"):
        scgpu.plot_rates(recording, bin_steps=0)
    with pytest.raises(ValueError, match="at most 40 panels; got 50"):
        scgpu.plot_voltages(recording, {"inh": [0] * 50})
    with pytest.raises(TypeError, match="must be a Recording; got dict"):
        scgpu.plot_raster({})  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    example(step_seconds=1e-3).save(tmp_path / "run.npz")
    return tmp_path / "run.npz"


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of ``scgpu raster``."""
    status = cli.main(["raster", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_command_writes_a_png(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = saved.with_suffix(".png")
    status, out, err = command(capsys, saved, "-o", picture)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    exc = example()["exc"]
    assert lines[0] == "300 steps from 40" and lines[-1] == f"Picture: {picture}"
    variation = np.nanmean(exc.cv_isi())
    assert lines[1] == (
        f"  exc      30 neurons, {exc.counts.sum()} spikes, {exc.rates().mean() * 1000:.4g} Hz, "
        f"intervals vary by {variation:.2f}"
    )
    pixels = shapes_of(picture)
    assert pixels.shape[1] == 1430
    for colour in ("#0072B2", "#009E73"):  # of exc, the first, and inh, the third
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        assert (np.abs(pixels - wanted).max(axis=2) < 0.01).sum() > 200, colour


def test_command_writes_an_svg_the_same_each_time(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = saved.with_name("a.svg"), saved.with_name("b.SVG")
    for picture in (first, second):
        assert command(capsys, saved, "--output", picture, "--bin", 10, "--voltages", "inh:0, 3")[0] == 0
    text = first.read_text()
    assert text.startswith("<?xml") and text == second.read_text()


def test_command_as_json(saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    drawn: dict[str, Any] = {}

    def spy(recording: Recording, *arguments: Any, **options: Any) -> Any:
        drawn.update(options, traces=arguments[0], seconds=recording.step_seconds)
        return scgpu.plot_rates(recording)

    monkeypatch.setattr(raster, "plot_recording", spy)
    options = ["--from", 50, "--to", 90, "--neurons", 3, "--bin", 5, "--population", "inh", "--voltages", "inh:1,2"]
    status, out, _ = command(capsys, "run.npz", *options, "--voltages", "exc:0", "--step-seconds", 0.5, "--json")
    found = json.loads(out)
    assert status == 0 and found["picture"] == "raster.png" and (saved.parent / "raster.png").is_file()
    assert (found["first_step"], found["n_steps"], found["step_seconds"]) == (40, 300, 0.5)
    exc, counted, _ = found["populations"]
    assert exc["spikes"] == example()["exc"].counts.sum() and exc["hertz"] == exc["spikes_per_step"] / 0.5
    assert counted["neurons"] == 2 and counted["cv_isi"] is None
    assert drawn == {
        "traces": {"inh": [1, 2], "exc": [0]},
        "seconds": 0.5,
        **{"begin": 50, "end": 90, "neurons": 3, "bin_steps": 5, "populations": ["inh"]},
    }
    assert command(capsys, "run.npz", "--no-voltages")[0] == 0 and drawn["traces"] == {}
    assert (drawn["begin"], drawn["end"], drawn["seconds"]) == (40, 340, 1e-3)


def test_command_errors(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "out.png"
    notes = tmp_path / "notes.txt"
    notes.write_text("not a recording")
    short = tmp_path / "short.npz"
    short.write_bytes(saved.read_bytes()[:500])
    counted, empty = tmp_path / "counted.npz", tmp_path / "empty.npz"
    Recording([example()["counted"]], first_step=40, n_steps=300).save(counted)
    Recording([], first_step=3, n_steps=0).save(empty)
    for arguments, text in (
        ((tmp_path / "missing.npz",), "missing.npz' cannot be read: No such file or directory"),
        ((tmp_path,), "cannot be read: Is a directory"),
        ((notes,), "notes.txt' cannot be loaded as a recording: it was not written by Recording.save"),
        ((short,), "cut short"),
        ((counted,), "has no spikes or potentials of 'counted'; run with record={name: 'spikes'}"),
        ((empty,), "--from 3 --to 3 is no range of this recording's steps; it has none"),
        ((saved, "--from", 90, "--to", 90), "--from 90 --to 90 is no range of this recording's steps; it has from 40"),
        ((saved, "--from", 5), "--from 5 --to 340 is no range"),
        ((saved, "--to", 341), "--from 40 --to 341 is no range"),
        ((saved, "--bin", 0), "bin_steps must be from 1"),
        ((saved, "--neurons", 0), "neurons must be from 1 to 5000; got 0"),
        ((saved, "--voltages", "inh"), "--voltages must be a population and its neurons, like exc:0,1,2; got 'inh'"),
        ((saved, "--voltages", "inh:0,x"), "got 'inh:0,x'"),
        ((saved, "--voltages", "inh:10"), "neuron of 'inh' must be from 0 to 9; got 10"),
        ((saved, "--voltages", "who:0"), "no population 'who'"),
        ((saved, "--population", "who"), "no population 'who'"),
        ((saved, "--step-seconds", -1), "step_seconds must be finite and above 0; got -1.0"),
    ):
        status, out, err = command(capsys, *arguments, "-o", picture)
        assert (status, out) == (2, "") and err.startswith("scgpu raster: ") and text in err, err
        assert not picture.exists()
    for output, text in (
        (tmp_path / "out.bmp", "--output must end in .png or .svg"),
        (tmp_path / "out", "--output must end in .png or .svg"),
        (tmp_path / "nowhere" / "out.png", "--output must be a file in a directory that exists"),
        (tmp_path, "--output must be a file in a directory that exists"),
    ):
        status, _, err = command(capsys, saved, "-o", output)
        assert status == 2 and text in err


def test_a_picture_that_cannot_be_written_leaves_nothing(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def full(self: Figure, file: Any, **options: Any) -> None:
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    picture = saved.with_suffix(".png")
    status, _, err = command(capsys, saved, "-o", picture)
    assert status == 2 and f"--output '{picture}' could not be written: No space left on device" in err
    assert sorted(path.name for path in saved.parent.iterdir()) == ["run.npz"]


def test_without_matplotlib(saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = command(capsys, saved)
    assert (status, out) == (2, "")
    assert err == "scgpu raster: pictures need matplotlib; run: pip install 'scgpu[plot]'\n"
    with pytest.raises(ImportError, match=r"pip install 'scgpu\[plot\]'"):
        scgpu.plot_raster(example())


def test_import_does_not_import_what_pictures_need() -> None:
    code = "import sys, scgpu; print([name for name in ('matplotlib', 'argparse') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
