"""The `sticky` section and the workload's annotations (docs/identity.md, Configuration; E16)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from homeport.ipam.allocations import Retention
from homeport.ipam.identities import Workload
from homeport.ipam.policies import AddressMap, Policy, map_for, parse_policy, retention_for
from homeport.ipam.ranges import Range, RangeKeys, parse_range
from homeport.ipam.replicas import ReplicaKind
from homeport.model.errors import CniError, InvalidNetConf

WEB = Workload("ns", "StatefulSet", "web")
FOUR = parse_range(
    RangeKeys(range="10.0.0.10-10.0.0.20/24", exclude=("10.0.0.15",)), at="ipam", gateway=ip_address("10.0.0.20")
)
SIX = parse_range(RangeKeys(range="fd00::/64"), at="ipam")


def policy_of(sticky: object, *ranges: Range) -> Policy:
    found = parse_policy(sticky, ranges or (FOUR, SIX))
    assert found is not None
    return found


def texts(address_map: AddressMap | None) -> list[list[str]] | None:
    return None if address_map is None else [[str(a) for a in entry] for entry in address_map.entries]


def test_stickiness_is_on_unless_it_is_turned_off() -> None:
    assert parse_policy(None, [FOUR]) == parse_policy(True, [FOUR]) == parse_policy({}, [FOUR]) == Policy()
    assert parse_policy(False, [FOUR]) is None
    assert Policy().retention == Retention(when_scaled="Retain", when_deleted="Release", retain_for=None)
    assert Policy().order == "ordinal"


def test_the_whole_section() -> None:
    policy = policy_of(
        {
            "order": "lowest",
            "whenScaled": "Release",
            "whenDeleted": "Retain",
            "retainFor": "1d2h3m4s",
            "adopt": "Never",
            "replicas": {"ns/web": ["10.0.0.12", ["10.0.0.11", "fd00::11"]]},
            "kinds": [{"apiGroup": "apps.kruise.io", "kind": "StatefulSet"}],
        }
    )
    assert policy.order == "lowest"
    assert policy.retention == Retention(
        when_scaled="Release",
        when_deleted="Retain",
        retain_for=timedelta(days=1, hours=2, minutes=3, seconds=4),
        adopt="Never",
    )
    assert texts(policy.maps["ns/web"]) == [["10.0.0.12"], ["10.0.0.11", "fd00::11"]]
    assert policy.kinds == (ReplicaKind(api_group="apps.kruise.io", kind="StatefulSet"),)


@pytest.mark.parametrize(
    ("sticky", "message"),
    [
        ("yes", 'key "ipam.sticky": found "yes", expected true, false or an object'),
        (
            {"whenscaled": "Retain"},
            'key "ipam.sticky": found "whenscaled", expected only '
            "whenScaled, whenDeleted, retainFor, adopt, order, replicas, kinds",
        ),
        ({"order": "random"}, 'key "ipam.sticky.order": found "random", expected one of "ordinal", "lowest"'),
        ({"whenScaled": "Keep"}, 'key "ipam.sticky.whenScaled": found "Keep"'),
        ({"retainFor": "3 days"}, 'key "ipam.sticky.retainFor": found "3 days", expected a duration such as 72h'),
        ({"retainFor": ""}, 'key "ipam.sticky.retainFor": found ""'),
        ({"retainFor": "9" * 30 + "d"}, "expected a shorter duration"),
        ({"retainFor": 72}, 'key "ipam.sticky.retainFor": found 72'),
        ({"replicas": {"ns/web": "10.0.0.12"}}, "ipam.sticky.replicas"),
        ({"replicas": {"ns/web": ["10.0.0.12", "x"]}}, '["ns/web"]"[1]: found "x", expected an IP address'),
        ({"replicas": {"ns/web": ["10.0.0.12", "10.0.0.11", "10.0.0.12"]}}, "[2]: found 10.0.0.12, which stands in"),
        ({"replicas": {"ns/web": ["10.0.0.12"], "ns/db": ["10.0.0.12"]}}, "[0]: found 10.0.0.12, which stands in"),
        ({"replicas": {"ns/web": ["10.0.0.99"]}}, "found 10.0.0.99, expected an address of 10.0.0.10-10.0.0.20"),
        ({"replicas": {"ns/web": ["10.0.0.15"]}}, "found 10.0.0.15, which is excluded"),
        ({"replicas": {"ns/web": ["10.0.0.20"]}}, "found 10.0.0.20, which is the gateway"),
        ({"replicas": {"ns/web": [["10.0.0.12", "10.0.0.13"]]}}, "expected one address of a range"),
        ({"kinds": [{"kind": "StatefulSet"}]}, "apiGroup"),
    ],
)
def test_a_wrong_section_is_refused_with_key_and_entry(sticky: Any, message: str) -> None:
    """E16: a duplicate, an address outside the range."""
    with pytest.raises(InvalidNetConf) as refused:
        policy_of(sticky)
    assert message in refused.value.msg


def test_a_map_without_any_range_is_refused() -> None:
    with pytest.raises(InvalidNetConf, match="expected an address of no range at all"):
        parse_policy({"replicas": {"ns/web": ["10.0.0.12"]}}, [])


def test_entries_count_from_the_lowest_ordinal() -> None:
    """E14."""
    address_map = policy_of({"replicas": {"ns/web": ["10.0.0.12", "10.0.0.13"]}}).maps["ns/web"]
    assert address_map.entry(5, start=5, replicas=2) == (ip_address("10.0.0.12"),)
    assert address_map.entry(6, start=5, replicas=2) == (ip_address("10.0.0.13"),)


@pytest.mark.parametrize(("ordinal", "start"), [(2, 0), (4, 5), (7, 5)])
def test_a_replica_without_an_entry_is_refused(ordinal: int, start: int) -> None:
    """E16: a map shorter than the replicas; E14: an ordinal below the first."""
    address_map = policy_of({"replicas": {"ns/web": ["10.0.0.12", "10.0.0.13"]}}).maps["ns/web"]
    with pytest.raises(InvalidNetConf) as refused:
        address_map.entry(ordinal, start=start, replicas=3)
    assert refused.value.msg == (
        f'key "ipam.sticky.replicas["ns/web"]": found 2 entries for 3 replicas from ordinal {start}, '
        f"expected entry {ordinal - start} for ordinal {ordinal}"
    )


def found_map(policy: Policy, annotations: Mapping[str, str], ifname: str = "net1") -> list[list[str]] | None:
    return texts(map_for(policy, WEB, annotations, network="multustest", ifname=ifname, ranges=[FOUR, SIX]))


def test_the_annotation_goes_before_the_network_and_the_interface_before_both() -> None:
    policy = policy_of({"replicas": {"ns/web": ["10.0.0.11"], "ns/web@net2": ["10.0.0.12"]}})
    assert found_map(policy, {}) == [["10.0.0.11"]]
    assert found_map(policy, {}, "net2") == [["10.0.0.12"]]
    annotation = {"homeport.dev/addresses": '{"multustest": ["10.0.0.13"], "multustest@net2": ["10.0.0.14"]}'}
    assert found_map(policy, annotation) == [["10.0.0.13"]]
    assert found_map(policy, annotation, "net2") == [["10.0.0.14"]]
    assert found_map(policy, {"homeport.dev/addresses": '{"another": ["10.0.0.13"]}'}) == [["10.0.0.11"]]
    assert found_map(Policy(), {}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", 'decode annotation "homeport.dev/addresses" of ns/StatefulSet/web: not JSON'),
        ("[]", "expected a JSON object"),
        ('{"multustest": [3]}', "multustest"),
        ('{"multustest": ["10.0.0.99"]}', '"multustest"[0]: found 10.0.0.99'),
        ('{"multustest": ["10.0.0.11", "10.0.0.11"]}', '"multustest"[1]: found 10.0.0.11, which stands in'),
    ],
)
def test_a_wrong_annotation_is_refused_with_workload_and_entry(text: str, message: str) -> None:
    with pytest.raises(CniError) as refused:
        found_map(Policy(), {"homeport.dev/addresses": text})
    assert message in refused.value.msg


def test_an_annotation_replaces_what_it_names_of_the_retention() -> None:
    policy = policy_of({"whenScaled": "Release", "retainFor": "72h"})
    found = retention_for(policy, WEB, {"homeport.dev/retention": '{"whenDeleted": "Retain"}'})
    assert found == Retention(when_scaled="Release", when_deleted="Retain", retain_for=timedelta(hours=72))
    assert retention_for(policy, WEB, {}) == policy.retention
    for text, message in (('{"whenDeleted": "retain"}', "whenDeleted"), ('{"order": "lowest"}', 'found "order"')):
        with pytest.raises(InvalidNetConf, match=message):
            retention_for(policy, WEB, {"homeport.dev/retention": text})
