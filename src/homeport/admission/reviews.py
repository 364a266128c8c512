"""AdmissionReview in and out. No I/O.

admission.k8s.io/v1, "Dynamic Admission Control" of the Kubernetes documentation. An answer that allows may carry
warnings, which the API server hands to whoever asked, and cuts at 4096 characters in all.
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeport.model.errors import DecodeFailure

API_VERSION = "admission.k8s.io/v1"
_KIND = "AdmissionReview"
_DENIED = 403  # 422 is what the API server says of its own checks, and of a JSON patch whose test failed


class _Resource(msgspec.Struct, frozen=True):
    group: str = ""
    version: str = ""
    resource: str = ""


class User(msgspec.Struct, frozen=True):
    """Who asked the API server."""

    username: str = ""
    groups: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the API server is about to do."""

    uid: str
    resource: _Resource = _Resource()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    user_info: User = User()
    object: msgspec.Raw = msgspec.Raw()
    old_object: msgspec.Raw = msgspec.Raw()

    @property
    def new(self) -> msgspec.Raw | None:
        """The object as it is to be; None at DELETE."""
        return _given(self.object)

    @property
    def old(self) -> msgspec.Raw | None:
        """The object as it is; None at CREATE."""
        return _given(self.old_object)

    @property
    def what(self) -> str:
        """Such as `statefulsets` or `statefulsets/scale`."""
        return f"{self.resource.resource}/{self.sub_resource}" if self.sub_resource else self.resource.resource


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of a denial: `reason` is the rule, `field` the place."""

    reason: str
    message: str
    field: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Allowed, perhaps with warnings, unless there is a `denial`: the words and their causes."""

    denial: str = ""
    causes: tuple[Cause, ...] = ()
    warnings: tuple[str, ...] = ()


ALLOWED = Answer()


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    request: Request


_reviews = msgspec.json.Decoder(_Review)


def decode(raw: bytes) -> Request:
    """Raises `DecodeFailure` for whatever is no AdmissionReview of version v1 with a request."""
    try:
        review = _reviews.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {_KIND}: {e}") from e
    if (review.api_version, review.kind) != (API_VERSION, _KIND):
        raise DecodeFailure(
            f'decode {_KIND}: found "{review.kind}" of "{review.api_version}", expected "{_KIND}" of "{API_VERSION}"'
        )
    return review.request


def encode(uid: str, answer: Answer) -> bytes:
    """The AdmissionReview that answers the request `uid`."""
    response: dict[str, Any] = {"uid": uid, "allowed": not answer.denial}
    if answer.denial:
        status: dict[str, Any] = {"status": "Failure", "code": _DENIED, "reason": "Forbidden"}
        response["status"] = {**status, "message": answer.denial, "details": {"causes": answer.causes}}
    if answer.warnings:
        response["warnings"] = answer.warnings
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": _KIND, "response": response})


def _given(raw: msgspec.Raw) -> msgspec.Raw | None:
    return raw if bytes(raw) not in (b"", b"null") else None
