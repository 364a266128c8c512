"""Requests to the API server as values: what is asked, of which object, with which body. No I/O.

Kubernetes API conventions; docs/kubernetes.md lists every request Homeport makes and the role it needs. All of them
may be sent twice: a write here says what is to be, of an object named by us, and never adds to what is. Those for any
resource are in `object_requests`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote, urlencode

import msgspec

from homeport.cni import documents
from homeport.ipam.identities import Workload
from homeport.model.errors import InvalidNetConf, UnsupportedField
from homeport.model.names import PodRef

Verb = Literal["get", "list", "watch", "create", "patch", "delete"]  # as roles name them

Query = tuple[tuple[str, str], ...]

PAGE_ITEMS = 500
DEFINITIONS = "network-attachment-definitions"
_DEFINITIONS_ROOT = "/apis/k8s.cni.cncf.io/v1"

# A DNS-1123 subdomain, which every name here must be. Nothing else goes into a path: no "..", no "/", no "%".
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_MAX = 253
_NOBODY = "no-object-has-this-name"

JSON = ("Content-Type", "application/json")
MERGE_PATCH = ("Content-Type", "application/merge-patch+json")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `resource` is as a role names it (`pods/status`); `name` is "" where it is about a collection.

    `group` is the resource's API group where an error is to say which definition is missing.
    """

    verb: Verb
    resource: str
    path: str
    method: Literal["GET", "POST", "PATCH", "DELETE"] = "GET"
    query: Query = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    namespace: str = ""
    name: str = ""
    group: str = ""

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name or self.namespace
        return f"{self.verb} {self.resource} {place}" if place else f"{self.verb} {self.resource}"


# --- one object ------------------------------------------------------------------------------------------------


def get_pod(ref: PodRef) -> Request:
    """Every builder raises `InvalidNetConf` for a name that no object can have."""
    return _get("/api/v1", "pods", ref.name, ref.namespace)


def get_definition(namespace: str, name: str) -> Request:
    """A NetworkAttachmentDefinition."""
    return _get(_DEFINITIONS_ROOT, DEFINITIONS, name, namespace)


def get_node(name: str) -> Request:
    """A node; they have no namespace."""
    return _get("/api/v1", "nodes", name)


def get_stateful_set(workload: Workload) -> Request:
    """Raises `UnsupportedField` for another kind: one with an API group must be looked for first (`discovering`)."""
    if workload.kind != "StatefulSet":
        raise UnsupportedField(f'look up {workload}: found kind "{workload.kind}", expected StatefulSet or KIND.GROUP')
    return _get("/apis/apps/v1", "statefulsets", workload.name, workload.namespace)


def get_group(group: str) -> Request:
    """Which versions of an API group are served, and which one first."""
    return Request(verb="get", resource="apis", path=f"/apis/{required_name(group, 'apis')}", name=group)


def get_resources(group: str, version: str) -> Request:
    """The resources of one version of an API group."""
    path = f"/apis/{required_name(group, 'apis')}/{required_name(version, 'apis')}"
    return Request(verb="get", resource="apis", path=path, name=f"{group}/{version}")


def _get(root: str, resource: str, name: str, namespace: str | None = None) -> Request:
    path = _object_path(root, resource, name, namespace)
    return Request(verb="get", resource=resource, path=path, namespace=namespace or "", name=name)


# --- collections -----------------------------------------------------------------------------------------------


def list_pods(node: str, *, continue_token: str = "") -> Request:
    """A page of the pods bound to `node`, in every namespace."""
    return _list("/api/v1", "pods", continue_token, *_on_node(node))


def list_definitions(*, continue_token: str = "") -> Request:
    """A page of the NetworkAttachmentDefinitions of every namespace."""
    return _list(_DEFINITIONS_ROOT, DEFINITIONS, continue_token)


def watch_pods(node: str, version: str, *, timeout_seconds: int) -> Request:
    """Changes after `version`, a resourceVersion. The API server ends the answer after `timeout_seconds`."""
    return _watch("/api/v1", "pods", version, timeout_seconds, *_on_node(node))


def watch_definitions(version: str, *, timeout_seconds: int) -> Request:
    """As `watch_pods`."""
    return _watch(_DEFINITIONS_ROOT, DEFINITIONS, version, timeout_seconds)


def _on_node(node: str) -> tuple[tuple[str, str], ...]:
    return (("fieldSelector", f"spec.nodeName={required_name(node, 'nodes')}"),)


def _list(root: str, resource: str, continue_token: str, *selectors: tuple[str, str]) -> Request:
    query = (*selectors, *page_query(continue_token))
    return Request(verb="list", resource=resource, path=f"{root}/{resource}", query=query)


def _watch(root: str, resource: str, version: str, timeout_seconds: int, *selectors: tuple[str, str]) -> Request:
    query = (*selectors, *watch_query(version, timeout_seconds))
    return Request(verb="watch", resource=resource, path=f"{root}/{resource}", query=query)


def page_query(continue_token: str) -> Query:
    """What asks for a page: the first, or the one that follows where the token comes from."""
    limit = ("limit", str(PAGE_ITEMS))
    return (limit, ("continue", continue_token)) if continue_token else (limit,)


def version_alone(listing: Request) -> Request:
    """The same list without its items, as the API server has it in memory: for its version."""
    fields = [value for key, value in listing.query if key == "fieldSelector"]
    selector = ("fieldSelector", ",".join([*fields, f"metadata.name={_NOBODY}"]))
    return msgspec.structs.replace(listing, query=(selector, ("resourceVersion", "0")))


def watch_query(version: str, timeout_seconds: int) -> Query:
    """What makes a list a watch."""
    return (
        ("watch", "true"),
        ("resourceVersion", version),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", str(timeout_seconds)),
    )


# --- writes ----------------------------------------------------------------------------------------------------


def patch_pod_annotations(ref: PodRef, uid: str, annotations: Mapping[str, str]) -> Request:
    """Sets annotations through the subresource `status`, which needs no right to change pods as such.

    The UID in the patch makes the API server refuse a pod of the same name that is another one; "" is any.
    """
    metadata: dict[str, object] = {"annotations": dict(annotations)}
    if uid:
        metadata = {"uid": uid, **metadata}
    return Request(
        verb="patch",
        resource="pods/status",
        method="PATCH",
        path=_object_path("/api/v1", "pods", ref.name, ref.namespace) + "/status",
        headers=(MERGE_PATCH,),
        body=msgspec.json.encode({"metadata": metadata}),
        namespace=ref.namespace,
        name=ref.name,
    )


def create_event(namespace: str, event: Mapping[str, object]) -> Request:
    """`event` is a whole core/v1 Event, with a name of ours so that a second copy is refused as existing."""
    return Request(
        verb="create",
        resource="events",
        method="POST",
        path=f"/api/v1/namespaces/{required_name(namespace, 'namespaces')}/events",
        headers=(JSON,),
        body=msgspec.json.encode(event),
        namespace=namespace,
    )


def patch_event(namespace: str, name: str, changes: Mapping[str, object]) -> Request:
    """Overwrites some keys of an Event: its `count` and `lastTimestamp` when the same thing happened again."""
    return Request(
        verb="patch",
        resource="events",
        method="PATCH",
        path=_object_path("/api/v1", "events", name, namespace),
        headers=(MERGE_PATCH,),
        body=msgspec.json.encode(changes),
        namespace=namespace,
        name=name,
    )


def _object_path(root: str, resource: str, name: str, namespace: str | None) -> str:
    within = "" if namespace is None else f"/namespaces/{required_name(namespace, 'namespaces')}"
    return f"{root}{within}/{resource}/{required_name(name, resource)}"


def required_name(name: str, resource: str) -> str:
    """`name`, if an object can have it; else `InvalidNetConf`."""
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise InvalidNetConf(
            f"name in {resource}: found {documents.shown(name)}, expected lower-case letters, digits, '-' and '.',"
            f" {_NAME_MAX} at most"
        )
    return name
