"""What each container was attached to, from before its ADD until after its DEL. I/O: files.

`<cniDir>/<containerID>` in Multus's own format (`multinet.scratch`), so that either side can delete the other's pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from homeport.cni.invocations import Attachment
from homeport.model.errors import DecodeFailure, InvalidEnvironment
from homeport.model.names import is_identifier
from homeport.multinet import scratch
from homeport.multinet.delegates import Delegate
from homeport.runtime import node_files

_ASIDE = ".unreadable-"


class ScratchFiles:
    """The files of one `cniDir`."""

    def __init__(self, cni_dir: str | Path) -> None:
        self._directory = Path(cni_dir)

    def path(self, container_id: str) -> Path:
        """Where the container's file is, whether it exists or not."""
        if not is_identifier(container_id):
            raise InvalidEnvironment(f'name scratch file: found container ID "{container_id}", expected a file name')
        return self._directory / container_id

    def write(self, container_id: str, delegates: tuple[Delegate, ...]) -> None:
        """Replaces the file."""
        node_files.replace(self.path(container_id), scratch.encode(delegates))

    def read(self, runtime: Attachment, runtime_config: Mapping[str, Any]) -> tuple[Delegate, ...] | None:
        """The delegates of the runtime's container, the main one first; None when there is no file.

        What the runtime says now completes a file that Multus wrote. Raises `IOFailure` or `DecodeFailure`.
        """
        path = self.path(runtime.container_id)
        contents = node_files.read(path)
        if contents is None:
            return None
        try:
            return scratch.decode(
                contents,
                container_id=runtime.container_id,
                main_ifname=runtime.ifname,
                container_args=runtime.args,
                runtime_config=runtime_config,
            )
        except DecodeFailure as e:
            raise DecodeFailure(f"{path}: {e.msg}", e.details) from e

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        node_files.remove(self.path(container_id))

    def set_aside(self, container_id: str) -> Path:
        """Keeps a file that could not be read for a person to look at, under the path returned."""
        aside = self._directory / f"{_ASIDE}{container_id}"
        node_files.rename(self.path(container_id), aside)
        return aside

    def containers(self) -> Iterator[str]:
        """Every container that has a file."""
        return (name for name in node_files.names(self._directory) if is_identifier(name))
