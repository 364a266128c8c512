"""Results in every version of the protocol, and the versions themselves. No I/O.

CNI SPEC 1.1.0 §5 and its older editions. The model's `Result` has no version: decoding and encoding are the two
halves of every conversion between versions. Key order and omission follow the Go library, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Any, TypeVar

import msgspec

from homeport.cni import documents
from homeport.model.addresses import IPAddress, IPInterface, IPNetwork
from homeport.model.errors import CniError, DecodeFailure, IncompatibleVersion
from homeport.model.results import DNS, Interface, IPConfig, Result, Route

T = TypeVar("T")

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = SUPPORTED_VERSIONS[-1]
_FAMILIES = (("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0"))
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){2}")

_Size = Annotated[int, msgspec.Meta(ge=0)]


# --- versions ----------------------------------------------------------------------------------------------------


def ordinal(version: str) -> tuple[int, ...]:
    """A version as numbers to compare; raises `DecodeFailure` when it is not three numbers joined by dots."""
    if not _VERSION.fullmatch(version):
        raise DecodeFailure(
            f"decode cniVersion: found {documents.shown(version)}, expected a version such as {CURRENT}"
        )
    return tuple(int(part) for part in version.split("."))


def at_least(version: str, least: str) -> bool:
    """Whether `version` is `least` or later."""
    return ordinal(version) >= ordinal(least)


def newer_than_ours(version: str) -> bool:
    """Whether `version` is of a protocol later than the latest we speak."""
    return ordinal(version) > ordinal(CURRENT)


def require_supported(version: str) -> str:
    """`version`, with "" read as 0.1.0 as the first edition left the key out; else `IncompatibleVersion`."""
    version = version or SUPPORTED_VERSIONS[0]
    if version not in SUPPORTED_VERSIONS:
        raise IncompatibleVersion(
            f"cniVersion: found {documents.shown(version)}, expected one of {', '.join(SUPPORTED_VERSIONS)}",
            supported_details(version),
        )
    return version


def supported_details(version: str) -> str:
    """The `details` of an `IncompatibleVersion`."""
    return f'config is "{version}", plugin supports {documents.shown(list(SUPPORTED_VERSIONS))}'


def same_family(one: str, other: str) -> bool:
    """Whether the two versions share one form of result."""
    return any(one in family and other in family for family in _FAMILIES)


def version_info(version: str = CURRENT) -> dict[str, Any]:
    """What VERSION prints."""
    return {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def decode_version_info(value: Any) -> tuple[str, ...]:
    """The versions an answer to VERSION names; raises `DecodeFailure`."""
    wire = documents.convert(value, _WireVersionInfo, error=DecodeFailure)
    return tuple(wire.supported_versions)


# --- wire forms --------------------------------------------------------------------------------------------------


class WireDNS(msgspec.Struct):
    """`dns` in every version."""

    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []

    def value(self) -> DNS:
        return DNS(
            nameservers=tuple(self.nameservers),
            domain=self.domain,
            search=tuple(self.search),
            options=tuple(self.options),
        )


class _WireRoute(msgspec.Struct):
    dst: str
    gw: str = ""
    mtu: _Size = 0
    advmss: _Size = 0
    priority: _Size = 0
    table: _Size | None = None
    scope: _Size | None = None


class _WireInterface(msgspec.Struct):
    name: str = ""
    mac: str = ""
    mtu: _Size = 0
    sandbox: str = ""
    socket_path: str = msgspec.field(name="socketPath", default="")
    pci_id: str = msgspec.field(name="pciID", default="")


class _WireIP(msgspec.Struct):
    address: str
    gateway: str = ""
    interface: _Size | None = None


class _WireResult(msgspec.Struct):
    """0.3.0 and later."""

    interfaces: list[_WireInterface] = []
    ips: list[_WireIP] = []
    routes: list[_WireRoute] = []
    dns: WireDNS = msgspec.field(default_factory=WireDNS)


class _WireFamilyIP(msgspec.Struct):
    ip: str
    gateway: str = ""
    routes: list[_WireRoute] = []


class _WireOldResult(msgspec.Struct):
    """0.1.0 and 0.2.0: at most one address a family."""

    ip4: _WireFamilyIP | None = None
    ip6: _WireFamilyIP | None = None
    dns: WireDNS = msgspec.field(default_factory=WireDNS)


class _WireVersion(msgspec.Struct, rename="camel"):
    cni_version: str = ""


class _WireVersionInfo(msgspec.Struct, rename="camel"):
    supported_versions: list[str]


# --- decoding ----------------------------------------------------------------------------------------------------


def decode_result(value: Any, version: str, *, at: str = "", error: type[CniError] = DecodeFailure) -> Result:
    """A result in the version it names, or in `version` when it names none. Null is an empty result.

    Raises `error` naming the key below `at`, or `IncompatibleVersion` for a version we do not speak.
    """
    if value is None:
        return Result()
    own = documents.convert(value, _WireVersion, at=at, error=error).cni_version or version
    reader = _Reader(at, error)
    if require_supported(own) in _FAMILIES[0]:
        return reader.old_result(documents.convert(value, _WireOldResult, at=at, error=error))
    return reader.result(documents.convert(value, _WireResult, at=at, error=error))


class _Reader:
    """Wire forms to values, keeping the place for errors."""

    def __init__(self, at: str, error: type[CniError]) -> None:
        self._at = f"{at}." if at else ""
        self._error = error

    def result(self, wire: _WireResult) -> Result:
        return Result(
            interfaces=tuple(
                Interface(
                    name=i.name,
                    mac=i.mac or None,
                    mtu_bytes=i.mtu or None,
                    sandbox=i.sandbox or None,
                    socket_path=i.socket_path or None,
                    pci_id=i.pci_id or None,
                )
                for i in wire.interfaces
            ),
            ips=tuple(
                IPConfig(
                    address=self._interface(ip.address, f"ips[{n}].address"),
                    gateway=self._address(ip.gateway, f"ips[{n}].gateway"),
                    interface=ip.interface,
                )
                for n, ip in enumerate(wire.ips)
            ),
            routes=self._routes(wire.routes, "routes"),
            dns=wire.dns.value(),
        )

    def old_result(self, wire: _WireOldResult) -> Result:
        ips: list[IPConfig] = []
        routes: list[Route] = []
        for key, family, ip in (("ip4", 4, wire.ip4), ("ip6", 6, wire.ip6)):
            if ip is None:
                continue
            address = self._interface(ip.ip, f"{key}.ip")
            if address.version != family:
                raise self._wrong(f"{key}.ip", ip.ip, f"an IPv{family} address")
            ips.append(IPConfig(address=address, gateway=self._address(ip.gateway, f"{key}.gateway")))
            routes.extend(self._routes(ip.routes, f"{key}.routes"))
        return Result(ips=tuple(ips), routes=tuple(routes), dns=wire.dns.value())

    def _routes(self, wire: Sequence[_WireRoute], key: str) -> tuple[Route, ...]:
        return tuple(
            Route(
                dst=self._network(route.dst, f"{key}[{n}].dst"),
                gw=self._address(route.gw, f"{key}[{n}].gw"),
                mtu_bytes=route.mtu or None,
                advmss=route.advmss or None,
                priority=route.priority or None,
                table=route.table,
                scope=route.scope,
            )
            for n, route in enumerate(wire)
        )

    def _interface(self, text: str, key: str) -> IPInterface:
        return self._read(_with_prefix, ip_interface, text, key, "an address with its prefix, such as 10.1.2.3/24")

    def _network(self, text: str, key: str) -> IPNetwork:
        def network(given: str) -> IPNetwork:
            return ip_network(given, strict=False)

        return self._read(_with_prefix, network, text, key, "a network, such as 10.1.0.0/16")

    def _address(self, text: str, key: str) -> IPAddress | None:
        return self._read(_without_zone, ip_address, text, key, "an IP address") if text else None

    def _read(self, allowed: Callable[[str], bool], read: Callable[[str], T], text: str, key: str, expected: str) -> T:
        if not allowed(text):
            raise self._wrong(key, text, expected)
        try:
            return read(text)
        except ValueError as e:
            raise self._wrong(key, text, expected) from e

    def _wrong(self, key: str, found: str, expected: str) -> CniError:
        return self._error(f'key "{self._at}{key}": found {documents.shown(found)}, expected {expected}')


def _with_prefix(text: str) -> bool:
    """Go takes CIDR only: no bare address, no netmask, no zone."""
    _, slash, prefix = text.partition("/")
    return bool(slash) and prefix.isascii() and prefix.isdigit() and _without_zone(text)


def _without_zone(text: str) -> bool:
    return "%" not in text


# --- encoding ----------------------------------------------------------------------------------------------------


def encode_result(result: Result, version: str) -> dict[str, Any]:
    """The result as `version` writes it.

    What a version has no place for is left out (0.3/0.4: mtu, socketPath and pciID of interfaces; 0.1/0.2: all
    but the first address of a family, and interfaces). 0.1/0.2 cannot say "no address": `IncompatibleVersion`.
    """
    version = require_supported(version)
    if version in _FAMILIES[0]:
        return _encode_old(result, version)
    modern = version in _FAMILIES[2]
    encoded: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        encoded["interfaces"] = [_encode_interface(i, modern=modern) for i in result.interfaces]
    if result.ips:
        encoded["ips"] = [_encode_ip(ip, modern=modern) for ip in result.ips]
    if result.routes:
        encoded["routes"] = [_encode_route(r) for r in result.routes]
    if result.dns or not modern:
        encoded["dns"] = encode_dns(result.dns)
    return _sorted(encoded) if modern else encoded


def encode_dns(dns: DNS) -> dict[str, Any]:
    """Resolver settings, empty ones left out."""
    return _given(
        nameservers=list(dns.nameservers), domain=dns.domain, search=list(dns.search), options=list(dns.options)
    )


def encode_error(error: CniError, version: str = "") -> dict[str, Any]:
    """What a plugin prints when it fails (CNI SPEC 1.1.0 §5 "Error")."""
    encoded: dict[str, Any] = {"cniVersion": version} if version else {}
    encoded |= {"code": error.code, "msg": _sayable(error.msg)}
    return {**encoded, "details": _sayable(error.details)} if error.details else encoded


def _encode_old(result: Result, version: str) -> dict[str, Any]:
    encoded: dict[str, Any] = {"cniVersion": version}
    for key, family in (("ip4", 4), ("ip6", 6)):
        ip = next((ip for ip in result.ips if ip.address.version == family), None)
        if ip is not None:
            encoded[key] = _encode_family_ip(ip, [r for r in result.routes if r.dst.version == family])
    if len(encoded) == 1:
        raise IncompatibleVersion(f"convert result to cniVersion {version}: found no address, expected one at least")
    encoded["dns"] = encode_dns(result.dns)
    return encoded


def _encode_family_ip(ip: IPConfig, routes: Sequence[Route]) -> dict[str, Any]:
    return {
        "ip": ip.address.with_prefixlen,
        **_given(
            gateway=str(ip.gateway or ""), routes=[{"dst": str(r.dst), **_given(gw=str(r.gw or ""))} for r in routes]
        ),
    }


def _encode_interface(interface: Interface, *, modern: bool) -> dict[str, Any]:
    encoded = {"name": interface.name, **_given(mac=interface.mac, sandbox=interface.sandbox)}
    if modern:
        encoded |= _given(mtu=interface.mtu_bytes, socketPath=interface.socket_path, pciID=interface.pci_id)
    return encoded


def _encode_ip(ip: IPConfig, *, modern: bool) -> dict[str, Any]:
    encoded: dict[str, Any] = {} if modern else {"version": str(ip.address.version)}
    if ip.interface is not None:
        encoded["interface"] = ip.interface
    encoded["address"] = ip.address.with_prefixlen
    return encoded | _given(gateway=str(ip.gateway or ""))


def _encode_route(route: Route) -> dict[str, Any]:
    encoded = {
        "dst": str(route.dst),
        **_given(gw=str(route.gw or ""), mtu=route.mtu_bytes, advmss=route.advmss, priority=route.priority),
    }
    # Zero is a table and a scope of its own, unlike the sizes above.
    if route.table is not None:
        encoded["table"] = route.table
    if route.scope is not None:
        encoded["scope"] = route.scope
    return encoded


def _sayable(text: str) -> str:
    """Bytes of a path or a variable that are not UTF-8 reach us as lone surrogates, which JSON cannot carry."""
    return text.encode(errors="backslashreplace").decode()


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _sorted(value: Any) -> Any:
    """Objects with their keys in order, at every depth: what the Go library makes of a 1.x result."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
