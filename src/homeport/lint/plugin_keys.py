"""The keys of the plugins that make an interface or change one. Values only. As the reference plugins 1.9 have them."""

from __future__ import annotations

from collections.abc import Mapping

from homeport.lint.keywords import Key, flag, free, inside, number, text, words

_MTU = number("MTU of the interface, in bytes; without it, or with 0, the kernel's choice.", 0, 65535)
_MASTER_NAME = "The node's interface that this one stands on"
_STACKED: Mapping[str, Key] = {
    "master": text(f"{_MASTER_NAME}; without it, that of the default route."),
    "mtu": _MTU,
    "linkInContainer": flag("Whether the master is an interface of the pod."),
}
_MASQUERADE: Mapping[str, Key] = {
    "ipMasq": flag("Whether what leaves for other subnets takes the node's address."),
    "ipMasqBackend": text("By what that is done.", "iptables", "nftables"),
}
_MAC = text("MAC address of the interface.")
_TABLE = 2**32 - 1


def _vlan(about: str) -> Key:
    return number(about, 0, 4094)


BRIDGE: Mapping[str, Key] = {
    "bridge": text("Name of the bridge on the node; without it, cni0. Made where it is not there."),
    "isGateway": flag("Whether the bridge gets the gateway's address."),
    "isDefaultGateway": flag("As isGateway, and the pod's default route goes there."),
    "forceAddress": flag("Whether another address of the bridge's is replaced."),
    **_MASQUERADE,
    "mtu": _MTU,
    "hairpinMode": flag("Whether a port sends back what came from it, so that a pod reaches itself."),
    "promiscMode": flag("Whether the bridge takes every frame."),
    "vlan": _vlan("The VLAN whose frames the pod gets untagged."),
    "vlanTrunk": inside(
        {"minID": _vlan("First of a span of VLANs."), "maxID": _vlan("Last of the span."), "id": _vlan("One VLAN.")},
        "array",
        "VLANs whose frames the pod gets tagged.",
    ),
    "preserveDefaultVlan": flag("Whether the port keeps the bridge's default VLAN."),
    "macspoofchk": flag("Whether frames with another MAC address than the interface's are dropped."),
    "enabledad": flag("Whether an IPv6 address is probed for duplicates before it is used."),
    "disableContainerInterface": flag("Whether the pod's interface stays down, without addresses."),
    "portIsolation": flag("Whether the bridge's pods cannot reach one another."),
    "mac": _MAC,
}

HOST_DEVICE: Mapping[str, Key] = {
    "device": text("The device by name, as in eth2."),
    "hwaddr": text("The device by MAC address."),
    "kernelpath": text("The device by its path below /sys/devices."),
    "pciBusID": text("The device by PCI address, as in 0000:00:1f.6."),
    "deviceID": text("The device that a device plugin chose; Multus fills it in."),
}

IPVLAN: Mapping[str, Key] = {
    **_STACKED,
    "mode": text("At which layer the pods' interfaces are told apart.", "l2", "l3", "l3s"),
}

MACVLAN: Mapping[str, Key] = {
    **_STACKED,
    "mode": text("Who reaches whom on one master.", "bridge", "private", "vepa", "passthru"),
    "mac": _MAC,
    "bcqueuelen": number("Length of the queue of broadcasts, in frames."),
}

PTP: Mapping[str, Key] = {**_MASQUERADE, "mtu": _MTU}

TAP: Mapping[str, Key] = {
    "multiQueue": flag("Whether the device has several queues."),
    "mtu": _MTU,
    "mac": _MAC,
    "owner": number("The user that may open it, by number."),
    "group": number("The group that may open it, by number."),
    "selinuxContext": text("SELinux context under which it is made."),
    "bridge": text("A bridge it joins."),
}

VLAN: Mapping[str, Key] = {
    **_STACKED,
    "master": text(f"{_MASTER_NAME}.", required=True),
    "vlanId": _vlan("The VLAN's number."),
}

BANDWIDTH: Mapping[str, Key] = {
    "ingressRate": number("To the pod, in bits a second."),
    "ingressBurst": number("To the pod at once, in bits."),
    "egressRate": number("From the pod, in bits a second."),
    "egressBurst": number("From the pod at once, in bits."),
    "unshapedSubnets": words("Networks that are not limited."),
    "shapedSubnets": words("The only networks that are limited."),
}

FIREWALL: Mapping[str, Key] = {
    "backend": text("By what rules are made.", "iptables", "firewalld"),
    "iptablesAdminChainName": text("A chain of yours that comes first."),
    "firewalldZone": text("The zone that the pod's addresses join."),
    "ingressPolicy": text("Who may reach the pod.", "open", "same-bridge", "isolated"),
}

PORTMAP: Mapping[str, Key] = {
    "backend": text("By what rules are made.", "iptables", "nftables"),
    "snat": flag("Whether what comes back to the node itself takes its address."),
    "masqAll": flag("Whether all that comes through a mapping takes the node's address."),
    "markMasqBit": number("The bit that marks such traffic.", 0, 31),
    "externalSetMarkChain": text("A chain of yours that marks it instead."),
    "conditionsV4": words("Further conditions of an IPv4 rule, as iptables takes them."),
    "conditionsV6": words("Further conditions of an IPv6 rule, as ip6tables takes them."),
}

SBR: Mapping[str, Key] = {
    "table": number("The first routing table it may use.", 1, _TABLE),
    "gateways": words("Gateways for what has its addresses, one a family; without them, the addresses' own."),
    "addSourceHints": flag("Whether routes name the interface's address as their source."),
}

TUNING: Mapping[str, Key] = {
    "sysctl": free("Values below /proc/sys/net of the pod, by name; each a string."),
    "mac": _MAC,
    "mtu": _MTU,
    "promisc": flag("Whether the interface takes every frame."),
    "allmulti": flag("Whether it takes every multicast frame."),
    "txQLen": number("Length of its queue, in frames."),
    "dataDir": text("Where it notes, on the node, what to put back."),
}

VRF: Mapping[str, Key] = {
    "vrfname": text("Name of the VRF in the pod, made where it is not there.", required=True),
    "table": number("Its routing table; without it, a free one.", 1, _TABLE),
}
