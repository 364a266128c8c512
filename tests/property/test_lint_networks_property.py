"""The rules over networks and workloads: whatever stands where, they answer; strangers are judged as each alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from homeport.lint import manifests
from homeport.lint.checking import check, found_in

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, -1, 1.5, 10**12, "", "x", "::", "{ordinal}", [], {}, [None], [[]], [{}]]
)
ADDRESSES = ["10.1.0.0/24", "10.1.0.0/29", "10.1.0.7", "10.1.0.7/24", "10.1.0.9-10.1.0.2/24", "fd00::/64", "fd00::1"]
ADDRESSES += ["fd00::/127", "0.0.0.0/0", "::/0", "10.1.0.300", "10.1.0.0/33", "fe80::1", "10.1.0.0/31", "0.0.0.0/32"]
ADDRESS = st.sampled_from(ADDRESSES) | ODD
COUNT = st.sampled_from([0, 1, 2, 7, 300]) | ODD
FLAG = st.booleans() | ODD
ROUTES = st.lists(st.fixed_dictionaries({"dst": ADDRESS}, optional={"gw": ADDRESS, "table": COUNT}) | ODD, max_size=2)
RANGE_KEYS = {"range_start": ADDRESS, "range_end": ADDRESS, "exclude": st.lists(ADDRESS, max_size=2) | ODD}
HOST_RANGE = {"rangeStart": ADDRESS, "rangeEnd": ADDRESS, "gateway": ADDRESS}
IPAM = st.one_of(
    ODD,
    st.fixed_dictionaries(
        {"type": st.just("whereabouts")},
        optional={
            "range": ADDRESS,
            **RANGE_KEYS,
            "gateway": ADDRESS,
            "routes": ROUTES | ODD,
            "network_name": st.sampled_from(["", "b"]) | ODD,
            "enable_overlapping_ranges": FLAG,
            "ipRanges": st.lists(st.fixed_dictionaries({"range": ADDRESS}, optional=RANGE_KEYS) | ODD, max_size=2)
            | ODD,
            "addresses": st.lists(st.fixed_dictionaries({"address": ADDRESS}) | ODD, max_size=2) | ODD,
            "sticky": st.fixed_dictionaries({"replicas": st.dictionaries(st.just("ns/web"), st.lists(ADDRESS))}) | ODD,
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("host-local")},
        optional={
            "subnet": ADDRESS,
            **HOST_RANGE,
            "routes": ROUTES | ODD,
            "ranges": st.lists(st.lists(st.fixed_dictionaries({"subnet": ADDRESS}, optional=HOST_RANGE) | ODD)) | ODD,
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("static")},
        optional={
            "routes": ROUTES | ODD,
            "addresses": st.lists(st.fixed_dictionaries({"address": ADDRESS}, optional={"gateway": ADDRESS}) | ODD),
        },
    ),
)
MAKERS = st.sampled_from(["macvlan", "ipvlan", "bridge", "vlan", "host-device", "ptp", "dummy", "sriov"])
CHAINED = st.sampled_from(["sbr", "tuning", "bandwidth", "route-override", "vrf", "firewall"])
PLUGIN = st.fixed_dictionaries(
    {"type": MAKERS | CHAINED | ODD},
    optional={
        "ipam": IPAM,
        "mtu": COUNT,
        "vlanId": COUNT,
        "vlan": COUNT,
        "mode": st.sampled_from(["l2", "l3", "bridge", "passthru"]) | ODD,
        "linkInContainer": FLAG,
        "isDefaultGateway": FLAG,
        "ingressRate": COUNT,
        "table": COUNT,
        "device": st.just("eth1") | ODD,
    },
)
SELECTION = st.one_of(
    st.just("net,other,net"),
    st.just("other@net1,net"),
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["net", "other", "net{ordinal}"])},
            optional={"ips": st.lists(ADDRESS, max_size=2), "default-route": st.lists(ADDRESS, max_size=2)},
        ),
        max_size=3,
    ).map(json.dumps),
)


def network(name: str, master: str, plugins: list[Any]) -> dict[str, Any]:
    """A definition whose plugins all stand on `master`."""
    config = {"cniVersion": "1.0.0", "plugins": [{**plugin, "master": master} for plugin in plugins]}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"config": json.dumps(config)},
    }


def workload(kind: str, selection: str, replicas: Any, strategy: Any) -> dict[str, Any]:
    annotations = {
        "k8s.v1.cni.cncf.io/networks": selection,
        "homeport.dev/addresses": json.dumps({"net": ["10.1.0.7", ["fd00::1"]]}),
    }
    return {
        "kind": kind,
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "template": {"metadata": {"annotations": annotations}, "spec": {}},
        },
    }


def file(*objects: dict[str, Any]) -> str:
    return json.dumps({"kind": "List", "items": objects}, indent=1)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.lists(PLUGIN, max_size=3), min_size=1, max_size=3),
    st.sampled_from(["StatefulSet", "Deployment", "DaemonSet"]),
    SELECTION,
    COUNT,
    ODD | st.fixed_dictionaries({"rollingUpdate": st.fixed_dictionaries({"maxSurge": COUNT}) | ODD}),
)
def test_whatever_stands_in_them_networks_and_workloads_are_judged(
    plugins: list[list[Any]], kind: str, selection: str, replicas: Any, strategy: Any
) -> None:
    named = [network(name, "eth1", listed) for name, listed in zip(["net", "other", "net0"], plugins, strict=False)]
    text = file(*named, workload(kind, selection, replicas, strategy))
    rows = text.split("\n")

    for finding in check({"a.json": text}).findings:
        event(finding.rule)
        assert 1 <= finding.line <= finding.end_line <= len(rows)
        assert 1 <= finding.column <= len(rows[finding.line - 1]) + 1


@settings(max_examples=300, deadline=None)
@given(st.lists(PLUGIN, max_size=2), st.lists(PLUGIN, max_size=2))
def test_networks_of_two_links_and_two_scopes_are_judged_as_each_alone(one: list[Any], other: list[Any]) -> None:
    def of(link: str, plugins: list[Any]) -> dict[str, Any]:
        """No plugin that would stand on a link of its own choice, and a scope of the link's."""
        staying = [p for p in plugins if p.get("type") not in ("bridge", "host-device")]
        scoped = [
            {**p, "ipam": {**p["ipam"], "network_name": link}} if isinstance(p.get("ipam"), dict) else p
            for p in staying
        ]
        return network(link, link, scoped)

    def said(*networks: dict[str, Any]) -> list[tuple[str, str]]:
        read = manifests.read({f"{n['metadata']['name']}.json": file(n) for n in networks})
        return sorted((rule.id, found.found) for rule, found in found_in(read))

    left, right = of("eth1", one), of("eth2", other)
    assert said(left, right) == sorted(said(left) + said(right))
