"""What wgpu finds wrong is an exception at the call that caused it: nothing is printed, nothing aborts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import _abi, _gpu, _wgsl
from scgpu._gpu_raw import Copy, NativeError, Readback
from scgpu.backend import Step
from scgpu.devices import backend_of

WORDS = np.arange(1, 5, dtype=np.uint64).reshape(4, 1)


def count(backend: Any) -> Any:
    return scgpu.popcount(WORDS, device=backend.device)


def staging(backend: Any) -> Any:
    """A staging buffer that the pool does not get back."""
    taken = backend._staging.take(256)
    backend._staging.forget(taken)
    return taken


def mapped(backend: Any) -> Readback:
    taken = staging(backend)
    backend._queue.submit(backend._queue.record([], [Copy(backend.empty("u32", 64).raw, taken, 0, 256)]))
    mapping: Readback = backend._queue.map(taken, 256)
    backend._queue.wait(mapping)
    return mapping


def large_buffer(backend: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "require", lambda nbytes: None)
    patch.setattr(backend._storage, "_largest", 1 << 60)
    backend.empty("u64", 1 << 47)


def shader_without_its_function(backend: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "_pipelines", {})
    text = _wgsl.source("count").text.replace("fn count(", "fn coont(")
    patch.setattr(_wgsl, "source", lambda name, files=(): _wgsl.Source(text, ()))
    count(backend)


def shader_of_no_language(backend: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "_pipelines", {})
    patch.setattr(_wgsl, "source", lambda name, files=(): _wgsl.Source("fn count(", (("count.wgsl", 7),)))
    count(backend)


def constants_of_another_shader(backend: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "_pipelines", {})
    patch.setattr(_abi.Op, "overrides", lambda self, variant, params: {"no_such_constant": 1})
    count(backend)


def bind_group_of_another_usage(backend: Any, patch: pytest.MonkeyPatch) -> None:
    words = backend.upload(WORDS)
    patch.setattr(words, "raw", staging(backend))  # undone before the pool gets it back
    params = {"stream_count": 4, "word_count": 1, "segment_words": 1, "segment_count": 1}
    try:
        backend.execute([Step("count", params, (words, backend.empty("u32", 4)))])
    finally:
        patch.undo()


def too_many_workgroups(backend: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "_grid", lambda workgroups: (1 << 20, 1, 1))
    count(backend)


def too_many_parameters(backend: Any, patch: pytest.MonkeyPatch) -> None:
    block = _gpu._block
    patch.setattr(_gpu, "_block", lambda op, params: block(op, params) + bytes(64))
    count(backend)


def write_past_the_end(backend: Any, patch: pytest.MonkeyPatch) -> None:
    backend._queue.write(backend.empty("u32", 64).raw, np.zeros(1 << 16, np.uint8))


def write_of_three_bytes(backend: Any, patch: pytest.MonkeyPatch) -> None:
    backend._queue.write(backend.empty("u32", 64).raw, np.zeros(3, np.uint8))


def write_to_a_destroyed_buffer(backend: Any, patch: pytest.MonkeyPatch) -> None:
    taken = staging(backend)
    taken.destroy()
    backend._queue.write(taken, np.zeros(4, np.uint8))


def write_to_a_mapped_buffer(backend: Any, patch: pytest.MonkeyPatch) -> None:
    backend._queue.write(mapped(backend).buffer, np.zeros(4, np.uint8))


def copy_past_the_end(backend: Any, patch: pytest.MonkeyPatch) -> None:
    past = Copy(backend.empty("u32", 64).raw, staging(backend), 0, 1 << 20)
    backend._queue.submit(backend._queue.record([], [past]))


def copy_to_a_mapped_buffer(backend: Any, patch: pytest.MonkeyPatch) -> None:  # wgpu-native would abort at its submit
    backend._queue.record([], [Copy(backend.empty("u32", 64).raw, mapped(backend).buffer, 0, 256)])


def map_twice(backend: Any, patch: pytest.MonkeyPatch) -> None:
    backend._queue.map(mapped(backend).buffer, 256)


def map_past_the_end(backend: Any, patch: pytest.MonkeyPatch) -> None:
    backend._queue.map(staging(backend), 1 << 20)


def map_a_destroyed_buffer(backend: Any, patch: pytest.MonkeyPatch) -> None:
    taken = staging(backend)
    taken.destroy()
    backend._queue.map(taken, 256)


def read_what_is_not_mapped(backend: Any, patch: pytest.MonkeyPatch) -> None:  # wgpu-native would abort
    mapping = mapped(backend)
    backend._queue.unmap(mapping)
    backend._queue.read(mapping)


def unmap_twice(backend: Any, patch: pytest.MonkeyPatch) -> None:
    mapping = mapped(backend)
    backend._queue.unmap(mapping)
    backend._queue.unmap(mapping)


CASES: list[tuple[Callable[[Any, pytest.MonkeyPatch], None], str]] = [
    (large_buffer, "greater than the maximum buffer size"),
    (shader_without_its_function, "shader count: "),
    (shader_of_no_language, r"shader count: (.|\n)*count\.wgsl:7"),
    (constants_of_another_shader, "shader count: "),
    (bind_group_of_another_usage, "run on .*: (.|\n)*wgpuDeviceCreateBindGroup"),
    (too_many_workgroups, "run on .*: (.|\n)*1048576"),
    (too_many_parameters, "run on .*: (.|\n)*set_immediates"),
    (write_past_the_end, "overrunning the bounds"),
    (write_of_three_bytes, "COPY_BUFFER_ALIGNMENT"),
    (write_to_a_destroyed_buffer, "has been destroyed"),
    (write_to_a_mapped_buffer, "expected to be unmapped"),
    (copy_past_the_end, "overrunning the bounds"),
    (copy_to_a_mapped_buffer, "a staging buffer is mapped"),
    (map_twice, "map"),
    (map_past_the_end, "out-of-bounds"),
    (map_a_destroyed_buffer, "has been destroyed"),
    (read_what_is_not_mapped, "Could not map buffer"),
    (unmap_twice, "not mapped"),
]


@pytest.mark.parametrize(("cause", "message"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_each_error_is_an_exception_at_its_call(
    cause: Callable[[Any, pytest.MonkeyPatch], None],
    message: str,
    gpu: scgpu.Device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    backend = backend_of(replace(gpu, on_device_loss="raise"))
    expected = count(backend)  # what is wrong has nothing to do with the first use of the device
    with caplog.at_level(logging.DEBUG, logger="wgpu"), pytest.raises((scgpu.GpuError, NativeError), match=message):
        cause(backend, monkeypatch)
    monkeypatch.undo()
    with caplog.at_level(logging.DEBUG, logger="wgpu"):
        assert np.array_equal(count(backend), expected)  # and the device goes on
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")
