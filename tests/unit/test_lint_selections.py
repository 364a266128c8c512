"""Rules about network selections: names of interfaces, addresses and MACs that a pod can or cannot have, and keys."""

from __future__ import annotations

import pytest
from tests.lint_manifests import listed, require_firing, require_silent, static, workload

from homeport.lint.fixing import fix

NET = listed('{"type":"macvlan","ipam":{"type":"whereabouts","range":"10.1.0.0/24"}}')
OTHER = NET.replace("name: net,", "name: other,").replace("10.1.", "10.2.")
FREE = listed('{"type":"macvlan","capabilities":{"ips":true},"ipam":{"type":"static"}}')
MAP = "        homeport.dev/addresses: '{%s}'\n"
MAC = "02:00:00:00:00:05"


def asking(entry: str, *more: str, replicas: int = 1, kind: str = "StatefulSet", namespace: str = "ns") -> str:
    """A workload whose selection is those JSON objects."""
    return workload(f"'[{', '.join((entry, *more))}]'", replicas=replicas, kind=kind, namespace=namespace)


FIRING = [
    ("interface-reserved", NET + workload("net@«eth0")),
    ("interface-reserved", NET + OTHER + workload("other@a, net@«lo")),
    ("interface-reserved", NET + asking('{"name":"net","interface":«"eth0"}')),
    ("interface-reserved", NET + asking('{"name":"net","interfaceRequest":«"eth0"}')),
    ("interface-twice", NET + OTHER + workload("net@a,other@«a")),
    ("interface-twice", NET + asking('{"name":"net","interface":"a"}', '{"name":"net","interface":«"a"}')),
    ("interface-numbered", NET + OTHER + workload("net@«net2,other")),
    ("interface-numbered", NET + OTHER + asking('{"name":"net"}', '{"name":"other","interface":«"net1"}')),
    ("ips-without-prefix", FREE + asking('{"name":"net","ips":«["10.1.0.5"]}')),
    ("ips-without-prefix", FREE + asking('{"name":"net","ips":«["10.1.0.5/24","fd00::5"]}')),
    ("no-address", FREE + workload("«net")),
    ("no-address", listed('{"type":"bridge","ipam":{"type":"static","addresses":[]}}') + workload("a, «net")),
    ("mac-repeated", NET + asking(f'{{"name":"net","mac":«"{MAC}"}}', replicas=2)),
    ("mac-repeated", NET + asking(f'{{"name":"net","mac":«"{MAC}"}}', replicas=2, kind="Deployment")),
    ("deprecated-key", NET + asking('{"name":"net",«"interfaceRequest":"a"}')),
    ("deprecated-key", NET + asking('{"name":"net","interface":"a",«"interfaceRequest":"b"}')),
    ("map-unselected", NET + workload(more=MAP % '«"nets":["10.1.0.5"]')),
    ("map-unselected", NET + workload(more=MAP % '«"nett@data":["10.1.0.5"]')),
    ("misspelt-key", NET + asking('{"name":"net",«"interfaces":"a"}')),
    ("misspelt-key", NET + asking('{"name":"net",«"default_route":["10.1.0.1"]}')),
    ("misspelt-key", NET + asking('{"name":"net",«"ip":["10.1.0.5"]}')),
    ("misspelt-key", NET + asking('{"name":"net",«"macaddress":"02:00:00:00:00:05"}')),
    ("misspelt-key", NET + asking('{"name":"net",«"ipRequest":["10.1.0.5"]}')),
    ("misspelt-key", NET + asking('{"name":"net","bandwidth":{«"ingressrate":5}}')),
    ("unknown-key", NET + asking('{"name":"net",«"vlan":5}')),
    ("annotation-syntax", NET + asking('{"name":"net"}', '{"name":«"ns/net"}')),
    ("annotation-syntax", NET + asking('{"name":"net"}', '«{"nam":"net"}')),
    ("annotation-syntax", NET + asking('{"name":"net","interface":«"much-too-long-a-name"}')),
    ("annotation-syntax", NET + asking('{"name":"net","ips":["10.9.0.5",«"10.9.0.6/33"]}')),
    ("annotation-syntax", NET + asking('{"name":"net","portMappings":[{"hostPort":«"80"}]}')),
    ("annotation-syntax", NET + asking('{"name":"net","mac":«"zz"}')),
    ("annotation-syntax", NET + workload("net, «b/c/d , net")),
    ("annotation-syntax", NET + workload("net,«Net@a")),
    ("mac-address", NET + asking('{"name":"net","mac":«"03:00:00:00:00:05"}')),
    ("mac-address", NET + asking('{"name":"net","mac":«"00-00-00-00-00-00"}')),
]


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


HELD = listed('{"type":"macvlan","ipam":' + static("10.1.0.5/24") + "}")
OTHERS_OWN = listed('{"type":"sriov","ipam":{"type":"static"}}')

SILENT = {
    "one network twice": NET + workload("net,net"),
    "one network twice under two names": NET + workload("net@a,net@b"),
    "a name with the number it has anyway": NET + OTHER + workload("net@net1,other@net2"),
    "a name after all numbers": NET + workload("net@net2"),
    "longest name": NET + workload("net@abcdefghijklmno"),
    "an address with its prefix": FREE + asking('{"name":"net","ips":["10.1.0.5/24","fd00::5/64"]}'),
    "an address without prefix where there is a range": NET + asking('{"name":"net","ips":["10.9.0.5"]}'),
    "an address in the configuration": HELD + workload("net"),
    "an address by cni-args": FREE + asking('{"name":"net","cni-args":{"ips":["10.1.0.5/24"]}}'),
    "an address by args": listed('{"type":"macvlan","ipam":{"type":"static"},"args":{"cni":{"ips":["10.1.0.5/24"]}}}')
    + workload("net"),
    "a plugin that may do without": OTHERS_OWN + workload("net"),
    "a MAC for each replica": NET + asking('{"name":"net","mac":"02:00:00:00:00:{ordinal}"}', replicas=3),
    "a MAC for one pod": NET + asking(f'{{"name":"net","mac":"{MAC}"}}'),
    "every key": NET.replace(
        '"type":"macvlan"', '"type":"macvlan","capabilities":{"portMappings":true,"bandwidth":true}'
    )
    + asking(
        f'{{"name":"net","namespace":"ns","interface":"a","ips":["10.9.0.5"],"mac":"{MAC}","cni-args":{{"any":1}},'
        '"portMappings":[{"hostPort":1,"containerPort":2,"protocol":"tcp","hostIP":"1.2.3.4"}],'
        '"bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4},"default-route":["10.1.0.1"]}'
    ),
    "a map for what is selected": NET + workload(more=MAP % '"net":["10.1.0.5"]'),
    "a map by the configuration's own name": NET.replace('{"cniVersion"', '{"name":"lan","cniVersion"')
    + workload(more=MAP % '"lan":["10.1.0.5"]'),
    "maps for every replica's network": NET.replace("name: net,", "name: line-0,")
    + OTHER.replace("name: other,", "name: line-1,")
    + workload(
        "line-{ordinal}", replicas=2, more=MAP % '"line-0":["10.1.0.5","10.1.0.6"],"line-1":["10.2.0.5","10.2.0.6"]'
    ),
    "a map for the network with another number": NET.replace("name: net,", "name: line-0,")
    + workload("line-0", more=MAP % '"line-7":["10.7.0.5"]'),
    "a map for a network that the cluster gives": NET + workload(more=MAP % '"cluster-wide":["10.7.0.5"]'),
    "a note": NET + asking('{"name":"net","_why":"because"}'),
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text)


def test_keys_of_a_selection_are_mended() -> None:
    text = NET + asking('{"name":"net","interfaceRequest":"a","Mac":"02:00:00:00:00:05"}')

    after = fix({"a.yaml": text}).texts["a.yaml"]

    assert after == NET + asking('{"name":"net","interface":"a","mac":"02:00:00:00:00:05"}')


@pytest.mark.parametrize("key", ["ips", "default-route"])
def test_one_address_where_a_list_is_expected_gets_its_brackets(key: str) -> None:
    address = "10.1.0.5/24" if key == "ips" else "10.1.0.5"
    text = FREE + asking(f'{{"name":"net","{key}":"{address}"}}')

    after = fix({"a.yaml": text}).texts["a.yaml"]

    assert after == FREE + asking(f'{{"name":"net","{key}":["{address}"]}}')


def test_a_namespace_in_a_name_gets_a_key_of_its_own() -> None:
    text = NET + asking('{"name":"ns/net","interface":"a"}', namespace="elsewhere")
    both = NET + asking('{"name":"ns/net","namespace":"ns"}')

    assert fix({"a.yaml": text}).texts["a.yaml"] == NET + asking(
        '{"namespace":"ns","name":"net","interface":"a"}', namespace="elsewhere"
    )
    assert fix({"a.yaml": both}).texts["a.yaml"] == both


def test_a_map_gets_the_name_of_what_is_selected() -> None:
    text = NET + workload(more=MAP % '"nets@a":["10.1.0.5"]')

    assert fix({"a.yaml": text}).texts["a.yaml"] == NET + workload(more=MAP % '"net@a":["10.1.0.5"]')


def test_an_old_key_beside_the_new_one_is_left() -> None:
    text = NET + asking('{"name":"net","interface":"a","interfaceRequest":"b"}')

    assert fix({"a.yaml": text}).texts["a.yaml"] == text


def test_a_selection_nobody_can_read_is_told_once() -> None:
    require_silent(NET + workload("'[{\"name\"'"), "annotation-syntax")
