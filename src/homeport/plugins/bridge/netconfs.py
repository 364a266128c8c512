"""The bridge plugin's own keys, parsed and checked once. No I/O.

Names and defaults are those of the reference plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf, decode_keys
from homeport.model.addresses import MacAddress, parse_mac
from homeport.model.errors import InvalidNetConf
from homeport.model.names import IFNAME_MAX, is_ifname
from homeport.ports import BridgeVlan

VLAN_MAX = 4094
_MTU_MAX = 65535  # a bridge and a veth take no more


class _Trunk(msgspec.Struct, frozen=True, kw_only=True):
    min_id: int | None = msgspec.field(default=None, name="minID")
    max_id: int | None = msgspec.field(default=None, name="maxID")
    id: int | None = None


class _Keys(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    bridge: str = "cni0"
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    ip_masq_backend: Literal["", "iptables", "nftables"] = ""
    mtu: int = 0
    hairpin_mode: bool = False
    promisc_mode: bool = False
    vlan: int = 0
    vlan_trunk: tuple[_Trunk, ...] = ()
    preserve_default_vlan: bool = False
    macspoofchk: bool = False
    enabledad: bool = False
    disable_container_interface: bool = False
    port_isolation: bool = False
    mac: str = ""


class BridgeConf(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge plugin is asked for. `has_ipam` False makes a link without addresses.

    `vlan` 0 is none; `trunk` are the tagged VLANs, ascending and not overlapping. Of `vlan` and `trunk` at most one
    is given. `vlan_ifname` is the host's own port into `vlan`, where the gateway's address is.
    """

    bridge: str
    has_ipam: bool
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    ip_masq: bool
    mtu_bytes: int | None
    hairpin: bool
    promisc: bool
    vlan: int
    trunk: tuple[BridgeVlan, ...]
    preserve_default_vlan: bool
    macspoofchk: bool
    enabledad: bool
    container_up: bool
    port_isolation: bool
    mac: MacAddress | None

    @property
    def vlan_filtering(self) -> bool:
        """Whether the bridge has to keep VLANs apart."""
        return bool(self.vlan or self.trunk)

    @property
    def vlan_ifname(self) -> str:
        """The name of the gateway interface of `vlan`."""
        return f"{self.bridge}.{self.vlan}"


def parse(conf: NetConf, attachment: Attachment) -> BridgeConf:
    """Raises `InvalidNetConf`, naming the key."""
    keys = decode_keys(conf.raw, _Keys)
    has_ipam = bool(conf.ipam and conf.ipam.get("type"))
    _check_vlans(keys)
    if not is_ifname(keys.bridge):
        raise InvalidNetConf(
            f'key "bridge": found "{keys.bridge}", expected an interface name of 1 to {IFNAME_MAX} characters'
        )
    if keys.hairpin_mode and keys.promisc_mode:
        raise InvalidNetConf('keys "hairpinMode" and "promiscMode": found both true, expected at most one')
    if keys.disable_container_interface and has_ipam:
        raise InvalidNetConf(
            'keys "disableContainerInterface" and "ipam": found both, but an interface that is down gets no address'
        )
    if not 0 <= keys.mtu <= _MTU_MAX:
        raise InvalidNetConf(f'key "mtu": found {keys.mtu}, expected 0 (the kernel\'s default) to {_MTU_MAX}')
    parsed = BridgeConf(
        bridge=keys.bridge,
        has_ipam=has_ipam,
        is_gateway=keys.is_gateway or keys.is_default_gateway,
        is_default_gateway=keys.is_default_gateway,
        force_address=keys.force_address,
        ip_masq=keys.ip_masq,
        mtu_bytes=keys.mtu or None,
        hairpin=keys.hairpin_mode,
        promisc=keys.promisc_mode,
        vlan=keys.vlan,
        trunk=_trunk(keys.vlan_trunk),
        preserve_default_vlan=keys.preserve_default_vlan,
        macspoofchk=keys.macspoofchk,
        enabledad=keys.enabledad,
        container_up=not keys.disable_container_interface,
        port_isolation=keys.port_isolation,
        mac=_mac(keys, conf, attachment),
    )
    if parsed.vlan and parsed.is_gateway and has_ipam and not is_ifname(parsed.vlan_ifname):
        raise InvalidNetConf(
            f'key "bridge": found "{parsed.bridge}", expected a name so short that the gateway interface '
            f'"{parsed.vlan_ifname}" of vlan {parsed.vlan} has at most {IFNAME_MAX} characters'
        )
    return parsed


def _check_vlans(keys: _Keys) -> None:
    if not 0 <= keys.vlan <= VLAN_MAX:
        raise InvalidNetConf(f'key "vlan": found {keys.vlan}, expected 0 (none) to {VLAN_MAX}')
    if keys.vlan and keys.vlan_trunk:
        raise InvalidNetConf(
            'keys "vlan" and "vlanTrunk": found both, expected one: a port is an access port or a trunk'
        )


def _trunk(trunks: Sequence[_Trunk]) -> tuple[BridgeVlan, ...]:
    """The VLANs as the fewest runs, so that a trunk of all of them is one request to the kernel."""
    runs: list[BridgeVlan] = []
    for first, last in sorted(_trunk_runs(trunks)):
        if runs and first <= runs[-1].last + 1:
            runs[-1] = BridgeVlan(first=runs[-1].first, last=max(last, runs[-1].last))
        else:
            runs.append(BridgeVlan(first=first, last=last))
    return tuple(runs)


def _trunk_runs(trunks: Sequence[_Trunk]) -> Iterator[tuple[int, int]]:
    """First and last VLAN of each part of each item, as given."""
    for position, trunk in enumerate(trunks):
        key = f"vlanTrunk[{position}]"
        for part, value in (("minID", trunk.min_id), ("maxID", trunk.max_id), ("id", trunk.id)):
            if value is not None and not 1 <= value <= VLAN_MAX:
                raise InvalidNetConf(f'key "{key}.{part}": found {value}, expected 1 to {VLAN_MAX}')
        if trunk.min_id is not None and trunk.max_id is not None:
            if trunk.max_id < trunk.min_id:
                raise InvalidNetConf(f'key "{key}.maxID": found {trunk.max_id}, expected minID {trunk.min_id} or more')
            yield trunk.min_id, trunk.max_id
        elif trunk.min_id is not None or trunk.max_id is not None:
            raise InvalidNetConf(f'key "{key}.{"minID" if trunk.min_id is None else "maxID"}": missing, expected both')
        if trunk.id is not None:
            yield trunk.id, trunk.id


def _mac(keys: _Keys, conf: NetConf, attachment: Attachment) -> MacAddress | None:
    """The MAC asked for, strongest source first."""
    sources = (
        ("runtimeConfig.mac", conf.runtime_config.get("mac")),
        ("args.cni.mac", conf.args.get("mac")),
        ("CNI_ARGS MAC", attachment.args.get("MAC")),
        ("mac", keys.mac),
    )
    for key, text in sources:
        if text:
            try:
                return parse_mac(str(text))
            except ValueError as e:
                raise InvalidNetConf(f'key "{key}": {e}') from e
    return None
