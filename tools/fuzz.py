"""Fuzz the public interface: hostile values in the place of right ones.

Usage: python tools/fuzz.py [--seconds N] [--only NAME ...] [--device DEVICE] [--each] [--seed S]

A right call of each public name (`fuzz_targets.TARGETS`) gets one or two hostile arguments (`fuzz_values`).
It must end in an allowed exception that names an argument, or in a result: the same on the device as on the
oracle, the same as for the plain form of the arguments, and never for an argument that is no number where
one belongs. Warnings are errors. Prints how many
calls there were, and 1 is the exit status when one was wrong.
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import re
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fuzz_values
import hypothesis
import numpy as np
from fuzz_targets import TARGETS, Call, Target, runnable
from fuzz_values import Hostile
from hypothesis import strategies as st

import scgpu
from scgpu.errors import ScgpuError

LONGEST_CALL = 10.0  # seconds of the calling thread, whatever else the machine does
ALLOWED = (ValueError, TypeError, ScgpuError)
calls: Counter[str] = Counter()
accepted: Counter[str] = Counter()


class Wrong(AssertionError):  # noqa: N818
    """What the fuzzer found."""


def seen(value: Any) -> Any:
    """A result as something that can be compared with ==, to the bit."""
    if isinstance(value, scgpu.Bitstream):
        return "bits", value.shape, value.length, value.polarity, value.words.tobytes()
    if isinstance(value, scgpu.PopulationRecord):
        return [seen(getattr(value, name)) for name in value.__slots__]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("float", value.hex())
    if isinstance(value, Mapping):
        return {key: seen(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [seen(one) for one in value]
    return value


def numeric(right: Any) -> bool:
    """Whether a right value is a number, or an array of numbers."""
    if isinstance(right, (bool, str)) or right is None:
        return False
    return isinstance(right, (int, float, np.ndarray))


def run(name: str, call: Call, changes: Mapping[str, Any]) -> tuple[Any, Exception | None]:
    """The result of a call with some arguments replaced, or what it raised."""
    function, arguments = call
    calls[name] += 1
    begin = time.thread_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return seen(function(**{**arguments, **changes})), None
    except Exception as error:
        return None, error
    finally:
        if (took := time.thread_time() - begin) > LONGEST_CALL:
            raise Wrong(f"took {took:.0f} s")


def _refused(target: Target, arguments: Iterable[str], error: Exception) -> None:
    """See that an exception is one that may come, and tells what it is about."""
    if not isinstance(error, (*ALLOWED, *target.errors)):
        raise Wrong(f"raised {type(error).__name__}: {str(error)[:300]}") from error
    text = str(error)
    if isinstance(error, OSError):
        return
    if not any(re.search(rf"(?<![A-Za-z]){re.escape(name)}", text) for name in (*arguments, *target.names)):
        raise Wrong(f"names no argument: {type(error).__name__}: {text[:300]}") from error
    if len(text) > 2500:
        raise Wrong(f"tells {len(text)} characters: {text[:100]}...") from error


def check(name: str, seed: int, changes: Mapping[str, Hostile], device: str = "cpu") -> None:
    """One example: raises `Wrong` where the outcome is not allowed."""
    target = TARGETS[name]

    def call(where: str, plain: bool = False) -> tuple[Any, Exception | None]:
        made = target.make(np.random.default_rng(seed), where)
        values = {key: one.make() for key, one in changes.items()}
        if plain:
            values = {key: fuzz_values.plain(one) for key, one in values.items()}
        return run(name, made, values)

    found, error = call(device)
    if error is not None:
        _refused(target, target.make(np.random.default_rng(seed), "numpy")[1], error)
    if target.devices:
        expected, refused = call("numpy")
        if type(refused) is not type(error):
            raise Wrong(f"{device}: {error!r}, numpy: {refused!r}")
        if error is None and found != expected:
            raise Wrong(f"{device} and numpy differ: {str(found)[:200]} and {str(expected)[:200]}")
    if error is not None:
        return
    accepted[name] += 1
    _, right = target.make(np.random.default_rng(seed), "numpy")
    for key, one in changes.items():
        if numeric(right[key]) and not one.number:
            raise Wrong(f"took {one.label} as {key}")
    plain, refused = call(device, plain=True)
    if refused is not None:
        raise Wrong(f"took a form of {sorted(changes)} whose plain form it refuses: {refused!r}")
    if plain != found:
        raise Wrong(f"{str(found)[:200]}, but {str(plain)[:200]} for the plain form")


@st.composite
def examples(draw: st.DrawFn, name: str) -> tuple[int, dict[str, Hostile]]:
    """A right call, by the seed of its random numbers, and what to replace in it."""
    target = TARGETS[name]
    seed = draw(st.integers(0, 2**32 - 1))
    _, arguments = target.make(np.random.default_rng(seed), "numpy")
    if not arguments:
        return seed, {}
    names = st.sampled_from(sorted(arguments))
    changed = {draw(names)} | ({draw(names)} if draw(st.integers(0, 2)) == 0 else set())
    # An index of a device would be right: which one runs is the caller's choice.
    limits = {"device": -1, "backend": -1, **target.limits}
    return seed, {
        key: draw(fuzz_values.hostile(arguments[key], limits.get(key, fuzz_values.SMALL))) for key in sorted(changed)
    }


def fuzz(name: str, number: int, seed: int | None = None, device: str = "cpu") -> None:
    """``number`` examples of one function, the same ones for the same seed; raises at the first wrong one."""
    last: list[str] = []

    @hypothesis.settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=seed is None,
        phases=(hypothesis.Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(examples(name))
    def one(example: tuple[int, dict[str, Hostile]]) -> None:
        begin, changes = example
        last[:] = [f"{name} ({begin}) with " + ", ".join(f"{key} = {value.label}" for key, value in changes.items())]
        check(name, begin, changes, device)

    try:
        (one if seed is None else hypothesis.seed(seed)(one))()
    except Wrong as wrong:
        raise Wrong(f"{last[0]}: {wrong}") from wrong.__cause__
    except hypothesis.errors.Flaky as flaky:
        raise Wrong(f"{last[0]}: not the same the second time") from flaky


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--only", nargs="+", choices=TARGETS, metavar="NAME", help="only these functions")
    parser.add_argument("--device", default="cpu", help="compared with the oracle (default: cpu)")
    parser.add_argument("--each", action="store_true", help="print the calls of each function")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round (default: 0)")
    options = parser.parse_args()
    end, round_number, found = time.monotonic() + options.seconds, options.seed, 0
    while time.monotonic() < end:
        for name in options.only or runnable():
            faulthandler.dump_traceback_later(120, exit=True)  # a call that never ends
            try:
                fuzz(name, 5 if TARGETS[name].slow else 40, round_number, options.device)
            except Wrong as wrong:
                found += 1
                print(f"WRONG {wrong}", flush=True)
            if time.monotonic() > end:
                break
        round_number += 1
    faulthandler.cancel_dump_traceback_later()
    for name in (options.only or runnable()) if options.each else ():
        print(f"{name:<32}{calls[name]:>8} calls, {accepted[name]:>7} examples with a result")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    least = min(calls[name] for name in options.only or runnable())
    most = calls.most_common(1)[0][1]
    print(
        f"{calls.total()} calls of {len(calls)} functions ({least} to {most} of each), {accepted.total()} examples "
        f"with a result, {found} wrong; {peak:.0f} MiB at most"
    )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
