"""Validate every shader with naga and translate it for Vulkan, Metal, Direct3D 12 and OpenGL.

Every override variant of every operation is checked, without a GPU. naga is the
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

ROOT = Path(__file__).resolve().parent.parent
# The shaders of this checkout, whichever scgpu is installed.
sys.path.insert(0, str(ROOT))

from scgpu import _abi, _wgsl  # noqa: E402

# The naga inside the wgpu-native of the pinned wgpu. Others accept another WGSL.
NAGA_VERSION = "29.0.3"
REMEDY = f"cargo install naga-cli --version {NAGA_VERSION} --locked --root .naga"

# Suffixes tell naga the language.
TARGETS = {"SPIR-V": "spv", "MSL": "metal", "HLSL": "hlsl", "GLSL": "comp"}

# naga-cli has no option for the HLSL register of the immediates and panics. wgpu's
# Direct3D 12 back end sets one; here the same block as a uniform buffer stands in for it.
IMMEDIATES = "var<immediate> params: Params;"
UNIFORM = "@group(1) @binding(0) var<uniform> params: Params;"

ENTRY_POINT = re.compile(r"@compute\b[^{;]*?\bfn\s+(\w+)")
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


def check_variant(
    op: _abi.Op, source: _wgsl.Source, files: str, overrides: Mapping[str, int], naga: str
) -> Iterator[Result]:
    """Validate one variant of a shader, made of some files with some overrides, and translate it."""
    constants = ",".join(f"{name}={value}" for name, value in overrides.items())
    variant = " ".join(filter(None, (files, constants)))

    entry_points = ENTRY_POINT.findall(source.text)
    named = "" if entry_points == [op.name] else f"the entry points are {entry_points}, not one called {op.name!r}"
    # naga accepts a value for an override that does not exist; wgpu does not.
    unknown = [name for name in overrides if not re.search(rf"^override {name}\b", source.text, re.MULTILINE)]
    declared = f"the shader has no override {', '.join(unknown)}" if unknown else ""
    yield Result(op.name, variant, "names", problem="; ".join(filter(None, (named, declared))))

    with tempfile.TemporaryDirectory() as scratch:

        def run(text: str, check: str, suffix: str = "") -> Result:
            # naga's messages begin with this file name, which `Source.locate` looks for.
            (Path(scratch) / f"{op.name}.wgsl").write_text(text, encoding="utf-8")
            command = [naga, "--override", constants]
            if suffix == "comp":
                command += ["--profile", "es310", "--entry-point", op.name]
            command.append(f"{op.name}.wgsl")
            output = Path(scratch) / f"{op.name}.{suffix}"
            if suffix:
                command.append(output.name)
            environment = {**os.environ, "RUST_BACKTRACE": "0"}
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=300
            )
            size = output.stat().st_size if suffix and output.is_file() else 0
            if done.returncode:
                message = COLOUR.sub("", done.stderr or done.stdout).strip()
                return Result(op.name, variant, check, size, source.locate(message) or f"status {done.returncode}")
            return Result(op.name, variant, check, size, "naga wrote nothing" if suffix and not size else "")

        valid = run(source.text, "valid")
        yield valid
        if valid.problem:
            return
        for language, suffix in TARGETS.items():
            if language != "HLSL":
                yield run(source.text, language, suffix)
            elif source.text.count(IMMEDIATES) != 1:
                yield Result(op.name, variant, language, problem=f"the shader has no line {IMMEDIATES!r}")
            else:
                yield run(source.text.replace(IMMEDIATES, UNIFORM), language, suffix)


def check_all(naga: str) -> list[Result]:
    """Check every variant of every operation, with every value of what a parameter fixes."""
    return [
        result
        for op in _abi.OPS.values()
        for variant in range(len(op.variants))
        for values in itertools.product(op.specialised_values, repeat=len(op.specialised))
        for result in check_variant(
            op,
            _wgsl.source(op.name, op.files(variant)),
            ",".join(file for _, file in op.files(variant)),
            op.overrides(variant, dict(zip(op.specialised.values(), values, strict=True))),
            naga,
        )
    ]


def _print_table(results: list[Result]) -> None:
    checks = ["names", "valid", *TARGETS]
    rows: dict[tuple[str, str], dict[str, Result]] = {}
    for result in results:
        rows.setdefault((result.op, result.variant), {})[result.check] = result
    width = max(len(variant) for _, variant in rows)
    print(f"{'operation':<12}{'variant':<{width}}" + "".join(f"{check:>9}" for check in checks))
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
