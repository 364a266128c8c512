"""May an address leave its holder? The decision, from facts (R8). No I/O.

Two steps of proof: the holder's pod is gone, and so is its end of the wire. A fact nobody could establish is
absent from `HolderFacts`, and never counts as proof (R12).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from homeport.ipam.identities import Holder
from homeport.model.addresses import IPAddress, MacAddress


class Silence(msgspec.Struct, frozen=True):
    """Nobody answered a probe for the address."""


class Answer(msgspec.Struct, frozen=True):
    """Somebody did."""

    mac: MacAddress


class HolderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a holder.

    `same_pod`: the claimant is the holder's own pod, in a new sandbox. `pod_gone`: its pod was answered "not found" or
    with another UID. `pod_finished`: its pod ran to its end (R14). `netns_exists` is None where this node cannot see,
    `probe` where none was sent. `cannot_probe` says why none can be.
    """

    same_pod: bool = False
    pod_gone: bool = False
    pod_finished: bool = False
    netns_exists: bool | None = None
    node_gone: bool = False
    node_out_of_service: bool = False
    probe: Silence | Answer | None = None
    cannot_probe: str = ""


class Move(msgspec.Struct, frozen=True):
    """The holder is proven gone; `proof` is for the ledger."""

    proof: str


class Wait(msgspec.Struct, frozen=True):
    """It is not, or not yet."""

    reason: str


class ProbeFirst(msgspec.Struct, frozen=True):
    """Only a probe of the address can tell."""


def decide_move(address: IPAddress, holder: Holder, facts: HolderFacts) -> Move | Wait | ProbeFirst:
    """R8. The order is that of cost and certainty: a probe is asked for last."""
    if facts.same_pod:
        # A kubelet stops a pod's old sandbox before it makes a new one.
        return Move("a new sandbox of the same pod")
    if not (facts.pod_gone or facts.pod_finished):
        return Wait(f"the pod of {_named(holder)} is not proven gone")
    if facts.netns_exists is False:
        return Move(f"the network namespace of {_named(holder)} is gone")
    if facts.node_gone:
        return Move(f"node {holder.node} is gone")
    if facts.node_out_of_service:
        return Move(f"node {holder.node} is out of service")
    if facts.netns_exists:
        # A macvlan's parent does not hear its own children, so a probe from here would prove nothing.
        return Wait(f"the network namespace {holder.netns_path} of {_named(holder)} still exists")
    if facts.probe is None:
        if facts.cannot_probe:
            return Wait(f"{_named(holder)} may still run on node {holder.node}: {facts.cannot_probe}")
        return ProbeFirst()
    if isinstance(facts.probe, Answer):
        return Wait(f"{facts.probe.mac} still answers for {address}, last held on node {holder.node}")
    return Move(f"nobody answers for {address} since {_named(holder)} on node {holder.node} lost its pod")


def decide_quarantined(address: IPAddress, since: datetime, facts: HolderFacts) -> Move | Wait | ProbeFirst:
    """May its own slot have an address that a stranger answered for (E25)? As soon as nobody does any more."""
    match facts.probe:
        case None if facts.cannot_probe:
            return Wait(f"{address} is quarantined since {since:%Y-%m-%d %H:%M:%S} UTC: {facts.cannot_probe}")
        case None:
            return ProbeFirst()
        case Answer(mac):
            return Wait(f"{mac} answers for {address}, which is quarantined since {since:%Y-%m-%d %H:%M:%S} UTC")
    return Move(f"nobody answers for {address} any more")


def _named(holder: Holder) -> str:
    return f"container {holder.container_id[:13]}"
