"""The documentation says what is true: code blocks run, doctests hold, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scgpu
from scgpu import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_faults_page_code_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "faults.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "faults.md", "exec"), names)
    assert names["faulty"] != names["layer"].packed_weights


def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some of it writes files
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("marker", ["demo-command", "test-command"])
def test_readme_has_the_two_lines(marker: str) -> None:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*)\n```", README)
    assert found and (ROOT / found.group(1).split()[1]).is_file()


def test_readme_names_the_public_interface() -> None:
    for name in scgpu.__all__:
        if not name.endswith("Error") and name not in ("__version__", "Device"):
            assert f"`{name}" in README, name
    for command in cli.COMMANDS:
        assert f"`scgpu {command}`" in README


def test_public_names_exist_and_are_documented() -> None:
    for name in scgpu.__all__:
        assert hasattr(scgpu, name)
        assert name == "__version__" or getattr(scgpu, name).__doc__, name


def test_doctests() -> None:
    attempted = 0
    for module in pkgutil.walk_packages(scgpu.__path__, "scgpu."):
        if module.name not in ("scgpu.__main__", "scgpu.scgpu_cpu"):  # the latter is no Python module
            outcome = doctest.testmod(importlib.import_module(module.name))
            assert outcome.failed == 0, module.name
            attempted += outcome.attempted
    assert attempted >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_docs_name_every_operation_and_the_version() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text()
    from scgpu._abi import CONTRACT_VERSION, OPS

    for op in OPS:
        assert f"| {op} | {op}.wgsl | {op}.zig | {op}.py | {op}.py | test_{op}.py |" in table
    assert (ROOT / "docs" / "contract.md").read_text().startswith(f"# The bit contract, version {CONTRACT_VERSION}")
    assert f"## [{scgpu.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_precision_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "precision.py"), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 6
    for _, error, expected in rows:
        assert float(error) == pytest.approx(float(expected), rel=0.15)


def test_weight_streams_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "weight_streams.py"), "--device", "cpu", "--layers", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 6
    for *_, kind, _, correlation, twins in rows:
        assert float(correlation) < 0.8
        assert (float(twins) == 1.0) == (kind != "independent")


def test_faults_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra scgpu[demo]")
    picture = tmp_path / "faults.png"
    example = [sys.executable, str(ROOT / "examples" / "faults.py"), "--device", "cpu", "--trials", "2"]
    done = subprocess.run(
        [*example, "--lengths", "64", "256", "--rates", "0", "0.1", "0.5", "-o", str(picture)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {
        float(rate): [float(cell) for cell in cells] for rate, *cells in map(str.split, done.stdout.splitlines()[2:])
    }
    assert set(rows) == {0.0, 0.1, 0.5}
    assert min(rows[0.0]) > 96.5
    short, long, binary = rows[0.1]
    assert binary < 80 < 94 < short < long
    assert max(rows[0.5]) < 25  # a flip of every second bit leaves nothing of any number
    assert picture.stat().st_size > 10_000


def test_faults_example_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra scgpu[demo]")
    example = [sys.executable, str(ROOT / "examples" / "faults.py"), "--device", "cpu", "--trials", "1"]
    example += ["--lengths", "64", "--checkpoint", str(tmp_path / "trials")]

    def table(*rates: str) -> tuple[list[str], int]:
        done = subprocess.run([*example, "--rates", *rates], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[2:], (tmp_path / "trials").stat().st_size

    first, size = table("0.1")
    assert table("0.1") == (first, size)
    both, more = table("0", "0.1")
    assert both[1] == first[0] and more - size < 1.1 * size


def test_brunel_example_tells_the_regimes_apart(tmp_path: Path) -> None:
    example = [sys.executable, str(ROOT / "examples" / "brunel.py"), "--device", "cpu", "--seconds", "0.25"]
    picture = tmp_path / "regimes.png"
    done = subprocess.run(
        [*example, "--regime", "all", "--repeats", "1", "-o", str(picture)], capture_output=True, text=True, check=True
    )
    rows = {name: [float(cell) for cell in cells[2:6]] for name, *cells in map(str.split, done.stdout.splitlines()[1:])}
    assert set(rows) == {"SR", "SI-fast", "AI", "SI-slow"}
    # Brian2's rates in floating point; a quarter of a second of the slow regime says little
    for name, rate, within in (("SR", 328.2, 0.01), ("SI-fast", 68.9, 0.04), ("AI", 42.7, 0.03), ("SI-slow", 5.2, 0.4)):
        assert rows[name][0] == pytest.approx(rate, rel=within), name
    irregularity, correlation, modulation = ({name: row[k] for name, row in rows.items()} for k in (1, 2, 3))
    assert irregularity["SR"] < 0.05 < 0.25 < min(irregularity["AI"], irregularity["SI-fast"])
    assert correlation["SR"] > 3 * correlation["SI-fast"] > 6 * correlation["AI"]
    assert modulation["AI"] < 0.7 < modulation["SI-fast"] < 1.2 < modulation["SI-slow"]
    assert picture.stat().st_size > 10_000
