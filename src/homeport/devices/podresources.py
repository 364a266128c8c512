"""What the kubelet's service `v1.PodResourcesLister` says about one pod. No I/O.

https://github.com/kubernetes/kubelet/blob/master/pkg/apis/podresources/v1/api.proto. The service knows pods by name and
namespace alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from homeport.devices.messages import Reader
from homeport.model.errors import DecodeFailure, TryAgainLater
from homeport.model.names import PodRef

LIST = "/v1.PodResourcesLister/List"

_POD_RESOURCES = 1  # of ListPodResourcesResponse
_POD_NAME, _POD_NAMESPACE, _POD_CONTAINERS = 1, 2, 3
_CONTAINER_DEVICES, _CONTAINER_DYNAMIC_RESOURCES = 2, 5
_DEVICES_RESOURCE_NAME, _DEVICES_IDS = 1, 2
_DYNAMIC_CLAIM_NAME, _DYNAMIC_CLAIM_RESOURCES = 2, 4
_CLAIM_CDI_DEVICES = 1
_CDI_NAME = 1


def devices_of(reply: bytes, ref: PodRef) -> Mapping[str, tuple[str, ...]] | None:
    """Resource name to device IDs, sorted and each once, of a pod in the reply of `List`; None when it is not listed.

    A device given to an init container shows again in the container that took it over: it is one device. For dynamic
    resources the key is the claim's name, and the ID what follows `=` in a device's CDI name. Raises `DecodeFailure`,
    and `TryAgainLater` while the kubelet knows two pods of this name, for they cannot be told apart.
    """
    reader = Reader("the kubelet's list of devices")
    pods = [
        pod for number, pod in reader.fields(memoryview(reply)) if number == _POD_RESOURCES and _is(reader, pod, ref)
    ]
    if len(pods) > 1:
        raise TryAgainLater(f"find devices of pod {ref}: the kubelet still has an earlier pod of this name")
    if not pods:
        return None
    found: dict[str, set[str]] = {}
    for resource, device in _devices(reader, pods[0]):
        found.setdefault(resource, set()).add(device)
    return {resource: tuple(sorted(ids)) for resource, ids in sorted(found.items())}


def _is(reader: Reader, pod: memoryview, ref: PodRef) -> bool:
    name = namespace = ""
    for number, contents in reader.fields(pod):
        if number == _POD_NAME:
            name = reader.text(contents)
        elif number == _POD_NAMESPACE:
            namespace = reader.text(contents)
    return (namespace, name) == (ref.namespace, ref.name)


def _devices(reader: Reader, pod: memoryview) -> Iterator[tuple[str, str]]:
    """(resource name, device ID), repeats and all."""
    for pod_field, container in reader.fields(pod):
        if pod_field != _POD_CONTAINERS:
            continue
        for number, contents in reader.fields(container):
            if number == _CONTAINER_DEVICES:
                yield from _plugin_devices(reader, contents)
            elif number == _CONTAINER_DYNAMIC_RESOURCES:
                yield from _claimed_devices(reader, contents)


def _plugin_devices(reader: Reader, devices: memoryview) -> Iterator[tuple[str, str]]:
    resource = ""
    for number, contents in reader.fields(devices):
        if number == _DEVICES_RESOURCE_NAME:
            resource = reader.text(contents)
    for number, contents in reader.fields(devices):
        if number == _DEVICES_IDS:
            yield resource, reader.text(contents)


def _claimed_devices(reader: Reader, dynamic: memoryview) -> Iterator[tuple[str, str]]:
    claim = ""
    for number, contents in reader.fields(dynamic):
        if number == _DYNAMIC_CLAIM_NAME:
            claim = reader.text(contents)
    for number, contents in reader.fields(dynamic):
        if number != _DYNAMIC_CLAIM_RESOURCES:
            continue
        for inner, device in reader.fields(contents):
            if inner == _CLAIM_CDI_DEVICES:
                yield claim, _cdi_device(reader, device)


def _cdi_device(reader: Reader, device: memoryview) -> str:
    """`gpu0` of `vendor.com/gpu=gpu0` (Container Device Interface, "fully qualified name")."""
    name = ""
    for number, contents in reader.fields(device):
        if number == _CDI_NAME:
            name = reader.text(contents)
    kind, equals, unique = name.partition("=")
    if not (kind and equals and unique) or "=" in unique:
        raise DecodeFailure(f'decode CDI device name: found "{name}", expected VENDOR/CLASS=DEVICE')
    return unique
