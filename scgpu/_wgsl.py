"""WGSL sources: finds the shaders, inlines their imports, renders the boundary.

A line ``#import name`` is replaced by ``shaders/shared/name.wgsl``, once per shader, or by
another file where a variant says so (`scgpu._abi.Op.imports`);
``#import abi`` by the parameter block and the bindings that `scgpu._abi` declares for
the operation. An unknown or circular import raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scgpu import _abi

# In a wheel the shaders lie inside the package, in a checkout beside it.
_PLACES = (Path(__file__).parent / "shaders", Path(__file__).parent.parent / "shaders")
_IMPORT = re.compile(r"^#import\s+(\S+)\s*$")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_WGSL_TYPES = {"u8": "u32", "i16": "u32", "i32": "i32", "u32": "u32", "u64": "vec2<u32>"}


class ShaderImportError(Exception):
    """A shader imports what does not exist, or itself."""


@dataclass(frozen=True)
class Source:
    """A complete shader: its text, and for each line the file and line it came from."""

    text: str
    origins: tuple[tuple[str, int], ...]

    def locate(self, message: str) -> str:
        """Append the origin to every ``wgsl:LINE:COLUMN`` of a compiler message."""

        def origin(match: re.Match[str]) -> str:
            line = int(match.group(1))
            if not 0 < line <= len(self.origins):
                return match.group()
            name, original = self.origins[line - 1]
            return f"{match.group()} ({name}:{original})"

        return re.sub(r"wgsl:(\d+):\d+", origin, message)


def shader_folder() -> Path:
    """The folder that holds the shaders of this installation."""
    for place in _PLACES:
        if (place / "shared").is_dir():
            return place
    raise FileNotFoundError(f"no shaders in {_PLACES[0]} or {_PLACES[1]}; reinstall scgpu")


def boundary(op: _abi.Op) -> list[str]:
    """WGSL of the parameter block, the constants and the bindings of an operation."""
    lines = ["struct Params {", *(f"    {name}: u32," for name in op.params), "}", "var<immediate> params: Params;"]
    lines += [f"const {name}: u32 = {value}u;" for name, value in op.constants.items()]
    for index, buffer in enumerate(op.buffers):
        mode = "read" if buffer.access == "in" else "read_write"
        lines.append(
            f"@group(0) @binding({index}) var<storage, {mode}> {buffer.name}: "
            f"array<{buffer.wgsl or _WGSL_TYPES[buffer.dtype]}>;"
        )
    return lines


def expand(op: _abi.Op, folder: Path, files: Iterable[tuple[str, str]] = ()) -> Source:
    """The complete shader of an operation, from the files in ``folder``.

    ``files`` gives the file of an import that varies, else its first one is taken.

    Raises
    ------
    ShaderImportError
        When a file imports one that does not exist, or imports itself through others.
    """
    meant = {name: choices[0] for name, choices in op.imports.items()} | dict(files)
    lines: list[str] = []
    origins: list[tuple[str, int]] = []
    done: set[str] = set()

    def inline(path: Path, chain: tuple[str, ...]) -> None:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = _IMPORT.match(line)
            if not found:
                if line.startswith("#import"):
                    raise ShaderImportError(f"{path.name}:{number}: #import needs one name; got {line!r}")
                lines.append(line)
                origins.append((path.name, number))
                continue
            name = found.group(1)
            if not _NAME.fullmatch(name):  # a name, never a path
                raise ShaderImportError(f"{path.name}:{number}: #import {name!r} is no name of a shader")
            if name in chain:
                raise ShaderImportError(f"{path.name}:{number}: circular #import {' -> '.join((*chain, name))}")
            if name in done:
                continue
            done.add(name)
            if name == "abi":
                rendered = boundary(op)
                lines.extend(rendered)
                origins.extend(("_abi.py", 0) for _ in rendered)
                continue
            target = folder / "shared" / f"{meant.get(name, name)}.wgsl"
            if not target.is_file():
                known = sorted(file.stem for file in (folder / "shared").glob("*.wgsl"))
                raise ShaderImportError(
                    f"{path.name}:{number}: unknown #import {name}; there are abi, {', '.join(known)}"
                )
            inline(target, (*chain, name))

    inline(folder / f"{op.name}.wgsl", (op.name,))
    return Source("\n".join(lines) + "\n", tuple(origins))


def render_source(name: str, header: Iterable[str]) -> Source:
    """A shader of ``shaders/render/`` of this installation, behind the declarations in ``header``."""
    first = list(header)
    lines = (shader_folder() / "render" / f"{name}.wgsl").read_text(encoding="utf-8").splitlines()
    origins = [("_render.py", 0) for _ in first] + [(f"{name}.wgsl", number) for number in range(1, len(lines) + 1)]
    return Source("\n".join((*first, *lines)) + "\n", tuple(origins))


@cache
def source(op_name: str, files: tuple[tuple[str, str], ...] = ()) -> Source:
    """The complete shader of an operation of this installation, with the files of a variant."""
    return expand(_abi.OPS[op_name], shader_folder(), files)
