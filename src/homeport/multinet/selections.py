"""A pod's wish for networks: the annotation `k8s.v1.cni.cncf.io/networks` as values. No I/O.

NPWG multi-network specification v1.3 §4.1, read the way Multus reads it. What could not be attached in the end (a bad
interface name, a name no object can have) is refused here, with the entry named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import InvalidNetConf
from homeport.model.names import is_ifname

ANNOTATION = "k8s.v1.cni.cncf.io/networks"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_HEX = re.compile(r"[0-9a-fA-F]+")
_HARDWARE_BYTES = (6, 8, 20)  # Ethernet, EUI-64 and InfiniBand GUID, IP over InfiniBand


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A port of the node led to one of the container. Also the wire form of the capability `portMappings`."""

    host_port: int = 0
    container_port: int = 0
    protocol: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Rates in bits a second, bursts in bits. Also the wire form of the capability `bandwidth`."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class NetworkSelection(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment a pod asks for. `ifname` None: the runtime numbers it.

    `mac` and `infiniband_guid` are lower-case hex pairs joined by colons (6, 8 or 20 bytes). `default_route` None
    leaves the pod's default route alone; an empty one keeps the network's own.
    """

    namespace: str
    name: str
    ifname: str | None = None
    ips: tuple[IPAddress | IPInterface, ...] = ()
    mac: str | None = None
    infiniband_guid: str | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    device_id: str | None = None
    cni_args: Mapping[str, Any] = {}
    default_route: tuple[IPAddress, ...] | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f"@{self.ifname}" if self.ifname else "")


class _WireSelection(msgspec.Struct, rename="kebab"):
    name: str
    namespace: str = ""
    interface: str = ""
    interface_request: str = msgspec.field(name="interfaceRequest", default="")  # deprecated alias of `interface`
    ips: list[str] = []
    mac: str = ""
    infiniband_guid: str = ""
    port_mappings: list[PortMapping] = msgspec.field(name="portMappings", default_factory=list)
    bandwidth: Bandwidth | None = None
    device_id: str = msgspec.field(name="deviceID", default="")
    cni_args: dict[str, Any] = {}
    default_route: list[str] | None = None


def parse(annotation: str, pod_namespace: str) -> tuple[NetworkSelection, ...]:
    """The selections in order; none for an empty annotation. The same network may come twice.

    A value with any of `[`, `{` or `"` is a JSON list, any other the short form `[NAMESPACE/]NAME[@IFNAME],...`.
    Raises `InvalidNetConf` or `DecodeFailure` naming the entry.
    """
    if not annotation.strip():
        return ()
    if not any(c in annotation for c in '[{"'):
        return tuple(_of_text(item.strip(), n, pod_namespace) for n, item in enumerate(annotation.split(",")))
    items = documents.decode(annotation.encode(errors="surrogatepass"), f"annotation {ANNOTATION}")
    if not isinstance(items, list):
        raise InvalidNetConf(f"annotation {ANNOTATION}: found {documents.shown(items)}, expected a JSON list")
    return tuple(
        _of_wire(documents.convert(item, _WireSelection, at=f"{ANNOTATION}[{n}]"), n, pod_namespace)
        for n, item in enumerate(items)
    )


def capability_args(selection: NetworkSelection) -> dict[str, Any]:
    """What the selection asks of plugins, under the names of the CNI conventions' capabilities."""
    wanted = {
        "portMappings": [msgspec.to_builtins(mapping) for mapping in selection.port_mappings],
        "bandwidth": msgspec.to_builtins(selection.bandwidth),
        "ips": [str(ip) for ip in selection.ips],
        "mac": selection.mac,
        "infinibandGUID": selection.infiniband_guid,
        "deviceID": selection.device_id,
    }
    return {key: value for key, value in wanted.items() if value}


def args(selection: NetworkSelection) -> dict[str, str]:
    """The same wishes as CNI_ARGS, for plugins that read them there."""
    wanted = {"MAC": selection.mac or "", "IP": ",".join(str(ip) for ip in selection.ips)}
    return {key: value for key, value in wanted.items() if value}


def _of_text(item: str, n: int, pod_namespace: str) -> NetworkSelection:
    at = f"{ANNOTATION}[{n}]"
    namespace, slash, rest = item.rpartition("/")
    name, sign, ifname = rest.partition("@")
    namespace, name, ifname = namespace.strip(), name.strip(), ifname.strip()
    if "/" in namespace or "@" in namespace + ifname or (slash and not namespace) or (sign and not ifname):
        raise _wrong(at, item, "[NAMESPACE/]NAME[@IFNAME]")
    for part in (namespace, name) if slash else (name,):
        if not _LABEL.fullmatch(part):
            raise _wrong(at, item, 'names of lower-case letters, digits and "-"')
    return NetworkSelection(namespace=namespace or pod_namespace, name=name, ifname=_ifname(ifname, at))


def _of_wire(wire: _WireSelection, n: int, pod_namespace: str) -> NetworkSelection:
    at = f"{ANNOTATION}[{n}]"
    namespace = wire.namespace or pod_namespace
    for key, name in (("name", wire.name), ("namespace", namespace)):
        if not _SUBDOMAIN.fullmatch(name):
            raise _wrong(f"{at}.{key}", name, 'lower-case letters, digits, "-" and "."')
    default_route = None
    if wire.default_route is not None:
        default_route = tuple(_address(text, f"{at}.default-route[{i}]") for i, text in enumerate(wire.default_route))
    return NetworkSelection(
        namespace=namespace,
        name=wire.name,
        ifname=_ifname(wire.interface or wire.interface_request, f"{at}.interface"),
        ips=tuple(_address_or_interface(text, f"{at}.ips[{i}]") for i, text in enumerate(wire.ips)),
        mac=_hardware_address(wire.mac, f"{at}.mac"),
        infiniband_guid=_hardware_address(wire.infiniband_guid, f"{at}.infiniband-guid"),
        port_mappings=tuple(wire.port_mappings),
        bandwidth=wire.bandwidth,
        device_id=wire.device_id or None,
        cni_args=wire.cni_args,
        default_route=default_route,
    )


def _ifname(text: str, at: str) -> str | None:
    if text and not is_ifname(text):
        raise _wrong(at, text, 'an interface name: 1 to 15 characters without "/", ":" or blanks')
    return text or None


def _address_or_interface(text: str, at: str) -> IPAddress | IPInterface:
    try:
        return ip_interface(text) if "/" in text else ip_address(text)
    except ValueError as e:
        raise _wrong(at, text, "an IP address, with or without a prefix length") from e


def _address(text: str, at: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as e:
        raise _wrong(at, text, "an IP address") from e


def _hardware_address(text: str, at: str) -> str | None:
    """The forms Go reads: pairs joined by `:` or `-`, or fours joined by `.`."""
    if not text:
        return None
    for separator, width in ((":", 2), ("-", 2), (".", 4)):
        groups = text.split(separator)
        digits = "".join(groups).lower()
        if all(len(g) == width and _HEX.fullmatch(g) for g in groups) and len(digits) // 2 in _HARDWARE_BYTES:
            return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    raise _wrong(at, text, "a hardware address of 6, 8 or 20 bytes, such as 0a:58:0a:00:00:01")


def _wrong(at: str, found: str, expected: str) -> InvalidNetConf:
    return InvalidNetConf(f"annotation {at}: found {documents.shown(found)}, expected {expected}")
