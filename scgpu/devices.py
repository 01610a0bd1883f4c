"""Devices: what this machine can run scgpu on, and how one is chosen."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from scgpu import _cpu, _gpu, arguments, tuning
from scgpu.backend import Backend, Device
from scgpu.errors import DeviceError, GpuError, NativeLibraryError
from scgpu.failover import FailoverBackend
from scgpu.isolated import IsolatedBackend
from scgpu.oracle import OracleBackend
from scgpu.threads import num_threads
from scgpu.threads import start as start_threads

ADAPTER_VARIABLE = "SC_GPU_ADAPTER"
_PREFERENCE = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "Unknown", "CPU")


_lock = threading.RLock()
_found: tuple[list[Device], dict[int, Any], list[str]] | None = None
_backends: dict[Device, Backend] = {}
_surviving: dict[Device, FailoverBackend] = {}
# Those of "cpu" and "cpu:TIER", by the name and SCGPU_SIMD_TIER: small calls would wait for the choice.
_of_names: dict[tuple[str, str | None], Backend] = {}


FORKED = (
    "this process was forked from one that had used its GPUs, whose drivers do not survive that: "
    "start it with multiprocessing's 'spawn' or 'forkserver', or use device='cpu'"
)
_forked = False


def _forget() -> None:
    global _found, _forked, _lock
    _lock = threading.RLock()
    if _gpu.forget():
        # Nor can a child start anew: Mesa's queues, for one, share threads that only the parent has.
        _forked = True
        _found = _found[0] if _found else [], {}, [FORKED]
    _backends.clear()
    _surviving.clear()
    _of_names.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _search() -> tuple[list[Device], dict[int, Any], list[str]]:
    """All GPU devices, their wgpu adapters by index, and why some are not here."""
    global _found
    with _lock:
        if _found is None:
            found: list[Device] = []
            adapters: dict[int, Any] = {}
            problems: list[str] = []
            try:
                candidates = _gpu.adapters()
            except GpuError as error:
                candidates = []
                problems.append(str(error))
            else:
                if not candidates:
                    problems.append(
                        "wgpu found no adapter: install a Vulkan loader and driver "
                        "(Debian: apt install libvulkan1 mesa-vulkan-drivers)"
                    )
            for adapter in candidates:
                info = adapter.info
                if _gpu.REQUIRED_FEATURE not in adapter.features:
                    problems.append(
                        f"{info['device']} [{info['backend_type']}] lacks the feature "
                        f"{_gpu.REQUIRED_FEATURE!r}: update its driver"
                    )
                    continue
                index = len(found)
                adapters[index] = adapter
                found.append(
                    Device(
                        index,
                        "gpu",
                        info["device"],
                        info["backend_type"],
                        info["adapter_type"],
                        driver=info["description"],
                        limits=dict(adapter.limits),
                    )
                )
            _found = found, adapters, problems
        return _found


@lru_cache
def _made_cpu_device(index: int, tier: str, threads: int) -> Device:
    return Device(index, "cpu", "cpu", "Zig", "CPU", tier=tier, threads=threads)


def _cpu_device(tier: str) -> Device:
    return _made_cpu_device(len(_search()[0]), tier, num_threads())


def devices() -> list[Device]:
    """Everything usable on this machine: each GPU adapter, then ``cpu``, then ``numpy``.

    ``cpu`` is left out when the native library does not load; `problems` says why.

    Returns
    -------
    list of Device
        In the order of their ``index``.

    Raises
    ------
    DeviceError
        When ``SCGPU_SIMD_TIER`` names a tier that this machine cannot run.
    """
    found = list(_search()[0])
    try:
        found.append(_cpu_device(_cpu.simd_tier()))
    except NativeLibraryError:
        pass  # reported by problems()
    found.append(Device(len(found), "numpy", "numpy", "NumPy", "CPU", threads=1))
    return found


def problems() -> list[str]:
    """What keeps a GPU adapter or the native library from being used, with the remedy."""
    texts = list(_search()[2])
    try:
        _cpu.library()
    except NativeLibraryError as error:
        texts.append(str(error))
    return texts


def device(
    selector: str | int | Device = "auto",
    *,
    isolate: bool = False,
    on_device_loss: Literal["failover", "raise"] | None = None,
) -> Device:
    """Choose a device.

    Parameters
    ----------
    selector : str, int or Device
        ``"auto"``: the adapter that ``SC_GPU_ADAPTER`` names, else the best hardware GPU,
        else ``cpu``. ``"gpu"``: the adapter that ``SC_GPU_ADAPTER`` names, else the best
        adapter, software ones included; never the CPU. ``"cpu"``: the Zig library
        (``"cpu:x86_64_v3"`` at that SIMD tier). ``"numpy"``: the oracle. An index into
        `devices`. Or a part of an adapter's name, backend or type in any case; the first
        match in the order of `devices` is taken.
    isolate : bool
        Run the GPU in a helper process: what ends that process, a fault of a driver or of wgpu-native, is the loss
        of a device here and nothing worse. A call costs about 0.1 ms more, and contents of buffers are copied once
        more each way. ``scgpu live`` cannot draw from there, and `profile` sees no kernels.
    on_device_loss : {"failover", "raise"}, optional
        What happens to work on a GPU that goes away, hangs, or has no memory left: it is finished on the next
        adapter, else on ``cpu``, with the same bits and a `DeviceLossWarning`; or the call raises `DeviceLostError`
        (`TooLargeError` for want of memory). By default what ``selector`` has when it is a `Device`, else
        ``"failover"``.

    Returns
    -------
    Device

    Raises
    ------
    DeviceError
        When nothing matches; the message lists what there is. When ``isolate`` is asked for a device that is no GPU.
    ValueError
        When ``on_device_loss`` is something else.
    TypeError
        When ``selector`` or ``isolate`` is of another type.
    """
    chosen = selector if isinstance(selector, Device) else _selected(selector)
    if not isinstance(isolate, bool):
        raise TypeError(f"isolate must be True or False; got {arguments.shown(isolate)}")
    if isolate and not chosen.isolated:
        if chosen.kind != "gpu":
            raise DeviceError(
                f"isolate=True is for GPU adapters, and device {arguments.shown(selector)} is {chosen}, which needs no "
                f"process of its own; name an adapter, or leave isolate out; {_listing()}"
            )
        chosen = replace(chosen, isolated=True)
    if on_device_loss is None or on_device_loss == chosen.on_device_loss:
        return chosen
    arguments.choice("on_device_loss", on_device_loss, ("failover", "raise"))
    return replace(chosen, on_device_loss=on_device_loss)


def _selected(selector: str | int) -> Device:
    if isinstance(selector, str):
        name = selector.strip().lower()
        if name in ("auto", "gpu"):
            return _preferred(name)
        if name == "cpu":
            return _cpu_device(_cpu.simd_tier())
        if name.startswith("cpu:"):
            tier = _cpu.usable_tier(name.removeprefix("cpu:"), f"device {arguments.shown(selector)}")
            return _cpu_device(tier)
        if name == "numpy":
            return devices()[-1]
        if not name.isdecimal():
            return _adapter(name, f"device {arguments.shown(selector)}")
        index = int(name)
    elif isinstance(selector, bool):
        raise TypeError(f"device must be a name, an index or a Device; got {arguments.shown(selector)}")
    else:
        try:
            index = operator.index(selector)
        except Exception:  # __index__ of any class may raise anything
            raise TypeError(f"device must be a name, an index or a Device; got {arguments.shown(selector)}") from None
    known = devices()
    if not 0 <= index < len(known):
        raise DeviceError(f"device {arguments.shown(selector)}: there is no such index; {_listing()}")
    return known[index]


def _preferred(name: str) -> Device:
    wanted = os.environ.get(ADAPTER_VARIABLE, "").strip()
    if wanted:
        return _adapter(wanted.lower(), f"{ADAPTER_VARIABLE}={wanted!r}")
    found = sorted(_search()[0], key=lambda d: _PREFERENCE.index(d.type) if d.type in _PREFERENCE else 3)
    if name == "auto":
        return next((candidate for candidate in found if _is_automatic(candidate)), None) or device("cpu")
    if not found:
        raise DeviceError(f"device 'gpu': no GPU adapter is usable; {_listing()}")
    return found[0]


def _is_automatic(adapter: Device) -> bool:
    """Whether an adapter comes before the processor where nobody names one."""
    return not adapter.software and not _forked


def _any_adapter() -> bool:
    """Whether ``auto`` may mean an adapter."""
    return bool(os.environ.get(ADAPTER_VARIABLE)) or any(map(_is_automatic, _search()[0]))


def _adapter(wanted: str, source: str) -> Device:
    """The adapter of an index, or the first whose name, backend or type contains ``wanted``."""
    found = _search()[0]
    if wanted.isdecimal():
        matches = [candidate for candidate in found if candidate.index == int(wanted)]
    else:
        matches = [d for d in found if any(wanted in text.lower() for text in (d.name, d.backend, d.type))]
    if not wanted or not matches:
        raise DeviceError(f"{source} matches no GPU adapter; {_listing()}")
    return matches[0]


def _listing() -> str:
    known = ", ".join(f"{d.index}: {d}" for d in devices())
    return "; ".join((f"usable are {known}", *problems()))


def backend_for(selector: str | int | Device) -> Backend:
    """What runs steps for the device that a selector means; parameter and errors as `device`.

    For a GPU whose loss is survived it is a `FailoverBackend`, the same one until `restart_device`.
    """
    # Small calls come by here: where no adapter is wanted or worth it, the choice is that of the processor.
    if isinstance(selector, str) and selector == "auto" and not _any_adapter():
        selector = "cpu"
    if not isinstance(selector, str) or not selector.startswith("cpu"):
        chosen = device(selector)
        if chosen.kind != "gpu" or chosen.on_device_loss == "raise":
            return backend_of(chosen)
        surviving = _surviving.get(chosen)
        if surviving is None:
            with _lock:
                surviving = _surviving.get(chosen)
                if surviving is None:
                    surviving = _surviving[chosen] = FailoverBackend(chosen, backend_of, _following)
        return surviving
    name = (selector, os.environ.get(_cpu.TIER_VARIABLE))
    backend = _of_names.get(name)
    if backend is None:
        backend = _of_names[name] = backend_of(device(selector))
    return backend


def _following(lost: Device) -> Sequence[Device]:
    """Devices that take over from a GPU: hardware adapters, for a software one those too, then the processor."""
    adapters = [one for one in _search()[0] if one.index != lost.index and (lost.software or not one.software)]
    hosts = [one for one in devices() if one.kind != "gpu"]
    return [*(replace(one, isolated=lost.isolated) for one in adapters), *hosts]


def restart_device(selector: str | int | Device) -> Device:
    """Let what is made from now on try a GPU again that was lost; what moved to another device stays there.

    Parameters
    ----------
    selector : str, int or Device
        See `device`.

    Returns
    -------
    Device
        The device; nothing happens when it was not lost.
    """
    chosen = device(selector)
    with _lock:
        running = _backends.get(chosen)
        if running is not None and getattr(running, "lost", None) is not None:
            del _backends[chosen]
        surviving = _surviving.get(chosen)
        if surviving is not None and surviving.device != chosen:
            del _surviving[chosen]
    return chosen


def adapter_of(chosen: Device) -> Any:
    """The wgpu adapter of a GPU, isolated or not; None in a forked child, which cannot use it.

    Raises
    ------
    DeviceError
        When this machine has no such adapter.
    """
    known, adapters, _ = _search()
    if chosen not in [replace(one, isolated=chosen.isolated) for one in known]:
        raise DeviceError(f"{chosen} is not a device of this machine; {_listing()}")
    return adapters.get(chosen.index)


def backend_of(chosen: Device) -> Backend:
    """The running backend of a device itself, made at its first use and shared; a GPU's raises when it is lost.

    Raises
    ------
    GpuError
        When the adapter refuses to start.
    NativeLibraryError
        When the native library does not load.
    """
    with _lock:
        backend = _backends.get(chosen)
        if backend is None:
            if chosen.kind == "gpu":
                alone = replace(chosen, on_device_loss="raise")
                if chosen.isolated:  # the helper looks for the adapter
                    backend = IsolatedBackend(alone, tuning.load(chosen))
                elif _forked:
                    raise GpuError(FORKED)
                else:
                    gpu = _gpu.GpuBackend(alone, adapter_of(chosen))
                    gpu.tuned = tuning.load(chosen)
                    backend = gpu
            elif chosen.kind == "cpu":
                start_threads()
                backend = _cpu.NativeBackend(chosen, _cpu.usable_tier(chosen.tier, "tier"))
            else:
                backend = OracleBackend(chosen)
            _backends[chosen] = backend
        return backend
