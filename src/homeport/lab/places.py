"""Where a lab's files and namespaces are. Paths only; no I/O but the look at the environment.

What is below `run` exists only in the keeper's mount namespace and ends with it; the rest is on disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from homeport.lab.keeping import RUN
from homeport.model.errors import InvalidEnvironment
from homeport.model.names import is_identifier


class Places(msgspec.Struct, frozen=True):
    """The paths of the lab in `directory`."""

    directory: Path

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def state(self) -> Path:
        return self.directory / "lab.db"

    @property
    def allocations(self) -> Path:
        return self.directory / "allocations.db"

    @property
    def lan_netns(self) -> str:
        return str(self.directory / RUN / "lan")

    def node_netns(self, node: str) -> str:
        return str(self.directory / RUN / "nodes" / node)

    def pod_netns(self, container_id: str) -> str:
        return str(self.directory / RUN / "pods" / container_id)

    def disk(self, node: str) -> Path:
        """What stands for the node's own file system: CNI's result cache, host-local's directory."""
        return self.directory / "nodes" / node


def of_lab(name: str, environ: Mapping[str, str] = os.environ) -> Places:
    """/var/lib/homeport/lab/NAME for root, $XDG_STATE_HOME/homeport/lab/NAME for everybody else."""
    if not is_identifier(name) or len(name) > 63:
        raise InvalidEnvironment(f'--lab: found "{name}", expected letters, digits, "_", "." and "-", 63 at most')
    if state_home := environ.get("HOMEPORT_LAB_DIR"):
        return Places(Path(state_home) / name)
    if os.geteuid() == 0:
        return Places(Path("/var/lib/homeport/lab") / name)
    default = Path(environ.get("HOME", "/")) / ".local/state"
    return Places(Path(environ.get("XDG_STATE_HOME") or default) / "homeport/lab" / name)
