"""A pod that refers to an IPAMClaim has its addresses on that network, or a clear error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.stand_ins import attachment_of, netconf, shells_on
from tests.stand_ins_kubernetes import FakeKubernetes

from homeport.cni import conflists
from homeport.host.files import LocalFiles
from homeport.ipam.objects import Pod
from homeport.metaplugin.resolving import Resolver
from homeport.model.errors import AddressTaken, CniError, DecodeFailure, InvalidNetConf, NoSuchObject, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet import ipam_claims, requests, selections
from homeport.multinet.ipam_claims import ARGUMENT, IpamClaim
from homeport.multinet.settings import parse as parse_settings
from homeport.plugins import whereabouts
from homeport.ports import NetworkDefinition
from homeport.stores.memory import MemoryStore

POOL = {"range": "10.0.0.0/24", "range_end": "10.0.0.100", "exclude": ["10.0.0.50"], "gateway": "10.0.0.1"}
DUAL = {**POOL, "ipRanges": [{"range": "fd00::/64"}]}
TENANT = conflists.parse(
    {"cniVersion": "1.0.0", "name": "tenant", "plugins": [{"type": "macvlan", "ipam": {"type": "whereabouts"}}]}
)


def claim(*ips: str, network: str = "") -> IpamClaim:
    return IpamClaim(namespace="shop", name="vm-a", network=network, ips=ips)


def added(store: MemoryStore, ips: object, *, container: str = "c1", ipam: Mapping[str, Any] = POOL) -> list[str]:
    """ADD of a pod on the network with what a claim's reference put into its configuration."""
    args = {"cni": {ARGUMENT: {"claim": "shop/vm-a", "ips": ips}}}
    conf = netconf(ipam, args=args)
    result = whereabouts.add(conf, attachment_of(None, container), shells_on("n1", store))
    return [str(ip.address) for ip in result.ips]


# --- from the annotation to the plugin ---


def resolved(kubernetes: FakeKubernetes, entry: Mapping[str, Any], plugin: Mapping[str, Any] | None = None) -> Any:
    """The plugin's `args.cni` for a pod whose annotation is that one entry."""
    plugin = plugin or {"type": "macvlan", "ipam": {"type": "whereabouts", "range": "10.0.0.0/24"}}
    config = json.dumps({"cniVersion": "1.0.0", "name": "tenant", "plugins": [plugin]})
    kubernetes.create_definition(NetworkDefinition(namespace="shop", name="lan", config=config))
    annotations = {selections.ANNOTATION: json.dumps([{"name": "lan", **entry}])}
    pod = Pod(ref=PodRef("shop", "p"), uid="u", annotations=annotations)
    main = {"cniVersion": "1.0.0", "name": "main", "type": "bridge"}
    settings = parse_settings({"cniVersion": "1.0.0", "name": "multus", "type": "homeport", "delegates": [main]})
    networks = Resolver(settings, LocalFiles(), kubernetes, lambda _network: None).of_pod(pod)
    delegates = requests.delegates_of(
        networks, container_args={}, runtime_config={}, main_ifname="eth0", settings=settings, devices={}
    )
    return delegates[1].network.plugins[0].get("args")


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes()


def test_a_reference_tells_the_plugin_the_claim_s_addresses(kubernetes: FakeKubernetes) -> None:
    kubernetes.ipam_claims["shop", "vm-a"] = claim("10.0.0.7/24", "fd00::7", network="tenant")
    found = resolved(kubernetes, {"ipam-claim-reference": "vm-a", "cni-args": {"kept": 1}})
    assert found == {"cni": {"kept": 1, ARGUMENT: {"claim": "shop/vm-a", "ips": ["10.0.0.7", "fd00::7"]}}}
    assert [question for question in kubernetes.asked if question[0] == "ipam_claim"] == [("ipam_claim", "shop/vm-a")]


def test_without_a_reference_no_claim_is_asked_for(kubernetes: FakeKubernetes) -> None:
    assert resolved(kubernetes, {}) is None
    assert all(method != "ipam_claim" for method, _ in kubernetes.asked)


def test_a_claim_that_is_not_there(kubernetes: FakeKubernetes) -> None:
    with pytest.raises(NoSuchObject, match='network "shop/lan": find IPAMClaim "shop/vm-a": no such object'):
        resolved(kubernetes, {"ipam-claim-reference": "vm-a"})


def test_a_claim_that_nobody_can_tell_of_now(kubernetes: FakeKubernetes) -> None:
    resolved(kubernetes, {})
    kubernetes.ipam_claims["shop", "vm-a"] = claim("10.0.0.7")

    def away(namespace: str, name: str) -> IpamClaim:
        raise TryAgainLater("away")

    kubernetes.ipam_claim = away  # type: ignore[method-assign]
    with pytest.raises(TryAgainLater):
        resolved(kubernetes, {"ipam-claim-reference": "vm-a"})


def test_a_network_that_reads_no_claims(kubernetes: FakeKubernetes) -> None:
    kubernetes.ipam_claims["shop", "vm-a"] = claim("10.0.0.7")
    with pytest.raises(InvalidNetConf, match="ipam-claim-reference"):
        resolved(kubernetes, {"ipam-claim-reference": "vm-a"}, {"type": "macvlan", "ipam": {"type": "host-local"}})


@pytest.mark.parametrize("network", ["", "tenant", "lan", "shop/lan"])
def test_the_names_a_claim_may_call_its_network(network: str) -> None:
    assert ipam_claims.cni_args(claim("10.0.0.7", network=network), TENANT, "shop/lan")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (claim("10.0.0.7", network="other"), InvalidNetConf, 'of network "other", expected "tenant"'),
        (claim(), TryAgainLater, "no addresses in status.ips yet"),
        (claim("10.0.0.7", "ten"), InvalidNetConf, r'"shop/vm-a".*status\.ips\[1\]": found "ten"'),
        (claim("10.0.0.7/x"), InvalidNetConf, r"status\.ips\[0\]"),
    ],
)
def test_a_claim_that_cannot_serve(given: IpamClaim, error: type[CniError], text: str) -> None:
    with pytest.raises(error, match=text):
        ipam_claims.cni_args(given, TENANT, "shop/lan")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"spec": []}', b'{"status": {"ips": "10.0.0.7"}}'])
def test_a_claim_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(DecodeFailure, match="vm-a"):
        ipam_claims.decode("shop", "vm-a", body)


def test_a_claim_is_read_as_it_is_written() -> None:
    body = b'{"spec": {"network": "tenant", "interface": "net1"}, "status": {"ips": ["10.0.0.7/24"]}}'
    assert ipam_claims.decode("shop", "vm-a", body) == claim("10.0.0.7/24", network="tenant")
    assert ipam_claims.decode("shop", "vm-a", b'{"spec": {"network": "", "interface": ""}}') == claim()


# --- what the plugin does ---


def test_a_pod_has_its_claim_s_addresses_in_any_order() -> None:
    assert added(MemoryStore(), ["fd00::7", "10.0.0.7"], ipam=DUAL) == ["10.0.0.7/24", "fd00::7/64"]


def test_a_range_without_an_address_of_the_claim_is_served_as_usual() -> None:
    assert added(MemoryStore(), ["fd00::7"], ipam=DUAL) == ["10.0.0.2/24", "fd00::7/64"]


def test_the_same_add_again_gives_the_same() -> None:
    store = MemoryStore()
    assert added(store, ["10.0.0.7"]) == added(store, ["10.0.0.7"]) == ["10.0.0.7/24"]


@pytest.mark.parametrize("ips", [["10.0.1.7"], ["fd00::7"], ["10.0.0.101"], ["10.0.0.50"], ["10.0.0.1"]])
def test_an_address_that_the_network_does_not_hand_out(ips: list[str]) -> None:
    store = MemoryStore()
    with pytest.raises(InvalidNetConf, match=f'IPAMClaim "shop/vm-a": found {ips[0]}, expected an address'):
        added(store, ips)
    assert list(store.all()) == []


def test_two_addresses_of_one_range() -> None:
    with pytest.raises(InvalidNetConf, match=r"found 10\.0\.0\.8"):
        added(MemoryStore(), ["10.0.0.7", "10.0.0.8"])


def test_an_address_that_somebody_else_has() -> None:
    store = MemoryStore()
    added(store, ["10.0.0.7"])
    with pytest.raises(AddressTaken, match=r"allocate 10\.0\.0\.7 .* in container c1 on node n1"):
        added(store, ["10.0.0.7"], container="c2")
    assert len(list(store.all())) == 1


def test_an_address_that_a_map_keeps_for_a_replica() -> None:
    kept = {**POOL, "sticky": {"replicas": {"shop/web": ["10.0.0.7"]}}}
    with pytest.raises(InvalidNetConf, match="a map keeps"):
        added(MemoryStore(), ["10.0.0.7"], ipam=kept)


@pytest.mark.parametrize("told", [5, {"ips": ["10.0.0.7"]}, {"claim": "a", "ips": "10.0.0.7"}])
def test_an_argument_of_a_wrong_shape(told: object) -> None:
    with pytest.raises(InvalidNetConf, match=ARGUMENT):
        ipam_claims.claimed_of({"args": {"cni": {ARGUMENT: told}}})


@pytest.mark.parametrize("conf", [{}, {"args": None}, {"args": 5}, {"args": {"cni": []}}, {"args": {"cni": {}}}])
def test_no_argument(conf: Mapping[str, Any]) -> None:
    assert ipam_claims.claimed_of(conf) is None


def test_a_claim_and_ips_in_one_entry() -> None:
    with pytest.raises(InvalidNetConf, match="either ipam-claim-reference or ips"):
        selections.parse('[{"name": "a", "ipam-claim-reference": "b", "ips": ["10.0.0.7"]}]', "shop")


@pytest.mark.parametrize("name", ["../x", "UPPER", "a b", "{ordinal}"])
def test_a_name_that_no_claim_can_have(name: str) -> None:
    with pytest.raises(InvalidNetConf, match="ipam-claim-reference"):
        selections.parse(json.dumps([{"name": "a", "ipam-claim-reference": name}]), "shop", ordinal=1)


def test_the_reference_survives_being_written_down() -> None:
    (selection,) = selections.parse('[{"name": "a", "ipam-claim-reference": "b"}]', "shop")
    assert selections.decode(selections.encode(selection), "x") == selection
