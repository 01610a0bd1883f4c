"""Files of networks: what stands in them, and every way in which one can be broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recording import sealed
from test_spiking_network import everything

import scgpu

Header = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with one of everything, somewhere in the middle."""
    path = tmp_path_factory.mktemp("network") / "network.npz"
    network = scgpu.SpikingNetwork(*everything(scgpu.device("numpy"), (3, 20, 15)), step_seconds=1e-4)
    network.run(100)
    network.save(path)
    return path


def test_a_file_is_plain_arrays_and_a_header(saved: Path, tmp_path: Path) -> None:
    with np.load(saved, allow_pickle=False) as stored:
        header = json.loads(bytes(stored["header"]))
        assert (header["format"], header["version"], header["step"]) == ("scgpu spiking network", 1, 100)
        assert stored["populations.0.table"].shape == (6, 37) and stored["populations.1.table"].shape == (6, 1)
        assert [one["kind"] for one in header["sources"]] == ["bernoulli", "train"]
    scgpu.SpikingNetwork.load(saved, "numpy").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def rewritten(saved: Path, path: Path, change: Callable[[Header, dict[str, Any]], None]) -> Path:
    """The file with something else in it."""
    with np.load(saved) as stored:
        held: dict[str, Any] = {name: stored[name] for name in stored.files}
    header = json.loads(bytes(held["header"]))
    change(header, held)
    held["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **{name: array for name, array in held.items() if array is not None})
    return sealed(path)


def entry(*keys: Any, value: Any) -> Callable[[Header, dict[str, Any]], None]:
    """Set something in the header."""

    def change(header: Header, held: dict[str, Any]) -> None:
        place: Any = header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def array(name: str, value: Any) -> Callable[[Header, dict[str, Any]], None]:
    """Replace an array, or leave it away (None)."""

    def change(header: Header, held: dict[str, Any]) -> None:
        held[name] = value

    return change


CHANGES = [
    (entry("version", value=2), "it is of version 2, and this scgpu reads version 1"),
    (entry("format", value="scgpu recording"), "without the header of a spiking network"),
    (entry("step", value=-1), "step must be from 0"),
    (entry("step", value=2**32), "step must be from 0"),
    (entry("step_seconds", value="fast"), "step_seconds must be a number"),
    (entry("populations", value=[]), "does not fit together|must not be empty"),
    (entry("populations", value=None), "NoneType"),
    (entry("populations", 0, "count", value=38), r"table must have shape \(6, 1\) or \(6, 38\)"),
    (entry("populations", 0, "count", value=0), "count must be from 1"),
    (entry("populations", 0, "fraction", value=99), "fraction"),
    (entry("populations", 0, "name", value="second"), "both called 'second'"),
    (entry("populations", 0, value={}), "does not fit together .KeyError: 'count'"),
    (entry("sources", 0, "kind", value="noise"), "kind must be one of 'bernoulli', 'train'; got 'noise'"),
    (entry("sources", 1, "length", value=900), r"words must be uint64 of shape \(3, 15\)"),
    (entry("projections", 0, "source", value=7), "does not fit together .IndexError"),
    (entry("projections", 0, "source_kind", value="others"), "does not fit together .KeyError"),
    (entry("projections", 0, "target", value=-1), "target must be from 0"),
    (entry("projections", 0, "delay", value=0), "delay must be from 1"),
    (entry("projections", 1, "target", value=0), "projections.1 is of 37 x 37, not 296"),
    (entry("projections", 5, "plasticity", "w_min", value=5000), "w_max must be from 5000"),
    (entry("projections", 5, "plasticity", "speed", value=1), "speed"),
    (entry("inputs", 0, "kind", value="other"), "kind must be one of 'constant', 'array', 'poisson'"),
    (entry("inputs", 3, "mean", value=-1.0), "mean must be from"),
    (array("populations.0.state", None), "the array populations.0.state is missing"),
    (array("populations.0.state", np.zeros(74, np.int32)), "populations.0.state must be int16"),
    (array("populations.1.inbox", np.zeros(3, np.int32)), "populations.1.inbox of 3 is too short for a delay of 20"),
    (array("populations.1.inbox", np.zeros(3 << 8, np.int32)), "populations.1.inbox must be int32 of shape"),
    (array("projections.0.targets", None), "the array projections.0.targets is missing"),
    (array("projections.6.source_traces", np.zeros(2, np.int32)), "projections.6.source_traces must be int32"),
    (array("sources.1.words", np.full((3, 2), 2**64 - 1, np.uint64)), "words has ones past length=90"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES, ids=[text for _, text in CHANGES])
def test_load_rejects(saved: Path, tmp_path: Path, change: Any, text: str) -> None:
    path = rewritten(saved, tmp_path / "broken.npz", change)
    with pytest.raises(ValueError, match=text) as caught:
        scgpu.SpikingNetwork.load(path, "numpy")
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded as a spiking network: ")


def test_wrong_synapses_in_a_file_reach_no_kernel(saved: Path, tmp_path: Path) -> None:
    with np.load(saved) as stored:
        targets = stored["projections.0.targets"].copy()
    targets[-1] = 37
    path = rewritten(saved, tmp_path / "broken.npz", array("projections.0.targets", targets))
    with pytest.raises(ValueError, match=r"weights\.indices must be 0 to 36, .*; got 37"):
        scgpu.SpikingNetwork.load(path, "numpy")


def test_every_file_that_was_cut_short_is_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    short = tmp_path / "short"
    for length in (0, 3, 4, 100, len(whole) // 2, len(whole) - 1):
        short.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be loaded as a spiking network: "):
            scgpu.SpikingNetwork.load(short, "numpy")


def test_files_of_another_kind_are_named(saved: Path, tmp_path: Path) -> None:
    scgpu.Recording([], first_step=0, n_steps=0).save(tmp_path / "recording")
    with pytest.raises(ValueError, match=r"header of a spiking network; it was not written by SpikingNetwork\.save"):
        scgpu.SpikingNetwork.load(tmp_path / "recording")
    with pytest.raises(ValueError, match=r"header of a recording; it was not written by Recording\.save"):
        scgpu.Recording.load(saved)
    with pytest.raises(FileNotFoundError):
        scgpu.SpikingNetwork.load(tmp_path / "nothing")
    with pytest.raises(scgpu.DeviceError):
        scgpu.SpikingNetwork.load(saved, "no such device")


def test_a_file_that_cannot_be_written_is_named(saved: Path, tmp_path: Path) -> None:
    network = scgpu.SpikingNetwork.load(saved, "numpy")
    before = copy.deepcopy(network.populations[0].get_state())
    with pytest.raises(FileNotFoundError, match="missing/network"):
        network.save(tmp_path / "missing" / "network")
    assert not list(tmp_path.iterdir()) and np.array_equal(network.populations[0].get_state()["v"], before["v"])
