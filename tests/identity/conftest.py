"""A lab for each test, driven by the commands a person would type, and seen through `ip -json` inside its pods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.identity.shapes import Seen, Shape, flat

from homeport.host.kernel import Kernel
from homeport.ports import AllocationStore, LedgerEntry
from homeport.stores.sqlite import SqliteStore

NAMESPACE = "shop"


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: str
    stderr: str


class Zygote:
    """The warm process commands are forked from."""

    def __init__(self) -> None:
        program = Path(__file__).parent / "zygote.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, argv: Sequence[str], env: Mapping[str, str], *, stdin: str = "", kill_at: int = 0) -> Ran:
        assert self._process.stdin
        assert self._process.stdout
        request = {"argv": argv, "env": env, "stdin": stdin, "kill_at": kill_at}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Ran(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Lab:
    """One lab and the manifests it was last given."""

    zygote: Zygote
    directory: Path
    shape: Shape
    ipvlan: bool  # whether the kernel has it; otherwise macvlan stands for it
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, *words: str, code: int | None = 0, stdin: str = "", kill_at: int = 0) -> Ran:
        """`homeport lab WORDS`, which must exit with `code` (None: with any)."""
        env = {"HOMEPORT_LAB_DIR": str(self.directory)}
        ran = self.zygote.run(["lab", *words], env, stdin=stdin, kill_at=kill_at)
        assert code in (None, ran.code), f"homeport lab {' '.join(words)}: exit {ran.code}\n{ran.stdout}{ran.stderr}"
        return ran

    # --- manifests ------------------------------------------------------------------------------------------------

    def network(self, name: str, *, size: int = 20, sticky: object = None, **plugin: Any) -> None:
        """A network over its shape's ranges, of `size` addresses each."""
        ranges = self.shape.ranges(name, size)
        ipam: dict[str, Any] = {"type": "whereabouts", "ipRanges": ranges}
        if sticky is not None:
            ipam["sticky"] = sticky
        interface = {"type": "ipvlan", "master": f"eth{self.shape.networks.index(name) + 1}", "ipam": ipam, **plugin}
        self.custom_network(name, interface, {"type": "sbr"})

    def custom_network(self, name: str, *plugins: Mapping[str, Any]) -> None:
        config = json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
        self.manifests[f"network {name}"] = {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"config": config},
        }

    def networks(self, *, size: int = 20, sticky: object = None) -> None:
        """Every network of the shape."""
        for name in self.shape.networks:
            self.network(name, size=size, sticky=sticky)

    def workload(
        self,
        name: str,
        replicas: int = 3,
        *,
        kind: str = "StatefulSet",
        networks: Sequence[str] | None = None,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> None:
        wanted = ",".join(self.shape.networks if networks is None else networks)
        template = {
            "labels": {"app": name, **(labels or {})},
            "annotations": {"k8s.v1.cni.cncf.io/networks": wanted, **(annotations or {})},
        }
        self.manifests[name] = {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"replicas": replicas, **spec, "template": {"metadata": template}},
        }

    def up(self, *options: str, code: int | None = 0) -> Ran:
        """All manifests so far; nodes stay as many as there are."""
        text = "\n---\n".join(json.dumps(m) for m in self.manifests.values())
        substitute = [] if self.ipvlan else ["--substitute", "ipvlan=macvlan"]
        return self("up", "-f", "-", *substitute, *options, code=code, stdin=text)

    # --- what is there --------------------------------------------------------------------------------------------

    def get(self, what: str = "replicas") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("get", what, "-o", "json").stdout)
        return found

    def nodes_of(self, workload: str = "web") -> dict[str, str]:
        """Pod to node."""
        return {r["replica"]: r["node"] for r in self.get() if r["replica"].startswith(f"{workload}-")}

    def uids(self) -> set[str]:
        """Of every pod there is."""
        return {pod["uid"] for pod in self.get("pods")}

    def inside(self, netns: str, *command: str) -> str:
        """What `command` prints in a namespace of the lab, entered without any code of ours."""
        keeper = json.loads((self.directory / "lab" / "keeper.json").read_bytes())["pid"]
        enter = ["nsenter", f"--target={keeper}", "--mount", "--", "nsenter", f"--net={netns}", "--"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    @property
    def masters(self) -> list[str]:
        return [f"eth{n}" for n in range(1, self.shape.interfaces + 1)]

    def links_of_nodes(self, nodes: Iterable[str]) -> set[str]:
        """The names of all links of these nodes, without `lo`."""
        paths = [str(self.directory / "lab" / "run" / "nodes" / node) for node in nodes]
        found = [link for path in paths for link in json.loads(self.inside(path, "ip", "-json", "link"))]
        return {link["ifname"] for link in found} - {"lo"}

    def namespaces(self) -> set[str]:
        """Container IDs that have a namespace."""
        return set(self.inside(str(self.directory / "lab/run/lan"), "ls", str(self.directory / "lab/run/pods")).split())

    def links(self, pods: Iterable[Mapping[str, Any]] | None = None) -> dict[str, list[dict[str, Any]]]:
        """By running pod: `ip -json address`, without `lo`. `pods` is what `get pods` said, where that is known."""
        found = {}
        for pod in self.get("pods") if pods is None else pods:
            if pod["phase"] == "Running":
                links = json.loads(self.inside(pod["netns"], "ip", "-json", "address"))
                found[pod["name"]] = [link for link in links if link["ifname"] != "lo"]
        return found

    def kernel(self, pods: Iterable[Mapping[str, Any]] | None = None) -> Seen:
        """What the kernel says each running pod has."""
        return {
            pod: {
                link["ifname"]: tuple(i["local"] for i in link["addr_info"] if i["scope"] == "global") for link in links
            }
            for pod, links in self.links(pods).items()
        }

    def seen(self, workload: str = "") -> Seen:
        """What the kernel says each running pod (of that workload) has; the table must say the same."""
        told: dict[str, dict[str, tuple[str, ...]]] = {}
        for row in self.get():
            if row["phase"] == "Running":
                of_pod = told.setdefault(row["replica"], {})
                if row["interface"]:
                    of_pod[row["interface"]] = tuple(row["addresses"])
        kernel = self.kernel()
        assert kernel == told
        return {pod: seen for pod, seen in kernel.items() if pod.startswith(workload)}

    def macs(self) -> dict[str, dict[str, str]]:
        """By running pod and interface."""
        return {pod: {link["ifname"]: link["address"] for link in links} for pod, links in self.links().items()}

    def numbered(self, replicas: int = 3, workload: str = "web", *, first: int = 0) -> Seen:
        """Replica n with address number n."""
        return {f"{workload}-{first + n}": self.shape.numbered(n) for n in range(replicas)}

    @cached_property
    def store(self) -> AllocationStore:
        return SqliteStore(str(self.directory / "lab" / "allocations.db"))

    def allocated(self, phase: str | None = None) -> dict[str, str]:
        """Address to owner."""
        return {str(a.address): str(a.slot.owner) for a in self.store.all() if phase is None or a.phase.value == phase}

    def ledger(self, address: str) -> list[LedgerEntry]:
        return list(self.store.ledger(address=ip_address(address)))

    def flat(self, seen: Seen) -> set[str]:
        """Every address in it."""
        return flat(seen)

    def require_no_leak(self) -> None:
        """Bound is exactly what some running pod has in its namespace."""
        assert set(self.allocated("Bound")) == self.flat(self.seen())


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    started.close()


SHAPES = [Shape(1, False), Shape(1, True), Shape(2, False), Shape(2, True)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


@pytest.fixture
def lab(zygote: Zygote, tmp_path: Path, shape: Shape) -> Iterator[Lab]:
    """An empty lab with nothing started; gone after the test."""
    made = Lab(zygote, tmp_path / "labs", shape, Kernel().supports_kind("ipvlan"))
    yield made
    made("down")
