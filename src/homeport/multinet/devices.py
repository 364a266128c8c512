"""Devices of a pod's networks: which one each gets, where the plugins learn of it, and what is told of it. No I/O.

A NetworkAttachmentDefinition names its resource in the annotation `k8s.v1.cni.cncf.io/resourceName`; the kubelet has
given the pod some devices of it. The files are those of the NPWG device-information specification 1.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.model.errors import DecodeFailure

RESOURCE_ANNOTATION = "k8s.v1.cni.cncf.io/resourceName"
CAPABILITY = "CNIDeviceInfoFile"
"""The capability argument by which a plugin learns where its device's file is."""

INFO_DIR = "/var/run/k8s.cni.cncf.io/devinfo"


class _Pci(msgspec.Struct, rename="kebab", omit_defaults=True):
    pci_address: str = ""
    vhost_net: str = ""
    rdma_device: str = ""
    pf_pci_address: str = ""
    representor_device: str = ""


class _Vdpa(msgspec.Struct, rename="kebab", omit_defaults=True):
    parent_device: str = ""
    driver: str = ""
    path: str = ""
    pci_address: str = ""
    pf_pci_address: str = ""
    representor_device: str = ""


class _VhostUser(msgspec.Struct, omit_defaults=True):
    mode: str = ""
    path: str = ""


class _Memif(msgspec.Struct, omit_defaults=True):
    role: str = ""
    path: str = ""
    mode: str = ""


class _DeviceInfo(msgspec.Struct, rename="kebab", omit_defaults=True):
    """The file's keys, in the order in which status has them."""

    type: str = ""
    version: str = ""
    pci: _Pci | None = None
    vdpa: _Vdpa | None = None
    vhost_user: _VhostUser | None = None
    memif: _Memif | None = None


def assign(resources: Iterable[str], devices: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The device ID of each network, given the resource each asks for; "" for none.

    The n-th network of one resource gets the n-th of its devices. When there are fewer, the last ones go without, as
    resources exist that count something else than devices; a plugin that needs one says so itself.
    """
    left = {resource: iter(ids) for resource, ids in devices.items()}
    return tuple(next(left.get(resource, iter(())), "") if resource else "" for resource in resources)


def with_device(network: ConfList, device_id: str) -> ConfList:
    """The network with the device in every plugin, under both keys that plugins read."""
    given = {"deviceID": device_id, "pciBusID": device_id}
    return conflists.with_plugins(network, [{**plugin, **given} for plugin in network.plugins])


def device_plugin_file(resource: str, device_id: str) -> str:
    """Where the device plugin describes a device it gave to the kubelet."""
    return f"{INFO_DIR}/dp/{_file_name(f'{resource}-{device_id}-device.json')}"


def attachment_file(network: str, container_id: str, ifname: str) -> str:
    """Where one attachment's device is described. `network` is the name status has for it."""
    return f"{INFO_DIR}/cni/{_file_name(f'{network}-{container_id}_{ifname}')}"


def decode_info(contents: bytes, what: str) -> Mapping[str, Any]:
    """A device's description, as `device-info` of status is to have it: known keys in order, empty ones left out."""
    value = documents.decode_object(contents, what)
    encoded: Mapping[str, Any] = msgspec.to_builtins(
        documents.convert(value, _DeviceInfo, at=what, error=DecodeFailure)
    )
    return encoded


def _file_name(text: str) -> str:
    return text.replace("/", "-")
