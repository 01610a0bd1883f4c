"""Build the native library from ``cpu_ref/`` with the Zig compiler of PyPI's ``ziglang``.

Every SIMD tier is the same source (``kernels.zig``) compiled to an object for one CPU
level; ``main.zig`` links them behind one function per operation.

Usage: python tools/build_cpu_ref.py [--target TARGET] [--output FILE] [--mode fast|safe|debug]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import gen_abi  # noqa: E402

SOURCE = ROOT / "cpu_ref"

# CPU level of each tier, slowest first. The model of v4 prefers 256-bit vectors; ours are 512.
X86_64_TIERS = {
    "x86_64_v2": "x86_64_v2",
    "x86_64_v3": "x86_64_v3",
    "x86_64_v4": "x86_64_v4-prefer_256_bit",
    "x86_64_v4_vpopcntdq": "x86_64_v4-prefer_256_bit+avx512vpopcntdq",
}
OTHER_TIERS = {"baseline": "baseline"}

# In the modes that check themselves: Zig's own code generator, the default of debug, knows no
# intrinsics of LLVM, and error traces would hand those another argument.
CHECKED_FLAGS = ["-fllvm", "-fno-error-tracing"]

ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
# The wheel's platform tag (hatch_build.py) promises macOS 11; Zig's own default is the newest one but a few.
SYSTEMS = {"linux": "linux-none", "darwin": "macos.11.0-none", "windows": "windows-gnu"}
SUFFIXES = {"linux": ".so", "macos": ".dylib", "windows": ".dll"}


class BuildError(Exception):
    """The library cannot be built; the message says why."""


def native_target() -> str:
    """Zig's name for this machine."""
    machine, system = platform.machine().lower(), platform.system().lower()
    if machine not in ARCHITECTURES or system not in SYSTEMS:
        raise BuildError(
            f"no native library for {system} on {machine}; known are {sorted(SYSTEMS)} on {sorted(set(ARCHITECTURES))}"
        )
    return f"{ARCHITECTURES[machine]}-{SYSTEMS[system]}"


def library_name(target: str) -> str:
    """File name of the library for a target; `scgpu._cpu` looks for the same name."""
    return "scgpu_cpu" + SUFFIXES[target.split("-")[1].split(".")[0]]


def _zig(*arguments: str, cwd: Path) -> None:
    # Without a cache of its own Zig leaves one in the home directory, and fails where there is none.
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(cwd / "cache"), **os.environ}
    command = [sys.executable, "-m", "ziglang", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"the Zig compiler does not start ({error}); run: pip install ziglang") from error
    if done.returncode:
        raise BuildError(f"zig {' '.join(arguments)} failed:\n{done.stderr or done.stdout}")


def build(output: Path, target: str | None = None, mode: str = "fast") -> None:
    """Compile the library to ``output``.

    Parameters
    ----------
    output : Path
        Library file to write.
    target : str, optional
        Zig target triple; this machine's own by default.
    mode : {"fast", "safe", "debug"}
        Zig optimisation mode; ``safe`` and ``debug`` check every sum, cast and index, and abort.

    Raises
    ------
    BuildError
        When ``abi.zig`` is stale, the machine is unknown, or the compiler fails.
    """
    try:
        gen_abi.check()
    except SystemExit as error:
        raise BuildError(str(error)) from error
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(f"the Zig compiler is missing in {sys.executable}; run: pip install ziglang==0.17.1")
    target = target or native_target()
    tiers = X86_64_TIERS if target.startswith("x86_64") else OTHER_TIERS
    flags = ["-target", target, "-O", mode, "-fPIC", *([] if mode == "fast" else CHECKED_FLAGS)]
    # Symbols double the time that the compiler takes.
    flags += [] if mode == "debug" else ["-fstrip"]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        names = ", ".join(f'"{tier}"' for tier in tiers)
        (scratch / "tiers.zig").write_text(f"pub const names = [_][:0]const u8{{ {names} }};\n")

        def tier_object(tier: str) -> str:
            (scratch / f"{tier}.zig").write_text(f'pub const name = "{tier}";\n')
            flags_of_tier = [*flags, "-mcpu", tiers[tier], "-fno-compiler-rt"]
            modules = ["--dep", "tier", f"-Mroot={SOURCE / 'kernels.zig'}", f"-Mtier={scratch / tier}.zig"]
            _zig("build-obj", "--name", tier, *flags_of_tier, *modules, f"-femit-bin={scratch / tier}.o", cwd=scratch)
            return str(scratch / f"{tier}.o")

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(tier_object, tiers))
        modules = ["--dep", "tiers", f"-Mroot={SOURCE / 'main.zig'}", f"-Mtiers={scratch / 'tiers.zig'}"]
        baseline = ["-mcpu", next(iter(tiers.values()))]
        # Zig would record the path of the temporary folder.
        install_name = ["-install_name", f"@rpath/{library_name(target)}"] if "-macos" in target else []
        # Pages for copies come from the system itself, as there is no C library.
        system_library = ["-lntdll"] if "-windows" in target else []
        _zig(
            "build-lib",
            "-dynamic",
            "--name",
            "scgpu_cpu",
            *flags,
            *baseline,
            *install_name,
            *system_library,
            *modules,
            *objects,
            f"-femit-bin={scratch / library_name(target)}",
            cwd=scratch,
        )
        output.write_bytes((scratch / library_name(target)).read_bytes())


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", help="Zig target triple (default: this machine)")
    parser.add_argument("--output", type=Path, help="library file to write (default: in scgpu/)")
    parser.add_argument("--mode", choices=("fast", "safe", "debug"), default="fast", help="default: fast")
    arguments = parser.parse_args()
    try:
        target = arguments.target or native_target()
        output = arguments.output or ROOT / "scgpu" / library_name(target)
        build(output.resolve(), target, arguments.mode)
    except BuildError as error:
        raise SystemExit(f"build_cpu_ref: {error}") from error
    print(output)


if __name__ == "__main__":
    main()
