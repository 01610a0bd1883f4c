"""Exceptions of scgpu. Bad arguments raise plain `ValueError` and `TypeError`."""

from __future__ import annotations

from typing import Any


class ScgpuError(Exception):
    """Base of the errors that are scgpu's own."""


class DeviceError(ScgpuError, ValueError):
    """A device selector, ``SC_GPU_ADAPTER`` or ``SCGPU_SIMD_TIER`` matches nothing usable."""


class TooLargeError(ScgpuError, ValueError, MemoryError):
    """A request needs more memory, or a larger count, than the device can hold."""


class NativeLibraryError(ScgpuError, ImportError):
    """The native library is missing, stale, or refused a call."""


class GpuError(ScgpuError, RuntimeError):
    """A GPU adapter failed while it worked."""


class DeviceLostError(GpuError):
    """A device went away: lost, destroyed, hung past the timeout, or the process that held it died."""


class DeviceMemoryError(TooLargeError, GpuError):
    """A GPU had no memory left for something within its limits."""


class DeviceLossWarning(RuntimeWarning):
    """A GPU went away or had no memory left, and what ran on it goes on elsewhere, with the same bits."""


class SweepError(ScgpuError, RuntimeError):
    """The function of a sweep raised an exception, its ``__cause__``.

    Attributes
    ----------
    point : dict
        The parameters for which it did.
    results : list
        What the function returned for the points before.
    """

    def __init__(self, message: str, *, point: dict[str, Any], results: list[Any]) -> None:
        super().__init__(message)
        self.point = point
        self.results = results


class CheckpointWarning(RuntimeWarning):
    """A checkpoint could not be written; the work goes on, and what was kept before is still there."""
