"""tools/soak.py: it finds wrong and lost results, and a short run with faults has none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soak

import scgpu

TOOL = Path(soak.__file__)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGUSR1 on this system")
@pytest.mark.parametrize(
    ("prefix", "kinds", "every"),
    [("", {"destroy", "memory"}, "0.2"), (soak.ISOLATED, {"kill"}, "0.5")],  # a helper takes a second to start
    ids=["here", "isolated"],
)
def test_a_short_run_with_faults_loses_nothing(
    prefix: str, kinds: set[str], every: str, gpu: scgpu.Device, tmp_path: Path
) -> None:
    figures = tmp_path / "totals.json"
    devices = [f"{prefix}{gpu.index}", "cpu"]
    options = ["--seconds", "6", "--every", every, "--device", *devices, "--json", str(figures)]
    options += ["--faults", ",".join(sorted(kinds | {"interrupt"}))]  # others would be drawn in vain
    done = subprocess.run(
        [sys.executable, str(TOOL), *options], capture_output=True, text=True, timeout=300, check=False
    )
    found = json.loads(figures.read_text())
    assert done.returncode == 0 and found["wrong"] == found["lost"] == 0, done.stdout + done.stderr
    assert found["calls"] > 5 and found["failovers"] > 0  # however slow the machine
    assert sum(found["by_device"].values()) == found["calls"] and len(found["by_device"]) == 2
    # Which of them comes in a few seconds is chance.
    seen = set(found["faults"]) - {"interrupt"}
    assert seen and seen <= kinds
    held = r"; [\d,]+ MiB, \d+ threads" if sys.platform == "linux" else ""
    assert re.search(r"calls \(.*/s\), faults: .*, 0 wrong, 0 lost" + held + "\n", done.stdout)
    assert len(found["rss"]) == len(found["threads"]) > 0 or not held
    assert all(nbytes > 1 << 20 for nbytes in found["rss"])


def _off(device: scgpu.Device, keep: Any) -> list[Any]:
    return [np.array([device.kind == "numpy"])]


def _type(device: scgpu.Device, keep: Any) -> list[Any]:
    return [np.zeros(1, np.int32 if device.kind == "numpy" else np.int64)]


def _few(device: scgpu.Device, keep: Any) -> list[Any]:
    return [np.zeros(1)] * (1 + (device.kind == "numpy"))


def _raises(device: scgpu.Device, keep: Any) -> list[Any]:
    if device.kind != "numpy":
        raise scgpu.GpuError("lost for ever")
    return []


@pytest.mark.parametrize(("work", "kind"), [(_off, "wrong"), (_type, "wrong"), (_few, "wrong"), (_raises, "lost")])
def test_what_is_wrong_is_counted(
    work: Callable[..., Any],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(soak, "CASES", {"broken": work})
    figures = tmp_path / "totals.json"
    options = ["--seconds", "0.2", "--threads", "2", "--device", "cpu", "--faults", "off", "--json", str(figures)]
    assert soak.main(options) == 1
    found = json.loads(figures.read_text())
    assert found[kind] == found["calls"] > 0
    assert f"FAILED: {kind} results" in capsys.readouterr().err


def test_cases_and_faults_are_chosen_from_tables() -> None:
    assert len(soak.CASES) >= 48 and {"destroy", "memory", "interrupt"} <= set(soak.FAULTS)
    with pytest.raises(SystemExit):
        soak.main(["--faults", "earthquake"])
