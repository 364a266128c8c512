"""What `homeport lint --cluster` looks at: the networks of a cluster, and what makes pods there. Changes nothing.

A manifest's text is the object as indented JSON, without what nobody writes; its file is RESOURCE/NAMESPACE/NAME. Each
list is complete or an error: a network is missing only where all networks were told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from homeport.cli import output, sources
from homeport.kube import resources
from homeport.model.errors import CniError, DecodeFailure, InvalidEnvironment, IOFailure, TryAgainLater, Unreachable
from homeport.ports import ApiObject, Objects, Resource

_KINDS = (
    resources.DEFINITIONS,
    resources.STATEFUL_SETS,
    resources.DEPLOYMENTS,
    resources.DAEMON_SETS,
    resources.REPLICA_SETS,
    resources.JOBS,
    resources.CRON_JOBS,
    resources.PODS,
)
_OLD_CRON_JOBS = msgspec.structs.replace(resources.CRON_JOBS, version="v1beta1")  # before Kubernetes 1.21
_UNWRITTEN = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")
_COPY = "kubectl.kubernetes.io/last-applied-configuration"  # the manifest once more, as it was


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """`texts` by name; `problems` are what could not be looked at. `all_networks`: every network there is was told."""

    texts: dict[str, str]
    problems: list[CniError]
    all_networks: bool


class _Owner(msgspec.Struct):
    controller: bool | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    owner_references: list[_Owner] | None = None
    annotations: dict[str, str] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] | None = None


class _Object(msgspec.Struct):
    """As much of an object as says whether it is to be looked at."""

    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


_OBJECT = msgspec.json.Decoder(_Object)


def read(kubeconfig: Path | None, namespace: str) -> Live:
    """Everything of the cluster, or of one namespace and the networks of all. Raises `InvalidEnvironment`."""
    from homeport import wiring

    with wiring.open_cluster_store(sources.usual_kubeconfig(kubeconfig)) as opened:
        if opened is None:
            raise InvalidEnvironment(
                "find the cluster: found no kubeconfig, and this is no pod", "give --kubeconfig, or files to look at"
            )
        return read_objects(opened.kubernetes.objects, namespace)


def is_of(file: str, namespace: str) -> bool:
    """Whether a name of `Live.texts` is of that namespace; "" is any."""
    return not namespace or file.split("/")[1] == namespace


def read_objects(objects: Objects, namespace: str) -> Live:
    """As `read`, of an API server's objects."""
    texts: dict[str, str] = {}
    problems: list[CniError] = []
    all_networks = True
    for resource in _KINDS:
        try:
            found, complete = _listed(objects, resource, namespace)
        except TryAgainLater as e:  # what is asked next would wait as long
            return Live(texts=texts, problems=[*problems, e], all_networks=False)
        except CniError as e:
            problems.append(e)
            found, complete = (), False
        if resource is resources.DEFINITIONS:
            all_networks = complete
        for one in found:
            try:
                if (text := _text(resource, one)) is not None:
                    texts[f"{resource.plural}/{one.namespace}/{one.name}"] = text
            except DecodeFailure as e:
                problems.append(e)
                all_networks = all_networks and resource is not resources.DEFINITIONS
    return Live(texts=texts, problems=problems, all_networks=all_networks)


def _listed(objects: Objects, resource: Resource, namespace: str) -> tuple[tuple[ApiObject, ...], bool]:
    """Objects, and whether they are all that pods of the namespace may name.

    Networks of all namespaces, as far as one may: others than the pods' own can be selected, and ranges be shared.
    """
    if resource is resources.DEFINITIONS and namespace:
        try:
            return tuple(objects.list(resource)), True
        except IOFailure:
            return tuple(objects.list(resource, namespace=namespace)), False
    try:
        return tuple(objects.list(resource, namespace=namespace)), True
    except (IOFailure, TryAgainLater) as e:  # the latter for a resource of Kubernetes that is not known
        if resource is not resources.CRON_JOBS or isinstance(e, Unreachable):
            raise
        return tuple(objects.list(_OLD_CRON_JOBS, namespace=namespace)), True


def _text(resource: Resource, stored: ApiObject) -> str | None:
    """The manifest; None for what another object makes, and for pods and jobs whose work is over."""
    try:
        known = _OBJECT.decode(stored.body)
        body: dict[str, Any] = msgspec.json.decode(stored.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f'decode "{resource.plural}/{stored.namespace}/{stored.name}": {e}') from e
    if any(owner.controller for owner in known.metadata.owner_references or ()) or _is_over(known.status):
        return None
    version = f"{resource.group}/{resource.version}" if resource.group else resource.version
    metadata = {key: value for key, value in body["metadata"].items() if key not in (*_UNWRITTEN, "annotations")}
    if annotations := {key: value for key, value in (known.metadata.annotations or {}).items() if key != _COPY}:
        metadata["annotations"] = annotations
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return output.json({"apiVersion": version, "kind": resource.kind, "metadata": metadata, **rest}) + "\n"


def _is_over(status: _Status) -> bool:
    """Whether it has no pods any more, and will have none."""
    ended = {condition.type for condition in status.conditions or () if condition.status == "True"}
    return status.phase in ("Succeeded", "Failed") or bool(ended & {"Complete", "Failed"})
