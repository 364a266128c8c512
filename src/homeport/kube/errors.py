"""The API server's refusals, and the failures on the way to it, as our errors. No I/O.

Kubernetes API conventions, "Response Status Kind". Nothing foreign leaves `homeport.kube`. Of an answer's body only
what a Status object says is repeated, cut when long: no other body, and never a header of ours.
"""

from __future__ import annotations

import ssl

import msgspec

from homeport.kube.requests import Request
from homeport.model.errors import CniError, IOFailure, TryAgainLater, Unreachable


class Expired(TryAgainLater):
    """410: the resourceVersion or the page asked for is no longer kept; a list from its beginning is needed."""


_TOLD = 400  # characters of the API server's own words worth keeping
_LATER = frozenset({408, 409, 425, 429})  # besides every 5xx


class _Cause(msgspec.Struct):
    reason: str = ""
    field: str = ""


class _Details(msgspec.Struct, rename="camel"):
    name: str = ""
    kind: str = ""
    causes: list[_Cause] | None = None
    retry_after_seconds: int = 0


class ApiStatus(msgspec.Struct):
    """A Status object, as much of it as is acted on."""

    kind: str
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(ApiStatus)


def decode_status(body: bytes) -> ApiStatus | None:
    """The Status in `body`, or None when it is anything else."""
    try:
        status = _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return status if status.kind == "Status" else None


def is_absence(request: Request, code: int, body: bytes) -> bool:
    """Whether the API server says that this very object is not there.

    A 404 without the object's name says less: that it knows no such resource (a definition not installed), or that
    something else than an API server answered.
    """
    if code != 404 or not request.name:
        return False
    status = decode_status(body)
    return (
        status is not None
        and status.reason == "NotFound"
        and status.details is not None
        and status.details.name == request.name
        and status.details.kind in ("", request.resource.partition("/")[0])
    )


def may_be_another(code: int, body: bytes) -> bool:
    """Whether a write may have been refused as the UID in it is not the object's: 409, or 422 for that field."""
    if code == 409:
        return True
    status = decode_status(body) if code == 422 else None
    return (
        status is not None
        and status.details is not None
        and any(cause.field == "metadata.uid" for cause in status.details.causes or ())
    )


def is_taken(code: int, body: bytes) -> bool:
    """Whether a creation was refused as the name is taken; any other 409 is something else."""
    status = decode_status(body) if code == 409 else None
    return status is not None and status.reason == "AlreadyExists"


def is_failed_test(code: int, body: bytes) -> bool:
    """Whether a JSON patch was refused for one of its tests, or as what it works on is not there.

    That is a 422 about no object; one that names the object is the refusal of what the patch made of it.
    """
    status = decode_status(body) if code == 422 else None
    return status is not None and not (status.details is not None and status.details.name)


def is_ending_namespace(code: int, body: bytes) -> bool:
    """Whether nothing can be created as the namespace is being deleted."""
    status = decode_status(body) if code == 403 else None
    return (
        status is not None
        and status.details is not None
        and any(cause.reason == "NamespaceTerminating" for cause in status.details.causes or ())
    )


def refused(request: Request, code: int, body: bytes, *, place: str) -> CniError:
    """What an answer that is not a success means to the caller."""
    status = decode_status(body)
    told = _told(status)
    if code == 401:
        return IOFailure(f"{request}: {place} does not accept our credentials (401)", told)
    if code == 403:
        return IOFailure(f'{request}: {place} forbids "{request.verb}" of "{request.resource}" (403)', told)
    if code == 404:
        return _unknown(request, told, place)
    if 300 <= code < 400:
        return IOFailure(f"{request}: {place} answered with a redirect ({code}), expected an API server")
    if code == 410:
        return Expired(f"{request}: {place} no longer has the version asked for (410)", told)
    if code in _LATER or code >= 500:
        return TryAgainLater(f"{request}: {place} answered {code}", told)
    return IOFailure(f"{request}: {place} answered {code}", told)


def unreachable(request: Request, why: str, *, place: str, sent: bool = True) -> TryAgainLater:
    """No answer came, or not all of it; `sent` is whether the question may have arrived."""
    return (TryAgainLater if sent else Unreachable)(f"{request}: no answer from {place}: {why}")


def reason(failure: Exception) -> str:
    """A failure of the connection in a few words."""
    if isinstance(failure, ssl.SSLError):
        told = getattr(failure, "reason", None)  # OpenSSL's name of the error, on those that come from it
        return f"TLS: {str(told or failure).lower().replace('_', ' ')}"
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror.lower()
    return str(failure) or type(failure).__name__


def _unknown(request: Request, told: str, place: str) -> CniError:
    """Kubernetes' own resources are there as soon as it has started; another one once somebody has installed it."""
    msg = f'{request}: {place} knows no resource "{request.resource}" (404)'
    if "." not in request.group or request.group.endswith(".k8s.io"):
        return TryAgainLater(msg, told)
    return IOFailure(f'{msg}, expected the definition "{request.resource}.{request.group}" to be installed', told)


def _told(status: ApiStatus | None) -> str:
    if status is None:
        return ""
    return status.message if len(status.message) <= _TOLD else status.message[:_TOLD] + "..."
