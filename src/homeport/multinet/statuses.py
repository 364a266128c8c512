"""What a pod's networks became: the annotation `k8s.v1.cni.cncf.io/network-status`. No I/O.

NPWG multi-network specification v1.3 §5. Keys, their order and the text's layout are those of the field's client
library, so that a pod which moves between implementations shows no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeport.cni import documents, versions
from homeport.model.addresses import IPAddress
from homeport.model.results import DNS, Interface, IPConfig, Result

ANNOTATION = "k8s.v1.cni.cncf.io/network-status"

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}  # as Go's JSON library does, within strings


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of the pod. `name` is NAMESPACE/NAME of its network, `device_info` the wire object."""

    name: str
    interface: str | None = None
    ips: tuple[IPAddress, ...] = ()
    mac: str | None = None
    mtu_bytes: int | None = None
    default: bool = False
    dns: DNS = DNS()
    device_info: Mapping[str, Any] | None = None
    gateways: tuple[IPAddress, ...] = ()


def of_result(
    name: str, result: Result, *, default: bool = False, device_info: Mapping[str, Any] | None = None
) -> tuple[NetworkStatus, ...]:
    """The entries of one attachment: one for each interface inside the pod, in order; none without interfaces.

    `default` is whether the attachment is the pod's default network; only one of its entries says so. An address
    that names no interface belongs to the last entry.
    """
    if not result.interfaces:
        return ()
    if len(result.interfaces) == 1:
        only = result.interfaces[0]
        inside = only if only.sandbox else Interface(name="")
        return (_status(name, inside, result.ips, result, default=default, device_info=device_info),)
    indexes = [i for i, interface in enumerate(result.interfaces) if interface.sandbox]
    main = _default_index(result, indexes) if default else None
    return tuple(
        _status(
            name,
            result.interfaces[i],
            [ip for ip in result.ips if ip.interface == i or (ip.interface is None and i == indexes[-1])],
            result,
            default=i == main,
            device_info=device_info,
        )
        for i in indexes
    )


def text(statuses: Iterable[NetworkStatus]) -> str:
    """The annotation's value: each entry indented by four spaces, joined by a bare comma."""
    return f"[{','.join(documents.write(_encode(status)).decode() for status in statuses)}]".translate(_ESCAPED)


def _status(
    name: str,
    interface: Interface,
    ips: Iterable[IPConfig],
    result: Result,
    *,
    default: bool,
    device_info: Mapping[str, Any] | None,
) -> NetworkStatus:
    return NetworkStatus(
        name=name,
        interface=interface.name or None,
        ips=tuple(ip.address.ip for ip in ips),
        mac=interface.mac,
        mtu_bytes=interface.mtu_bytes,
        default=default,
        dns=result.dns,
        device_info=device_info,
        gateways=_gateways(result),
    )


def _gateways(result: Result) -> tuple[IPAddress, ...]:
    """Of the default routes: an all-zero destination makes one, whatever its mask; not all have a gateway."""
    return tuple(r.gw for r in result.routes if r.gw is not None and int(r.dst.network_address) == 0)


def _default_index(result: Result, inside: list[int]) -> int | None:
    """The interface that the first address with both gateway and interface is on; without such, the pod's first.

    Where that interface is not in the pod, none is the default.
    """
    named = next((ip.interface for ip in result.ips if ip.gateway is not None and ip.interface is not None), None)
    return named if named is not None else next(iter(inside), None)


def _encode(status: NetworkStatus) -> dict[str, Any]:
    encoded: dict[str, Any] = {"name": status.name}
    optional = {
        "interface": status.interface,
        "ips": [str(ip) for ip in status.ips],
        "mac": status.mac,
        "mtu": status.mtu_bytes,
        "default": status.default,
    }
    encoded |= {key: value for key, value in optional.items() if value}
    encoded["dns"] = versions.encode_dns(status.dns)
    if status.device_info is not None:
        encoded["device-info"] = status.device_info
    if status.gateways:
        encoded["gateway"] = [str(gateway) for gateway in status.gateways]
    return encoded
