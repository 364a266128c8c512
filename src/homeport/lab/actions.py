"""What a person asks of a lab: each changes what is wanted, and `converge` makes it so. I/O: the lab's state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from homeport.lab import building
from homeport.lab.converging import new_uid
from homeport.lab.manifests import Manifests
from homeport.lab.objects import Network, NodeObject, PodObject, Template, WorkloadObject, WorkloadSpec
from homeport.lab.sessions import Lab
from homeport.model.errors import InvalidNetConf, NoSuchObject, Unsupported

Change = Literal["created", "configured", "unchanged"]
Cascade = Literal["background", "orphan"]
DEFAULT_NODES = 3
MOST_NODES = 100


class Applied(msgspec.Struct, frozen=True):
    """What became of one object of a manifest."""

    name: str  # statefulset.apps/web
    change: Change


# --- up ----------------------------------------------------------------------------------------------------------


def apply(lab: Lab, manifests: Manifests, *, nodes: int | None, substitutes: Mapping[str, str] | None) -> list[Applied]:
    """Takes the manifests over; what they do not name stays. `nodes` and `substitutes` None: as they are."""
    if substitutes is not None:
        lab.state.set_setting("substitutes", msgspec.json.encode(substitutes).decode())
    _require_link_types(lab, manifests.networks)
    applied = _apply_nodes(lab, nodes)
    applied += [_apply_network(lab, network) for network in manifests.networks]
    applied += [_apply_workload(lab, spec) for spec in manifests.workloads]
    return applied


def _apply_nodes(lab: Lab, wanted: int | None) -> list[Applied]:
    present = {n.name for n in lab.state.all(NodeObject)}
    count = wanted if wanted is not None else len(present) or DEFAULT_NODES
    if count < len(present):
        raise Unsupported(
            f"change the lab to {count} nodes: it has {len(present)}, and they may hold replicas",
            'stop one with "homeport lab node kill NAME", or begin again after "homeport lab down"',
        )
    names = [f"node-{n}" for n in range(1, count + 1)]
    lab.state.put(*(NodeObject(name=name) for name in names if name not in present))
    return [Applied(f"node/{name}", "unchanged" if name in present else "created") for name in names]


def _apply_network(lab: Lab, network: Network) -> Applied:
    before = lab.state.get(Network, str(network))
    lab.state.put(network)
    return Applied(f"networkattachmentdefinition.k8s.cni.cncf.io/{network.name}", _change(before, network))


def _apply_workload(lab: Lab, spec: WorkloadSpec) -> Applied:
    before = lab.state.get(WorkloadObject, str(spec.workload))
    restarts = before.restarts if before else 0
    after = WorkloadObject(
        spec=spec,
        uid=before.uid if before else new_uid(),
        revision=revision(spec.template, restarts),
        restarts=restarts,
    )
    lab.state.put(after)
    return Applied(f"{spec.workload.kind.lower()}.apps/{spec.workload.name}", _change(before, after))


def _change(before: object, after: object) -> Change:
    if before is None:
        return "created"
    return "unchanged" if before == after else "configured"


def _require_link_types(lab: Lab, networks: Iterable[Network]) -> None:
    """In one line: what this kernel lacks, and what may stand for it."""
    for network in networks:
        try:
            config = msgspec.json.decode(network.config)
        except msgspec.DecodeError:
            continue  # the pods that want this network will say so, with the place
        if not isinstance(config, dict):
            continue
        config = building.substituted(config, lab.substitutes)
        kinds = [p.get("type") for p in config.get("plugins", [config]) if isinstance(p, dict)]
        if "ipvlan" in kinds and not lab.host.supports_kind("ipvlan"):
            raise Unsupported(
                f'attach to network "{network}": this kernel has no ipvlan; '
                "--substitute ipvlan=macvlan lets macvlan stand for it"
            )


def revision(template: Template, restarts: int) -> str:
    """The name of one version of a pod template, as stable as its contents."""
    text = msgspec.json.encode((template, restarts), order="sorted")
    return hashlib.sha256(text).hexdigest()[:10]


# --- workloads and pods ------------------------------------------------------------------------------------------


def scale(lab: Lab, workload: WorkloadObject, replicas: int) -> None:
    """Sets `spec.replicas`."""
    changed = msgspec.structs.replace(workload.spec, replicas=replicas)
    lab.state.put(msgspec.structs.replace(workload, spec=changed))


def restart(lab: Lab, workload: WorkloadObject) -> None:
    """A new revision of the same template, which its update strategy then rolls out."""
    restarts = workload.restarts + 1
    lab.state.put(
        msgspec.structs.replace(workload, restarts=restarts, revision=revision(workload.spec.template, restarts))
    )


def delete_workload(lab: Lab, workload: WorkloadObject, cascade: Cascade) -> None:
    """Its pods follow, gracefully, or stay as orphans that a workload of the same name adopts."""
    with lab.state.transaction():
        if cascade == "orphan":
            owned = [p for p in lab.state.all(PodObject) if p.workload_uid == workload.uid]
            lab.state.put(*(msgspec.structs.replace(p, workload_uid="") for p in owned))
        lab.state.remove(workload)


def delete_network(lab: Lab, network: Network) -> None:
    """Running pods keep their interfaces; their DEL has the configuration they were made with."""
    lab.state.remove(network)


def delete_pods(lab: Lab, pods: Sequence[PodObject], *, force: bool) -> None:
    """Gracefully: gone after their DEL. By force: gone now, and the DEL comes when their nodes get to it."""
    for pod in pods:
        if force:
            lab.state.remove(pod)
        else:
            lab.state.put(msgspec.structs.replace(pod, deleting=True))
        lab.record(pod, "Normal", "Killing", "Force deleted" if force else "Stopping: deleted")


# --- nodes -------------------------------------------------------------------------------------------------------


def kill(lab: Lab, node: NodeObject) -> None:
    """Power lost: the node and all in it vanish without a DEL, and its pods are deleted by force."""
    dead = msgspec.structs.replace(node, killed=True, partitioned=False, answering=False)
    _change_node(lab, dead, "NodeNotReady", "killed")


def partition(lab: Lab, node: NodeObject, *, answering: bool) -> None:
    """Out of the cluster's reach: its pods run on and are not replaced until somebody deletes them by force.

    Its cables are pulled, so that they reach nobody; with `answering` they still answer on their networks.
    """
    if node.killed:
        raise Unsupported(
            f'partition node "{node.name}": it is killed', f"start it: homeport lab node heal {node.name}"
        )
    lost = msgspec.structs.replace(node, partitioned=True, answering=answering)
    _change_node(lab, lost, "NodeNotReady", "partitioned")
    for pod in lab.state.all(PodObject):
        if pod.node == node.name:
            lab.state.put(msgspec.structs.replace(pod, running=False, message=f"node {node.name} is NotReady"))


def heal(lab: Lab, node: NodeObject) -> None:
    """Back again: a partitioned node with its pods, a killed one empty."""
    back = msgspec.structs.replace(node, killed=False, partitioned=False, answering=False)
    _change_node(lab, back, "NodeReady", "healed")


def cordon(lab: Lab, node: NodeObject, *, cordoned: bool) -> None:
    """Whether new pods may come to it."""
    _change_node(
        lab,
        msgspec.structs.replace(node, cordoned=cordoned),
        "NodeNotSchedulable" if cordoned else "NodeSchedulable",
        "cordoned" if cordoned else "uncordoned",
    )


def drain(lab: Lab, node: NodeObject) -> Sequence[PodObject]:
    """Cordons it and deletes its pods gracefully."""
    cordon(lab, node, cordoned=True)
    pods = [p for p in lab.state.all(PodObject) if p.node == node.name]
    delete_pods(lab, pods, force=False)
    return pods


def _change_node(lab: Lab, node: NodeObject, reason: str, what: str) -> None:
    lab.state.put(node)
    lab.record(node, "Normal", reason, f"Node {node.name} {what}")


# --- names -------------------------------------------------------------------------------------------------------


def find_node(lab: Lab, name: str) -> NodeObject:
    """Raises `NoSuchObject` with the names there are."""
    node = lab.state.get(NodeObject, name)
    if node is None:
        raise _no_such("node", name, [n.name for n in lab.state.all(NodeObject)])
    return node


def find_pod(lab: Lab, name: str, namespace: str | None) -> PodObject:
    """The only pod of that name in `namespace` (None: in any)."""
    pods = [p for p in lab.state.all(PodObject) if namespace in (None, p.ref.namespace)]
    found = [p for p in pods if p.ref.name == name]
    _require_one("pod", name, [str(p.ref) for p in found], [p.ref.name for p in pods])
    return found[0]


def find_workload(lab: Lab, kind: str, name: str, namespace: str | None) -> WorkloadObject:
    """The only workload of that kind and name in `namespace` (None: in any)."""
    of_kind = [w for w in lab.state.all(WorkloadObject) if w.spec.workload.kind == kind]
    present = [w for w in of_kind if namespace in (None, w.spec.workload.namespace)]
    found = [w for w in present if w.spec.workload.name == name]
    _require_one(kind.lower(), name, [str(w.spec.workload) for w in found], [w.spec.workload.name for w in present])
    return found[0]


def find_network(lab: Lab, name: str, namespace: str | None) -> Network:
    """The only NetworkAttachmentDefinition of that name in `namespace` (None: in any)."""
    present = [n for n in lab.state.all(Network) if namespace in (None, n.namespace)]
    found = [n for n in present if n.name == name]
    _require_one("network", name, [str(n) for n in found], [n.name for n in present])
    return found[0]


def _require_one(kind: str, name: str, found: Sequence[str], present: Sequence[str]) -> None:
    if not found:
        raise _no_such(kind, name, present)
    if len(found) > 1:
        raise InvalidNetConf(f'find {kind} "{name}": found {", ".join(found)}', "choose with --namespace")


def _no_such(kind: str, name: str, present: Sequence[str]) -> NoSuchObject:
    return NoSuchObject(f'find {kind} "{name}": the lab has no such {kind}', f"it has {', '.join(present) or 'none'}")
