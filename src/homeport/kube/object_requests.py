"""Requests about objects of any resource, as values. No I/O.

Kubernetes API concepts, "Resource URIs", "Retrieving large results sets in chunks", "Patches"; RFC 7386, RFC 6902. A
version in a write makes the API server refuse it when the object has another by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.kube.requests import JSON, MERGE_PATCH, Query, Request, Verb, page_query, required_name, watch_query
from homeport.model.errors import InvalidNetConf
from homeport.ports import USUAL_DELETION, Deletion, Resource

ANY_VERSION = "0"
_TABLE = ("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
_JSON_PATCH = ("Content-Type", "application/json-patch+json")

# Kubernetes "Labels and Selectors": nothing else can be a label, nor be taken for a selector's own signs.
_LABEL = re.compile(r"([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def get(resource: Resource, name: str, namespace: str = "") -> Request:
    """Every builder raises `InvalidNetConf` for a name, or a label, that nothing can have."""
    return Request(
        verb="get",
        resource=resource.plural,
        path=_object_path(resource, name, namespace),
        namespace=namespace,
        name=name,
        group=resource.group,
    )


def create(resource: Resource, body: Mapping[str, Any], namespace: str = "") -> Request:
    """`apiVersion` and `kind` are added where the body has none."""
    whole = {"apiVersion": api_version(resource), "kind": resource.kind, **body}
    return Request(
        verb="create",
        resource=resource.plural,
        method="POST",
        path=_collection_path(resource, namespace, required=True),
        headers=(JSON,),
        body=msgspec.json.encode(whole),
        namespace=namespace,
        name=str(body.get("metadata", {}).get("name", "")),
        group=resource.group,
    )


def patch(resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "", version: str = "") -> Request:
    """A JSON merge patch of that version; "" is any."""
    whole = {**body}
    if version:
        whole["metadata"] = {**body.get("metadata", {}), "resourceVersion": version}
    return _patch(resource, name, namespace, MERGE_PATCH, whole)


def patch_json(resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], namespace: str = "") -> Request:
    """A JSON patch. Since it may be sent twice, one that adds to what is must hold a test that fails afterwards."""
    return _patch(resource, name, namespace, _JSON_PATCH, list(operations))


def _patch(resource: Resource, name: str, namespace: str, kind: tuple[str, str], body: object) -> Request:
    return Request(
        verb="patch",
        resource=resource.plural,
        method="PATCH",
        path=_object_path(resource, name, namespace),
        headers=(kind,),
        body=msgspec.json.encode(body),
        namespace=namespace,
        name=name,
        group=resource.group,
    )


def delete(
    resource: Resource,
    name: str,
    namespace: str = "",
    version: str = "",
    uid: str = "",
    manner: Deletion = USUAL_DELETION,
) -> Request:
    """Of that version and UID; "" is any."""
    preconditions = {key: value for key, value in (("resourceVersion", version), ("uid", uid)) if value}
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": manner.propagation}
    if manner.grace_seconds is not None:
        options["gracePeriodSeconds"] = manner.grace_seconds
    if preconditions:
        options["preconditions"] = preconditions
    return Request(
        verb="delete",
        resource=resource.plural,
        method="DELETE",
        path=_object_path(resource, name, namespace),
        headers=(JSON,),
        body=msgspec.json.encode(options),
        namespace=namespace,
        name=name,
        group=resource.group,
    )


def list_page(
    resource: Resource,
    continue_token: str = "",
    version: str = "",
    *,
    namespace: str = "",
    labels: Mapping[str, str] | None = None,
) -> Request:
    """A page of all there are with these labels; without a namespace, of every namespace.

    The first page says of which `version` of the collection the list is to be, "" being the newest, "0" whichever the
    API server has in memory; the others follow.
    """
    at: Query = ()
    if version and not continue_token:
        at = (("resourceVersion", version),)
    if at and version != ANY_VERSION:
        at = (*at, ("resourceVersionMatch", "Exact"))
    return _collection("list", resource, namespace, labels, (*at, *page_query(continue_token)))


def list_names(resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None) -> Request:
    """All there are, from the API server's own cache, and of each no more than what `kubectl get` prints."""
    request = _collection("list", resource, namespace, labels, (("resourceVersion", "0"), ("includeObject", "None")))
    return msgspec.structs.replace(request, headers=(_TABLE,))


def watch(
    resource: Resource,
    version: str,
    timeout_seconds: int,
    *,
    namespace: str = "",
    labels: Mapping[str, str] | None = None,
) -> Request:
    """Changes after `version`. The API server ends the answer after `timeout_seconds`."""
    return _collection("watch", resource, namespace, labels, watch_query(version, timeout_seconds))


def _collection(
    verb: Verb, resource: Resource, namespace: str, labels: Mapping[str, str] | None, query: Query
) -> Request:
    selector = ",".join(f"{_required_label(key)}={_required_value(value)}" for key, value in (labels or {}).items())
    return Request(
        verb=verb,
        resource=resource.plural,
        path=_collection_path(resource, namespace),
        query=((("labelSelector", selector), *query) if selector else query),
        namespace=namespace,
        group=resource.group,
    )


def api_version(resource: Resource) -> str:
    """As objects carry it: the group and the version, or for the core's the version alone."""
    return f"{resource.group}/{resource.version}" if resource.group else resource.version


def _collection_path(resource: Resource, namespace: str, *, required: bool = False) -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if not resource.namespaced or not (namespace or required):
        return f"{root}/{resource.plural}"
    return f"{root}/namespaces/{required_name(namespace, 'namespaces')}/{resource.plural}"


def _object_path(resource: Resource, name: str, namespace: str) -> str:
    return f"{_collection_path(resource, namespace, required=True)}/{required_name(name, resource.plural)}"


def _required_label(key: str) -> str:
    if not _LABEL.fullmatch(key):
        raise InvalidNetConf(f"label: found {documents.shown(key)}, expected a name such as homeport.dev/node")
    return key


def _required_value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise InvalidNetConf(
            f"value of a label: found {documents.shown(value)}, expected 63 letters, digits, -_. at most"
        )
    return value
