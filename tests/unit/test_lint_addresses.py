"""The rules about one network's own addresses: what is left to hand out, and by whom."""

from __future__ import annotations

import pytest
from tests.lint_manifests import host_local, listed, plugin, require_firing, require_silent, static, whereabouts

ROUTED = '"range":"10.1.0.0/24","routes":[%s]'


def net(ipam: str, kind: str = "macvlan") -> str:
    return listed(plugin(kind, ipam))


def pool(keys: str) -> str:
    return net(whereabouts(keys))


def local(keys: str) -> str:
    return net(host_local(keys), "bridge")


FIRING = [
    ("range-empty", pool('"range":«"10.1.0.0/29","exclude":["10.1.0.0/29"]')),
    (
        "range-empty",
        pool('"range":"10.1.0.0/24","range_start":"10.1.0.9","range_end":«"10.1.0.9","gateway":"10.1.0.9"'),
    ),
    ("range-empty", pool('"ipRanges":[{"range":"10.1.0.0/24"},{"range":«"fd00::/126","exclude":["fd00::/64"]}]')),
    ("range-empty", local('"subnet":"10.1.0.0/24","rangeStart":"10.1.0.1","rangeEnd":«"10.1.0.1"')),
    ("range-too-narrow", local('"subnet":«"10.1.0.0/31"')),
    ("range-too-narrow", local('"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":«"fd00::/127"}]]')),
    ("range-set", local('"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":«"10.1.0.128/25"}]]')),
    ("range-set", local('"subnet":"10.1.0.0/24","ranges":[[{"subnet":«"10.1.0.0/24"}]]')),
    ("range-set", local('"ranges":[[{"subnet":"10.1.0.0/24"},{"subnet":«"fd00::/64"}]]')),
    ("dhcp-shared-mac", net('{"type":«"dhcp"}', "ipvlan")),
    ("gateway-outside", net('{"type":"static","addresses":[{"address":"10.1.0.5/24","gateway":«"10.1.1.1"}]}')),
    ("gateway-outside", net('{"type":"static","addresses":[{"address":"10.1.0.5/24","gateway":«"fd00::1"}]}')),
    ("address-syntax", pool(ROUTED % '{"dst":«"everywhere"}')),
    ("address-syntax", pool(ROUTED % '{"dst":"10.9.0.0/16","gw":«"10.1.0.1/24"}')),
    ("address-syntax", pool(ROUTED % '{"dst":«"10.9.0.1"}')),
]

SILENT = {
    "one address left": pool('"range":"10.1.0.0/30","exclude":["10.1.0.1"]'),
    "host-local's own gateway and one more": local('"subnet":"10.1.0.0/30"'),
    "a narrow range of whereabouts": pool('"range":"10.1.0.4/31"'),
    "ranges apart in one set and in two": local(
        '"ranges":[[{"subnet":"10.1.0.0/24"},{"subnet":"10.2.0.0/24"}],[{"subnet":"fd00::/64"}]]'
    ),
    "host-local to the subnet's last address": local('"subnet":"10.1.0.0/24","rangeEnd":"10.1.0.255"'),
    "DHCP for macvlan": net('{"type":"dhcp"}'),
    "a static address and its gateway": net(static("10.1.0.5/24").replace("}]", ',"gateway":"10.1.0.1"}]')),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text)
