"""The rules about addresses that two networks have in common."""

from __future__ import annotations

import json
import time

import pytest
from tests.lint_manifests import (
    host_local,
    listed,
    plugin,
    require_firing,
    require_silent,
    static,
    whereabouts,
    workload,
)

from homeport.lint import manifests
from homeport.lint.checking import check, found_in

LEFT, RIGHT = '"range":"10.1.0.0/24","range_end":"10.1.0.99"', '"range":"10.1.0.0/24","range_start":"10.1.0.100"'


def on(ipam: str, master: str = "eth1", *, name: str, kind: str = "macvlan", keys: str = "") -> str:
    return listed(plugin(kind, ipam, f'"master":"{master}"{keys and ","}{keys}'), name=name)


def pool(keys: str, master: str = "eth1", *, name: str = "net") -> str:
    return on(whereabouts(keys), master, name=name)


A = pool('"range":"10.1.0.0/24"', name="a")
DEPLOYED = workload(replicas=3, kind="Deployment")
APART = '"range":"10.1.0.0/24","network_name":"b"'
LOCAL = host_local('"subnet":"10.1.0.0/24"')

FIRING = [
    ("overlapping-ranges", A + pool('"range":«"10.1.0.0/24","network_name":"b"', name="b")),
    ("overlapping-ranges", A + pool('"range":«"10.1.0.0/25","enable_overlapping_ranges":false', name="b")),
    ("overlapping-ranges", A + on(host_local('"ranges":[[{"subnet":«"10.1.0.0/24"}]]'), name="b")),
    ("overlapping-ranges", on(LOCAL, name="a") + on(LOCAL.replace('"10.', '«"10.'), name="b")),
    (
        "overlapping-ranges",
        A + pool('"ipRanges":[{"range":"fd00::/64"},{"range":«"10.1.0.9-10.1.0.9/24"}],"network_name":"b"', name="b"),
    ),
    (
        "overlapping-ranges",
        listed(plugin("bridge", LOCAL), name="a") + listed(plugin("bridge", LOCAL.replace('"10.', '«"10.')), name="b"),
    ),
    (
        "overlapping-ranges",
        on(LOCAL, "eth1.5", name="a") + on(LOCAL.replace('"10.', '«"10.'), name="b", kind="vlan", keys='"vlanId":5'),
    ),
    ("subnet-mismatch", A + pool('"range":«"10.1.0.0/25"', name="b")),
    ("subnet-mismatch", pool('"range":"10.1.0.128/25"', name="b") + pool('"range":«"10.1.0.0/24"', name="a")),
    ("shared-range", A + pool('"range":"10.1.0.0/24","range_end":«"10.1.0.99"', name="b")),
    ("static-in-range", A + on(static("10.1.0.7/24").replace('"10.', '«"10.'), name="b")),
    ("static-in-range", pool('"range":"10.1.0.0/24","addresses":[{"address":«"10.1.0.7/24"}]')),
    ("static-in-range", A + on(static("fd00::7/64", "10.1.0.7/24").replace('"10.', '«"10.'), name="b", kind="ipvlan")),
    (
        "address-twice",
        on(static("10.1.0.7/24"), name="a") + on(static("10.1.0.7/16").replace('"10.', '«"10.'), name="b"),
    ),
    ("definition-twice", A + A.replace("name: a,", "name: «a,")),
    ("host-local-replicas", on(LOCAL.replace('"host', '«"host'), name="net") + DEPLOYED),
    ("host-local-replicas", on(LOCAL.replace('"host', '«"host'), name="net") + workload(kind="DaemonSet")),
    ("host-local-flat", on(LOCAL.replace('"host', '«"host'), name="net", kind="ipvlan")),
]

SILENT = {
    "one scope": A + pool('"range":"10.1.0.0/24"', name="b"),
    "halves of a subnet": pool(LEFT, name="a") + pool(RIGHT, name="b"),
    "halves counted apart": pool(LEFT, name="a") + pool(RIGHT + ',"network_name":"b"', name="b"),
    "what one hands out the other excludes": pool(LEFT, name="a")
    + pool(APART + ',"exclude":["10.1.0.0/26","10.1.0.64/27","10.1.0.96/30"]', name="b"),
    "the same range on two links": A + pool(APART, "eth2", name="b"),
    "two overlays of one object": pool('"range":"10.1.0.0/24"')
    + pool(APART).replace("namespace: ns", "namespace: other").replace(", namespace: other", ""),
    "inside the pod": A + on(whereabouts(APART), name="b", keys='"linkInContainer":true'),
    "a link nobody names": A + listed('{"type":"sriov","ipam":' + whereabouts(APART) + "}", name="b"),
    "bridges of their own": listed(plugin("bridge", LOCAL, '"bridge":"br0"'), name="a")
    + listed(plugin("bridge", LOCAL, '"bridge":"br1"'), name="b"),
    "a VLAN of the same range": on(LOCAL, "eth1.5", name="a") + on(LOCAL, name="b", kind="vlan", keys='"vlanId":6'),
    "subnets inside one another, routed": on(
        whereabouts('"range":"10.1.0.0/24"'), name="a", kind="ipvlan", keys='"mode":"l3"'
    )
    + on(whereabouts('"range":"10.1.0.0/25"'), name="b", kind="ipvlan", keys='"mode":"l3"'),
    "subnets inside one another on two links": A + pool('"range":"10.1.0.0/25"', "eth2", name="b"),
    "a static address that is excluded": pool('"range":"10.1.0.0/24","exclude":["10.1.0.7"]', name="a")
    + on(static("10.1.0.7/24"), name="b"),
    "a static address that is the gateway": pool(
        '"range":"10.1.0.0/24","gateway":"10.1.0.254","exclude":["10.1.0.254"]', name="a"
    )
    + on(static("10.1.0.254/24"), name="b"),
    "a static address on another link": A + on(static("10.1.0.7/24"), "eth2", name="b"),
    "static addresses apart": on(static("10.1.0.7/24"), name="a") + on(static("10.1.0.8/24"), name="b"),
    "one static address on two links": on(static("10.1.0.7/24"), name="a")
    + on(static("10.1.0.7/24"), "eth2", name="b"),
    "one name in two namespaces": A + A.replace("namespace: ns", "namespace: other"),
    "host-local of a bridge": listed(plugin("bridge", LOCAL)) + DEPLOYED,
    "host-local and one pod": on(LOCAL, name="net") + workload(),
    "host-local and pods of one node": on(LOCAL, name="net") + workload(replicas=3, pod="{nodeName: n1}"),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text, "host-local-flat")


def test_the_other_network_and_what_they_share_are_named() -> None:
    (finding,) = check({"a.yaml": A + pool('"range":"10.1.0.0/25","network_name":"b"', name="b")}).findings
    assert finding.found == (
        '10.1.0.1-10.1.0.126 is handed out by network "a" too, on link "eth1", and they are counted apart'
    )


def test_what_holds_for_several_pods_is_not_told_of_the_network_again() -> None:
    (finding,) = check({"a.yaml": on(LOCAL, name="net") + DEPLOYED + workload(replicas=2)}).findings
    assert finding.rule == "host-local-replicas"
    assert 'the pods of Deployment "web" and of 1 more may run on several' in finding.found


def test_definitions_in_two_files_are_two_overlays() -> None:
    assert check({"a.yaml": A, "b.yaml": A}).findings == ()


def test_a_thousand_networks_of_one_link_are_looked_at_in_no_time() -> None:
    def network(name: str, range_: str, scope: str) -> dict[str, object]:
        ipam = {"type": "whereabouts", "range": range_, "network_name": scope}
        config = {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": ipam}
        metadata = {"name": name, "namespace": "ns"}
        return {"kind": "NetworkAttachmentDefinition", "metadata": metadata, "spec": {"config": json.dumps(config)}}

    nested = [network(f"n{n}", f"10.1.{n}.0-10.1.255.254/16", f"n{n}") for n in range(1, 201)]
    apart = [network(f"x{n}", f"10.2.{n % 250}.{n // 250}/32", "") for n in range(800)]
    read = manifests.read({"a.json": json.dumps({"kind": "List", "items": nested + apart})})
    assert len(read.networks) == 1000
    started = time.monotonic()
    found = [found for rule, found in found_in(read) if rule.id == "overlapping-ranges"]
    assert len(found) == 199
    assert time.monotonic() - started < 10
