"""When an address may leave its holder: the decision table of docs/identity.md R8."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from homeport.ipam.identities import Holder
from homeport.ipam.moving import Answer, HolderFacts, Move, ProbeFirst, Silence, Wait, decide_move, decide_quarantined
from homeport.model.addresses import MacAddress

ADDRESS = ip_address("10.0.0.1")
HOLDER = Holder(container_id="0123456789abcdef", ifname="net1", netns_path="/run/netns/x", node="n1", pod_uid="u1")
MAC = MacAddress("0a:58:0a:00:00:01")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (HolderFacts(), Wait("the pod of container 0123456789abc is not proven gone")),
        (HolderFacts(same_pod=True), Move("a new sandbox of the same pod")),
        (HolderFacts(pod_gone=True), ProbeFirst()),
        (HolderFacts(pod_finished=True), ProbeFirst()),
        (
            HolderFacts(pod_gone=True, netns_exists=False),
            Move("the network namespace of container 0123456789abc is gone"),
        ),
        (HolderFacts(pod_gone=True, node_gone=True), Move("node n1 is gone")),
        (HolderFacts(pod_gone=True, node_out_of_service=True), Move("node n1 is out of service")),
        (
            HolderFacts(pod_gone=True, probe=Silence()),
            Move("nobody answers for 10.0.0.1 since container 0123456789abc on node n1 lost its pod"),
        ),
        (
            HolderFacts(pod_gone=True, probe=Answer(MAC)),
            Wait("0a:58:0a:00:00:01 still answers for 10.0.0.1, last held on node n1"),
        ),
        (
            HolderFacts(pod_gone=True, cannot_probe="no link"),
            Wait("container 0123456789abc may still run on node n1: no link"),
        ),
        (
            HolderFacts(pod_gone=True, netns_exists=True),
            Wait("the network namespace /run/netns/x of container 0123456789abc still exists"),
        ),
        # Silence proves nothing where our own parent link could not have heard an answer.
        (
            HolderFacts(pod_gone=True, netns_exists=True, probe=Silence()),
            Wait("the network namespace /run/netns/x of container 0123456789abc still exists"),
        ),
    ],
)
def test_the_proof(facts: HolderFacts, expected: object) -> None:
    assert decide_move(ADDRESS, HOLDER, facts) == expected


@pytest.mark.parametrize(
    "facts",
    [
        HolderFacts(netns_exists=False),
        HolderFacts(node_gone=True),
        HolderFacts(node_out_of_service=True),
        HolderFacts(probe=Silence()),
    ],
)
def test_no_end_of_the_wire_is_proof_while_the_pod_may_live(facts: HolderFacts) -> None:
    """E6: a partitioned node looks just like this."""
    assert isinstance(decide_move(ADDRESS, HOLDER, facts), Wait)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (HolderFacts(), ProbeFirst()),
        (HolderFacts(cannot_probe="no link"), Wait("10.0.0.1 is quarantined since 2026-01-01 12:00:00 UTC: no link")),
        (
            HolderFacts(probe=Answer(MAC)),
            Wait("0a:58:0a:00:00:01 answers for 10.0.0.1, which is quarantined since 2026-01-01 12:00:00 UTC"),
        ),
        (HolderFacts(probe=Silence()), Move("nobody answers for 10.0.0.1 any more")),
    ],
)
def test_e25_a_quarantined_address_may_be_used_once_nobody_answers(facts: HolderFacts, expected: object) -> None:
    assert decide_quarantined(ADDRESS, datetime(2026, 1, 1, 12, tzinfo=UTC), facts) == expected
