"""live: a window in which a spiking network runs, drawn on the GPU that runs it."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from scgpu import _panels, _render, arguments
from scgpu._gpu import GpuBackend, GpuBuffer
from scgpu.backend import Device
from scgpu.balanced_network import LEAST_NEURONS, MOST_NEURONS, balanced_network
from scgpu.devices import backend_of, device, devices
from scgpu.errors import DeviceError, GpuError, ScgpuError
from scgpu.info import LIVE_MODULES
from scgpu.live_network import LiveNetwork
from scgpu.spiking_network import SpikingNetwork

SPEEDS = tuple(1 << power for power in range(17))  # steps a second
DEFAULT_SPEED = 512
FRAMES, IDLE_FRAMES = 60, 12  # a second, at most; while nothing moves
FRAME_SECONDS = 1 / 25  # that the steps of a frame may take, so that keys are obeyed at once
LONGEST_FRAME = 0.25  # of a frame that was late, only so many seconds are caught up
TEXT_SECONDS = 0.25  # between two changes of the numbers
MOST_STEPS = 10_000_000  # of --steps
NICE = (1.0, 2.0, 4.0, 8.0)  # upper edges of the rates, times a power of ten


PANELS_SHOWN = (
    ("spikes", "a row for each neuron, or for several; time to the right, the newest step at the right edge"),
    ("potentials now", "a cell for each neuron: blue below rest, dark at rest, warm towards the threshold,"),
    ("", "the population's colour while it is refractory"),
    ("rates", "share of a population that spikes, averaged over 24 columns of spikes"),
    ("potentials", "how many neurons have which, from below rest to the threshold; refractory ones left out"),
)


class RunningNetwork(Protocol):
    """A network on a GPU that can be run, drawn and stimulated."""

    @property
    def drawn(self) -> Sequence[_render.DrawnPopulation]:
        """Its populations."""
        ...

    @property
    def step(self) -> int:
        """Steps that were run."""
        ...

    @property
    def step_seconds(self) -> float | None:
        """Seconds that a step stands for."""
        ...

    def run(self, n_steps: int) -> Sequence[GpuBuffer]:
        """Advance by steps within a block of 64; the buffers with the spikes of that block."""
        ...


@dataclass
class Controls:
    """What the keys have set.

    Attributes
    ----------
    paused, legend, closed : bool
        Steps only when asked to; the list of keys is shown; the window is to be closed.
    speed, zoom : int
        Index into `SPEEDS` and into `scgpu._render.ZOOMS`.
    single_steps, stimuli, pictures : int
        What was asked for and not done yet.
    """

    paused: bool = False
    legend: bool = False
    closed: bool = False
    speed: int = SPEEDS.index(DEFAULT_SPEED)
    zoom: int = _render.ZOOMS.index((1, 1))
    single_steps: int = 0
    stimuli: int = 0
    pictures: int = 0

    def press(self, key: str) -> None:
        """Obey a key, by its character or its name; others do nothing."""
        if key == " ":
            self.paused = not self.paused
        elif key in ("s", "ArrowRight"):
            self.paused = True
            self.single_steps += 1
        elif key in ("+", "=", "ArrowUp"):
            self.speed = min(self.speed + 1, len(SPEEDS) - 1)
        elif key in ("-", "ArrowDown"):
            self.speed = max(self.speed - 1, 0)
        elif key in ("z", "Z"):
            self.turn(-1 if key == "z" else 1)
        elif key == "i":
            self.stimuli += 1
        elif key == "p":
            self.pictures += 1
        elif key == "h":
            self.legend = not self.legend
        elif key in ("q", "Escape"):
            self.closed = True

    def turn(self, change: int) -> None:
        """Zoom in (negative) or out."""
        self.zoom = min(max(self.zoom + change, 0), len(_render.ZOOMS) - 1)


def nice_scale(peak: float, before: float, unit: float = 1.0) -> float:
    """The upper edge of an axis: a round number of units, that stays as long as the peak is well seen.

    >>> nice_scale(0.011, 0.0), nice_scale(0.011, 0.04), nice_scale(0.021, 0.02)
    (0.02, 0.04, 0.04)
    """
    if peak <= before <= 4 * peak:
        return before
    least = max(peak, 1e-9) / unit
    power = 10.0 ** math.floor(math.log10(least))
    found = next((nice for nice in NICE if nice * power >= least), 10.0) * power * unit
    return float(f"{found:.12g}")


def aligned_piece(step: int, n_steps: int) -> int:
    """Steps of the next piece of ``n_steps``: a power of two that divides ``step``, at most 64.

    A network keeps what it prepared for pieces of a length and place within a block, and there are 127 of these.

    >>> aligned_piece(0, 100), aligned_piece(64, 36), aligned_piece(96, 4), aligned_piece(3, 9)
    (64, 32, 4, 1)
    """
    free = min(step & -step, _render.BLOCK_STEPS) if step else _render.BLOCK_STEPS
    return min(free, 1 << n_steps.bit_length() - 1)


def aligned_steps(step: int, n_steps: int) -> int:
    """About so many steps, at most, that end where few pieces are needed.

    >>> aligned_steps(0, 20), aligned_steps(16, 20), aligned_steps(13, 20), aligned_steps(5, 2)
    (16, 16, 19, 1)
    """
    coarse = min(1 << n_steps.bit_length() - 1, _render.BLOCK_STEPS) if n_steps else 1
    return (step + n_steps) // coarse * coarse - step


class Session:
    """A network that runs and is drawn, as the keys say.

    Parameters
    ----------
    network : RunningNetwork
        On the device of the backend.
    backend : GpuBackend
        A GPU adapter.
    title : str
        Stands over the picture.
    live : bool
        Keys are obeyed, and said in the picture, as is the speed.
    """

    def __init__(self, network: RunningNetwork, backend: GpuBackend, title: str, live: bool = True) -> None:
        self.network = network
        self.controls = Controls()
        self.frames = 0
        self.backend = backend
        self._renderer = _render.Renderer(backend, network.drawn)
        self._renderer.start_from(network.step)
        self._title = title
        self._live = live
        self._names = tuple(one.name for one in network.drawn)
        self._counts = tuple(one.count for one in network.drawn)
        self._rates = (0.0,) * len(self._counts)
        self._random = np.random.default_rng(0)
        self._rate_scale = 0.0
        self._due = 0.0
        self._seconds_per_step = 1e-3
        self._spent = 0.0  # on the steps of the last frame
        self._reached = 0.0  # steps a second, of late
        self._facts: _panels.Facts | None = None
        self._panels: _panels.Panels | None = None
        self._written = -math.inf

    def advance(self, n_steps: int) -> None:
        """Run some steps, and take in their spikes."""
        while n_steps > 0:
            begin = self.network.step
            piece = aligned_piece(begin, n_steps)
            words = self.network.run(piece)
            self._renderer.append(words, begin, begin + piece)
            n_steps -= piece

    def frame(self, seconds: float) -> None:
        """Do what is due ``seconds`` after the last frame."""
        controls = self.controls
        while controls.stimuli:
            controls.stimuli -= 1
            self.stimulate()
        self._due = 0.0 if controls.paused else self._due + SPEEDS[controls.speed] * min(seconds, LONGEST_FRAME)
        # As long as drawing takes, where that takes longer.
        bound = max(int(max(FRAME_SECONDS, seconds - self._spent) / self._seconds_per_step), 1)
        steps = aligned_steps(self.network.step, min(int(self._due), bound))
        # What cannot be done in time is not made up for later.
        self._due = min(self._due - steps, 1.0)
        steps += controls.single_steps
        controls.single_steps = 0
        begin = time.perf_counter()
        self.advance(steps)
        self._summarise()
        self._spent = time.perf_counter() - begin
        if steps:
            self._seconds_per_step += 0.5 * (self._spent / steps - self._seconds_per_step)
        if seconds > 0:
            self._reached += min(2.0 * seconds, 1.0) * (steps / seconds - self._reached)
        self.frames += 1

    def stimulate(self) -> None:
        """Kick a tenth of each population, neurons that follow one another."""
        for index, count in enumerate(self._counts):
            self._renderer.stimulate(index, int(self._random.integers(count)), -(-count // 10))

    def _view(self, panels: _panels.Panels) -> _render.View:
        return _render.View(panels, self.controls.zoom, self._rate_scale or 1.0)

    def _summarise(self) -> None:
        """Fetch what the scale and the texts need; returns when the device has run all steps."""
        panels = self._panels or _panels.arrange(*_panels.DESIGN_SIZE, self._counts)
        view = self._view(panels)
        (numbers,) = self._renderer.summary(view).result()
        peaks, recent = numbers.reshape(-1, 2).T / np.array(self._counts)
        self._rates = tuple((recent / max(self._renderer.recent_steps, 1)).tolist())
        peak = float(peaks.max()) / view.smooth_steps
        self._rate_scale = nice_scale(max(peak, 1e-6), self._rate_scale, self.network.step_seconds or 1.0)

    def _status(self) -> str:
        wanted = SPEEDS[self.controls.speed]
        if self.controls.paused or not self._live:
            return f"step {self.network.step:,}" + "     paused" * self.controls.paused
        reached = f"{wanted:,}" if self._reached > 0.9 * wanted else f"{self._reached:,.0f} of {wanted:,}"
        return f"step {self.network.step:,}     {reached} steps/s"

    def caption(self) -> str:
        """The window's title."""
        return f"{self._title}: {' '.join(self._status().split())}"

    def _arrange(self, width: int, height: int) -> _panels.Panels:
        if self._panels is None or (self._panels.width, self._panels.height) != (width, height):
            self._panels = _panels.arrange(width, height, self._counts)
            self._facts = None
        return self._panels

    def _lay_out(self, panels: _panels.Panels) -> _render.View:
        """The view for a picture, its texts brought up to date."""
        view = self._view(panels)
        facts = _panels.Facts(
            self._title,
            self._status(),
            self._names,
            self._counts,
            self._rates,
            view.rate_scale,
            view.tick_steps,
            view.tick_pixels,
            self.network.step_seconds,
            self._live,
            self.controls.legend,
        )
        if self._stale(facts):
            self._renderer.write_texts(_panels.texts(panels, facts))
            self._facts, self._written = facts, time.perf_counter()
        return view

    def _stale(self, facts: _panels.Facts) -> bool:
        """True when the texts must be written again: numbers alone can wait a little."""
        if self._facts is None or facts == self._facts:
            return self._facts is None
        numbers_alone = replace(self._facts, status=facts.status, rates=facts.rates) == facts
        return not (numbers_alone and time.perf_counter() - self._written < TEXT_SECONDS)

    def draw(self, texture: Any, target_format: str) -> None:
        """Draw into a texture; into one too small for the panels, nothing."""
        width, height, _ = texture.size
        if min(width, height) < _panels.LEAST_SIZE:
            self._renderer.clear(texture)
            return
        self._renderer.draw(texture, target_format, self._lay_out(self._arrange(width, height)))

    def picture(self, width: int, height: int) -> NDArray[np.uint8]:
        """A picture: uint8, shape (height, width, 3)."""
        panels = self._arrange(width, height)
        self._summarise()
        self._written = -math.inf  # no number is old
        return self._renderer.picture(self._lay_out(panels))


def save_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture as PNG."""
    importlib.import_module("PIL.Image").fromarray(pixels).save(path, format="PNG")


def _missing_package(modules: dict[str, str]) -> str | None:
    for module, package in modules.items():
        try:
            importlib.import_module(module)
        except ImportError:
            return package
    return None


def _size(text: str) -> tuple[int, int]:
    """``--size``: WIDTHxHEIGHT."""
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        width, height = map(int, parts)
        if all(_panels.LEAST_SIZE <= side <= _panels.MOST_SIZE for side in (width, height)):
            return width, height
    raise ValueError(
        f"--size must be WIDTHxHEIGHT, each from {_panels.LEAST_SIZE} to {_panels.MOST_SIZE}; got {text!r}"
    )


def _picture_path(text: str) -> Path:
    """``--offscreen``, refused before the work when it cannot be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--offscreen must be a file in a directory that exists; got {text!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"--offscreen {text!r} is not writable; choose another file")
    return path


def gpu_device(selector: str) -> Device:
    """The GPU adapter of a selector.

    Raises
    ------
    DeviceError
        When it means no GPU adapter.
    """
    # What is drawn lies on this device and nowhere else.
    chosen = device(selector, on_device_loss="raise")
    if chosen.kind == "gpu":
        return chosen
    known = ", ".join(f"{one.index}: {one}" for one in devices() if one.kind == "gpu") or "none here"
    raise DeviceError(
        f"device {selector!r} is {chosen}; live draws on the GPU that runs the network and needs an adapter: {known}"
    )


def require_window(chosen: Device) -> None:
    """Refuse an adapter that cannot draw in a window: wgpu-native would end the process.

    Raises
    ------
    DeviceError
        For an OpenGL adapter; the message names both ways out.
    """
    if chosen.backend == "OpenGL":
        raise DeviceError(
            f"{chosen} draws aside only: choose an adapter for Vulkan, Metal or Direct3D 12 with --device or "
            "SC_GPU_ADAPTER, or make a picture with --offscreen FILE.png"
        )


REMEDY = "run it in a desktop session (or under xvfb-run), or make a picture with --offscreen FILE.png"


def require_display(environment: Any = os.environ, platform: str = sys.platform) -> None:
    """Refuse to open a window where there is no display: glfw would end the process.

    Raises
    ------
    ScgpuError
        When there is none; the message names both ways out.
    """
    if platform == "linux" and not environment.get("DISPLAY") and not environment.get("WAYLAND_DISPLAY"):
        raise ScgpuError(f"there is no display (DISPLAY and WAYLAND_DISPLAY are not set): {REMEDY}")
    glfw = importlib.import_module("glfw")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if not glfw.init():
            reason = f": {told[-1].message}" if told else ""
            raise ScgpuError(f"the display cannot be used{reason}: {REMEDY}")


class Window:
    """A window that shows a session until it is closed."""

    def __init__(self, session: Session, size: tuple[int, int], folder: Path, terminal: TextIO) -> None:
        backend = session.backend
        self._terminal = terminal
        module = importlib.import_module("rendercanvas.glfw")
        self._session = session
        self._folder = folder
        self._failure: BaseException | None = None
        self._last = time.perf_counter()
        self._loop = module.loop
        self._canvas = module.RenderCanvas(
            size=size, title=session.caption(), update_mode="continuous", max_fps=FRAMES, vsync=True
        )
        self.pictures: list[str] = []
        try:
            self._context = self._canvas.get_wgpu_context()
            preferred = self._context.get_preferred_format(backend.wgpu_device.adapter)
            # Colours are given as the screen shows them.
            self._format = preferred.removesuffix("-srgb")
            self._context.configure(device=backend.wgpu_device, format=self._format)
        except Exception as error:  # wgpu raises anything where a surface does not suit the adapter
            self._canvas.close()
            raise GpuError(f"{backend.device} cannot draw in a window of this display ({error}); {REMEDY}") from error
        self._canvas.add_event_handler(self._on_key, "key_down")
        self._canvas.add_event_handler(self._on_character, "char")
        self._canvas.add_event_handler(self._on_wheel, "wheel")
        self._canvas.request_draw(self._draw)

    def show(self) -> None:
        """Run until the window is closed."""
        self._loop.run()
        if self._failure is not None:
            raise self._failure

    def _on_key(self, event: dict[str, Any]) -> None:
        # Keys that write something arrive as characters too, as the keyboard's layout has them.
        if len(event["key"]) > 1:
            self._session.controls.press(event["key"])

    def _on_character(self, event: dict[str, Any]) -> None:
        if event["data"] == "h":
            print(keys_text(), file=self._terminal, flush=True)
        self._session.controls.press(event["data"])

    def _on_wheel(self, event: dict[str, Any]) -> None:
        self._session.controls.turn(1 if event["dy"] > 0 else -1)

    def _draw(self) -> None:
        # The canvas would log an exception and go on drawing.
        try:
            self._frame()
        except BaseException as error:
            self._failure = error
            self._session.controls.closed = True
        if self._session.controls.closed:
            self._canvas.close()

    def _frame(self) -> None:
        session, now = self._session, time.perf_counter()
        session.frame(now - self._last)
        self._last = now
        self._canvas.set_update_mode("continuous", max_fps=IDLE_FRAMES if session.controls.paused else FRAMES)
        texture = self._context.get_current_texture()
        session.draw(texture, self._format)
        self._canvas.set_title(session.caption())
        while session.controls.pictures:
            session.controls.pictures -= 1
            path = _free_name(self._folder, session.network.step)
            save_picture(path, session.picture(*texture.size[:2]))
            self.pictures.append(str(path))
            print(f"wrote {path}", file=self._terminal, flush=True)


def _free_name(folder: Path, step: int) -> Path:
    """A name for a picture of a step that no file has."""

    def names() -> Iterator[Path]:
        yield folder / f"scgpu-live-{step}.png"
        number = 2
        while True:
            yield folder / f"scgpu-live-{step}-{number}.png"
            number += 1

    return next(path for path in names() if not path.exists())


def keys_text() -> str:
    """The keys, and what the panels show, for the terminal."""
    width = 16
    return "\n".join(
        (
            "keys",
            *(f"  {key:<{width}}  {effect}" for key, effect in _panels.KEYS),
            "panels",
            *(f"  {panel:<{width}}  {what}" for panel, what in PANELS_SHOWN),
        )
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``scgpu live``."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a network that SpikingNetwork.save wrote")
    parser.add_argument(
        "--neurons",
        type=int,
        default=4000,
        metavar="N",
        help="without FILE: neurons of a balanced random network (default 4000)",
    )
    parser.add_argument("--device", default="gpu", help="a GPU adapter: see the README's Devices (default gpu)")
    parser.add_argument("--size", default="1280x800", metavar="WxH", help="of the window or picture (default 1280x800)")
    parser.add_argument("--offscreen", metavar="PNG", help="open no window: run --steps steps, write a picture")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="steps before the picture (default 2000)")
    parser.add_argument("--json", action="store_true", help="print what was done as one JSON object")
    parser.epilog = "Keys: " + "; ".join(f"{key}: {effect}" for key, effect in _panels.KEYS) + "."


def _open(options: argparse.Namespace, chosen: Device) -> tuple[RunningNetwork, str]:
    """The network to show, and its title."""
    if options.file is None:
        network, name = balanced_network(options.neurons, device=chosen), "balanced random network"
    else:
        try:
            network, name = SpikingNetwork.load(options.file, device=chosen), Path(options.file).name
        except OSError as error:
            raise ScgpuError(f"{options.file!r} cannot be read: {error}") from error
    neurons = sum(one.count for one in network.populations)
    return LiveNetwork(network), f"{name}, {neurons:,} neurons"


def run(options: argparse.Namespace) -> int:
    """``scgpu live``.

    Returns
    -------
    int
        0, or 2 when a package or a display is missing, or an option or file is not usable.
    """
    size = _size(options.size)
    steps = arguments.integer("--steps", options.steps, 0, MOST_STEPS)
    arguments.integer("--neurons", options.neurons, LEAST_NEURONS, MOST_NEURONS)
    path = _picture_path(options.offscreen) if options.offscreen is not None else None
    missing = _missing_package({"PIL": LIVE_MODULES["PIL"]} if path else LIVE_MODULES)
    if missing:
        print(f"scgpu live needs {missing}; run: pip install 'scgpu[live]'", file=sys.stderr)
        return 2
    chosen = gpu_device(options.device)
    if path is None:
        require_window(chosen)
        require_display()
    network, title = _open(options, chosen)
    backend = backend_of(chosen)
    assert isinstance(backend, GpuBackend)
    session = Session(network, backend, title, live=path is None)
    if path is not None:
        session.advance(steps)
        save_picture(path, session.picture(*size))
        pictures = [str(path)]
    else:
        # Standard output is for the report alone.
        terminal = sys.stderr if options.json else sys.stdout
        print(keys_text(), file=terminal, flush=True)
        window = Window(session, size, Path.cwd(), terminal)
        window.show()
        pictures = window.pictures
    if options.json:
        found = {"device": str(chosen), "title": title, "step": network.step, "frames": session.frames}
        print(json.dumps({**found, "pictures": pictures}, indent=2))
    elif path is not None:
        print(f"wrote {path}: {title}, step {network.step:,}, on {chosen}")
    return 0
