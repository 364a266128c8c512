"""A namespace of a cluster, seen by eyes that are not Homeport's.

I/O: `ip -json` in the pods' namespaces, and plain GETs. Every wait has a deadline.
"""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testcluster.api import Api
from testcluster.homeport_node import HomeportNode, ip_json, links
from testcluster.sandboxes import Sandbox
from tests.apiserver.node.workloads import Cluster
from tests.identity.cluster.crews import HOMEPORT
from tests.identity.shapes import Addresses, Seen, Shape, flat

Json = dict[str, Any]
SECONDS = 40.0


@dataclass(frozen=True)
class Record:
    """An allocation, as its object says."""

    name: str
    address: str
    phase: str
    pod: str  # whose it is, by the pod's name
    node: str  # that last held it
    container: str  # that holds it now
    cause: str


class Observed(Cluster):
    """Of one test: its pods, on the cluster's nodes by name, with networks after `shape`."""

    def __init__(self, api: Api, namespace: str, nodes: Mapping[str, HomeportNode], shape: Shape) -> None:
        super().__init__(api, namespace)
        self.nodes = nodes
        self.shape = shape

    # --- what is there ---------------------------------------------------------------------------------------------

    def host_of(self, pod: str) -> str:
        """The node the pod is bound to."""
        name: str = self.pod(pod)["spec"]["nodeName"]
        return name

    def hosts(self, workload: str = "") -> dict[str, str]:
        """Running pod (of that workload) to node."""
        prefix = workload and f"{workload}-"
        return {n: p["spec"]["nodeName"] for n, p in self.running().items() if n.startswith(prefix)}

    def uids_of(self, *pods: str) -> set[str]:
        there = self.pods()
        return {there[pod]["metadata"]["uid"] for pod in pods}

    def netns_of(self, pod: str) -> str:
        return self.sandbox_of(pod).netns

    def links(self) -> dict[str, list[Json]]:
        """By running pod: `ip -json address`, without `lo` and the cluster's own network."""
        found = {}
        for name, node in self.hosts().items():
            links = ip_json(self.nodes[node].sandbox(self.namespace, name).netns, "address")
            found[name] = [link for link in links if link["ifname"] not in ("lo", "eth0")]
        return found

    def kernel(self, workload: str = "") -> Seen:
        """What the kernel says each running pod (of that workload) has."""
        return {pod: global_addresses(links) for pod, links in self.links().items() if pod.startswith(workload)}

    def addresses_of(self, pod: str, node: str) -> Addresses:
        """What the kernel says this pod has, without asking the API server where it is."""
        return global_addresses(ip_json(self.nodes[node].sandbox(self.namespace, pod).netns, "address"))

    def macs(self) -> dict[str, dict[str, str]]:
        """By running pod and interface."""
        return {pod: {link["ifname"]: link["address"] for link in links} for pod, links in self.links().items()}

    def in_all_namespaces(self) -> list[str]:
        """Every address that some namespace of this test's pods has, on any node, as often as it is there."""
        sandboxes = [s for node in self.nodes.values() for s in node.runtime.sandboxes()]
        found = [look(sandbox) for sandbox in sandboxes if sandbox.namespace == self.namespace]
        return sorted(address for interfaces in found for addresses in interfaces.values() for address in addresses)

    def await_settled(self, *pods: str) -> None:
        """Until no IPv6 address of these pods is being tried any more (RFC 4862 §5.4)."""

        def settled() -> bool:
            links = self.links()
            return not any(i.get("tentative") for pod in pods for link in links[pod] for i in link["addr_info"])

        self.wait(settled, f"no address of {pods} is tentative")

    def ping(self, source: str, target: str, count: int = 3) -> None:
        """From one pod to the other over every network and family; one echo has to come back."""
        kernel, netns = self.kernel(), self.netns_of(source)
        for ifname, addresses in kernel[target].items():
            for own, address in zip(kernel[source][ifname], addresses, strict=True):
                argv = ["ip", "netns", "exec", netns, "ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1"]
                done = subprocess.run([*argv, "-I", own, address], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{source} {own} to {target} {address}: {done.stdout}{done.stderr}"

    def failures(self, pod: str, words: str) -> list[str]:
        """What ADDs of this pod (or of the workload of that name) failed with, where that holds these words."""
        found = [f for node in self.nodes.values() for f in list(node.kubelet.failures)]
        return [str(f.error) for f in found if f.pod.startswith(f"{self.namespace}/{pod}") and words in str(f.error)]

    def await_failures(self, pod: str, words: str, count: int) -> None:
        """Until so many ADDs failed with these words."""
        self.wait(lambda: len(self.failures(pod, words)) >= count, f"{count} ADDs of {pod} fail: {words}", SECONDS)

    def await_event(self, reason: str, name: str, seconds: float = SECONDS) -> Json:
        """Until an event of that reason is there on an object of that name, ours or the cluster's; its last."""

        def concerns(event: Json) -> bool:
            of = event["involvedObject"]
            return of["name"] == name and of.get("namespace", "") in ("", self.namespace)

        def found() -> list[Json]:
            return [e for e in self.api.get("/api/v1/events")["items"] if e["reason"] == reason and concerns(e)]

        self.wait(found, f"an event {reason} on {name}", seconds)
        return found()[-1]

    def numbered(self, replicas: int = 3, workload: str = "web") -> Seen:
        """Replica n with address number n."""
        return {f"{workload}-{n}": self.shape.numbered(n) for n in range(replicas)}

    def records(self) -> dict[str, Record]:
        """By address: the allocations of pods of this namespace."""
        found = {}
        for item in self.api.get(f"{HOMEPORT}/ipallocations")["items"]:
            spec, status = item["spec"], item["status"]
            if spec["owner"].get("namespace") == self.namespace:
                found[spec["address"]] = Record(
                    name=item["metadata"]["name"],
                    address=spec["address"],
                    phase=status["phase"],
                    pod=spec["owner"].get("name", ""),
                    node=status.get("node", ""),
                    container=(status.get("holder") or {}).get("containerID", ""),
                    cause=status.get("cause", ""),
                )
        return found

    def phases(self) -> dict[str, str]:
        """Address to phase."""
        return {address: record.phase for address, record in self.records().items()}

    def addresses_in(self, phase: str) -> set[str]:
        """The allocations in that phase."""
        return {address for address, found in self.phases().items() if found == phase}

    def ledger(self, address: str) -> list[Json]:
        """What changed of an address of this namespace' pods, oldest first."""
        chunks = sorted(self.api.get(f"{HOMEPORT}/ipledgers")["items"], key=lambda c: str(c["metadata"]["name"]))
        entries = [e for c in chunks for e in json.loads(gzip.decompress(base64.b64decode(c["spec"]["data"])))]
        return [e for e in entries if _concerns(e["before"] or e["after"], self.namespace, address)]

    def exists(self, statefulset: str) -> bool:
        """Whether there is such a workload, be it on its way out."""
        return self.api.find(self._set(statefulset)) is not None

    def sandbox_of(self, pod: str) -> Sandbox:
        return self.nodes[self.host_of(pod)].sandbox(self.namespace, pod)

    def links_of(self, node: HomeportNode) -> set[str]:
        """The names of the node's own links, but for its cables."""
        return links(node.machine.netns).keys() - {"lo", "eth0", "eth1"}

    # --- requiring -------------------------------------------------------------------------------------------------

    def await_seen(self, expected: Mapping[str, Addresses], workload: str = "", seconds: float = SECONDS) -> None:
        """Until the running pods (of that workload) are these, with these addresses in the kernel."""
        self.wait(lambda: self.hosts(workload).keys() == expected.keys(), f"running: {sorted(expected)}", seconds)
        assert self.kernel(workload) == expected

    def restarted(
        self,
        expected: Mapping[str, Addresses],
        but: Collection[str],
        workload: str = "",
        seconds: float = SECONDS,
    ) -> None:
        """`await_seen` once none of the pods with the UIDs `but` is left."""
        self.wait(lambda: not self.uids() & set(but), "the old pods are gone", seconds)
        self.await_seen(expected, workload, seconds)

    def await_phases(self, expected: Mapping[str, str] | Callable[[], Mapping[str, str]], what: str = "") -> None:
        """Until the allocations are these and no others: what is let go is delivered in the background (R10)."""
        wanted = expected if callable(expected) else lambda: expected

        def told() -> bool:
            return self.phases() == wanted()

        try:
            self.wait(told, what or "the allocations", SECONDS)
        except AssertionError as e:
            found, asked = self.records(), wanted()
            wrong = {a: (r.pod, r.phase, r.cause) for a, r in found.items() if asked.get(a) != r.phase}
            missing = {a: phase for a, phase in asked.items() if a not in found}
            raise AssertionError(f"{what}: found {wrong}, missing {missing}") from e

    def await_phase(self, phase: str, addresses: Collection[str]) -> None:
        """Until exactly these addresses are in that phase."""
        wanted = set(addresses)
        self.wait(
            lambda: self.addresses_in(phase) == wanted,
            f"{phase}: {sorted(wanted)}",
            SECONDS,
        )

    def await_ledger(self, address: str, condition: Callable[[list[Json]], object]) -> list[Json]:
        """Until that holds of what the ledger says of the address."""
        self.wait(lambda: condition(self.ledger(address)), f"the ledger tells of {address}", SECONDS)
        return self.ledger(address)

    def require_no_leak(self) -> None:
        """Bound is, in the end, exactly what some running pod has; and no address is there twice."""
        self.await_phase("Bound", flat(self.kernel()))
        there = self.in_all_namespaces()
        assert len(there) == len(set(there)), f"twice: {there}"


def look(sandbox: Sandbox) -> Addresses:
    """What the kernel says is in it now; nothing where it is gone. One that is being removed is waited for."""
    while sandbox.exists:
        try:
            return global_addresses(ip_json(sandbox.netns, "address"))
        except subprocess.CalledProcessError:
            continue
    return {}


def global_addresses(links: Sequence[Json]) -> dict[str, tuple[str, ...]]:
    """Interface to addresses, of what `ip -json address` says, without those of `lo` and the cluster's own network."""
    return {
        link["ifname"]: tuple(i["local"] for i in link["addr_info"] if i["scope"] == "global")
        for link in links
        if link["ifname"] not in ("lo", "eth0")
    }


def _concerns(side: Json, namespace: str, address: str) -> bool:
    spec = side["spec"]
    return (spec["address"], spec["owner"].get("namespace")) == (address, namespace)
