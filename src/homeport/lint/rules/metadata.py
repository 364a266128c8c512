"""Rules about the annotations of networks: their keys, their places, and whether they mean anything there. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from homeport.lint import jsontext, wishes
from homeport.lint.catalogue import nearest
from homeport.lint.findings import Edit, Found, Severity
from homeport.lint.manifests import ADDRESSES, DEFAULT_NETWORK, NAD_KIND, NETWORKS, RETENTION, Manifests
from homeport.lint.nodes import Member, Node
from homeport.lint.rules.checks import rule
from homeport.lint.rules.editing import replace_yaml

RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
_STATUS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")
_READ = (NETWORKS, DEFAULT_NETWORK, ADDRESSES, RETENTION, RESOURCE, *_STATUS)

_TEMPLATES = {
    "StatefulSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}

_ONCE = {  # what earlier drafts and versions called them
    "kubernetes.v1.cni.cncf.io/networks": NETWORKS,
    "k8s.v1.cni.cncf.io/default-network": DEFAULT_NETWORK,
    "k8s.v1.cni.cncf.io/networks-default": DEFAULT_NETWORK,
}
_NAMES = {  # by prefix: the keys pods have, and others that exist and are not misspelt
    "k8s.v1.cni.cncf.io": (("networks",), ("network-status", "networks-status", "resourceName", "policy-for")),
    "v1.multus-cni.io": (("default-network",), ()),
    "homeport.dev": (("addresses", "retention"), ()),
}

Where = Literal["workload", "pod", "network"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of an object or of the pods it makes; `owner` is what has it, `root` the whole object."""

    file: str
    kind: str
    where: Where
    root: Node
    owner: Node
    metadata: Node

    @property
    def annotations(self) -> tuple[Member, ...]:
        held = self.metadata.get("annotations")
        return held.members if held is not None else ()

    def found(self, member: Member, found: str, right: str, edits: tuple[Edit, ...] = ()) -> Found:
        return Found(file=self.file, span=member.key.span, found=found, right=right, edits=edits)


@rule("annotation-misplaced", Severity.WARNING)
def annotation_misplaced(manifests: Manifests) -> Iterator[Found]:
    """An annotation about networks stands where nothing reads it.

    A network selection is read from pods alone: in a Deployment or StatefulSet it belongs to `spec.template.metadata`,
    in a CronJob to `spec.jobTemplate.spec.template.metadata`; on the workload itself its pods start without the
    networks. It is an annotation, not a label. `k8s.v1.cni.cncf.io/resourceName` belongs to the
    NetworkAttachmentDefinition and not to pods.
    """
    for place in _places(manifests):
        for member in place.annotations:
            if (right := _belongs(place, member.name)) is not None:
                yield place.found(member, f"annotation {member.name} of a {place.kind} is not read", right)
        labels = place.metadata.get("labels")
        for member in labels.members if labels is not None else ():
            if member.name in (NETWORKS, DEFAULT_NETWORK):
                yield place.found(member, f"label {member.name} is not read", "expected it under annotations")
    for file, owner, path in _loose(manifests):
        held = owner.get("annotations")
        for member in held.members if held is not None else ():
            if member.name in (NETWORKS, DEFAULT_NETWORK):
                right = f"expected it in {path}metadata.annotations"
                what = f"annotation {member.name} in {path}annotations is not read"
                yield Found(file=file, span=member.key.span, found=what, right=right)


@rule("annotation-key", Severity.WARNING, fix="writes the right key, unless it is there already")
def annotation_key(manifests: Manifests) -> Iterator[Found]:
    """An annotation's key is close to one about networks, or an earlier name of one.

    Kubernetes takes any key, so nothing tells you: the pods start, without the networks. The keys are
    `k8s.v1.cni.cncf.io/networks` and `v1.multus-cni.io/default-network`, and of Homeport `homeport.dev/addresses` and
    `homeport.dev/retention`.
    """
    for place in _places(manifests):
        if place.where == "network":
            continue
        taken = {member.name for member in place.annotations}
        for member in place.annotations:
            near = _meant(member)
            if near is None:
                continue
            sure = near not in taken and not (member.name in _ONCE and near == DEFAULT_NETWORK)
            edits = replace_yaml(member.key, near) if sure else ()
            right = f"{near} is already there" if near in taken else f"did you mean {near}?"
            taken.add(near)
            yield place.found(member, f"annotation {member.name} is not read", right, edits)


@rule("annotation-not-string", Severity.ERROR)
def annotation_not_string(manifests: Manifests) -> Iterator[Found]:
    """An annotation about networks is YAML structure, a number or a boolean.

    Annotations are strings: the API server refuses anything else. Write the JSON in single quotes, or as a block
    after `|`.
    """
    for place in _places(manifests):
        for member in place.annotations:
            if member.name in _READ and member.value.kind not in ("string", "null"):
                what = {"object": "a mapping", "array": "a sequence"}.get(member.value.kind, f"a {member.value.kind}")
                yield Found(
                    file=place.file,
                    span=member.value.span,
                    found=f"annotation {member.name} is {what}",
                    right="expected a string: JSON in quotes or after |",
                )


@rule("status-by-hand", Severity.WARNING)
def status_by_hand(manifests: Manifests) -> Iterator[Found]:
    """A pod template has the annotation that says which networks a pod has got.

    `k8s.v1.cni.cncf.io/network-status` is written when the pod starts, over whatever is there; `networks-status` is
    its earlier name. What you write selects nothing, and is read as true by others until then. Often it was copied
    from a running pod.
    """
    for place in _places(manifests):
        for member in place.annotations:
            if member.name in _STATUS and place.where == "pod" and place.kind in _TEMPLATES:
                yield place.found(
                    member, f"annotation {member.name} is an outcome, not a wish", f"remove it; a wish is {NETWORKS}"
                )


@rule("host-network", Severity.WARNING)
def host_network(manifests: Manifests) -> Iterator[Found]:
    """Pods of the node's own network select networks.

    With `hostNetwork: true` a pod has no network namespace of its own, so no CNI plugin runs for it and it gets none
    of them.
    """
    for place in _places(manifests):
        node = place.owner.get("spec", "hostNetwork") if place.where == "pod" else None
        if node is None or node.value is not True:
            continue
        for member in place.annotations:
            if member.name in (NETWORKS, DEFAULT_NETWORK):
                yield place.found(
                    member, f"annotation {member.name} on pods with hostNetwork", "they get no networks of their own"
                )


@rule("no-replicas", Severity.WARNING)
def no_replicas(manifests: Manifests) -> Iterator[Found]:
    """A map of addresses, or how long they are kept, stands on a workload whose pods have no identity.

    `homeport.dev/addresses` and `homeport.dev/retention` are for replicas: the pods of a StatefulSet, or of a kind
    that a network names under `sticky.kinds`. The pods of any other workload are each new, and get any free address.
    """
    for place in _places(manifests):
        if place.kind in _TEMPLATES and place.kind != "StatefulSet":
            for member in place.annotations:
                if member.name in (ADDRESSES, RETENTION):
                    yield place.found(
                        member, f"annotation {member.name}: pods of a {place.kind} are no replicas", "use a StatefulSet"
                    )


@rule("resource-not-requested", Severity.INFO)
def resource_not_requested(manifests: Manifests) -> Iterator[Found]:
    """A pod selects a network of devices, and no container of it requests one.

    The definition names a resource (`k8s.v1.cni.cncf.io/resourceName`), whose devices the kubelet gives to pods that
    request them. Without one the plugin is called without a device. Where a webhook adds the requests
    (network-resources-injector) all is well.
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        requested = _requested(workload.pod)
        told: set[str] = set()
        for wish in wishes.of(workload):
            network = wishes.chosen(workload, wish, named)
            manifest = network.manifest if network is not None else None
            resource = manifest.text("metadata", "annotations", RESOURCE) if manifest is not None else None
            if text is not None and network is not None and resource and resource not in requested | told:
                told.add(resource)
                yield workload.found(
                    wishes.place(text, wish),
                    f'network "{network.name}" needs a device of {resource}, which no container requests',
                    f'expected resources.limits of "{resource}": "1"',
                )


def _places(manifests: Manifests) -> Iterator[Place]:
    for file, node in manifests.objects:
        kind = node.text("kind") or ""
        own = node.get("metadata")
        if kind in (NAD_KIND, "Pod") and own is not None:
            where: Where = "network" if kind == NAD_KIND else "pod"
            yield Place(file=file, kind=kind, where=where, root=node, owner=node, metadata=own)
        elif kind in _TEMPLATES:
            path = _TEMPLATES[kind]
            for length in range(len(path) + 1):
                owner = node.get(*path[:length])
                metadata = owner.get("metadata") if owner is not None else None
                if owner is not None and metadata is not None:
                    yield Place(
                        file=file,
                        kind=kind,
                        where="pod" if length == len(path) else "workload",
                        root=node,
                        owner=owner,
                        metadata=metadata,
                    )


def _loose(manifests: Manifests) -> Iterator[tuple[str, Node, str]]:
    """Pods and templates, which may have `annotations` beside their `metadata`."""
    for file, node in manifests.objects:
        kind = node.text("kind") or ""
        path = () if kind == "Pod" else _TEMPLATES.get(kind)
        owner = node.get(*path) if path is not None else None
        if owner is not None and path is not None:
            yield file, owner, "".join(f"{name}." for name in path)


def _belongs(place: Place, key: str) -> str | None:
    """Where an annotation belongs that nothing reads here; None where it is right."""
    if key == RESOURCE:
        return None if place.where == "network" else f"expected it on the {NAD_KIND}"
    if key not in (NETWORKS, DEFAULT_NETWORK) or place.where == "pod":
        return None
    if place.where == "network":
        return "expected it on pods"
    path = _TEMPLATES[place.kind]
    there = place.root.get(*path, "metadata", "annotations", key)
    return None if there is not None else f"expected it in {'.'.join(path)}.metadata.annotations"


def _meant(member: Member) -> str | None:
    """The key that an unknown one must be meant for, or None."""
    if member.name in _ONCE:
        return _ONCE[member.name]
    prefix, slash, name = member.name.rpartition("/")
    if not slash:
        return NETWORKS if name == "networks" and _selects(member.value) else None
    known = nearest(prefix, _NAMES)
    if known is None:
        return None
    names, others = _NAMES[known]
    near = None if name in others else nearest(name, names)
    return f"{known}/{near}" if near is not None and member.name != f"{known}/{near}" else None


def _selects(value: Node) -> bool:
    """Whether a value is a JSON list of networks, so that no other program can have meant something else by it."""
    root = jsontext.read(str(value.value))[0] if value.kind == "string" else None
    return root is not None and bool(root.items) and all(item.text("name") for item in root.items)


def _requested(pod: Node | None) -> set[str]:
    """The resources that any container of a pod requests."""
    found: set[str] = set()
    for kind in ("containers", "initContainers"):
        containers = pod.get("spec", kind) if pod is not None else None
        for container in containers.items if containers is not None else ():
            for ask in ("limits", "requests"):
                given = container.get("resources", ask)
                found.update(member.name for member in (given.members if given is not None else ()))
    return found
