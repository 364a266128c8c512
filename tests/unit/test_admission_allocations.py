"""IPAllocations under review: what a person may write by hand, and that Homeport's own programs are never asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
from tests.admission_reviews import Desk, Json

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import MacAddress
from homeport.stores.kubernetes import wire

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SLOT = Slot(Replica(Workload("shop", "StatefulSet", "web"), 0), "storage", "net1")
STRANGER = Slot(PodOwner("shop", "other", "uid-9"), "storage", "net1")
HOLDER = Holder(container_id="c1", ifname="net1", netns_path="/run/netns/a", node="node-1", pod_uid="uid-1")


def stored(phase: Phase = Phase.RETAINED, *, slot: Slot = SLOT, scope: str = "", container: str = "c1") -> Json:
    """An IPAllocation as the API server has it."""
    holder = Holder(**{**_fields(HOLDER), "container_id": container}) if phase is Phase.BOUND else None
    allocation = Allocation(
        scope=scope,
        address=ip_address("10.9.0.1"),
        slot=slot,
        phase=phase,
        holder=holder,
        mac=MacAddress("0a:58:0a:09:00:01"),
        since=NOON,
    )
    body = wire.create_body(allocation, cause="test", changed=NOON, write="w1")
    copy: Json = json.loads(json.dumps(body))
    return {"apiVersion": "homeport.dev/v1alpha1", "kind": "IPAllocation", **copy}


def _fields(holder: Holder) -> dict[str, Any]:
    return {name: getattr(holder, name) for name in holder.__struct_fields__}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_creating_what_is_right_is_allowed(desk: Desk) -> None:
    for phase in Phase:  # `homeport migrate` makes Bound ones
        assert desk.ask(stored(phase))["allowed"]
        assert desk.warned(stored(phase)) == []


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("metadata", "name", "10.9.0.2"), 'found address 10.9.0.1 in scope "", whose name is "10.9.0.1"'),
        (("spec", "scope", "blue"), 'found address 10.9.0.1 in scope "blue", whose name is "blue.10.9.0.1"'),
        (("spec", "address", "10.9.0.256"), "'10.9.0.256' does not appear to be"),
        (("spec", "address", "fe80::1%eth0"), "expected an address without zone"),
        (("status", "mac", "nonsense"), 'MAC address "nonsense": expected six hex pairs'),
        (("status", "phase", "Gone"), "Invalid enum value 'Gone'"),
        (("status", "phase", "Bound"), 'key "status.holder": expected one in phase Bound alone'),
        (("spec", "owner", {"kind": "Pod", "name": "p"}), 'key "spec.owner": found too little for a Pod'),
    ],
)
def test_what_could_not_be_read_is_refused(desk: Desk, mistake: tuple[str, str, Any], said: str) -> None:
    body = stored()
    section, key, value = mistake
    body[section][key] = value
    for old in (None, stored()):
        assert desk.rules(body, old) == ["allocation-content"]
        (line,) = desk.denied(body, old)
        assert said in line
        assert line.endswith("nothing could be concluded from it (R12)")


def test_what_could_not_be_read_before_is_no_worse(desk: Desk) -> None:
    broken = stored()
    broken["status"]["mac"] = "nonsense"
    assert desk.denied({**broken, "metadata": {**broken["metadata"], "labels": {"a": "b"}}}, broken) == []
    assert desk.denied(stored(), broken) == []
    assert desk.denied(None, broken) == []


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (Phase.RESERVED, Phase.RETAINED, True),
        (Phase.RESERVED, Phase.BOUND, False),
        (Phase.BOUND, Phase.BOUND, True),
        (Phase.BOUND, Phase.RESERVED, False),
        (Phase.BOUND, Phase.QUARANTINED, False),
        (Phase.RETAINED, Phase.BOUND, False),
        (Phase.RETAINED, Phase.RESERVED, False),
        (Phase.RETAINED, Phase.QUARANTINED, True),
        (Phase.QUARANTINED, Phase.RETAINED, True),
        (Phase.QUARANTINED, Phase.BOUND, False),
    ],
)
def test_phases_that_only_a_node_can_know_are_refused(desk: Desk, before: Phase, after: Phase, allowed: bool) -> None:
    assert desk.rules(stored(after), stored(before)) == ([] if allowed else ["allocation-phase"])


def test_another_owner_is_refused(desk: Desk) -> None:
    (line,) = desk.denied(stored(slot=STRANGER), stored())
    assert "10.9.0.1 goes from shop/web-0 storage/net1 to shop/other storage/net1" in line
    assert "homeport release" in line


def test_another_holder_is_refused(desk: Desk) -> None:
    assert desk.rules(stored(Phase.BOUND, container="c2"), stored(Phase.BOUND)) == ["allocation-holder"]


def test_taking_an_address_from_its_holder_is_warned_of(desk: Desk) -> None:
    (line,) = desk.warned(stored(Phase.RETAINED), stored(Phase.BOUND))
    assert "10.9.0.1 is in use by shop/web-0 on node node-1" in line


def test_deleting_what_is_in_use_is_warned_of(desk: Desk) -> None:
    (line,) = desk.warned(None, stored(Phase.BOUND))
    assert line == (
        "homeport: allocation-in-use: 10.9.0.1 is in use by shop/web-0 on node node-1; its node puts it back;"
        " use homeport release"
    )
    assert desk.warned(None, stored(Phase.RETAINED)) == []


def test_a_daemon_with_an_account_of_another_name_is_merely_warned(desk: Desk) -> None:
    """It names each of its writes, as no editor does: a pod must not fail over what a cluster calls its roles."""
    asked: dict[str, Any] = {"user": "system:serviceaccount:networking:cni", "groups": ()}
    for after in (stored(Phase.BOUND), stored(slot=STRANGER)):
        after["status"]["write"] = "w2"
        assert desk.denied(after, stored(), **asked) == []
        assert len(desk.warned(after, stored(), **asked)) == 1


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("system:serviceaccount:kube-system:homeport-node", ()),
        ("system:serviceaccount:kube-system:homeport-controller", ()),
        ("node-1", ("system:authenticated", "homeport:nodes")),
        ("controller-1", ("homeport:controllers",)),
    ],
)
def test_homeports_own_programs_are_not_asked(desk: Desk, user: str, groups: tuple[str, ...]) -> None:
    asked = {"user": user, "groups": groups}
    assert desk.denied(stored(slot=STRANGER), stored(), **asked) == []
    assert desk.denied(stored(Phase.BOUND), stored(Phase.RETAINED), **asked) == []
    assert desk.warned(None, stored(Phase.BOUND), **asked) == []


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("system:serviceaccount:shop:homeport-node", ("system:serviceaccounts:shop",)),
        ("homeport-node", ()),
        ("homeport:nodes", ("homeport:nodes:not",)),
    ],
)
def test_whoever_is_merely_called_so_is_asked(desk: Desk, user: str, groups: tuple[str, ...]) -> None:
    """A tenant may make a service account of any name in a namespace of his own."""
    assert desk.rules(stored(slot=STRANGER), stored(), user=user, groups=groups) == ["allocation-owner"]
