"""The rules about addresses that pods ask for themselves, and about maps that clash."""

from __future__ import annotations

import pytest
from tests.lint_manifests import (
    annotation,
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

FREE = '{"type":"static"}'
RANGE = '"range":"10.1.0.0/24"'
SPLIT = '"range":"10.1.0.0/24","range_start":"10.1.0.100"'


def net(ipam: str, *, name: str = "net", master: str = "eth1", kind: str = "macvlan") -> str:
    return listed(plugin(kind, ipam, f'"master":"{master}"' if kind != "bridge" else ""), name=name)


def local(keys: str) -> str:
    return net(host_local(keys), kind="bridge")


def asking(*ips: str, net: str = "net", replicas: int = 1, name: str = "web", kind: str = "StatefulSet") -> str:
    listed_ips = ",".join(f'"{ip}"' for ip in ips).replace('"«', '«"')
    return workload(f'\'[{{"name":"{net}","ips":[{listed_ips}]}}]\'', replicas=replicas, name=name, kind=kind)


def mapping(owner: str, *entries: str, keys: str = RANGE) -> str:
    listed_entries = ",".join(f'"{entry}"' for entry in entries).replace('"«', '«"')
    return whereabouts(f'{keys},"sticky":{{"replicas":{{"{owner}":[{listed_entries}]}}}}')


def marked(text: str) -> str:
    """A finding about `ips` stands at their list."""
    return text.replace('"ips":[', '"ips":«[')


FIRING = [
    ("ips-outside", marked(local('"subnet":"10.1.0.0/24"') + asking("10.2.0.5"))),
    ("ips-outside", marked(local('"subnet":"10.1.0.0/24"') + asking("10.1.0.1"))),
    ("ips-outside", marked(local('"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.9"') + asking("10.1.0.10/24"))),
    ("ips-repeated", marked(net(FREE) + asking("10.1.0.5/24", replicas=2))),
    ("ips-repeated", marked(net(FREE) + asking("10.1.0.{ordinal+5}/24", "fd00::5/64", replicas=2))),
    ("ips-repeated", marked(net(FREE) + asking("10.1.0.5/24", replicas=3, kind="Deployment"))),
    ("ips-twice", net(FREE) + asking("10.1.0.5/24") + marked(asking("10.1.0.5/24", name="other"))),
    (
        "ips-twice",
        net(FREE, name="a") + net(FREE) + asking("10.1.0.5/24", net="a") + marked(asking("10.1.0.5/16", name="b")),
    ),
    ("ips-twice", marked(net(static("10.1.0.5/24"), name="a") + net(FREE) + asking("10.1.0.5/24"))),
    (
        "ips-twice",
        net(FREE) + asking("10.1.0.{ordinal+5}/24", replicas=3) + marked(asking("10.1.0.7/24", name="other")),
    ),
    ("ips-in-range", marked(net(whereabouts(RANGE)) + asking("10.1.0.5/24"))),
    ("ips-in-range", marked(net(whereabouts(RANGE), name="a") + net(FREE) + asking("10.1.0.5/24"))),
    (
        "ips-in-range",
        marked(net(whereabouts(RANGE), name="a") + net(host_local('"subnet":"10.1.0.0/24"')) + asking("10.1.0.5")),
    ),
    (
        "map-clash",
        net(mapping("ns/web", "10.1.0.5"), name="a") + net(mapping("ns/db", "10.1.0.6", "«10.1.0.5"), name="b"),
    ),
    ("map-clash", net(mapping("ns/web", "10.1.0.5"), name="a") + net(mapping("ns/web", "«10.1.0.5"), name="b")),
    (
        "map-clash",
        net(mapping("ns/db", "«10.1.0.5")) + workload(more=annotation("addresses", '{"net":["10.1.0.5"]}')),
    ),
    (
        "map-clash",
        net(whereabouts(RANGE))
        + workload(more=annotation("addresses", '{"net":["10.1.0.5"]}'))
        + workload(more=annotation("addresses", '{"net":[«"10.1.0.5"]}'), name="db"),
    ),
]

SILENT = {
    "host-local gives what is asked for": local('"subnet":"10.1.0.0/24"') + asking("10.1.0.5"),
    "an address the last of its range": local('"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.255"') + asking("10.1.0.255"),
    "a range that is not right": local('"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.256"') + asking("10.2.0.5"),
    "an address a replica": net(FREE) + asking("10.1.0.{ordinal+5}/24", replicas=3),
    "one replica": net(FREE) + asking("10.1.0.5/24"),
    "one address for a load balancer's servers": listed(plugin("dummy", FREE)) + asking("10.1.0.5/32", replicas=3),
    "the same in the network": listed(plugin("dummy", static("10.1.0.5/32"))) + workload(replicas=3, kind="Deployment"),
    "two that ask for two": net(FREE) + asking("10.1.0.5/24") + asking("10.1.0.6/24", name="other"),
    "one address on two links": net(FREE, name="a")
    + net(FREE, master="eth2")
    + asking("10.1.0.5/24", net="a")
    + asking("10.1.0.5/24", name="other"),
    "the same where nobody runs": net(FREE) + asking("10.1.0.5/24", replicas=0) + asking("10.1.0.5/24", name="other"),
    "what the network itself says": net(static("10.1.0.5/24")) + asking("10.1.0.5/24"),
    "two overlays of a workload": net(FREE) + asking("10.1.0.5/24") + asking("10.1.0.5/24"),
    "beside the range": net(whereabouts(SPLIT)) + asking("10.1.0.5/24"),
    "excluded from the range": net(whereabouts(RANGE + ',"exclude":["10.1.0.5"]')) + asking("10.1.0.5/24"),
    "a range of another link": net(whereabouts(RANGE), name="a", master="eth2") + net(FREE) + asking("10.1.0.5/24"),
    "two maps": net(mapping("ns/web", "10.1.0.5"), name="a") + net(mapping("ns/db", "10.1.0.6"), name="b"),
    "two maps of two scopes": net(mapping("ns/web", "10.1.0.5"), name="a")
    + net(mapping("ns/db", "10.1.0.5", keys=RANGE + ',"network_name":"b"'), name="b", master="eth2"),
    "a map of one of two networks of that name": net(whereabouts(RANGE))
    + net(whereabouts('"range":"10.9.0.0/24"'), name="other", master="eth2").replace(
        '"plugins"', '"name":"net","plugins"'
    )
    + workload(more=annotation("addresses", '{"net":["10.9.0.5"]}')),
    "an annotation in place of the network's map": net(mapping("ns/web", "10.1.0.5"))
    + workload(more=annotation("addresses", '{"net":["10.1.0.5"]}')),
}


@pytest.mark.parametrize(("rule", "text"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, text: str) -> None:
    require_firing(rule, text)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text, "address-syntax", "range-bounds")


def test_a_map_is_for_the_workload_of_its_own_overlay() -> None:
    def overlay(where: str, *entries: str, replicas: int) -> dict[str, str]:
        network = net(mapping("ns/web", *entries))
        return {f"{where}/nad.yaml": network, f"{where}/web.yaml": workload(replicas=replicas)}

    texts = {**overlay("dev", "10.1.0.5", replicas=1), **overlay("prod", "10.1.0.5", "10.1.0.6", replicas=2)}
    assert check(texts).findings == ()
    (finding,) = check({**texts, **overlay("prod", "10.1.0.5", "10.1.0.6", replicas=3)}).findings
    assert (finding.file, finding.rule) == ("prod/nad.yaml", "map-too-short")


def test_a_static_network_that_pods_ask_on_has_room_for_all() -> None:
    require_silent(net(FREE) + asking("10.1.0.{ordinal}/24", replicas=200).replace("{ordinal}", "{ordinal+1}"))
