"""Draws a running network on the GPU that runs it, from the buffers in which it runs.

Nothing that is drawn passes through the host: after each piece of a run its spikes go into a ring on the
device (`Renderer.append`), shaders of ``shaders/render/`` count them, and a render pass draws ring,
potentials and counts (`Renderer.draw`). What the host reads is one pair of numbers for each population,
for the scale of the rates and for the texts (`Renderer.summary`).

wgpu itself is not imported here: everything is made by the device of `scgpu._gpu`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _wgsl
from scgpu._gpu import GpuBackend, GpuBuffer, GpuSubmission
from scgpu._panels import BACKGROUND, PALETTE, Panels, Rect
from scgpu.errors import TooLargeError

# Parameters of every entry point, in order; one block of immediates.
PARAMS = {
    **dict.fromkeys(("left", "top", "width", "height", "red", "green", "blue"), "f32"),
    **dict.fromkeys(("rest", "threshold", "rate_scale", "tick_pixels", "line_pixels"), "f32"),
    **dict.fromkeys(("first", "count", "total", "population", "step", "ring_blocks"), "u32"),
    **dict.fromkeys(("steps_shift", "pixels_shift", "smooth_steps"), "u32"),
    **dict.fromkeys(("visible_steps", "recent_steps", "workgroups_per_row", "begin"), "u32"),
    **dict.fromkeys(("slot_count", "first_chosen", "chosen"), "u32"),
    "current": "i32",
}
BIN_COUNT = 64  # of potentials; as many as a workgroup has lanes
HEADER = (
    "struct Params {",
    *(f"    {name}: {kind}," for name, kind in PARAMS.items()),
    "}",
    "var<immediate> params: Params;",
    f"const BIN_COUNT: u32 = {BIN_COUNT}u;",
)
ENTRY_POINTS = {
    "tally": dict.fromkeys(
        ("append", "count_spikes", "accumulate", "bin_potentials", "summarise", "stimulate"), "compute"
    ),
    "window": {
        "corners": "vertex",
        **dict.fromkeys(("raster", "potentials", "backdrop", "rates", "distribution", "labels"), "fragment"),
    },
}

BLOCK_STEPS = 64
LANES = 64  # of a workgroup of tally.wgsl
NEURON_CHUNK = 256  # as there
WORKGROUPS_PER_ROW = 65_535  # what every adapter allows in one dimension
RING_BLOCKS = 1024  # a power of two: 65,536 steps; fewer for networks whose ring would pass RING_BYTES
LEAST_RING_BLOCKS = 4
RING_BYTES = 64 << 20
RECENT_STEPS = 256  # of the rate beside a population's name

# (steps of a column, pixels of a column) by zoom, the closest first; powers of two.
ZOOMS = ((1, 8), (1, 4), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (32, 1))

_CODES = {"f32": "f", "u32": "I", "i32": "i"}
_BLOCK = struct.Struct("<" + "".join(_CODES[kind] for kind in PARAMS.values()))
_VERTEX, _FRAGMENT, _COMPUTE = 1, 2, 4  # shader stage flags
_PICTURE_FORMAT = "rgba8unorm"


@dataclass(frozen=True)
class DrawnPopulation:
    """What is drawn of a population, and where input by hand goes.

    Attributes
    ----------
    name : str
        Stands beside its panels.
    count : int
        Neurons.
    rest, threshold : float
        Potentials: of all neurons, or their means.
    state : GpuBuffer
        Potential and refractory counter of each neuron: pairs of i16.
    inbox : GpuBuffer
        What arrives at each neuron in each of `slot_count` steps: i32, step t in row ``t % slot_count``.
    slot_count : int
        Rows of the inbox.
    kick : int
        A current that brings a neuron from rest over the threshold at once.
    """

    name: str
    count: int
    rest: float
    threshold: float
    state: GpuBuffer
    inbox: GpuBuffer
    slot_count: int
    kick: int


@dataclass(frozen=True)
class View:
    """How a picture shows the network.

    Attributes
    ----------
    panels : Panels
        Where everything lies.
    zoom : int
        Index into `ZOOMS`.
    rate_scale : float
        Share of the neurons that spikes in a step, at the upper edge of the rates.
    """

    panels: Panels
    zoom: int
    rate_scale: float

    @property
    def column(self) -> tuple[int, int]:
        """Steps of a column, and its pixels."""
        steps, pixels = ZOOMS[self.zoom]
        return steps, pixels

    @property
    def smooth_steps(self) -> int:
        """Steps over which rates are averaged: some columns, so that a curve is not noise."""
        steps, _ = self.column
        return 24 * steps

    @property
    def tick_steps(self) -> int:
        """Steps between two lines of the time axis: a round number, wide enough apart for their texts."""
        least = 90 * self.panels.scale * self.steps_per_pixel
        power = int(10.0 ** max(math.floor(math.log10(least)), 0))
        return next(nice * power for nice in (1, 2, 5, 10) if nice * power >= least or nice == 10)

    @property
    def tick_pixels(self) -> float:
        """Pixels between them."""
        return self.tick_steps / self.steps_per_pixel

    @property
    def steps_per_pixel(self) -> float:
        """Steps that a pixel stands for."""
        steps, pixels = self.column
        return steps / pixels


class Renderer:
    """Rings, counts and pipelines that draw one network.

    Parameters
    ----------
    backend : GpuBackend
        Where the network runs.
    populations : sequence of DrawnPopulation
        What is drawn.

    Raises
    ------
    TooLargeError
        When the adapter cannot bind the spikes of `LEAST_RING_BLOCKS` times 64 steps.
    GpuError
        When the adapter refuses a shader or a buffer.
    """

    def __init__(self, backend: GpuBackend, populations: Sequence[DrawnPopulation]) -> None:
        self._backend = backend
        self._device = backend.wgpu_device
        self._populations = tuple(populations)
        self._words: Sequence[GpuBuffer] = [backend.empty("u64", one.count) for one in populations]
        self._step = 0
        self._firsts = np.cumsum([0, *(one.count for one in self._populations)]).tolist()
        self._total: int = self._firsts[-1]
        self._ring_blocks = self._fitting_blocks()
        many = len(self._populations)
        self._history = backend.empty("u64", self._ring_blocks * self._total)
        self._totals = backend.empty("u32", many * self._ring_blocks * BLOCK_STEPS)
        self._fresh = backend.empty("u32", many * BLOCK_STEPS)
        self._bins = backend.empty("u32", many * BIN_COUNT)
        self._summary = backend.empty("u32", 2 * many)
        self._bound: dict[Any, Any] = {}
        self._texts: Any = None
        self._formats: dict[str, dict[str, Any]] = {}
        with backend.translated("drawing"):
            self._make_tally()
            self._make_window_layout()
            encoder = self._device.create_command_encoder()
            for buffer in (self._history, self._totals, self._summary):
                encoder.clear_buffer(buffer.raw)
            self._submit(encoder)

    @property
    def visible_steps(self) -> int:
        """Steps that the rings hold for pictures."""
        return (self._ring_blocks - 1) * BLOCK_STEPS

    @property
    def _recent_steps(self) -> int:
        return min(RECENT_STEPS, self.visible_steps)

    def _fitting_blocks(self) -> int:
        block = 8 * self._total
        most = min(max(RING_BYTES, LEAST_RING_BLOCKS * block), self._backend.largest_buffer) // block
        if most < LEAST_RING_BLOCKS:
            raise TooLargeError(
                f"drawing keeps {LEAST_RING_BLOCKS} blocks of 64 steps of all neurons, {LEAST_RING_BLOCKS * block:,} "
                f"bytes for {self._total:,} of them, and {self._backend.device} binds {self._backend.largest_buffer:,}"
            )
        largest: int = min(most, RING_BLOCKS)
        return 1 << largest.bit_length() - 1

    def _make_tally(self) -> None:
        entries = [
            {
                "binding": index,
                "visibility": _COMPUTE,
                "buffer": {"type": "read-only-storage" if index < 2 else "storage"},
            }
            for index in range(8)
        ]
        self._tally_layout = self._device.create_bind_group_layout(entries=entries)
        layout = self._device.create_pipeline_layout(
            bind_group_layouts=[self._tally_layout], immediate_size=_BLOCK.size
        )
        module = self._module("tally")
        self._counting = {
            name: self._device.create_compute_pipeline(layout=layout, compute={"module": module, "entry_point": name})
            for name in ENTRY_POINTS["tally"]
        }

    def _make_window_layout(self) -> None:
        entries: list[dict[str, Any]] = [
            {"binding": index, "visibility": _FRAGMENT, "buffer": {"type": "read-only-storage"}} for index in range(4)
        ]
        entries.append({"binding": 4, "visibility": _FRAGMENT, "texture": {"sample_type": "unfilterable-float"}})
        self._window_layout = self._device.create_bind_group_layout(entries=entries)
        self._window_module = self._module("window")

    def _module(self, name: str) -> Any:
        return self._device.create_shader_module(code=_wgsl.render_source(name, HEADER).text, label=name)

    def _drawing(self, target_format: str) -> dict[str, Any]:
        """The render pipelines for a format of textures, by fragment entry point."""
        if target_format not in self._formats:
            layout = self._device.create_pipeline_layout(
                bind_group_layouts=[self._window_layout], immediate_size=_BLOCK.size
            )
            # Colours come multiplied by their opacity.
            part = {"src_factor": "one", "dst_factor": "one-minus-src-alpha", "operation": "add"}
            target = {"format": target_format, "blend": {"color": part, "alpha": part}}
            self._formats[target_format] = {
                name: self._device.create_render_pipeline(
                    layout=layout,
                    vertex={"module": self._window_module, "entry_point": "corners"},
                    fragment={"module": self._window_module, "entry_point": name, "targets": [target]},
                    primitive={"topology": "triangle-list"},
                )
                for name, stage in ENTRY_POINTS["window"].items()
                if stage == "fragment"
            }
        return self._formats[target_format]

    def _submit(self, encoder: Any) -> None:
        self._device.queue.submit([encoder.finish()])

    def _seen(self, view: View) -> dict[str, float]:
        """The parameters that are a view's."""
        steps, pixels = view.column
        visible = min(view.panels.rates.width * steps // pixels, self.visible_steps - view.smooth_steps)
        return {
            "rate_scale": view.rate_scale,
            "line_pixels": max(view.panels.scale, 0.75),
            "steps_shift": steps.bit_length() - 1,
            "pixels_shift": pixels.bit_length() - 1,
            "smooth_steps": view.smooth_steps,
            "visible_steps": max(visible, 0),
        }

    def _params(self, index: int, **more: float) -> bytes:
        """The immediates for a population; what is not given and not the population's is 0."""
        population = self._populations[index]
        values: dict[str, float] = dict.fromkeys(PARAMS, 0)
        values.update(
            zip(("red", "green", "blue"), (part / 255 for part in PALETTE[index % len(PALETTE)]), strict=True),
            rest=population.rest,
            threshold=population.threshold,
            first=self._firsts[index],
            count=population.count,
            total=self._total,
            population=index,
            step=self._step,
            ring_blocks=self._ring_blocks,
            recent_steps=self._recent_steps,
        )
        values.update(more)
        return _BLOCK.pack(*values.values())

    def _group(self, layout: Any, index: int, resources: Sequence[Any]) -> Any:
        """The bind group of a population, made anew when one of its buffers is another one."""
        key = (id(layout), index)
        known = self._bound.get(key)
        if known is None or known[0] != resources:
            entries = [{"binding": place, "resource": resource} for place, resource in enumerate(resources)]
            known = self._bound[key] = (resources, self._device.create_bind_group(layout=layout, entries=entries))
        return known[1]

    def _tally_group(self, index: int) -> Any:
        population = self._populations[index]
        own = (self._history, self._totals, self._bins, self._fresh, self._summary)
        buffers = (self._words[index], population.state, *own, population.inbox)
        return self._group(self._tally_layout, index, [{"buffer": buffer.raw} for buffer in buffers])

    def _count(self, compute_pass: Any, name: str, index: int, workgroups: int, **more: float) -> None:
        """Dispatch one of the entry points of tally.wgsl for a population."""
        x = min(workgroups, WORKGROUPS_PER_ROW)
        params = self._params(index, workgroups_per_row=x, **more)
        compute_pass.set_pipeline(self._counting[name])
        compute_pass.set_bind_group(0, self._tally_group(index))
        compute_pass.set_immediates(0, params, 0, len(params))
        compute_pass.dispatch_workgroups(x, -(-workgroups // x), 1)

    def append(self, words: Sequence[GpuBuffer], begin: int, end: int) -> None:
        """Take in the spikes of steps ``begin`` to ``end``, which lie in one block of 64.

        ``words`` has a buffer for each population, a word for each neuron; bit t % 64 is step t. Other bits
        than those of these steps do not matter.
        """
        self._words, self._step = words, end
        with self._backend.translated("drawing"):
            encoder = self._device.create_command_encoder()
            encoder.clear_buffer(self._fresh.raw)
            compute_pass = encoder.begin_compute_pass()
            for index, population in enumerate(self._populations):
                self._count(compute_pass, "append", index, -(-population.count // LANES), begin=begin)
                self._count(compute_pass, "count_spikes", index, -(-population.count // NEURON_CHUNK))
                self._count(compute_pass, "accumulate", index, 1)
            compute_pass.end()
            self._submit(encoder)

    def start_from(self, step: int) -> None:
        """Say at which step the first picture is, where the network did not start from 0."""
        self._step = step

    def stimulate(self, index: int, first: int, chosen: int) -> None:
        """Kick some neurons of a population, ``first`` and those that follow, in the step that is run next."""
        population = self._populations[index]
        with self._backend.translated("input by hand"):
            encoder = self._device.create_command_encoder()
            compute_pass = encoder.begin_compute_pass()
            self._count(
                compute_pass,
                "stimulate",
                index,
                -(-chosen // LANES),
                slot_count=population.slot_count,
                first_chosen=first,
                chosen=chosen,
                current=population.kick,
            )
            compute_pass.end()
            self._submit(encoder)

    def summary(self, view: View) -> GpuSubmission:
        """Ask for two numbers of each population; the result comes when the device is done with all so far.

        Returns
        -------
        GpuSubmission
            Of one array: for each population the most spikes in `View.smooth_steps` successive steps
            that the picture shows, and the spikes of the last `recent_steps` steps.
        """
        with self._backend.translated("drawing"):
            encoder = self._device.create_command_encoder()
            compute_pass = encoder.begin_compute_pass()
            for index in range(len(self._populations)):
                self._count(compute_pass, "summarise", index, 1, **self._seen(view))
            compute_pass.end()
            self._submit(encoder)
        return self._backend.submit([], [self._summary])

    @property
    def recent_steps(self) -> int:
        """Steps that the second number of `summary` counts."""
        return min(self._recent_steps, self._step)

    def write_texts(self, layer: NDArray[np.uint8]) -> None:
        """Use a layer of texts (height, width, 4) in the pictures that follow."""
        height, width, _ = layer.shape
        with self._backend.translated("drawing"):
            if self._texts is None or self._texts.size != (width, height, 1):
                self._texts = self._device.create_texture(
                    size=(width, height, 1), format="rgba8unorm", usage="TEXTURE_BINDING|COPY_DST"
                )
                self._texts_view = self._texts.create_view()
            self._device.queue.write_texture(
                {"texture": self._texts},
                np.ascontiguousarray(layer),
                {"bytes_per_row": 4 * width, "rows_per_image": height},
                (width, height, 1),
            )

    def _cleared(self, encoder: Any, target: Any) -> Any:
        """A render pass onto an empty ground."""
        ground = tuple(part / 255 for part in BACKGROUND)
        attachment = {"load_op": "clear", "store_op": "store", "clear_value": (*ground, 1.0)}
        return encoder.begin_render_pass(color_attachments=[{"view": target.create_view(), **attachment}])

    def clear(self, target: Any) -> None:
        """Draw the ground alone into a texture of any size."""
        with self._backend.translated("drawing"):
            encoder = self._device.create_command_encoder()
            self._cleared(encoder, target).end()
            self._submit(encoder)

    def draw(self, target: Any, target_format: str, view: View) -> None:
        """Draw into a texture of the size of the view's panels, for which there is a layer of texts."""
        panels = view.panels
        with self._backend.translated("drawing"):
            pipelines = self._drawing(target_format)
            encoder = self._device.create_command_encoder()
            self._count_potentials(encoder)
            seen = self._seen(view)
            render_pass = self._cleared(encoder, target)

            def fill(name: str, index: int, rect: Rect, **more: float) -> None:
                render_pass.set_pipeline(pipelines[name])
                render_pass.set_bind_group(0, self._window_group(index))
                params = self._params(index, **seen, **rect._asdict(), **more)
                render_pass.set_immediates(0, params, 0, len(params))
                render_pass.set_viewport(*rect, 0.0, 1.0)
                render_pass.set_scissor_rect(*rect)
                render_pass.draw(3)

            fill("backdrop", 0, panels.rates, tick_pixels=view.tick_pixels)
            for index in range(len(self._populations)):
                fill("raster", index, panels.rasters[index])
                fill("potentials", index, panels.cells[index])
                fill("rates", index, panels.rates)
                fill("backdrop", index, panels.distributions[index])
                fill("distribution", index, panels.distributions[index])
            fill("labels", 0, Rect(0, 0, panels.width, panels.height))
            render_pass.end()
            self._submit(encoder)

    def _window_group(self, index: int) -> Any:
        buffers = (self._history, self._populations[index].state, self._totals, self._bins)
        resources = [*({"buffer": buffer.raw} for buffer in buffers), self._texts_view]
        return self._group(self._window_layout, index, resources)

    def _count_potentials(self, encoder: Any) -> None:
        encoder.clear_buffer(self._bins.raw)
        compute_pass = encoder.begin_compute_pass()
        for index, population in enumerate(self._populations):
            self._count(compute_pass, "bin_potentials", index, -(-population.count // LANES))
        compute_pass.end()

    def picture(self, view: View) -> NDArray[np.uint8]:
        """Draw aside, and read the picture back: uint8, shape (height, width, 3)."""
        width, height = view.panels.width, view.panels.height
        with self._backend.translated("drawing"):
            texture = self._device.create_texture(
                size=(width, height, 1), format=_PICTURE_FORMAT, usage="RENDER_ATTACHMENT|COPY_SRC"
            )
            self.draw(texture, _PICTURE_FORMAT, view)
            content = self._device.queue.read_texture(
                {"texture": texture}, {"bytes_per_row": 4 * width, "rows_per_image": height}, (width, height, 1)
            )
            pixels = np.frombuffer(content, np.uint8).reshape(height, width, 4)[..., :3].copy()
            texture.destroy()
        return pixels
