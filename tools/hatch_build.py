"""Build hook of hatchling: adds the native library and the shaders to the wheel."""

from __future__ import annotations

import platform
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def platform_tag() -> str:
    """Platform tag of a wheel that holds the library for this machine."""
    if sys.platform == "darwin":
        # A universal Python would claim both architectures; the library has one, for macOS 11 on.
        return f"macosx_11_0_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


class NativeLibraryHook(BuildHookInterface[Any]):
    """Builds the library of ``cpu_ref/``: into a wheel, or in place for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and set what the wheel contains."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "tools"))
        import build_cpu_ref

        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        # Lives until the hook does, so until the wheel is written.
        self._scratch = tempfile.TemporaryDirectory(prefix="scgpu-wheel-")
        try:
            name = build_cpu_ref.library_name(build_cpu_ref.native_target())
            if version == "editable":
                # An editable install takes the shaders from the checkout, beside the package.
                build_cpu_ref.build(root / "scgpu" / name)
                return
            library = Path(self._scratch.name) / name
            build_cpu_ref.build(library)
        except build_cpu_ref.BuildError as error:
            self.app.abort(f"scgpu: the native library cannot be built: {error}")
        build_data["force_include"][str(library)] = f"scgpu/{name}"
        build_data["force_include"][str(root / "shaders")] = "scgpu/shaders"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary library."""
        self._scratch.cleanup()
