"""Hostile arguments of every public function end in a typed error that names one, or in the right bits."""

from __future__ import annotations

import inspect
import os
from typing import Any

import fuzz
import fuzz_values
import numpy as np
import pytest
from fuzz_targets import NOT_FUZZED, TARGETS, Target, runnable

import scgpu

EXAMPLES = int(os.environ.get("SCGPU_FUZZ", "16"))  # of each function; tools/fuzz.py goes on for as long as it is told

OPERATORS = {"__and__", "__or__", "__xor__", "__invert__", "__eq__", "__getitem__", "__iter__", "__len__"}
# From Mapping, by way of the operators above.
INHERITED = {"get", "items", "keys", "values"}


def public_methods(name: str, kind: type[Any]) -> set[str]:
    """Methods, and properties that can be set, of a public class."""
    found = set()
    for one in dir(kind):
        given = inspect.getattr_static(kind, one)
        if isinstance(given, property):
            settable = given.fset is not None
        else:
            settable = callable(given) or isinstance(given, (classmethod, staticmethod))
        own = one in vars(kind) and one in OPERATORS
        if settable and (own or not one.startswith("_")) and one not in INHERITED:
            found.add(f"{name}.{one}")
    return found


def test_every_public_name_is_fuzzed() -> None:
    wanted = set(scgpu.__all__)
    for name in scgpu.__all__:
        kind = getattr(scgpu, name)
        # dataclasses compare by their fields
        if inspect.isclass(kind) and not issubclass(kind, Exception) and name != "Device":
            wanted |= public_methods(name, kind) - {f"{name}.__eq__"} | ({f"{name}.__eq__"} & TARGETS.keys())
    assert wanted - TARGETS.keys() - NOT_FUZZED.keys() == set()
    assert {name for name in TARGETS.keys() | NOT_FUZZED.keys() if not name.startswith("sng.")} - wanted == set()


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_arguments(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if TARGETS[name].slow:
        pytest.importorskip("matplotlib", reason="needs the extra scgpu[plot]")
    if name not in runnable():
        pytest.skip("needs a GPU adapter")
    monkeypatch.chdir(tmp_path)  # some hostile values are names of files
    for seed in range(2):  # the right call itself
        fuzz.check(name, seed, {})
    fuzz.fuzz(name, max(2, EXAMPLES // 4) if TARGETS[name].slow else EXAMPLES)


def _target(function: Any, **given: Any) -> Target:
    return Target(lambda rng, device: (function, dict(given)), devices=False)


def _by_memory(x: Any) -> Any:
    return np.frombuffer(np.asarray(x).tobytes(order="A"), np.float64).copy()


def _raising(x: Any) -> Any:
    raise ValueError("something is wrong")


@pytest.mark.parametrize(
    ("function", "label", "what"),
    [
        (float, "'1'", "took '1' as x"),
        (lambda x: [][3], "None", "raised IndexError"),
        (_raising, "None", "names no argument"),
        (lambda x: np.float64(1) / 0, "3", "raised RuntimeWarning"),
        (lambda x: str(type(x)), "an int of a subclass", "for the plain form"),
    ],
)
def test_the_fuzzer_sees_what_is_wrong(function: Any, label: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "wrong", _target(lambda x: function(x), x=1.0))
    known = (*fuzz_values.NUMBERS, *fuzz_values.OTHERS, fuzz_values.NONE)
    (hostile,) = [one for one in known if one.label == label]
    with pytest.raises(fuzz.Wrong, match=what):
        fuzz.check("wrong", 0, {"x": hostile})


def test_the_fuzzer_sees_an_array_read_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "wrong", _target(_by_memory, x=np.arange(6.0).reshape(2, 3)))
    turned = fuzz_values.Hostile("turned", lambda: np.arange(6.0).reshape(2, 3, order="F"))
    with pytest.raises(fuzz.Wrong, match="for the plain form"):
        fuzz.check("wrong", 0, {"x": turned})


def test_the_fuzzer_sees_devices_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Target(lambda rng, device: (lambda x: device, {"x": 3}))
    monkeypatch.setitem(TARGETS, "wrong", other)
    with pytest.raises(fuzz.Wrong, match="cpu and numpy differ"):
        fuzz.check("wrong", 0, {})


def test_messages_stay_short_whatever_is_wrong() -> None:
    for value in (fuzz_values.Failing(), fuzz_values._deep(), "w" * 10**6, 10**6000):
        with pytest.raises((ValueError, TypeError), match="length must be") as caught:
            scgpu.encode(0.5, value)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 1000
