"""Nothing lost: work that is killed, interrupted or out of disk at any moment goes on with the same bits."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoint_work
import numpy as np
import pytest
from checkpoint_work import SIZES, WORKS, equal, load, watched

import scgpu
from scgpu import atomic, batches, checkpoint, network_checkpoint
from scgpu.archive import Format

SCRIPT = [sys.executable, str(Path(checkpoint_work.__file__))]
CPU = scgpu.device("cpu")
LONG = {"run": 6000, "batches": 3000, "sweep": 60}  # of work that there is time to kill


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested is the order of calls, not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What short work gives without a checkpoint."""
    return {name: WORKS[name](CPU, SIZES[name], None) for name in WORKS}


class Stopped(Exception):  # noqa: N818 - it is no error
    """Raised to end work in the middle."""


def stop_at(step: int) -> Callable[[int, int], None]:
    """What ends work once so much is done."""

    def tell(done: int, total: int) -> None:
        if done >= step:
            raise Stopped

    return tell


def begun(name: str, path: Path, device: scgpu.Device = CPU) -> None:
    """Leave a checkpoint in the middle of short work."""
    with pytest.raises(Stopped):
        WORKS[name](device, SIZES[name], path, stop_at(SIZES[name] // 4))


# Killed


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "kill") for name in WORKS), *((name, mode) for name in ("run", "sweep") for mode in ("cut", "zeros"))],
)
def test_death_at_every_call_of_the_system(name: str, mode: str, folder: Path) -> None:
    command = [*SCRIPT, "faults", name, mode, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20
    assert (mode == "zeros") == ("CheckpointWarning: the last record of" in done.stderr)


def killed_until_done(name: str, device: scgpu.Device, folder: Path, number: int, seed: int) -> int:
    """Kill a process that does long work at random moments, ``number`` times or until it is done; then let it end."""
    choose = random.Random(seed)
    selector = "cpu" if device.kind == "cpu" else str(device.index)
    command = [*SCRIPT, "work", name, selector, str(LONG[name]), str(folder / "checkpoint"), str(folder / "result")]
    kills = 0
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "begun\n", process.stderr.read()
            if kills < number:
                for _ in range(choose.randrange(4)):
                    process.stdout.readline()
                time.sleep(choose.uniform(0, 0.01))
                process.kill()
            process.stdout.read()
            errors = process.stderr.read()
            process.wait()
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1


@pytest.mark.parametrize("name", WORKS)
def test_sigkill_at_random_moments(name: str, folder: Path) -> None:
    assert killed_until_done(name, CPU, folder, 6, seed=1) > 1
    assert equal(load(folder / "result"), WORKS[name](CPU, LONG[name], None))


@pytest.mark.parametrize("name", WORKS)
def test_sigkill_on_adapters(name: str, gpu: scgpu.Device, folder: Path) -> None:
    assert killed_until_done(name, gpu, folder, 1, seed=2) > 0
    assert equal(load(folder / "result"), WORKS[name](CPU, LONG[name], None))


@pytest.mark.parametrize("name", WORKS)
def test_work_goes_on_on_any_device(name: str, chosen: scgpu.Device, expected: dict[str, Any], folder: Path) -> None:
    begun(name, folder / "there")
    assert equal(WORKS[name](chosen, SIZES[name], folder / "there"), expected[name])
    begun(name, folder / "back", chosen)
    assert equal(WORKS[name](CPU, SIZES[name], folder / "back"), expected[name])


# Interrupted


@pytest.mark.parametrize("name", WORKS)
def test_ctrl_c(name: str, expected: dict[str, Any], folder: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if 0 < done < total:
            signal.raise_signal(signal.SIGINT)

    for times in range(3):
        with pytest.raises(KeyboardInterrupt):
            WORKS[name](CPU, SIZES[name], folder / "checkpoint", interrupt)
        if times == 0:
            before = (folder / "checkpoint").stat().st_size
    assert (folder / "checkpoint").stat().st_size >= before
    assert equal(WORKS[name](CPU, SIZES[name], folder / "checkpoint"), expected[name])


def test_ctrl_c_waits_for_what_is_being_written(folder: Path) -> None:
    def interrupt(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "fsync":
            signal.raise_signal(signal.SIGINT)

    with checkpoint.Log(folder / "log", Format("test", 1, "a test")) as log:
        log.begin({})
        with pytest.raises(KeyboardInterrupt), watched(interrupt):
            log.keep(lambda: ({"place": 1}, {}))
        assert log.keep(lambda: ({"place": 2}, {}))
    with checkpoint.Log(folder / "log", Format("test", 1, "a test")) as log:
        log.begin({})
        assert log.records(lambda contents: contents.header["place"]) == [1, 2]


def test_an_interrupted_network_goes_on_by_the_same_call(folder: Path) -> None:
    def made() -> scgpu.SpikingNetwork:
        return scgpu.SpikingNetwork(*checkpoint_work.everything(CPU, (3, 20, 15)))

    whole = made().run(1000, "both")
    network = made()
    for step in (200, 500):
        with pytest.raises(Stopped):
            network.run(1000, "both", checkpoint=folder / "c", progress=stop_at(step))
        assert network.recording is not None and network.recording.n_steps == network.step >= step
    assert network.run(1000, "both", checkpoint=folder / "c") == whole
    with pytest.raises(ValueError, match=r"began at step 0 and is at step 1,000 of 1,000; the network, at step 1,000"):
        network.run(1000, "both", checkpoint=folder / "c")
    network.reset()
    began = []
    assert network.run(1000, "both", checkpoint=folder / "c", progress=lambda *done: began.append(done)) == whole
    assert began == [(1000, 1000)] and network.step == 1000
    assert network.run(10) == made_at(made(), 1000).run(10)


def made_at(network: scgpu.SpikingNetwork, step: int) -> scgpu.SpikingNetwork:
    """A network that was run so far."""
    network.run(step)
    return network


def test_what_is_done_is_not_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun("run", folder / "run")
    seen: list[int] = []
    WORKS["run"](CPU, SIZES["run"], folder / "run", lambda done, total: seen.append(done))
    assert SIZES["run"] // 4 <= seen[0] < SIZES["run"]

    begun("batches", folder / "batches")
    samples: list[int] = []
    real = batches.submit_stack

    def noted(layers: Any, activations: Any, x: Any, seed: int, first_sample: int) -> Any:
        samples.extend(range(first_sample - 1000, first_sample - 1000 + len(x)))
        return real(layers, activations, x, seed, first_sample)

    monkeypatch.setattr(batches, "submit_stack", noted)
    WORKS["batches"](CPU, SIZES["batches"], folder / "batches")
    assert samples == list(range(samples[0], SIZES["batches"])) and samples[0] >= SIZES["batches"] // 4

    calls: list[int] = []
    for stop in (4, 6, 99):

        def point(k: int, stop: int = stop) -> int:
            if k == stop:
                raise KeyboardInterrupt
            calls.append(k)
            return k

        if stop < 8:
            with pytest.raises(KeyboardInterrupt):
                scgpu.sweep(point, {"k": range(8)}, checkpoint=folder / "sweep")
        else:
            assert scgpu.sweep(point, {"k": range(8)}, checkpoint=folder / "sweep") == list(range(8))
    assert calls == list(range(8))


# Out of disk


def failing(first: int, last: int, error: int) -> Callable[[int, str, tuple[Any, ...]], None]:
    """Calls of these numbers fail, writes in the middle."""

    def before(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if first <= number <= last:
            if name == "write":
                os.pwrite(arguments[0], arguments[1][: len(arguments[1]) // 2], os.lseek(arguments[0], 0, os.SEEK_CUR))
            raise OSError(error, os.strerror(error))

    return before


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", WORKS)
def test_disk_full_at_every_call(name: str, lasting: bool, expected: dict[str, Any], folder: Path) -> None:
    point = refused = warned = 0
    while True:
        path = folder / str(point)
        with (
            warnings.catch_warnings(record=True) as told,
            watched(failing(point, 10**9 if lasting else point, errno.ENOSPC)) as count,
        ):
            warnings.simplefilter("always")
            try:
                found = WORKS[name](CPU, SIZES[name], path)
            except OSError as error:  # before the first step
                assert error.errno == errno.ENOSPC and point < 12  # noqa: PT017
                refused += 1
            else:
                assert equal(found, expected[name])
                warned += any(one.category is scgpu.CheckpointWarning for one in told)
        if count[0] <= point:
            break
        assert equal(WORKS[name](CPU, SIZES[name], path), expected[name])
        point += 1
    assert point > 20 and refused > 1 and warned > 10
    assert not [one.name for one in folder.iterdir() if one.name.startswith(atomic.SCRATCH)]


def test_disk_full_where_the_system_says_so(expected: dict[str, Any], folder: Path) -> None:
    """Files may not grow past a size: a write is short, then fails."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    command = [*SCRIPT, "work", "run", "cpu", str(SIZES["run"]), str(folder / "checkpoint"), str(folder / "result")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=small)
    assert "CheckpointWarning: the checkpoint" in done.stderr and "File too large" in done.stderr
    assert 0 < (folder / "checkpoint").stat().st_size <= 30_000
    seen: list[int] = []
    found = WORKS["run"](CPU, SIZES["run"], folder / "checkpoint", lambda done, total: seen.append(done))
    assert equal(found, expected["run"]) and seen[0] > 0


def test_disk_full_on_a_file_system_that_is(expected: dict[str, Any], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip("only root mounts a small file system")
    try:
        with pytest.warns(scgpu.CheckpointWarning, match="No space left on device"):
            assert equal(WORKS["run"](CPU, SIZES["run"], disk / "checkpoint"), expected["run"])
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert equal(WORKS["run"](CPU, SIZES["run"], disk / "checkpoint"), expected["run"])
        assert sorted(one.name for one in disk.iterdir()) == ["checkpoint", "checkpoint.state"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Damaged, or of something else


@pytest.mark.parametrize("name", WORKS)
def test_damage_is_refused_or_harmless(name: str, expected: dict[str, Any], folder: Path) -> None:
    begun(name, folder / "checkpoint")
    files = {one: one.read_bytes() for one in folder.iterdir()}
    choose = random.Random(3)
    refused = 0
    for path, whole in files.items():
        places = choose.sample(range(len(whole)), 40)
        flipped = [whole[:at] + bytes([whole[at] ^ 1 << choose.randrange(8)]) + whole[at + 1 :] for at in places]
        cut = [whole[:at] for at in choose.sample(range(len(whole)), 15)]
        zeros = [whole[:at] + bytes(len(whole) - at) for at in choose.sample(range(len(whole)), 10)]
        for broken in (*flipped, *cut, *zeros, whole[:200] + whole):
            for one, content in files.items():
                one.write_bytes(content)
            path.write_bytes(broken)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", scgpu.CheckpointWarning)
                try:
                    found = WORKS[name](CPU, SIZES[name], folder / "checkpoint")
                except ValueError as error:
                    refused += 1
                    assert str(folder / "checkpoint") in str(error)  # noqa: PT017
                    assert path.read_bytes() == broken  # nothing was made worse
                else:
                    assert equal(found, expected[name]) and (name != "run" or not broken)
    assert refused > 8


def test_damage_before_the_end_is_refused_and_at_the_end_computed_again(folder: Path, expected: dict[str, Any]) -> None:
    path = folder / "checkpoint"
    WORKS["batches"](CPU, SIZES["batches"], path)
    whole = path.read_bytes()
    heads = [at for at in range(len(whole)) if whole.startswith(checkpoint.MARK, at)]
    assert len(heads) == 1 + SIZES["batches"] // 10
    for at in (heads[1] + 5, heads[1] + 12, heads[2] + 100, heads[-2] + 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"the record at byte [\d,]+ is damaged\. Give another path, or delete"):
            WORKS["batches"](CPU, SIZES["batches"], path)
    for at in (heads[-1] + 5, heads[-1] + 30, heads[-1] + 100):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.warns(scgpu.CheckpointWarning, match="the last record of .* is damaged"):
            assert equal(WORKS["batches"](CPU, SIZES["batches"], path), expected["batches"])
        assert path.read_bytes() == whole
    second, third = whole[heads[1] : heads[2]], whole[heads[2] : heads[3]]
    for swapped in (third + second, second + second + third, third):
        path.write_bytes(whole[: heads[1]] + swapped + whole[heads[3] :])
        with pytest.raises(ValueError, match="is damaged"):
            WORKS["batches"](CPU, SIZES["batches"], path)


def test_files_of_another_kind_are_refused_and_left_alone(folder: Path) -> None:
    for content in (b"hello", b"PK\x03\x04" + bytes(100), os.urandom(3000), b"0" * 60):
        (folder / "file").write_bytes(content)
        for name, work in WORKS.items():
            with pytest.raises(ValueError, match="it was not written by scgpu"):
                work(CPU, SIZES[name], folder / "file")
        assert (folder / "file").read_bytes() == content
    begun("sweep", folder / "sweep")
    with pytest.raises(ValueError, match="without the header of a row of batches"):
        WORKS["batches"](CPU, SIZES["batches"], folder / "sweep")
    with pytest.raises(FileNotFoundError):
        WORKS["sweep"](CPU, SIZES["sweep"], folder / "missing" / "sweep")
    with pytest.raises(IsADirectoryError):
        WORKS["sweep"](CPU, SIZES["sweep"], folder)


def test_a_checkpoint_of_another_version_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FORMAT", batches.FORMAT._replace(version=2))
    begun("batches", folder / "later")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it is of version 2, and this scgpu reads version 1"):
        WORKS["batches"](CPU, SIZES["batches"], folder / "later")


def test_other_batches_are_refused(folder: Path) -> None:
    path = folder / "checkpoint"
    layer = scgpu.DenseLayer(4, 3, 64, device=CPU)
    x = np.random.default_rng(0).random((9, 4))
    layer.counts_in_batches(x, 1, 2, batch_size=2, checkpoint=path)
    whole = path.read_bytes()
    other = np.where(np.arange(9)[:, None] == 5, 0.5, x)
    for found, rows, seed, first, reason in (
        (layer, other, 1, 2, r"x\[4:6\] are others now than those that it has counts of"),
        (layer, x[:5], 1, 2, "it has counts of 6 rows, and x has 5"),
        (layer, x, 2, 2, "its seed is 1, and now it is 2"),
        (layer, x, 1, 3, "its first_sample is 2, and now it is 3"),
        (scgpu.DenseLayer(4, 3, 65, device=CPU), x, 1, 2, "its layers differ from those of now"),
        (scgpu.DenseLayer(4, 3, 64, weights=layer.weights / 2, device=CPU), x, 1, 2, "its layers differ"),
        (scgpu.DenseLayer(4, 3, 64, weights=layer.weights, sng="sobol", device=CPU), x, 1, 2, "its layers differ"),
        (scgpu.Network([layer, scgpu.DenseLayer(3, 3, 64, device=CPU)]), x, 1, 2, "its layers differ"),
    ):
        with pytest.raises(ValueError, match=reason):
            found.counts_in_batches(rows, seed, first, checkpoint=path)
        assert path.read_bytes() == whole
    more = np.concatenate([x, x])
    assert np.array_equal(layer.counts_in_batches(more, 1, 2, checkpoint=path), layer.counts(more, 1, 2))


def test_another_sweep_is_refused(folder: Path) -> None:
    scgpu.sweep(abs_of, [{"x": 1}], checkpoint=folder / "checkpoint")
    with pytest.raises(ValueError, match="its function is 'abs_of', and now it is 'negative_of'"):
        scgpu.sweep(negative_of, [{"x": 1}], checkpoint=folder / "checkpoint")


def negative_of(x: int) -> int:
    """Another function to sweep."""
    return -x


def small(**changes: Any) -> scgpu.SpikingNetwork:
    """A network of which one thing may be another."""
    given = {"leak_k": 20, "weight": 90, "delay": 5, "current": 60, "name": "cells", "step_seconds": None} | changes
    cells = scgpu.Population(9, scgpu.LifParameters(given["leak_k"], 256), name=given["name"], device=CPU)
    joined = scgpu.Projection(cells, cells, np.full((9, 9), given["weight"]), delay=given["delay"])
    current = scgpu.ConstantCurrent(cells, given["current"])
    return scgpu.SpikingNetwork([cells], [joined], [current], step_seconds=given["step_seconds"])


@pytest.mark.parametrize(
    ("changes", "n_steps", "record", "reason"),
    [
        ({"leak_k": 21}, 200, "spikes", "its populations differ"),
        ({"name": "others"}, 200, "spikes", "its populations differ"),
        ({"weight": 91}, 200, "spikes", "its projections differ"),
        ({"delay": 6}, 200, "spikes", "its projections differ"),
        ({"current": 61}, 200, "spikes", "its inputs differ"),
        ({"step_seconds": 1e-3}, 200, "spikes", "its step_seconds differ"),
        ({}, 201, "spikes", "its n_steps is 200, and now it is 201"),
        ({}, 200, "both", "its record is {'cells': 'spikes'}, and now it is {'cells': 'both'}"),
    ],
)
def test_another_run_is_refused(folder: Path, changes: Any, n_steps: int, record: Any, reason: str) -> None:
    path = folder / "checkpoint"
    small().run(200, "spikes", checkpoint=path)
    with pytest.raises(ValueError, match=re.escape(reason) + r".*\. Give another path, or delete the file"):
        small(**changes).run(n_steps, record, checkpoint=path)
    small().run(200, "spikes", checkpoint=path)


def test_a_network_that_stands_elsewhere_is_refused(folder: Path) -> None:
    path = folder / "checkpoint"
    small().run(200, checkpoint=path)
    for change in (lambda one: one.run(3), lambda one: one.populations[0].set_state({"v": 1, "refractory_counter": 0})):
        network = small()
        change(network)
        with pytest.raises(ValueError, match="is neither as it was at the beginning"):
            network.run(200, checkpoint=path)
        network.run(200, checkpoint=folder / "another")
        for name in ("another", "another.state"):
            (folder / name).unlink()


def test_half_of_a_checkpoint_is_not_taken_for_a_whole_one(folder: Path) -> None:
    path, state = folder / "checkpoint", folder / "checkpoint.state"
    whole = small().run(200, "spikes", checkpoint=path)
    log, standing = path.read_bytes(), state.read_bytes()
    state.unlink()
    with pytest.raises(FileNotFoundError, match=r"it belongs to the checkpoint .* and is gone"):
        small().run(200, "spikes", checkpoint=path)
    state.write_bytes(standing)
    path.unlink()  # who deletes the checkpoint begins anew
    assert small().run(200, "spikes", checkpoint=path) == whole
    assert (path.read_bytes(), state.read_bytes()) == (log, standing)
    path.unlink()
    small().run(100, "spikes", checkpoint=path)
    state.write_bytes(standing)
    with pytest.raises(ValueError, match=r"bytes of records are not the [\d,]+ bytes that were written"):
        small().run(100, "spikes", checkpoint=path)


def test_one_process_at_a_time(folder: Path) -> None:
    path = folder / "checkpoint"

    def second(done: int, total: int) -> None:
        with pytest.raises(BlockingIOError, match="in use by other work that runs now; give another path"):
            scgpu.sweep(abs_of, [{"x": 3}], checkpoint=path)

    scgpu.sweep(abs_of, [{"x": 1}, {"x": 2}], checkpoint=path, progress=second)
    assert scgpu.sweep(abs_of, [{"x": 3}], checkpoint=path) == [3]


def abs_of(x: int) -> int:
    """A function to sweep."""
    return abs(x)


# What it costs, and where it goes


def test_a_checkpoint_does_not_cost_more_the_longer_the_run(folder: Path) -> None:
    written = [0]
    told: list[tuple[int, int]] = []

    def noted(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":
            written[0] += len(arguments[1])

    def tell(done: int, total: int) -> None:
        told.append((done, written[0]))

    with watched(noted):
        small().run(40_000, "both", checkpoint=folder / "c", checkpoint_every=0, progress=tell)
    # What is written after a segment was told is its checkpoint.
    each = [
        (here[0] - before[0], after[1] - here[1]) for before, here, after in zip(told, told[1:], told[2:], strict=False)
    ]
    steps = max(steps for steps, _ in each)
    bytes_written = [nbytes for at_once, nbytes in each if at_once == steps]
    assert len(bytes_written) > 8 and max(bytes_written) - min(bytes_written) < 100  # digits of numbers in headers


def test_a_large_checkpoint_is_several_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_checkpoint, "RECORD_BYTES", 1000)
    whole = small().run(5000, "both")
    with pytest.raises(Stopped):
        small().run(5000, "both", checkpoint=folder / "c", progress=stop_at(3000))
    assert (folder / "c").read_bytes().count(checkpoint.MARK) > 3
    assert small().run(5000, "both", checkpoint=folder / "c") == whole


def test_time_between_checkpoints(folder: Path) -> None:
    for every, fewest, most in ((0, 5, 100), (1e9, 2, 2)):
        replaced: list[str] = []
        with watched(lambda number, name, arguments, seen=replaced: seen.append(name)):
            small().run(9000, checkpoint=folder / f"{every}", checkpoint_every=every)
        assert fewest <= replaced.count("replace") <= most
    for wrong, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="checkpoint_every must be a"):
            small().run(1, checkpoint=folder / "wrong", checkpoint_every=wrong)
    assert not (folder / "wrong").exists()


def test_a_file_is_on_the_disk_before_it_takes_its_place(folder: Path) -> None:
    calls: list[str] = []
    with watched(lambda number, name, arguments: calls.append(name)), atomic.replacing(folder / "file") as file:
        file.write(b"whole")
    assert calls == ["fsync", "replace", "fsync"] and (folder / "file").read_bytes() == b"whole"
    (folder / f"{atomic.SCRATCH}own.tmp").write_bytes(b"left by one that was killed")
    with atomic.replacing(folder / "own", sole_writer=True) as file:
        file.write(b"whole")
    assert sorted(one.name for one in folder.iterdir()) == ["file", "own"]


def test_a_warning_that_is_an_error_ends_the_run_and_loses_nothing(folder: Path) -> None:
    whole = small().run(900, "spikes")
    network = small()
    with warnings.catch_warnings(), watched(failing(20, 21, errno.EIO)):
        warnings.simplefilter("error", scgpu.CheckpointWarning)
        with pytest.raises(scgpu.CheckpointWarning, match="Input/output error"):
            network.run(900, "spikes", checkpoint=folder / "c", checkpoint_every=0)
    assert network.step < 900
    assert network.run(900, "spikes", checkpoint=folder / "c") == whole
