"""What the kubelet's device manager wrote down about one pod: the file `kubelet_internal_checkpoint`. No I/O.

JSON, `Data.PodDeviceEntries` with an entry a container and resource. `DeviceIDs` maps NUMA nodes to device IDs since
Kubernetes 1.20, and was a list before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from homeport.cni import documents
from homeport.model.errors import DecodeFailure


class _Entry(msgspec.Struct):
    pod_uid: str = msgspec.field(name="PodUID", default="")
    resource_name: str = msgspec.field(name="ResourceName", default="")
    device_ids: dict[str, list[str]] | list[str] = msgspec.field(name="DeviceIDs", default_factory=list)


class _Data(msgspec.Struct):
    entries: list[_Entry] = msgspec.field(name="PodDeviceEntries", default_factory=list)


class _Checkpoint(msgspec.Struct):
    data: _Data = msgspec.field(name="Data")


def devices_of(contents: bytes, uid: str) -> Mapping[str, tuple[str, ...]]:
    """Resource name to device IDs, sorted and each once. A pod without devices has no entry, so {} is an answer.

    Raises `DecodeFailure`: a file that is not whole says nothing about any pod.
    """
    what = "the kubelet's checkpoint of devices"
    whole = documents.decode_object(contents, what)
    found: dict[str, set[str]] = {}
    for entry in documents.convert(whole, _Checkpoint, error=DecodeFailure).data.entries:
        if entry.pod_uid == uid:
            found.setdefault(entry.resource_name, set()).update(_ids(entry))
    return {resource: tuple(sorted(ids)) for resource, ids in sorted(found.items()) if ids}


def _ids(entry: _Entry) -> Iterator[str]:
    if isinstance(entry.device_ids, list):
        yield from entry.device_ids
    else:
        for ids in entry.device_ids.values():
            yield from ids
