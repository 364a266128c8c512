"""`homeport plan` as a person and a CI job run it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.stores.sqlite import SqliteStore

EXAMPLES = Path(__file__).parents[2] / "examples"
AT = datetime(2026, 1, 1, tzinfo=UTC)
WEB = Workload("shop", "StatefulSet", "web")


def nad(name: str = "net", *, config: dict[str, Any] | None = None, **ipam: Any) -> dict[str, Any]:
    """A definition whose one range is 10.0.0.0/29 (six usable addresses) unless it says otherwise."""
    section = {"type": "whereabouts", "range": "10.0.0.0/29", **ipam}
    whole = config or {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": section}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"config": json.dumps(whole)},
    }


def workload(kind: str, name: str, networks: str = "net", notes: dict[str, str] | None = None, **spec: Any) -> Any:
    api = {"Pod": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    annotations = {"k8s.v1.cni.cncf.io/networks": networks, **(notes or {})}
    metadata: dict[str, Any] = {"name": name, "namespace": "shop"}
    template = {"metadata": {"annotations": annotations}}
    if kind == "Pod":
        metadata["annotations"] = annotations
    elif kind == "CronJob":
        spec = {"jobTemplate": {"spec": {"template": template, **spec}}}
    else:
        spec["template"] = template
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def run(*objects: Any, args: tuple[str, ...] = (), code: int = 0, stdin: str = "") -> str:
    """The output of `homeport plan` of these objects, which ends with `code`."""
    text = stdin or "\n---\n".join(json.dumps(obj) for obj in objects)
    command = [sys.executable, "-m", "homeport", "plan", "-f", "-", *args]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout if code != 2 else ran.stderr


def plan(*objects: Any, args: tuple[str, ...] = (), code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*objects, args=("-o", "json", *args), code=code))
    return found


def addresses(found: dict[str, Any]) -> dict[str, list[str | None]]:
    got: dict[str, list[str | None]] = {}
    for line in found["replicas"]:
        got.setdefault(line["pod"], []).append(line["address"])
    return got


def test_the_guide_s_files() -> None:
    files = ["-f", str(EXAMPLES / "nad.yaml"), "-f", str(EXAMPLES / "statefulset.yaml")]
    command = [sys.executable, "-m", "homeport", "plan", *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "POD     NETWORK      INTERFACE   ADDRESS          WHY",
        "web-0   multustest   net1        10.93.97.12/20   number 0 of 10.93.97.12-10.93.97.21",
        "web-1   multustest   net1        10.93.97.13/20   number 1 of 10.93.97.12-10.93.97.21",
        "web-2   multustest   net1        10.93.97.14/20   number 2 of 10.93.97.12-10.93.97.21",
        "",
        "RANGE                     NETWORK      USABLE   TAKEN   PLANNED   SURGE   LEFT",
        "10.93.97.12-10.93.97.21   multustest   10       0       3         0       7",
        "testnamespace/statefulset/web: 7 more replicas fit (10.93.97.12-10.93.97.21 has 7 left)",
    ]


def test_every_range_and_family_without_what_is_withheld() -> None:
    definition = nad(
        gateway="10.0.0.1", exclude=["10.0.0.3"], ipRanges=[{"range": "fd00::/64"}, {"range": "10.1.0.0/30"}]
    )
    found = plan(definition, workload("StatefulSet", "web", replicas=2, ordinals={"start": 5}))
    assert addresses(found) == {
        "web-5": ["10.0.0.2/29", "fd00::1/64", "10.1.0.1/30"],
        "web-6": ["10.0.0.4/29", "fd00::2/64", "10.1.0.2/30"],
    }
    assert [(r["usable"], r["left"]) for r in found["ranges"]] == [(4, 2), (2**64 - 2, 2**64 - 4), (2, 0)]
    assert [(f["more"], f["limit"]) for f in found["fits"]] == [(0, "10.1.0.1-10.1.0.2 has 0 left")]
    assert found["replicas"][0]["why"] == "number 5 - 5 = 0 of 10.0.0.1-10.0.0.6"


def test_a_map_keeps_its_addresses_even_for_a_workload_of_none() -> None:
    definition = nad(sticky={"replicas": {"shop/web": ["10.0.0.1", "10.0.0.2"]}})
    found = plan(definition, workload("StatefulSet", "web", replicas=0), workload("StatefulSet", "db", replicas=1))
    assert addresses(found) == {"db-0": ["10.0.0.3/29"]}
    assert found["replicas"][0]["why"] == "lowest free: 10.0.0.1 is planned for shop/web-0"
    assert not found["clashes"]


@pytest.mark.parametrize(
    ("notes", "clash"),
    [
        ('{"net": ["10.0.0.1"]}', "found 1 entries for 2 replicas from ordinal 0, expected entry 1 for ordinal 1"),
        ('{"net": ["10.0.0.1", "10.0.0.1"]}', 'found 10.0.0.1, which stands in'),
        ('{"net": ["10.0.0.1", "10.9.9.9"]}', "found 10.9.9.9, expected an address of 10.0.0.1-10.0.0.6"),
    ],
)  # fmt: skip
def test_e16_a_map_that_cannot_be_right_is_a_clash(notes: str, clash: str) -> None:
    found = plan(nad(), workload("StatefulSet", "web", notes={"homeport.dev/addresses": notes}, replicas=2), code=1)
    assert any(clash in text for text in found["clashes"])


def test_two_workloads_that_come_to_one_address() -> None:
    sets = [workload("StatefulSet", name, replicas=1) for name in ("web", "db")]
    found = plan(nad(), *sets, code=1)
    assert addresses(found) == {"web-0": ["10.0.0.1/29"], "db-0": ["10.0.0.2/29"]}
    assert found["clashes"] == ["shop/web-0 and shop/db-0 both come to 10.0.0.1: who starts first has it"]


def test_two_maps_that_give_one_address() -> None:
    notes = {"homeport.dev/addresses": '{"net": ["10.0.0.4"]}'}
    sets = [workload("StatefulSet", name, notes=notes, replicas=1) for name in ("web", "db")]
    found = plan(nad(), *sets, code=1)
    assert "10.0.0.4 is mapped both to shop/web-0 and to shop/db-0" in found["clashes"]
    assert addresses(found) == {"web-0": ["10.0.0.4/29"], "db-0": [None]}


def test_more_replicas_than_addresses() -> None:
    found = plan(nad(), workload("StatefulSet", "web", replicas=7), code=1)
    assert addresses(found)["web-6"] == [None]
    assert found["clashes"] == [
        "shop/web-6 gets no address on net/net1: all 6 addresses of 10.0.0.1-10.0.0.6 are taken"
    ]
    assert [f["more"] for f in found["fits"]] == [0]


def test_an_update_s_surge_needs_room() -> None:
    found = plan(nad(), workload("Deployment", "visitor", replicas=5))
    assert [(r["surge"], r["left"]) for r in found["ranges"]] == [(2, -1)]  # 25 % of five, rounded up
    assert found["notes"][0].startswith(
        "replacing pods at once takes up to 2 more of 10.0.0.1-10.0.0.6, which has 1 left"
    )
    full = plan(nad(), workload("Deployment", "visitor", replicas=7), code=1)
    assert full["notes"] == []
    assert full["clashes"] == [
        "shop/deployment/visitor finds 6 of 7 addresses: all 6 addresses of 10.0.0.1-10.0.0.6 are taken"
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "count", "surge"),
    [
        ("Deployment", {"replicas": 4}, 4, 1),
        ("Deployment", {"replicas": 4, "strategy": {"type": "Recreate"}}, 4, 0),
        ("Deployment", {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": "40%"}}}, 3, 2),
        ("Deployment", {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 2}}}, 3, 2),
        ("DaemonSet", {}, 3, 0),
        ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, 3, 1),
        ("ReplicaSet", {"replicas": 2}, 2, 0),
        ("Job", {"parallelism": 2}, 2, 0),
        ("CronJob", {"parallelism": 2}, 2, 0),
        ("Pod", {}, 1, 0),
    ],
)
def test_pods_without_identity_are_counted(kind: str, spec: dict[str, Any], count: int, surge: int) -> None:
    found = plan(nad(), workload(kind, "some", **spec), args=("--nodes", "3"))
    assert [(r["planned"], r["surge"], r["left"]) for r in found["ranges"]] == [(count, surge, 6 - count - surge)]
    assert found["others"][0]["addresses"] == ["10.0.0.1" if count == 1 else f"10.0.0.1-10.0.0.{count}"]


@pytest.mark.parametrize(
    ("surge", "more"),
    [("0", 26), (4, 22), ("25%", 20), ("100%", 11)],  # 4 + 20 and a quarter of 24 are the 30 there are
)
def test_more_replicas_are_more_to_replace_at_once(surge: str | int, more: int) -> None:
    strategy = {"rollingUpdate": {"maxSurge": surge}}
    found = plan(nad(range="10.0.0.0/27"), workload("Deployment", "visitor", replicas=4, strategy=strategy))
    assert [fit["more"] for fit in found["fits"]] == [more]


def test_who_takes_the_lowest_may_be_before_a_replica() -> None:
    both = workload("StatefulSet", "web", replicas=1), workload("Deployment", "visitor", replicas=1)
    assert "started before shop/web-0, it may have 10.0.0.1" in plan(nad(), *both)["notes"][0]
    mapped = nad(sticky={"replicas": {"shop/web": ["10.0.0.1"]}})
    assert plan(mapped, *both)["notes"] == []


def test_one_network_a_replica_by_its_number() -> None:
    static = {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}
    nads = [
        nad(f"vlan{n}", config={**static, "ipam": {"type": "static", "addresses": [{"address": f"10.0.0.{n}/29"}]}})
        for n in range(2)
    ]
    found = plan(*nads, workload("StatefulSet", "web", "vlan{ordinal}@eth{ordinal+1}", replicas=2))
    assert [(r["pod"], r["network"], r["interface"], r["address"]) for r in found["replicas"]] == [
        ("web-0", "vlan0", "eth1", "10.0.0.0/29"),
        ("web-1", "vlan1", "eth2", "10.0.0.1/29"),
    ]
    third = plan(*nads, workload("StatefulSet", "web", "vlan{ordinal}", replicas=3), code=1)
    assert len(third["replicas"]) == 2
    assert third["clashes"] == [
        'shop/web-2 is not planned: find network "shop/vlan2": no such NetworkAttachmentDefinition'
    ]


def test_one_static_address_for_two_pods() -> None:
    static = {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}
    definition = nad(config={**static, "ipam": {"type": "static", "addresses": [{"address": "10.0.0.9/24"}]}})
    found = plan(definition, workload("StatefulSet", "web", replicas=2), code=1)
    assert found["clashes"] == ["10.0.0.9 is given to both shop/web-0 and shop/web-1"]
    many = plan(definition, workload("Deployment", "many", replicas=2), code=1)
    assert many["clashes"] == ["10.0.0.9 is given to every pod of shop/deployment/many"]


def test_addresses_of_others_are_not_made_up() -> None:
    config = {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}
    local = {"type": "host-local", "subnet": "10.0.0.0/24"}
    found = plan(
        nad("a", config={**config, "ipam": local}),
        nad("b", config=config),
        nad("c", config={**config, "ipam": {"type": "dhcp"}}),
        workload("StatefulSet", "web", "a,b,c", replicas=1),
    )
    assert [(r["address"], r["why"]) for r in found["replicas"]] == [
        (None, "host-local chooses it on the node"),
        (None, "no addresses: it has no ipam section"),
        (None, "dhcp gives it"),
    ]


def test_what_an_ipam_claim_gives_is_not_made_up() -> None:
    claimed = '[{"name": "net", "ipam-claim-reference": "vm"}]'
    found = plan(nad(), workload("StatefulSet", "web", claimed, replicas=1))
    assert [(r["address"], r["why"]) for r in found["replicas"]] == [(None, 'IPAMClaim "vm" gives it')]


# --- against what is allocated -----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "allocations.db")


def put(store: SqliteStore, address: str, owner: Replica | PodOwner, phase: Phase = Phase.BOUND) -> None:
    holder = Holder(container_id="c", ifname="net1", netns_path="", node="node-1", pod_uid="u")
    allocation = Allocation(
        scope="",
        address=ip_address(address),
        slot=Slot(owner, "net", "net1"),
        phase=phase,
        holder=holder if phase is Phase.BOUND else None,
        since=AT,
    )
    store.create(allocation, cause="test")


def test_what_is_allocated_now_stays_and_counts(store: SqliteStore, tmp_path: Path) -> None:
    put(store, "10.0.0.5", Replica(WEB, 0))
    put(store, "10.0.0.6", Replica(WEB, 1), Phase.RETAINED)
    put(store, "10.0.0.3", PodOwner("shop", "visitor-7d9f-abcde", "u"))
    args = ("--store", str(tmp_path / "allocations.db"))
    objects = [nad(), workload("StatefulSet", "web", replicas=3), workload("Deployment", "visitor", replicas=2)]
    found = plan(*objects, args=args, code=1)
    assert addresses(found) == {"web-0": ["10.0.0.5/29"], "web-1": ["10.0.0.6/29"], "web-2": ["10.0.0.1/29"]}
    assert [line["why"] for line in found["replicas"]] == [
        "has it now on node-1",
        "Retained for it since 2026-01-01 00:00 UTC",
        "lowest free: 10.0.0.3 is Bound for shop/visitor-7d9f-abcde",
    ]
    assert found["clashes"] == [
        "shop/web-2 cannot have its number: 10.0.0.3 is Bound for shop/visitor-7d9f-abcde",
    ]
    assert found["others"][0]["addresses"] == ["10.0.0.2-10.0.0.3"]
    assert [(r["taken"], r["planned"], r["surge"], r["left"]) for r in found["ranges"]] == [(3, 2, 1, 0)]


def test_a_mapped_address_that_is_another_s(store: SqliteStore, tmp_path: Path) -> None:
    put(store, "10.0.0.1", PodOwner("shop", "early", "u"))
    definition = nad(sticky={"replicas": {"shop/web": ["10.0.0.1"]}})
    args = ("--against", "store", "--store", str(tmp_path / "allocations.db"))
    found = plan(definition, workload("StatefulSet", "web", replicas=1), args=args, code=1)
    assert found["clashes"] == ["shop/web-0 gets no address on net/net1: 10.0.0.1 is Bound for shop/early"]


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--against", "store"), "expected --store PATH or --lab NAME with it"),
        (("--against", "nothing", "--lab", "x"), "expected without --store, --lab and --kubeconfig"),
        (("--store", "a", "--lab", "b"), "expected one of --store, --lab and --kubeconfig, found 2"),
    ],
)
def test_options_that_contradict(args: tuple[str, ...], expected: str) -> None:
    assert expected in " ".join(run(nad(), args=args, code=2).replace("│", "").split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "read <stdin>:1: found"),
        (json.dumps(workload("StatefulSet", "web", replicas="three")), "replicas of shop/statefulset/web: found three"),
        (json.dumps({"kind": "StatefulSet", "metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "net"}}}), ""),
        (json.dumps(workload("Deployment", "v", strategy={"rollingUpdate": {"maxSurge": "lots"}})), "maxSurge of"),
        (json.dumps(workload("StatefulSet", "web", "no such@@")), "is not planned"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_line(text: str, expected: str) -> None:
    command = [sys.executable, "-m", "homeport", "plan", "-f", "-"]
    stdin = text if text.startswith("a:") else f"{json.dumps(nad())}\n---\n{text}"
    ran = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in ran.stderr
    assert expected in ran.stdout + ran.stderr
    assert not expected or ran.returncode == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "homeport", "plan", "-f", str(tmp_path / "none.yaml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f'homeport: read "{tmp_path}/none.yaml": No such file or directory\n'
