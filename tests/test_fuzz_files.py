"""Damaged files and texts: an error that says so, or something that works; tools/fuzz_files.py searches further."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import fuzz_files
import numpy as np
import pytest

import scgpu
from scgpu import _abi, _wgsl, archive


@pytest.mark.parametrize("name", fuzz_files.TARGETS)
def test_damaged_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCGPU_CACHE_DIR", "")  # some targets set it
    rng = random.Random(5)
    seeds = fuzz_files.TARGETS[name].seeds()
    if name != "shader":  # whose seeds are lines to begin with, none of them a shader
        fuzz_files.TARGETS[name].run(seeds[0])  # what is whole is read
    for seed in seeds:
        fuzz_files.check(name, seed)
    for _ in range(40):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                del data[place : place + rng.randint(1, 9)]
            elif kind == 2:
                data[place:place] = rng.choice((b"\xff" * 4, b"\0", b"-1", b"1e999", b"[", b'"', b"#import ../x\n"))
            else:
                data[place:] = data[rng.randrange(len(data) + 1) :]
        fuzz_files.check(name, bytes(data))


def test_every_kind_of_file_is_a_target() -> None:
    kinds = {kind for kind in vars(scgpu).values() if isinstance(kind, type) and hasattr(kind, "load")}
    # the reference's two layers are saved as dense layers
    assert len(fuzz_files.FILES) == len(kinds) - 2


def _npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    "member",
    [
        _npy("{'descr':`'<u8', 'fortran_order': False, 'shape': (3,), }"),  # NumPy's parser: TokenError
        _npy("{'descr': '<i2', 'fortran_order': True, 'shape': (3, 70), }", bytes(420)),  # would be read as C order
        _npy("{'descr': '<i2', 'fortran_order': False, 'shape': (-1, -210), }", bytes(420)),
        _npy("(" * 100),
        b"",
    ],
)
def test_headers_of_arrays_that_were_made_up(member: bytes, tmp_path: Path) -> None:
    made = tmp_path / "recording"
    with zipfile.ZipFile(io.BytesIO(fuzz_files._recording())) as right, made.open("w+b") as file:
        with zipfile.ZipFile(file, "w") as wrong:
            for name in right.namelist():
                wrong.writestr(name, member if name == "0.voltages.npy" else right.read(name))
        archive._seal(file)
    with pytest.raises(ValueError, match="recording' cannot be loaded as a recording: population 0"):
        scgpu.Recording.load(made)


def test_a_directory_that_leads_nowhere(tmp_path: Path) -> None:
    content = fuzz_files._recording()
    place = content.rindex(b"PK\x05\x06")
    broken = bytearray(content)
    broken[place + 12 : place + 16] = (0xFFFFFF00).to_bytes(4, "little")  # size of the directory
    (tmp_path / "recording").write_bytes(bytes(broken))
    with pytest.raises(ValueError, match="cannot be loaded as a recording"):
        scgpu.Recording.load(tmp_path / "recording")


@pytest.mark.parametrize(
    "line", ["#import", "#import ", "#import a b", "#import ../../etc/passwd", "#import /tmp/x", "#import x\0y"]
)
def test_imports_are_names(line: str, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "count.wgsl").write_text(f"{line}\n")
    with pytest.raises(_wgsl.ShaderImportError, match="import"):
        _wgsl.expand(_abi.OPS["count"], tmp_path)


@pytest.mark.parametrize("path", [None, 3, b"name", object(), "a\0b", "\ud800"])
def test_paths_are_named(path: Any, tmp_path: Path) -> None:
    record = scgpu.PopulationRecord("a", 1, first_step=0, n_steps=1, counts=np.zeros(1, np.uint64))
    recording = scgpu.Recording([record], first_step=0, n_steps=1)
    for call in (recording.save, scgpu.Recording.load, scgpu.SpikingNetwork.load):
        with pytest.raises((TypeError, ValueError), match="path must be"):
            call(path)
