"""The Secret that has the webhook's certificates. I/O: `ports.Objects`.

Every controller follows it, the leader alone writes it, each time the version that it has read. One that is Homeport's
and cannot be read counts for nothing and is written anew; one that is somebody else's is left alone.
"""

from __future__ import annotations

from base64 import b64encode

import msgspec

from homeport.admission import certificates
from homeport.admission.rotating import Held
from homeport.model.errors import DecodeFailure, IOFailure
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, Objects, Resource

SECRETS = Resource(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
OURS = {"app.kubernetes.io/managed-by": "homeport"}

_AUTHORITIES, _CERTIFICATE, _KEY = "ca.crt", "tls.crt", "tls.key"
_COMING_CERTIFICATE, _COMING_KEY = "coming.crt", "coming.key"
_TYPE = "Opaque"


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = {}


class _Secret(msgspec.Struct):
    metadata: _Metadata
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_SECRET = msgspec.json.Decoder(_Secret)
_DATA = msgspec.json.Decoder(dict[str, bytes] | None)  # base64, which msgspec reads


class Kept(msgspec.Struct, frozen=True):
    """What was read: `version` "" where there is no Secret; `problem` says why it is of no use, "" if it is."""

    version: str
    held: Held | None
    problem: str = ""


class CertificateSecret:
    """One Secret."""

    def __init__(self, objects: Objects, namespace: str, name: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._name = name

    def read(self) -> Kept:
        """Raises `CniError` where the Secret is not Homeport's, or nobody can tell: it is not to be written over."""
        stored = self._objects.get(SECRETS, self._name, namespace=self._namespace)
        if stored is None:
            return Kept("", None, f"{self}: not there")
        data = self._own_data(stored)
        try:
            return Kept(stored.version, _held(self._decoded(data)))
        except DecodeFailure as e:
            return Kept(stored.version, None, f"{self}: {e}")

    def write(self, held: Held, version: str) -> bool:
        """Over that version, "" where there was none; False when somebody else was faster."""
        coming = held.coming
        data = {
            _AUTHORITIES: _written(certificates.joined(held.authorities)),
            _CERTIFICATE: _written(held.serving.pem),
            _KEY: _written(held.serving.key),
            _COMING_CERTIFICATE: None if coming is None else _written(coming.pem),
            _COMING_KEY: None if coming is None else _written(coming.key),
        }
        try:
            if version:
                self._objects.patch(SECRETS, self._name, {"data": data}, namespace=self._namespace, version=version)
            else:
                given = {key: value for key, value in data.items() if value is not None}
                body = {"metadata": {"name": self._name, "labels": OURS}, "type": _TYPE, "data": given}
                self._objects.create(SECRETS, body, namespace=self._namespace)
        except (ObjectChanged, ObjectExists):
            return False
        return True

    def __str__(self) -> str:
        return f"secret {self._namespace}/{self._name}"

    def _own_data(self, stored: ApiObject) -> msgspec.Raw:
        try:
            secret = _SECRET.decode(stored.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise DecodeFailure(f"decode {self}: {e}") from e
        ((label, value),) = OURS.items()
        if secret.type != _TYPE or secret.metadata.labels.get(label) != value:
            raise IOFailure(
                f'{self}: found somebody else\'s, expected one of type {_TYPE} with the label "{label}: {value}";'
                ' delete it, or give another name by key "admission.secret"'
            )
        return secret.data

    def _decoded(self, data: msgspec.Raw) -> dict[str, bytes]:
        try:
            return _DATA.decode(data) or {}
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise DecodeFailure(f"decode its data: {e}") from e


def _held(data: dict[str, bytes]) -> Held:
    authorities = certificates.read_authorities(data.get(_AUTHORITIES, b""))
    serving = certificates.read_pair(data.get(_CERTIFICATE, b""), data.get(_KEY, b""), authorities)
    coming = None
    if _COMING_CERTIFICATE in data or _COMING_KEY in data:
        coming = certificates.read_pair(data.get(_COMING_CERTIFICATE, b""), data.get(_COMING_KEY, b""), authorities)
    return Held(authorities=authorities, serving=serving, coming=coming)


def _written(content: bytes) -> str:
    return b64encode(content).decode()
