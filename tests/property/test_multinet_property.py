"""Whatever a person, Multus or the API server writes: a value or an error of ours; what we write comes back whole."""

from __future__ import annotations

import base64
import contextlib
import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from homeport.cni import conflists, invocations
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf
from homeport.multinet import default_routes, requests, scratch, selections, settings, templates
from homeport.multinet.delegates import Delegate
from homeport.multinet.requests import ResolvedNetwork
from homeport.multinet.selections import Bandwidth, NetworkSelection, PortMapping

unhurried = hypothesis_settings(deadline=None)  # the machine may be busy; pytest's own time limit holds

numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)


def near_miss(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the right keys, whose values are right or anything at all."""
    return st.fixed_dictionaries({}, optional={key: right | json_values for key, right in known.items()})


# --- annotations ------------------------------------------------------------------------------------------------

tokens = st.builds(
    lambda sign, by: "{ordinal}" if not sign else f"{{ordinal{sign}{by}}}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**9 - 1),
)
pieces = st.sampled_from(["vlan", "a", "10.0.0.", "/24", "02:00:00:00:00:", "fd00::", "@", "/", ",", "{", "}", "é"])
templated = st.lists(pieces | tokens | st.text(max_size=3), max_size=6).map("".join)
ordinals = st.none() | st.integers(0, 2**31 - 1)
wire_selections = near_miss(
    {
        "name": templated,
        "namespace": templated,
        "interface": templated,
        "interfaceRequest": templated,
        "ips": st.lists(templated, max_size=2),
        "mac": templated,
        "infiniband-guid": templated,
        "portMappings": st.lists(near_miss({"hostPort": st.integers(), "protocol": st.text()}), max_size=2),
        "bandwidth": near_miss({"ingressRate": st.integers()}),
        "deviceID": templated,
        "cni-args": json_objects,
        "default-route": st.lists(templated, max_size=2),
    }
)
annotation_texts = (
    st.text()
    | templated
    | st.lists(wire_selections | json_values, max_size=3).map(json.dumps)
    | wire_selections.map(json.dumps)
)


@unhurried
@given(annotation_texts, ordinals)
def test_any_annotation_is_read_or_refused(annotation: str, ordinal: int | None) -> None:
    try:
        read = selections.parse(annotation, "pods", ordinal=ordinal)
    except CniError:
        return
    for selection in read:
        assert selections.decode(selections.encode(selection), "again") == selection
        assert "{" not in selection.name
        assert not templates.is_template(selection.ifname or "")


@unhurried
@given(annotation_texts, ordinals)
def test_any_default_network_is_one_or_refused(annotation: str, ordinal: int | None) -> None:
    with contextlib.suppress(CniError):
        assert selections.parse_default(annotation, "kube-system", ordinal=ordinal).name


@unhurried
@given(st.lists(st.sampled_from(["a", "-", ".", "7"]) | tokens, max_size=5), st.integers(0, 2**31 - 1))
def test_a_template_is_its_text_with_numbers_in_it(parts: list[str], ordinal: int) -> None:
    moved = [ordinal + int(part.strip("{}").removeprefix("ordinal") or 0) if "{" in part else part for part in parts]
    if any(isinstance(number, int) and number < 0 for number in moved):
        with pytest.raises(CniError):
            templates.expand("".join(parts), ordinal, "here")
    else:
        assert templates.expand("".join(parts), ordinal, "here") == "".join(map(str, moved))


@unhurried
@given(st.integers(0, 255), st.integers(0, 255))
def test_replicas_have_macs_of_their_own(one: int, other: int) -> None:
    def mac(ordinal: int) -> str:
        return templates.expand("02:00:00:00:00:{ordinal}", ordinal, "here", as_byte=True)

    assert len(mac(one)) == 17
    assert (mac(one) == mac(other)) == (one == other)


# --- settings ----------------------------------------------------------------------------------------------------

wire_settings = near_miss(
    {
        "cniVersion": st.sampled_from(["1.0.0", "", "x"]),
        "name": st.just("node"),
        "type": st.just("multus"),
        "clusterNetwork": st.text(),
        "delegates": st.lists(json_objects, max_size=2),
        "globalNamespaces": st.text(),
        "systemNamespaces": st.lists(st.text(), max_size=2),
        "logLevel": st.text(),
        "logOptions": near_miss({"maxAge": st.integers(), "MAXSIZE": st.integers()}),
        "execTypes": st.lists(st.text(), max_size=2),
        "replicaKinds": st.lists(json_objects, max_size=2),
        "readinessIndicatorFile": st.text(),
    }
)


@unhurried
@given(wire_settings, wire_settings)
def test_any_settings_are_read_or_refused(request: dict[str, Any], daemon: dict[str, Any]) -> None:
    try:
        read = settings.parse(settings.overlaid(request, daemon))
    except CniError:
        return
    assert bool(read.cluster_network) != bool(read.delegates)
    assert read.cluster_network or not read.default_networks


# --- delegates and their file ------------------------------------------------------------------------------------

labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
ifnames = st.from_regex(r"[a-z][a-z0-9.]{0,13}", fullmatch=True)
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
interfaces = st.builds(
    lambda value, prefix: IPv4Interface((value, prefix)), st.integers(0, 2**32 - 1), st.integers(0, 32)
) | st.builds(lambda value, prefix: IPv6Interface((value, prefix)), st.integers(0, 2**128 - 1), st.integers(0, 128))
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
json_safe = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
wire_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | json_safe,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(json_safe, inner, max_size=2),
    max_leaves=5,
)
wire_objects = st.dictionaries(json_safe, wire_values, max_size=2)
networks = st.builds(
    lambda name, version, plugins: conflists.parse({"cniVersion": version, "name": name, "plugins": plugins}),
    labels,
    st.sampled_from(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]),
    st.lists(st.builds(lambda more, kind: {**more, "type": kind}, wire_objects, labels), min_size=1, max_size=3),
)
wanted = st.builds(
    NetworkSelection,
    namespace=labels,
    name=labels,
    ifname=st.none() | ifnames,
    ips=st.lists(addresses | interfaces, max_size=2).map(tuple),
    mac=st.none() | macs,
    infiniband_guid=st.none() | st.binary(min_size=8, max_size=8).map(lambda raw: raw.hex(":")),
    port_mappings=st.lists(
        st.builds(PortMapping, host_port=st.integers(0, 65535), protocol=st.sampled_from(["", "tcp"])), max_size=2
    ).map(tuple),
    bandwidth=st.none() | st.builds(Bandwidth, ingress_rate=st.integers(0, 9), egress_burst=st.integers(0, 9)),
    device_id=st.none() | labels,
    cni_args=wire_objects,
    default_route=st.none() | st.lists(addresses, max_size=2).map(tuple),
)
delegates = st.builds(
    Delegate,
    name=labels | st.builds(lambda a, b: f"{a}/{b}", labels, labels),
    network=networks,
    ifname=ifnames,
    selection=st.none() | wanted,
    args=st.dictionaries(json_safe, json_safe, max_size=3),
    capability_args=wire_objects,
    resource_name=st.just("") | labels,
    device_id=st.just("") | labels,
    drops_default_routes=st.frozensets(st.sampled_from([4, 6])),
)


def with_main(listed: list[Delegate]) -> tuple[Delegate, ...]:
    return (msgspec.structs.replace(listed[0], main=True), *listed[1:])


@unhurried
@given(st.lists(delegates, min_size=1, max_size=3).map(with_main))
def test_what_we_write_of_a_container_comes_back_whole(written: tuple[Delegate, ...]) -> None:
    assert scratch.decode(scratch.encode(written), container_id="c", main_ifname="eth0") == written


@unhurried
@given(st.lists(delegates, min_size=1, max_size=3).map(with_main))
def test_multus_reads_our_file_with_the_same_interfaces(written: tuple[Delegate, ...]) -> None:
    entries = json.loads(scratch.encode(written))
    for entry, delegate in zip(entries, written, strict=True):
        del entry["homeport"]
        if "/" in entry["Name"] and delegate.selection is None:
            entry["Name"] = delegate.network.name
    read = scratch.decode(json.dumps(entries).encode(), container_id="c", main_ifname=written[0].ifname)
    chosen = written[0].selection.ifname if written[0].selection else None
    assert [d.ifname for d in read] == [written[0].ifname, *(d.ifname for d in written[1:])] or chosen
    assert [d.network for d in read] == [d.network for d in written]
    assert [d.drops_default_routes for d in read] == [d.drops_default_routes for d in written]


base64_text = st.binary(max_size=30).map(lambda raw: base64.b64encode(raw).decode()) | networks.map(
    lambda network: base64.b64encode(network.raw).decode()
)
wire_entries = near_miss(
    {
        "Name": json_safe,
        "Bytes": base64_text,
        "ConfList": near_miss({"plugins": st.lists(json_objects, max_size=1)}),
        "CNINetworkConfigList": near_miss(
            {"Bytes": base64_text, "Plugins": st.lists(near_miss({"Bytes": base64_text}), max_size=2)}
        ),
        "ifnameRequest": ifnames,
        "ipRequest": st.lists(json_safe, max_size=2),
        "default-route": st.lists(json_safe, max_size=2),
        "homeport": near_miss(
            {"ifname": ifnames, "args": st.lists(st.tuples(json_safe, json_safe)), "selection": json_objects}
        ),
    }
)


@unhurried
@given(st.binary(max_size=40) | st.lists(wire_entries | json_values, max_size=3).map(lambda v: json.dumps(v).encode()))
def test_a_file_is_at_least_one_network_or_undecodable(contents: bytes) -> None:
    with contextlib.suppress(DecodeFailure):
        assert scratch.decode(contents, container_id="c", main_ifname="eth0")


# --- requests ----------------------------------------------------------------------------------------------------

arg_words = st.from_regex(r"[A-Z][A-Z_]{0,5}", fullmatch=True)


@unhurried
@given(st.lists(wanted, max_size=3), st.dictionaries(arg_words | st.sampled_from(["IP", "MAC"]), labels, max_size=4))
def test_delegates_are_whole_or_refused(asked: list[NetworkSelection], container_args: dict[str, str]) -> None:
    plain = conflists.parse({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "x", "capabilities": _ABLE}]})
    resolved = [
        ResolvedNetwork(name="main", network=plain, main=True),
        *(ResolvedNetwork(name=f"{s.namespace}/{s.name}", network=plain, selection=s) for s in asked),
    ]
    parsed = settings.parse({"cniVersion": "1.0.0", "name": "n", "type": "multus", "clusterNetwork": "main"})
    try:
        found = requests.delegates_of(
            resolved,
            container_args=container_args,
            runtime_config={"portMappings": []},
            main_ifname="eth0",
            settings=parsed,
            devices={},
        )
    except InvalidNetConf:
        return
    assert len({d.ifname for d in found}) == len(found) == len(resolved)
    assert [d.main for d in found] == [True] + [False] * len(asked)
    for delegate in found:
        assert invocations.parse_args(invocations.format_args(delegate.args)) == delegate.args
        assert next(iter(delegate.args)) == "IgnoreUnknown"
    for delegate, selection in zip(found[1:], asked, strict=True):
        assert delegate.capability_args == selections.capability_args(selection)
        assert ("IP" in delegate.args) == bool(selection.ips)


_ABLE = dict.fromkeys(("ips", "mac", "portMappings", "bandwidth", "infinibandGUID", "deviceID"), True)


@given(st.lists(st.none() | st.lists(addresses, max_size=1).map(tuple), max_size=4))
def test_no_two_interfaces_keep_a_family_s_default_once_somebody_asks(asked: list[default_routes.Asked]) -> None:
    try:
        drops = default_routes.plan([(str(n), a) for n, a in enumerate(asked)])
    except CniError:
        families = [gateway.version for a in asked for gateway in a or ()]
        assert len(families) > len(set(families))
        return
    if all(a is None for a in asked):
        assert not any(drops)
        return
    for dropped, a in zip(drops, asked, strict=True):
        change = default_routes.change(dropped, a)
        assert a == () or change.drops == {4, 6}
        assert {g.version for g in change.gateways} == {4, 6} - dropped or a == ()
