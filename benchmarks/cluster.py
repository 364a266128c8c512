"""`python -m benchmarks.cluster`: one IPAM ADD with a real API server behind it, and a thousand at once.

The node's own part of an attach is left out: pods are what the daemon's watch would know, and no interface is made. The
alternative is what Whereabouts asks of the same API server, re-enacted (see `benchmarks.leased`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
from benchmarks.claimant import LEASED, OURS, PATIENT, RANGE, Claimant, Share
from benchmarks.leased import LeasedNode, pool_object
from benchmarks.measuring import Figure, Samples, figures, timed

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, PodOwner, Slot
from homeport.ipam.objects import Pod
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.hints import RangeReport, Totals, range_body
from homeport.stores.kubernetes.runs import Runs

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))

from testcluster.api import Api, ApiError  # noqa: E402 -- the path is set above
from testcluster.control_plane import ADMIN, READY_SECONDS, ControlPlane, node_user  # noqa: E402
from testcluster.homeport_controller import HomeportController  # noqa: E402
from testcluster.installing import install  # noqa: E402

LEVELS = (0, 1_000, 10_000, 60_000)
NODES = tuple(f"node-{n}" for n in range(10))
PODS = 1000
CROWD = "10.96.0.0/15"
COUNTED = 20
_ETCD_BYTES_MAX = 1_572_864  # of a request, unless it is told otherwise
_LEASED_USER = "leased"
_FIRST = ip_address("10.64.0.1")
_OURS_PATH = "/apis/homeport.dev/v1alpha1"
_WHEREABOUTS_CRDS = ROOT / "tests" / "fixtures" / "whereabouts" / "crds.yaml"
POD, FIRST, RETURN = "ours, a pod", "ours, a replica's first", "ours, a replica's return"


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Many addresses claimed from many nodes at once."""

    who: str
    asked: int
    got: int
    failures: int
    addresses_a_second: float
    slowest_ms: float


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    """Times are milliseconds. `requests` is what one act asks of the API server: who, then verb and resource."""

    figures: list[Figure]
    p95: dict[str, dict[str, float]]
    requests: dict[str, dict[str, float]]
    crowds: list[Crowd]
    missing: list[str] = []


def measure(folder: Path, *, rounds: int, levels: Sequence[int], pods: int) -> ClusterReport:
    """Everything it makes is in `folder` and gone with its control plane."""
    users = {_LEASED_USER: ("system:masters",)}
    with ControlPlane(folder / "plane", nodes=NODES, users=users, audit=True) as plane:
        admin = Api(plane.access(ADMIN))
        install(admin)
        for crd in admin.apply_file(_WHEREABOUTS_CRDS):
            admin.wait_established(crd["metadata"]["name"])
        crowds = _crowds(plane, admin, folder, pods)
        ours = Claimant(plane.kubeconfig(node_user(NODES[0])), NODES[0], folder)
        other = Claimant(plane.kubeconfig(_LEASED_USER), _LEASED_USER, folder, deadline_seconds=PATIENT)
        leased = LeasedNode(other.objects, RANGE, _LEASED_USER)
        acts = _acts(ours, leased)
        samples: Samples = {}
        missing: list[str] = []
        filled = 0
        for level in levels:
            plane.fill(dict(_allocations(filled, level)))
            filled = level
            _await_watched(admin, level)
            _hint(admin, level)
            has_pool = _fill_pool(plane, admin, level, missing)
            for number in range(rounds + 1):
                for who, act in acts.items():
                    if who != LEASED or has_pool:
                        name = f"{who.split()[-1].lower()}-{level}-{number}"
                        act.before(name)
                        took = act.add(name)
                        act.after(name)
                        if number:
                            samples.setdefault(f"IPAM ADD, {level} taken", {}).setdefault(who, []).append(took)
        _fill_pool(plane, admin, 0, [])
        requests = {who: _requests(plane, who, act) for who, act in acts.items()}
        ours.close()
        other.close()
        admin.close()
    return ClusterReport(
        figures=figures(samples, alternative=LEASED),
        p95={what: {who: _percentile(values, 95) for who, values in by.items()} for what, by in samples.items()},
        requests=requests,
        crowds=crowds,
        missing=missing,
    )


class Act(msgspec.Struct, frozen=True):
    """One contestant's ADD for a name: what comes before it, itself in milliseconds, and what removes it again."""

    before: Callable[[str], object]
    add: Callable[[str], float]
    after: Callable[[str], object]


def _acts(ours: Claimant, leased: LeasedNode) -> Mapping[str, Act]:
    """By who. A replica's ordinal is beyond all that is taken, so that the address of its ordinal is free."""
    numbers: dict[str, int] = {}

    def replica(name: str) -> Pod:
        return ours.pod(f"web-{numbers.setdefault(name, 100_000 + len(numbers))}", is_replica=True)

    def remove(pod: Pod, container_id: str) -> None:
        ours.delete(pod, container_id)
        ours.deliver()

    def come_and_go(name: str) -> None:
        ours.add(replica(name), name)
        remove(replica(name), name)

    return {
        POD: Act(
            lambda _name: None,
            lambda name: timed(partial(ours.add, ours.pod(name), name)),
            lambda name: remove(ours.pod(name), name),
        ),
        FIRST: Act(
            lambda _name: None,
            lambda name: timed(partial(ours.add, replica(name), name)),
            lambda name: remove(replica(name), name),
        ),
        RETURN: Act(
            come_and_go,
            lambda name: timed(partial(ours.add, replica(name), f"{name}-again")),
            lambda name: remove(replica(name), f"{name}-again"),
        ),
        LEASED: Act(
            lambda _name: None,
            lambda name: leased.requests_ms(partial(leased.add, name, f"bench/{name}")),
            leased.delete,
        ),
    }


def _requests(plane: ControlPlane, who: str, act: Act) -> dict[str, float]:
    """What one ADD asks, by the audit log."""
    user = _LEASED_USER if who == LEASED else node_user(NODES[0])
    names = [f"counted-{who.split()[-1].lower()}-{number}" for number in range(COUNTED)]
    for name in names:
        act.before(name)
    before = len(plane.requests(user))
    for name in names:
        act.add(name)
    asked = plane.requests(user)[before:]
    for name in names:
        act.after(name)
    counted: dict[str, float] = {}
    for request in asked:
        if request.verb != "watch":
            key = f"{request.verb} {request.resource}"
            counted[key] = counted.get(key, 0) + 1 / COUNTED
    return counted


def _crowds(plane: ControlPlane, admin: Api, folder: Path, pods: int) -> list[Crowd]:
    """Of an empty range each, with the controller at work as it would be."""
    admin.create("/api/v1/namespaces", {"metadata": {"name": "bench"}})
    plane.fill(dict(_pods(pods // len(NODES))))  # the controller frees what is of no pod
    ipam = {"type": "whereabouts", "range": CROWD}
    config = {"cniVersion": "1.0.0", "name": "crowd", "type": "macvlan", "ipam": ipam}
    admin.apply(
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "crowd", "namespace": "bench"},
            "spec": {"config": json.dumps(config)},
        }
    )
    controller = HomeportController(plane, folder / "controller")
    controller.start()
    controller.wait(lambda: admin.get(f"{_OURS_PATH}/ipranges")["items"], READY_SECONDS, "the range is counted")
    crowds = [_crowd(plane, who, pods) for who in (OURS, LEASED)]
    controller.stop()
    return crowds


def _crowd(plane: ControlPlane, who: str, pods: int) -> Crowd:
    """Every node is a process of its own, and claims one address after the other."""
    user = node_user if who == OURS else lambda _node: _LEASED_USER
    each = pods // len(NODES)
    argv = [sys.executable, "-m", "benchmarks.claimant"]
    started = [
        subprocess.Popen(
            [*argv, str(plane.kubeconfig(user(node))), node, str(each), who, CROWD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in NODES
    ]
    for process in started:
        assert process.stdout
        process.stdout.readline()
    began = time.monotonic()
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    shares = []
    for process in started:
        assert process.stdout
        shares.append(msgspec.json.decode(process.stdout.readline(), type=Share))
    took = time.monotonic() - began
    for process in started:
        process.communicate()
    addresses = [address for share in shares for address in share.addresses]
    if len(set(addresses)) != len(addresses):
        raise SystemExit(f"benchmarks: {who}: an address was given twice")
    return Crowd(
        who=who,
        asked=each * len(NODES),
        got=len(addresses),
        failures=sum(len(share.failures) for share in shares),
        addresses_a_second=len(addresses) / took,
        slowest_ms=max((ms for share in shares for ms in share.ms), default=0.0),
    )


def _pods(each: int) -> Iterator[tuple[str, bytes]]:
    """Keys and values for etcd: the nodes, and their pods by the names that `benchmarks.claimant` gives them."""
    for node in NODES:
        yield f"/registry/minions/{node}", _stored("v1", "Node", {"name": node, "uid": node}, {})
        for n in range(each):
            name = f"{node}-{n}"
            spec = {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}
            metadata = {"name": name, "namespace": "bench", "uid": f"uid-{name}"}
            yield f"/registry/pods/bench/{name}", _stored("v1", "Pod", metadata, {"spec": spec})


def _stored(version: str, kind: str, metadata: Mapping[str, Any], rest: Mapping[str, Any]) -> bytes:
    """An object as the API server stores it."""
    whole = {"creationTimestamp": "2026-01-01T00:00:00Z", **metadata}
    return msgspec.json.encode({"apiVersion": version, "kind": kind, "metadata": whole, **rest})


def _allocations(first: int, end: int) -> Iterator[tuple[str, bytes]]:
    """Keys and values for etcd of the range's addresses number `first` up to but not including `end`."""
    now = datetime.now(UTC)
    for n in range(first, end):
        owner = PodOwner("bench", f"filler-{n}", f"uid-{n}")
        allocation = Allocation(
            scope="",
            address=_FIRST + n,
            slot=Slot(owner, "pool", "net1"),
            phase=Phase.BOUND,
            holder=Holder(
                container_id=f"{n:064x}",
                ifname="net1",
                netns_path=f"/run/netns/{n}",
                node="elsewhere",
                pod_uid=f"uid-{n}",
            ),
            since=now,
        )
        body: dict[str, Any] = wire.create_body(allocation, cause="allocated", changed=now, write="filled")
        name = names.allocation_name("", allocation.address)
        metadata = {**body.pop("metadata"), "uid": f"uid-{n}"}
        value = _stored("homeport.dev/v1alpha1", "IPAllocation", metadata, body)
        yield f"/registry/homeport.dev/ipallocations/{name}", value


def _await_watched(admin: Api, taken: int) -> None:
    """Until the API server's own watch of etcd has come to the last of what was filled in, or it would be busy yet."""
    until = time.monotonic() + READY_SECONDS
    last = f"{_OURS_PATH}/ipallocations/{names.allocation_name('', _FIRST + taken - 1)}"
    while taken:
        try:
            admin.get(last, resourceVersion="0")  # from what it has in memory
        except ApiError as e:
            if e.status != 404 or time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _hint(admin: Api, taken: int) -> None:
    """What the controller would have counted."""
    network = ip_network(RANGE)
    report = RangeReport(
        scope="",
        first=_FIRST,
        last=network.broadcast_address - 1,
        subnet=network,
        networks=("bench/pool",),
        totals=Totals(usable=network.num_addresses - 2, bound=taken, free=network.num_addresses - 2 - taken),
        taken=Runs.parse(f"0-{taken - 1}" if taken else ""),
        updated=datetime.now(UTC),
    )
    body = range_body(report)
    admin.apply({"apiVersion": "homeport.dev/v1alpha1", "kind": "IPRange", **body})


def _fill_pool(plane: ControlPlane, admin: Api, taken: int, missing: list[str]) -> bool:
    """Whether a pool of one object can have so many addresses."""
    key, value = pool_object(RANGE, taken)
    namespace, name = key.split("/")[-2:]
    what = f"{LEASED} with {taken} addresses taken, in one object of {len(value) >> 10} KiB"
    if len(value) > _ETCD_BYTES_MAX:
        missing.append(f"{what}: more than etcd keeps")
        return False
    try:
        plane.fill({key: value})
        admin.patch(
            f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{namespace}/ippools/{name}",
            {"metadata": {"annotations": {"taken": str(taken)}}},
        )
    except ApiError as e:
        missing.append(f"{what}: {e}")
        return False
    return True


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def run(rounds: int, levels: Sequence[int], pods: int) -> ClusterReport:
    """In a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.cluster", "--rounds", str(rounds), "--pods", str(pods), "-o", "json"]
    done = subprocess.run([*argv, "--levels", *map(str, levels)], stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=ClusterReport)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--levels", type=int, nargs="*", default=list(LEVELS), help="addresses taken, ascending")
    parser.add_argument("--pods", type=int, default=PODS, help="claimed at once from ten nodes")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpb-", dir="/tmp") as folder:
        measured = measure(Path(folder), rounds=args.rounds, levels=args.levels, pods=args.pods)
    if args.output == "json":
        print(msgspec.json.encode(measured).decode())
        return
    from benchmarks import report
    from homeport.cli import output

    if args.write:
        report.write_cluster(report.machine(), measured)
    for title, headers, rows in report.of_cluster(measured):
        print(f"{title}\n{output.table(headers, rows)}\n")
    for reason in measured.missing:
        print(f"not measured: {reason}")


if __name__ == "__main__":
    main()
