"""Recordings: what they say of spikes, against the plainest loops; files, whole, damaged and foreign."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu import PopulationRecord, Recording, archive, recording
from scgpu.atomic import SCRATCH, replacing

EDGES = (0, 1, 63, 64, 65, 200)


def record_of(
    bits: np.ndarray[Any, Any], name: str = "exc", first_step: int = 0, **more: np.ndarray[Any, Any]
) -> PopulationRecord:
    """The record of spikes given as single bits."""
    count, n_steps = bits.shape
    words = scgpu.pack(bits) if bits.size else np.zeros((count, -(-n_steps // 64)), np.uint64)
    return PopulationRecord(name, count, first_step=first_step, n_steps=n_steps, words=words, **more)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def random_bits(count: int, n_steps: int, seed: int = 0, rate: float = 0.1) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).random((count, n_steps)) < rate).astype(np.uint8)


def example(n_steps: int = 130, first_step: int = 7) -> Recording:
    """Two populations, one with spikes and voltages, one with counts alone."""
    bits = random_bits(5, n_steps)
    voltages = np.random.default_rng(1).integers(-(2**15), 2**15, (5, n_steps)).astype(np.int16)
    inh = PopulationRecord("inh/ü", 3, first_step=first_step, n_steps=n_steps, counts=np.arange(3, dtype=np.uint64))
    records = [record_of(bits, "exc", first_step, voltages=voltages), inh]
    return Recording(records, first_step=first_step, n_steps=n_steps, step_seconds=1e-4)


@pytest.mark.parametrize(("count", "n_steps"), list(itertools.product((0, 1, 3, 70), EDGES)))
def test_events_rates_and_bins_equal_plain_loops(count: int, n_steps: int) -> None:
    bits = random_bits(count, n_steps, seed=n_steps, rate=0.3)
    record = record_of(bits, first_step=1000)
    plain = [(1000 + t, i) for t in range(n_steps) for i in range(count) if bits[i, t]]
    steps, neurons = record.events()
    assert steps.dtype == neurons.dtype == np.int64
    assert list(zip(steps.tolist(), neurons.tolist(), strict=True)) == plain
    assert np.array_equal(record.counts, bits.sum(axis=1))
    if n_steps:
        assert np.array_equal(record.rates(), bits.sum(axis=1) / n_steps)
        assert np.array_equal(record.spikes("numpy").bits(), bits)
    for width in (1, 7, 64, 100, 1000):
        rate = record.population_rate(width)
        assert rate.shape == (-(-n_steps // width),)
        parts = [bits[:, t : t + width] for t in range(0, n_steps, width)]
        assert rate.tolist() == [part.sum() / part.size for part in parts] if count else np.isnan(rate).all()


@given(st.integers(0, 130), st.integers(0, 130), st.integers(1, 70), st.integers(0, 2**32))
def test_a_part_is_a_part(one: int, other: int, width: int, seed: int) -> None:
    low, high = sorted((one, other))
    bits = random_bits(6, 130, seed)
    record = record_of(bits, first_step=50)
    chosen = np.random.default_rng(seed).permutation(6)[:4]
    steps, neurons = record.events(50 + low, 50 + high, neurons=chosen)
    plain = [(50 + t, i) for t in range(low, high) for i in range(6) if bits[i, t] and i in chosen]
    assert list(zip(steps.tolist(), neurons.tolist(), strict=True)) == plain
    parts = [bits[:, t : min(t + width, high)] for t in range(low, high, width)]
    assert record.population_rate(width, 50 + low, 50 + high).tolist() == [part.sum() / part.size for part in parts]


def test_large_records_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(random_bits(40, 500, rate=0.5))
    whole = record.events(), record.population_rate(30), record.cv_isi()
    monkeypatch.setattr(recording, "PIECE_WORDS", 3)
    pieces = record.events(), record.population_rate(30), record.cv_isi()
    for expected, found in zip((*whole[0], *whole[1:]), (*pieces[0], *pieces[1:]), strict=True):
        assert np.array_equal(expected, found)


@pytest.mark.parametrize("width", [1, 63, 64, 65, 500])
def test_bins_of_many_neurons_that_all_fire(width: int) -> None:
    record = record_of(np.ones((600, 500), np.uint8))  # more than 8 bits of spikes at a step
    assert record.population_rate(width).tolist() == [1.0] * -(-500 // width)


def test_cv_isi_known_answers() -> None:
    bits = np.zeros((6, 100), np.uint8)
    bits[1, [5]] = bits[2, [5, 9]] = 1  # too few
    bits[3, ::7] = 1  # a clock
    bits[4, [10, 20, 50]] = 1  # intervals 10 and 30: mean 20, deviation 10
    bits[5, [0, 1, 2, 99]] = 1  # 1, 1, 97
    cv = record_of(bits).cv_isi()
    assert np.isnan(cv[:3]).all()
    assert cv[3] == 0.0 and cv[4] == 0.5
    assert cv[5] == pytest.approx(np.std([1, 1, 97]) / 33, rel=1e-15)
    assert record_of(np.zeros((0, 10), np.uint8)).cv_isi().shape == (0,)
    assert record_of(bits).cv_isi(neurons=[4, 3]).tolist() == [0.5, 0.0]


def test_cv_isi_of_random_spikes_is_that_of_a_geometric_distribution() -> None:
    cv = record_of(random_bits(50, 20_000, rate=0.2)).cv_isi()
    assert cv.mean() == pytest.approx(np.sqrt(0.8), abs=0.02)


def test_spikes_need_steps_and_words() -> None:
    with pytest.raises(ValueError, match="has no steps"):
        record_of(np.zeros((2, 0), np.uint8)).spikes()
    assert np.isnan(record_of(np.zeros((2, 0), np.uint8)).rates()).all()
    counted = example()["inh/ü"]
    for ask in (counted.spikes, counted.events, counted.population_rate, counted.cv_isi):
        with pytest.raises(ValueError, match=r"of 'inh/ü' were not recorded; run with record=\{'inh/ü': 'spikes'"):
            ask()
    assert counted.rates().tolist() == [0, 1 / 130, 2 / 130]


def test_recording_is_a_mapping() -> None:
    found = example()
    assert list(found) == ["exc", "inh/ü"] and len(found) == 2 and "exc" in found and "other" not in found
    with pytest.raises(KeyError, match="no population 'other' in this recording; it has 'exc', 'inh/ü'"):
        found["other"]
    assert found == example() and found != example(131) and found != Recording([], first_step=7, n_steps=130)
    assert repr(found) == "Recording(130 steps from 7, {'exc': 5 neurons, 'inh/ü': 3 neurons})"
    assert repr(found["exc"]) == "PopulationRecord('exc', 5 neurons, 130 steps from 7: words, voltages, counts)"
    assert repr(found["inh/ü"]).endswith("130 steps from 7: counts)")
    for name in recording.ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(found["exc"], name)[0] = 0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"name": ""}, ValueError, "name must be a word"),
        ({"count": -1}, ValueError, "count must be from 0"),
        ({"n_steps": 2**32 - 5}, ValueError, "n_steps must be from 0 to 4294967285"),
        ({"first_step": 0.5}, TypeError, "first_step must be an integer"),
        ({"n_steps": 129}, ValueError, "words has ones past length=129 in stream"),
        ({"n_steps": 100}, ValueError, r"voltages must have shape \(5, 100\), for 5 neurons and 100 steps"),
        ({"words": np.zeros((5, 2), np.uint64)}, ValueError, r"words must have shape \(5, 3\).*got \(5, 2\)"),
        ({"words": np.zeros((5, 3), np.int64)}, TypeError, "words must be an ndarray of uint64; got dtype int64"),
        ({"voltages": np.zeros((5, 130), np.float32)}, TypeError, "voltages must be an ndarray of int16"),
        ({"voltages": [[0]]}, TypeError, "got list"),
        ({"counts": np.zeros(5, np.uint64)}, ValueError, "counts of neuron 0 must be .*, the ones in words; got 0"),
        ({"counts": np.zeros(4, np.uint64)}, ValueError, r"counts must have shape \(5,\)"),
        ({"words": None, "counts": None}, ValueError, "counts must be given where words is None"),
        (
            {"words": None, "counts": np.full(5, 131, np.uint64)},
            ValueError,
            "counts of neuron 0 must be at most 130, the steps; got 131",
        ),
    ],
)
def test_record_rejects(change: dict[str, Any], error: type[Exception], text: str) -> None:
    bits = random_bits(5, 130, rate=0.9)
    bits[:, 129] = 1
    good: dict[str, Any] = {
        "name": "exc",
        "count": 5,
        "first_step": 10,
        "n_steps": 130,
        "words": scgpu.pack(bits),
        "counts": bits.sum(axis=1, dtype=np.uint64),
    }
    if "n_steps" in change and change["n_steps"] == 100:
        good["voltages"] = np.zeros((5, 130), np.int16)
    PopulationRecord(**good)
    with pytest.raises(error, match=text):
        PopulationRecord(**{**good, **change})


def test_parts_are_rejected() -> None:
    record = example()["exc"]
    for arguments, text in (
        ((6, None), "begin must be from 7 to 137; got 6"),
        ((7, 138), "end must be from 7 to 137; got 138"),
        ((20, 19), "end must be from 20 to 137; got 19"),
    ):
        with pytest.raises(ValueError, match=text):
            record.events(*arguments)
        with pytest.raises(ValueError, match=text):
            record.population_rate(1, *arguments)
    with pytest.raises(ValueError, match="bin_steps must be from 1"):
        record.population_rate(0)
    for neurons, text in (
        ([5], "from 0 to 4; got 5"),
        ([-1], "got -1"),
        ([1, 1], "twice"),
        ([0.5], "integers"),
        (3, "row"),
    ):
        with pytest.raises(ValueError, match=text):
            record.events(neurons=neurons)
    assert record.events(neurons=[])[0].shape == (0,)


def test_recording_rejects() -> None:
    record = example()["exc"]
    steps: dict[str, Any] = {"first_step": 7, "n_steps": 130}
    with pytest.raises(ValueError, match="got 'exc' twice"):
        Recording([record, record], **steps)
    with pytest.raises(ValueError, match="must be of the 130 steps from 8; 'exc' is of 130 from 7"):
        Recording([record], first_step=8, n_steps=130)
    with pytest.raises(TypeError, match="records must be a sequence of PopulationRecord; got dict"):
        Recording({"exc": record}, **steps)  # type: ignore[arg-type]
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="step_seconds must be finite and above 0"):
            Recording([record], step_seconds=wrong, **steps)
    with pytest.raises(TypeError, match="step_seconds must be a number"):
        Recording([record], step_seconds="1 ms", **steps)  # type: ignore[arg-type]


names = st.lists(st.text(min_size=1, max_size=8), max_size=3, unique=True)


@given(names, st.sampled_from(EDGES), st.integers(0, 2**31), st.none() | st.floats(1e-9, 10), st.integers(0, 2**32))
def test_what_is_loaded_is_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    n_steps: int,
    first_step: int,
    step_seconds: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    records = []
    for name in names:
        count = int(rng.choice([0, 1, 2, 65]))
        bits = random_bits(count, n_steps, seed, rate=rng.random())
        full = record_of(bits, name, first_step, voltages=rng.integers(-9, 9, bits.shape).astype(np.int16))
        held: dict[str, Any] = {key: getattr(full, key) for key in recording.ARRAYS if rng.random() < 0.6}
        held.setdefault("counts", full.counts)
        records.append(PopulationRecord(name, count, first_step=first_step, n_steps=n_steps, **held))
    saved = Recording(records, first_step=first_step, n_steps=n_steps, step_seconds=step_seconds)
    folder = tmp_path_factory.mktemp("recordings")
    saved.save(folder / "a.rec")
    loaded = Recording.load(str(folder / "a.rec"))
    assert loaded == saved and list(loaded) == names and loaded.step_seconds == step_seconds
    loaded.save(folder / "b.rec")
    assert (folder / "a.rec").read_bytes() == (folder / "b.rec").read_bytes()


def test_a_saved_file_is_a_plain_npz(tmp_path: Path) -> None:
    example().save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        header = json.loads(bytes(stored["header"]))
        assert np.array_equal(stored["0.words"], np.asarray(example()["exc"].words))
        assert sorted(stored.files) == ["0.counts", "0.voltages", "0.words", "1.counts", "header"]
    assert (header["format"], header["version"]) == ("scgpu recording", 1)
    assert header["populations"][1] == {"name": "inh/ü", "count": 3, "arrays": ["counts"]}


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.npz"
    example().save(path)
    before = path.read_bytes()

    def interrupted(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        assert any(name.startswith(SCRATCH) for name in names_in(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        example(64).save(path)
    assert path.read_bytes() == before and names_in(tmp_path) == ["run.npz"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing/run\.npz"):
        example().save(tmp_path / "missing" / "run.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder"):
        example().save(tmp_path / "folder")
    assert names_in(tmp_path) == ["folder"]
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "other"):
        raise OSError(28, "the disk is full")
    assert names_in(tmp_path) == ["folder"]


def test_new_files_obey_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        example().save(tmp_path / "run.npz")
    finally:
        os.umask(mask)
    assert (tmp_path / "run.npz").stat().st_mode & 0o777 == 0o640


def sealed(path: Path) -> Path:
    """The file, with the checksum of what is in it."""
    with path.open("r+b") as file:
        archive._seal(file)
    return path


def rewritten(path: Path, header: dict[str, Any] | None, arrays: dict[str, np.ndarray[Any, Any] | None]) -> Path:
    """A file of ``example`` with other entries of its header, other arrays, or without some (None)."""
    example().save(path)
    with np.load(path) as stored:
        held = {name: stored[name] for name in stored.files}
    changed = {**json.loads(bytes(held["header"])), **(header or {})}
    held["header"] = np.frombuffer(json.dumps(changed).encode(), np.uint8)
    held |= arrays  # type: ignore[arg-type]
    np.savez(path, **{name: array for name, array in held.items() if array is not None})  # type: ignore[arg-type]
    return sealed(path)


def populations(**change: Any) -> dict[str, Any]:
    first = {"name": "exc", "count": 5, "arrays": ["words", "voltages", "counts"]}
    return {"populations": [{**first, **change}]}


REWRITES: list[tuple[dict[str, Any] | None, dict[str, Any], str]] = [
    ({"version": 2}, {}, "it is of version 2, and this scgpu reads version 1"),
    ({"format": "other"}, {}, "without the header of a recording"),
    (None, {"header": None}, "without the header of a recording"),
    (None, {"header": np.frombuffer(b"{", np.uint8)}, "without the header of a recording"),
    (None, {"header": np.frombuffer(b"[" * 100_000, np.uint8)}, "without the header of a recording"),
    (None, {"header": np.zeros(3)}, "header must be uint8"),
    ({"n_steps": 131}, {}, r"population 0, 'exc': .*voltages must be int16 of shape \(5, 131\); it is .*\(5, 130\)"),
    ({"n_steps": -1}, {}, "n_steps must be from 0"),
    ({"n_steps": "many"}, {}, "n_steps must be an integer"),
    ({"first_step": None}, {}, "first_step must be an integer"),
    ({"step_seconds": -1}, {}, "step_seconds must be finite and above 0"),
    ({"populations": 5}, {}, "its header must list populations; got 5"),
    ({"populations": [5]}, {}, "population 0 of its header must be an object"),
    (populations(count=6), {}, r"words must be uint64 of shape \(6, 3\); it is uint64 of shape \(5, 3\)"),
    (populations(count=2**40), {}, "count must be from 0"),
    (populations(name=None), {}, "name must be a word"),
    (populations(arrays=["words", "spice"]), {}, "arrays must be of words, voltages, counts"),
    (populations(arrays=[["words"]]), {}, "population 0, 'exc'"),
    (populations(arrays=None), {}, "arrays must be of words"),
    (populations(arrays=[]), {}, "counts must be given"),
    (None, {"0.words": None}, "population 0, 'exc': the array 0.words is missing"),
    (None, {"0.words": np.zeros((5, 3), np.int64)}, "0.words must be uint64 .* it is int64"),
    (None, {"0.words": np.full((5, 3), 2**64 - 1, np.uint64)}, "words has ones past length=130"),
    (None, {"0.words": np.zeros((5, 3), np.uint64)}, "counts of neuron 0 must be 0, the ones in words"),
    (None, {"1.counts": np.full(3, 999, np.uint64)}, "population 1, 'inh/ü': counts of neuron 0 must be at most 130"),
    (None, {"0.words": np.array([[{}]], object)}, "0.words has a header that Recording.save does not write"),
]


@pytest.mark.parametrize(("header", "arrays", "text"), REWRITES, ids=[text for *_, text in REWRITES])
def test_load_rejects(tmp_path: Path, header: dict[str, Any] | None, arrays: dict[str, Any], text: str) -> None:
    path = rewritten(tmp_path / "run.npz", header, arrays)
    with pytest.raises(ValueError, match=text) as caught:
        Recording.load(path)
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded as a recording: ")


def test_a_file_that_says_it_is_huge_takes_no_memory(tmp_path: Path) -> None:
    steps = {"n_steps": 2**32 - 8, **populations(count=2**31, arrays=["words"])}
    path = rewritten(tmp_path / "run.npz", steps, {})
    with zipfile.ZipFile(path) as contents:
        members = {name: contents.read(name) for name in contents.namelist()}
    short, huge = b"(5, 3), }", b"(%d, %d), }" % (2**31, 2**26)
    assert short in members["0.words.npy"]
    members["0.words.npy"] = members["0.words.npy"].replace(short.ljust(len(huge)), huge)
    with zipfile.ZipFile(path, "w") as contents:
        for name, octets in members.items():
            contents.writestr(name, octets)
    with pytest.raises(ValueError, match=r"0.words must have \d+ bytes; it has 120"):
        Recording.load(sealed(path))


def test_every_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    example().save(tmp_path / "run.npz")
    whole = (tmp_path / "run.npz").read_bytes()
    short = tmp_path / "short.npz"
    for length in [*range(0, 8), *range(8, len(whole), 97), len(whole) - 1]:
        short.write_bytes(whole[:length])
        text = "it is empty" if length == 0 else "not written by" if length < 4 else "its end is missing"
        with pytest.raises(ValueError, match=text):
            Recording.load(short)


def test_load_names_what_is_not_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no recording")
    with pytest.raises(ValueError, match=r"notes\.txt' cannot be loaded as a recording: it was not written by"):
        Recording.load(path)
    with zipfile.ZipFile(path, "w") as contents:
        contents.writestr("readme.npy", "text")
    with pytest.raises(ValueError, match=r"its end is missing: .*, or not written by Recording\.save"):
        Recording.load(path)
    with pytest.raises(ValueError, match="an archive without the header of a recording"):
        Recording.load(sealed(path))
    with pytest.raises(FileNotFoundError):
        Recording.load(tmp_path / "nothing.npz")
