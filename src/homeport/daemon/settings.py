"""What the daemon is told: its configuration file, and the variables that name its node. I/O: reads both.

The file is JSON. Its keys are those of upstream's `daemon-config.json` and a few of ours; all are optional. Keys are
matched whatever their case, as Go's JSON library does. The whole object also goes over every request's configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from homeport.cni import documents
from homeport.model.errors import InvalidNetConf, IOFailure, UnsupportedField
from homeport.model.names import is_label
from homeport.wiring import IN_CLUSTER

CONFIG_FILE = Path("/etc/homeport/homeportd.json")
NODE_VARIABLES = ("MULTUS_NODE_NAME", "NODENAME", "HOMEPORT_NODE")

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Certificate(msgspec.Struct, rename="camel"):
    enabled: bool = False


class _Wire(msgspec.Struct, rename="camel"):
    """The keys that are the daemon's own, as they are written."""

    socket_dir: str = "/run/homeport"
    state_dir: str = "/var/lib/homeport"
    chroot_dir: str = ""
    metrics_port: _Port | None = None
    metrics_address: str = "127.0.0.1"
    connection_limit: _Positive = 16  # more threads only contend for the interpreter: docs/benchmarks.md
    backlog: _Positive = 256
    read_seconds: _Seconds = 10.0
    write_seconds: _Seconds = 10.0
    drain_seconds: _Seconds = 20.0
    store: str = ""
    whereabouts_namespace: str = ""
    kubeconfig: str = ""
    exec_types: list[str] = []
    per_node_certificate: _Certificate = msgspec.field(default_factory=_Certificate)
    enable_pprof: bool = False


_OWN_KEYS = {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(_Wire)}
# What requests, logs and the writing of the runtime's configuration take from the same file.
_OTHER_KEYS = frozenset(
    """
    auxiliaryCNIChainName binDir capabilities clusterNetwork cniConfigDir cniDir cniVersion confDir daemonSocketDir
    defaultNetworks delegates dns forceCNIVersion globalNamespaces ipam keepConfigOnExit logFile logFormat logLevel
    logOptions logToStderr multusAutoconfigDir multusConfigFile multusMasterCNI multusNamespace name
    namespaceIsolation overrideNetworkName prevResult readinessindicatorfile replicaKinds retryDeleteOnError
    runtimeConfig shimType systemNamespaces type unhonouredRequests
    """.lower().split()
)


class DaemonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the file's whole object. `connection_limit` is how many calls are carried out at once, `backlog` how
    many more may wait for that; `read_seconds` and `write_seconds` are what a caller has for its request and for taking
    the answer, `drain_seconds` what calls under way have when the daemon stops. `metrics_port` None serves none.
    `store` is a file, IN_CLUSTER, or "" for whichever there is. `whereabouts_namespace` is where Whereabouts, on other
    nodes of the cluster, has its objects; "" where there is none.
    """

    socket_dir: Path
    state_dir: Path
    node: str
    chroot_dir: Path | None = None
    metrics_port: int | None = None
    metrics_address: str = "127.0.0.1"
    connection_limit: int = 16
    backlog: int = 256
    read_seconds: float = 10.0
    write_seconds: float = 10.0
    drain_seconds: float = 20.0
    store: str = ""
    whereabouts_namespace: str = ""
    kubeconfig: str | None = None
    exec_types: tuple[str, ...] = ()
    raw: Mapping[str, Any] = {}
    warnings: tuple[str, ...] = ()


def load(path: Path | None, environ: Mapping[str, str]) -> DaemonSettings:
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
    return parse(raw, node=_node(environ))


def parse(raw: Mapping[str, Any], *, node: str) -> DaemonSettings:
    """The file's object; raises `InvalidNetConf` naming the key, or `UnsupportedField`."""
    spelled = {_OWN_KEYS.get(key.lower(), key): value for key, value in raw.items()}
    wire = documents.convert(spelled, _Wire)
    if wire.per_node_certificate.enabled:
        raise UnsupportedField(
            'key "perNodeCertificate.enabled": found true, expected false',
            "a per-node certificate is not supported: give the daemon a kubeconfig or a service account",
        )
    return DaemonSettings(
        socket_dir=_absolute("socketDir", wire.socket_dir),
        state_dir=_absolute("stateDir", wire.state_dir),
        node=node,
        chroot_dir=_absolute("chrootDir", wire.chroot_dir) if wire.chroot_dir else None,
        metrics_port=wire.metrics_port,
        metrics_address=wire.metrics_address,
        connection_limit=wire.connection_limit,
        backlog=wire.backlog,
        read_seconds=wire.read_seconds,
        write_seconds=wire.write_seconds,
        drain_seconds=wire.drain_seconds,
        store=_store(wire.store),
        whereabouts_namespace=_namespace(wire.whereabouts_namespace),
        kubeconfig=wire.kubeconfig or None,
        exec_types=tuple(wire.exec_types),
        raw=raw,
        warnings=_warnings(raw, wire),
    )


def _warnings(raw: Mapping[str, Any], wire: _Wire) -> tuple[str, ...]:
    unknown = [key for key in raw if key.lower() not in _OWN_KEYS and key.lower() not in _OTHER_KEYS]
    found = [f"key {documents.shown(key)}: unknown, passed over" for key in unknown]
    if wire.enable_pprof:
        found.append('key "enablePprof": has no effect, as there is no Go runtime to profile')
    return tuple(found)


def _absolute(key: str, path: str) -> Path:
    if not path.startswith("/") or "\0" in path:
        raise InvalidNetConf(f'key "{key}": found {documents.shown(path)}, expected an absolute path')
    return Path(path)


def _store(text: str) -> str:
    if text in ("", IN_CLUSTER):
        return text
    if not text.startswith("/") or "\0" in text:
        raise InvalidNetConf(f'key "store": found {documents.shown(text)}, expected "{IN_CLUSTER}" or an absolute path')
    return text


def _namespace(text: str) -> str:
    if text and not is_label(text):
        raise InvalidNetConf(f'key "whereaboutsNamespace": found {documents.shown(text)}, expected a namespace')
    return text


def _node(environ: Mapping[str, str]) -> str:
    given = (environ.get(name) for name in NODE_VARIABLES)
    return next(filter(None, given), "") or os.uname().nodename
