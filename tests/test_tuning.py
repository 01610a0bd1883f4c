"""tuning: what is measured and remembered, what is not believed, and that no bit depends on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import _abi, cache, cli, placement, tuning
from scgpu.devices import backend_of

ROOT = Path(__file__).resolve().parent.parent
DENSE = _abi.OPS["dense"]
NAMES = list(_abi.DENSE_VARIANTS)
# Devices of one OpenGL adapter share a context: when one goes, nothing can be drawn on the others any more.
KEPT: list[Any] = []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def backend(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter's backend, untuned before and after."""
    running: Any = backend_of(gpu)
    monkeypatch.setattr(running, "tuned", {})
    return running


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Two small classes instead of all."""
    shapes = [dict(zip(DENSE.params, (samples, 20, 64, 0, 64, 0, 20, 0, 0, 0), strict=True)) for samples in (1, 9)]
    monkeypatch.setattr(tuning, "dense_shapes", lambda software: iter(shapes))
    return shapes


def restarted(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter's backend as a new process would make it."""
    monkeypatch.setattr(sys.modules[backend_of.__module__], "_backends", {})
    KEPT.append(backend_of(gpu))
    return KEPT[-1]


def test_shapes_are_of_different_classes_that_have_variants() -> None:
    for software in (False, True):
        shapes = list(tuning.dense_shapes(software))
        classes = {DENSE.shape_class(params) for params in shapes}
        assert len(classes) == len(shapes) == 12 and "" not in classes
        for params in shapes:
            candidates = tuning._candidates(params, _abi.Adapter(frozenset(), software))
            assert len(candidates) >= 5 and DENSE.choose(params, _abi.Adapter(frozenset(), software)) in candidates


def test_measure_times_right_variants_and_uses_the_fastest(
    backend: Any, few_shapes: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    rows = tuning.measure(backend, told.append)
    assert told == [row.shape_class for row in rows] == [DENSE.shape_class(params) for params in few_shapes]
    for row, params in zip(rows, few_shapes, strict=True):
        assert row.wrong == () and set(row.microseconds) <= set(DENSE.admissible(params, backend.adapter))
        assert row.microseconds[row.fastest] == min(row.microseconds.values()) > 0
        assert backend.tuned["dense", row.shape_class] == backend._variant(DENSE, params) == row.fastest


def test_measure_leaves_out_a_variant_with_wrong_bits(
    backend: Any, few_shapes: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = NAMES.index("row8")
    execute = backend.execute

    def wrong(steps: Any, read: Any = ()) -> Any:
        results = execute(steps, read)
        if backend._forced.get("dense") == broken and results:
            results[0] = results[0] + np.uint32(1)
        return results

    monkeypatch.setattr(backend, "execute", wrong)
    rows = tuning.measure(backend)
    assert rows[0].wrong == (broken,) and broken not in rows[0].microseconds
    assert broken not in backend.tuned.values()


def test_tuned_variant_is_used_where_it_is_admissible(backend: Any) -> None:
    name = "staged64x64-carry"
    params = dict(zip(DENSE.params, (9, 20, 64, 0, 64, 0, 20, 0, 0, 0), strict=True))
    backend.tuned = {("dense", DENSE.shape_class(params)): NAMES.index(name)}
    assert backend._variant(DENSE, params) == NAMES.index(name)
    odd = {**params, "word_end": 63}
    assert DENSE.shape_class(odd) == DENSE.shape_class(params)
    assert backend._variant(DENSE, odd) == DENSE.choose(odd, backend.adapter)
    with backend.forced("dense", 0):
        assert backend._variant(DENSE, params) == 0
    assert backend._variant(DENSE, params) == NAMES.index(name)


def test_no_bit_depends_on_what_is_tuned(gpu: scgpu.Device, backend: Any) -> None:
    x = np.random.default_rng(0).random((9, 24))
    layer = scgpu.DenseLayer(24, 20, 256, device=gpu)
    expected = scgpu.DenseLayer(24, 20, 256, device="numpy").counts(x)
    shape_class = "8 samples or more, few neurons, short rows"
    for variant in range(len(NAMES)):
        backend.tuned = {("dense", shape_class): variant}
        assert np.array_equal(layer.counts(x), expected)


def test_what_is_saved_is_loaded_when_the_backend_starts(
    gpu: scgpu.Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuning.load(gpu) == {} == restarted(gpu, monkeypatch).tuned
    tuned = {("dense", "one class"): 3, ("dense", "another"): 0}
    assert tuning.save(gpu, tuned) == ""
    assert tuning.load(gpu) == tuned == restarted(gpu, monkeypatch).tuned
    assert [path.name for path in folder.iterdir()] == [tuning.file_of(gpu).name]  # no scratch file is left
    assert tuning.clear(gpu) and not tuning.clear(gpu)
    assert tuning.load(gpu) == {} and list(folder.iterdir()) == []


def test_each_adapter_driver_and_version_has_a_file_of_its_own(
    gpu: scgpu.Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {tuning.file_of(gpu)}
    for changed in ({"name": "other"}, {"driver": "other"}, {"backend": "other"}):
        files.add(tuning.file_of(scgpu.Device(**{**vars(gpu), **changed})))
    monkeypatch.setattr(cache, "__version__", "99.0")
    files.add(tuning.file_of(gpu))
    assert len(files) == 5 and {path.parent for path in files} == {folder}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "null",
        '{"measured": []}',
        '{"key": {}, "measured": []}',
        "\udcff",
        "key",
        "entries",
        "variant",
        "op",
    ],
)
def test_a_damaged_or_foreign_file_is_ignored(damage: str, gpu: scgpu.Device, folder: Path) -> None:
    assert tuning.save(gpu, {("dense", "one class"): 3}) == ""
    content = json.loads(tuning.file_of(gpu).read_text())
    spoiled: dict[str, Any] = {
        "key": {**content, "key": {**content["key"], "scgpu": "99.0"}},
        "entries": {**content, "measured": 7},
        "variant": {**content, "measured": [{**content["measured"][0], "variant": {"wg_size": 1 << 20}}]},
        "op": {**content, "measured": [{**content["measured"][0], "op": "no such"}]},
    }
    text = damage
    if damage in spoiled:
        made = spoiled[damage]
        text = json.dumps({**made, "sha256": cache._digest(made["key"], made["measured"])})
    tuning.file_of(gpu).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert tuning.load(gpu) == {}
    assert tuning.save(gpu, {("dense", "one class"): 3}) == "" and tuning.load(gpu) == {("dense", "one class"): 3}


def test_a_folder_that_cannot_be_written_is_no_error(
    gpu: scgpu.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a file where the folder should be refuses the superuser too
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    problem = tuning.save(gpu, {("dense", "one class"): 3})
    assert "cannot be written" in problem and "set SCGPU_CACHE_DIR" in problem
    assert tuning.load(gpu) == {} and not tuning.clear(gpu)


def test_a_write_that_fails_leaves_the_old_file(
    gpu: scgpu.Device, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuning.save(gpu, {("dense", "one class"): 3}) == ""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in tuning.save(gpu, {("dense", "one class"): 4})
    assert tuning.load(gpu) == {("dense", "one class"): 3}
    assert len(list(folder.iterdir())) == 1


def test_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, " ")
    assert cache.folder().name in ("scgpu", "Cache")
    assert cache.folder().is_absolute()


def test_tune_command(
    gpu: scgpu.Device,
    backend: Any,
    few_shapes: list[dict[str, int]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["tune", "--device", str(gpu.index)]) == 0
    text = capsys.readouterr().out
    assert str(gpu) in text and f"remembered in {tuning.file_of(gpu)}" in text
    assert all(DENSE.shape_class(params) in text for params in few_shapes)
    assert cli.main(["tune", "--device", str(gpu.index), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert found["device"] == str(gpu) and found["problem"] == ""
    for entry in found["classes"]:
        assert entry["fastest"] == min(entry["microseconds"], key=entry["microseconds"].__getitem__)
        assert NAMES.index(entry["fastest"]) == tuning.load(gpu)["dense", entry["class"]]
    assert cli.main(["tune", "--device", str(gpu.index), "--clear"]) == 0
    assert f"{gpu}: forgotten" in capsys.readouterr().out and tuning.load(gpu) == {}
    assert cli.main(["tune", "--device", str(gpu.index), "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cleared": {str(gpu): False}}


def test_tune_command_reports_wrong_bits_and_unwritable_folders(
    gpu: scgpu.Device,
    backend: Any,
    few_shapes: list[dict[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tuning._Trial, "counts_are_right", lambda trial, variant: variant != NAMES.index("row8"))
    assert cli.main(["tune", "--device", str(gpu.index)]) == 1
    text = capsys.readouterr().out
    assert "row8 gives wrong bits and is not used" in text and "cannot be written" in text


def test_tune_measures_the_rates_of_the_processor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--device", "cpu", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert found["classes"] == [] and found["rates"] == vars(placement.load(scgpu.device("cpu")))
    assert cli.main(["tune", "--device", "cpu"]) == 0
    assert "a call" in capsys.readouterr().out
    assert cli.main(["tune", "--device", "cpu", "--clear"]) == 0
    assert placement.load(scgpu.device("cpu")) is None


def test_tune_rejects_the_oracle(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--device", "numpy"]) == 2
    assert "--device 'numpy' is numpy [NumPy], which has nothing to tune" in capsys.readouterr().err


def figures_of(tool: str, arguments: list[str], folder: Path) -> Any:
    """What a tool of this checkout measures; its status is 1 where a bar is missed."""
    done = subprocess.run(
        [sys.executable, f"tools/{tool}", *arguments, "--json", str(folder / "figures.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1) and done.stderr == "", done.stderr
    return json.loads((folder / "figures.json").read_text())


def test_published_kernel_gives_the_same_counts_and_is_measured(gpu: scgpu.Device, tmp_path: Path) -> None:
    arguments = ["--device", str(gpu.index), "--shape", "24x70", "--batch", "1", "--batch", "5", "--seconds", "0"]
    rows = figures_of("published_dense.py", arguments, tmp_path)["rows"]
    assert [(row["shape"], row["batch"]) for row in rows] == [("24x70", 1), ("24x70", 5)]
    assert all(row["ratio"] > 0 and row["load_share"] > 0 for row in rows)


def test_the_floor_of_a_small_call_is_measured_beside_it(gpu: scgpu.Device, tmp_path: Path) -> None:
    layers = figures_of("gpu_floor.py", ["--device", str(gpu.index), "--seconds", "0.01"], tmp_path)
    assert len(layers) == 2
    for figures in layers.values():
        assert list(figures) == ["floor", "kernels", "forward", "stream"]
        assert all(0 < least <= median for median, least in figures.values())
