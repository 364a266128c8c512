"""Device information files, from device plugins to CNI plugins and to the pod's status. I/O: files.

NPWG device information specification 1.1.0: a device plugin describes the device it gave; the attachment has a copy of
its own, which its plugins may read, or write themselves where no device plugin did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from homeport.model.errors import CniError
from homeport.multinet import devices
from homeport.multinet.delegates import Delegate
from homeport.runtime import node_files

_COPY_MODE = 0o444


class DeviceInfos:
    """The files of a node whose file system begins at `root`. One that cannot be read or written fails no ADD."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def told(self, delegates: Sequence[Delegate], container_id: str) -> tuple[Delegate, ...]:
        """The delegates; those with a plugin that declares the capability have the file's path in its argument."""
        return tuple(
            msgspec.structs.replace(
                delegate,
                capability_args={
                    **delegate.capability_args,
                    devices.CAPABILITY: str(self._path(delegate, container_id)),
                },
            )
            if _is_wanted(delegate)
            else delegate
            for delegate in delegates
        )

    def provide(self, delegate: Delegate, container_id: str) -> None:
        """Copies what the device plugin wrote about the delegate's device, for its ADD."""
        if not (delegate.device_id and delegate.resource_name):
            return
        source = Path(self._root + devices.device_plugin_file(delegate.resource_name, delegate.device_id))
        try:
            contents = node_files.read(source)
            if contents is not None:
                node_files.replace(self._path(delegate, container_id), contents, mode=_COPY_MODE)
        except CniError:
            return

    def read(self, delegate: Delegate, container_id: str) -> Mapping[str, Any] | None:
        """The object for the pod's status; None when there is none that can be read."""
        if not _has_file(delegate):
            return None
        path = self._path(delegate, container_id)
        try:
            contents = node_files.read(path)
            return None if contents is None else devices.decode_info(contents, f"device information {path}")
        except CniError:
            return None

    def remove(self, delegates: Iterable[Delegate], container_id: str) -> None:
        """Idempotent; raises `IOFailure`."""
        for delegate in delegates:
            if _has_file(delegate):
                node_files.remove(self._path(delegate, container_id))

    def _path(self, delegate: Delegate, container_id: str) -> Path:
        return Path(self._root + devices.attachment_file(delegate.name, container_id, delegate.ifname))


def _has_file(delegate: Delegate) -> bool:
    return bool(delegate.device_id) or _is_wanted(delegate)


def _is_wanted(delegate: Delegate) -> bool:
    return any(_declares(plugin.get("capabilities")) for plugin in delegate.network.plugins)


def _declares(capabilities: object) -> bool:
    return isinstance(capabilities, Mapping) and capabilities.get(devices.CAPABILITY) is True
