"""The command line: help, JSON, exit codes, errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import scgpu
from scgpu import cli
from scgpu._abi import OPS


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"scgpu {command}" in out and "--json" in out


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nothing"], ["parity", "--cases", "many"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2
    capsys.readouterr()
    assert cli.main(["parity", "--cases", "0"]) == 2
    assert "--cases must be from 1 to 1000000; got 0" in capsys.readouterr().err
    assert cli.main(["parity", "--device", "voodoo"]) == 2
    assert "matches no GPU adapter; usable are" in capsys.readouterr().err


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "scgpu", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"scgpu {scgpu.__version__}\n"


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    for device in scgpu.devices():
        assert f"  {device.index}  {device.name}: {device.backend}" in text
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [device["name"] for device in found["devices"]] == [device.name for device in scgpu.devices()]
    assert found["tier"] == scgpu.simd_tier() and found["tiers"] == scgpu.simd_tiers()
    assert found["versions"]["scgpu"] == scgpu.__version__ and "wgpu-native" in found["versions"]
    assert isinstance(found["missing"], list)


def test_parity_runs_every_operation_on_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parity", "--cases", "2", "--seed", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    gpus = [device for device in scgpu.devices() if device.kind == "gpu"]
    assert len(found["devices"]) == len(gpus) + len(scgpu.simd_tiers())
    assert found["cases"] == 2 * len(OPS) * len(found["devices"]) and found["wrong"] == 0
    assert all(row["cases"] == dict.fromkeys(OPS, 2) for row in found["devices"])
    assert cli.main(["parity", "--cases", "1", "--device", "cpu"]) == 0
    assert f"{len(OPS)} cases against the oracle (seed 0): 0 with a wrong bit" in capsys.readouterr().out


def test_parity_reports_a_device_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(device: scgpu.Device) -> object:
        if device.kind == "cpu":
            raise scgpu.GpuError("device lost")
        return cli.parity.__dict__["_real_backend_of"](device)

    monkeypatch.setitem(cli.parity.__dict__, "_real_backend_of", cli.parity.backend_of)
    monkeypatch.setattr(cli.parity, "backend_of", lost)
    assert cli.main(["parity", "--device", "cpu", "--cases", "1"]) == 1
    out = capsys.readouterr().out
    assert "GpuError: device lost" in out and "not run" in out


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.parity, "compare", interrupted)
    assert cli.main(["parity", "--device", "cpu"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m scgpu info | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "d" and done.stderr == ""


def test_versions_need_no_search_first() -> None:
    code = "from scgpu import _gpu; print(sorted(_gpu.versions()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['wgpu', 'wgpu-native']\n"
