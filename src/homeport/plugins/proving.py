"""Finding out whether a holder is gone: the facts of R8, read through ports, cheapest first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder
from homeport.ipam.moving import Answer, HolderFacts, Move, ProbeFirst, Silence, Wait, decide_move, decide_quarantined
from homeport.ipam.objects import Pod
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import CniError
from homeport.ports import Cluster, Shells

_DEFAULT_BRIDGE = "cni0"


def examine(
    allocation: Allocation, claimant: Holder, pod: Pod | None, conf: NetConf, attachment: Attachment, shells: Shells
) -> Move | Wait:
    """May the claimant have what another holder has, or what is quarantined? `pod` is what the cluster told of the
    owner's name.
    """
    decide: Callable[[HolderFacts], Move | Wait | ProbeFirst]
    if allocation.holder is not None:
        facts = _facts(allocation.holder, claimant, pod, shells)
        decide = partial(decide_move, allocation.address, allocation.holder)
    elif allocation.phase is Phase.QUARANTINED:
        facts = HolderFacts()
        decide = partial(decide_quarantined, allocation.address, allocation.since)
    else:
        return Move("no holder")
    outcome = decide(facts)
    if isinstance(outcome, ProbeFirst):
        facts = _probe(facts, allocation.address, conf, attachment, shells)
        outcome = decide(facts)
    if isinstance(outcome, ProbeFirst):  # decide_move asks for no second probe
        raise AssertionError(facts)
    return outcome


def stranger_at(address: IPAddress, conf: NetConf, attachment: Attachment, shells: Shells) -> MacAddress | None:
    """Who answers for an address that is about to be used without the store's word; None also where none can ask."""
    found = _probe(HolderFacts(), address, conf, attachment, shells).probe
    return found.mac if isinstance(found, Answer) else None


def _facts(holder: Holder, claimant: Holder, pod: Pod | None, shells: Shells) -> HolderFacts:
    if holder.pod_uid and holder.pod_uid == claimant.pod_uid:
        return HolderFacts(same_pod=True)
    if pod is None or shells.cluster is None or not _is_another_now(pod, holder, shells.cluster):
        return HolderFacts()
    if holder.node == shells.node:
        exists = shells.host.namespace_exists(holder.netns_path) if holder.netns_path else None
        return HolderFacts(pod_gone=True, netns_exists=exists)
    node = shells.cluster.node(holder.node)
    return HolderFacts(
        pod_gone=True, node_gone=node is None, node_out_of_service=node is not None and node.out_of_service
    )


def _is_another_now(pod: Pod, holder: Holder, cluster: Cluster) -> bool:
    """Whether the holder's pod has no longer its name (R12). `pod` may be what a watch or a record knew: then it can be
    the holder's predecessor as well as its successor.
    """
    if not holder.pod_uid or pod.uid == holder.pod_uid:
        return False
    now = cluster.pod_now(pod.ref)
    return now is None or now.uid != holder.pod_uid


def _probe(
    facts: HolderFacts, address: IPAddress, conf: NetConf, attachment: Attachment, shells: Shells
) -> HolderFacts:
    link = probing_link(conf, shells)
    if link is None:
        return msgspec.structs.replace(facts, cannot_probe=f'network "{conf.name}" names no master or bridge to ask on')
    netns = attachment.netns_path if conf.raw.get("linkInContainer") is True else None
    try:
        mac = shells.probe.answers(address, link=link, netns=netns)
    except CniError as e:
        return msgspec.structs.replace(facts, cannot_probe=f"could not ask on {link}: {e.msg}")
    return msgspec.structs.replace(facts, probe=Silence() if mac is None else Answer(mac))


def probing_link(conf: NetConf, shells: Shells) -> str | None:
    """The link of this node that meets the network the interface is going to be on."""
    for key in ("master", "bridge"):
        name = conf.raw.get(key)
        if isinstance(name, str) and name:
            return name
    if conf.type == "bridge":
        return _DEFAULT_BRIDGE
    # Without a master, macvlan and ipvlan take the link of the default route.
    defaults = (route for route in shells.host.routes() if route.dst.prefixlen == 0)
    return next((route.link for route in defaults if route.link), None)
