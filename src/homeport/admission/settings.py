"""What the webhook is told: the object under the key `admission` of the controller's configuration. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from homeport.cni import documents
from homeport.model.errors import InvalidNetConf
from homeport.model.names import is_label, is_subdomain

SERVICE = "homeport-admission"
SECRET = "homeport-admission"  # noqa: S105 -- its name
_DAY = 86400.0

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Patience = Annotated[int, msgspec.Meta(ge=1, le=30)]  # what the API server takes
_Life = Annotated[float, msgspec.Meta(ge=2, le=3650 * _DAY)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=_DAY)]

FailurePolicy = Literal["Ignore", "Fail"]
Reviews = Literal["usual", "all"]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """How the API server reaches the controllers' pods."""

    namespace: str = ""
    name: str = SERVICE
    port: _Port = 443


class _Wire(msgspec.Struct, rename="camel"):
    """The keys, as they are written."""

    port: _Port = 9443
    address: str = "0.0.0.0"  # noqa: S104 -- a pod's own network; it takes reviews and changes nothing
    service: dict[str, Any] | None = None
    url: str | None = None
    failure_policy: FailurePolicy = "Ignore"
    timeout_seconds: _Patience = 3
    reviews: Reviews = "usual"
    secret: str = SECRET
    certificate_seconds: _Life = 90 * _DAY
    settle_seconds: _Seconds = 300.0
    look_seconds: _Seconds = 10.0


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`server_name` is what certificates are for: a DNS name or an IP address.

    `where` is a Service or a URL without a path. `namespace` has the Secret. A certificate is good for
    `certificate_seconds`, a new authority is registered for `settle_seconds` before anything that it signed is served,
    and every `look_seconds` each controller looks at the Secret, and the leader at its registration.
    """

    port: int
    address: str
    namespace: str
    where: Service | str
    server_name: str
    failure_policy: FailurePolicy = "Ignore"
    timeout_seconds: int = 3
    reviews: Reviews = "usual"
    secret: str = SECRET
    certificate_seconds: float = 90 * _DAY
    settle_seconds: float = 300.0
    look_seconds: float = 10.0


def parse(raw: Mapping[str, Any], *, namespace: str) -> AdmissionSettings:
    """`namespace` is the controller's own; raises `InvalidNetConf` for what cannot be right."""
    documents.require_known(raw, _Wire, at="admission.")
    wire = documents.convert(raw, _Wire, at="admission")
    if not is_subdomain(wire.secret):
        raise InvalidNetConf(f'key "admission.secret": found {documents.shown(wire.secret)}, expected a name')
    try:
        ip_address(wire.address)
    except ValueError as e:
        raise InvalidNetConf(
            f'key "admission.address": found {documents.shown(wire.address)}, expected an address'
        ) from e
    where, server_name = _where(wire, namespace)
    return AdmissionSettings(
        port=wire.port,
        address=wire.address,
        namespace=namespace,
        where=where,
        server_name=server_name,
        failure_policy=wire.failure_policy,
        timeout_seconds=wire.timeout_seconds,
        reviews=wire.reviews,
        secret=wire.secret,
        certificate_seconds=wire.certificate_seconds,
        settle_seconds=wire.settle_seconds,
        look_seconds=wire.look_seconds,
    )


def _where(wire: _Wire, namespace: str) -> tuple[Service | str, str]:
    """The place to be registered, and the name that the API server expects to find there."""
    if wire.url is None:
        service = _service(wire.service or {}, namespace)
        return service, f"{service.name}.{service.namespace}.svc"
    if wire.service is not None:
        raise InvalidNetConf('key "admission.url": found with key "admission.service", expected one of them')
    # ValidatingWebhookConfiguration: "The scheme must be https", no user, fragment or query.
    parts = _split(wire.url)
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
        raise _bad_url(wire.url)
    if parts.query or parts.fragment or "@" in parts.netloc or not _is_host(parts.hostname):
        raise _bad_url(wire.url)
    return wire.url.rstrip("/"), parts.hostname


def _service(raw: Mapping[str, Any], namespace: str) -> Service:
    documents.require_known(raw, Service, at="admission.service.")
    found = documents.convert(raw, Service, at="admission.service")
    service = msgspec.structs.replace(found, namespace=found.namespace or namespace)
    for key, text in (("name", service.name), ("namespace", service.namespace)):
        if not is_label(text):
            raise InvalidNetConf(f'key "admission.service.{key}": found {documents.shown(text)}, expected a name')
    return service


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- it is read to see whether it is one
    except ValueError:
        return None
    return parts


def _is_host(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return is_subdomain(name)
    return True


def _bad_url(url: str) -> InvalidNetConf:
    return InvalidNetConf(
        f'key "admission.url": found {documents.shown(url)}, expected https://HOST:PORT without a path'
    )
