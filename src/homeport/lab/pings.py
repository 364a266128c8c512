"""Who reaches whom over the secondary networks. I/O: the lab's state, the kernel, echo requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_interface, ip_network

import msgspec

from homeport.host.namespaces import DirectEntrance
from homeport.lab import pinging, views
from homeport.lab.objects import Attached, PodObject, Sandbox
from homeport.lab.pinging import Echo, Outcome
from homeport.lab.sessions import Lab
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError

_MAIN_TABLE = 254


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """From one address of one pod; `table` is the routing table its rule selects, `replies` is by pod."""

    network: str
    pod: str
    source: str
    table: str
    replies: Mapping[str, Outcome]


class _End(msgspec.Struct, frozen=True):
    """One address of one pod on one network."""

    pod: PodObject
    netns: str
    attached: Attached
    address: IPAddress


def matrix(lab: Lab, network: str | None, namespace: str | None, *, timeout_seconds: float = 3.0) -> list[Row]:
    """A row for each address that has somebody to reach: another pod's address of the same family and network."""
    ends = _ends(lab, network, namespace)
    pairs = [(one, [(other, _echo(one, other)) for other in ends if _may_meet(one, other)]) for one in ends]
    echoes = [echo for _, others in pairs for _, echo in others]
    outcomes = pinging.ping(echoes, DirectEntrance(), timeout_seconds=timeout_seconds)
    return [
        Row(
            network=one.attached.network.partition("/")[2],
            pod=one.pod.ref.name,
            source=str(one.address),
            table=_table(lab, one),
            replies=_by_pod([(other, outcomes[echo]) for other, echo in others]),
        )
        for one, others in pairs
        if others
    ]


def _echo(one: _End, other: _End) -> Echo:
    return Echo(one.netns, one.address, other.address)


def _ends(lab: Lab, network: str | None, namespace: str | None) -> list[_End]:
    ready = {s.pod_uid: s for s in lab.state.all(Sandbox) if s.ready}
    return [
        _End(pod, ready[pod.uid].netns_path, attached, ip_interface(address).ip)
        for pod in views.pods_in_order(lab.state, namespace)
        if pod.uid in ready
        for attached in ready[pod.uid].attachments
        if network is None or network in (attached.network, attached.network.partition("/")[2])
        for address in attached.addresses
    ]


def _may_meet(one: _End, other: _End) -> bool:
    return (
        one.pod.uid != other.pod.uid
        and one.attached.network == other.attached.network
        and one.address.version == other.address.version
    )


def _by_pod(replies: Sequence[tuple[_End, Outcome]]) -> Mapping[str, Outcome]:
    """A pod with several addresses on the network is reached when all of them are; the worst one counts."""
    found: dict[str, Outcome] = {}
    for other, outcome in replies:
        before = found.get(other.pod.ref.name)
        if before is None or before.milliseconds is not None:
            found[other.pod.ref.name] = outcome
    return found


def _table(lab: Lab, end: _End) -> str:
    """The table that a rule for exactly this source selects, else the main one."""
    try:
        rules = lab.host.rules(end.netns, family=4 if end.address.version == 4 else 6)
    except CniError:
        return "?"
    source = ip_network(end.address)
    table = next((rule.table for rule in rules if rule.src == source), _MAIN_TABLE)
    return "main" if table == _MAIN_TABLE else str(table)
