"""Objects of the API server as doctor's facts, as much of each as a check asks about. No I/O.

What cannot be decoded raises `DecodeFailure` naming the object: that is no absence (docs/identity.md R12).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import product
from typing import Any, TypeVar

import msgspec
from cryptography import x509

from homeport.admission.rotating import Life
from homeport.doctor.cluster_facts import Definition, Grant, Lease, SeenPod, SeenSlot, Webhook
from homeport.kube import decoding
from homeport.model.errors import DecodeFailure
from homeport.multinet import selections
from homeport.ports import ApiObject
from homeport.stores.kubernetes import slots

T = TypeVar("T")
_APP = "app.kubernetes.io/name"


class _Metadata(msgspec.Struct, rename="camel"):
    creation_timestamp: datetime | None = None


class _Dated(msgspec.Struct):
    metadata: _Metadata


class _Schema(msgspec.Struct, rename="camel"):
    open_api_v3_schema: dict[str, Any] = msgspec.field(default_factory=dict, name="openAPIV3Schema")


class _Version(msgspec.Struct):
    name: str
    served: bool
    storage: bool
    schema: _Schema = msgspec.field(default_factory=_Schema)


class _Condition(msgspec.Struct):
    type: str
    status: str


class _DefinitionSpec(msgspec.Struct):
    versions: list[_Version]


class _DefinitionStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None


class _Definition(msgspec.Struct):
    spec: _DefinitionSpec
    status: _DefinitionStatus = msgspec.field(default_factory=_DefinitionStatus)


class _Rule(msgspec.Struct, rename="camel"):
    verbs: list[str]
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None


class _Role(msgspec.Struct):
    rules: list[_Rule] | None = None


class _LeaseSpec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: datetime | None = None


class _Lease(msgspec.Struct):
    spec: _LeaseSpec


class _Container(msgspec.Struct):
    image: str = ""


class _PodSpec(msgspec.Struct, rename="camel"):
    host_network: bool = False
    containers: list[_Container] = []


class _ContainerStatus(msgspec.Struct):
    state: dict[str, Any] | None = None


class _PodStatus(msgspec.Struct, rename="camel"):
    start_time: datetime | None = None
    container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct):
    spec: _PodSpec
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _ClientConfig(msgspec.Struct, rename="camel"):
    ca_bundle: str = ""


class _Webhook(msgspec.Struct, rename="camel"):
    name: str
    client_config: _ClientConfig
    failure_policy: str = "Fail"


class _Configuration(msgspec.Struct):
    webhooks: list[_Webhook] | None = None


def definition(stored: ApiObject) -> Definition:
    """A CustomResourceDefinition; `keys` are of the version in which objects are stored."""
    found = _decode(stored, _Definition)
    versions = found.spec.versions
    stored_version = next((v for v in versions if v.storage), None)
    schema = stored_version.schema.open_api_v3_schema if stored_version is not None else {}
    return Definition(
        served=tuple(v.name for v in versions if v.served),
        stored=stored_version.name if stored_version is not None else "",
        is_established=any(c.type == "Established" and c.status == "True" for c in found.status.conditions or ()),
        keys=frozenset(_paths(schema)),
    )


def grants(stored: ApiObject) -> frozenset[Grant]:
    """What a role allows of every object of a resource; rules about names alone are left out."""
    rules = [rule for rule in _decode(stored, _Role).rules or () if not rule.resource_names]
    return frozenset(
        Grant(group, resource, verb)
        for rule in rules
        for group, resource, verb in product(rule.api_groups or (), rule.resources or (), rule.verbs)
    )


def lease(stored: ApiObject) -> Lease:
    """A Lease of coordination.k8s.io/v1."""
    spec = _decode(stored, _Lease).spec
    return Lease(
        holder=spec.holder_identity or "",
        renewed=spec.renew_time,
        duration_seconds=spec.lease_duration_seconds or 0,
    )


def pod(stored: ApiObject) -> SeenPod:
    """It runs when a container of it does; a node that is lost leaves that as it last was."""
    found, known = _decode(stored, _Pod), decoding.decode_pod(stored.body)
    return SeenPod(
        pod=known,
        networks=known.annotations.get(selections.ANNOTATION, ""),
        app=known.labels.get(_APP, ""),
        images=tuple(c.image for c in found.spec.containers),
        on_host_network=found.spec.host_network,
        started=found.status.start_time,
        is_running=any("running" in (c.state or {}) for c in found.status.container_statuses or ()),
    )


def slot(stored: ApiObject) -> SeenSlot:
    """An IPSlot, with its age."""
    record = slots.decode_slot(stored)
    created = _decode(stored, _Dated).metadata.creation_timestamp
    return SeenSlot(name=stored.name, slot=record.slot, places=record.places, created=created)


def webhooks(stored: ApiObject) -> tuple[Webhook, ...]:
    """Those of a ValidatingWebhookConfiguration."""
    found = _decode(stored, _Configuration).webhooks or ()
    return tuple(
        Webhook(name=w.name, failure_policy=w.failure_policy, authorities=_lives(w.client_config.ca_bundle))
        for w in found
    )


def _lives(bundle: str) -> tuple[Life, ...] | None:
    """Of each certificate of a bundle, which is base64 of PEM."""
    try:
        found = x509.load_pem_x509_certificates(b64decode(bundle, validate=True))
    except ValueError:
        return None
    return tuple(Life(one.not_valid_before_utc, one.not_valid_after_utc) for one in found)


def _paths(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    properties = schema.get("properties")
    for key, below in properties.items() if isinstance(properties, Mapping) else ():
        yield f"{above}{key}"
        if isinstance(below, Mapping):
            yield from _paths(below, f"{above}{key}.")


def _decode(stored: ApiObject, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(stored.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        name = f"{stored.namespace}/{stored.name}".removeprefix("/")
        raise DecodeFailure(f"decode {name}: {e}") from e
