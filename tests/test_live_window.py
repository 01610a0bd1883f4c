"""The window of scgpu live, on an X display that the tests start: what it shows and how it obeys."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scgpu

for module in ("PIL", "glfw", "rendercanvas"):
    pytest.importorskip(module, reason="needs the extra scgpu[live]")

ROOT = Path(__file__).resolve().parent.parent
SCREEN = 1000, 700
SIZE = 900, 600
DEADLINE = 90.0  # seconds, for machines on which shaders compile slowly


class XKeyEvent(ctypes.Structure):
    """The key event of Xlib."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("root", ctypes.c_ulong),
        ("subwindow", ctypes.c_ulong),
        ("time", ctypes.c_ulong),
        *((name, ctypes.c_int) for name in ("x", "y", "x_root", "y_root")),
        ("state", ctypes.c_uint),
        ("keycode", ctypes.c_uint),
        ("same_screen", ctypes.c_int),
        ("padding", ctypes.c_long * 24),
    )


class Display:
    """An X server without a screen, whose picture lies in a file, and a client that sends keys."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "Xvfb_screen0"
        reader, writer = os.pipe()
        self._server = subprocess.Popen(
            [
                *("Xvfb", "-displayfd", str(writer), "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24"),
                *("-fbdir", str(folder), "-nolisten", "tcp"),
            ],
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as told:
            self.name = f":{told.readline().strip()}"
        self._x = ctypes.CDLL("libX11.so.6")
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._x.XDefaultRootWindow.restype = ctypes.c_ulong
        self._x.XStringToKeysym.restype = ctypes.c_ulong
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(self.name.encode()))
        assert self._display.value, self.name
        self._clock = 1000

    def close(self) -> None:
        self._x.XCloseDisplay(self._display)
        self._server.terminate()
        self._server.wait(10)

    def picture(self) -> NDArray[np.uint8]:
        """What the screen shows: (height, width, 3). The file is a dump of an X window."""
        content = self._file.read_bytes()
        header = struct.unpack(">20I", content[:80])
        size, width, height, row, colours = header[0], header[4], header[5], header[12], header[19]
        begin = size + 12 * colours
        pixels = np.frombuffer(content[begin : begin + row * height], np.uint8).reshape(height, row // 4, 4)
        return pixels[:, :width, 2::-1]

    def windows(self) -> dict[int, str]:
        """The titles of the top windows."""
        root, parent, many = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        top = ctypes.c_ulong(self._x.XDefaultRootWindow(self._display))
        self._x.XQueryTree(
            self._display, top, *map(ctypes.byref, (root, parent)), ctypes.byref(children), ctypes.byref(many)
        )
        found = {}
        for index in range(many.value):
            name = ctypes.c_char_p()
            if self._x.XFetchName(self._display, ctypes.c_ulong(children[index]), ctypes.byref(name)):
                found[children[index]] = (name.value or b"").decode()
        return found

    def resize(self, window: int, width: int, height: int) -> None:
        """Give a window another size."""
        self._x.XResizeWindow(self._display, ctypes.c_ulong(window), width, height)
        self._x.XFlush(self._display)

    def press(self, window: int, key: str) -> None:
        """Press and release a key."""
        code = self._x.XKeysymToKeycode(self._display, ctypes.c_ulong(self._x.XStringToKeysym(key.encode())))
        assert code, key
        for kind in (2, 3):
            self._clock += 50
            event = XKeyEvent(
                type=kind, display=self._display.value, window=window, time=self._clock, keycode=code, same_screen=1
            )
            self._x.XSendEvent(self._display, ctypes.c_ulong(window), 0, ctypes.c_long(kind - 1), ctypes.byref(event))
            self._x.XFlush(self._display)


def wait_for(what: str, ready: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """What ``ready`` returns once that is true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            pytest.fail(f"waiting for {what}: scgpu live has ended: {process.communicate()}")
        if found := ready():
            return found
        time.sleep(0.05)
    return pytest.fail(f"{what} did not come in {DEADLINE} s")


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    """An X display of this test."""
    if sys.platform != "linux":
        pytest.skip("X displays are of Linux; scgpu live itself is not")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (Debian: apt install xvfb)")
    folder = tmp_path / "screen"
    folder.mkdir()
    shown = Display(folder)
    yield shown
    shown.close()


def start(display: Display, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``scgpu live`` in a window."""
    environment = {**os.environ, "DISPLAY": display.name, "PYTHONPATH": str(ROOT)}
    environment.pop("WAYLAND_DISPLAY", None)
    return subprocess.Popen(
        [sys.executable, "-m", "scgpu", "live", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts in the background ignores it, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def vulkan() -> scgpu.Device:
    found = [device for device in scgpu.devices() if device.backend == "Vulkan"]
    if not found:
        pytest.skip("windows of X need a Vulkan adapter")
    return found[0]


def step_of(title: str) -> int:
    return int(title.partition(": step ")[2].split()[0].replace(",", ""))


def test_live_window_shows_the_network_and_obeys(display: Display, tmp_path: Path) -> None:
    chosen = str(vulkan().index)
    size = f"{SIZE[0]}x{SIZE[1]}"
    process = start(display, tmp_path, "--neurons", "500", "--size", size, "--device", chosen, "--json")
    try:
        window = wait_for("the window", lambda: next(iter(display.windows()), 0), process)

        def title() -> str:
            return display.windows().get(window, "")

        def shown() -> NDArray[np.uint8]:
            return display.picture()[: SIZE[1], : SIZE[0]]

        wait_for("1000 steps", lambda: ": step " in title() and step_of(title()) > 1000, process)
        from test_live import require_content

        require_content(shown(), (400, 100))

        display.press(window, "space")
        wait_for("the pause", lambda: "paused" in title(), process)
        paused = step_of(title())
        time.sleep(0.5)
        assert step_of(title()) == paused
        display.press(window, "s")
        wait_for("the step", lambda: step_of(title()) == paused + 1, process)
        display.press(window, "Right")
        wait_for("the step", lambda: step_of(title()) == paused + 2, process)

        before = shown()
        display.press(window, "z")
        wait_for("the zoom", lambda: (shown() != before).mean() > 0.02, process)
        time.sleep(0.5)
        plain = shown()
        display.press(window, "h")
        wait_for(
            "the list of keys", lambda: (shown()[200:400, 300:600] != plain[200:400, 300:600]).mean() > 0.5, process
        )

        display.press(window, "p")
        path = tmp_path / f"scgpu-live-{paused + 2}.png"
        wait_for("the picture", lambda: path.is_file() and path.stat().st_size, process)
        wait_for("its end", lambda: path.read_bytes().endswith(b"IEND\xaeB`\x82"), process)
        seen = shown()

        display.resize(window, 700, 500)
        wait_for("the new size", lambda: (display.picture()[:500, 700:] == 0).all(), process)
        display.press(window, "p")
        second = tmp_path / f"scgpu-live-{paused + 2}-2.png"
        wait_for("the picture", second.is_file, process)
        display.press(window, "q")
        out, error = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0, error
    from PIL import Image

    saved = np.asarray(Image.open(path))
    assert saved.shape == (SIZE[1], SIZE[0], 3)
    assert (saved != seen).any(axis=2).mean() < 0.001  # the mouse pointer
    require_content(saved, (400, 100))
    assert Image.open(second).size == (700, 500)
    found = json.loads(out)
    assert found["step"] == paused + 2 and found["pictures"] == [str(path), str(second)] and found["frames"] > 10
    assert "single step" in error and f"wrote {path}" in error


def test_live_window_closes_on_interrupt(display: Display, tmp_path: Path) -> None:
    process = start(display, tmp_path, "--neurons", "100", "--size", "300x250", "--device", str(vulkan().index))
    try:
        window = wait_for("the window", lambda: next(iter(display.windows()), 0), process)
        wait_for("steps", lambda: ": step " in display.windows().get(window, ""), process)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode in (0, 130), error
    assert "Traceback" not in error and out.startswith("keys\n")
