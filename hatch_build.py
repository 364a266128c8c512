"""Build hook: puts the native shim into the wheel, where there is a C compiler; the wheel is then of one machine type.

Without a compiler the wheel is pure Python, and `homeport install --shim` places the shim in Python. HOMEPORT_MACHINE
names another machine type that shim/Makefile has a compiler for, to build its wheel here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The executable is static: any Linux will do, whatever its C library. The tags are the oldest that pip looks for.
_PLATFORMS = "manylinux_2_17_{0}.musllinux_1_1_{0}"


class NativeShim(BuildHookInterface[Any]):
    """Runs `make` in shim/."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds and adds the executable; `version` is "editable" or "standard"."""
        machine = os.environ.get("HOMEPORT_MACHINE") or os.uname().machine
        executable = Path(self.root, "src", "homeport", "_native", f"homeport-shim-{machine}")
        try:
            argv = ["make", "-s", "-C", str(Path(self.root, "shim")), f"../src/homeport/_native/{executable.name}"]
            subprocess.run(argv, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as e:
            reason = e.stderr.strip() if isinstance(e, subprocess.CalledProcessError) else str(e)
            if os.environ.get("HOMEPORT_MACHINE"):
                raise RuntimeError(f"build the shim for {machine}: {reason}") from e
            self.app.display_warning(f"no native shim in this build: {reason}")
            return
        if version != "editable":
            build_data["force_include"][str(executable)] = f"homeport/_native/{executable.name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_PLATFORMS.format(machine)}"
