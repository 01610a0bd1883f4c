"""Fuzz what reads text and files, guided by coverage: pip install 'scgpu[fuzz]' first.

Usage: python tools/fuzz_files.py [--seconds N] [--target NAME]

Each of `TARGETS` gets bytes that libFuzzer (by way of Atheris) makes from right ones, so that they reach new
branches of scgpu. It must end in an error that its table allows, or in something that works. Each target runs in
a process of its own, which ends at the first wrong outcome and leaves the bytes that caused it in the current
folder. Prints the executions of each, and 1 is the exit status when one was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_targets
import numpy as np

import scgpu
from scgpu import _abi, _wgsl, archive, cli, layer_file, network_file, recording, tuning
from scgpu import cache as measured
from scgpu.archive import Format
from scgpu.devices import device

INSTRUMENTED = ("scgpu", "zipfile", "json", "argparse")


class Target(NamedTuple):
    """What is run on bytes, right bytes to begin with, and what it may raise."""

    run: Callable[[bytes], Any]
    seeds: Callable[[], list[bytes]]
    errors: tuple[type[BaseException], ...] = (ValueError,)


@cache
def folder() -> Path:
    """Where files lie that are read."""
    return Path(tempfile.mkdtemp(prefix="scgpu-fuzz-"))


def _text(data: bytes) -> str:
    """Text as an environment or a command line may have it."""
    return data.decode(errors="replace").replace("\0", "")


def _network() -> bytes:
    path = folder() / "network"
    net = fuzz_targets.network(np.random.default_rng(1), "numpy")
    net.run(70)
    net.save(path)
    return path.read_bytes()


def _recording() -> bytes:
    path = folder() / "recording"
    fuzz_targets.recording(np.random.default_rng(1)).save(path)
    return path.read_bytes()


def _saved(make: Callable[..., Any]) -> bytes:
    path = folder() / "saved"
    make(np.random.default_rng(1), "numpy").save(path)
    return path.read_bytes()


def _use(layer: Any) -> None:
    layer.counts(np.zeros(layer.n_inputs))
    layer.save(folder() / "again")


def _load_network(path: Path) -> None:
    net = scgpu.SpikingNetwork.load(path, "numpy")
    net.run(3, record="both")
    net.save(folder() / "again")


def _load_recording(path: Path) -> None:
    found = scgpu.Recording.load(path)
    for record in found.values():
        record.rates()
        if record.words is not None:
            record.events()
    found.save(folder() / "again")
    if scgpu.Recording.load(folder() / "again") != found:
        raise AssertionError("what was saved is not what was loaded")


# Every kind of file: what makes a right one, and what loads it and uses what it loaded. A new kind is a new line.
FILES: dict[Format, tuple[Callable[[], bytes], Callable[[Path], None]]] = {
    network_file.FORMAT: (_network, _load_network),
    recording.FORMAT: (_recording, _load_recording),
    layer_file.LAYER: (lambda: _saved(fuzz_targets._layer), lambda path: _use(scgpu.DenseLayer.load(path, "numpy"))),
    layer_file.NETWORK: (lambda: _saved(fuzz_targets._stack), lambda path: _use(scgpu.Network.load(path, "numpy"))),
}


def _members(file: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(file)) as contents:
        return {name: contents.read(name) for name in contents.namelist()}


def _whole(make: Callable[[], bytes], load: Callable[[Path], None]) -> Target:
    """The bytes of a file, of which most are under a checksum."""

    def run(data: bytes) -> None:
        path = folder() / "file"
        path.write_bytes(data)
        load(path)

    return Target(run, lambda: [make()])


def _inside(make: Callable[[], bytes], load: Callable[[Path], None]) -> Target:
    """The bytes of one array or of the header, in a file that is right otherwise: the first byte says which."""

    def run(data: bytes) -> None:
        members = right()
        names = list(members)
        name = names[data[0] % len(names)] if data else names[0]
        path = folder() / "file"
        with path.open("w+b") as file:
            with zipfile.ZipFile(file, "w") as contents:
                for one in names:
                    contents.writestr(one, data[1:] if one == name else members[one])
            archive._seal(file)
        load(path)

    @cache
    def right() -> dict[str, bytes]:
        return _members(make())

    return Target(run, lambda: [bytes([place]) + content for place, content in enumerate(right().values())])


def _in_cache(kind: str, use: Callable[[], Any]) -> Target:
    """A file of the cache: it is used or ignored, but never an error."""
    chosen = device("numpy")

    def run(data: bytes) -> None:
        os.environ[measured.VARIABLE] = str(folder() / "cache")
        path = measured.file_of(kind, measured.device_key(chosen))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        use()

    def seeds() -> list[bytes]:
        variant = {"op": "dense", "class": "batch", "variant": _abi.OPS["dense"].variants[3]}
        rates = {"encode": 1.0, "weights": 2.0, "products": 3.0}
        key = measured.device_key(chosen)
        return [json.dumps({"key": key, "measured": one}).encode() for one in ([variant], rates, [])]

    return Target(run, seeds, errors=())


def _use_tuned() -> None:
    for (op, _), variant in tuning.load(device("numpy")).items():
        _abi.OPS[op].variants[variant]


def _environment(name: str, use: Callable[[], Any], *seeds: str) -> Target:
    """A variable of the environment."""

    def run(data: bytes) -> None:
        os.environ[name] = _text(data)
        try:
            use()
        finally:
            del os.environ[name]

    return Target(run, lambda: [seed.encode() for seed in seeds])


def _expand(data: bytes) -> None:
    place = folder() / "shaders"
    (place / "shared").mkdir(parents=True, exist_ok=True)
    (place / "shared" / "words.wgsl").write_text("#import abi\n#import other\n")
    (place / "shared" / "other.wgsl").write_bytes(data)
    (place / "count.wgsl").write_bytes(data)
    made = _wgsl.expand(_abi.OPS["count"], place)
    if max(len(made.origins), 1) != made.text.count("\n") or re.search(r"^#import\s", made.text, re.M):
        raise AssertionError("lines and their origins do not go together")
    made.locate(_text(data))


def _command_line(data: bytes) -> None:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        cli._parser().parse_args(_text(data).split("\n"))


def _selector(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for use in (scgpu.device, scgpu.get_backend):
        with contextlib.suppress(ValueError, RuntimeError):
            use(text)


NAMES = ("cpu", "numpy", "auto", "gpu", "0", "-1", "llvmpipe", "vulkan", "cpu:x86_64_v3", "\N{SUPERSCRIPT TWO}")
TARGETS: dict[str, Target] = {
    **{f"{one.kind} file": _whole(*how) for one, how in FILES.items()},
    **{f"{one.kind} content": _inside(*how) for one, how in FILES.items()},
    "tuning": _in_cache(tuning.KIND, _use_tuned),
    "selector": Target(_selector, lambda: [name.encode() for name in NAMES], errors=()),
    "SC_GPU_ADAPTER": _environment("SC_GPU_ADAPTER", lambda: scgpu.device("gpu"), *NAMES),
    "SCGPU_SIMD_TIER": _environment("SCGPU_SIMD_TIER", scgpu.simd_tier, "x86_64_v2", "v4", ""),
    "SCGPU_NUM_THREADS": _environment("SCGPU_NUM_THREADS", scgpu.num_threads, "1", "1024", "\N{SUPERSCRIPT TWO}"),
    "shader": Target(
        _expand,
        lambda: [
            b"#import abi\n#import words\nfn count() {}\n",
            b"#import other\n",
            b"wgsl:3:4",
            "#import \N{EURO SIGN}".encode(),
        ],
        errors=(_wgsl.ShaderImportError, UnicodeDecodeError),
    ),
    "command line": Target(
        _command_line,
        lambda: [
            "\n".join(words).encode()
            for words in (
                ["info", "--json"],
                ["parity", "--cases", "3"],
                ["tune", "--device", "0"],
                ["raster", "a.npz"],
            )
        ],
        errors=(SystemExit,),
    ),
}


def check(name: str, data: bytes) -> None:
    """Run a target on bytes; what it may not raise comes out."""
    target = TARGETS[name]
    with contextlib.suppress(*target.errors):
        target.run(data)


def _fuzz(name: str, seconds: float, corpus: Path) -> None:
    """Fuzz one target in this process, which ends here."""
    atheris: Any = importlib.import_module("atheris")
    for module in [module for module in sys.modules.values() if module.__name__.startswith(INSTRUMENTED)]:
        for value in list(vars(module).values()):
            if isinstance(value, type(check)) and value.__module__ == module.__name__:
                with contextlib.suppress(Exception):  # what has no bytecode to instrument
                    atheris.instrument_func(value)
    scgpu.devices()  # the search for adapters is not what is fuzzed
    check(name, TARGETS[name].seeds()[0])
    options = [f"-max_total_time={seconds:.0f}", "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: check(name, data))
    atheris.Fuzz()


def _started(name: str, seconds: float) -> tuple[int, str]:
    """Executions of a target in a process of its own, and how it ended if not well."""
    with tempfile.TemporaryDirectory() as corpus:
        for place, seed in enumerate(TARGETS[name].seeds()):
            (Path(corpus) / f"seed-{place}").write_bytes(seed)
        done = subprocess.run(
            [sys.executable, __file__, "--one", corpus, "--target", name, "--seconds", str(seconds)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    found = re.search(r"number_of_executed_units:\s+(\d+)", done.stderr)
    return int(found.group(1)) if found else 0, "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long for each target (default: 60)")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--one", metavar="CORPUS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("fuzz_files: needs Atheris; run: pip install 'scgpu[fuzz]'")
    if options.one:
        _fuzz(options.target, options.seconds, Path(options.one))
        return 0
    wrong = 0
    for name in [options.target] if options.target else TARGETS:
        executions, problem = _started(name, options.seconds)
        print(f"{name:<28}{executions:>9} executions{': WRONG' if problem else ''}", flush=True)
        if problem:
            wrong += 1
            print(problem, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
