"""bench: medians, budgets, tables, charts, peers that count right, and the command."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import bench, cli
from scgpu.bench import peers, report, works
from scgpu.bench.report import Row


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works that take no time."""
    monkeypatch.setattr(works, "SHAPES", ((8, 4), (16, 8)))
    monkeypatch.setattr(works, "BATCHES", (1, 3))
    monkeypatch.setattr(works, "SWEEP", (64, 128))
    monkeypatch.setattr(works, "SHARED", ((8, 4, 64), (16, 4, 64)))
    monkeypatch.setattr(works, "MILLION", 6400)
    monkeypatch.setattr(works, "STEPS", 640)
    monkeypatch.setattr(works, "MACHINE_STREAMS", 9)
    monkeypatch.setattr(works, "UNARY_SHAPE", (6, 3))
    monkeypatch.setattr(works, "NETWORK_STEPS", 100)
    monkeypatch.setattr(works, "BALANCED_NEURONS", 100)


def test_medians_take_turns_and_leave_the_first_call_out() -> None:
    calls: list[str] = []
    found = bench.medians({name: lambda name=name: calls.append(name) for name in "ab"}, seconds=0.0)  # type: ignore[misc]
    assert calls[:4] == ["a", "b", "a", "b"] and len(calls) == 2 * (1 + bench.LEAST_CALLS)
    assert list(found) == ["a", "b"] and all(0 < value < 1e5 for value in found.values())


@pytest.mark.parametrize(("seconds", "expected"), [(0.02, 2), (0.05, 1)])
def test_medians_call_slow_work_once_or_twice(seconds: float, expected: int) -> None:
    calls: list[str] = []
    slow = {"slow": lambda: (calls.append("slow"), time.sleep(seconds)), "fast": lambda: calls.append("fast")}
    found = bench.medians(slow, seconds=0.0, longest=0.01)
    assert calls.count("slow") == expected and calls.count("fast") > 1 and found["slow"] >= 1e6 * seconds


def test_budget_leaves_out_what_would_take_too_long() -> None:
    budget = bench.Budget(longest=2.0)
    assert budget.refusal("ours", 10**12) == ""  # nothing is known yet
    budget.learn("ours", 10**6, 1.0)
    assert budget.refusal("ours", 10**12) == "" and budget.refusal("peer", 10**15) == ""
    assert budget.refusal("ours", 3 * 10**12) == "a call would take about 3.0 s"


def test_what_does_not_fit_is_told(chosen: scgpu.Device) -> None:
    def too_large() -> Any:
        raise scgpu.TooLargeError("no room")

    case = works.Case("section", "name", 64, too_large, {"peer": lambda: lambda: None})
    row = bench.measure(case, chosen, bench.Budget(9), 0.0, 9.0)
    assert row.microseconds is None and row.peers["peer"] > 0 and row.ceiling is None
    assert row.skipped == {"ours": "it does not fit (no room)"}


def test_array_peers_count_what_we_count() -> None:
    rng = np.random.default_rng(0)
    weights, inputs = (rng.integers(0, 2**64, (n, 40), dtype=np.uint64) for n in (7, 3))
    expected = np.bitwise_count(weights[None] & inputs[:, None]).sum(axis=2)
    assert np.array_equal(np.array(peers.numpy_peer().dense(weights, inputs)()), expected)
    edges = np.array([0, 1, 2**63, 2**64 - 1, 0x5555555555555555], np.uint64)
    for words in (weights, inputs, edges):
        assert np.array_equal(peers.count_ones(words.view(np.int64)), np.bitwise_count(words))
    signed = peers.ArrayPeer("signed", lambda words: words.view(np.int64), peers.count_ones, lambda counts: counts)
    assert np.array_equal(np.array(signed.dense(weights, inputs)()), expected)


def test_every_section_has_ours_and_ceilings(small: None, chosen: scgpu.Device) -> None:
    assert tuple(works.SECTIONS) == bench.SECTIONS
    rows = list(bench.run_cases(works.Bench(chosen, None, (peers.numpy_peer(),)), bench.SECTIONS, 0.0, 9.0))
    assert len(rows) == 2 + 4 + 2 + 4 + 3 + 3 + 5 + 6 + 7 + 2
    for row in rows:
        assert row.microseconds and row.ceiling and row.share and not row.skipped and row.device == str(chosen)
    assert all("numpy" in row.peers for row in rows if "prepacked" in row.section and "shared" not in row.section)


ROWS = [
    Row("batch", "8x4", "cpu", 1000, 10.0, {"peer": 25.0}, 5.0),
    Row("batch", "16x8", "cpu", 4000, None, {}, None, {"ours": "it does not fit"}),
    Row("encode", "1,000 numbers", "cpu", 2000, 3.0, {}, None),
]


def test_tables() -> None:
    about = {"date": "2026-01-01", "scgpu": "1", "processor": "P", "tier": "t", "threads": 2, "peers": ["peer 1"]}
    text = report.markdown(ROWS, about)
    assert "| work | us | Gbit/s | peer us | times as fast | ceiling us | share of ceiling |" in text
    assert "| 8x4 | 10.0 | 0.1 | 25.0 | 2.50 | 5.0 | 50 % |" in text
    assert "Not measured: 16x8, ours: it does not fit." in text
    assert "| 1,000 numbers | 3.0 | 0.7 |  |  |" in text
    assert report.as_json(ROWS, about)["rows"][0]["ratios"] == {"peer": 2.5}


def test_chart(tmp_path: Path) -> None:
    about = report.machine([])
    more = [*ROWS, Row("batch", "32x8", "cpu", 8000, 20.0, {"peer": 70.0}, 9.0)]
    report.chart(more, about, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert report._series(more[:1]) == {"cpu": [(1000, 0.1)], "ceiling of cpu": [(1000, 0.2)], "peer": [(1000, 0.04)]}
    with pytest.raises(ValueError, match="--png needs a section of two sizes or more"):
        report.chart(ROWS[2:], about, tmp_path / "none.png")


def test_command(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"figures.{name}" for name in ("json", "markdown", "png")}
    arguments = ["--device", "cpu", "--section", "lengths", "--section", "encode", "--seconds", "0.001", "--no-peers"]
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    trace = ["--profile", "--trace", str(tmp_path / "trace.json")]
    assert cli.main(["bench", *arguments, *options, *trace]) == 0
    text = capsys.readouterr().out
    assert text == files["markdown"].read_text() and "| L = 64 |" in text and "encode" in text
    found = json.loads(files["json"].read_text())
    assert found["about"]["peers"] == [] and len(found["rows"]) == 5
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"dense", "encode"} <= {event["name"] for event in events}
    assert cli.main(["bench", *arguments, "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seconds", "0"], "--seconds must be more than 0; got 0.0"),
        (["--longest", "nan"], "--longest must be more than 0; got nan"),
        (["--threads", "0"], "--threads must be from 1 to 1024; got 0"),
        (["--device", "no such"], "matches no GPU adapter"),
    ],
)
def test_command_rejects(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--no-peers", "--section", "encode", *options]) == 2
    assert message in capsys.readouterr().err


def test_engine_is_measured_where_it_is_installed(small: None) -> None:
    engine = peers.engine(scgpu.num_threads())
    if engine is None:
        pytest.skip("sc_neurocore_engine is not installed (pip install 'scgpu[bench]')")
    rows = list(bench.run_cases(works.Bench(scgpu.device("cpu"), engine), bench.SECTIONS, 0.0, 9.0))
    alone = {f"1,000 numbers, {sng}" for sng in works.GENERATORS}
    with_peer = [row for row in rows if not row.section.startswith(("networks", "state machines", "uGEMM"))]
    assert all(row.ratio(peers.ENGINE) for row in with_peer if row.name not in alone)


class SteppedLayer:
    """UnarySim's FSULinear by its definition, cycle by cycle, with NumPy for torch."""

    off = 0  # what is wrong with its weights

    def __init__(self, n_inputs: int, n_neurons: int, *, bias: bool, weight_ext: Any, hwcfg: Any, swcfg: Any) -> None:
        assert not bias and hwcfg["width"] == 8 and hwcfg["rng"] == "Sobol" and hwcfg["scale"] == 1 and "btype" in swcfg
        self.bipolar = hwcfg["mode"] == "bipolar"
        self.levels = np.rint(256 * ((weight_ext + 1) / 2 if self.bipolar else weight_ext)) + self.off
        self.limit = 2 ** (hwcfg["depth"] - 2)
        self.numbers = np.array([int(f"{t ^ t >> 1:08b}"[::-1], 2) for t in range(256)])
        self.places = np.zeros((2, n_neurons, n_inputs), int)
        self.offset = (n_inputs - 1) / 2 if self.bipolar else 0.0
        self.held = np.zeros(n_neurons)

    def __call__(self, bits: Any) -> Any:
        now = [self.levels > self.numbers[places] for places in self.places]
        ones = (now[0] & (bits[0] == 1)).sum(axis=1)
        if self.bipolar:
            ones += (~now[1] & (bits[0] == 0)).sum(axis=1)
        self.places += np.array([bits[0], 1 - bits[0]], int)[:, None]
        self.held = np.clip(self.held + ones - self.offset, -self.limit, self.limit)
        carries = self.held >= 1
        self.held -= carries
        return [carries]


@pytest.fixture
def unarysim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout that has the layer of above, and a torch that is NumPy."""
    torch = SimpleNamespace(
        __version__="of NumPy",
        float=float,
        from_numpy=lambda array: array,
        no_grad=contextlib.nullcontext,
        stack=lambda rows: SimpleNamespace(numpy=lambda: np.stack(rows)),
        set_num_threads=lambda threads: None,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    folder = tmp_path / "UnarySim" / "kernel"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").write_text("from test_bench import SteppedLayer as FSULinear\n")
    for name in ("UnarySim", "UnarySim.kernel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield folder.parent
    for name in ("UnarySim", "UnarySim.kernel"):
        sys.modules.pop(name, None)


def unary_layers(chosen: scgpu.Device, peer: Any) -> list[Row]:
    rows = bench.run_cases(works.Bench(chosen, None, (), peer), ["unary"], 0.0, 9.0)
    return [row for row in rows if "layer" in row.section]


def test_unarysim_is_compared_bit_by_bit(small: None, chosen: scgpu.Device, unarysim: Path) -> None:
    path = list(sys.path)
    peer = peers.unarysim(unarysim, 1)
    assert isinstance(peer, peers.UnarySim) and peer.name == "UnarySim (torch of NumPy)" and sys.path == path
    rows = unary_layers(chosen, peer)
    assert [row.name for row in rows] == ["unipolar", "bipolar"] and all(row.ratio("UnarySim") for row in rows)
    kernel = SimpleNamespace(FSULinear=type("Wrong", (SteppedLayer,), {"off": 40}))
    with pytest.raises(scgpu.ScgpuError, match="UnarySim's layer and ours differ in a bit"):
        unary_layers(chosen, peers.UnarySim(peer.torch, kernel))


def test_unarysim_that_is_not_there_is_told(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCGPU_UNARYSIM", raising=False)
    why = peers.unarysim(None, 1)
    assert why == "not installed: give --unarysim, or set SCGPU_UNARYSIM, to a checkout of diwu1990/UnarySim"
    monkeypatch.setenv("SCGPU_UNARYSIM", str(tmp_path))
    other = peers.unarysim(None, 1)
    assert isinstance(other, str) and other.startswith("not installed: No module named '")
    rows = unary_layers(scgpu.device("cpu"), why)
    assert len(rows) == 2 and all(row.skipped == {"UnarySim": why} and row.microseconds for row in rows)
    assert f"Not measured: bipolar, UnarySim: {why}." in report.markdown(rows, report.machine([]))
