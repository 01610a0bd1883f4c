"""Where the panels of `scgpu live` lie in a picture, and the texts beside them.

Texts are drawn on the host with Pillow's own typeface into one layer of the picture's size, which the
GPU puts over the panels. They change a few times a second at most.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# Of populations, in their order.
PALETTE: tuple[Colour, ...] = (
    (94, 200, 242),
    (255, 128, 112),
    (155, 229, 120),
    (255, 200, 87),
    (184, 158, 255),
    (79, 209, 181),
    (255, 158, 206),
    (194, 203, 214),
)
BACKGROUND: Colour = (6, 8, 12)
BRIGHT: Colour = (226, 232, 240)
PLAIN: Colour = (150, 161, 178)
DIM: Colour = (93, 104, 122)
LOW: Colour = (70, 130, 190)  # what window.wgsl's heat() shows far below rest, a little lighter
HOT: Colour = (240, 130, 74)  # and near the threshold

DESIGN_SIZE = 1280, 800  # the picture for which lengths below are given in pixels
LEAST_SIZE, MOST_SIZE = 200, 8192  # of a picture, in each direction
LEAST_FONT = 9  # pixels: smaller letters cannot be read

KEYS = (
    ("space", "pause or go on"),
    ("s, right", "a single step"),
    ("+ -, up down", "twice or half as fast"),
    ("i", "stimulate a tenth of the neurons"),
    ("z Z, scroll", "zoom in time"),
    ("p", "save a picture"),
    ("h", "this list"),
    ("q, escape", "quit"),
)

HINT = "space pause    s step    + - speed    i stimulate    z zoom    p picture    h keys    q quit"


class Rect(NamedTuple):
    """A part of the picture, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Panels:
    """The parts of a picture; `rasters`, `cells` and `distributions` have one for each population."""

    width: int
    height: int
    scale: float
    rasters: tuple[Rect, ...]
    cells: tuple[Rect, ...]
    rates: Rect
    distributions: tuple[Rect, ...]


def _stack(whole: Rect, shares: Sequence[float], gap: int) -> tuple[Rect, ...]:
    """Parts of a rectangle, one below the other, as high as their shares."""
    room = max(whole.height - gap * (len(shares) - 1), len(shares))
    edges = np.round(np.cumsum([0.0, *shares]) / sum(shares) * room).astype(int)
    return tuple(
        Rect(whole.left, whole.top + int(begin) + gap * index, whole.width, max(int(end - begin), 1))
        for index, (begin, end) in enumerate(zip(edges, edges[1:], strict=False))
    )


def arrange(width: int, height: int, counts: Sequence[int]) -> Panels:
    """Lay out a picture for populations of so many neurons."""
    scale = max(min(width / DESIGN_SIZE[0], height / DESIGN_SIZE[1]), 0.25)

    def length(pixels: float) -> int:
        return max(round(pixels * scale), 1)

    margin, gap = length(20), length(14)
    left, top, bottom = length(132), length(78), length(64)
    side = length(300)
    middle = max(width - left - side - gap - margin, 1)
    low = max(round(0.23 * height), 1)
    high = max(height - top - bottom - length(34) - low, len(counts))
    # The least of several populations keeps a seventh of the largest one's height.
    shares = [max(count, max(counts) / 7) for count in counts]
    right = left + middle + gap
    lower = top + high + length(34)
    stacked = _stack(Rect(right, lower, side, low), [1.0] * len(counts), max(gap // 2, 1))
    return Panels(
        width,
        height,
        scale,
        _stack(Rect(left, top, middle, high), shares, max(gap // 2, 1)),
        _stack(Rect(right, top, side, high), shares, max(gap // 2, 1)),
        Rect(left, lower, middle, low),
        stacked,
    )


@dataclass(frozen=True)
class Facts:
    """What the texts say."""

    title: str
    status: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    rates: tuple[float, ...]
    rate_scale: float
    tick_steps: int
    tick_pixels: float
    step_seconds: float | None
    keys: bool
    legend: bool


def percent(share: float) -> str:
    """A share of neurons, short.

    >>> percent(0.0123), percent(0.2), percent(0.0)
    ('1.2 %', '20 %', '0 %')
    """
    return f"{100 * share:.2g} %"


def rate_text(share: float, step_seconds: float | None) -> str:
    """A rate for reading: in Hz where steps have a duration.

    >>> rate_text(0.002, 1e-4), rate_text(0.002, None)
    ('20 Hz', '0.2 % a step')
    """
    if step_seconds is None:
        return f"{percent(share)} a step"
    return f"{share / step_seconds:.3g} Hz"


def _age_text(steps: int, step_seconds: float | None) -> str:
    if step_seconds is None:
        return f"-{steps:,.0f}"
    return f"-{steps * step_seconds * 1000:.6g}"


@cache
def _font(pixels: int) -> Any:
    return importlib.import_module("PIL.ImageFont").load_default(pixels)


class _Layer:
    """A transparent picture to write on, in sizes of the design."""

    def __init__(self, panels: Panels) -> None:
        image = importlib.import_module("PIL.Image")
        self._scale = panels.scale
        self._image = image.new("RGBA", (panels.width, panels.height))
        self._draw = importlib.import_module("PIL.ImageDraw").Draw(self._image)

    def text(self, place: tuple[float, float], text: str, size: float, colour: Colour, anchor: str = "ls") -> float:
        """Write at a place in pixels; the anchor is Pillow's. Returns the width in pixels."""
        font = _font(max(round(size * self._scale), LEAST_FONT))
        self._draw.text(place, text, fill=colour, font=font, anchor=anchor)
        return float(font.getlength(text))

    def ground(self, rect: Rect) -> None:
        """A dark ground for texts over panels."""
        box = (rect.left, rect.top, rect.left + rect.width, rect.top + rect.height)
        self._draw.rounded_rectangle(box, radius=8 * self._scale, fill=(14, 18, 25, 238), outline=(48, 58, 74, 255))

    def pixels(self) -> NDArray[np.uint8]:
        """The layer."""
        return np.asarray(self._image, np.uint8)


def texts(panels: Panels, facts: Facts) -> NDArray[np.uint8]:
    """The layer of texts: uint8, shape (height, width, 4), colours and their opacity."""
    layer, unit = _Layer(panels), panels.scale
    right = panels.cells[0].left + panels.cells[0].width
    layer.text((20 * unit, 35 * unit), facts.title, 19, BRIGHT)
    layer.text((right, 35 * unit), facts.status, 15, PLAIN, "rs")
    _beside_populations(layer, panels, facts)
    _around_rates(layer, panels, facts)
    if facts.keys:
        layer.text((right, panels.height - 14 * unit), HINT, 12, DIM, "rs")
    if facts.legend:
        _legend(layer, panels)
    return layer.pixels()


def _beside_populations(layer: _Layer, panels: Panels, facts: Facts) -> None:
    unit = panels.scale
    for index, rect in enumerate(panels.rasters):
        colour = PALETTE[index % len(PALETTE)]
        x = rect.left - 12 * unit
        lines = (
            (facts.names[index], 15.0, colour),
            (f"{facts.counts[index]:,}", 12.5, PLAIN),
            (rate_text(facts.rates[index], facts.step_seconds), 12.5, PLAIN),
        )
        y = float(rect.top)
        for text, size, tint in lines:
            y += (size + 5) * unit
            if y <= rect.top + rect.height + 3 * unit:
                layer.text((x, y), text, size, tint, "rs")
    top = panels.rasters[0].top - 8 * unit
    layer.text((panels.rasters[0].left, top), "spikes", 12, DIM)
    x = panels.cells[0].left + layer.text((panels.cells[0].left, top), "potentials now:  ", 12, DIM)
    fired = PALETTE[0]
    for text, colour in (("below rest  ", LOW), ("rest  ", DIM), ("near threshold  ", HOT), ("fired", fired)):
        x += layer.text((x, top), text, 12, colour)


def _around_rates(layer: _Layer, panels: Panels, facts: Facts) -> None:
    unit, rect = panels.scale, panels.rates
    top, bottom = rect.top - 8 * unit, rect.top + rect.height
    layer.text((rect.left, top), "rates", 12, DIM)
    for quarter in (1, 2, 3, 4):
        y = bottom - rect.height * quarter / 4
        layer.text((rect.left - 12 * unit, y + 4 * unit), _rate_tick(facts, quarter), 12, DIM, "rs")
    layer.text((rect.left + rect.width, bottom + 18 * unit), "now", 12, DIM, "rs")
    for tick in range(1, int(rect.width / facts.tick_pixels) + 1):
        text = _age_text(tick * facts.tick_steps, facts.step_seconds)
        x = rect.left + rect.width - tick * facts.tick_pixels
        if x > rect.left + 50 * unit:
            layer.text((x, bottom + 18 * unit), text, 12, DIM, "ms")
    layer.text((rect.left, bottom + 18 * unit), "steps" if facts.step_seconds is None else "ms", 12, DIM)
    side = panels.distributions[0]
    layer.text((side.left, top), "potentials, all neurons", 12, DIM)
    y = panels.distributions[-1].top + panels.distributions[-1].height + 18 * unit
    layer.text((side.left + side.width / 2, y), "rest", 12, DIM, "ms")
    layer.text((side.left + side.width, y), "threshold", 12, DIM, "rs")


def _rate_tick(facts: Facts, quarter: int) -> str:
    share = facts.rate_scale * quarter / 4
    return percent(share) if facts.step_seconds is None else f"{share / facts.step_seconds:.4g} Hz"


def _legend(layer: _Layer, panels: Panels) -> None:
    unit = panels.scale
    width, line = 470 * unit, 27 * unit
    height = line * (len(KEYS) + 1.2)
    left, top = (panels.width - width) / 2, (panels.height - height) / 2
    layer.ground(Rect(round(left), round(top), round(width), round(height)))
    for row, (key, effect) in enumerate(KEYS, 1):
        y = top + line * (row + 0.35)
        layer.text((left + 150 * unit, y), key, 15, BRIGHT, "rs")
        layer.text((left + 174 * unit, y), effect, 15, PLAIN)
