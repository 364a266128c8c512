"""Which replica a pod is, if it is one. No I/O.

docs/identity.md "Terms". A pod is a replica only when everything that speaks of it agrees: a wrong yes would hand one
replica the address of another.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeport.ipam.identities import Replica, Workload
from homeport.ipam.objects import Pod

POD_INDEX = "apps.kubernetes.io/pod-index"


class ReplicaKind(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A kind of workload whose pods are `<its name>-<ordinal>`, each of them always the same.

    `label`, where given, is the one its controller writes the stable name in (`strimzi.io/pod-name`,
    `cnpg.io/instanceName`); it must equal the pod's own name.
    """

    api_group: str
    kind: str
    label: str = ""


STATEFUL_SET = ReplicaKind(api_group="apps", kind="StatefulSet")


def replica_of(pod: Pod, kinds: Iterable[ReplicaKind] = ()) -> Replica | None:
    """The replica this pod is, of a StatefulSet or of one of `kinds`; None when it is none."""
    judged = judge(pod, kinds)
    return judged if isinstance(judged, Replica) else None


def judge(pod: Pod, kinds: Iterable[ReplicaKind] = ()) -> Replica | str:
    """As `replica_of`; of a pod that is none, why."""
    controller = pod.owner
    if controller is None or not controller.controller:
        return "no controller owns it"
    group = controller.api_version.rpartition("/")[0]
    kind = next((k for k in (STATEFUL_SET, *kinds) if (k.api_group, k.kind) == (group, controller.kind)), None)
    if kind is None:
        return f"its controller is a {controller.kind}, whose pods have no identity"
    name, _, ordinal = pod.ref.name.rpartition("-")
    if name != controller.name or not _is_ordinal(ordinal):
        return f'its name is not "{controller.name}-ORDINAL" after its {controller.kind}'
    if kind.label and pod.labels.get(kind.label) != pod.ref.name:
        return f'its label {kind.label} is "{pod.labels.get(kind.label, "")}", not its name'
    if pod.labels.get(POD_INDEX, ordinal) != ordinal:
        return f'its label {POD_INDEX} is "{pod.labels[POD_INDEX]}", and its name says {ordinal}'
    return Replica(Workload(pod.ref.namespace, workload_kind(kind), name), int(ordinal))


def workload_kind(kind: ReplicaKind) -> str:
    """The kind as a `Workload` names it: `StatefulSet` alone; any other with its group, as groups may share a word."""
    return kind.kind if kind == STATEFUL_SET else f"{kind.kind}.{kind.api_group}"


def _is_ordinal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and str(int(text)) == text
