"""What the controller is told: its configuration file, with the environment behind it. I/O: reads both.

The file is JSON; all keys are optional. A key that is not known is an error: all of them are ours.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from homeport.admission import settings as admission
from homeport.admission.settings import AdmissionSettings
from homeport.cni import documents
from homeport.controller.electing import LeaseSettings
from homeport.controller.ledgering import Keeping
from homeport.controller.operating import FULL_PASS_SECONDS
from homeport.model.errors import InvalidNetConf, IOFailure
from homeport.model.names import is_label

CONFIG_FILE = Path("/etc/homeport/controller.json")
DEFAULT_NAMESPACE = "kube-system"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Seconds = Annotated[float, msgspec.Meta(ge=1, le=86400)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Wire(msgspec.Struct, rename="camel"):
    """The keys, as they are written."""

    kubeconfig: str = ""
    namespace: str = ""
    lease_name: _Name = "homeport-controller"
    lease_seconds: _Seconds = 15.0
    identity: str = ""
    metrics_address: str = "0.0.0.0"  # noqa: S104 -- a pod's own network; the pages tell figures and take nothing
    metrics_port: _Port | None = None
    full_pass_seconds: _Seconds = FULL_PASS_SECONDS
    ledger_days: _Count = 30
    ledger_entries: _Count = 1_000_000
    whereabouts_namespace: str = ""
    log_format: Literal["text", "json"] = "text"
    admission: dict[str, Any] | None = None


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`kubeconfig` None is the service account of this pod; `metrics_port` None serves nothing.

    `whereabouts_namespace` is where Whereabouts keeps its objects while some nodes still run it, or "". `admission`
    None reviews nothing.
    """

    lease: LeaseSettings
    kubeconfig: str | None = None
    metrics_address: str
    metrics_port: int | None = None
    full_pass_seconds: float = FULL_PASS_SECONDS
    keeping: Keeping = Keeping()
    whereabouts_namespace: str = ""
    log_format: Literal["text", "json"] = "text"
    admission: AdmissionSettings | None = None


def load(path: Path | None, environ: Mapping[str, str]) -> ControllerSettings:
    """From the file at `path`, or at CONFIG_FILE, which may be missing; raises `CniError` for what cannot be right."""
    try:
        text = (path or CONFIG_FILE).read_bytes()
    except FileNotFoundError as e:
        if path is not None:
            raise IOFailure(f"read configuration {path}: {os.strerror(e.errno or 0)}") from e
        text = b"{}"
    except OSError as e:
        raise IOFailure(f"read configuration {path or CONFIG_FILE}: {os.strerror(e.errno or 0)}") from e
    raw = documents.decode_object(text, f"configuration {path or CONFIG_FILE}")
    return parse(raw, pod=environ.get("POD_NAME", ""), namespace=environ.get("POD_NAMESPACE") or _own_namespace())


def parse(raw: Mapping[str, Any], *, pod: str, namespace: str) -> ControllerSettings:
    """The file's object. `pod` and `namespace` are where this process runs, "" for outside of a cluster."""
    documents.require_known(raw, _Wire)
    wire = documents.convert(raw, _Wire)
    ours = wire.namespace or namespace or DEFAULT_NAMESPACE
    return ControllerSettings(
        lease=LeaseSettings(
            namespace=ours,
            identity=_identity(wire.identity or pod or os.uname().nodename),
            name=wire.lease_name,
            duration_seconds=wire.lease_seconds,
            renew_seconds=wire.lease_seconds * 2 / 3,
            retry_seconds=wire.lease_seconds * 2 / 15,
        ),
        kubeconfig=wire.kubeconfig or None,
        metrics_address=wire.metrics_address,
        metrics_port=wire.metrics_port,
        full_pass_seconds=wire.full_pass_seconds,
        keeping=Keeping(days=wire.ledger_days, entries=wire.ledger_entries),
        whereabouts_namespace=_namespace(wire.whereabouts_namespace),
        log_format=wire.log_format,
        admission=admission.parse(wire.admission, namespace=ours) if wire.admission is not None else None,
    )


def _identity(name: str) -> str:
    """Of this process alone: a container that starts anew in its pod is another."""
    return f"{name}_{secrets.token_hex(4)}"


def _namespace(text: str) -> str:
    if text and not is_label(text):
        raise InvalidNetConf(f'key "whereaboutsNamespace": found {documents.shown(text)}, expected a namespace')
    return text


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return ""
