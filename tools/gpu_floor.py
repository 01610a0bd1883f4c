"""Measure what a small call on a GPU costs beyond what wgpu-native itself takes.

Three things run in turns, in one process, and each line gives medians and the quickest in microseconds:

* floor: upload 4 KB, three dispatches of a kernel that does next to nothing, read 4 KB back, every
  call made directly to wgpu-native, with buffers, bind groups and staging kept;
* kernels: the same with the uploads, dispatches and readback of the layer below: what its kernels
  take on top of the floor, and what no Python around them can save;
* forward: `DenseLayer(*SIZE).forward` of one sample, for a small layer and one of 32,768 words;
* stream: the same for each of 32 samples through `submit`, which overlap.

Usage: python tools/gpu_floor.py [--device NAME ...] [--seconds S] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from wgpu.backends.wgpu_native import ffi, lib

import scgpu
from scgpu._gpu import GpuBackend, GpuProgram
from scgpu._gpu_raw import Dispatch
from scgpu.backend import check_step
from scgpu.devices import backend_of

BYTES = 4096
STREAM = 32
SIZES = ((16, 8, 256), (64, 32, 1024))
TRIVIAL = """
var<immediate> last: u32;
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> target_: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x <= last { target_[id.x] = source[id.x] + 1u; }
}
"""

Work = Callable[[], Any]
_done: list[int] = []


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _mapped(status: int, message: Any, first: Any, second: Any) -> None:
    _done.append(status)


class Replay:
    """One upload, some dispatches and one readback, straight through the library."""

    def __init__(self, device: Any, dispatches: Sequence[Dispatch], source: Any, target: Any, nbytes: int) -> None:
        self._kept = device, dispatches, source, target
        self._device, self._queue = device._internal, device.queue._internal
        self._dispatches = [
            (d.pipeline._internal, d.bind_group._internal, ffi.from_buffer(d.immediates), len(d.immediates), d.grid)
            for d in dispatches
        ]
        self._source, self._target, self._nbytes = source._internal, target._internal, nbytes
        self._staging_object = device.create_buffer(size=nbytes, usage="MAP_READ|COPY_DST")
        self._staging = self._staging_object._internal
        self._encoder = ffi.new("WGPUCommandEncoderDescriptor *")
        self._pass = ffi.new("WGPUComputePassDescriptor *")
        self._finish = ffi.new("WGPUCommandBufferDescriptor *")
        self._commands = ffi.new("WGPUCommandBuffer[1]")
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")
        self._info.mode = lib.WGPUCallbackMode_AllowProcessEvents
        self._info.callback = _mapped

    def __call__(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Upload the array, run, and return the bytes read."""
        nbytes = self._nbytes
        lib.wgpuQueueWriteBuffer(self._queue, self._source, 0, ffi.from_buffer(array), array.nbytes)
        encoder = lib.wgpuDeviceCreateCommandEncoder(self._device, self._encoder)
        compute_pass = lib.wgpuCommandEncoderBeginComputePass(encoder, self._pass)
        for pipeline, group, block, size, grid in self._dispatches:
            lib.wgpuComputePassEncoderSetPipeline(compute_pass, pipeline)
            lib.wgpuComputePassEncoderSetBindGroup(compute_pass, 0, group, 0, ffi.NULL)
            lib.wgpuComputePassEncoderSetImmediates(compute_pass, 0, block, size)
            lib.wgpuComputePassEncoderDispatchWorkgroups(compute_pass, *grid)
        lib.wgpuComputePassEncoderEnd(compute_pass)
        lib.wgpuComputePassEncoderRelease(compute_pass)
        lib.wgpuCommandEncoderCopyBufferToBuffer(encoder, self._target, 0, self._staging, 0, nbytes)
        self._commands[0] = lib.wgpuCommandEncoderFinish(encoder, self._finish)
        lib.wgpuQueueSubmit(self._queue, 1, self._commands)
        lib.wgpuCommandBufferRelease(self._commands[0])
        lib.wgpuCommandEncoderRelease(encoder)
        _done.clear()
        lib.wgpuBufferMapAsync(self._staging, lib.WGPUMapMode_Read, 0, nbytes, self._info[0])
        while not _done:
            lib.wgpuDevicePoll(self._device, False, ffi.NULL)
        out = np.empty(nbytes, np.uint8)
        ffi.memmove(ffi.from_buffer(out), lib.wgpuBufferGetMappedRange(self._staging, 0, nbytes), nbytes)
        lib.wgpuBufferUnmap(self._staging)
        return out


def floor_of(device: Any) -> Work:
    """The floor on a wgpu device."""
    layout = device.create_bind_group_layout(
        entries=[
            {"binding": index, "visibility": 4, "buffer": {"type": kind}}
            for index, kind in enumerate(("read-only-storage", "storage"))
        ]
    )
    pipeline = device.create_compute_pipeline(
        layout=device.create_pipeline_layout(bind_group_layouts=[layout], immediate_size=4),
        compute={"module": device.create_shader_module(code=TRIVIAL), "entry_point": "main"},
    )
    buffers = [device.create_buffer(size=BYTES, usage="STORAGE|COPY_SRC|COPY_DST") for _ in range(4)]
    dispatches = [
        Dispatch(
            pipeline,
            device.create_bind_group(
                layout=layout,
                entries=[{"binding": k, "resource": {"buffer": buffer}} for k, buffer in enumerate(pair)],
            ),
            np.uint32(BYTES // 4 - 1).tobytes(),
            (BYTES // 256, 1, 1),
        )
        for pair in zip(buffers, buffers[1:], strict=False)
    ]
    replay = Replay(device, dispatches, buffers[0], buffers[3], BYTES)
    numbers = np.arange(BYTES // 4, dtype=np.uint32)
    assert np.array_equal(replay(numbers).view(np.uint32), numbers + 3)
    return lambda: replay(numbers)


def kernels_of(backend: GpuBackend, layer: scgpu.DenseLayer, x: np.ndarray[Any, Any]) -> Work:
    """What ``forward`` of such a layer uploads, dispatches and reads, without the Python around it."""
    # Made again on the device alone: what survives its loss would hide the handles.
    alone = scgpu.device(layer.device, on_device_loss="raise")
    layer = scgpu.DenseLayer(layer.n_inputs, layer.n_neurons, layer.length, device=alone)
    expected = layer.counts(x, seed=0)  # with which a plan is made
    ((plan,),) = layer.plans._idle.values()
    program = plan.program
    assert isinstance(program, GpuProgram)
    steps, (counts,) = program._steps, program._read
    (numbers,) = backend.execute([], [plan.source])
    dispatches = [backend._dispatch(check_step(step), step) for step in steps]
    replay = Replay(backend._gpu, dispatches, plan.source.raw, counts.raw, 4 * layer.n_neurons)
    assert np.array_equal(replay(numbers).view(np.uint32), expected)
    return lambda: replay(numbers) if steps else None  # the steps keep the buffers


def stream_of(layer: scgpu.DenseLayer, x: np.ndarray[Any, Any]) -> Work:
    """One sample after the other through `submit`; waits for all at every 32nd call."""
    pending: list[scgpu.Pending] = []

    def work() -> None:
        pending.append(layer.submit(x))
        if len(pending) == STREAM:
            for outputs in pending:
                outputs.result()
            pending.clear()

    return work


def measured(works: dict[str, Work], seconds: float) -> dict[str, tuple[float, float]]:
    """Median and least microseconds of each piece of work, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, work in works.items():
            if name == "stream":
                start = time.perf_counter()
                for _ in range(STREAM):
                    work()
                times[name].append((time.perf_counter() - start) / STREAM)
                continue
            for _ in range(10):  # a block: the first call after another work meets cold caches
                start = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - start)
    return {name: (1e6 * statistics.median(taken), 1e6 * min(taken)) for name, taken in times.items()}


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", action="append", help="measure this adapter; may be repeated (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each adapter and layer (default 4)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    chosen = [scgpu.device(name) for name in options.device or ()] or [d for d in scgpu.devices() if d.kind == "gpu"]
    figures = {}
    for device in chosen:
        backend = backend_of(device)
        if not isinstance(backend, GpuBackend):
            raise SystemExit(f"{device} is no GPU adapter")
        for size in SIZES:
            layer = scgpu.DenseLayer(*size, device=device)
            x = np.random.default_rng(0).random(layer.n_inputs)
            works: dict[str, Work] = {
                "floor": floor_of(backend._gpu),
                "kernels": kernels_of(backend, layer, x),
                "forward": partial(layer.forward, x),
                "stream": stream_of(layer, x),
            }
            name_of_layer = f"{device}, layer {size[0]}x{size[1]}, L = {size[2]}"
            figures[name_of_layer] = found = measured(works, options.seconds)
            print(name_of_layer)
            for name, (median, least) in found.items():
                share = f"{median / found['floor'][0]:5.2f} x floor {median / found['kernels'][0]:5.2f} x kernels"
                print(f"  {name:8} {median:7.1f} ({least:7.1f})  {share}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
