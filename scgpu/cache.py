"""cache: what was measured on this machine, one small JSON file for each thing and key.

A file that is missing, damaged, too large or of another key is as good as none, and so is one whose checksum is
wrong; a folder that cannot be written costs a new measurement and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from scgpu._version import __version__
from scgpu.atomic import replacing
from scgpu.backend import Device

VARIABLE = "SCGPU_CACHE_DIR"
MOST_BYTES = 1 << 20  # a file of measurements has a few thousand


def folder() -> Path:
    """Where measurements are kept: ``SCGPU_CACHE_DIR``, else the user's cache directory."""
    chosen = os.environ.get(VARIABLE, "").strip()
    return Path(chosen) if chosen else platformdirs.user_cache_path("scgpu", appauthor=False)


def device_key(device: Device) -> dict[str, str]:
    """What a measurement of a device holds for."""
    return {
        "name": device.name,
        "driver": device.driver,
        "backend": device.backend,
        "tier": device.tier,
        "scgpu": __version__,
    }


def file_of(kind: str, key: Mapping[str, str]) -> Path:
    """The file of a kind of measurement and its key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    return folder() / f"{kind}-{digest[:16]}.json"


def _digest(key: Mapping[str, str], measured: Any) -> str:
    """Checksum of what a file says."""
    return hashlib.sha256(json.dumps([dict(key), measured], sort_keys=True).encode()).hexdigest()


def read(kind: str, key: Mapping[str, str]) -> Any:
    """What was measured, or None."""
    path = file_of(kind, key)
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return None
        with path.open("rb") as file:
            octets = file.read(MOST_BYTES + 1)
        if len(octets) > MOST_BYTES:
            return None
        content = json.loads(octets)
        whole = content["key"] == dict(key) and content["sha256"] == _digest(key, content["measured"])
        return content["measured"] if whole else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def write(kind: str, key: Mapping[str, str], measured: Any) -> str:
    """Remember a measurement; return why not, or nothing when it is remembered."""
    path = file_of(kind, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:  # another process must not find half a file
            content = {"key": dict(key), "measured": measured, "sha256": _digest(key, measured)}
            file.write(json.dumps(content, indent=1).encode())
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}); set {VARIABLE} to a folder that can"
    return ""


def clear(kind: str, key: Mapping[str, str]) -> bool:
    """Forget a measurement; False where there was none."""
    try:
        file_of(kind, key).unlink()
    except OSError:
        return False
    return True
