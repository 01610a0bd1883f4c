"""Long work that keeps checkpoints, for tests to interrupt: in their own process, in a fork of it, or as a script.

Usage: python tests/checkpoint_work.py work NAME DEVICE SIZE PATH RESULT
       python tests/checkpoint_work.py faults NAME MODE FOLDER

The first does some work, says "begun" before and how far it is, and saves what comes of it. The second does it
again and again and dies at every write, synchronisation, truncation and renaming in turn, each time in a fork; then
goes on and compares.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from test_spiking_network import everything

import scgpu
from scgpu import network_checkpoint
from scgpu.checkpoint import MARK, read_state
from scgpu.network_checkpoint import Stand

Tell = Callable[[int, int], None]
Result = list[NDArray[Any]]
CALLS = ("write", "fsync", "ftruncate", "replace")
SIZES = {"run": 330, "batches": 50, "sweep": 3}  # of work that is over soon


def run(device: scgpu.Device, size: int, path: Path | None, tell: Tell | bool = False) -> Result:
    """Some steps of a network of everything, from the middle of a word of spikes on, with a checkpoint per segment."""
    network = scgpu.SpikingNetwork(*everything(device, (3, 20, 15)))
    network.run(37, progress=False)
    recording = network.run(
        size, {"first": "both", "second": "counts"}, checkpoint=path, checkpoint_every=0, progress=tell
    )
    states = [state for one in network.populations for state in one.get_state().values()]
    records = [
        array for one in recording.values() for array in (one.words, one.voltages, one.counts) if array is not None
    ]
    return [*records, *states, *(one.weights for one in network.projections), np.array(network.step)]


def batches(device: scgpu.Device, size: int, path: Path | None, tell: Tell | bool = False) -> Result:
    """Counts of a stack of layers for rows of numbers, ten at a time."""
    layers = [
        scgpu.DenseLayer(9, 7, 100, polarity="bipolar", device=device),
        scgpu.DenseLayer(7, 3, 70, polarity="bipolar", sng=scgpu.sng.Sobol(), device=device),
    ]
    x = np.random.default_rng(1).uniform(-1, 1, (size, 9))
    stack = scgpu.Network(layers, scgpu.Activation("relu", 2.0))
    return [stack.counts_in_batches(x, 5, 1000, batch_size=10, checkpoint=path, progress=tell)]


def sweep(device: scgpu.Device, size: int, path: Path | None, tell: Tell | bool = False) -> Result:
    """Streams at several points: numbers and arrays."""

    def point(p: float, seed: int) -> dict[str, Any]:
        streams = scgpu.encode([p, 1 - p], 99, seed, device=device)
        return {"words": streams.words, "ones": int(streams.count().sum()), "mean": np.float64(streams.value().mean())}

    points = {"p": np.linspace(0, 1, size), "seed": [1, 2]}
    found = scgpu.sweep(point, points, checkpoint=path, progress=tell)
    return [np.asarray(value) for one in found for value in one.values()]


WORKS: dict[str, Callable[..., Result]] = {"run": run, "batches": batches, "sweep": sweep}


def equal(found: Result, expected: Result) -> bool:
    """The same arrays of the same types."""
    return len(found) == len(expected) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(found, expected, strict=True)
    )


def save(path: Path, result: Result) -> None:
    """Write a result."""
    with path.open("wb") as file:
        np.savez(file, *result)


def load(path: Path) -> Result:
    """Read one."""
    with np.load(path, allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]


@contextmanager
def watched(before: Callable[[int, str, tuple[Any, ...]], None]) -> Iterator[list[int]]:
    """Call ``before`` with the number, name and arguments of each call of the system that changes files."""
    count = [0]
    real = {name: getattr(os, name) for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            number, count[0] = count[0], count[0] + 1
            before(number, name, arguments)
            return real[name](*arguments)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))
    try:
        yield count
    finally:
        for name, function in real.items():
            setattr(os, name, function)


class Machine:
    """What would be on the disk if the power went now.

    Files lose what was not synchronised ("cut": they end there; "zeros": they have their length), and a file that
    was replaced is the old one until the folder is synchronised.
    """

    def __init__(self) -> None:
        self.durable: dict[int, int] = {}
        self.replaced: list[tuple[str, bytes | None]] = []

    def note(self, name: str, arguments: tuple[Any, ...]) -> None:
        """A call of the system is about to be made."""
        if name == "write":
            self.durable.setdefault(arguments[0], os.fstat(arguments[0]).st_size)
        elif name == "fsync":
            self.durable.pop(arguments[0], None)
            if Path(f"/proc/self/fd/{arguments[0]}").is_dir():
                self.replaced.clear()
        elif name == "replace":
            target = Path(arguments[1])
            self.replaced.append((str(target), target.read_bytes() if target.exists() else None))

    def power_off(self, mode: str) -> None:
        """Undo what was not on the disk."""
        for file, size in self.durable.items():
            length = os.fstat(file).st_size
            os.truncate(f"/proc/self/fd/{file}", size)
            if mode == "zeros":
                os.truncate(f"/proc/self/fd/{file}", length)
        for path, content in reversed(self.replaced):
            if content is None:
                Path(path).unlink()
            else:
                Path(path).write_bytes(content)


def kept(name: str, path: Path) -> int:
    """How far a checkpoint is."""
    if name == "run":
        state = Path(f"{path}.state")
        return read_state(str(state), network_checkpoint.FORMAT, Stand.read).done if state.exists() else 0
    records = path.read_bytes().count(MARK) if path.exists() else 0
    return max(records - 1, 0) * {"batches": 10, "sweep": 1}[name]


def die_at(point: int, mode: str, name: str, device: scgpu.Device, path: Path, far: Path) -> None:
    """Do work in this process, which is killed at one call of the system, within it where it is a write.

    A file says how far the checkpoint must be then.
    """
    machine = Machine()
    told = [0, 0]

    def tell(done: int, total: int) -> None:
        # A run tells how far it is before its checkpoint, the others after it.
        told[:] = told[1], done

    def before(number: int, call: str, arguments: tuple[Any, ...]) -> None:
        if number == point and call == "write":
            part = arguments[1][: len(arguments[1]) // 2]
            machine.note(call, arguments)
            os.pwrite(arguments[0], part, os.lseek(arguments[0], 0, os.SEEK_CUR))
        if number == point:
            if mode != "kill":
                machine.power_off(mode)
            far.write_text(str(told[0] if name == "run" else told[1]))
            os.kill(os.getpid(), signal.SIGKILL)
        machine.note(call, arguments)

    with watched(before):
        WORKS[name](device, SIZES[name], path, tell)


def in_a_fork(task: Callable[[], None]) -> int:
    """Status of a process that does something; this one does nothing but wait, so that no thread is lost."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        task()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def faults(name: str, mode: str, folder: Path) -> int:
    """Die at every point, go on, compare; how many there were."""
    device, size, path = scgpu.device("cpu"), SIZES[name], folder / "work" / "checkpoint"
    expected, far = folder / "expected", folder / "far"
    path.parent.mkdir()
    names = {"checkpoint", "checkpoint.state"} if name == "run" else {"checkpoint"}

    def goes_on() -> None:
        assert kept(name, path) >= int(far.read_text()), f"work was lost by {mode} at {point}"
        assert equal(WORKS[name](device, size, path), load(expected)), f"other bits after {mode} at {point}"
        assert equal(WORKS[name](device, size, path), load(expected)), f"other bits of what is over, {mode} at {point}"

    assert in_a_fork(lambda: save(expected, WORKS[name](device, size, None))) == 0
    point = 0
    while True:
        status = in_a_fork(partial(die_at, point, mode, name, device, path, far))
        if not os.WIFSIGNALED(status):
            assert status == 0
            return point
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert in_a_fork(goes_on) == 0, (mode, point)
        assert {one.name for one in path.parent.iterdir()} == names  # nothing piles up
        for one in names:
            (path.parent / one).unlink()
        point += 1


def main(kind: str, *words: str) -> None:
    """One of the two usages."""
    if kind == "faults":
        name, mode, folder = words
        print(faults(name, mode, Path(folder)))
        return
    name, device, size, path, result = words
    chosen = scgpu.device(device)
    print("begun", flush=True)
    save(Path(result), WORKS[name](chosen, int(size), Path(path), lambda done, total: print(done, flush=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
