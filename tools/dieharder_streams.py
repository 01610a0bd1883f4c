"""Feed fair bitstreams to dieharder (Debian package ``dieharder``), and say what it found.

Usage: python tools/dieharder_streams.py [--seed S] [--sng NAME] [--tests 0 1 2 ...] [--device DEVICE]

Streams of 65,536 bits with p = 1/2 follow one another: 256 of a sample, then the next sample. Not a part of the
test suite: a whole run takes hours. Of 100 p-values of a good generator about one is WEAK.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

import numpy as np

import scgpu

STREAMS, LENGTH = 256, 1 << 16
QUICK = (0, 2, 8, 15, 17, 100, 101, 102)  # birthdays, ranks, ones, spheres, craps, serial and monobit tests


def feed(process: subprocess.Popen[bytes], seed: int, sng: str, device: str) -> None:
    """Write streams until dieharder has enough."""
    assert process.stdin is not None
    sample = 0
    try:
        while True:
            p = np.full((1, STREAMS), 0.5)
            if sng == "bernoulli":
                streams = scgpu.encode(p, LENGTH, seed, first_sample=sample, device=device)
            else:
                streams = scgpu.encode(p, LENGTH, seed + sample, sng=sng, device=device)  # type: ignore[arg-type]
            process.stdin.write(streams.words.tobytes())
            sample += 1
    except BrokenPipeError:
        pass  # the test has read enough


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the streams (default: 0)")
    parser.add_argument("--sng", default="bernoulli", help="generator, as scgpu.encode names it (default: bernoulli)")
    parser.add_argument("--tests", type=int, nargs="+", default=list(QUICK), help="numbers of dieharder's tests (-l)")
    parser.add_argument("--device", default="cpu", help="where to make the streams (default: cpu)")
    options = parser.parse_args()
    program = shutil.which("dieharder")
    if program is None:
        print("dieharder is not installed; on Debian: apt-get install dieharder", file=sys.stderr)
        return 2
    failed = 0
    for test in options.tests:
        command = [
            program,
            "-g",
            "200",
            "-d",
            str(test),
            "-D",
            "test_name",
            "-D",
            "ntuple",
            "-D",
            "pvalues",
            "-D",
            "assessment",
        ]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        feed(process, options.seed, options.sng, options.device)
        assert process.stdout is not None
        report = process.stdout.read().decode()
        process.wait()
        print(report, end="", flush=True)
        failed += report.count("FAILED")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
