"""The tree itself: one operation is one row, boundaries are where they belong, nothing is dead."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import gen_abi
import pytest

from scgpu import _abi, _render, _wgsl, oracle, parity

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scgpu"
TOP_LEVEL = {
    *("scgpu", "shaders", "cpu_ref", "tests", "tools", "docs", "examples", ".ci"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"),
}
# The files of cpu_ref/ that are no operation.
ZIG_FRAME = {"abi", "main", "cpu", "kernels", "octets", "popcount", "pool", "split", "emulate", "tests"}


def cells(op: str) -> list[Path]:
    """The files of an operation's row."""
    return [
        ROOT / "shaders" / f"{op}.wgsl",
        ROOT / "cpu_ref" / f"{op}.zig",
        PACKAGE / f"{op}.py",
        PACKAGE / "oracle" / f"{op}.py",
        ROOT / "tests" / f"test_{op}.py",
    ]


def tracked() -> list[str]:
    """Files of the project: what git tracks, or in an unpacked sdist every file."""
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    return listed.stdout.split()


def imports(path: Path) -> set[str]:
    """Top-level packages, and scgpu modules, that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("op", _abi.OPS)
def test_operation_has_every_cell_of_its_row(op: str) -> None:
    missing = [str(path.relative_to(ROOT)) for path in cells(op) if not path.is_file()]
    assert not missing, f"operation {op} lacks {missing}"
    shader, zig, _, plain, test = (path.read_text() for path in cells(op))
    assert re.search(rf"@compute @workgroup_size\(wg_size\)\nfn {op}\(", shader)
    assert f"pub fn {op}(call: *const abi.{op.capitalize()}) callconv(.c) void" in zig
    assert f"def {op}(" in plain and oracle.KERNELS[op].__module__ == f"scgpu.oracle.{op}"
    assert f"def test_{op}_parity(" in test and "rejects" in test
    assert f"equals cpu_ref/{op}.zig bit for bit" in shader and f"equals shaders/{op}.wgsl bit for bit" in zig
    assert op in parity.MAKERS
    variants = _abi.OPS[op].variants
    assert all(list(variant) == list(variants[0]) for variant in variants)


def test_a_missing_cell_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="operation count lacks"):
        test_operation_has_every_cell_of_its_row("count")


def test_no_kernel_file_is_without_an_operation() -> None:
    assert {path.stem for path in (ROOT / "shaders").glob("*.wgsl")} == set(_abi.OPS)
    assert {path.stem for path in (ROOT / "cpu_ref").glob("*.zig")} == set(_abi.OPS) | ZIG_FRAME
    assert {path.stem for path in (PACKAGE / "oracle").glob("[!_]*.py")} == set(_abi.OPS)


def test_shared_shaders_are_all_imported() -> None:
    used = set()
    for op in _abi.OPS.values():
        for variant in range(len(op.variants)):
            used |= {name for name, _ in _wgsl.expand(op, ROOT / "shaders", op.files(variant)).origins}
    assert {path.name for path in (ROOT / "shaders" / "shared").iterdir()} <= used


def test_shaders_that_draw_are_those_that_the_renderer_names() -> None:
    assert {path.stem for path in (ROOT / "shaders" / "render").iterdir()} == set(_render.ENTRY_POINTS)
    # A pipeline that draws is made by the device of scgpu._gpu, so nothing else needs to import wgpu.
    drawing = {path.name for path in PACKAGE.rglob("*.py") if "render_pipeline" in path.read_text()}
    assert drawing == {"_render.py"}


def test_one_module_imports_wgpu_and_one_loads_the_library() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        names = {name.split(".")[0] for name in imports(path)}
        assert ("wgpu" in names) == (path.name == "_gpu.py"), path
        assert ("ctypes" in names) == (path.name == "_cpu.py"), path


def test_one_module_knows_what_is_private_in_wgpu() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        assert 'import_module("wgpu' not in text or path.name in ("_gpu.py", "_gpu_raw.py"), path
        private = "_internal" in text or "wgpu_native._" in text or re.search(r"\bwgpu[A-Z]", text) is not None
        assert private == (path.name == "_gpu_raw.py"), path


def test_oracle_shares_no_code_with_the_fast_paths() -> None:
    for path in sorted((PACKAGE / "oracle").glob("[!_]*.py")):
        foreign = {name for name in imports(path) if name.startswith("scgpu") and not name.startswith("scgpu.oracle")}
        assert not foreign, f"{path.name} imports {foreign}"


def test_abi_zig_is_generated_from_the_table() -> None:
    gen_abi.check()
    assert gen_abi.TARGET.read_text() == gen_abi.render()


def test_every_module_is_used() -> None:
    used: set[str] = set()
    for folder in ("scgpu", "tests", "tools", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= imports(path)
    for path in PACKAGE.rglob("[!_]*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert name in used, f"{name} is imported nowhere"


def test_top_level_and_names() -> None:
    files = tracked()
    assert {name.split("/")[0] for name in files} <= TOP_LEVEL
    assert not [name for name in files if re.search(r"(^|/)(utils?|helpers?|common|misc)\.(py|zig|wgsl)$", name)]
    assert not [name for name in files if name.endswith((".so", ".dll", ".dylib", ".pyc"))]


def test_functions_are_short() -> None:
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert lines <= 70, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_public_functions_have_docstrings() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.relative_to(ROOT)}: {node.name}"


def test_operands_join_a_backend_and_not_a_device() -> None:
    # Where a device was lost, several backends may run on the device that took over.
    for path in sorted((ROOT / "scgpu").glob("**/*.py")):
        assert not re.search(r"\.to\([\w.\[\]]*\.device\)", path.read_text(encoding="utf-8")), path
