"""The build: what a wheel holds, that it is reproducible and works, and what stops a wrong one."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import build_cpu_ref
import builds
import check_shaders
import hatch_build
import pytest

from scgpu import _abi, _cpu, _render, _wgsl
from scgpu.errors import NativeLibraryError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command; stdout and stderr come together."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def make(kind: str, source: Path, folder: Path) -> Path:
    """Build an sdist or a wheel with the backend of this environment."""
    done = run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", folder, source)
    assert done.returncode == 0, done.stdout
    (made,) = folder.iterdir()
    return made


def copy_of_the_tree(folder: Path) -> Path:
    """What the build reads, to be spoiled."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("scgpu", "shaders", "cpu_ref", "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "scgpu_cpu.*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def content(wheel: Path) -> dict[str, bytes]:
    """Files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return make("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist of this tree."""
    packed = make("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(packed) as archive:
        # Debian 12's Python has no filters yet; from 3.12 on their absence is a warning.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (unpacked,) = folder.iterdir()
    return unpacked


def test_sdist_and_tree_give_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    other = make("wheel", sdist, tmp_path / "dist")
    assert other.name == wheel.name
    ours, theirs = content(wheel), content(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_sdist_is_the_source_without_a_library(sdist: Path) -> None:
    assert not list(sdist.rglob("scgpu_cpu.*"))
    assert {path.name for path in sdist.iterdir()} == {
        *("scgpu", "shaders", "cpu_ref", "tests", "tools", "docs", "examples", "README.md", "CHANGELOG.md", "LICENSE"),
        *("pyproject.toml", "PKG-INFO", ".gitignore"),
    }


def test_wheel_holds_the_package_the_shaders_and_the_library(wheel: Path) -> None:
    library = f"scgpu/{_cpu.LIBRARY.name}"
    expected = {f"scgpu/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "shaders").rglob("*.wgsl")}
    for path in (ROOT / "scgpu").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path != _cpu.LIBRARY:
            expected.add(path.relative_to(ROOT).as_posix())
    files = content(wheel)
    assert {name for name in files if ".dist-info/" not in name} == expected | {library}
    assert "scgpu/py.typed" in expected and "scgpu/data/digits.npz" in expected
    assert files[library]


def test_wheel_is_of_its_platform(wheel: Path) -> None:
    tag = f"py3-none-{hatch_build.platform_tag()}"
    assert wheel.name.endswith(f"-{tag}.whl") and not tag.endswith("-any")
    files = content(wheel)
    (about,) = (text.decode() for name, text in files.items() if name.endswith(".dist-info/WHEEL"))
    assert "Root-Is-Purelib: false" in about and f"Tag: {tag}" in about
    (metadata,) = (text.decode() for name, text in files.items() if name.endswith(".dist-info/METADATA"))
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra" not in line]
    assert {re.split(r"[^\w]", line.split()[1])[0] for line in required} == {"numpy", "platformdirs", "tqdm", "wgpu"}
    assert any(name.endswith("/licenses/LICENSE") for name in files)


# Runs away from the checkout: everything must come from the folder the wheel was installed to.
INSTALLED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import scgpu
from scgpu import _cpu, _wgsl, cli

p = np.linspace(0, 1, 9)
bits = {str(one): scgpu.encode(p, 200, seed=3, device=one).words.tolist() for one in scgpu.devices()}
print(json.dumps([scgpu.__file__, str(_cpu.LIBRARY), str(_wgsl.shader_folder()), cli.__file__, bits]))
"""


def test_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    done = run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    assert done.returncode == 0, done.stdout
    (tmp_path / "elsewhere").mkdir()
    script = subprocess.run(
        [sys.executable, "-c", INSTALLED, target], cwd=tmp_path / "elsewhere", capture_output=True, check=False
    )
    assert script.returncode == 0, script.stderr.decode()
    *places, bits = json.loads(script.stdout)
    assert all(Path(place).is_relative_to(target) for place in places), places
    assert any("Zig" in device for device in bits), bits.keys()
    assert all(words == bits["numpy [NumPy]"] for words in bits.values())


def test_stale_abi_zig_stops_every_build(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    assert run(sys.executable, "tools/gen_abi.py", "--check", cwd=tree).returncode == 0
    zig = tree / "cpu_ref" / "abi.zig"
    zig.write_text(zig.read_text().replace("block_count: u32", "block_total: u32", 1))
    for who, *command in (
        ("", "tools/gen_abi.py", "--check"),
        ("build_cpu_ref: ", "tools/build_cpu_ref.py", "--output", tmp_path / "library"),
        (
            "scgpu: the native library cannot be built: ",
            *("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", "."),
        ),
    ):
        done = run(sys.executable, *command, cwd=tree)
        assert done.returncode == 1, done.stdout
        assert f"{who}cpu_ref{os.sep}abi.zig is out of date with scgpu/_abi.py; run: python tools" in done.stdout
        assert "Traceback" not in done.stdout
    assert not (tmp_path / "library").exists() and not list(tmp_path.glob("dist/*.whl"))


def test_compiler_error_is_shown(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    with (tree / "cpu_ref" / "count.zig").open("a") as source:
        source.write('\ncomptime { @compileError("spoiled on purpose"); }\n')
    done = run(sys.executable, "tools/build_cpu_ref.py", "--output", tmp_path / "library", cwd=tree)
    assert done.returncode == 1
    assert "spoiled on purpose" in done.stdout and "Traceback" not in done.stdout


def test_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(build_cpu_ref.BuildError, match="run: pip install ziglang=="):
        build_cpu_ref.build(tmp_path / "library")


def test_library_of_another_boundary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_abi, "digest", lambda: 0x12345678)
    with pytest.raises(NativeLibraryError, match=r"12345678.*run: python tools/build_cpu_ref\.py"):
        _cpu.library.__wrapped__()


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_cpu, "LIBRARY", tmp_path / "scgpu_cpu.so")
    with pytest.raises(NativeLibraryError, match=r"scgpu_cpu\.so does not load .*run: python tools/build_cpu_ref\.py"):
        _cpu.library.__wrapped__()


# File magic with the machine: ELF (aarch64), PE (x86-64), Mach-O (arm64).
CROSS = {
    "aarch64-linux-none": (0, b"\x7fELF", 18, 183),
    "x86_64-windows-gnu": (0, b"MZ", None, 0x8664),
    "aarch64-macos.11.0-none": (0, b"\xcf\xfa\xed\xfe", 4, 0x0C),
}


def cross_built(target: str) -> Path:
    """The library for another system."""
    path = builds.FOLDER / target / build_cpu_ref.library_name(target)
    build_cpu_ref.build(path, target)
    return path


BUILDS = [(cross_built, target) for target in CROSS]


@pytest.mark.parametrize("target", CROSS)
def test_library_builds_for_other_systems(target: str) -> None:
    library = builds.made(cross_built, target).read_bytes()
    start, magic, offset, machine = CROSS[target]
    assert library[start:].startswith(magic)
    if offset is None:  # the PE header lies where the DOS header says
        offset = struct.unpack_from("<I", library, 0x3C)[0] + 4
    assert struct.unpack_from("<H", library, offset)[0] == machine
    for name in ("digest", "tier_name", *_abi.OPS):
        assert f"scgpu_{name}\0".encode() in library
    assert str(builds.FOLDER).encode() not in library and b"/tmp" not in library


def test_native_target_is_known_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_cpu_ref.library_name(build_cpu_ref.native_target()) == _cpu.LIBRARY.name
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(build_cpu_ref.BuildError, match=r"no native library for .* on riscv64; known are"):
        build_cpu_ref.native_target()


def test_pins_agree() -> None:
    pins = set(PROJECT["build-system"]["requires"])
    assert pins <= set(PROJECT["project"]["optional-dependencies"]["dev"])
    (ziglang,) = (pin for pin in pins if pin.startswith("ziglang"))
    assert ziglang in (ROOT / "tools" / "build_cpu_ref.py").read_text()
    # Only the naga of the wgpu-native in use says what that accepts.
    native = importlib.import_module("wgpu.backends.wgpu_native").__version__
    assert check_shaders.NAGA_VERSION.split(".")[0] == native.split(".")[0]


def test_check_shaders_without_naga() -> None:
    for naga in ("/nonexistent/naga", sys.executable):
        done = run(sys.executable, "tools/check_shaders.py", NAGA=naga)
        assert done.returncode == 1
        assert naga in done.stdout and "Traceback" not in done.stdout
        assert "cargo install naga-cli --version 29.0.3 --locked" in done.stdout


@pytest.fixture
def naga(tmp_path: Path) -> Path:
    """A stand-in that says what naga says of an error in line 2 of dense.wgsl, and translates the others."""
    if os.name != "posix":
        pytest.skip("a script is no program here")
    script = tmp_path / "naga"
    # sh starts in a tenth of Python's time, and the check starts hundreds.
    script.write_text("""#!/bin/sh
case "$*" in
    *--version*) echo 29.0.3 && exit ;;
    *dense.wgsl*) printf 'error: bad\\n  dense.wgsl:24:3\\n' >&2 && exit 1 ;;
esac
for last; do :; done
case "$last" in
    *.wgsl | *.metal) ;;
    *) printf x >"$last" ;;
esac
""")
    script.chmod(0o755)
    return script


def test_check_shaders_reports_failures_with_their_origin(naga: Path) -> None:
    done = run(sys.executable, "tools/check_shaders.py", "--json", NAGA=str(naga))
    assert done.returncode == 1
    problems = {(row["op"], row["check"]): row["problem"] for row in json.loads(done.stdout) if row["problem"]}
    name, line = _wgsl.source("dense").origins[23]
    assert f"dense.wgsl:24:3 ({name}:{line})" in problems.pop(("dense", "valid"))
    others = {*_abi.OPS, *_render.ENTRY_POINTS} - {"dense"}
    assert problems == {(name, "MSL"): "naga wrote nothing" for name in others}
    assert run(sys.executable, "tools/check_shaders.py", NAGA=str(naga)).returncode == 1


def test_check_shaders_compares_names(naga: Path) -> None:
    source = _wgsl.Source(_wgsl.source("count").text.replace("fn count(", "fn other("), ())
    checks = check_shaders.check_shader(
        "count", source, str(naga), entry_points={"count": "compute"}, overrides={"wg_size": 64, "tile": 2}
    )
    names = next(checks)
    assert "entry points are {'other': 'compute'}, not {'count': 'compute'}" in names.problem
    assert "has no override tile" in names.problem


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell script")
def test_setup_explains_itself() -> None:
    assert run("sh", "tools/setup.sh", "--help").stdout.startswith("Usage: sh tools/setup.sh demo|dev")
    for arguments in ([], ["everything"], ["demo", "dev"]):
        assert run("sh", "tools/setup.sh", *arguments).returncode == 2
    refused = run("sh", "tools/setup.sh", "demo", PYTHON="/nonexistent/python")
    assert refused.returncode == 1 and "install Python 3.11 or newer" in refused.stdout
