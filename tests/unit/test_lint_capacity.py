"""The rules about whether there are addresses enough."""

from __future__ import annotations

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

from homeport.lint.checking import check

SIX, NAMED = '"range":"10.1.0.0/29"', '"range":"10.1.0.0/29","network_name":"b"'
RECREATE = "  strategy: {type: Recreate}\n"
PIN = "{nodeSelector: {kubernetes.io/hostname: n1}}"
ASK_IPS = '\'[{"name":"%s","ips":["10.1.0.5/29"]}]\''


def pool(keys: str, *, name: str = "net") -> str:
    return listed(plugin("ipvlan", whereabouts(keys)), name=name)


def local(keys: str, *, kind: str = "bridge") -> str:
    return listed(plugin(kind, host_local(keys)))


def deployment(networks: str = "net", *, replicas: int = 1, spec: str = "", name: str = "api") -> str:
    return workload(networks, replicas=replicas, kind="Deployment", spec=spec, name=name)


def surge(text: str, kind: str = "strategy") -> str:
    return f"  {kind}: {{type: RollingUpdate, rollingUpdate: {{maxSurge: {text}}}}}\n"


MARKED = SIX.replace('"10.', '«"10.')
FOUR = '"range":"10.1.0.0/29","range_end":"10.1.0.4"'
TWICE = "---\nkind: Pod\nmetadata: {name: one, namespace: ns, annotations: {k8s.v1.cni.cncf.io/networks: 'net,net'}}\n"
ONE = listed(plugin("ipvlan", static("10.1.0.5/24")))

FIRING = [
    (
        "pool-too-small",
        pool(MARKED, name="a") + pool(SIX, name="b") + workload("a", replicas=4) + deployment("b", replicas=3),
    ),
    (
        "pool-too-small",
        pool(SIX, name="a")
        + pool(FOUR.replace('"10.1.0.4"', '«"10.1.0.4"'), name="b")
        + workload("b", replicas=5)
        + deployment("a", replicas=2, spec=RECREATE),
    ),
    (
        "pool-too-small",
        pool('"range":"10.1.0.0/29","range_end":«"10.1.0.4"', name="a")
        + pool('"range":"10.1.0.0/29","range_start":"10.1.0.3"', name="b")
        + workload("a", replicas=4)
        + workload("b", replicas=3, name="web2"),
    ),
    ("pool-too-small", pool('"ipRanges":[{"range":«"10.1.0.0/29"},{"range":"10.1.0.0/29"}]') + workload(replicas=4)),
    ("pool-too-small", pool(MARKED, name="a") + pool(SIX, name="b") + workload("a,b", replicas=4)),
    ("pool-too-small-for-update", pool(MARKED) + deployment(replicas=5)),
    ("pool-too-small-for-update", pool(MARKED) + deployment(replicas=6, spec=surge("1"))),
    ("pool-too-small-for-update", pool(MARKED) + deployment(replicas=5, spec=surge("'40%'"))),
    (
        "pool-too-small-for-update",
        pool('"range":«"10.1.0.1/32"') + workload(kind="DaemonSet", spec=surge("1", "updateStrategy")),
    ),
    ("pool-too-small-for-update", pool(MARKED) + deployment(replicas=3, spec=surge("3")) + workload(replicas=2)),
    ("one-address-for-update", ONE + deployment("«net")),
    ("one-address-for-update", pool(SIX) + deployment(ASK_IPS % "«net")),
    ("host-local-too-small", local('"subnet":«"10.1.0.0/29"') + workload(replicas=6, pod=PIN)),
    (
        "host-local-too-small",
        local('"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","rangeEnd":«"10.1.0.9"') + TWICE,
    ),
    (
        "host-local-too-small",
        local('"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":«"fd00::/126"}]]')
        + workload(replicas=2, pod="{nodeName: n2}")
        + workload(replicas=1, pod="{nodeName: n2}", name="web2"),
    ),
]

SILENT = {
    "just enough together": pool(SIX, name="a") + pool(SIX, name="b") + workload("a,b", replicas=3),
    "counted apart": pool(SIX, name="a")
    + listed(plugin("ipvlan", whereabouts(NAMED), '"master":"eth9"'), name="b")
    + workload("a,b", replicas=6),
    "what one excludes and the other hands out": pool(SIX + ',"exclude":["10.1.0.4/30"]', name="a")
    + pool(SIX, name="b")
    + workload("a", replicas=3)
    + workload("b", replicas=3, name="web2"),
    "ranges that meet and suffice": pool('"range":"10.1.0.0/29","range_end":"10.1.0.4"', name="a")
    + pool('"range":"10.1.0.0/29","range_start":"10.1.0.3"', name="b")
    + workload("a", replicas=4)
    + workload("b", replicas=2, name="web2"),
    "room for an update": pool(SIX) + deployment(replicas=4),
    "recreated": pool(SIX) + deployment(replicas=6, spec=RECREATE),
    "no surge": pool(SIX) + deployment(replicas=6, spec=surge("0")),
    "a surge nobody can read": pool(SIX) + deployment(replicas=6, spec=surge("many")),
    "a daemon set replaces in place": pool('"range":"10.1.0.1/32"') + workload(kind="DaemonSet"),
    "a stateful set replaces in place": pool(SIX) + workload(replicas=6, spec=surge("1", "updateStrategy")),
    "two updates at different times": pool('"range":"10.1.0.0/29"')
    + deployment(replicas=2, name="a")
    + deployment(replicas=2, name="b")
    + deployment(replicas=1, name="c"),
    "one address, recreated": ONE + deployment(spec=RECREATE),
    "one address, replaced in place": ONE + workload(),
    "none of it running": ONE + deployment(replicas=0),
    "a pool for one": pool(SIX) + deployment(),
    "five of host-local on one node": local('"subnet":"10.1.0.0/29"') + workload(replicas=5, pod=PIN),
    "six of host-local with a gateway elsewhere": local('"subnet":"10.1.0.0/29","gateway":"10.1.0.7"')
    + workload(replicas=6, pod=PIN),
    "six of host-local on any node": local('"subnet":"10.1.0.0/29"') + workload(replicas=6),
    "three each on two nodes": local('"subnet":"10.1.0.0/29"')
    + workload(replicas=3, pod="{nodeName: n1}")
    + workload(replicas=3, pod="{nodeName: n2}", name="web2"),
    "a set of two ranges": local('"ranges":[[{"subnet":"10.1.0.0/30"},{"subnet":"10.2.0.0/30"}]]')
    + workload(replicas=2, pod=PIN),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text, "shared-range", "subnet-twice")


def test_all_who_ask_are_named_and_how_many_more_an_update_has() -> None:
    text = pool(SIX) + deployment(replicas=4, spec=surge("3"))
    (finding,) = check({"a.yaml": text}).findings
    assert finding.found == (
        '10.1.0.1-10.1.0.6 has 6 usable addresses, Deployment "api" asks for 4 and Deployment "api" for 3 more in a '
        "rolling update"
    )
    assert finding.right == "expected 7 at least, or maxSurge 0"


def test_two_networks_of_one_range_are_told_once() -> None:
    text = pool(SIX, name="a") + pool(SIX, name="b") + workload("a,b", replicas=9)
    assert [f.rule for f in check({"a.yaml": text}).findings].count("pool-too-small") == 1


def test_overlays_for_two_clusters_are_counted_apart() -> None:
    def overlay(where: str, range_: str, replicas: int) -> dict[str, str]:
        text = pool(f'"range":{range_}')
        return {f"{where}/nad.yaml": text, f"{where}/web.yaml": workload(replicas=replicas)}

    texts = {**overlay("deploy/dev", '"10.1.0.0/29"', 6), **overlay("deploy/prod", '"10.1.0.0/24"', 200)}
    assert check(texts).findings == ()
    (finding,) = check({**texts, **overlay("deploy/dev", '"10.1.0.0/29"', 7)}).findings
    assert (finding.file, finding.rule) == ("deploy/dev/nad.yaml", "pool-too-small")


def test_one_workload_in_two_files_is_counted_once() -> None:
    texts = {"net.yaml": pool(SIX), "base.yaml": workload(replicas=4), "more.yaml": workload(replicas=6)}
    assert check(texts).findings == ()
    (finding,) = check({**texts, "more.yaml": workload(replicas=7)}).findings
    assert finding.right == "expected 7 at least"


def test_of_many_who_ask_the_rest_are_a_number() -> None:
    text = pool(SIX) + "".join(workload(replicas=2, name=f"w{n}") for n in range(6))
    (finding,) = check({"a.yaml": text}).findings
    assert finding.found.endswith('StatefulSet "w3" asks for 2, 2 others for 4')
    assert finding.right == "expected 12 at least"
