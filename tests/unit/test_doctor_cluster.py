"""What doctor knows of Homeport's own files, and checks from afar that need no cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import msgspec
import pytest
from ruamel.yaml import YAML

from homeport.admission.rotating import BACKDATED, Life
from homeport.doctor.cluster import diagnose
from homeport.doctor.cluster_checks import CHECKS
from homeport.doctor.cluster_facts import ClusterFacts, Grant, Lease, SeenPod, Unseen, Webhook
from homeport.doctor.cluster_parts import NEEDED
from homeport.doctor.findings import Severity
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Holder, PodOwner, Slot
from homeport.ipam.objects import STATIC_HASH, NodeState, Pod
from homeport.ipam.ranges import parse_interface
from homeport.ipam.whereabouts import ForeignPool, PoolEntry
from homeport.model.names import PodRef
from homeport.ports import NetworkDefinition
from homeport.stores.kubernetes.wire import Record

DEPLOY = Path(__file__).parents[2] / "deploy"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(hours=1)
EMPTY = ClusterFacts(
    place="the cluster",
    namespace="kube-system",
    now=NOW,
    definitions={},
    roles={},
    lease=Lease(holder="a-controller", renewed=NOW, duration_seconds=15),
    allocations=(),
    slots=(),
    networks=(),
    workloads=(),
    nodes={"node-a": NodeState(name="node-a")},
    pods=(),
    ledger=None,
    webhooks=(),
    foreign=(),
)


def facts(**parts: object) -> ClusterFacts:
    return msgspec.structs.replace(EMPTY, **parts)


def found(facts: ClusterFacts) -> list[str]:
    return [d.id for d in diagnose(facts).diagnoses]


def bound(pod_uid: str, *, name: str = "visitor", last: int = 1, since: datetime = OLD) -> Record:
    holder = Holder(container_id="c1", ifname="net1", netns_path="/x", node="node-a", pod_uid=pod_uid)
    slot = Slot(PodOwner("shop", name, pod_uid), "lan", "net1")
    address = ip_address("10.9.0.0") + last
    return Record(
        allocation=Allocation(scope="", address=address, slot=slot, phase=Phase.BOUND, holder=holder, since=since)
    )


def running(uid: str, *, name: str = "visitor", annotations: dict[str, str] | None = None, **more: object) -> SeenPod:
    pod = Pod(ref=PodRef("shop", name), uid=uid, node="node-a", phase="Running", annotations=annotations or {})
    return msgspec.structs.replace(SeenPod(pod=pod, networks="lan", is_running=True, started=OLD), **more)


LAN = NetworkDefinition(
    namespace="shop",
    name="lan",
    config='{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"whereabouts","range":"10.9.0.0/29"}}',
)


def test_a_cluster_without_anything_wrong_has_no_findings() -> None:
    report = diagnose(EMPTY)

    assert (report.diagnoses, report.unlooked, report.exit_code) == ((), (), 0)


def test_what_the_roles_must_allow_is_what_the_file_gives() -> None:
    documents = [d for d in YAML(typ="safe", pure=True).load_all((DEPLOY / "rbac.yaml").read_text()) if d]
    roles = {d["metadata"]["name"]: d.get("rules", ()) for d in documents if d["kind"] == "ClusterRole"}

    for name, needed in NEEDED.items():
        given = {
            Grant(*grant)
            for rule in roles[name]
            if not rule.get("resourceNames")
            for grant in product(rule["apiGroups"], rule["resources"], rule["verbs"])
        }
        assert needed == given, name


def test_every_check_has_one_id_and_says_what_it_looks_for() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.summary and not check.summary.endswith(".") for check in CHECKS)


def test_a_static_pod_is_known_by_its_hash() -> None:
    pods = (running("uid-1", annotations={STATIC_HASH: "hash-1"}),)

    assert found(facts(allocations=(bound("hash-1"),), pods=pods, networks=(LAN,))) == []


@pytest.mark.parametrize(
    "pod",
    [
        running("uid-2", on_host_network=True),
        running("uid-2", is_running=False),
        running("uid-2", started=NOW - timedelta(minutes=1)),
        running("uid-2", networks="other"),
        running("uid-2", networks="[{"),
        running("uid-2", networks=""),
    ],
)
def test_a_pod_that_needs_no_address_is_not_missed(pod: SeenPod) -> None:
    assert found(facts(pods=(pod,), networks=(LAN,))) == []


def test_a_pod_without_an_address_on_a_node_that_serves_others() -> None:
    pods = (running("uid-1"), running("uid-2", name="other"))

    assert found(facts(pods=pods, networks=(LAN,))) == ["node-not-served"]
    assert found(facts(pods=pods, networks=(LAN,), allocations=(bound("uid-1"),))) == ["pod-without-allocation"]


def test_a_pod_that_whereabouts_serves_is_not_missed() -> None:
    base = parse_interface("10.9.0.0/29", "")
    entries = {ip_address("10.9.0.3"): PoolEntry(id="abc", podref="shop/visitor")}
    pool = ForeignPool(name="10.9.0.0-29", version="1", base=base, entries=entries)

    assert found(facts(pods=(running("uid-1"),), networks=(LAN,))) == ["node-not-served"]
    assert found(facts(pods=(running("uid-1"),), networks=(LAN,), foreign=(pool,))) == []


def test_a_container_outside_of_kubernetes_is_nobody_s_pod() -> None:
    record = bound("")
    slot = Slot(ContainerOwner("c1"), "lan", "net1")
    record = msgspec.structs.replace(record, allocation=msgspec.structs.replace(record.allocation, slot=slot))

    assert found(facts(allocations=(record,))) == []


def test_many_are_told_as_few_and_a_number() -> None:
    records = tuple(bound(f"uid-{n}", name=f"pod-{n}", last=n) for n in range(1, 9))

    (diagnosis,) = diagnose(facts(allocations=records)).diagnoses

    assert diagnosis.found.count("shop/pod-") == 5
    assert "and 3 more" in diagnosis.found


@pytest.mark.parametrize("part", [f.name for f in msgspec.structs.fields(ClusterFacts) if f.required][3:])
def test_every_part_may_be_out_of_sight(part: str) -> None:
    """Nothing is concluded from it, and the rest is looked at."""
    report = diagnose(facts(**{part: Unseen("forbidden")}))

    assert report.diagnoses == ()
    assert [unlooked.why for unlooked in report.unlooked] == ["forbidden"]
    assert report.exit_code == 2


def test_a_full_range_that_two_networks_share_is_told_once() -> None:
    records = tuple(bound(f"uid-{n}", name=f"pod-{n}", last=n) for n in range(1, 7))
    pods = tuple(running(f"uid-{n}", name=f"pod-{n}") for n in range(1, 7))
    second = msgspec.structs.replace(LAN, name="second")

    (diagnosis,) = diagnose(facts(allocations=records, pods=pods, networks=(LAN, second))).diagnoses

    assert diagnosis.id == "range-full"
    assert diagnosis.severity is Severity.WARNING
    assert diagnosis.place == "range 10.9.0.1-10.9.0.6 of shop/lan, shop/second"
    assert diagnosis.found == "0 of 6 addresses free: 6 Bound"


def webhook(end: datetime, life: timedelta) -> Webhook:
    return Webhook(name="x", failure_policy="Ignore", authorities=(Life(end - life - BACKDATED, end),))


@pytest.mark.parametrize(
    ("left", "life", "expected"),
    [
        (timedelta(days=29), timedelta(days=90), []),
        (timedelta(days=1), timedelta(days=90), ["webhook-certificate-ends"]),
        (timedelta(minutes=15), timedelta(hours=1), []),
        (timedelta(minutes=5), timedelta(hours=1), ["webhook-certificate-ends"]),
        (timedelta(minutes=-5), timedelta(hours=1), ["webhook-unverifiable"]),
    ],
)
def test_a_certificate_is_late_by_what_it_was_given(left: timedelta, life: timedelta, expected: list[str]) -> None:
    """Five webhooks with one bundle are one finding."""
    registered = tuple(msgspec.structs.replace(webhook(NOW + left, life), name=f"w{n}") for n in range(5))

    assert found(facts(webhooks=registered)) == expected


def test_an_old_authority_beside_the_new_one_is_no_matter() -> None:
    old, new = (
        webhook(NOW - timedelta(days=1), timedelta(days=90)),
        webhook(NOW + timedelta(days=80), timedelta(days=90)),
    )
    both = msgspec.structs.replace(new, authorities=(*(old.authorities or ()), *(new.authorities or ())))

    assert found(facts(webhooks=(both,))) == []
