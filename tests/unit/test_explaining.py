"""Why a pod has its addresses or waits: the facts of each case, and the decision of its next ADD."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from tests.stand_ins import START, World

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.deciding import Create, Examine, Exhausted, Take, Taken
from homeport.ipam.foreseeing import Foreseen
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod
from homeport.ipam.policies import ADDRESSES, RETENTION
from homeport.ipam.replicas import POD_INDEX
from homeport.model.errors import NoSuchObject, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet.ipam_claims import IpamClaim
from homeport.ports import NetworkDefinition
from homeport.runtime.explaining import InterfaceStory, Story, explain
from homeport.stores.memory import MemoryStore

RANGE = {"type": "whereabouts", "range": "10.0.0.0/29"}
SELECT = "k8s.v1.cni.cncf.io/networks"


class Case:
    """A StatefulSet of three on one network; what stands in the store is up to the test."""

    def __init__(self, **ipam: Any) -> None:
        self.world = World()
        self.store = MemoryStore()
        config = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "ipam": {**RANGE, **ipam}}
        self.definition = NetworkDefinition(namespace="ns", name="net", config=json.dumps(config))
        self.notes: Mapping[str, str] = {SELECT: "net"}
        self.claims: dict[tuple[str, ...], IpamClaim] = {}

    def web(self, **notes: str) -> Workload:
        return self.world.scale("web", 3, annotations={**self.notes, **notes})

    def put(
        self, address: str, owner: Owner, phase: Phase = Phase.BOUND, *, node: str = "n2", uid: str = "old"
    ) -> None:
        holder = Holder(container_id="c", ifname="net1", netns_path="/x", node=node, pod_uid=uid)
        self.store.create(
            Allocation(
                scope="",
                address=ip_address(address),
                slot=Slot(owner, "net", "net1"),
                phase=phase,
                holder=holder if phase is Phase.BOUND else None,
                since=START,
            ),
            cause="test",
        )

    def tell(self, name: str = "web-0") -> Story:
        found: dict[tuple[str, ...], NetworkDefinition] = {("ns", "net"): self.definition}
        ref = PodRef("ns", name)
        return explain(
            ref, self.store, self.world, lambda *place: found.get(place), lambda *place: self.claims.get(place)
        )

    def interface(self, name: str = "web-0") -> InterfaceStory:
        story = self.tell(name)
        assert not story.error
        (interface,) = story.interfaces
        return interface

    def outcome(self, name: str = "web-0") -> Foreseen:
        (told,) = self.interface(name).ranges
        return told.outcome


def test_a_first_start_gets_its_number() -> None:
    case = Case()
    web = case.web()
    case.world.start(web, 2)
    assert case.outcome("web-2") == Create(ip_address("10.0.0.3"), "allocated")
    assert case.outcome("web-1") == Create(ip_address("10.0.0.2"), "allocated"), "also before there is a pod"


def test_its_number_is_another_s_now() -> None:
    case = Case()
    case.world.start(case.web(), 0)
    case.put("10.0.0.1", PodOwner("ns", "stranger", "u"))
    (told,) = case.interface().ranges
    assert told.outcome == Create(ip_address("10.0.0.2"), "allocated")
    present = told.present[ip_address("10.0.0.1")]
    assert present is not None
    assert str(present.slot.owner) == "ns/stranger"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (NodeState(name="n2"), Examine),
        (NodeState(name="n2", ready=False), Examine),
        (NodeState(name="n2", out_of_service=True), Take),
        (None, Take),
    ],
)
def test_the_holder_s_node_decides_unless_a_probe_must(node: NodeState | None, expected: type[Foreseen]) -> None:
    case = Case()
    web = case.web()
    case.world.start(web, 0)
    case.put("10.0.0.1", Replica(web, 0))
    case.world.nodes.pop("n2")
    if node is not None:
        case.world.nodes["n2"] = node
    (told,) = case.interface().ranges
    assert isinstance(told.outcome, expected)
    assert told.holder is not None
    assert told.holder.node == node


def test_a_new_sandbox_of_the_same_pod_takes_its_own() -> None:
    case = Case()
    web = case.web()
    pod = case.world.start(web, 0)
    case.put("10.0.0.1", Replica(web, 0), uid=pod.uid)
    outcome = case.outcome()
    assert isinstance(outcome, Take)
    assert outcome.cause == "moved: a new sandbox of the same pod"


def test_a_quarantined_address_hangs_on_a_probe() -> None:
    case = Case()
    web = case.web()
    case.world.start(web, 0)
    case.put("10.0.0.1", Replica(web, 0), Phase.QUARANTINED)
    assert isinstance(case.outcome(), Examine)


def test_a_mapped_address_that_is_another_s() -> None:
    case = Case(sticky={"replicas": {"ns/web": ["10.0.0.5", "10.0.0.4", "10.0.0.3"]}})
    case.world.start(case.web(), 0)
    case.put("10.0.0.5", PodOwner("ns", "stranger", "u"))
    told = case.interface()
    assert isinstance(told.ranges[0].outcome, Taken)
    assert told.map_source == 'key "ipam.sticky.replicas["ns/web"]"'


def test_a_map_without_an_entry_is_told_of() -> None:
    case = Case()
    case.world.start(case.web(**{ADDRESSES: '{"net": ["10.0.0.5"]}'}), 2)
    assert "expected entry 2 for ordinal 2" in case.interface("web-2").error


def test_a_full_range() -> None:
    case = Case()
    case.world.start(case.web(), 0)
    for last in range(1, 7):
        case.put(f"10.0.0.{last}", PodOwner("ns", f"stranger-{last}", "u"))
    assert case.outcome() == Exhausted()


def test_retention_and_who_says_so() -> None:
    case = Case(sticky={"whenScaled": "Release", "whenDeleted": "Retain"})
    case.world.start(case.web(**{RETENTION: '{"whenDeleted": "Release", "retainFor": "1h"}'}), 0)
    assert case.interface().retention == (
        ("whenScaled", "Release", "the network"),
        ("whenDeleted", "Release", f"annotation {RETENTION}"),
        ("retainFor", "1:00:00", f"annotation {RETENTION}"),
        ("adopt", "SameName", "default"),
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"owner": None}, "no controller owns it"),
        ({"kind": "ReplicaSet"}, "its controller is a ReplicaSet, whose pods have no identity"),
        ({"name": "web"}, 'its name is not "web-ORDINAL" after its StatefulSet'),
        ({"labels": {POD_INDEX: "4"}}, f'its label {POD_INDEX} is "4", and its name says 0'),
    ],
)
def test_why_a_pod_is_no_replica(changes: dict[str, Any], why: str) -> None:
    case = Case()
    owner = OwnerReference(api_version="apps/v1", kind=changes.get("kind", "StatefulSet"), name="web", uid="w")
    pod = Pod(
        ref=PodRef("ns", changes.get("name", "web-0")),
        uid="p",
        owner=changes.get("owner", owner),
        labels=changes.get("labels", {}),
        annotations=case.notes,
    )
    case.world.pods[pod.ref] = pod
    told = case.interface(pod.ref.name)
    assert told.why_not == why
    assert told.ranges[0].outcome == Create(ip_address("10.0.0.1"), "allocated")


@pytest.mark.parametrize(
    ("ipam", "why"),
    [
        ({"sticky": False}, 'its network says "sticky": false'),
        ({"type": "static"}, "its addresses are from no pool of ours"),
    ],
)
def test_a_network_whose_addresses_belong_to_nobody(ipam: dict[str, Any], why: str) -> None:
    case = Case(**ipam)
    case.world.start(case.web(), 0)
    assert case.interface().why_not == why


def test_two_ranges_are_told_of_in_turn_until_one_fails() -> None:
    case = Case(ipRanges=[{"range": "fd00::/126"}, {"range": "10.1.0.0/30"}])
    case.world.start(case.web(), 2)
    told = case.interface("web-2").ranges
    assert [type(r.outcome) for r in told] == [Create, Create, Create]
    assert [r.want.preferred for r in told] == [ip_address("10.0.0.3"), None, None]
    for last in (1, 2):
        case.put(f"fd00::{last}", PodOwner("ns", f"stranger-{last}", "u"))
    assert [type(r.outcome) for r in case.interface("web-2").ranges] == [Create, Exhausted]


def test_what_an_ipam_claim_gives() -> None:
    case = Case()
    case.notes = {SELECT: '[{"name": "net", "ipam-claim-reference": "vm"}]'}
    case.world.start(case.web(), 0)
    assert case.tell().error == 'network "ns/net": find IPAMClaim "ns/vm": no such object'
    case.claims["ns", "vm"] = IpamClaim(namespace="ns", name="vm", ips=("10.0.0.6/29",))
    assert case.outcome() == Create(ip_address("10.0.0.6"), "allocated as mapped")
    case.put("10.0.0.6", PodOwner("ns", "stranger", "u"))
    assert isinstance(case.outcome(), Taken)


def test_a_network_that_is_not_there() -> None:
    case = Case()
    case.notes = {SELECT: "elsewhere"}
    case.world.start(case.web(), 0)
    assert case.tell().error == 'find network "ns/elsewhere": no such NetworkAttachmentDefinition'


def test_a_name_of_nothing_and_a_cluster_that_is_silent() -> None:
    case = Case()
    with pytest.raises(NoSuchObject, match="no StatefulSet that would have it"):
        case.tell("web-0")
    case.world.unreachable = True
    with pytest.raises(TryAgainLater):
        case.tell("web-0")


def test_nothing_is_changed() -> None:
    case = Case()
    web = case.web()
    case.world.start(web, 0)
    case.put("10.0.0.1", Replica(web, 0))
    before = (tuple(case.store.all()), len(list(case.store.ledger())))
    for name in ("web-0", "web-1"):
        case.tell(name)
    assert (tuple(case.store.all()), len(list(case.store.ledger()))) == before
