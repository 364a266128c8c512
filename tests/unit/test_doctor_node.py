"""What doctor concludes from the facts of a node, where they are hard to bring about on a real one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.doctor.cluster_checks import CHECKS as CLUSTER_CHECKS
from homeport.doctor.cluster_facts import Unseen
from homeport.doctor.facts import (
    Answering,
    ApiFacts,
    Attached,
    DaemonFacts,
    FileFact,
    FileFacts,
    HostLink,
    KernelFacts,
    NodeFacts,
    Program,
    Room,
    RuntimeConfig,
    SeenPod,
    Site,
    Use,
)
from homeport.doctor.findings import Severity, Sure
from homeport.doctor.node import diagnose, steady
from homeport.doctor.node_checks import CHECKS
from homeport.doctor.repairs import TakeDown
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, PodOwner, Slot
from homeport.ipam.objects import STATIC_HASH, Pod
from homeport.model.names import AttachmentKey, PodRef
from homeport.ports import Link
from homeport.stores.claims import HeldClaim, State

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(hours=1)
ADDRESS = ip_address("10.9.0.1")
SITE = Site(
    node="n1",
    version="1.0",
    config_file="/etc/homeport/homeportd.json",
    socket="/run/homeport/homeport.sock",
    state_dir="/var/lib/homeport",
    cni_dir="/var/lib/cni/multus",
    bin_dir="/opt/cni/bin",
    runtime_dir="/etc/cni/net.d",
    generated="/etc/cni/net.d/00-multus.conf",
    shim="homeport",
    shim_types=frozenset({"homeport"}),
    built_in=frozenset({"macvlan", "ipvlan", "bridge", "whereabouts"}),
)
SHIM = Program(file=FileFact(kind="file", mode=0o755, uid=0), is_ours=True, version="1.0")
FILES = FileFacts(
    modes={},
    runtime_configs=(RuntimeConfig(name="00-multus.conf", types=("homeport",), cluster_network="/x"),),
    programs={"homeport": SHIM},
    journal=(),
    rooms=(),
    databases=(),
    primary_path="/x",
    primary_types=("bridge",),
    primary=True,
    readiness=None,
    shim_environs={},
    strangers=(),
)
ETH1 = Link(index=2, name="eth1", kind="", mac=None, mtu_bytes=1500, up=True, running=True)
KERNEL = KernelFacts(links=(HostLink(link=ETH1),), kinds={}, sysctls={}, uplink="eth1")
HEALTHY = NodeFacts(
    now=NOW,
    site=SITE,
    files=FILES,
    daemon=DaemonFacts(answering=Answering.READY, version="1.0", is_here=True),
    kernel=KERNEL,
    api=ApiFacts(place="https://api:6443", seconds=0.01, skew_seconds=0.4),
    uses=(),
    pods=(),
    claims=(),
    allocations={},
    attached=(),
)


def found(**parts: object) -> list[tuple[str, str]]:
    """(id, severity) of what is told of a healthy node with other parts."""
    return [(d.id, d.severity.value) for d in diagnose(msgspec.structs.replace(HEALTHY, **parts)).diagnoses]


def files(**parts: object) -> FileFacts:
    return msgspec.structs.replace(FILES, **parts)


def kernel(*links: HostLink, **parts: Any) -> KernelFacts:
    return msgspec.structs.replace(KERNEL, links=links or KERNEL.links, **parts)


def pod(uid: str, *networks: str, **annotations: str) -> SeenPod:
    known = Pod(ref=PodRef("shop", "db-0"), uid=uid, node="n1", phase="Running", annotations=annotations)
    return SeenPod(pod=known, networks=frozenset(networks))


def attached(uid: str, **parts: Any) -> Attached:
    whole = Attached(
        key=AttachmentKey("lan", "c1", "net1"),
        netns="/run/netns/c1",
        pod="shop/db-0",
        pod_uid=uid,
        age_seconds=600,
        is_there=True,
        wanted=frozenset({ADDRESS}),
        found=frozenset({ADDRESS}),
    )
    return msgspec.structs.replace(whole, **parts)


def allocation(uid: str, **parts: Any) -> Allocation:
    holder = Holder(container_id="c1", ifname="net1", netns_path="/run/netns/c1", node="n1", pod_uid=uid)
    whole = Allocation(
        scope="",
        address=ADDRESS,
        slot=Slot(PodOwner("shop", "db-0", uid), "lan", "net1"),
        phase=Phase.BOUND,
        holder=holder,
        since=OLD,
    )
    return msgspec.structs.replace(whole, **parts)


def claim(one: Allocation, **parts: Any) -> HeldClaim:
    whole = HeldClaim(allocation=one, state=State.BOUND, cause="allocated", at=OLD)
    return msgspec.structs.replace(whole, **parts)


def on_lan(address: str) -> tuple[IPv4Interface, ...]:
    made = ip_interface(address)
    assert isinstance(made, IPv4Interface)
    return (made,)


# --- the list of checks ----------------------------------------------------------------------------------------------


def ids_in_code() -> Iterable[str]:
    for path in [*(ROOT / "src/homeport/doctor").glob("*.py"), *(ROOT / "src/homeport/cli").glob("doctor*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Diagnosis":
                (value,) = [keyword.value for keyword in node.keywords if keyword.arg == "id"]
                chosen = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
                yield from (c.value for c in chosen if isinstance(c, ast.Constant) and isinstance(c.value, str))


def test_what_is_told_is_listed_and_what_is_listed_is_told() -> None:
    indirect = {"file-writable", "secret-readable"}  # by a function that both go through
    listed = {check.id for check in (*CHECKS, *CLUSTER_CHECKS)}
    assert len(listed) > 60
    assert listed == set(ids_in_code()) | indirect


def test_the_page_lists_every_check() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|info) \| (.+) \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted((c.id, c.severity.value, c.summary) for c in (*CHECKS, *CLUSTER_CHECKS))


# --- a node ----------------------------------------------------------------------------------------------------------


def test_a_healthy_node_has_nothing_to_tell() -> None:
    report = diagnose(HEALTHY)
    assert (report.diagnoses, report.unlooked, report.exit_code) == ((), (), 0)


def test_what_was_not_seen_is_told_and_nothing_is_concluded_from_it() -> None:
    unseen = Unseen("refused")
    parts = {"pods": unseen, "allocations": unseen, "uses": unseen, "kernel": unseen}
    report = diagnose(
        msgspec.structs.replace(HEALTHY, attached=(attached("u1"),), claims=(claim(allocation("u1")),), **parts)
    )
    assert report.diagnoses == ()
    assert {one.why for one in report.unlooked} == {"refused"}
    assert (len(report.unlooked), report.exit_code) == (4, 2)


@pytest.mark.parametrize(
    ("skew", "expected"),
    [(4.9, []), (-4.9, []), (6, ["warning"]), (-6, ["warning"]), (400, ["error"]), (None, [])],
)
def test_clocks(skew: float | None, expected: list[str]) -> None:
    api = ApiFacts(place="api", seconds=0.1, skew_seconds=skew)
    assert found(api=api) == [("clock-skew", severity) for severity in expected]


def test_a_slow_api_server() -> None:
    assert found(api=ApiFacts(place="api", seconds=1.5, skew_seconds=0)) == [("api-slow", "warning")]


def test_a_node_without_an_api_server_lacks_nothing() -> None:
    assert found(api=None) == []


@pytest.mark.parametrize(
    ("daemon", "expected"),
    [
        (DaemonFacts(answering=Answering.REFUSED), "daemon-missing"),
        (DaemonFacts(answering=Answering.UNREADY, problem="the daemon is stopping"), "daemon-unready"),
        (DaemonFacts(answering=Answering.READY, version="0.9"), "daemon-version"),
        (DaemonFacts(answering=Answering.READY, is_here=False), "daemon-elsewhere"),
    ],
)
def test_the_daemon(daemon: DaemonFacts, expected: str) -> None:
    assert [id_ for id_, _ in found(daemon=daemon)] == [expected]


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (Room(path="/", free_bytes=900 * MIB, free=0.009, free_inodes=0.5), []),
        (Room(path="/", free_bytes=200 * MIB, free=0.04, free_inodes=0.5), [("disk-low", "warning")]),
        (Room(path="/", free_bytes=20 * MIB, free=0.004, free_inodes=0.5), [("disk-full", "error")]),
        (Room(path="/", free_bytes=8 * MIB, free=0.5, free_inodes=0.5), [("disk-full", "error")]),
        (Room(path="/", free_bytes=900 * MIB, free=0.5, free_inodes=0.02), [("disk-low", "warning")]),
        (Room(path="/", free_bytes=900 * MIB, free=0.5, free_inodes=0.0), [("disk-full", "error")]),
    ],
)
def test_room(room: Room, expected: list[tuple[str, str]]) -> None:
    assert found(files=files(rooms=(room,))) == expected


# --- the runtime's files ---------------------------------------------------------------------------------------------


def configs(*names: str, broken: str = "") -> FileFacts:
    types = {"00-multus.conf": ("homeport",)}
    made = [
        RuntimeConfig(name=n, problem="not JSON" if n == broken else "", types=types.get(n, ("calico",))) for n in names
    ]
    return files(runtime_configs=tuple(made))


def test_which_file_wins() -> None:
    assert found(files=configs("00-multus.conf", "10-calico.conflist")) == []
    assert found(files=configs("00-multus.conf", "10-x.conf", broken="10-x.conf")) == [], "it is never read"
    assert found(files=configs("00-a.conf", "00-multus.conf")) == [("runtime-config-overruled", "error")]
    assert found(files=configs("00-a.conf", "00-multus.conf", broken="00-a.conf")) == [
        ("runtime-config-broken", "error")
    ]
    assert found(files=configs("10-calico.conflist")) == [("runtime-config-missing", "error")]
    by_hand = msgspec.structs.replace(SITE, generated="")
    assert found(site=by_hand, files=configs("10-calico.conflist")) == [("runtime-config-overruled", "warning")]
    assert found(files=files(runtime_configs=None)) == [("runtime-dir-missing", "error")]


def test_the_upstream_shim_is_not_ours_and_need_not_be() -> None:
    foreign = msgspec.structs.replace(SHIM, is_ours=False)
    site = msgspec.structs.replace(SITE, shim="multus-shim", shim_types=frozenset({"multus-shim"}))
    config = RuntimeConfig(name="00-multus.conf", types=("multus-shim",), cluster_network="/x")
    assert found(site=site, files=files(programs={"multus-shim": foreign}, runtime_configs=(config,))) == []
    assert found(files=files(programs={"homeport": foreign})) == [("shim-foreign", "error")]


def test_plugins_that_are_executed() -> None:
    vlan = Use(network="shop/lan", plugin="vlan")
    assert found(uses=(vlan,)) == [("plugin-missing", "warning")]
    assert found(uses=(vlan,), files=files(programs={"homeport": SHIM, "vlan": SHIM})) == []
    executed = msgspec.structs.replace(SITE, exec_types=frozenset({"bridge"}))
    assert found(site=executed) == [("plugin-missing", "error")], "the pod network's"


# --- links -----------------------------------------------------------------------------------------------------------

MACVLAN = Use(network="shop/lan", plugin="macvlan", master="eth1")
IPVLAN = Use(network="shop/far", plugin="ipvlan", master="")


def test_a_kernel_without_the_kind() -> None:
    lacking = kernel(kinds={"ipvlan": False})
    assert found(uses=(IPVLAN,), kernel=lacking) == [("kind-missing", "warning")]
    assert found(uses=(IPVLAN,), kernel=lacking, pods=(pod("u1", "shop/far"),)) == [("kind-missing", "error")]


def test_two_kinds_on_one_master_whichever_way_it_is_named() -> None:
    assert found(uses=(MACVLAN, IPVLAN)) == [("master-shared", "warning")]
    assert found(uses=(MACVLAN, IPVLAN), pods=(pod("u1", "shop/lan", "shop/far"),)) == [("master-shared", "error")]
    in_pod = msgspec.structs.replace(IPVLAN, is_in_pod=True)
    assert found(uses=(MACVLAN, in_pod)) == [], "it stands on the pod's own link"


def test_no_default_route_for_a_master_that_is_not_named() -> None:
    assert found(uses=(IPVLAN,), kernel=kernel(uplink="")) == [("master-missing", "warning")]


def test_a_master_without_a_carrier() -> None:
    link = msgspec.structs.replace(ETH1, running=False)
    assert found(uses=(MACVLAN,), kernel=kernel(HostLink(link=link))) == [("master-down", "warning")]


def test_a_link_that_many_networks_stand_on_is_told_of_once() -> None:
    uses = tuple(msgspec.structs.replace(MACVLAN, network=f"shop/lan-{n}", mtu_bytes=9000 + n) for n in range(3))
    report = diagnose(msgspec.structs.replace(HEALTHY, uses=uses, pods=(pod("u1", "shop/lan-2"),)))
    (told,) = report.diagnoses
    assert (told.id, told.severity) == ("master-mtu", Severity.ERROR), "a pod here needs one of them"
    assert told.expected == "9002 at least, as network shop/lan-0 and 2 more asks for"


def test_arp_flux() -> None:
    eth1 = HostLink(link=ETH1, addresses=on_lan("10.9.0.2/24"))
    eth2 = HostLink(link=msgspec.structs.replace(ETH1, index=3, name="eth2"), addresses=on_lan("10.9.0.3/24"))
    silent = {"net/ipv4/conf/eth1/arp_ignore": "0", "net/ipv4/conf/all/arp_ignore": "0"}
    assert found(uses=(MACVLAN,), kernel=kernel(eth1, eth2, sysctls=silent)) == [("arp-flux", "info")]
    assert found(uses=(MACVLAN,), kernel=kernel(eth1, sysctls=silent)) == []
    told = {**silent, "net/ipv4/conf/eth1/arp_ignore": "1"}
    assert found(uses=(MACVLAN,), kernel=kernel(eth1, eth2, sysctls=told)) == []


def test_strict_filtering_that_pods_inherit() -> None:
    strict = kernel(sysctls={"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/default/rp_filter": "0"})
    chosen = (pod("u1", "shop/lan"),)
    assert found(uses=(MACVLAN,), kernel=strict, pods=chosen) == [("rp-filter-strict", "info")]
    assert found(uses=(MACVLAN,), kernel=strict) == [], "nobody is there to drop anything"
    routed = Use(network="shop/lan", plugin="sbr")
    inside = msgspec.structs.replace(SITE, built_in=SITE.built_in | {"sbr"})
    assert found(site=inside, uses=(MACVLAN, routed), kernel=strict, pods=chosen) == []
    loose = kernel(sysctls={"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/default/rp_filter": "2"})
    assert found(uses=(MACVLAN,), kernel=loose, pods=chosen) == [], "the greater one counts"


def test_only_an_idle_link_of_a_passing_name_is_half_made() -> None:
    made = msgspec.structs.replace(ETH1, index=9, name="veth0badf00d", kind="macvlan", up=False)
    assert found(kernel=kernel(HostLink(link=ETH1), HostLink(link=made))) == [("link-half-made", "warning")]
    for other in (
        HostLink(link=msgspec.structs.replace(made, up=True)),
        HostLink(link=msgspec.structs.replace(made, kind="veth")),
        HostLink(link=msgspec.structs.replace(made, name="macvlan0")),
        HostLink(link=made, addresses=on_lan("10.9.0.2/24")),
    ):
        assert found(kernel=kernel(HostLink(link=ETH1), other)) == []


# --- addresses -------------------------------------------------------------------------------------------------------


def test_interfaces_of_pods_that_are_there() -> None:
    assert found(attached=(attached("u1"),), pods=(pod("u1"),)) == []
    static = pod("mirror", **{STATIC_HASH: "u1"})
    assert found(attached=(attached("u1"),), pods=(static,)) == [], "a static pod is known by its hash"
    lost = attached("u1", found=None, makes_link=True)
    assert found(attached=(lost,), pods=(pod("u1"),)) == [("interface-lost", "error")]
    assert found(attached=(attached("u1", found=None),), pods=(pod("u1"),)) == [], "a device that is no link has none"
    assert found(attached=(attached("u1", found=frozenset()),), pods=(pod("u1"),)) == [("interface-lost", "error")]


def test_interfaces_of_pods_that_are_gone() -> None:
    assert found(attached=(attached("u1"),)) == [("namespace-left", "warning")]
    assert found(attached=(attached("u1", is_there=False),)) == [("result-left", "warning")]
    assert found(attached=(attached("u1", age_seconds=5),)) == [], "it may have come after the pods were listed"
    assert found(attached=(attached(""),)) == [], "a container without a pod is nobody's business"


def test_a_container_is_taken_down_once_and_through_a_daemon_that_knows_how() -> None:
    gone = attached("u1", is_there=False)
    second = msgspec.structs.replace(gone, key=AttachmentKey("far", "c1", "net2"))
    (told,) = diagnose(msgspec.structs.replace(HEALTHY, attached=(gone, second))).diagnoses
    assert isinstance(told.repair, TakeDown)
    assert (told.repair.container_id, told.sure) == ("c1", Sure.LIKELY)
    by_hand = msgspec.structs.replace(SITE, generated="")
    (told,) = diagnose(msgspec.structs.replace(HEALTHY, site=by_hand, attached=(gone,))).diagnoses
    assert told.repair is None, "nobody knows what the runtime would send"


def test_what_claims_and_the_cluster_say() -> None:
    mine = allocation("u1")
    place = ("", ADDRESS)
    assert found(claims=(claim(mine),), allocations={place: mine}) == []
    assert found(claims=(claim(mine),)) == [("address-unguarded", "error")]
    theirs = allocation("u2", holder=Holder(container_id="c2", ifname="net1", netns_path="/x", node="n2"))
    assert found(claims=(claim(mine),), allocations={place: theirs}) == [("address-conflict", "error")]
    assert found(claims=(claim(mine, at=NOW),)) == [], "the daemon is at it"
    assert found(claims=(claim(mine, state=State.DELETING),), allocations={place: mine}) == [
        ("claim-untold", "warning")
    ]
    assert found(allocations={place: mine}) == [("allocation-unaccounted", "warning")]
    assert found(allocations={place: allocation("u1", since=NOW)}) == []
    assert found(allocations={place: mine}, passing=frozenset({place})) == [], "it is being let go"
    kept = allocation("u1", phase=Phase.RETAINED, holder=None)
    assert found(allocations={place: kept}) == [], "nobody has it"


def test_what_is_on_its_way_is_not_told_of() -> None:
    mine = claim(allocation("u1"))
    first = msgspec.structs.replace(HEALTHY, attached=(attached("u1", has_pool=True),), claims=(mine,))
    assert [d.id for d in diagnose(first).diagnoses] == ["address-unguarded", "namespace-left"]
    gone = steady(first, (), ())
    assert (gone.attached, gone.claims, gone.passing) == ((), (), frozenset({mine.place}))
    assert diagnose(gone).diagnoses == (), "its DEL came meanwhile"
    let_go = steady(first, first.attached, (msgspec.structs.replace(mine, state=State.DELETING),))
    assert (let_go.claims, let_go.passing) == ((), frozenset({mine.place}))
    older = msgspec.structs.replace(attached("u1", has_pool=True), age_seconds=601)
    same = steady(first, (older,), (mine,))
    assert (same.attached, same.claims, same.passing) == ((older,), (mine,), frozenset())


def test_what_was_seen_only_once_is_not_seen() -> None:
    unseen = Unseen("it broke")
    assert steady(HEALTHY, unseen, unseen).attached is unseen
    assert steady(HEALTHY, (), unseen).claims is unseen
    before = msgspec.structs.replace(HEALTHY, attached=unseen, claims=unseen)
    assert (steady(before, (), ()).attached, steady(before, (), ()).claims) == (unseen, unseen)


def test_an_interface_of_a_range_that_nobody_has_noted() -> None:
    there = attached("u1", has_pool=True)
    mine = allocation("u1")
    assert found(attached=(there,), pods=(pod("u1"),)) == [("address-unguarded", "error")]
    assert found(attached=(there,), pods=(pod("u1"),), allocations={("", ADDRESS): mine}, claims=(claim(mine),)) == []
    assert found(attached=(msgspec.structs.replace(there, age_seconds=3),), pods=(pod("u1"),)) == []
    for elsewhere in ({"whereabouts_namespace": "kube-system"}, {"exec_types": frozenset({"whereabouts"})}):
        site = msgspec.structs.replace(SITE, **elsewhere)
        assert found(site=site, attached=(there,), pods=(pod("u1"),)) == [], "it may be in Whereabouts' own objects"


def test_allocations_in_a_file() -> None:
    site = msgspec.structs.replace(SITE, store="/var/lib/cni/homeport/allocations.db")
    mine = {("", ADDRESS): allocation("u1")}
    there = (attached("u1"),)
    assert found(site=site, allocations=mine, attached=there, pods=(pod("u1"),)) == []
    assert found(site=site, allocations=mine) == [("allocation-unaccounted", "warning")]
    other = {("", ADDRESS): allocation("u1", holder=Holder(container_id="c1", ifname="net1", netns_path="", node="n2"))}
    assert found(site=site, allocations=other) == [], "another node of this machine has it"


def test_the_worst_comes_first() -> None:
    told = found(claims=(claim(allocation("u1")),), api=ApiFacts(place="api", seconds=3, skew_seconds=0))
    assert [severity for _, severity in told] == [Severity.ERROR.value, Severity.WARNING.value]
