"""The ValidatingWebhookConfiguration: by which requests the API server asks us, and what it does when nobody answers.

I/O: `ports.Objects`. docs/admission.md explains every choice. Everything is spelled out, so that what somebody else
has changed in it can be seen; what an API server adds of its own is left alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.admission.settings import AdmissionSettings, Service
from homeport.admission.writers import GROUPS, MAKERS, accounts
from homeport.kube.resources import WEBHOOKS
from homeport.model.errors import DecodeFailure, IOFailure
from homeport.multinet import selections
from homeport.ports import ObjectChanged, ObjectExists, Objects

NAME = "homeport"
PATH = "/review"
OURS = {"app.kubernetes.io/managed-by": "homeport"}
OPT_OUT = "homeport.dev/admission"
_NAME_LABEL = "kubernetes.io/metadata.name"
_SYSTEM = ("kube-node-lease", "kube-public", "kube-system")
_CONDITIONS = "matchConditions"  # Kubernetes 1.28; an older API server drops the key

_ATTEMPTS = 3  # without conditions, or with the webhooks that need them, and once more

_Webhook = dict[str, Any]


class _Stored(msgspec.Struct):
    webhooks: list[dict[str, Any]] | None = None


_STORED = msgspec.json.Decoder(_Stored)


class Registration(msgspec.Struct, frozen=True):
    """What the API server has; `version` is "" where there is none, `webhooks` are as it stored them."""

    version: str
    webhooks: tuple[Mapping[str, Any], ...] = ()


class Registrar:
    """Of one controller. It learns from what the API server stores whether it knows conditions."""

    def __init__(self, objects: Objects, settings: AdmissionSettings) -> None:
        self._objects = objects
        self._settings = settings
        self.refusal = ""  # why conditions were refused, if it was for them
        self._has_written = False

    def read(self) -> Registration:
        stored = self._objects.get(WEBHOOKS, NAME)
        return Registration("") if stored is None else _registration(stored.version, stored.body)

    def write(self, found: Registration, authorities: bytes) -> Registration | None:
        """As it should be, over what was found. None when somebody else changed it meanwhile.

        The first time it is written in any case, to learn whether conditions are kept. Webhooks that need them are
        added only then: without conditions they would cost every pod a question.
        """
        written: Registration | None = found
        for _ in range(_ATTEMPTS):
            if written is None:
                return None
            found = written
            webhooks = self._wanted(found, authorities)
            expected = webhooks if _keeps_conditions(found) else [_unconditional(w) for w in webhooks]
            if self._has_written and covers(expected, found.webhooks):
                return found
            written = self._written(found, webhooks)
        return written

    def _wanted(self, found: Registration, authorities: bytes) -> list[_Webhook]:
        every = _keeps_conditions(found) or self._settings.reviews == "all"
        webhooks = wanted(self._settings, authorities, every=every)
        return [_unconditional(w) for w in webhooks] if self.refusal else webhooks

    def _written(self, found: Registration, webhooks: Sequence[_Webhook]) -> Registration | None:
        try:
            if found.version:
                body: dict[str, Any] = {"metadata": {"labels": OURS}, "webhooks": webhooks}
                stored = self._objects.patch(WEBHOOKS, NAME, body, version=found.version)
            else:
                body = {"metadata": {"name": NAME, "labels": OURS}, "webhooks": webhooks}
                stored = self._objects.create(WEBHOOKS, body)
        except (ObjectChanged, ObjectExists):
            return None
        except IOFailure as e:
            if self.refusal:
                self.refusal = ""  # it was for something else
                raise
            self.refusal = str(e)
            return found  # once more, without conditions
        self._has_written = True
        return _registration(stored.version, stored.body)


def withdraw(objects: Objects) -> bool:
    """For a controller that reviews nothing: else the API server would ask in vain. Whether there was one."""
    try:
        found = objects.get(WEBHOOKS, NAME)
        if found is not None:
            objects.delete(WEBHOOKS, NAME, version=found.version)
    except ObjectChanged:
        return False
    return found is not None


def registered(found: Registration) -> bytes:
    """The authorities that the API server has for each of ours; none when two differ."""
    bundles = {webhook.get("clientConfig", {}).get("caBundle", "") for webhook in found.webhooks}
    if len(bundles) != 1:
        return b""
    try:
        return msgspec.convert(bundles.pop(), bytes)
    except msgspec.ValidationError as e:
        raise DecodeFailure(f"read authorities of {NAME}: found no base64") from e


def covers(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are the same webhooks, but for keys that only `theirs` have."""
    return len(ours) == len(theirs) and all(
        all(key in other and other[key] == value for key, value in webhook.items())
        for webhook, other in zip(ours, theirs, strict=True)
    )


def wanted(settings: AdmissionSettings, authorities: bytes, *, every: bool) -> list[_Webhook]:
    """The webhooks; with `every` also those for pods and IPAllocations, which an ADD writes."""
    system = sorted({*_SYSTEM, settings.namespace})
    anywhere = [{"key": OPT_OUT, "operator": "NotIn", "values": ["ignore"]}]
    outside_system = [*anywhere, {"key": _NAME_LABEL, "operator": "NotIn", "values": system}]
    usual = [
        _webhook(
            settings,
            "networks",
            authorities,
            [_rule("k8s.cni.cncf.io", ["v1"], ["network-attachment-definitions"], ["CREATE", "UPDATE"])],
            namespaces=anywhere,
        ),
        _webhook(
            settings,
            "workloads",
            authorities,
            [
                _rule("apps", ["v1"], ["daemonsets", "deployments", "replicasets", "statefulsets"], _WRITES),
                _rule("apps", ["v1"], ["deployments/scale", "statefulsets/scale"], ["UPDATE"]),
                _rule("batch", ["v1", "v1beta1"], ["cronjobs", "jobs"], _WRITES),
            ],
            namespaces=outside_system,
            condition=("made-by-hand", _MADE_BY_HAND),
        ),
    ]
    if not every:
        return usual
    return [
        *usual,
        _webhook(
            settings,
            "pods",
            authorities,
            [_rule("", ["v1"], ["pods"], ["CREATE"])],
            namespaces=outside_system,
            condition=("asks-for-networks-itself", _ASKS_ITSELF),
            fails_open=True,
        ),
        _webhook(
            settings,
            "allocations",
            authorities,
            [_rule("homeport.dev", ["v1alpha1"], ["ipallocations"], [*_WRITES, "DELETE"], scope="Cluster")],
            namespaces=[],
            condition=("not-by-homeport-itself", _not_by_us(settings.namespace)),
            fails_open=True,
        ),
    ]


_WRITES = ["CREATE", "UPDATE"]
_CONTROLLED = "object.metadata.ownerReferences.exists(o, has(o.controller) && o.controller{of})"
_FREE = "!has(object.metadata.ownerReferences) || !" + _CONTROLLED
# What a workload's controller makes from it was reviewed with it; what any other controller makes was not.
_MADE_BY_HAND = _FREE.format(of=f" && o.kind in {list(MAKERS)}")
_ASKS_ITSELF = (
    f"has(object.metadata.annotations) && ('{selections.ANNOTATION}' in object.metadata.annotations"
    f" || '{selections.DEFAULT_ANNOTATION}' in object.metadata.annotations) && ({_FREE.format(of='')})"
)


def _not_by_us(namespace: str) -> str:
    return (
        f"!(request.userInfo.username in {list(accounts(namespace))}) && (!has(request.userInfo.groups)"
        f" || !request.userInfo.groups.exists(g, g in {list(GROUPS)}))"
    )


def _webhook(
    settings: AdmissionSettings,
    what: str,
    authorities: bytes,
    rules: Sequence[Mapping[str, Any]],
    *,
    namespaces: Sequence[Mapping[str, Any]],
    condition: tuple[str, str] | None = None,
    fails_open: bool = False,
) -> _Webhook:
    made: _Webhook = {
        "name": f"{what}.homeport.dev",
        "clientConfig": _client(settings, authorities),
        "rules": rules,
        "failurePolicy": "Ignore" if fails_open else settings.failure_policy,
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": namespaces} if namespaces else {},
        "objectSelector": {},
        "sideEffects": "None",
        "timeoutSeconds": settings.timeout_seconds,
        "admissionReviewVersions": ["v1"],
    }
    if condition is not None:
        name, expression = condition
        made[_CONDITIONS] = [{"name": f"{name}.homeport.dev", "expression": expression}]
    return made


def _client(settings: AdmissionSettings, authorities: bytes) -> dict[str, Any]:
    bundle = {"caBundle": b64encode(authorities).decode()}
    match settings.where:
        case Service(namespace=namespace, name=name, port=port):
            return {"service": {"namespace": namespace, "name": name, "port": port, "path": PATH}, **bundle}
        case url:
            return {"url": f"{url}{PATH}", **bundle}


def _rule(
    group: str, versions: Sequence[str], resources: Sequence[str], operations: Sequence[str], scope: str = "Namespaced"
) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": versions,
        "resources": resources,
        "operations": operations,
        "scope": scope,
    }


def _keeps_conditions(found: Registration) -> bool:
    return any(webhook.get(_CONDITIONS) for webhook in found.webhooks)


def _unconditional(webhook: _Webhook) -> _Webhook:
    return {key: value for key, value in webhook.items() if key != _CONDITIONS}


def _registration(version: str, body: bytes) -> Registration:
    try:
        return Registration(version, tuple(_STORED.decode(body).webhooks or ()))
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise DecodeFailure(f"decode {WEBHOOKS.plural} {NAME}: {e}") from e
