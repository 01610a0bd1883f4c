"""Files that were damaged, made up or made to do harm: refused with the reason, at once, in little memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import threading
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from test_recording import example, names_in, sealed
from test_spiking_network import everything

import scgpu
from scgpu import _abi, archive, cache, placement, tuning
from scgpu.archive import MOST_DIRECTORY_BYTES, MOST_HEADER_BYTES, SEAL_BYTES
from scgpu.backend import free_memory

DEEP = 100_000
MEMORY = 16 << 20  # of which the reading buffer of a checksum has 1 MiB, and a header at most 4 MiB

LOADS: dict[str, Callable[[Path], Any]] = {
    "recording": scgpu.Recording.load,
    "spiking network": lambda path: scgpu.SpikingNetwork.load(path, "numpy"),
    "dense layer": lambda path: scgpu.DenseLayer.load(path, "cpu"),
    "network": lambda path: scgpu.Network.load(path, "cpu"),
}


def layer(n_inputs: int = 3, n_neurons: int = 2, **options: Any) -> scgpu.DenseLayer:
    return scgpu.DenseLayer(n_inputs, n_neurons, 100, device="cpu", **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One file of each kind."""
    path = tmp_path_factory.mktemp("files") / "file"
    made = {}
    spiking = scgpu.SpikingNetwork(*everything(scgpu.device("numpy"), (3, 20, 15)))
    spiking.run(50)
    table = scgpu.sng.NumberTable(np.arange(9), sharing="stream")
    network = scgpu.Network([layer(sng=table), layer(2, 2)], scgpu.Activation("relu", 1.5))
    for kind, saved in zip(LOADS, (example(70), spiking, layer(), network), strict=True):
        saved.save(path)
        made[kind] = path.read_bytes()
    return made


@contextmanager
def cheaply(seconds: float = 10.0) -> Iterator[None]:
    """What is done takes neither long nor much memory, beyond what is there already."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
        assert time.perf_counter() - begin < seconds
    finally:
        tracemalloc.stop()


def refused(kind: str, path: Path, text: str | None = None) -> None:
    """The file is refused, with its name, its kind and the reason."""
    with cheaply(), pytest.raises(ValueError, match=text) as caught:
        LOADS[kind](path)
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded as a {kind}: ")


def reason(kind: str, path: Path) -> str:
    """Why a file is refused, or nothing where it is loaded."""
    try:
        LOADS[kind](path)
    except ValueError as error:
        return str(error)
    return ""


def flip(file: BinaryIO, bit: int) -> None:
    """Change a bit of a file where it lies."""
    file.seek(bit // 8)
    (octet,) = file.read(1)
    file.seek(bit // 8)
    file.write(bytes([octet ^ 1 << bit % 8]))
    file.flush()


def members_of(octets: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(octets)) as contents:
        return {name: contents.read(name) for name in contents.namelist()}


def zipped(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    """A file of these members with a checksum that is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of members that are there twice
        with zipfile.ZipFile(path, "w") as contents:
            for name, octets in members:
                contents.writestr(zipfile.ZipInfo(name), octets, method)
    return sealed(path)


def array_of(octets: bytes) -> bytes:
    """The .npy file of a header."""
    made = io.BytesIO()
    np.save(made, np.frombuffer(octets, np.uint8))
    return made.getvalue()


def with_header(octets: bytes, path: Path, header: bytes) -> Path:
    members = {**members_of(octets), "header.npy": array_of(header)}
    return zipped(path, list(members.items()))


@pytest.mark.parametrize("kind", LOADS)
def test_files_cut_at_any_length_are_refused(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    whole, short = files[kind], tmp_path / "short"
    lengths = range(len(whole)) if kind == "dense layer" else [*range(0, len(whole), 37), len(whole) - 1]
    for length in lengths:
        short.write_bytes(whole[:length])
        text = "it is empty" if length == 0 else "not written by" if length < 4 else "its end is missing"
        with pytest.raises(ValueError, match=text):
            LOADS[kind](short)


@pytest.mark.parametrize("kind", LOADS)
def test_every_flipped_bit_is_found(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    whole, broken = files[kind], tmp_path / "broken"
    every = np.arange(8 * len(whole))  # all of a small file
    bits = every if kind == "dense layer" else np.random.default_rng(1).choice(every, 1500, replace=False)
    broken.write_bytes(whole)
    with broken.open("r+b") as file:
        for bit in bits.tolist():
            flip(file, bit)
            assert re.search("its checksum is wrong|its end is missing|not written by", reason(kind, broken)), bit
            flip(file, bit)
    assert broken.read_bytes() == whole and not reason(kind, broken)


@pytest.mark.parametrize("kind", LOADS)
def test_what_is_changed_under_a_right_checksum_is_checked_itself(
    kind: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    """A checksum says nothing of who wrote a file: flips and noise come through it, and do no harm."""
    whole, broken = files[kind][:-SEAL_BYTES], tmp_path / "broken"
    rng = np.random.default_rng(2)
    loaded = rejected = 0
    for trial in range(400 if kind == "spiking network" else 1500):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 1 + trial % 3).tolist():
            changed[at] = changed[at] ^ 1 << int(rng.integers(8)) if trial % 2 else int(rng.integers(256))
        broken.write_bytes(bytes(changed) + archive.SEAL + archive._digest(io.BytesIO(changed), len(changed)))
        told = reason(kind, broken)  # none where it was a date, a weight, a checksum that nobody looks at
        assert not told or f"cannot be loaded as a {kind}: " in told or "bytes are needed" in told
        loaded, rejected = loaded + (not told), rejected + bool(told)
    assert loaded and rejected


def test_files_of_another_kind_are_named(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "file"
    for kind in LOADS:
        path.write_bytes(files[kind])
        for other in LOADS:
            if other != kind:
                refused(other, path, f"without the header of a {other}; it was not written by")


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("version", [2, 0, None, "1", [1], 1e300])
def test_files_of_other_versions_are_refused(kind: str, version: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    header = json.loads(np.load(io.BytesIO(members_of(files[kind])["header.npy"])).tobytes())
    path = with_header(files[kind], tmp_path / "file", json.dumps({**header, "version": version}).encode())
    refused(kind, path, "it is of version .*, and this scgpu reads version 1; use the scgpu that wrote it")


@pytest.mark.parametrize("kind", LOADS)
def test_members_that_are_not_arrays_as_saved_are_refused(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    path, members = tmp_path / "file", list(members_of(files[kind]).items())
    refused(kind, zipped(path, members, zipfile.ZIP_DEFLATED), "'header.npy' is compressed; it was not")
    refused(kind, zipped(path, members, zipfile.ZIP_LZMA), "is compressed")
    refused(kind, zipped(path, [*members, members[-1]]), "is there twice; it was not written by")
    for name in (
        "../../x.npy",
        "/etc/passwd",
        "a/b.npy",
        "a\\b.npy",
        "C:x.npy",
        "x.npy ",
        "x",
        "ü.npy",
        "x" * 999 + ".npy",
    ):
        refused(kind, zipped(path, [*members, (name, b"")]), "has a name that no array has; it was not written by")
    encrypted = bytearray(zipped(path, members).read_bytes()[:-SEAL_BYTES])
    directory = encrypted.index(b"PK\x01\x02")
    encrypted[directory + 8] |= 1
    path.write_bytes(bytes(encrypted) + archive.SEAL + archive._digest(io.BytesIO(encrypted), len(encrypted)))
    refused(kind, path, "is encrypted or marked otherwise")
    assert names_in(tmp_path) == ["file"]


def test_an_archive_that_unfolds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    with path.open("wb") as file:
        np.savez_compressed(file, header=np.zeros(1 << 28, np.uint8))
    assert path.stat().st_size < 1 << 20
    refused("recording", sealed(path), "is compressed")


def patched(path: Path, where: bytes, offset: int, value: bytes) -> Path:
    """A sealed file with other bytes in each record of its directory."""
    octets = bytearray(path.read_bytes()[:-SEAL_BYTES])
    for found in [found.start() for found in re.finditer(re.escape(where), octets)]:
        octets[found + offset : found + offset + len(value)] = value
    path.write_bytes(bytes(octets) + archive.SEAL + archive._digest(io.BytesIO(octets), len(octets)))
    return path


def test_what_a_directory_claims_takes_no_memory(files: dict[str, bytes], tmp_path: Path) -> None:
    path, whole = tmp_path / "file", files["recording"]
    huge = struct.pack("<II", 2**32 - 2, 2**32 - 2)
    path.write_bytes(whole)
    refused("recording", patched(path, b"PK\x01\x02", 20, huge), "passes the .* bytes of the file")
    path.write_bytes(whole)
    refused("recording", patched(path, b"PK\x01\x02", 20, struct.pack("<I", 7)), "is compressed")
    path.write_bytes(whole)
    refused("recording", patched(path, b"PK\x01\x02", 10, struct.pack("<H", zipfile.ZIP_DEFLATED)), "is compressed")
    path.write_bytes(whole)  # all members in the same place
    refused("recording", patched(path, b"PK\x01\x02", 42, struct.pack("<I", 0)), "File name in directory")
    path.write_bytes(whole)
    refused("recording", patched(path, b"PK\x01\x02", 42, struct.pack("<I", 2**31)), "passes the")
    path.write_bytes(whole)
    refused(
        "recording", patched(path, b"PK\x05\x06", 12, struct.pack("<I", 2**32 - 2)), "its directory of 4,294,967,294"
    )
    path.write_bytes(whole)  # before the beginning of the file
    refused(
        "recording", patched(path, b"PK\x05\x06", 12, struct.pack("<I", 1 << 20)), "its directory of 1,048,576 bytes"
    )
    path.write_bytes(whole)
    refused("recording", patched(path, b"PK\x05\x06", 16, b"PK\x05\x06"), r"its end is missing")


def test_a_directory_of_very_many_members_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    directory = entry * (MOST_DIRECTORY_BYTES // len(entry) + 1)
    end = archive.END.pack(archive.END_MAGIC, 0, 0, 1, 1, len(directory), 4, 0)
    path.write_bytes(archive.ZIP_MAGIC + directory + end)
    with path.open("r+b") as file, pytest.raises(scgpu.TooLargeError, match=r"a directory of 4,194,3.. bytes is above"):
        archive._seal(file)
    octets = archive.ZIP_MAGIC + directory + end[:-2] + struct.pack("<H", SEAL_BYTES)
    path.write_bytes(octets + archive.SEAL + archive._digest(io.BytesIO(octets), len(octets)))
    refused("recording", path, "its directory of 4,194,3.. bytes is above 4,194,304")
    # beyond 4 GiB the numbers of the end are in a record before it
    far = archive.END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), 4)
    octets = archive.ZIP_MAGIC + directory + far + archive.LOCATOR.pack(archive.LOCATOR_MAGIC, 0, 4 + len(directory), 1)
    octets += archive.END.pack(archive.END_MAGIC, 0, 0, 1, 1, 100, 2**32 - 1, SEAL_BYTES)
    path.write_bytes(octets + archive.SEAL + archive._digest(io.BytesIO(octets), len(octets)))
    refused("recording", path, "its directory of 4,194,3.. bytes is above 4,194,304")


def test_more_parts_than_a_file_may_have_are_not_saved(tmp_path: Path) -> None:
    one = scgpu.PopulationRecord("x" * MOST_HEADER_BYTES, 1, first_step=0, n_steps=1, counts=np.zeros(1, np.uint64))
    with pytest.raises(scgpu.TooLargeError, match=r"a header of .* bytes is above 4,194,304; save fewer parts"):
        scgpu.Recording([one], first_step=0, n_steps=1).save(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize(
    "header",
    [
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b"",
        b"null",
        b"\xff\xfe",
        b"1" * DEEP,
        b" " * (MOST_HEADER_BYTES + 200),
        b"[{}," * (MOST_HEADER_BYTES // 4 + 50),
    ],
    ids=["open", "closed", "objects", "empty", "null", "no text", "a number", "too large", "very many"],
)
def test_headers_that_are_none_are_refused(kind: str, header: bytes, files: dict[str, bytes], tmp_path: Path) -> None:
    path = with_header(files[kind], tmp_path / "file", header)
    text = f"without the header of a {kind}"
    refused(
        kind, path, text if len(header) < MOST_HEADER_BYTES else r"its header of 4,194,\d+ bytes is above 4,194,304"
    )


@pytest.mark.parametrize("kind", LOADS)
def test_deep_and_strange_entries_of_a_header_are_refused(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    header = json.loads(np.load(io.BytesIO(members_of(files[kind])["header.npy"])).tobytes())
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    strange = [deep, b"null", b"NaN", b"1e999", b"-1", b"[]", b"{}", b'"\\u0000"', b"[[]]", b"1" * 4000, b"true"]
    for key in header:
        for value in strange:
            entries = [json.dumps(one).encode() + b":" + (value if one == key else json.dumps(header[one]).encode())
                       for one in header]  # fmt: skip
            path = with_header(files[kind], tmp_path / "file", b"{" + b",".join(entries) + b"}")
            told = reason(kind, path)
            assert not told or f"cannot be loaded as a {kind}: " in told


@pytest.mark.parametrize(
    "text",
    [
        "(" * DEEP,
        "(" * 100,
        "{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 5000 + ")" * 5000 + ", }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999999999999,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1.0,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True,), }",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr':`'|u1', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|V999999999', 'fortran_order': False, 'shape': (1,), }",
        "__import__('os').system('true')",
        "",
    ],
)
@pytest.mark.parametrize("kind", LOADS)
def test_arrays_with_made_up_headers_are_refused(kind: str, text: str, files: dict[str, bytes], tmp_path: Path) -> None:
    octets = text.encode()
    for member in members_of(files[kind]):
        made = {
            **members_of(files[kind]),
            member: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(octets) % 65536) + octets,
        }
        refused(kind, zipped(tmp_path / "file", list(made.items())))


def test_pickled_objects_are_not_made(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    made = io.BytesIO()
    np.save(made, np.array([Harm()], object), allow_pickle=True)
    layer().save(tmp_path / "file")
    members = members_of((tmp_path / "file").read_bytes())
    for member in members:
        path = zipped(tmp_path / "file", [*{**members, member: made.getvalue()}.items()])
        refused("dense layer", path, "has a header that")
    (tmp_path / "file").write_bytes(pickle.dumps(Harm()))
    refused("dense layer", tmp_path / "file", r"it was not written by DenseLayer\.save")
    assert not (tmp_path / "harm").exists()


def test_arrays_in_another_order_are_refused(tmp_path: Path) -> None:
    layer().save(tmp_path / "file")
    turned = io.BytesIO()
    np.save(turned, np.asfortranarray(np.full((2, 3), 0.5)))
    assert b"'fortran_order': True" in turned.getvalue()
    members = {**members_of((tmp_path / "file").read_bytes()), "weights.npy": turned.getvalue()}
    refused("dense layer", zipped(tmp_path / "file", [*members.items()]), "has a header that .* does not write")
    # and none is written
    turned_format = archive.Format("turned array", 1, "a test")
    archive.save(tmp_path / "file", turned_format, {}, {"a": np.asfortranarray(np.eye(2, 3))})
    double = np.dtype(np.float64)
    found = archive.load(tmp_path / "file", turned_format, lambda contents: contents.array("a", double, (2, 3)))
    assert np.array_equal(found, np.eye(2, 3))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for kind in LOADS:
        refused(kind, tmp_path / "pipe", "it is no regular file")
        refused(kind, Path("/dev/zero"), "it is no regular file")
        with pytest.raises(IsADirectoryError):
            LOADS[kind](tmp_path)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    os.mkfifo(cache.file_of("rates", {}))
    assert cache.read("rates", {}) is None


def test_neurons_and_delays_that_the_file_does_not_hold_take_no_memory(files: dict[str, bytes], tmp_path: Path) -> None:
    kind, path = "spiking network", tmp_path / "file"
    header = json.loads(np.load(io.BytesIO(members_of(files[kind])["header.npy"])).tobytes())
    header["populations"][1]["count"] = 2**32 - 1
    refused(
        kind, with_header(files[kind], path, json.dumps(header).encode()), "populations.1.state must be int16 of sh"
    )
    header = json.loads(np.load(io.BytesIO(members_of(files[kind])["header.npy"])).tobytes())
    for one in header["projections"]:
        one["delay"] = 60_000
    refused(kind, with_header(files[kind], path, json.dumps(header).encode()), "too short for a delay of 60000 steps")


def test_a_layer_larger_than_the_memory_is_refused_before_it_is_made(tmp_path: Path) -> None:
    layer(64, 64).save(tmp_path / "file")
    octets = (tmp_path / "file").read_bytes()
    header = json.loads(np.load(io.BytesIO(members_of(octets)["header.npy"])).tobytes())
    header["layer"]["length"] = 2**32 // 64 - 1
    path = with_header(octets, tmp_path / "file", json.dumps(header).encode())
    if free_memory() > 2**32 * 64 // 8:
        pytest.skip("this machine has the 32 GiB")
    with cheaply(), pytest.raises(scgpu.TooLargeError, match=r"weight streams of n_inputs=64, .* do not fit"):
        scgpu.DenseLayer.load(path, "cpu")


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(files["recording"])
    os.truncate(path, 1 << 40)  # nothing of it is on the disk
    with cheaply(), pytest.raises(scgpu.TooLargeError, match="1,099,511,627,776 bytes are needed"):
        scgpu.Recording.load(path)


NAMES = (
    "../../outside",
    "/etc/passwd",
    "x.npy",
    "}; @compute fn main() {",
    "a\x00b",
    "\u202e",
    "'; DROP",
    "header",
    " ",
)


def test_names_become_neither_paths_nor_shader_code(chosen: scgpu.Device, tmp_path: Path) -> None:
    cells = [
        scgpu.Population(3, scgpu.LifParameters(leak_k=20, gain_k=256), name=name, device=chosen) for name in NAMES
    ]
    network = scgpu.SpikingNetwork(cells, inputs=[scgpu.ConstantCurrent(one, 99) for one in cells])
    folder = tmp_path / "folder"
    folder.mkdir()
    network.save(folder / "network")
    assert all(archive.MEMBER.fullmatch(name) for name in members_of((folder / "network").read_bytes()))
    loaded = scgpu.SpikingNetwork.load(folder / "network", chosen)
    recording = loaded.run(20, record="spikes")
    assert [*recording] == [*NAMES] and recording == network.run(20, record="spikes")
    recording.save(folder / "recording")
    assert scgpu.Recording.load(folder / "recording") == recording
    assert sorted(names_in(folder)) == ["network", "recording"] and names_in(tmp_path) == ["folder"]
    used = {recording[name].counts.tobytes() for name in NAMES}
    assert len(used) == 1 and recording[NAMES[0]].counts[0] > 0


def test_refused_files_leave_nothing_behind(files: dict[str, bytes], tmp_path: Path) -> None:
    hostile = [
        with_header(files["dense layer"], tmp_path / "a", b"[" * DEEP),
        with_header(files["dense layer"], tmp_path / "b", b"[{}," * (MOST_HEADER_BYTES // 8)),
        tmp_path / "c",
    ]
    hostile[2].write_bytes(files["dense layer"][:-1])

    def refuse(times: int) -> int:
        for _ in range(times):
            for path in hostile:
                with pytest.raises(ValueError, match="cannot be loaded"):
                    scgpu.DenseLayer.load(path, "cpu")
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = refuse(5)
        assert refuse(50) - before < 1 << 16
    finally:
        tracemalloc.stop()
    assert sorted(names_in(tmp_path)) == ["a", "b", "c"]


RATES = placement.Rates(5.0, 100.0, 2000.0, 2e4, 2e4, 5e3)
TUNED = {("dense", "one class"): 3, ("dense", "another"): 0}


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Path, Any, Any]]:
    """What each cache remembers: its file, what it is, how it is loaded."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    gpu = scgpu.Device(0, "gpu", "an adapter", "Vulkan", "DiscreteGPU", driver="1.0")
    assert tuning.save(gpu, TUNED) == "" == cache.write("rates", placement._key(gpu), vars(RATES))
    return {
        "tuned": (tuning.file_of(gpu), TUNED, lambda: tuning.load(gpu)),
        "rates": (cache.file_of("rates", placement._key(gpu)), RATES, lambda: placement.load(gpu)),
    }


@pytest.mark.parametrize("kind", ["tuned", "rates"])
def test_a_damaged_cache_is_none(kind: str, caches: Any) -> None:
    path, expected, load = caches[kind]
    whole = path.read_bytes()
    assert load() == expected
    same = 0
    with path.open("r+b") as file:
        for bit in range(8 * len(whole)):
            flip(file, bit)
            if found := load():
                assert found == expected  # another kind of blank, an escape of the same letter
                same += 1
            flip(file, bit)
    assert same < len(whole) // 4
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not load()
    path.write_bytes(whole + b" " * cache.MOST_BYTES)
    assert not load()
    for octets in (b"[" * DEEP, b'{"key":' * DEEP, b"9" * DEEP, b"\xff" * 99, b"null", os.urandom(999)):
        path.write_bytes(octets)
        with cheaply():
            assert not load()


def rewritten(path: Path, measured: Any) -> None:
    """A cache file that says something else, with a checksum that is right."""
    content = json.loads(path.read_text())
    content |= {"measured": measured, "sha256": cache._digest(content["key"], measured)}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        {"call": 0},
        {"call": -1.0},
        {"call": 1e300},
        {"call": 1e-300},
        {"call": float("inf")},
        {"call": float("nan")},
        {"call": True},
        {"call": "5"},
        {"call": None},
        {"call": [5.0]},
        {"more": 1.0},
        None,
        7,
        [],
        "text",
    ],
)
def test_absurd_rates_are_none(change: Any, caches: Any) -> None:
    path, _, load = caches["rates"]
    rewritten(path, {**vars(RATES), **change} if isinstance(change, dict) else change)
    assert load() is None
    rewritten(path, {name: rate for name, rate in vars(RATES).items() if name != "lookup"})
    assert load() is None


@pytest.mark.parametrize(
    "entries",
    [
        [{"op": "dense", "class": "a", "variant": {"workgroup": 1 << 20}}],
        [{"op": "dense", "class": "a", "variant": 3}],
        [{"op": "dense", "class": ["a"], "variant": None}],
        [{"op": "no such", "class": "a", "variant": {}}],
        [{"op": ["dense"], "class": "a", "variant": {}}],
        [{"op": "dense", "class": 5, "variant": _abi.OPS["dense"].variants[0]}],
        [{}],
        [[]],
        {"dense": 3},
        "dense",
        7,
        [None],
    ],
)
def test_variants_that_are_none_are_not_chosen(entries: Any, caches: Any) -> None:
    path, _, load = caches["tuned"]
    rewritten(path, entries)
    assert load() == {}


def test_many_threads_load_at_once(tmp_path: Path) -> None:
    # Python's own parser, which NumPy reads headers of arrays with, fails at times when threads share it
    layer().save(tmp_path / "file")
    expected = layer().weights
    wrong: list[Any] = []

    def load() -> None:
        for _ in range(30):
            try:
                if not np.array_equal(scgpu.DenseLayer.load(tmp_path / "file", device="cpu").weights, expected):
                    wrong.append("weights")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert "read_array_header" not in Path(archive.__file__).read_text(encoding="utf-8")
