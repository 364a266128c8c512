"""Whatever comes in, a parser returns a value or raises one of our errors; versions lose only what they cannot say."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.cni import conflists, documents, invocations, netconfs, versions
from homeport.model.errors import CniError, InvalidEnvironment
from homeport.model.results import DNS, Interface, IPConfig, Result, Route
from homeport.multinet import selections, statuses

unhurried = settings(deadline=None)  # the machine may be busy; pytest's own time limit holds

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def near_miss(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the right keys, whose values are right or anything at all."""
    return st.fixed_dictionaries({}, optional={key: right | json_values for key, right in known.items()})


words = st.sampled_from(["", "a", "net", "bridge", "../x", "10.0.0.1/24", "fd00::1/64", "10.0.0.1", "::", "0.4.0", "é"])
version_words = st.sampled_from(["", *versions.SUPPORTED_VERSIONS, "0.9.0", "1.2.0", "x"])
wire_dns = near_miss({"nameservers": st.lists(words), "domain": words, "search": st.lists(words)})
wire_routes = st.lists(near_miss({"dst": words, "gw": words, "mtu": st.integers(), "table": st.integers()}), max_size=3)
wire_family_ip = near_miss({"ip": words, "gateway": words, "routes": wire_routes})
wire_results = near_miss(
    {
        "cniVersion": version_words,
        "interfaces": st.lists(near_miss({"name": words, "mac": words, "sandbox": words, "mtu": st.integers()})),
        "ips": st.lists(near_miss({"address": words, "gateway": words, "interface": st.integers()}), max_size=3),
        "routes": wire_routes,
        "dns": wire_dns,
        "ip4": wire_family_ip,
        "ip6": wire_family_ip,
    }
)
wire_confs = near_miss(
    {
        "cniVersion": version_words,
        "name": words,
        "type": words,
        "ipam": near_miss({"type": words}),
        "dns": wire_dns,
        "runtimeConfig": near_miss({"ips": st.lists(words)}),
        "args": near_miss({"cni": json_values}),
        "capabilities": near_miss({"ips": st.booleans()}),
        "prevResult": wire_results,
        "cni.dev/valid-attachments": st.lists(near_miss({"containerID": words, "ifname": words})),
    }
)
wire_lists = near_miss(
    {
        "cniVersion": version_words,
        "cniVersions": st.lists(version_words),
        "name": words,
        "plugins": st.lists(wire_confs, max_size=3),
        "disableCheck": st.booleans() | words,
        "loadOnlyInlinedPlugins": st.booleans(),
        "type": words,
    }
)
wire_selections = near_miss(
    {
        "name": words,
        "namespace": words,
        "interface": words,
        "ips": st.lists(words),
        "mac": words,
        "default-route": st.lists(words),
        "portMappings": st.lists(near_miss({"hostPort": st.integers(), "protocol": words})),
        "bandwidth": near_miss({"ingressRate": st.integers()}),
        "cni-args": json_values,
    }
)
commands = st.none() | st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"])


@unhurried
@given(
    st.binary() | json_values.map(lambda v: json.dumps(v).encode()) | wire_confs.map(lambda v: json.dumps(v).encode()),
    commands,
)
def test_configurations(raw: bytes, command: Any) -> None:
    try:
        conf = netconfs.parse(raw, command=command)
    except CniError:
        return
    assert conf.cni_version in versions.SUPPORTED_VERSIONS
    assert "/" not in conf.name + conf.type
    msgspec.json.encode(netconfs.wire(conf))


@unhurried
@given(st.binary() | (json_values | wire_lists).map(lambda v: json.dumps(v).encode()), st.sampled_from(["", "nad"]))
def test_networks(raw: bytes, default_name: str) -> None:
    try:
        network = conflists.parse(raw, default_name=default_name)
        assert conflists.parse(network.raw).plugins == network.plugins
        whole = conflists.complete(network, [("/d/a.conf", raw)])
    except CniError:
        return
    assert "/" not in whole.name
    assert all("/" not in plugin["type"] for plugin in whole.plugins)


@unhurried
@given(json_values | wire_results, version_words)
def test_results(wire: Any, version: str) -> None:
    try:
        result = versions.decode_result(wire, version)
        encoded = versions.encode_result(result, version)
    except CniError:
        return
    assert versions.decode_result(encoded, version) is not None


environments = st.dictionaries(
    st.sampled_from(
        ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE"]
    ),
    st.sampled_from(["ADD", "DEL", "GC", "VERSION", "a", "eth0", "A=1;B", "A=1;B=2", "/x:/y", "../x"])
    | st.text(alphabet=st.characters(exclude_categories=())),  # bytes that are not UTF-8 arrive as lone surrogates
)


@unhurried
@given(environments)
def test_environments(env: dict[str, str]) -> None:
    try:
        call = invocations.parse_environment(env)
    except InvalidEnvironment as error:
        documents.write(versions.encode_error(error))
        return
    assert "/" not in call.attachment.container_id + call.attachment.ifname
    msgspec.json.encode(call)


@unhurried
@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_args_round_trip_or_are_refused(args: dict[str, str]) -> None:
    try:
        text = invocations.format_args(args)
    except CniError:
        return
    assert invocations.parse_args(text) == args


@unhurried
@given(
    st.text() | st.text(alphabet='ab/@, [{"') | (json_values | st.lists(wire_selections, max_size=3)).map(json.dumps)
)
def test_annotations(annotation: str) -> None:
    try:
        wanted = selections.parse(annotation, "pods")
    except CniError:
        return
    for selection in wanted:
        assert "/" not in selection.namespace + selection.name + (selection.ifname or "")
        json.dumps(selections.capability_args(selection))


names = st.sampled_from(["eth0", "br0", "net1"])
sizes = st.none() | st.integers(1, 65535)
v4 = st.builds(IPv4Interface, st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)))
v6 = st.builds(IPv6Interface, st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)))
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
networks = st.builds(
    lambda address, prefix: (IPv4Network if address.version == 4 else IPv6Network)(
        (int(address), min(prefix, address.max_prefixlen)), strict=False
    ),
    addresses,
    st.integers(0, 128),
)
results = st.builds(
    Result,
    interfaces=st.lists(
        st.builds(
            Interface,
            name=names,
            mac=st.none() | st.just("02:00:00:00:00:01"),
            mtu_bytes=sizes,
            sandbox=st.none() | st.just("/run/netns/a"),
            socket_path=st.none() | st.just("/s"),
            pci_id=st.none() | st.just("0000:00:1f.6"),
        ),
        max_size=3,
    ).map(tuple),
    ips=st.lists(
        st.builds(
            IPConfig,
            address=v4 | v6,
            gateway=st.none() | addresses,
            interface=st.none() | st.integers(0, 3),
        ),
        max_size=4,
    ).map(tuple),
    routes=st.lists(
        st.builds(
            Route,
            dst=networks,
            gw=st.none() | addresses,
            mtu_bytes=sizes,
            advmss=sizes,
            priority=sizes,
            table=st.none() | st.integers(0, 2**32 - 1),
            scope=st.none() | st.integers(0, 255),
        ),
        max_size=4,
    ).map(tuple),
    dns=st.builds(
        DNS, nameservers=st.lists(st.text()).map(tuple), domain=st.text(), search=st.lists(st.text()).map(tuple)
    ),
)


@unhurried
@given(results, st.sampled_from(["1.0.0", "1.1.0"]))
def test_new_versions_lose_nothing(result: Result, version: str) -> None:
    wire = json.loads(json.dumps(versions.encode_result(result, version)))
    assert versions.decode_result(wire, version) == result


@unhurried
@given(results, st.sampled_from(versions.SUPPORTED_VERSIONS))
def test_what_a_version_carries_it_carries_again(result: Result, version: str) -> None:
    try:
        wire = versions.encode_result(result, version)
    except CniError:
        assert not result.ips
        return
    again = versions.decode_result(wire, version)
    assert versions.encode_result(again, version) == wire


@unhurried
@given(results)
def test_middle_versions_lose_only_what_an_interface_has_since_1_1(result: Result) -> None:
    again = versions.decode_result(versions.encode_result(result, "0.4.0"), "0.4.0")
    assert (again.ips, again.routes, again.dns) == (result.ips, result.routes, result.dns)
    assert [(i.name, i.mac, i.sandbox) for i in again.interfaces] == [
        (i.name, i.mac, i.sandbox) for i in result.interfaces
    ]


@unhurried
@given(results, st.booleans())
def test_every_result_has_a_status(result: Result, default: bool) -> None:
    entries = statuses.of_result("pods/a", result, default=default)
    assert sum(entry.default for entry in entries) <= 1
    assert len(json.loads(statuses.text(entries))) == len(entries)
