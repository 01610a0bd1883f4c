"""device_choice: what a pickle says of the device of a layer or bitstream, and the device that it means elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from scgpu._cpu import simd_tiers
from scgpu.backend import Device
from scgpu.devices import device, devices, problems
from scgpu.errors import DeviceError


class DeviceChoice(NamedTuple):
    """A device by what it is, not by its place in one machine's list; ``kind`` may be ``"auto"``."""

    kind: Literal["auto", "gpu", "cpu", "numpy"]
    name: str = ""
    backend: str = ""
    tier: str = ""
    isolated: bool = False
    on_device_loss: Literal["failover", "raise"] = "failover"


def choice_of(chosen: Device, automatic: bool = False) -> DeviceChoice:
    """What to remember of a device, or of one that ``"auto"`` took."""
    if automatic:
        return DeviceChoice("auto", on_device_loss=chosen.on_device_loss)
    return DeviceChoice(chosen.kind, chosen.name, chosen.backend, chosen.tier, chosen.isolated, chosen.on_device_loss)


def selector_of(choice: DeviceChoice) -> str | Device:
    """The device of this machine that a choice means: ``"auto"``, the same one, or another of its kind.

    Raises
    ------
    DeviceError
        It was a GPU adapter, and there is none here.
    NativeLibraryError
        It was ``cpu``, and the native library does not load here.
    """
    if choice.kind == "auto":
        return "auto"
    if choice.kind == "numpy":
        return device("numpy")
    if choice.kind == "cpu":
        return device(f"cpu:{choice.tier}" if choice.tier in simd_tiers() else "cpu")
    adapters = [one for one in devices() if one.kind == "gpu"]
    if not adapters:
        raise DeviceError(
            f"it was pickled on the GPU adapter {choice.name} [{choice.backend}], and no adapter is usable here "
            f"({'; '.join(problems())}). Pickle what has device='auto', or use save and load(device=)."
        )
    same = (one for one in adapters if (one.name, one.backend) == (choice.name, choice.backend))
    found = next(same, None) or device("gpu")
    return replace(found, isolated=choice.isolated, on_device_loss=choice.on_device_loss)
