"""A whole node: pods attached through the shim, with a daemon and a real API server. `python -m benchmarks.node`.

A pod has a default network (bridge + host-local) and one that it selects (macvlan + whereabouts + sbr). The
alternative does the same kernel work by the Go plugins alone, as processes: host-local in whereabouts' place, and no
meta-plugin, no API server, no status, which its users would have to add. Each call is a process that this
program starts, from before its start to after its end; nobody else uses the control plane.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from benchmarks.measuring import Figure, figures, in_rounds, timed
from benchmarks.profiling import Hot, Share
from benchmarks.resident import Resident, resident

from benchmarks import profiled_daemon

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))

from testcluster.api import Api  # noqa: E402 -- the path is set above
from testcluster.control_plane import ADMIN, ControlPlane, node_user  # noqa: E402
from testcluster.homeport_node import DAEMON, FOREIGN, HomeportNode  # noqa: E402
from testcluster.installing import install  # noqa: E402
from testcluster.machines import Machine, Segment, delete_namespace, ip, path_of  # noqa: E402

OURS, GO = "ours: shim, daemon, API server", "Go plugins alone"
NODE, NAMESPACE = "node-a", "bench"
AT_ONCE, MANY, PROFILED = 32, 64, 30
_UPLINK = "eth1"


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """Many pods, so and so many at once."""

    what: str
    who: str
    pods_a_second: float
    slowest_ms: float


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Times are milliseconds. `requests` is what an ADD asks of the API server: verb and resource to how often."""

    figures: list[Figure]
    p95: dict[str, dict[str, float]]
    bursts: list[Burst] = []
    requests: dict[str, float] = {}
    memory: list[Resident] = []
    shares: list[Share] = []
    hottest: list[Hot] = []


class Homeport:
    """Calls the shim as a runtime does."""

    def __init__(self, node: HomeportNode) -> None:
        self._environ = node.shim_environ
        self._path = str(node.disk.bin_dir)
        self._stdin = node.disk.generated.read_bytes()

    def call(self, verb: str, pod: Pod) -> None:
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}"
        environ = _environ(verb, pod, "eth0", self._path) | self._environ | {"CNI_ARGS": args}
        _run([f"{self._path}/homeport"], environ, self._stdin)


class GoPlugins:
    """The chain of each network, a process a plugin, in the node's namespace."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._enter = ["nsenter", f"--net={machine.path}", "--"]
        self._networks = [("eth0", [_bridge("go0", folder)]), ("net1", [_macvlan(folder), {"type": "sbr"}])]
        self._results: dict[tuple[str, str], Any] = {}

    def call(self, verb: str, pod: Pod) -> None:
        for ifname, plugins in self._networks if verb == "ADD" else reversed(self._networks):
            result = self._results.pop((pod.name, ifname), None)
            for plugin in plugins if verb == "ADD" else reversed(plugins):
                conf = {"cniVersion": "0.4.0", "name": f"go-{ifname}", **plugin}
                if result is not None:
                    conf["prevResult"] = result
                argv = [*self._enter, f"{FOREIGN}/{plugin['type']}"]
                out = _run(argv, _environ(verb, pod, ifname, FOREIGN), json.dumps(conf).encode())
                if verb == "ADD":
                    result = json.loads(out)
            if verb == "ADD":
                self._results[pod.name, ifname] = result


class Pod(msgspec.Struct, frozen=True):
    """An object of the API server, and a namespace made before the clock starts."""

    name: str
    uid: str
    netns: str


def measure(folder: Path, *, rounds: int, pods: int) -> NodeReport:
    """Everything it makes is in `folder`, in namespaces of its own, and gone afterwards."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(folder / "plane", nodes=[NODE], audit=True))
        api = Api(plane.access(ADMIN))
        install(api)
        segment = Segment(plane.guard)
        stack.callback(segment.close)
        machine = Machine(NODE, plane, segment)
        stack.callback(machine.close)
        made = _make_pods(api, pods, stack)
        stats = folder / "profile"
        results = []
        for run, daemon in (("plain", DAEMON), ("profiled", profiled_daemon.argv(stats))):
            settings = {"logLevel": "error", "connectionLimit": 1} if run == "profiled" else {"logLevel": "error"}
            node = HomeportNode(
                machine,
                plane,
                folder / run,
                number=1,
                shim=_shim(),
                settings=settings,
                daemon=daemon,
            )
            stack.callback(node.close)
            node.start_daemon()
            _await_pods(node, made[0])
            if run == "plain":
                results.append(_measure_plain(node, GoPlugins(machine, folder / "go"), plane, made, rounds))
            else:
                for _ in range(PROFILED):
                    _both(Homeport(node), made[0])
            node.stop_daemon()
        shares, hottest = profiled_daemon.read(stats)
        return msgspec.structs.replace(results[0], shares=shares, hottest=hottest)


def _measure_plain(
    node: HomeportNode, go: GoPlugins, plane: ControlPlane, pods: Sequence[Pod], rounds: int
) -> NodeReport:
    ours = Homeport(node)
    acts: dict[str, dict[str, Callable[[], object]]] = {
        who: {verb: partial(contestant.call, verb, pods[0]) for verb in ("ADD", "DEL")}
        for who, contestant in ((OURS, ours), (GO, go))
    }
    before = len(plane.requests(node_user(NODE)))
    samples = in_rounds(acts, rounds)
    asked = plane.requests(node_user(NODE))[before:]
    counted: dict[str, float] = {}
    for request in asked:
        if request.verb != "watch":
            key = f"{request.verb} {request.resource}"
            counted[key] = counted.get(key, 0) + 1 / (rounds + 1)
    assert node.daemon
    bursts, memory = [], []
    for who, contestant in ((OURS, ours), (GO, go)):
        watch = [node.daemon.pid] if who == OURS else []
        with resident(who, watch) as peak:
            bursts += [_burst(verb, who, partial(contestant.call, verb), pods) for verb in ("ADD", "DEL")]
        memory += peak
    return NodeReport(
        figures=figures(samples, alternative=GO),
        p95={what: {who: _percentile(values, 95) for who, values in by.items()} for what, by in samples.items()},
        bursts=bursts,
        requests=counted,
        memory=memory,
    )


def _burst(verb: str, who: str, call: Callable[[Pod], None], pods: Sequence[Pod]) -> Burst:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        began = perf_counter()
        each = list(threads.map(lambda pod: timed(partial(call, pod)), pods))
        took = perf_counter() - began
    return Burst(
        what=f"{verb}, {len(pods)} pods, {AT_ONCE} at once",
        who=who,
        pods_a_second=len(pods) / took,
        slowest_ms=max(each),
    )


def _both(ours: Homeport, pod: Pod) -> None:
    ours.call("ADD", pod)
    ours.call("DEL", pod)


def _await_pods(node: HomeportNode, pod: Pod) -> None:
    """Once, so that watches, files and pages of memory are warm."""
    for _ in range(3):
        _both(Homeport(node), pod)


def _make_pods(api: Api, count: int, stack: ExitStack) -> list[Pod]:
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    whereabouts = {"type": "whereabouts", "range": "10.93.96.0/20", "gateway": "10.93.96.1"}
    macvlan = {"type": "macvlan", "master": _UPLINK, "mode": "bridge", "ipam": whereabouts}
    api.apply(
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "secondary", "namespace": NAMESPACE},
            "spec": {"config": json.dumps({"cniVersion": "0.4.0", "plugins": [macvlan, {"type": "sbr"}]})},
        }
    )
    made = []
    for number in range(count):
        name, netns = f"pod-{number}", f"hpb-{os.getpid()}-{number}"
        pod = api.create(
            f"/api/v1/namespaces/{NAMESPACE}/pods",
            {
                "metadata": {"name": name, "annotations": {"k8s.v1.cni.cncf.io/networks": "secondary"}},
                "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}]},
            },
        )
        stack.callback(delete_namespace, netns)
        ip(f"netns add {netns}")
        ip("link set lo up", netns=netns)
        made.append(Pod(name, pod["metadata"]["uid"], netns))
    return made


def _bridge(name: str, folder: Path) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.76.1.0/24"}]], "dataDir": str(folder)}
    return {"type": "bridge", "bridge": name, "isDefaultGateway": True, "ipam": ipam}


def _macvlan(folder: Path) -> dict[str, Any]:
    ranges = [[{"subnet": "10.93.96.0/20", "rangeStart": "10.93.104.0", "gateway": "10.93.96.1"}]]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(folder)}
    return {"type": "macvlan", "master": _UPLINK, "mode": "bridge", "ipam": ipam}


def _environ(verb: str, pod: Pod, ifname: str, path: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": f"bench-{pod.name}",
        "CNI_NETNS": path_of(pod.netns),
        "CNI_IFNAME": ifname,
        "CNI_PATH": path,
    }


def _run(argv: Sequence[str], environ: Mapping[str, str], stdin: bytes) -> bytes:
    done = subprocess.run(argv, env=dict(environ), input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"benchmarks: {argv[-1]} {environ['CNI_COMMAND']}: {done.stdout.decode(errors='replace')}")
    return done.stdout


def _shim() -> Path:
    subprocess.run(["make", "-s", "-C", str(ROOT / "shim"), "native"], check=True)
    return next((ROOT / "src/homeport/_native").glob(f"homeport-shim-{os.uname().machine}"))


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def run(rounds: int, pods: int) -> NodeReport:
    """In a process of its own, which has nothing in it that the memory figures would count."""
    argv = [sys.executable, "-m", "benchmarks.node", str(rounds), str(pods)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=NodeReport)


def main() -> None:
    rounds, pods = (int(word) for word in (sys.argv[1:] or ["40", str(MANY)]))
    with tempfile.TemporaryDirectory(prefix="hpb-", dir="/tmp") as folder:  # a socket's path is short
        print(msgspec.json.encode(measure(Path(folder), rounds=rounds, pods=pods)).decode())


if __name__ == "__main__":
    main()
