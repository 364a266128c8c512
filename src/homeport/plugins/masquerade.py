"""Masquerading a container's addresses with nftables: what leaves its network leaves with the node's address.

Chain `masq` of table `inet homeport`. Traffic to the address's own subnet and to multicast keeps its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeport.model.addresses import IPInterface
from homeport.model.errors import Drift
from homeport.model.names import AttachmentKey
from homeport.plugins.rulesets import Chain, add_rules, delete_rules, delete_rules_except, rules_of
from homeport.ports import Host

CHAIN = Chain(family="inet", name="masq", kind="nat", hook="postrouting", priority=100)

_MULTICAST = {4: ("224.0.0.0", 4), 6: ("ff00::", 8)}


def masquerade(host: Host, key: AttachmentKey, addresses: Sequence[IPInterface]) -> None:
    """Adds the attachment's rules; undone with the current operation."""
    add_rules(host, CHAIN, key, [_masquerade(address) for address in addresses])


def stop_masquerading(host: Host, key: AttachmentKey) -> None:
    """Removes the attachment's rules, whatever addresses they are for; idempotent."""
    delete_rules(host, CHAIN, key)


def stop_masquerading_except(host: Host, network: str, valid: frozenset[AttachmentKey]) -> None:
    """Removes the rules of every attachment of `network` that is not in `valid`."""
    delete_rules_except(host, CHAIN, network, valid)


def check_masquerade(host: Host, key: AttachmentKey, addresses: Sequence[IPInterface]) -> None:
    """Raises `Drift` unless every address has its rule."""
    found = {_source(rule.expr) for rule in rules_of(host, CHAIN, key)}
    for address in addresses:
        if str(address.ip) not in found:
            sources = ", ".join(sorted(s for s in found if s)) or "none"
            raise Drift(
                f"check masquerading of {address.ip}: expected a rule in table inet homeport, found {sources}",
            )


def _masquerade(address: IPInterface) -> list[Mapping[str, Any]]:
    protocol = "ip" if address.version == 4 else "ip6"
    multicast, multicast_length = _MULTICAST[address.version]
    unchanged = [
        {"prefix": {"addr": str(address.network.network_address), "len": address.network.prefixlen}},
        {"prefix": {"addr": multicast, "len": multicast_length}},
    ]
    return [
        _match("==", {"payload": {"protocol": protocol, "field": "saddr"}}, str(address.ip)),
        _match("!=", {"payload": {"protocol": protocol, "field": "daddr"}}, {"set": unchanged}),
        {"masquerade": None},
    ]


def _match(op: str, left: Mapping[str, Any], right: Any) -> Mapping[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def _source(expr: Sequence[Mapping[str, Any]]) -> str | None:
    """The source address a rule of ours is for, or None when the rule does not masquerade one."""
    if not any("masquerade" in statement for statement in expr):
        return None
    for statement in expr:
        match = statement.get("match", {})
        if match.get("left", {}).get("payload", {}).get("field") == "saddr" and match.get("op") == "==":
            return str(match["right"])
    return None
