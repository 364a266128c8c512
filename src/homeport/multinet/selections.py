"""A pod's wish for networks: the annotations that select them, as values. No I/O.

NPWG multi-network specification v1.3 §4.1, read the way Multus reads it. What could not be attached in the end (a bad
interface name, a name no object can have) is refused here, with the entry named. A replica's number may stand in
name, interface, ips and mac (`templates`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

import msgspec

from homeport.cni import documents
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import InvalidNetConf
from homeport.model.names import is_ifname, is_label, is_subdomain
from homeport.multinet import templates

T = TypeVar("T")

ANNOTATION = "k8s.v1.cni.cncf.io/networks"
DEFAULT_ANNOTATION = "v1.multus-cni.io/default-network"

_HEX = re.compile(r"[0-9a-fA-F]+")
_HARDWARE_BYTES = (6, 8, 20)  # Ethernet, EUI-64 and InfiniBand GUID, IP over InfiniBand
_TOLD_EMPTY = "default-route"  # where an empty value says something else than none
_WHERE = '"{ordinal}" works in name, interface, ips and mac only'


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A port of the node led to one of the container."""

    host_port: int = 0
    container_port: int = 0
    protocol: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")

    def wire(self) -> dict[str, Any]:
        """As the capability `portMappings` has it: both ports always, the rest where it is said."""
        said = {"protocol": self.protocol, "hostIP": self.host_ip}
        ports = {"hostPort": self.host_port, "containerPort": self.container_port}
        return ports | {key: value for key, value in said.items() if value}


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Rates in bits a second, bursts in bits; zero is no limit. Also the wire form of the capability `bandwidth`."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class NetworkSelection(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment a pod asks for. `ifname` None: the runtime numbers it.

    `mac` and `infiniband_guid` are lower-case hex pairs joined by colons (6, 8 or 20 bytes). `default_route` None
    leaves the pod's default route alone; an empty one keeps the network's own. `ipam_claim` is the name of an IPAMClaim
    in the pod's namespace, whose addresses the pod is to have.
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
    ipam_claim: str | None = None

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
    ipam_claim_reference: str = ""


def parse(annotation: str, pod_namespace: str, *, ordinal: int | None = None) -> tuple[NetworkSelection, ...]:
    """The selections in order; none for an empty annotation. The same network may come twice.

    A JSON list, or the short form `[NAMESPACE/]NAME[@IFNAME],...`. `ordinal` is the replica's number, None for a pod
    that is none. Raises `InvalidNetConf` or `DecodeFailure` naming the entry.
    """
    return _Reader(ANNOTATION, pod_namespace, ordinal).read(annotation)


def parse_default(annotation: str, namespace: str, *, ordinal: int | None = None) -> NetworkSelection:
    """The one selection of `v1.multus-cni.io/default-network`; `namespace` is where it is looked for by default."""
    found = _Reader(DEFAULT_ANNOTATION, namespace, ordinal).read(annotation)
    if len(found) != 1:
        raise InvalidNetConf(f"annotation {DEFAULT_ANNOTATION}: found {len(found)} networks, expected exactly one")
    return found[0]


def is_json(annotation: str) -> bool:
    """Whether the annotation is meant as JSON and not as the short form."""
    text = annotation.lstrip()
    return text.startswith(("[", "{", '"')) and not templates.starts(text)


def encode(selection: NetworkSelection) -> dict[str, Any]:
    """The selection as an entry of the JSON list, everything spelled out; `decode` is the inverse."""
    encoded = {
        "name": selection.name,
        "namespace": selection.namespace,
        "interface": selection.ifname,
        "ips": [str(ip) for ip in selection.ips],
        "mac": selection.mac,
        "infiniband-guid": selection.infiniband_guid,
        "portMappings": [mapping.wire() for mapping in selection.port_mappings],
        "bandwidth": msgspec.to_builtins(selection.bandwidth),
        "deviceID": selection.device_id,
        "cni-args": dict(selection.cni_args),
        "default-route": None if selection.default_route is None else [str(ip) for ip in selection.default_route],
        "ipam-claim-reference": selection.ipam_claim,
    }
    return {key: value for key, value in encoded.items() if value or (key == _TOLD_EMPTY and value is not None)}


def decode(entry: Any, at: str) -> NetworkSelection:
    """An entry of the JSON list with its namespace; raises `InvalidNetConf` naming the key below `at`."""
    return _Reader(at, "", None).entry(entry, at)


def capability_args(selection: NetworkSelection) -> dict[str, Any]:
    """What the selection asks of plugins, under the names of the CNI conventions' capabilities."""
    wanted = {
        "portMappings": [mapping.wire() for mapping in selection.port_mappings],
        "bandwidth": msgspec.to_builtins(selection.bandwidth) if selection.bandwidth != Bandwidth() else None,
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


class _Reader:
    """Reads one annotation, keeping the place for errors."""

    def __init__(self, key: str, namespace: str, ordinal: int | None) -> None:
        self._key = key
        self._namespace = namespace
        self._ordinal = ordinal

    def read(self, annotation: str) -> tuple[NetworkSelection, ...]:
        if not annotation.strip():
            return ()
        if not is_json(annotation):
            items = enumerate(annotation.split(","))
            return tuple(self.text(item.strip(), f"{self._key}[{n}]") for n, item in items)
        listed = documents.decode(annotation.encode(errors="surrogatepass"), f"annotation {self._key}")
        if not isinstance(listed, list):
            raise InvalidNetConf(f"annotation {self._key}: found {documents.shown(listed)}, expected a JSON list")
        return tuple(self.entry(item, f"{self._key}[{n}]") for n, item in enumerate(listed))

    def text(self, item: str, at: str) -> NetworkSelection:
        """An item of the short form."""
        namespace, slash, rest = item.rpartition("/")
        name, sign, ifname = rest.partition("@")
        namespace, name, ifname = namespace.strip(), name.strip(), ifname.strip()
        if "/" in namespace or "@" in namespace + ifname or (slash and not namespace) or (sign and not ifname):
            raise _wrong(at, item, "[NAMESPACE/]NAME[@IFNAME]")
        return NetworkSelection(
            namespace=_read(namespace, at, _label) if slash else self._namespace,
            name=self._expanded(name, at, _label),
            ifname=self._expanded(ifname, at, _ifname),
        )

    def entry(self, item: Any, at: str) -> NetworkSelection:
        """An item of the JSON list."""
        wire = documents.convert(item, _WireSelection, at=at)
        routes = None if wire.default_route is None else enumerate(wire.default_route)
        if wire.ipam_claim_reference and wire.ips:
            expected = "either ipam-claim-reference or ips"
            raise InvalidNetConf(f"annotation {at}: found both, expected {expected}: a claim says which addresses")
        return NetworkSelection(
            namespace=_read(wire.namespace or self._namespace, f"{at}.namespace", _subdomain),
            name=self._expanded(wire.name, f"{at}.name", _subdomain),
            ifname=self._expanded(wire.interface or wire.interface_request, f"{at}.interface", _ifname),
            ips=tuple(self._expanded(text, f"{at}.ips[{i}]", _address_or_interface) for i, text in enumerate(wire.ips)),
            mac=self._expanded(wire.mac, f"{at}.mac", _hardware_address, as_byte=True),
            infiniband_guid=_read(wire.infiniband_guid, f"{at}.infiniband-guid", _hardware_address),
            port_mappings=tuple(wire.port_mappings),
            bandwidth=wire.bandwidth,
            device_id=_read(wire.device_id, f"{at}.deviceID", _device),
            cni_args=item.get("cni-args") or {},  # as written: the converted one lacks keys that are null
            default_route=None
            if routes is None
            else tuple(_read(text, f"{at}.default-route[{i}]", _address) for i, text in routes),
            ipam_claim=_read(wire.ipam_claim_reference, f"{at}.ipam-claim-reference", _object_name),
        )

    def _expanded(self, text: str, at: str, read: Callable[[str], T], *, as_byte: bool = False) -> T:
        expanded = templates.expand(text, self._ordinal, at, as_byte=as_byte)
        if expanded == text:
            return _read(text, at, read)
        return _read(expanded, at, read, because=f", made of {documents.shown(text)} for replica {self._ordinal}")


class _Unfit(ValueError):
    """Text of a wrong form; says which is right."""


def _read(text: str, at: str, read: Callable[[str], T], *, because: str = "") -> T:
    try:
        return read(text)
    except _Unfit as e:
        raise _wrong(at, text, str(e), because=because) from e


def _label(text: str) -> str:
    if not is_label(text):
        raise _Unfit('names of lower-case letters, digits and "-"')
    return text


def _subdomain(text: str) -> str:
    if not is_subdomain(text):
        raise _Unfit('lower-case letters, digits, "-" and "."')
    return text


def _object_name(text: str) -> str | None:
    return _subdomain(text) if text else None


def _ifname(text: str) -> str | None:
    if text and not is_ifname(text):
        raise _Unfit('an interface name: 1 to 15 characters without "/", ":" or blanks')
    return text or None


def _device(text: str) -> str | None:
    if templates.is_template(text):
        raise _Unfit("the same device for all replicas")
    return text or None


def _address_or_interface(text: str) -> IPAddress | IPInterface:
    try:
        return ip_interface(_without_zone(text)) if "/" in text else ip_address(_without_zone(text))
    except ValueError as e:
        raise _Unfit("an IP address, with or without a prefix length") from e


def _address(text: str) -> IPAddress:
    try:
        return ip_address(_without_zone(text))
    except ValueError as e:
        raise _Unfit("an IP address") from e


def _without_zone(text: str) -> str:
    """Go reads none, and a zone could be any text."""
    if "%" in text:
        raise ValueError(text)
    return text


def _hardware_address(text: str) -> str | None:
    """The forms Go reads: pairs joined by `:` or `-`, or fours joined by `.`."""
    if not text:
        return None
    for separator, width in ((":", 2), ("-", 2), (".", 4)):
        groups = text.split(separator)
        digits = "".join(groups).lower()
        if all(len(g) == width and _HEX.fullmatch(g) for g in groups) and len(digits) // 2 in _HARDWARE_BYTES:
            return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    raise _Unfit("a hardware address of 6, 8 or 20 bytes, such as 0a:58:0a:00:00:01")


def _wrong(at: str, found: str, expected: str, *, because: str = "") -> InvalidNetConf:
    if templates.is_template(found):
        expected = f"{expected}; {_WHERE}"
    return InvalidNetConf(f"annotation {at}: found {documents.shown(found)}{because}, expected {expected}")
