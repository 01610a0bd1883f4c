"""scgpu live: what is drawn is what ran, keys are obeyed, and what is missing is said."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scgpu
from scgpu import _panels, _render, cli, info, live
from scgpu._gpu import GpuBackend
from scgpu.devices import backend_of

pytest.importorskip("PIL", reason="needs the extra scgpu[live]")

GROUND = np.array([11, 14, 19])  # window.wgsl's GROUND
REST, THRESHOLD = -100, 900


class Tape:
    """A network whose spikes are given: shape (population, neuron, step), and whose potentials do not move."""

    step_seconds: float | None = None

    def __init__(self, device: scgpu.Device, spikes: Sequence[NDArray[Any]], state: Any = None) -> None:
        backend = backend_of(device)
        assert isinstance(backend, GpuBackend)
        self.backend = backend
        self.spikes = [np.asarray(one, np.uint8) for one in spikes]
        self.step = 0
        self.runs: list[tuple[int, int]] = []
        self.drawn = []
        for index, rows in enumerate(self.spikes):
            count = len(rows)
            resting = np.tile(np.array([[REST, 0]], "<i2"), (count, 1))
            self.drawn.append(
                _render.DrawnPopulation(
                    name=f"cells {index}",
                    count=count,
                    rest=REST,
                    threshold=THRESHOLD,
                    state=backend.upload(resting if state is None else state),
                    inbox=backend.upload(np.zeros(3 * count, "<i4")),
                    slot_count=3,
                    kick=1250,
                )
            )

    def run(self, n_steps: int) -> list[Any]:
        """The words of the block, with noise in the bits that are not of these steps."""
        begin, self.step = self.step, self.step + n_steps
        self.runs.append((begin, n_steps))
        words = []
        for rows in self.spikes:
            bits = np.random.default_rng(begin).integers(0, 2, (len(rows), 64), np.uint8)
            first = begin % 64
            bits[:, first : first + n_steps] = rows[:, begin : begin + n_steps]
            words.append(self.backend.upload(np.packbits(bits, axis=1, bitorder="little").view("<u8").reshape(-1)))
        return words


def session_of(network: Tape, zoom: tuple[int, int] = (1, 1)) -> live.Session:
    session = live.Session(network, network.backend, "tape", live=False)
    session.controls.zoom = _render.ZOOMS.index(zoom)
    return session


def part(pixels: NDArray[np.uint8], rect: _panels.Rect) -> NDArray[np.float64]:
    rows, columns = slice(rect.top, rect.top + rect.height), slice(rect.left, rect.left + rect.width)
    return pixels[rows, columns].astype(np.float64)


def random_spikes(count: int, steps: int, probability: float, seed: int = 1) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((count, steps)) < probability


def cells_of(count: int, raster: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """Brightness over the ground in the middle of every neuron's row and every step's column."""
    rows = ((np.arange(count) + 0.45) * len(raster) / count).astype(int)
    columns = np.arange(raster.shape[1] - pixels // 2, 0, -pixels)[::-1]
    light: NDArray[np.float64] = np.abs(raster - GROUND).max(axis=2)[rows][:, columns]
    return light


# --- What is drawn ----------------------------------------------------------------------


def test_live_raster_shows_every_spike_and_nothing_else(gpu: scgpu.Device) -> None:
    spikes = [random_spikes(12, 203, 0.2), random_spikes(20, 203, 0.1, seed=2)]
    network = Tape(gpu, spikes)
    session = session_of(network, zoom=(1, 8))
    session.advance(150)
    session.advance(53)
    assert network.step == 203
    pixels = session.picture(1280, 800)
    panels = _panels.arrange(1280, 800, (12, 20))
    for rows, rect in zip(spikes, panels.rasters, strict=True):
        light = cells_of(len(rows), part(pixels, rect), 8)
        shown = light.shape[1]
        assert shown > 90
        assert np.array_equal(light > 25, rows[:, 203 - shown : 203])


def test_live_raster_of_many_steps_a_column(gpu: scgpu.Device) -> None:
    # One spike in a column of 16 steps is seen; columns stay where they are when steps follow.
    spikes = np.zeros((8, 800), bool)
    spikes[3, [5, 100, 790]] = True
    network = Tape(gpu, [spikes])
    session = session_of(network, zoom=(16, 1))
    panels = _panels.arrange(1280, 800, (8,))
    for steps, newest in ((795, 49), (800, 49)):
        session.advance(steps - network.step)
        raster = part(session.picture(1280, 800), panels.rasters[0])
        lit = np.flatnonzero(np.abs(raster - GROUND).max(axis=2)[int(3.45 * len(raster) / 8)] > 25)
        expected = [raster.shape[1] - 1 - (newest - step // 16) for step in (5, 100, 790)]
        assert lit.tolist() == expected, steps
        others = np.abs(np.delete(raster, slice(3 * len(raster) // 8, 4 * len(raster) // 8 + 1), axis=0) - GROUND)
        assert others.max() <= 1


def test_live_spikes_glow_on_for_two_narrow_columns(gpu: scgpu.Device) -> None:
    spikes = np.zeros((1, 128), bool)
    times = [10, 31, 61, 63, 80, 95, 125]
    spikes[0, times] = True
    network = Tape(gpu, [spikes])
    session = session_of(network)
    session.advance(128)
    raster = part(session.picture(1280, 800), _panels.arrange(1280, 800, (1,)).rasters[0])
    light = np.abs(raster - GROUND).max(axis=2)[len(raster) // 3, -128:]
    expected = np.zeros(128, bool)
    for time in times:
        expected[time : time + 3] = True
    assert np.array_equal(light > 25, expected)
    for time in (10, 31, 80, 95):
        assert light[time] > light[time + 1] > light[time + 2]


def test_live_ring_forgets_the_oldest_and_keeps_the_rest(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_render, "RING_BLOCKS", 4)
    spikes = np.ones((2, 700), bool)
    network = Tape(gpu, [spikes])
    session = session_of(network, zoom=(1, 2))
    session.advance(700)
    raster = part(session.picture(1280, 800), _panels.arrange(1280, 800, (2,)).rasters[0])
    lit = np.abs(raster - GROUND).max(axis=2)[10] > 25
    # Steps 700 back to 512: the newest block and the two before it.
    assert lit[-2 * (700 - 512) :].all() and not lit[: -2 * (700 - 512)].any()
    numbers = session._renderer.summary(session._view(_panels.arrange(1280, 800, (2,)))).result()[0]
    assert numbers.tolist() == [2 * 24, 2 * 192]


def test_live_summary_counts_the_spikes(gpu: scgpu.Device) -> None:
    spikes = [random_spikes(700, 1000, 0.05), random_spikes(33, 1000, 0.3, seed=5)]
    network = Tape(gpu, spikes)
    session = session_of(network)
    session.advance(1000)
    view = session._view(_panels.arrange(1280, 800, (700, 33)))
    numbers = session._renderer.summary(view).result()[0].reshape(2, 2)
    assert (view.smooth_steps, session._renderer.recent_steps) == (24, 256)
    for rows, (peak, recent) in zip(spikes, numbers.tolist(), strict=True):
        totals = np.concatenate([[0], np.cumsum(rows.sum(axis=0))])
        assert recent == totals[1000] - totals[1000 - 256]
        ends = np.arange(1000, 1000 - view.panels.rates.width, -12)
        assert peak == max(totals[end] - totals[end - 24] for end in ends)


def test_live_rates_are_as_high_as_the_spikes_are_many(gpu: scgpu.Device) -> None:
    spikes = np.zeros((1000, 1024), bool)
    spikes[:100, 512:] = True  # none, then a tenth
    network = Tape(gpu, [spikes])
    session = session_of(network)
    session.advance(1024)
    pixels = session.picture(1280, 800)
    rect = _panels.arrange(1280, 800, (1000,)).rates
    assert session._rate_scale == 0.1
    curve = part(pixels, rect)
    strong = curve.max(axis=2) > 150
    assert strong[:3, -400:].any(axis=0).all() and not strong[10:, -400:].any()
    assert strong[-3:, -800:-600].any(axis=0).all() and not strong[:-10, -800:-600].any()


def test_live_potentials_have_the_colours_of_their_meaning(gpu: scgpu.Device) -> None:
    state = np.array(
        [[REST, 0], [REST - 1000, 0], [THRESHOLD - 1, 0], [300, 0], [REST, 5], [-32768, 0], [300, 0], [300, 0]], "<i2"
    )
    network = Tape(gpu, [np.zeros((8, 64), bool)], state)
    session = session_of(network)
    session.advance(64)
    pixels = session.picture(1280, 800)
    panels = _panels.arrange(1280, 800, (8,))
    whole = part(pixels, panels.cells[0])
    columns = math.ceil(math.sqrt(8 * whole.shape[1] / len(whole)))
    rows = math.ceil(8 / columns)
    centres = [
        whole[int((k // columns + 0.5) * len(whole) / rows), int((k % columns + 0.5) * whole.shape[1] / columns)]
        for k in range(6)
    ]
    rest, below, near, middle, fired, lowest = (centre.astype(int) for centre in centres)
    assert rest.max() < 32
    assert below[2] > 140 and below[0] < 40 and np.array_equal(below, lowest)
    assert near[0] > 250 and near[1] > 220 and near[2] > 170
    assert middle[0] > middle[1] and middle[0] > middle[2] > 40
    bright = 0.75 * np.array(_panels.PALETTE[0]) + 0.25 * 255
    assert np.abs(fired - bright).max() <= 2

    # Of the neurons that are not refractory three are in bin 44, two in the first, one each at rest and at the top.
    side = part(pixels, panels.distributions[0])
    columns_of_bins = ((np.arange(64) + 0.5) * side.shape[1] / 64).astype(int)
    for up, bins in ((0.8, [44]), (0.5, [0, 44]), (0.2, [0, 32, 44, 63])):
        light = (side - GROUND).max(axis=2)[int(len(side) * (1 - up)), columns_of_bins]
        assert np.flatnonzero(light > 40).tolist() == bins


def test_live_state_that_changes_changes_the_picture(gpu: scgpu.Device) -> None:
    network = Tape(gpu, [np.zeros((64, 64), bool)])
    session = session_of(network)
    session.advance(10)
    before = session.picture(640, 400)
    fired = np.tile(np.array([[REST, 1]], "<i2"), (64, 1))
    network.backend.write(network.drawn[0].state, fired)
    after = session.picture(640, 400)
    cells = _panels.arrange(640, 400, (64,)).cells[0]
    assert np.abs(part(after, cells) - part(before, cells)).mean() > 50


def test_live_reads_back_two_numbers_of_each_population(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tape(gpu, [random_spikes(300, 500, 0.1), random_spikes(300, 500, 0.1)])
    session = session_of(network)
    device = network.backend.wgpu_device
    texture = device.create_texture(size=(640, 400, 1), format="bgra8unorm", usage="RENDER_ATTACHMENT")
    read: list[int] = []
    submit = GpuBackend.submit

    def counted(self: GpuBackend, steps: Any, buffers: Any = ()) -> Any:
        read.extend(buffer.size * buffer.dtype.itemsize for buffer in buffers)
        return submit(self, steps, buffers)

    def refused(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a readback")

    monkeypatch.setattr(GpuBackend, "submit", counted)
    monkeypatch.setattr(type(device.queue), "read_buffer", refused)
    monkeypatch.setattr(type(device.queue), "read_texture", refused)
    for _ in range(3):
        session.frame(0.05)
        session.draw(texture, "bgra8unorm")
    assert network.step > 0 and read == [16, 16, 16]


@pytest.mark.parametrize("size", [(1, 1), (199, 900), (200, 200), (3000, 210)])
def test_live_draws_into_windows_of_any_size(gpu: scgpu.Device, size: tuple[int, int]) -> None:
    network = Tape(gpu, [np.ones((20, 64), bool), np.ones((5, 64), bool)])
    session = session_of(network)
    device = network.backend.wgpu_device
    texture = device.create_texture(size=(*size, 1), format="bgra8unorm", usage="RENDER_ATTACHMENT|COPY_SRC")
    session.frame(0.1)
    session.draw(texture, "bgra8unorm")
    content = device.queue.read_texture({"texture": texture}, {"bytes_per_row": 4 * size[0]}, (*size, 1))
    pixels = np.frombuffer(content, np.uint8).reshape(size[1], size[0], 4)
    assert pixels[0, 0, 2::-1].tolist() == list(_panels.BACKGROUND)
    assert (pixels[..., :3].max() > 100) == (min(size) >= 200)


def test_live_stimulates_neurons_that_follow_one_another(gpu: scgpu.Device) -> None:
    network = Tape(gpu, [np.zeros((205, 64), bool), np.zeros((7, 64), bool)])
    session = session_of(network)
    session.advance(5)
    session.controls.press("i")
    session.controls.press(" ")
    session.frame(0.01)
    for population, chosen in zip(network.drawn, (21, 1), strict=True):
        (inbox,) = network.backend.execute([], [population.inbox])
        row = inbox.reshape(3, population.count)
        assert not row[[0, 1]].any()  # step 5 is in row 5 % 3
        kicked = np.flatnonzero(row[2])
        assert kicked.size == chosen and set(row[2, kicked].tolist()) == {1250}
        gaps = np.diff(np.append(kicked, kicked[0] + population.count))
        assert np.count_nonzero(gaps != 1) <= 1


def test_live_too_large_a_network_is_refused(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tape(gpu, [np.zeros((100, 64), bool)])
    monkeypatch.setattr(network.backend, "largest_buffer", 3000)
    with pytest.raises(scgpu.TooLargeError, match=r"drawing keeps 4 blocks .* 3,200 bytes .* binds 3,000"):
        _render.Renderer(network.backend, network.drawn)


# --- What the keys and the clock do -----------------------------------------------------


def test_live_keys() -> None:
    controls = live.Controls()
    for key, name, value in (
        (" ", "paused", True),
        (" ", "paused", False),
        ("s", "single_steps", 1),
        ("ArrowRight", "single_steps", 2),
        ("i", "stimuli", 1),
        ("p", "pictures", 1),
        ("h", "legend", True),
        ("h", "legend", False),
        ("q", "closed", True),
    ):
        controls.press(key)
        assert getattr(controls, name) == value, key
    assert controls.paused  # a single step pauses
    for key, speed in (("+", 1024), ("=", 2048), ("ArrowUp", 4096), ("-", 2048), ("ArrowDown", 1024), ("x", 1024)):
        controls.press(key)
        assert live.SPEEDS[controls.speed] == speed, key
    for key, edge in (("+", live.SPEEDS[-1]), ("-", 1)):
        for _ in range(40):
            controls.press(key)
        assert live.SPEEDS[controls.speed] == edge
    for key, zoom in (("z", (1, 8)), ("Z", (32, 1))):
        for _ in range(20):
            controls.press(key)
        assert _render.ZOOMS[controls.zoom] == zoom
    assert {key for keys, _ in _panels.KEYS for key in keys.split(", ")} >= {"space", "z Z", "i", "p", "q", "h"}


def test_live_frames_run_what_is_due(gpu: scgpu.Device) -> None:
    network = Tape(gpu, [np.zeros((10, 5000), bool)])
    session = live.Session(network, network.backend, "tape")
    session._seconds_per_step = 1e-9
    session.frame(0.25)
    assert network.step == 128
    session._seconds_per_step = 1e-9
    session.frame(100.0)  # a late frame is not made up for
    assert network.step == 256
    session._seconds_per_step = 1.0
    session.frame(0.1)  # slow steps: one at a time
    assert network.step == 257
    session._seconds_per_step = 1e-9
    session.frame(0.0)  # nor are those that there was no time for
    assert network.step == 258
    session.controls.press(" ")
    session.frame(0.25)
    assert network.step == 258 and "paused" in session.caption()
    session.controls.press("s")
    session.controls.press("s")
    session.frame(0.25)
    assert network.step == 260 and session.frames == 6
    assert session.caption() == "tape: step 260 paused"


def test_live_pieces_are_of_few_kinds(gpu: scgpu.Device) -> None:
    network = Tape(gpu, [np.zeros((1, 10_000), bool)])
    session = live.Session(network, network.backend, "tape")
    random = np.random.default_rng(3)
    while network.step < 9000:
        session.advance(int(random.integers(0, 200)))
    assert sum(steps for _, steps in network.runs) == network.step
    assert all(begin % 64 + steps <= 64 for begin, steps in network.runs)
    assert len({(begin % 64, steps) for begin, steps in network.runs}) <= 127
    for step in range(300):
        for n_steps in (0, 1, 7, 64, 100):
            assert 0 <= live.aligned_steps(step, n_steps) <= n_steps
        assert live.aligned_steps(step, 1) == 1


def test_live_scale_is_round_and_steady() -> None:
    scale = 0.0
    for peak, expected in ((0.011, 0.02), (0.019, 0.02), (0.006, 0.02), (0.004, 0.004), (0.2, 0.2), (0.21, 0.4)):
        scale = live.nice_scale(peak, scale)
        assert scale == expected
    assert live.nice_scale(0.0031, 0.0, 1e-4) == pytest.approx(0.004)


@pytest.mark.parametrize("size", [(200, 200), (333, 517), (2560, 1440)])
@pytest.mark.parametrize("counts", [(1,), (80, 20), (1, 100_000, 3, 50, 7, 9, 11, 13, 15)])
def test_live_panels_lie_within_the_picture(size: tuple[int, int], counts: tuple[int, ...]) -> None:
    panels = _panels.arrange(*size, counts)
    every = [*panels.rasters, *panels.cells, panels.rates, *panels.distributions]
    for rect in every:
        assert rect.width >= 1 and rect.height >= 1 and rect.left >= 0 and rect.top >= 0
        assert rect.left + rect.width <= size[0] and rect.top + rect.height <= size[1]
    for stack in (panels.rasters, panels.cells, panels.distributions):
        assert all(above.top + above.height < below.top for above, below in zip(stack, stack[1:], strict=False))


def test_live_texts_change_with_what_they_say() -> None:
    panels = _panels.arrange(640, 400, (10,))
    facts = _panels.Facts("a title", "step 1", ("cells",), (10,), (0.1,), 0.2, 100, 100.0, None, True, False)
    layer = _panels.texts(panels, facts)
    assert layer.shape == (400, 640, 4) and layer.dtype == np.uint8
    assert 0.002 < (layer[..., 3] > 128).mean() < 0.1
    from dataclasses import replace

    for change in ({"title": "b"}, {"rates": (0.3,)}, {"legend": True}, {"keys": False}, {"step_seconds": 1e-4}):
        assert not np.array_equal(_panels.texts(panels, replace(facts, **change)), layer), change


# --- The command ------------------------------------------------------------------------


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The command shows a tape."""
    made: list[Tape] = []

    def opened(options: Any, chosen: scgpu.Device) -> tuple[Any, str]:
        made.append(Tape(chosen, [random_spikes(400, 1000, 0.02), random_spikes(100, 1000, 0.02)]))
        return made[-1], "a tape, 500 neurons"

    monkeypatch.setattr(live, "_open", opened)
    return made


def picture_of(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image)


def require_content(pixels: NDArray[np.uint8], counts: Sequence[int], left: int = 0, top: int = 0) -> None:
    """A picture has texts, spikes, curves, potentials in the places where they belong."""
    height, width, _ = pixels.shape
    panels = _panels.arrange(width, height, counts)
    assert (pixels[5:50, 20:200].max(axis=2) > 150).any()  # the title
    for index, (raster, cells) in enumerate(zip(panels.rasters, panels.cells, strict=True)):
        light = np.abs(part(pixels, raster) - GROUND).max(axis=2) > 40
        assert 0.003 < light.mean() < 0.6, index
        assert part(pixels, cells).std() > 1, index
    assert (part(pixels, panels.rates).max(axis=2) > 120).any(axis=0).mean() > 0.3
    assert all((part(pixels, rect).max(axis=2) > 60).any() for rect in panels.distributions)


def test_live_offscreen_writes_a_picture(
    taped: list[Tape], gpu: scgpu.Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shot.png"
    arguments = ["live", "--offscreen", str(target), "--steps", "900", "--size", "800x500", "--device", str(gpu.index)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"wrote {target}: a tape, 500 neurons, step 900, on {gpu}\n"
    pixels = picture_of(target)
    assert pixels.shape == (500, 800, 3)
    require_content(pixels, (400, 100))
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "device": str(gpu),
        "title": "a tape, 500 neurons",
        "step": 900,
        "frames": 0,
        "pictures": [str(target)],
    }


def test_live_without_a_display_names_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(scgpu.ScgpuError, match=r"no display .*xvfb-run.* or make a picture with --offscreen FILE.png"):
        live.require_display(platform="linux")
    adapters = [device for device in scgpu.devices() if device.kind == "gpu" and device.backend != "OpenGL"]
    if sys.platform == "linux" and adapters:
        command = ["live", "--device", str(adapters[0].index)]
        assert cli.main(command) == 2
        assert "--offscreen FILE.png" in capsys.readouterr().err
        monkeypatch.setenv("DISPLAY", ":12345")
        assert cli.main(command) == 2
        assert "the display cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "device 'cpu' is cpu [Zig"),
        (["--device", "numpy"], "is numpy [NumPy]; live draws on the GPU"),
        (["--size", "big"], "--size must be WIDTHxHEIGHT, each from 200 to 8192; got 'big'"),
        (["--size", "100x800"], "got '100x800'"),
        (["--neurons", "7"], "--neurons must be from 20 to 50000; got 7"),
        (["--steps", "-1"], "--steps must be from 0 to 10000000; got -1"),
        (["--offscreen", "/no/such/folder/x.png"], "--offscreen must be a file in a directory that exists"),
    ],
)
def test_live_rejects(
    arguments: list[str], message: str, tmp_path: Path, taped: list[Tape], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--offscreen", str(tmp_path / "x.png"), *arguments]
    assert cli.main(["live", *given]) == 2
    assert message in capsys.readouterr().err
    assert not taped and not (tmp_path / "x.png").exists()


def test_live_in_a_window_refuses_opengl(capsys: pytest.CaptureFixture[str]) -> None:
    # wgpu-native aborts when such an adapter is asked for the formats of a window.
    adapters = [device for device in scgpu.devices() if device.backend == "OpenGL"]
    if not adapters:
        pytest.skip("no OpenGL adapter")
    assert cli.main(["live", "--device", str(adapters[0].index)]) == 2
    assert "draws aside only: choose an adapter for Vulkan" in capsys.readouterr().err


def test_live_says_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert cli.main(["live", "--offscreen", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err == "scgpu live needs pillow; run: pip install 'scgpu[live]'\n"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "glfw", None)
    assert cli.main(["live"]) == 2
    assert "needs glfw" in capsys.readouterr().err
    monkeypatch.setattr(info.importlib.util, "find_spec", lambda name: None)
    assert any("`scgpu live` needs pillow, rendercanvas, glfw" in text for text in info._missing())


def test_live_shows_a_saved_network(gpu: scgpu.Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The very spikes of a network that was saved in the middle of a block and goes on in the picture."""
    from scgpu.balanced_network import balanced_network

    network = balanced_network(60, seed=5, device="cpu")
    network.run(100)
    network.save(tmp_path / "net.npz")
    following = network.run(90, record="spikes")
    arguments = ["live", str(tmp_path / "net.npz"), "--offscreen", str(tmp_path / "x.png"), "--device"]
    assert cli.main([*arguments, str(gpu.index), "--steps", "90", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["title"], found["step"]) == ("net.npz, 60 neurons", 190)

    network = scgpu.SpikingNetwork.load(tmp_path / "net.npz", device=live.gpu_device(str(gpu.index)))
    backend = backend_of(gpu)
    assert isinstance(backend, GpuBackend)
    session = live.Session(live.LiveNetwork(network), backend, "saved", live=False)
    session.controls.zoom = _render.ZOOMS.index((1, 8))
    session.advance(90)
    pixels = session.picture(1280, 800)
    for record, rect in zip(following.values(), _panels.arrange(1280, 800, (48, 12)).rasters, strict=True):
        light = cells_of(record.count, part(pixels, rect), 8)
        bits = record.spikes("cpu").bits()[:, -light.shape[1] :]
        assert bits.any() and np.array_equal(light[:, -bits.shape[1] :] > 25, bits)
        assert not (light[:, : -bits.shape[1]] > 25).any()  # what was before is not known

    for name, content in (("absent.npz", None), ("junk.npz", b"no network")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        assert cli.main(["live", str(path), "--offscreen", str(tmp_path / "y.png"), "--device", str(gpu.index)]) == 2
        assert name in capsys.readouterr().err


def test_live_stimulus_makes_neurons_fire(gpu: scgpu.Device) -> None:
    from scgpu.balanced_network import balanced_network

    network = balanced_network(200, device=live.gpu_device(str(gpu.index)))
    backend = backend_of(gpu)
    assert isinstance(backend, GpuBackend)
    session = live.Session(live.LiveNetwork(network), backend, "kicked", live=False)
    session.advance(3)
    session.stimulate()
    fired = network.run(1, record="counts")
    assert fired["excitatory"].counts.sum() == 16 and fired["inhibitory"].counts.sum() == 4


def test_live_balanced_network_is_one(chosen: scgpu.Device) -> None:
    from scgpu.balanced_network import balanced_network

    if chosen.software:
        pytest.skip("the same bits as on cpu, by the tests of networks")
    network = balanced_network(1000, seed=3, device=chosen)
    network.run(1000)
    recording = network.run(4000, record="spikes")
    rate = recording["excitatory"].rates().mean() / 1e-4
    assert 2 < rate < 60
    assert np.nanmean(recording["excitatory"].cv_isi()) > 0.4  # irregular
    lowest = min(int(one.get_state()["v"].min()) for one in network.populations)
    assert lowest > -20_000  # far from where 16 bits would wrap
    with pytest.raises(ValueError, match="neurons must be from 20 to 50000; got 19"):
        balanced_network(19)


def test_live_pictures_never_replace_each_other(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = live._free_name(tmp_path, 64)
        path.touch()
        names.append(path.name)
    assert names == ["scgpu-live-64.png", "scgpu-live-64-2.png", "scgpu-live-64-3.png"]
