"""A node with the meta-plugin on it, and pods whose networks come from an API server in memory.

Types for annotations: `if TYPE_CHECKING: from tests.netns.metaplugin.conftest import Machine, Sandbox`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.stand_ins_kubernetes import FakeKubernetes

from homeport.cni.invocations import Attachment, Command, Invocation
from homeport.host.kernel import Kernel
from homeport.ipam.identities import Workload
from homeport.ipam.objects import OwnerReference, Pod, WorkloadState
from homeport.metaplugin.plugin import MetaPlugin
from homeport.model.names import PodRef
from homeport.model.results import Result
from homeport.ports import NetworkDefinition, Shells
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns, Node

FOREIGN = "/usr/lib/cni"  # the reference plugins, as Debian installs them
STATUS = "k8s.v1.cni.cncf.io/network-status"


@dataclass
class GivenDevices:
    """`ports.Devices`: what the kubelet gave each pod."""

    given: dict[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def of_pod(self, ref: PodRef, uid: str) -> Mapping[str, Sequence[str]]:
        return self.given.get(uid, {})


@dataclass
class Sandbox:
    """A container of a pod, as a runtime has it."""

    container_id: str
    netns: str
    args: Mapping[str, str]


class Machine:
    """One node. `home` is the directory of everything that it writes.

    `conf` is the runtime's configuration, `daemon_config` what the daemon's says beside the directories.
    """

    def __init__(self, shells: Shells, kubernetes: FakeKubernetes, make_netns: MakeNetns, home: Path) -> None:
        self.shells, self.kubernetes, self.home = shells, kubernetes, home
        self.devices = GivenDevices()
        self.daemon_config: dict[str, Any] = {}
        self.bin_dir, self.conf_dir, self.cni_dir = home / "bin", home / "conf", home / "cni"
        for directory in (self.bin_dir, self.conf_dir):
            directory.mkdir()
        self._make_netns = make_netns
        self.conf: dict[str, Any] = {
            "cniVersion": "1.1.0",
            "name": "pod-network",
            "type": "homeport",
            "clusterNetwork": "main",
        }
        self.restart()
        self.define("kube-system/main", self.bridge())

    def restart(self, shells: Shells | None = None) -> None:
        """A new process with the same files."""
        self.plugin = MetaPlugin(
            shells or self.shells,
            kubernetes=self.kubernetes,
            devices=self.devices,
            daemon_config={
                "binDir": str(self.bin_dir),
                "confDir": str(self.conf_dir),
                "cniDir": str(self.cni_dir),
                **self.daemon_config,
            },
            state_dir=self.home / "state",
            root=str(self.home),
        )

    # configurations

    def bridge(self, name: str = "main", subnet: str = "10.11.0.0/24", **keys: Any) -> dict[str, Any]:
        """A network of our bridge and host-local plugins, with a default route."""
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self.home / "host-local"),
        }
        plugin = {"type": "bridge", "bridge": f"br-{name}"[:15], "isGateway": True, "ipam": ipam, **keys}
        return {"cniVersion": "1.1.0", "name": name, "plugins": [plugin]}

    def macvlan(self, name: str, address: str, *chained: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
        """A network of our macvlan and static plugins."""
        ipam = {"type": "static", "addresses": [{"address": address}]}
        plugin = {"type": "macvlan", "master": "eth1", "ipam": ipam, **keys}
        return {"cniVersion": "1.1.0", "name": name, "plugins": [plugin, *chained]}

    def sticky(self, name: str, **keys: Any) -> dict[str, Any]:
        """A network of our macvlan and whereabouts plugins."""
        ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12", **keys}
        return {
            "cniVersion": "1.1.0",
            "name": name,
            "plugins": [{"type": "macvlan", "master": "eth1", "ipam": ipam}],
        }

    def define(self, name: str, config: Mapping[str, Any] | str, annotations: Mapping[str, str] | None = None) -> None:
        namespace, _, own = name.rpartition("/")
        text = config if isinstance(config, str) else json.dumps(config)
        self.kubernetes.create_definition(
            NetworkDefinition(namespace=namespace or "apps", name=own, config=text, annotations=annotations or {})
        )

    def foreign(self, name: str, body: str) -> None:
        """A plugin of somebody else's: a shell script whose stdin is in $CONF."""
        path = self.bin_dir / name
        path.write_text(f'#!/bin/sh\nCONF=$(cat)\necho "$CNI_COMMAND $CNI_IFNAME" >> {self.home}/{name}.log\n{body}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        log = self.home / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    # pods

    def pod(self, name: str = "web-0", networks: str | list[Any] = "", **fields: Any) -> Pod:
        """Creates it. `networks` is the annotation, a list is written as JSON."""
        text = networks if isinstance(networks, str) else json.dumps(networks)
        annotations = {"k8s.v1.cni.cncf.io/networks": text, **fields.pop("annotations", {})}
        pod = Pod(ref=PodRef("apps", name), uid=secrets.token_hex(8), node="node-a", annotations=annotations, **fields)
        self.kubernetes.create_pod(pod)
        return pod

    def replica(self, name: str, networks: str | list[Any] = "") -> Pod:
        """A pod of a StatefulSet, which is created with it."""
        workload = Workload("apps", "StatefulSet", name.rpartition("-")[0])
        owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name=workload.name, uid="set-1")
        self.kubernetes.workloads[workload] = WorkloadState(workload=workload, uid="set-1", replicas=9)
        return self.pod(name, networks, owner=owner)

    def sandbox(self, pod: Pod | None = None, **args: str) -> Sandbox:
        named = {}
        if pod is not None:
            named = {"K8S_POD_NAMESPACE": pod.ref.namespace, "K8S_POD_NAME": pod.ref.name, "K8S_POD_UID": pod.uid}
        container_id = secrets.token_hex(16)
        infra = {"K8S_POD_INFRA_CONTAINER_ID": container_id} if pod is not None else {}
        return Sandbox(container_id, self._make_netns("pod"), {"IgnoreUnknown": "1", **named, **infra, **args})

    # verbs

    def add(self, sandbox: Sandbox, **keys: Any) -> Result:
        return self.plugin.add({**self.conf, **keys}, self.invocation("ADD", sandbox))

    def delete(self, sandbox: Sandbox, *, netns: str | None = "same", **keys: Any) -> None:
        self.plugin.delete({**self.conf, **keys}, self.invocation("DEL", sandbox, netns=netns))

    def check(self, sandbox: Sandbox, **keys: Any) -> None:
        self.plugin.check({**self.conf, **keys}, self.invocation("CHECK", sandbox))

    def status(self, **keys: Any) -> None:
        self.plugin.status({**self.conf, **keys}, Invocation(command="STATUS", attachment=self._nothing()))

    def gc(self, *valid: Sandbox, **keys: Any) -> None:
        listed = [{"containerID": sandbox.container_id, "ifname": "eth0"} for sandbox in valid]
        conf = {**self.conf, "cni.dev/valid-attachments": listed, **keys}
        self.plugin.gc(conf, Invocation(command="GC", attachment=self._nothing()))

    def invocation(self, command: Command, sandbox: Sandbox, *, netns: str | None = "same") -> Invocation:
        attachment = Attachment(
            container_id=sandbox.container_id,
            ifname="eth0",
            netns_path=sandbox.netns if netns == "same" else netns,
            args=sandbox.args,
            path=(FOREIGN,),
        )
        return Invocation(command=command, attachment=attachment)

    def hotplug(self, command: Command, sandbox: Sandbox, ifname: str) -> Invocation:
        """A call about another interface than the runtime's."""
        call = self.invocation(command, sandbox)
        return msgspec.structs.replace(call, attachment=msgspec.structs.replace(call.attachment, ifname=ifname))

    def _nothing(self) -> Attachment:
        return Attachment(container_id="", ifname="", path=(FOREIGN,))

    # what is there

    def scratch(self, sandbox: Sandbox) -> Path:
        return self.cni_dir / sandbox.container_id

    def results(self) -> list[str]:
        directory = self.cni_dir / "results"
        return sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []

    def addresses(self) -> list[str]:
        """What host-local gave and has not got back."""
        directory = self.home / "host-local"
        found = [path.name for path in directory.rglob("*") if path.is_file()] if directory.exists() else []
        return sorted(name for name in found if name[0].isdigit())

    def sticky_addresses(self) -> list[str]:
        """What whereabouts has given."""
        return sorted(str(allocation.address) for allocation in self.shells.open_allocations(None).all())

    def status_of(self, pod: Pod) -> Any:
        """The network status that the API server has, None without."""
        text = self.kubernetes.pods[pod.ref].annotations.get(STATUS)
        return None if text is None else json.loads(text)

    def is_clean(self) -> bool:
        """Nothing written about a container, no result, no address."""
        scratches = [p for p in self.cni_dir.glob("[!.]*") if p.is_file()] if self.cni_dir.exists() else []
        infos = [p for p in (self.home / "var/run/k8s.cni.cncf.io/devinfo/cni").glob("*")]
        return not (scratches or infos or self.results() or self.addresses() or self.sticky_addresses())


@pytest.fixture
def build(node: Node, netns: MakeNetns, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Makes the test's machine; keywords go to `build_shells`."""
    built: list[Shells] = []

    def make(**options: Any) -> Machine:
        kubernetes = FakeKubernetes()
        shells = build_shells(
            netns=node.netns,
            node="node-a",
            cluster=kubernetes,
            store=str(tmp_path / "allocations.db"),
            environ={},
            **options,
        )
        built.append(shells)
        return Machine(shells, kubernetes, netns, tmp_path)

    yield make
    for shells in built:
        assert isinstance(shells.host, Kernel)
        shells.host.close()


@pytest.fixture
def machine(build: Callable[..., Machine]) -> Machine:
    return build()


@pytest.fixture
def names(ip_json: IpJson) -> Callable[[str], set[str]]:
    """The links of a namespace."""
    return lambda netns: {link["ifname"] for link in ip_json(netns, "link", "show")}


@pytest.fixture
def ipv4(ip_json: IpJson) -> Callable[[str, str], list[str]]:
    """The IPv4 addresses of a link with their prefix."""

    def ask(netns: str, ifname: str) -> list[str]:
        (link,) = ip_json(netns, "-4", "address", "show", "dev", ifname) or [{"addr_info": []}]
        return [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]]

    return ask
