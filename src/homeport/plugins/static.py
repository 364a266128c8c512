"""The static plugin: the addresses of the configuration, or the ones the runtime asks for. Pure; keeps no state.

Names, and who overrides whom, are those of the reference plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from homeport.cni import documents, versions
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import Drift, InvalidNetConf
from homeport.model.results import IPConfig, Result
from homeport.plugins import drift
from homeport.ports import Shells

TYPE = "static"


class _Address(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    gateway: str = ""


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    addresses: tuple[_Address, ...] = ()


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    ips: tuple[str, ...] = ()


def parse(conf: NetConf, attachment: Attachment) -> Result:
    """The result ADD gives. Raises `InvalidNetConf`, naming the key.

    The runtime's `ips` replace the addresses asked for in `args.cni.ips`, which replace everything before: the
    configured ones and those of CNI_ARGS, whose GATEWAY goes to every address whose subnet it is in. All of them
    are read, so an address that cannot be right is an error even where another source goes before it.
    """
    if conf.ipam is None:
        raise InvalidNetConf('key "ipam": missing, expected an object with "addresses"')
    configured = [*_configured(conf.ipam), *_from_cni_args(attachment.args)]
    gateways = list(_gateways_from_cni_args(attachment.args))
    configured = [_with_gateway(ip, gateways) for ip in configured]
    asked = _asked(conf.args, "args.cni")
    by_runtime = _asked(conf.runtime_config, "runtimeConfig")
    ips = tuple(by_runtime or asked or configured)
    _check_one_a_family(ips, conf.cni_version)
    others = {key: conf.ipam[key] for key in ("routes", "dns") if key in conf.ipam}
    rest = versions.decode_result(others, versions.CURRENT, at="ipam", error=InvalidNetConf)
    return Result(ips=ips, routes=rest.routes, dns=rest.dns)


def add(conf: NetConf, attachment: Attachment, _shells: Shells) -> Result:
    """Without any address this is a result without one: whether that will do is the caller's to say."""
    return parse(conf, attachment)


def delete(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing was taken, so nothing is to be given back; a broken configuration is no obstacle."""


def check(conf: NetConf, attachment: Attachment, _shells: Shells) -> None:
    """Every address is in prevResult, with its gateway."""
    there = {ip.address: ip.gateway for ip in drift.require_prev_result(conf).ips}
    for ip in parse(conf, attachment).ips:
        if ip.address not in there:
            found = ", ".join(str(a) for a in there) or "none"
            raise Drift(f"check addresses in prevResult: found {found}, expected {ip.address} among them")
        # Without a gateway of ours the main plugin may have chosen one: bridge does, when it is to be the gateway.
        if ip.gateway is not None and there[ip.address] != ip.gateway:
            raise Drift(
                f"check address {ip.address} in prevResult: found gateway {there[ip.address] or 'none'}, "
                f"expected {ip.gateway}"
            )


def gc(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing is kept, so nothing can be stale."""


def status(conf: NetConf, attachment: Attachment, _shells: Shells) -> None:
    """Ready whenever the configuration can be right; raises `InvalidNetConf` otherwise."""
    parse(conf, attachment)


def _configured(ipam: Mapping[str, Any]) -> Iterable[IPConfig]:
    for position, item in enumerate(documents.convert(ipam, _Keys, at="ipam").addresses):
        key = f"ipam.addresses[{position}]"
        yield IPConfig(
            address=_interface(item.address, f"{key}.address"),
            gateway=_address(item.gateway, f"{key}.gateway") if item.gateway else None,
        )


def _from_cni_args(args: Mapping[str, str]) -> Iterable[IPConfig]:
    for text in _items(args.get("IP", "")):
        yield IPConfig(address=_interface(text, "CNI_ARGS IP"))


def _gateways_from_cni_args(args: Mapping[str, str]) -> Iterable[IPAddress]:
    for text in _items(args.get("GATEWAY", "")):
        yield _address(text, "CNI_ARGS GATEWAY")


def _items(text: str) -> Iterable[str]:
    return (item.strip() for item in text.split(",")) if text else ()


def _with_gateway(ip: IPConfig, gateways: Iterable[IPAddress]) -> IPConfig:
    """The last gateway of the address's subnet counts."""
    for gateway in gateways:
        if gateway in ip.address.network:
            ip = msgspec.structs.replace(ip, gateway=gateway)
    return ip


def _asked(source: Mapping[str, Any], key: str) -> list[IPConfig]:
    asked = documents.convert(source, _Asked, at=key).ips
    return [IPConfig(address=_interface(text, f"{key}.ips[{n}]")) for n, text in enumerate(asked)]


def _interface(text: str, key: str) -> IPInterface:
    """Go's CIDR: an address, a slash and a prefix length; host bits are kept."""
    address, slash, prefix = text.partition("/")
    try:
        if not slash or not (prefix.isascii() and prefix.isdigit()) or "%" in address:
            raise ValueError(text)
        return ip_interface(text)
    except ValueError as e:
        raise InvalidNetConf(
            f'key "{key}": found "{text}", expected an address with its prefix, such as 10.1.2.3/24'
        ) from e


def _address(text: str, key: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as e:
        raise InvalidNetConf(f'key "{key}": found "{text}", expected an IP address') from e


def _check_one_a_family(ips: Iterable[IPConfig], version: str) -> None:
    """Results before 0.3.0 hold one address of each family."""
    if versions.at_least(version, "0.3.0"):
        return
    families = [ip.address.version for ip in ips]
    for family in (4, 6):
        if families.count(family) > 1:
            raise InvalidNetConf(
                f'key "cniVersion": found "{version}" with {families.count(family)} IPv{family} addresses, '
                "expected 0.3.0 or later for more than one of a family"
            )
