"""Every rule on small manifests: what fires, exactly where, and what stays silent.

`«` marks in a manifest where a finding must stand; it is taken out before the manifest is checked.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import msgspec
import pytest
from tests.lint_manifests import HEAD, IPAM, IPVLAN, annotation, listed, nad, places, require_firing, workload

from homeport.lint.catalogue import KINDS, SHARED
from homeport.lint.checking import check
from homeport.lint.rules import ALL
from homeport.plugins.registry import MODULES


def ipvlan(ipam: str) -> str:
    return listed(f'{{"type":"ipvlan","ipam":{{"type":"whereabouts",{ipam}}}}}')


def host_local(keys: str) -> str:
    return listed(f'{{"type":"bridge","ipam":{{"type":"host-local",{keys}}}}}')


def static(name: str) -> str:
    """A definition for one pod, with an address that the last digit of its name makes."""
    ipam = f'{{"type":"static","addresses":[{{"address":"10.1.0.1{name[-1]}/24"}}]}}'
    return listed(f'{{"type":"ipvlan","ipam":{ipam}}}').replace("name: net,", f"name: {name},")


SMALL = ipvlan('"range":«"10.1.0.0/29"')
POOL = ipvlan('"range":"10.1.0.0/24"')
MAPPED = '"range":"10.1.0.0/24","gateway":"10.1.0.254","exclude":["10.1.0.9"],"sticky":{"replicas":{"ns/web":[%s]}}'

FIRING = [
    ("yaml-syntax", "a: b«: c\n"),
    ("yaml-syntax", "a: «*b\n"),
    ("yaml-syntax", "a: &x [«*x]\n"),
    ("yaml-syntax", "[" * 64 + "«[\n"),
    ("yaml-syntax", "a: «\x00\n"),
    ("manifest-kind", "apiVersion: k8s.cni.cncf.io/v1\nkind: «NetworkAttachmentDefinitions\nspec: {config: '{}'}\n"),
    ("manifest-kind", POOL.replace("k8s.cni.cncf.io/v1", "«k8s.cni.cncf.io/v1beta1")),
    ("config-not-string", HEAD + f'  config: «{{"cniVersion": 0.4.0, "plugins": [{IPVLAN}]}}\n'),
    ("config-not-string", HEAD + "  config: «5\n"),
    ("config-not-json", listed(IPVLAN).replace("}]}", "}«,]}")),
    ("config-not-json", nad('«{"cniVersion":"0.4.0"')),
    ("config-not-json", nad('{"cniVersion":"0.4.0","plugins":[' + IPVLAN + "]}«}")),
    ("config-not-json", nad(f'{{"cniVersion":"0.4.0"« "plugins":[{IPVLAN}]}}')),
    ("config-not-json", nad(f'{{«\'cniVersion\':"0.4.0","plugins":[{IPVLAN}]}}')),
    ("config-not-json", nad(f'{{"cniVersion":"0.4.0","disableCheck":«True,"plugins":[{IPVLAN}]}}')),
    ("config-not-json", nad(f'{{"cniVersion":"0.4.0","plugins":[{IPVLAN} «/* why */]}}')),
    ("config-not-json", nad('{"cniVersion":"0.4.0",«plugins:[]}')),
    ("config-not-json", nad('{"cniVersion":«0.4.0}')),
    ("config-not-json", nad('{"cniVersion":"0.4.0","name":«"a')),
    ("duplicate-key", listed(f'{{"type":"ipvlan",«"master":"eth0","master":"eth1",{IPAM}}}')),
    ("duplicate-key", POOL.replace("kind:", "«kind: Pod\nkind:")),
    ("config-shape", nad("«[]")),
    ("config-shape", nad('«{"cniVersion":"0.4.0"}')),
    ("config-shape", nad('{"cniVersion":"0.4.0","plugins":«[]}')),
    ("config-shape", listed(IPVLAN, "«5")),
    ("network-name", POOL.replace("name: net,", "name: «my.net,")),
    ("network-name", POOL.replace("name: net,", "name: «Net,")),
    ("network-name", POOL.replace("name: net,", "name: «-net,")),
    ("network-name", POOL.replace("name: net,", "name: «" + "n" * 64 + ",")),
    ("network-name", POOL.replace("name: net, ", "").replace("kind: Net", "kind: «Net")),
    ("config-name", nad(f'{{"cniVersion":"0.4.0","name":«"a/b","plugins":[{IPVLAN}]}}')),
    ("cni-version-misplaced", nad(f'{{"plugins":[{{«"cniVersion":"0.4.0","type":"ipvlan",{IPAM}}}]}}')),
    (
        "cni-version-misplaced",
        nad(
            '{"plugins":[{"type":"ipvlan","ipam":{«"cniVersion":"0.4.0","type":"whereabouts","range":"10.1.0.0/24"}}]}'
        ),
    ),
    ("cni-version-repeated", listed(f'{{"type":"ipvlan",«"cniVersion":"0.3.1",{IPAM}}}')),
    ("cni-version-missing", nad(f'{{«"plugins":[{IPVLAN}]}}')),
    ("cni-version-missing", nad(f'{{«"type":"ipvlan",{IPAM}}}')),
    ("cni-version-missing", nad(f'{{«"cniVersion":"","plugins":[{IPVLAN}]}}')),
    ("cni-version-unknown", listed(IPVLAN, version="0.5.0").replace('"0.5.0"', '«"0.5.0"')),
    ("cni-version-unknown", nad(f'{{"cniVersion":«1.0,"plugins":[{IPVLAN}]}}')),
    ("cni-version-too-old", listed(IPVLAN, '{"type":"sbr"}', version="0.2.0").replace('"0.2.0"', '«"0.2.0"')),
    ("cni-version-too-old", listed(IPVLAN, '{"type":"firewall"}', version="0.3.1").replace('"0.3.1"', '«"0.3.1"')),
    ("plugin-order", listed('{"type":«"sbr"}', IPVLAN)),
    ("plugin-order", listed('{"type":«"tuning"}', IPVLAN, '{"type":"sbr"}')),
    ("plugin-alone", listed('{"type":«"sbr"}')),
    ("plugin-alone", nad('{"cniVersion":"0.4.0","type":«"tuning"}')),
    ("misspelt-plugin", listed('{"type":«"ipvaln",' + IPAM + "}")),
    ("misspelt-plugin", ipvlan('"range":"10.1.0.0/24"').replace('"whereabouts"', '«"where-abouts"')),
    ("unknown-plugin", listed('{"type":«"our-own-thing"}')),
    ("plugin-role", listed(IPVLAN, '{"type":«"whereabouts","range":"10.1.0.0/24"}')),
    ("plugin-role", listed('{"type":"ipvlan","ipam":{"type":«"bridge"}}')),
    ("misspelt-key", ipvlan('"range":"10.1.0.0/24",«"rangeStart":"10.1.0.5"')),
    ("misspelt-key", ipvlan('"range":"10.1.0.0/24","sticky":{«"whenscaled":"Retain"}')),
    ("misspelt-key", listed(f'{{"type":"ipvlan",«"Master":"eth1",{IPAM}}}')),
    ("misspelt-key", listed(IPVLAN).replace('"plugins"', '«"disablecheck":true,"plugins"')),
    ("misspelt-key", POOL + workload(more=annotation("retention", '{«"whendeleted":"Retain"}'))),
    ("unknown-key", listed(f'{{"type":"ipvlan",«"colour":"red",{IPAM}}}')),
    ("missing-key", listed('{"type":«"ipvlan"}')),
    ("missing-key", listed('{"type":«"vlan","vlanId":5,' + IPAM + "}")),
    ("missing-key", listed(IPVLAN, '«{"name":"x"}')),
    ("missing-key", listed('{"type":"ipvlan","ipam":«{"range":"10.1.0.0/24"}}')),
    ("missing-key", listed('{"type":«"host-device"}')),
    ("wrong-type", listed('{"type":"macvlan","mtu":«"1500"}')),
    ("wrong-type", listed('{"type":"bridge","isGateway":«"true"}')),
    ("wrong-type", ipvlan('"range":"10.1.0.0/24","exclude":«"10.1.0.5"')),
    ("bad-value", listed(f'{{"type":"ipvlan","mode":«"L2",{IPAM}}}')),
    ("bad-value", listed('{"type":"bridge","vlan":«4095}')),
    ("bad-value", listed('{"type":"macvlan","mtu":«1.5}')),
    ("bad-value", ipvlan('"range":"10.1.0.0/24","sticky":{"whenScaled":«"Delete"}')),
    ("address-syntax", ipvlan('"range":«"10.1.0.0/33"')),
    ("address-syntax", ipvlan('"range":«"10.1.0.9-10.1.0.2/24"')),
    ("address-syntax", ipvlan('"range":"10.1.0.0/24","range_start":«"10.1.0"')),
    ("address-syntax", ipvlan('"range":"10.1.0.0/24","exclude":["10.1.0.5",«"ten"]')),
    ("address-syntax", ipvlan('"range":"10.1.0.0/24","gateway":«"10.1.0.1/24"')),
    ("address-syntax", ipvlan('"ipRanges":[{"range":"10.1.0.0/24"},{"range":«"fd00::/129"}]')),
    (
        "address-syntax",
        listed('{"type":"ipvlan","ipam":{"type":"static","addresses":[{"address":«"10.1.0.5"}]}}'),
    ),
    ("address-syntax", host_local('"ranges":[[{"subnet":«"10.1.0.0/24/24"}]]')),
    ("no-range", listed('{"type":"ipvlan","ipam":{"type":«"whereabouts","subnet":"10.1.0.0/24"}}')),
    ("missing-key", host_local('"dataDir":"/x"').replace('"host-local"', '«"host-local"')),
    ("wrong-type", host_local('"ranges":[«{"subnet":"10.1.0.0/24"}]')),
    ("wrong-type", ipvlan('"range":"10.1.0.0/24","exclude":[«5]')),
    ("range-reversed", ipvlan('"range":"10.1.0.0/24","range_start":"10.1.0.20","range_end":«"10.1.0.10"')),
    ("range-bounds", ipvlan('"range":"10.1.0.0/24","range_start":«"10.2.0.20"')),
    ("range-bounds", ipvlan('"range":"10.1.0.0/24","range_end":«"10.1.0.255"')),
    ("range-bounds", host_local('"subnet":"10.1.0.0/24","rangeEnd":«"10.1.1.5"')),
    ("exclude-outside", ipvlan('"range":"10.1.0.0/24","exclude":[«"10.2.0.0/28"]')),
    ("range-host-bits", ipvlan('"range":«"10.9.0.77/29"')),
    ("gateway-outside", ipvlan('"range":"10.1.0.0/24","gateway":«"10.2.0.1"')),
    ("gateway-in-range", ipvlan('"range":"10.1.0.0/24","gateway":«"10.1.0.1"')),
    ("annotation-syntax", POOL + workload("'«Net'")),
    ("annotation-syntax", POOL + workload('\'«[{"name": "net"}\'')),
    ("annotation-syntax", POOL + workload(more=annotation("addresses", "«[]"))),
    ("annotation-syntax", POOL + workload(more=annotation("retention", '{"whenScaled":"Retain"«,}'))),
    ("annotation-syntax", POOL + workload("«net{ordinal}", kind="Deployment")),
    ("annotation-syntax", POOL + workload("«net{ordinl}")),
    ("annotation-syntax", POOL + workload("«net{ordinal-1}")),
    ("annotation-syntax", POOL + workload("«net@a-longer-name-{ordinal+8}", replicas=3)),
    (
        "annotation-syntax",
        POOL + workload('\'[{"name": "net", "ips": [«"10.1.0.{ordinal+254}/24"]}]\'', replicas=3),
    ),
    ("annotation-syntax", POOL + workload(more="        v1.multus-cni.io/default-network: «net,net\n")),
    ("unknown-network", static("vlan0") + workload("«vlan{ordinal}", replicas=3)),
    ("unknown-network", static("vlan0") + workload('\'[{"name": "«vlan{ordinal}"}]\'', replicas=3)),
    ("pool-too-small", SMALL + workload("net@lan{ordinal}", replicas=7)),
    ("unhonoured-request", POOL + workload('\'[{"name":"«net","mac":"02:00:00:00:00:01"}]\'')),
    (
        "unhonoured-request",
        static("n0")
        + "---\n"
        + static("n1")
        + workload('\'[{"name":"«n{ordinal}","portMappings":[{"hostPort":80}]}]\'', replicas=1),
    ),
    ("unknown-network", POOL + workload("net,«other")),
    ("unknown-network", POOL + workload("«net", namespace="elsewhere")),
    ("unknown-network", workload("«net")),
    ("pool-too-small", SMALL + workload(replicas=7)),
    (
        "pool-too-small",
        ipvlan('"range":"10.1.0.0/24","range_start":"10.1.0.5","range_end":«"10.1.0.6"') + workload(replicas=3),
    ),
    (
        "pool-too-small",
        ipvlan('"range":«"10.1.0.0/29","gateway":"10.1.0.1","exclude":["10.1.0.1"]') + workload(replicas=6),
    ),
    ("pool-too-small", SMALL + workload("net,net", replicas=4)),
    ("pool-too-small", SMALL + workload(replicas=4) + workload(replicas=4, kind="Deployment")),
    ("pool-too-small", ipvlan('"ipRanges":[{"range":"10.1.0.0/24"},{"range":«"fd00::/126"}]') + workload(replicas=3)),
    (
        "pool-too-small",
        listed('{"type":"ipvlan","ipam":{"type":"static","addresses":«[{"address":"10.1.0.5/24"}]}}')
        + workload(replicas=2),
    ),
    ("sticky-map", ipvlan(MAPPED % '"10.1.0.5",«"10.2.0.5"')),
    ("sticky-map", ipvlan(MAPPED % '"10.1.0.5",«"10.1.0.9"')),
    ("sticky-map", ipvlan(MAPPED % '"10.1.0.5",«"10.1.0.254"')),
    ("sticky-map", ipvlan(MAPPED % '"10.1.0.5",«"10.1.0.5"')),
    ("sticky-map", ipvlan(MAPPED % '"10.1.0.5",«"ten"')),
    (
        "map-too-short",
        ipvlan('"range":"10.1.0.0/24","sticky":{"replicas":{"ns/web":«["10.1.0.5"]}}') + workload(replicas=2),
    ),
    ("map-too-short", POOL + workload(replicas=2, more=annotation("addresses", '{"net":«["10.1.0.5"]}'))),
    ("annotated-map", POOL + workload(more=annotation("addresses", '{"net":["10.1.0.5",«"10.2.0.5"]}'))),
    ("annotated-map", POOL + workload(more=annotation("addresses", '{"net":["10.1.0.5",«"10.1.0.5"]}'))),
    ("bad-duration", ipvlan('"range":"10.1.0.0/24","sticky":{"retainFor":«"3 days"}')),
    ("bad-duration", POOL + workload(more=annotation("retention", '{"retainFor":«"forever"}'))),
]

SILENT = {
    "a list": listed(IPVLAN, '{"type":"sbr","table":9}'),
    "a single configuration": nad(f'{{"cniVersion":"1.0.0","type":"ipvlan",{IPAM}}}'),
    "no configuration: the node's own file of that name": HEAD.replace("spec:\n", ""),
    "an empty configuration": HEAD + "  config: ''\n",
    "ipvlan chained behind another": listed('{"type":"bridge"}', '{"type":"ipvlan"}'),
    "a foreign plugin before a chained one": listed(
        '{"type":"calico"}', '{"type":"portmap","capabilities":{"portMappings":true}}'
    ),
    "notes and extensions": listed(f'{{"type":"ipvlan","_note":"x","//":"y","comment":"z","cni.dev/x":1,{IPAM}}}'),
    "null keys": listed(f'{{"type":"ipvlan","mtu":null,"master":null,{IPAM}}}'),
    "cniVersions alone": nad(f'{{"cniVersions":["0.4.0","1.0.0"],"plugins":[{IPVLAN}]}}'),
    "flags as words": nad(f'{{"cniVersion":"1.0.0","disableCheck":"true","plugins":[{IPVLAN}]}}'),
    "keys of a foreign plugin": listed('{"type":"sriov","colour":"red","vlan":"any"}'),
    "sticky off": ipvlan('"range":"10.1.0.0/24","sticky":false'),
    "the whole of sticky": ipvlan(
        '"range":"10.1.0.0/24","sticky":{"order":"ordinal","whenScaled":"Retain","whenDeleted":"Release",'
        '"retainFor":"1h30m","adopt":"SameName","replicas":{"ns/web":["10.1.0.5","10.1.0.6"]}}'
    )
    + workload(replicas=2),
    "range as first-last": ipvlan('"range":"10.1.0.5-10.1.0.9/24"'),
    "a range of two": ipvlan('"range":"10.1.0.4/31"') + workload(replicas=2),
    "two families": ipvlan('"ipRanges":[{"range":"10.1.0.0/24"},{"range":"fd00::/64"}],"gateway":"fd00::"'),
    "a range with blanks in it": ipvlan('"range":"10.1.0.5 - 10.1.0.9 / 24"'),
    "a network with blanks in it": ipvlan('"range":"10.1.0. 0/24"'),
    "gateway excluded": ipvlan('"range":"10.1.0.0/24","gateway":"10.1.0.1","exclude":["10.1.0.1/32"]'),
    "host-local": host_local('"ranges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.5"}],[{"subnet":"fd00::/64"}]]'),
    "host-local is not counted": host_local('"subnet":"10.1.0.0/30"') + workload(replicas=9),
    "just enough addresses": ipvlan('"range":"10.1.0.0/29"') + workload(replicas=6),
    "static addresses asked for one by one": listed('{"type":"ipvlan","ipam":{"type":"static"}}')
    + workload('\'[{"name":"net","ips":["10.1.0.5/24"]}]\'', replicas=1),
    "a static definition a replica": static("vlan5")
    + "---\n"
    + static("vlan6")
    + workload('"vlan{ordinal}"', replicas=2).replace("  replicas: 2\n", "  replicas: 2\n  ordinals: {start: 5}\n"),
    "requests that plugins take": listed(
        '{"type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}',
        '{"type":"portmap","capabilities":{"portMappings":true}}',
    )
    + workload('\'[{"name":"net","ips":["10.1.0.5"],"mac":"02:00:00:00:00:01","portMappings":[{"hostPort":80}]}]\''),
    "a template at no replicas": static("vlan0") + workload("vlan{ordinal}", replicas=0),
    "addresses by ordinal": listed('{"type":"macvlan","ipam":{"type":"static"}}')
    + workload('\'[{"name":"net","ips":["10.1.0.{ordinal+5}/24"],"mac":"02:00:00:00:00:{ordinal}"}]\'', replicas=20),
    "a namespace left out matches": POOL.replace(", namespace: ns", "") + workload(namespace="other"),
    "a workload without networks": "kind: Deployment\nmetadata: {name: x}\nspec: {replicas: 3}\n",
    "another resource of the same group": "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\n",
    "something else": "kind: ConfigMap\ndata: {range: nonsense}\n",
    "nothing": "# only a comment\n---\n...\n",
    "directives": "%YAML 1.2\n---\n" + POOL,
    "an annotated map": POOL + workload(replicas=1, more=annotation("addresses", '{"net@net1":[["10.1.0.5"]]}')),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    assert places(text) == []


def test_every_rule_has_a_firing_case() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_lint_*.py"))
    assert [check.rule.id for check in ALL if f'"{check.rule.id}"' not in tests] == []


def test_rules_have_distinct_ids_and_words_of_their_own() -> None:
    rules = [check.rule for check in ALL]
    assert len({r.id for r in rules}) == len(rules)
    assert all(r.summary.endswith(".") and "\n" not in r.summary for r in rules)


@pytest.mark.parametrize("plugin_type", sorted(MODULES))
def test_the_catalogue_knows_every_key_that_our_plugins_read(plugin_type: str) -> None:
    kind, module = KINDS[plugin_type], import_module(MODULES[plugin_type])
    netconfs = import_module(f"{module.__name__}.netconfs") if hasattr(module, "__path__") else module
    read = {field.encode_name for field in msgspec.structs.fields(getattr(netconfs, "_Keys", msgspec.Struct))}
    assert read <= {*(kind.keys or {}), *SHARED}


def test_one_mistake_does_not_hide_the_next() -> None:
    text = nad('{\'cniVersion\': "0.4.0","plugins":[{"type":"sbr"},{"type":"ipvlan","mode":"L2",}]}')
    assert [rule for rule, _, _ in places(text)] == [
        "config-not-json",
        "plugin-order",
        "bad-value",
        "config-not-json",
    ]


def test_a_broken_document_does_not_hide_the_others() -> None:
    text = "a: b: c\n---\n" + listed('{"type":"sbr"}') + "---\n{{ .Values.x }: y\n"
    assert [rule for rule, _, _ in places(text)] == ["yaml-syntax", "plugin-alone", "yaml-syntax"]


def test_a_template_is_told_to_be_rendered_first() -> None:
    (finding,) = check({"a.yaml": "a: {{ .x }}: b\n"}).findings
    assert "helm template" in finding.right


@pytest.mark.parametrize("kind", ["List", "NetworkAttachmentDefinitionList"])
def test_the_items_of_a_list_are_looked_at(kind: str) -> None:
    item = listed('{"type":"sbr"}').removeprefix("---\n").replace("\n", "\n    ")
    text = f"kind: {kind}\nitems:\n  - {item}"
    assert [rule for rule, _, _ in places(text)] == ["plugin-alone"]


def test_manifests_in_json_and_plain_configuration_files() -> None:
    config = '{"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "sbr"}]}'
    manifest = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "n"}}
    text = json.dumps({**manifest, "spec": {"config": config}})
    report = check({"a.json": text, "10-n.conflist": config, "b.yaml": config})
    assert [(f.file, f.rule) for f in report.findings] == [
        ("a.json", "plugin-alone"),
        ("10-n.conflist", "plugin-alone"),
        ("b.yaml", "plugin-alone"),
    ]
    assert text[report.findings[0].column - 1 :].startswith('\\"sbr')


def test_a_configuration_file_needs_a_name() -> None:
    report = check({"10-n.conflist": '{"cniVersion": "0.4.0", "plugins": [{"type": "bridge"}]}'})
    assert [f.rule for f in report.findings] == ["missing-key"]


def test_files_are_looked_at_together() -> None:
    network, pods = ipvlan('"range":"10.1.0.0/30"'), workload(replicas=3)
    (finding,) = check({"pods.yaml": pods, "network.yaml": network}).findings
    assert (finding.file, finding.rule) == ("network.yaml", "pool-too-small")
    assert "2 usable addresses" in finding.found
    assert 'StatefulSet "web" asks for 3' in finding.found


def test_one_text_named_by_two_manifests_is_judged_once() -> None:
    text = HEAD + '  config: &c \'{"cniVersion":"0.4.0","plugins":[{"type":"sbr"}]}\'\n'
    both = (
        "kind: List\nitems:\n  - "
        + text.replace("\n", "\n    ").rstrip()
        + "\n  - "
        + HEAD.replace("name: net", "name: two").replace("\n", "\n    ").rstrip()
        + "\n      config: *c\n"
    )
    assert [rule for rule, _, _ in places(both)] == ["plugin-alone"]


def test_the_nearest_name_is_offered() -> None:
    (finding,) = (f for f in check({"a": listed('{"type":"macvaln"}')}).findings)
    assert finding.right == 'did you mean "macvlan"?'


def test_replicas_without_a_network_are_counted_at_the_template() -> None:
    (finding,) = check({"a.yaml": static("vlan0") + workload("vlan{ordinal}", replicas=4)}).findings
    assert finding.found == 'network "ns/vlan1" of replica 1, and those of 2 more, are not in these files'


def test_a_template_elsewhere_is_told_where_it_belongs() -> None:
    (finding,) = check({"a.yaml": POOL + workload("net{ordinal}", kind="Deployment")}).findings
    assert "only for replicas, such as the pods of a StatefulSet" in finding.right + finding.found
