"""The #import inliner, the rendered boundary, and what a broken shader says."""

from __future__ import annotations

from pathlib import Path

import pytest

import scgpu
from scgpu import _wgsl
from scgpu._abi import OPS
from scgpu.devices import backend_of
from scgpu.errors import GpuError


def folder(tmp_path: Path, shader: str, **shared: str) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "count.wgsl").write_text(shader)
    for name, text in shared.items():
        (tmp_path / "shared" / f"{name}.wgsl").write_text(text)
    return tmp_path


def expand(tmp_path: Path, shader: str, **shared: str) -> _wgsl.Source:
    return _wgsl.expand(OPS["count"], folder(tmp_path, shader, **shared))


def test_import_inlines_once_and_in_order(tmp_path: Path) -> None:
    source = expand(tmp_path, "#import a\n#import b\nend", a="#import b\nin a", b="in b")
    assert source.text == "in b\nin a\nend\n"
    assert source.origins == (("b.wgsl", 1), ("a.wgsl", 2), ("count.wgsl", 3))


def test_import_abi_declares_parameters_and_bindings(tmp_path: Path) -> None:
    text = expand(tmp_path, "#import abi").text
    assert "var<immediate> params: Params;" in text
    assert "@group(0) @binding(0) var<storage, read> words: array<vec2<u32>>;" in text
    assert "@group(0) @binding(1) var<storage, read_write> counts: array<u32>;" in text
    for name in OPS["count"].params:
        assert f"    {name}: u32," in text


def test_import_abi_declares_bytes_and_atomics() -> None:
    text = _wgsl.expand(OPS["pack"], _wgsl.shader_folder()).text
    assert "@group(0) @binding(0) var<storage, read> bits: array<u32>;" in text
    assert "@group(0) @binding(2) var<storage, read_write> refused: array<atomic<u32>>;" in text


def test_import_of_unknown_file_raises(tmp_path: Path) -> None:
    with pytest.raises(_wgsl.ShaderImportError, match=r"count.wgsl:2: unknown #import nothing; there are abi, a"):
        expand(tmp_path, "\n#import nothing", a="")


@pytest.mark.parametrize("shared", [{"a": "#import a"}, {"a": "#import b", "b": "#import a"}])
def test_circular_import_raises(shared: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(_wgsl.ShaderImportError, match="circular #import count -> a"):
        expand(tmp_path, "#import a", **shared)


def test_import_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(_wgsl.ShaderImportError, match=r"#import 'no/such/\.\./thing' is no name of a shader"):
        expand(tmp_path, "#import no/such/../thing")


def test_locate_maps_lines_back(tmp_path: Path) -> None:
    source = expand(tmp_path, "#import a\nbad", a="one\ntwo")
    assert source.locate("error at wgsl:3:1") == "error at wgsl:3:1 (count.wgsl:2)"
    assert source.locate("error at wgsl:99:1") == "error at wgsl:99:1"


def test_drift_of_the_boundary_is_a_load_error(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {op: _wgsl.source(op) for op in OPS}
    drifted = sources["count"].text.replace("params.segment_words", "params.segment_bytes")
    assert drifted != sources["count"].text
    sources["count"] = _wgsl.Source(drifted, (("count.wgsl", 7),) * 200)
    monkeypatch.setattr(_wgsl, "source", lambda op, files: sources[op])
    backend = backend_of(gpu)
    pipelines = backend._pipelines  # type: ignore[attr-defined]
    monkeypatch.setattr(backend, "_pipelines", {k: v for k, v in pipelines.items() if k != "count"})
    streams = scgpu.encode([0.5], 64, device=gpu)
    with pytest.raises(GpuError, match=r"(?s)shader count:.*segment_bytes.*count.wgsl:7"):
        streams.count()
    monkeypatch.undo()
    assert streams.count() == scgpu.encode([0.5], 64, device="cpu").count()
