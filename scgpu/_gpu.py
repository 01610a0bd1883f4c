"""The GPU backend: the only module that imports wgpu.

One `GpuBackend` per adapter, made at its first use, shared by every thread of the
process. It keeps pipelines, bind groups, storage buffers and staging buffers for the
next call. Parameters travel as immediates: lavapipe compiles a kernel anew at every
dispatch when they are uniforms.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi, _wgsl
from scgpu.backend import DTYPES, Device, Step, check_step, require_host_memory
from scgpu.errors import GpuError, TooLargeError

REQUIRED_FEATURE = "immediates"
POOL_BYTES = 256 << 20  # idle buffers kept for the next call
BIND_GROUPS = 256

_STORAGE = "STORAGE|COPY_SRC|COPY_DST"
_COMPUTE = 4  # shader stage flag


@cache
def _wgpu() -> Any:
    import wgpu

    return wgpu


@contextmanager
def _quiet_egl() -> Iterator[None]:
    """Mesa's EGL complains on stderr, and works, where no XDG_RUNTIME_DIR is set."""
    if sys.platform != "linux" or "XDG_RUNTIME_DIR" in os.environ:
        yield
        return
    os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    try:
        yield
    finally:
        os.environ.pop("XDG_RUNTIME_DIR", None)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn wgpu's errors into ours."""
    wgpu = _wgpu()
    try:
        yield
    except (wgpu.GPUError, RuntimeError) as error:
        if isinstance(error, GpuError):  # translated already, nearer to its cause
            raise
        if isinstance(error, wgpu.GPUOutOfMemoryError) or "Not enough memory left" in str(error):
            raise TooLargeError(f"{what}: the adapter has no memory left; use a smaller batch or layer") from error
        raise GpuError(f"{what}: {error}") from error


def adapters() -> list[Any]:
    """Every adapter of this machine, Vulkan, Metal and DX12 before OpenGL.

    Raises
    ------
    GpuError
        When wgpu cannot be imported, or its search for adapters fails.
    """
    try:
        with _quiet_egl():
            return sorted(_wgpu().gpu.enumerate_adapters_sync(), key=lambda a: a.info["backend_type"] == "OpenGL")
    except Exception as error:  # a broken native library raises anything
        raise GpuError(f"wgpu does not start ({type(error).__name__}: {error}); run: pip install wgpu") from error


def versions() -> dict[str, str]:
    """Versions of wgpu and of the wgpu-native inside."""
    native = importlib.import_module("wgpu.backends.wgpu_native")
    return {"wgpu": _wgpu().__version__, "wgpu-native": native.__version__}


class GpuBuffer:
    """A typed part of a pooled storage buffer; the memory returns to the pool with the object."""

    def __init__(self, backend: GpuBackend, raw: Any, dtype: str, size: int) -> None:
        self.raw = raw
        self.size = size
        self.dtype = DTYPES[dtype]
        self._backend = backend

    def __del__(self) -> None:
        # May run inside any call of any thread: only an atomic append is allowed here.
        self._backend._released.append(self.raw)


class _Pool:
    """wgpu buffers of one usage, the idle ones by capacity."""

    def __init__(self, device: Any, usage: str, largest: int) -> None:
        self._device = device
        self._usage = usage
        self._largest = largest & ~3
        # Every buffer is held here until it is destroyed. Were a buffer in use held by its GpuBuffer
        # alone, the garbage collector could finalise both in one cycle, and the pool would be
        # given a released buffer, at whose next use wgpu-native aborts.
        self._owned: set[Any] = set()
        self._idle: dict[int, list[Any]] = {}
        self._idle_bytes = 0

    def capacity(self, nbytes: int) -> int:
        """Powers of two up to 1 MiB, whole MiB above: few sizes, little waste."""
        if nbytes <= 1 << 20:
            return 1 << max(8, (nbytes - 1).bit_length())
        return min(-(-nbytes // (1 << 20)) << 20, self._largest)

    def take(self, nbytes: int) -> Any:
        capacity = self.capacity(nbytes)
        idle = self._idle.get(capacity)
        if idle:
            self._idle_bytes -= capacity
            return idle.pop()
        raw = self._device.create_buffer(size=capacity, usage=self._usage)
        self._owned.add(raw)
        return raw

    def give(self, raw: Any) -> bool:
        """Keep the buffer for later, or destroy it and return False when enough are kept."""
        if self._idle_bytes + raw.size > POOL_BYTES:
            self.forget(raw)
            raw.destroy()
            return False
        self._idle.setdefault(raw.size, []).append(raw)
        self._idle_bytes += raw.size
        return True

    def forget(self, raw: Any) -> None:
        """Give up a buffer that must not be used again."""
        self._owned.discard(raw)


class _Pipeline:
    """The compiled variants of one operation, with the layout that they share."""

    def __init__(self, device: Any, op: _abi.Op) -> None:
        self._device = device
        self._op = op
        self._source = _wgsl.source(op.name)
        self._module: Any = None
        self._variants: dict[int, Any] = {}
        self.bind_group_layout = device.create_bind_group_layout(
            entries=[
                {
                    "binding": index,
                    "visibility": _COMPUTE,
                    "buffer": {"type": "read-only-storage" if buffer.access == "in" else "storage"},
                }
                for index, buffer in enumerate(op.buffers)
            ]
        )
        self._layout = device.create_pipeline_layout(
            bind_group_layouts=[self.bind_group_layout], immediate_size=4 * len(op.params)
        )

    def variant(self, index: int) -> Any:
        if index not in self._variants:
            try:
                if self._module is None:
                    self._module = self._device.create_shader_module(code=self._source.text, label=self._op.name)
                self._variants[index] = self._device.create_compute_pipeline(
                    layout=self._layout,
                    compute={
                        "module": self._module,
                        "entry_point": self._op.name,
                        "constants": self._op.variants[index],
                    },
                )
            except _wgpu().GPUError as error:
                raise GpuError(f"shader {self._op.name}: {self._source.locate(str(error))}") from error
        return self._variants[index]


class GpuBackend:
    """Runs steps on one adapter. Every call is one submission, its readback included."""

    def __init__(self, device: Device, adapter: Any) -> None:
        self.device = device
        with _quiet_egl(), _translated(f"start of {device}"):
            # Without required_limits wgpu-native gives the adapter's own maxima.
            self._gpu = adapter.request_device_sync(label="scgpu", required_features=[REQUIRED_FEATURE])
        limits = self._gpu.limits
        # Kernels index u32 elements with 32 bits.
        self.largest_buffer = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"], 1 << 34)
        self._workgroups_per_dimension: int = limits["max-compute-workgroups-per-dimension"]
        self._storage = _Pool(self._gpu, _STORAGE, self.largest_buffer)
        self._staging = _Pool(self._gpu, "MAP_READ|COPY_DST", limits["max-buffer-size"])
        self._released: deque[Any] = deque()
        self._pipelines: dict[str, _Pipeline] = {}
        self._bind_groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.RLock()
        self._process = os.getpid()
        self.submissions = 0

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise GpuError(
                "this GPU device belongs to the parent of a forked process; make layers and bitstreams anew "
                "in the child, or start it with multiprocessing's 'spawn'"
            )

    def require(self, nbytes: int) -> None:
        """Refuse a buffer that is larger than the adapter can bind."""
        if nbytes > self.largest_buffer:
            raise TooLargeError(
                f"{nbytes:,} bytes are needed in one buffer and {self.device} allows {self.largest_buffer:,}; "
                "use a smaller batch, length or layer, or device='cpu'"
            )

    def require_total(self, nbytes: int) -> None:
        """Refuse what a software adapter's memory, the host's, cannot hold; a hardware one's is not told."""
        if self.device.software:
            require_host_memory(nbytes)

    def empty(self, dtype: str, size: int) -> GpuBuffer:
        """Make a buffer of unspecified content."""
        self._check_process()
        nbytes = max(size, 1) * DTYPES[dtype].itemsize
        self.require(nbytes)
        with self._lock, _translated("allocation"):
            self._collect()
            return GpuBuffer(self, self._storage.take(nbytes), dtype, size)

    def upload(self, array: NDArray[Any]) -> GpuBuffer:
        """Copy an array into a new buffer."""
        flat = np.ascontiguousarray(array).reshape(-1)
        buffer = self.empty(next(name for name, dtype in DTYPES.items() if dtype == flat.dtype), flat.size)
        octets = flat.view(np.uint8)
        whole = octets.size & ~3  # copies of four bytes are all there are
        with self._lock, _translated("upload"):
            if whole:
                self._gpu.queue.write_buffer(buffer.raw, 0, octets[:whole])
            if whole < octets.size:
                self._gpu.queue.write_buffer(buffer.raw, whole, np.resize(octets[whole:], 4))
        return buffer

    def execute(self, steps: Sequence[Step], read: Sequence[GpuBuffer] = ()) -> list[NDArray[Any]]:
        """Run steps, and read buffers back, in one submission."""
        self._check_process()
        ops = [check_step(step) for step in steps]
        for buffer in (*read, *(buffer for step in steps for buffer in step.buffers)):
            if buffer._backend is not self:
                raise ValueError(f"a buffer of {buffer._backend.device} was given to {self.device}")
        with self._lock, _translated(f"run on {self.device}"):
            self._collect()
            # Whatever can be refused is refused before the recording starts.
            dispatches = [self._dispatch(op, step) for op, step in zip(ops, steps, strict=True)]
            encoder = self._gpu.create_command_encoder()
            if dispatches:
                compute_pass = encoder.begin_compute_pass()
                for pipeline, bind_group, block, grid in dispatches:
                    compute_pass.set_pipeline(pipeline)
                    compute_pass.set_bind_group(0, bind_group)
                    compute_pass.set_immediates(0, block, 0, len(block))
                    compute_pass.dispatch_workgroups(*grid)
                compute_pass.end()
            sizes = [buffer.size * buffer.dtype.itemsize for buffer in read]
            offsets = np.cumsum([0, *(-(-size // 4) * 4 for size in sizes)]).tolist()
            if not offsets[-1]:
                self._submit(encoder)
                return [np.empty(0, buffer.dtype) for buffer in read]
            staging = self._staging.take(offsets[-1])
            try:
                for buffer, begin, end in zip(read, offsets, offsets[1:], strict=False):
                    if end > begin:
                        encoder.copy_buffer_to_buffer(buffer.raw, 0, staging, begin, end - begin)
                self._submit(encoder)
                staging.map_async("READ_NOSYNC", 0, offsets[-1]).sync_wait()
                content = np.frombuffer(staging.read_mapped(0, offsets[-1]), np.uint8)
                staging.unmap()
            except BaseException:
                # An interrupted wait leaves the staging buffer mapped or pending, and
                # wgpu-native aborts when it is submitted again.
                self._staging.forget(staging)
                raise
            self._staging.give(staging)
        return [
            content[begin : begin + size].view(buffer.dtype)
            for buffer, begin, size in zip(read, offsets, sizes, strict=False)
        ]

    def _submit(self, encoder: Any) -> None:
        self._gpu.queue.submit([encoder.finish()])
        self.submissions += 1

    def _dispatch(self, op: _abi.Op, step: Step) -> tuple[Any, Any, bytes, tuple[int, int, int]]:
        """Pipeline, bind group, parameter block and grid of one step."""
        pipeline = self._pipelines.get(op.name)
        if pipeline is None:
            pipeline = self._pipelines[op.name] = _Pipeline(self._gpu, op)
        variant = op.choose(step.params)
        grid = self._grid(op.workgroups(step.params, variant))
        block = struct.pack(f"<{len(op.params)}I", *step.params.values())
        return pipeline.variant(variant), self._bind_group(pipeline, op, step), block, grid

    def _bind_group(self, pipeline: _Pipeline, op: _abi.Op, step: Step) -> Any:
        key = (op.name, *(buffer.raw for buffer in step.buffers))
        group = self._bind_groups.get(key)
        if group is None:
            group = self._gpu.create_bind_group(
                layout=pipeline.bind_group_layout,
                entries=[
                    {"binding": index, "resource": {"buffer": buffer.raw}} for index, buffer in enumerate(step.buffers)
                ],
            )
            self._bind_groups[key] = group
            if len(self._bind_groups) > BIND_GROUPS:
                self._bind_groups.popitem(last=False)
        else:
            self._bind_groups.move_to_end(key)
        return group

    def _grid(self, workgroups: int) -> tuple[int, int, int]:
        """Fold a number of workgroups into three dimensions, each within the adapter's limit."""
        limit = self._workgroups_per_dimension
        x = max(1, min(workgroups, limit))
        y = max(1, min(-(-workgroups // x), limit))
        z = -(-workgroups // (x * y))
        if z > limit:
            raise TooLargeError(
                f"{workgroups:,} workgroups are needed and {self.device} allows {limit:,} in each dimension; "
                "use a smaller batch or layer, or device='cpu'"
            )
        return x, y, z

    def _collect(self) -> None:
        """Return the memory of dropped buffers to the pool."""
        while self._released:
            raw = self._released.popleft()
            if not self._storage.give(raw):
                for key in [key for key in self._bind_groups if raw in key]:
                    del self._bind_groups[key]
