"""Dropping frames a container sends with a source MAC that is not its own (`macspoofchk`).

Chain `antispoof` of table `bridge homeport`, before any other bridge filter sees the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeport.model.addresses import MacAddress
from homeport.model.errors import Drift
from homeport.model.names import AttachmentKey
from homeport.plugins.rulesets import Chain, add_rules, delete_rules, delete_rules_except, rules_of
from homeport.ports import Host

CHAIN = Chain(family="bridge", name="antispoof", kind="filter", hook="prerouting", priority=-300)


def forbid_spoofing(host: Host, key: AttachmentKey, *, host_ifname: str, mac: MacAddress) -> None:
    """Only frames from `mac` pass from the bridge port `host_ifname`; undone with the current operation."""
    add_rules(host, CHAIN, key, [_drop(host_ifname, mac)])


def allow_spoofing(host: Host, key: AttachmentKey) -> None:
    """Removes the attachment's rule; idempotent."""
    delete_rules(host, CHAIN, key)


def allow_spoofing_except(host: Host, network: str, valid: frozenset[AttachmentKey]) -> None:
    """Removes the rules of every attachment of `network` that is not in `valid`."""
    delete_rules_except(host, CHAIN, network, valid)


def check_spoofing_forbidden(host: Host, key: AttachmentKey, *, host_ifname: str, mac: MacAddress) -> None:
    """Raises `Drift` unless the rule stands for this port and this MAC."""
    expected = _drop(host_ifname, mac)
    found = [list(rule.expr) for rule in rules_of(host, CHAIN, key)]
    if expected not in found:
        raise Drift(
            f'check macspoofchk of port "{host_ifname}": expected a rule in table bridge homeport that drops '
            f"frames not from {mac}, found {found or 'none'}"
        )


def _drop(host_ifname: str, mac: MacAddress) -> list[Mapping[str, Any]]:
    return [
        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": host_ifname}},
        {"match": {"op": "!=", "left": {"payload": {"protocol": "ether", "field": "saddr"}}, "right": mac}},
        {"drop": None},
    ]
