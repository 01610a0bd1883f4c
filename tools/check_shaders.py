"""Validate every shader with naga and translate it for Vulkan, Metal, Direct3D 12 and OpenGL.

Every override variant of every operation, and what `scgpu live` draws with, is checked without a GPU. naga is the
shader compiler inside wgpu; it is taken from the environment variable NAGA, from PATH,
or from .naga/bin of the checkout.

Usage: python tools/check_shaders.py [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parent.parent
# The shaders of this checkout, whichever scgpu is installed.
sys.path.insert(0, str(ROOT))

from scgpu import _abi, _render, _wgsl  # noqa: E402

# The naga inside the wgpu-native of the pinned wgpu. Others accept another WGSL.
NAGA_VERSION = "29.0.3"
REMEDY = f"cargo install naga-cli --version {NAGA_VERSION} --locked --root .naga"

# Suffixes tell naga the language, and of GLSL, which has one entry point in a file, the stage.
TARGETS = {"SPIR-V": "spv", "MSL": "metal", "HLSL": "hlsl", "GLSL": ""}
STAGES = {"compute": "comp", "vertex": "vert", "fragment": "frag"}

# naga-cli has no option for the HLSL register of the immediates and panics. wgpu's
# Direct3D 12 back end sets one; here the same block as a uniform buffer stands in for it.
IMMEDIATES = "var<immediate> params: Params;"
UNIFORM = "@group(1) @binding(0) var<uniform> params: Params;"

ENTRY_POINT = re.compile(r"@(compute|vertex|fragment)\b[^{;]*?\bfn\s+(\w+)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class NagaError(Exception):
    """There is no usable naga; the message says how to get one."""


@dataclass(frozen=True)
class Result:
    """One check of one variant: ``size`` in bytes of a translation, ``problem`` when it failed."""

    op: str
    variant: str
    check: str
    size: int = 0
    problem: str = ""


def naga_version(binary: str) -> str:
    """What a naga says its version is, or why it does not."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unusable ({error})"
    words = done.stdout.split()
    return words[-1] if words and not done.returncode else f"unusable (exit status {done.returncode})"


def find_naga(environment: Mapping[str, str] = os.environ) -> str:
    """The naga of the right version.

    Raises
    ------
    NagaError
        When ``NAGA`` names another, or without ``NAGA`` none is of that version.
    """
    chosen = environment.get("NAGA")
    candidates = [chosen] if chosen else [shutil.which("naga"), shutil.which("naga", path=ROOT / ".naga" / "bin")]
    refused = []
    for candidate in filter(None, candidates):
        version = naga_version(candidate)
        if version == NAGA_VERSION:
            return candidate
        refused.append(f"{candidate} is {version}")
    found = "; ".join(refused) or "there is none"
    raise NagaError(f"naga {NAGA_VERSION} is needed, {found}; run: {REMEDY}")


def check_shader(
    name: str,
    source: _wgsl.Source,
    naga: str,
    *,
    entry_points: Mapping[str, str],
    files: str = "",
    overrides: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Result]:
    """Validate one variant of a shader, made of some files with some overrides, and translate it.

    ``entry_points`` has the stage of each.
    """
    constants = ",".join(f"{override}={value}" for override, value in overrides.items())
    variant = " ".join(filter(None, (files, constants)))

    found = {entry_point: stage for stage, entry_point in ENTRY_POINT.findall(source.text)}
    named = "" if found == dict(entry_points) else f"the entry points are {found}, not {dict(entry_points)}"
    # naga accepts a value for an override that does not exist; wgpu does not.
    unknown = [
        override for override in overrides if not re.search(rf"^override {override}\b", source.text, re.MULTILINE)
    ]
    declared = f"the shader has no override {', '.join(unknown)}" if unknown else ""
    yield Result(name, variant, "names", problem="; ".join(filter(None, (named, declared))))

    with tempfile.TemporaryDirectory() as scratch:

        def run(text: str, check: str, suffix: str = "", entry_point: str = "") -> Result:
            # naga's messages begin with this file name, which `Source.locate` looks for.
            (Path(scratch) / f"{name}.wgsl").write_text(text, encoding="utf-8")
            command = [naga, *(["--override", constants] if constants else [])]
            if entry_point:
                command += ["--profile", "es310", "--entry-point", entry_point]
            command.append(f"{name}.wgsl")
            output = Path(scratch) / f"{name}{entry_point}.{suffix}"
            if suffix:
                command.append(output.name)
            environment = {**os.environ, "RUST_BACKTRACE": "0"}
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=300
            )
            size = output.stat().st_size if suffix and output.is_file() else 0
            # Of several entry points each has a row.
            row = " ".join(filter(None, (variant, entry_point if len(entry_points) > 1 else "")))
            if done.returncode:
                message = COLOUR.sub("", done.stderr or done.stdout).strip()
                return Result(name, row, check, size, source.locate(message) or f"status {done.returncode}")
            return Result(name, row, check, size, "naga wrote nothing" if suffix and not size else "")

        valid = run(source.text, "valid")
        yield valid
        if valid.problem:
            return
        for language, suffix in TARGETS.items():
            if language == "GLSL":
                for entry_point, stage in entry_points.items():
                    yield run(source.text, language, STAGES[stage], entry_point)
            elif language != "HLSL":
                yield run(source.text, language, suffix)
            elif source.text.count(IMMEDIATES) != 1:
                yield Result(name, variant, language, problem=f"the shader has no line {IMMEDIATES!r}")
            else:
                yield run(source.text.replace(IMMEDIATES, UNIFORM), language, suffix)


def check_all(naga: str) -> list[Result]:
    """Check every variant of every operation, with every value of what a parameter fixes, and what is drawn with."""
    operations = [
        result
        for op in _abi.OPS.values()
        for variant in range(len(op.variants))
        for values in itertools.product(op.specialised_values, repeat=len(op.specialised))
        for result in check_shader(
            op.name,
            _wgsl.source(op.name, op.files(variant)),
            naga,
            entry_points={op.name: "compute"},
            files=",".join(file for _, file in op.files(variant)),
            overrides=op.overrides(variant, dict(zip(op.specialised.values(), values, strict=True))),
        )
    ]
    drawing = [
        result
        for name, entry_points in _render.ENTRY_POINTS.items()
        for result in check_shader(name, _wgsl.render_source(name, _render.HEADER), naga, entry_points=entry_points)
    ]
    return operations + drawing


def _print_table(results: list[Result]) -> None:
    checks = ["names", "valid", *TARGETS]
    rows: dict[tuple[str, str], dict[str, Result]] = {}
    for result in results:
        rows.setdefault((result.op, result.variant), {})[result.check] = result
    width = max(len(variant) for _, variant in rows)
    print(f"{'shader':<12}{'variant':<{width}}" + "".join(f"{check:>9}" for check in checks))
    for (op, variant), row in rows.items():
        cells = [
            "-" if check not in row else "FAIL" if row[check].problem else row[check].size or "ok" for check in checks
        ]
        print(f"{op:<12}{variant:<{width}}" + "".join(f"{cell:>9}" for cell in cells))


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], epilog="Exit status 1: a failure.")
    parser.add_argument("--json", action="store_true", help="print every check as one JSON array")
    options = parser.parse_args()
    try:
        naga = find_naga()
        results = check_all(naga)
    except (NagaError, _wgsl.ShaderImportError) as error:
        print(f"check_shaders: {error}", file=sys.stderr)
        return 1
    failures = [result for result in results if result.problem]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return 1 if failures else 0
    _print_table(results)
    for failure in failures:
        print(f"\n{failure.op} {failure.variant}: {failure.check}: {failure.problem}", file=sys.stderr)
    print(f"\nnaga {NAGA_VERSION}: {len(results)} checks, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
