"""Rules about keys in the wrong place, values the kernel refuses, and what earlier versions took."""

from __future__ import annotations

import pytest
from tests.lint_manifests import HEAD, IPAM, IPVLAN, listed, nad, places, require_firing, require_silent, workload

from homeport.lint.fixing import fix

MACVLAN = f'{{"type":"macvlan",{IPAM}}}'
TUNING = '{"type":"tuning","sysctl":{%s}}'


def tuned(sysctl: str) -> str:
    return listed(IPVLAN, TUNING % sysctl)


def old(keys: str) -> str:
    return listed(f'{{"type":"macvlan","ipam":{{"type":"whereabouts","range":"10.1.0.0/24",{keys}}}}}')


CONFIG = f'\'{{"cniVersion":"0.4.0","plugins":[{IPVLAN}]}}\''

FIRING = [
    ("misplaced-key", listed('{"type":"bridge",«"gateway":"10.1.0.1",' + IPAM + "}")),
    ("misplaced-key", listed('{"type":"bridge",«"range":"10.1.0.0/24","ipam":{"type":"whereabouts","routes":[]}}')),
    (
        "misplaced-key",
        listed('{"type":"macvlan","ipam":{"type":"host-local","subnet":"10.1.0.0/24",«"master":"eth1"}}'),
    ),
    ("misplaced-key", listed('{"type":"macvlan","ipam":{"type":"dhcp",«"capabilities":{"ips":true}}}')),
    ("misplaced-key", listed(f'{{"type":"ipvlan",«"sysctl":{{}},{IPAM}}}', '{"type":"tuning"}')),
    ("misplaced-key", nad(f'{{"cniVersion":"0.4.0",«"master":"eth1","plugins":[{IPVLAN}]}}')),
    ("misplaced-key", nad('{"cniVersion":"0.4.0",«"ipam":{},"plugins":[{"type":"bridge"}]}')),
    ("misspelt-key", listed('{"type":"macvlan","ipam":{"type":"whereabouts",«"subnet":"10.1.0.0/24"}}')),
    ("misspelt-key", listed('{"type":"ipvlan",«"parent":"eth1",' + IPAM + "}")),
    ("misspelt-key", listed('{"type":"vlan","master":"eth1",«"vlan":5,' + IPAM + "}")),
    ("plugin-recursion", nad('{"cniVersion":"0.4.0","type":«"multus"}')),
    ("plugin-recursion", listed('{"type":«"homeport"}')),
    ("vlan-without-id", listed(f'{{"type":«"vlan","master":"eth1",{IPAM}}}')),
    ("vlan-without-id", listed(f'{{"type":"vlan","master":"eth1","vlanId":«0,{IPAM}}}')),
    ("portmap-unreachable", listed(IPVLAN, '{"type":«"portmap"}')),
    ("portmap-unreachable", listed(MACVLAN, '{"type":"tuning"}', '{"type":«"portmap"}')),
    ("cni-version-old", nad('{"cniVersion":«"0.2.0","type":"bridge"}')),
    ("cni-version-old", nad('{"cniVersion":«"0.1.0","type":"unheard-of"}')),
    ("cni-version-missing", nad('{«"version":"0.3.1","type":"bridge"}')),
    ("cni-version-missing", nad('{«"version":"0.3.1","type":"sriov"}')),
    ("misspelt-key", nad('{«"version":"7","cniVersion":"0.4.0","type":"bridge"}')),
    ("config-misplaced", HEAD.replace("spec:\n", f"spec: {{}}\n«config: {CONFIG}\n")),
    ("config-misplaced", HEAD + f"  «Config: {CONFIG}\n"),
    ("config-misplaced", HEAD.replace("spec:\n", f"data:\n  «config: {CONFIG}\n")),
    ("config-misplaced", HEAD + '  «cniConfig: {"type":"bridge"}\n'),
    ("link-name", listed('{"type":"bridge","bridge":«"a-bridge-of-mine"}')),
    ("link-name", listed('{"type":"bridge","bridge":«"br 0"}')),
    ("link-name", listed(f'{{"type":"macvlan","master":«"eth0:1",{IPAM}}}')),
    ("link-name", listed(IPVLAN, '{"type":"vrf","vrfname":«"a-table-of-its-own"}')),
    ("link-name", listed('{"type":"host-device","device":«"a/b"}')),
    ("mac-address", listed(f'{{"type":"macvlan","mac":«"02:00:00:00:05",{IPAM}}}')),
    ("mac-address", listed(f'{{"type":"macvlan","mac":«"01:00:5e:00:00:05",{IPAM}}}')),
    ("mac-address", listed(IPVLAN, '{"type":"tuning","mac":«"00:00:00:00:00:00"}')),
    ("mac-address", listed('{"type":"host-device","hwaddr":«"020000000005"}')),
    ("sysctl", tuned('"net.core.somaxconn":«500')),
    ("sysctl", tuned('"net.ipv4.conf.all.arp_filter":«true')),
    ("sysctl", tuned('«"kernel.shmmax":"5"')),
    ("manifest-kind", "apiVersion: «kubernetes.com/v1\nkind: Network\nmetadata: {name: a}\nplugin: bridge\n"),
    ("removed-key", old('«"etcd_host":"10.2.0.1:2379"')),
    ("removed-key", old('«"datastore":"etcd"')),
]


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


SILENT = {
    "a key where it belongs": listed(
        '{"type":"macvlan","master":"eth1","mtu":1400,"ipam":{"type":"whereabouts","range":"10.1.0.0/24"}}',
        '{"type":"tuning","mtu":1300,"mac":"02:00:00:00:00:05"}',
    ),
    "a plugin whose keys are not ours": listed(f'{{"type":"sriov","range":"x","master":"y",{IPAM}}}'),
    "a meta-plugin with delegates": nad('{"cniVersion":"0.4.0","type":"multus","delegates":[{"type":"flannel"}]}'),
    "a VLAN": listed(f'{{"type":"vlan","master":"eth1","vlanId":5,{IPAM}}}'),
    "portmap that is reached": listed('{"type":"bridge","ipam":{"type":"dhcp"}}', '{"type":"portmap"}'),
    "another Network": "apiVersion: config.openshift.io/v1\nkind: Network\n",
    "no spec at all": HEAD.replace("spec:\n", ""),
    "an empty spec": HEAD.replace("spec:\n", "spec: {}\n"),
    "a spec with something else": HEAD + "  description: about { and }\n",
    "links": listed('{"type":"bridge","bridge":"abcdefghijklmno"}')
    + listed(f'{{"type":"macvlan","master":"eth0.100",{IPAM}}}', name="b").replace("10.1.", "10.2."),
    "a link by its longer name": listed(f'{{"type":"macvlan","master":"enp4s0f1np1-of-the-second-card",{IPAM}}}'),
    "no master": listed(f'{{"type":"macvlan","master":"",{IPAM}}}'),
    "MACs": listed(f'{{"type":"macvlan","mac":"02-00-00-00-00-05",{IPAM}}}', '{"type":"tuning","mac":""}'),
    "a MAC of a plugin that is not ours": listed(f'{{"type":"sriov","mac":"anything",{IPAM}}}'),
    "sysctls": tuned('"net.core.somaxconn":"500","net/ipv4/conf/eth0.100/arp_filter":"1"'),
    "the datastore there is": old('"datastore":"kubernetes"'),
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text)


FIXED = {
    "into ipam": (
        listed('{"type":"bridge","range":"10.1.0.0/24","ipam":{"type":"whereabouts"}}'),
        listed('{"type":"bridge","ipam":{"range":"10.1.0.0/24","type":"whereabouts"}}'),
    ),
    "out of ipam": (
        listed('{ "type": "macvlan", "ipam": { "type": "dhcp", "master": "eth1" } }'),
        listed('{ "master": "eth1", "type": "macvlan", "ipam": { "type": "dhcp" } }'),
    ),
    "several": (
        listed('{"type":"bridge","gateway":"10.1.0.1","range":"10.1.0.0/24","ipam":{"type":"whereabouts"}}'),
        listed('{"type":"bridge","ipam":{"range":"10.1.0.0/24","gateway":"10.1.0.1","type":"whereabouts"}}'),
    ),
    "into the one plugin": (
        nad('{"cniVersion":"0.4.0","bridge":"br0","plugins":[{"type":"bridge"},{"type":"tuning"}]}'),
        nad('{"cniVersion":"0.4.0","plugins":[{"bridge":"br0","type":"bridge"},{"type":"tuning"}]}'),
    ),
    "capitals": (HEAD + f"  Config: {CONFIG}\n", HEAD + f"  config: {CONFIG}\n"),
    "a version by another name": (
        nad('{"version":"0.3.1","type":"bridge"}'),
        nad('{"cniVersion":"0.3.1","type":"bridge"}'),
    ),
    "a sysctl": (tuned('"net.core.somaxconn":500'), tuned('"net.core.somaxconn":"500"')),
    "etcd": (
        old('"datastore":"etcd","etcd_host":"a","log_level":"debug","etcd_password":"b"'),
        old('"log_level":"debug"'),
    ),
    "another plugin's word": (
        listed('{"type":"macvlan","ipam":{"type":"whereabouts","subnet":"10.1.0.0/24"}}'),
        listed('{"type":"macvlan","ipam":{"type":"whereabouts","range":"10.1.0.0/24"}}'),
    ),
}


@pytest.mark.parametrize(("before", "after"), FIXED.values(), ids=FIXED.keys())
def test_what_has_one_meaning_is_fixed(before: str, after: str) -> None:
    assert fix({"a.yaml": before}).texts["a.yaml"] == after
    assert [p for p in places(after) if p[0] not in ("no-range", "gateway-in-range")] == []


UNFIXED = {
    "there already": listed(
        '{"type":"bridge","gateway":"10.1.0.1","ipam":{"type":"whereabouts","range":"10.1.0.0/24","gateway":"10.1.0.2"}}'
    ),
    "two may be meant": nad('{"cniVersion":"0.4.0","mtu":1400,"plugins":[{"type":"bridge"},{"type":"tuning"}]}'),
    "another name": HEAD + f"  cniConfig: {CONFIG}\n",
    "a boolean sysctl": tuned('"net.ipv4.ip_forward":true'),
}


@pytest.mark.parametrize("text", UNFIXED.values(), ids=UNFIXED.keys())
def test_what_may_mean_two_things_is_left(text: str) -> None:
    assert places(text)
    assert fix({"a.yaml": text}).texts["a.yaml"] == text


def test_a_network_that_portmap_serves_may_be_selected() -> None:
    require_silent(
        listed('{"type":"ptp","ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}', '{"type":"portmap"}') + workload()
    )


def test_half_a_character_is_refused_and_not_stumbled_over() -> None:
    odd = listed('{"type":"br\\ud800","capabilities":{"mac":true}}') + workload(
        '\'[{"name":"net","mac":"02:00:00:00:00:05"}]\''
    )

    assert [rule for rule, _, _ in places(odd)] == ["unknown-plugin"]
