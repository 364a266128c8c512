"""The meta-plugin's own configuration: Multus's keys, and a few of ours. No I/O.

Keys are matched as Go's JSON library matches them, exactly first, else whatever their case: `readinessIndicatorFile`
is found in many clusters for `readinessindicatorfile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from homeport.cni import documents, netconfs
from homeport.model.errors import InvalidNetConf

CONF_DIR = "/etc/cni/multus/net.d"
CNI_DIR = "/var/lib/cni/multus"
BIN_DIR = "/opt/cni/bin"
NAMESPACE = "kube-system"
GLOBAL_NAMESPACES = ("default",)

LogLevel = Literal["debug", "verbose", "error", "panic"]

_LEVELS: Mapping[str, LogLevel] = {"debug": "debug", "verbose": "verbose", "error": "error", "panic": "panic"}
_READINESS_FILE = "readinessindicatorfile"


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How the log file is rotated: age in days, size in megabytes."""

    max_age: int = 5
    max_size: int = 100
    max_backups: int = 5
    compress: bool = True


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, and how much of it. `file` None: no file."""

    file: str | None = None
    level: LogLevel = "panic"
    to_stderr: bool = True
    options: LogOptions = LogOptions()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One request's, parsed.

    Either `cluster_network` or at least one of `delegates` is set, and the other is empty; `default_networks` come
    with the former alone. The first of `delegates` is the pod's default network. `namespace_isolation` lets a pod
    select networks of its own namespace and of `global_namespaces` only. `replica_kinds` are objects as
    `ipam.replicas.ReplicaKind` reads them. `unhonoured` is what becomes of a pod's request that no plugin of the
    network can honour. `warnings` tell of values that were passed over.
    """

    cni_version: str
    name: str
    conf_dir: str = CONF_DIR
    cni_dir: str = CNI_DIR
    bin_dir: str = BIN_DIR
    delegates: tuple[Mapping[str, Any], ...] = ()
    cluster_network: str = ""
    default_networks: tuple[str, ...] = ()
    multus_namespace: str = NAMESPACE
    system_namespaces: tuple[str, ...] = (NAMESPACE,)
    namespace_isolation: bool = False
    global_namespaces: tuple[str, ...] = GLOBAL_NAMESPACES
    readiness_indicator_file: str | None = None
    log: Log = Log()
    runtime_config: Mapping[str, Any] = {}
    auxiliary_cni_chain_name: str = ""
    retry_delete_on_error: bool = False
    kubeconfig: str | None = None
    exec_types: tuple[str, ...] = ()
    unhonoured: Literal["Error", "Ignore"] = "Error"
    replica_kinds: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


class _Wire(msgspec.Struct, rename="camel"):
    """Every key as it is written; an empty string is an absent one."""

    conf_dir: str = ""
    cni_dir: str = ""
    bin_dir: str = ""
    delegates: list[dict[str, Any]] = []
    cluster_network: str = ""
    default_networks: list[str] = []
    multus_namespace: str = ""
    system_namespaces: list[str] | None = None
    namespace_isolation: bool = False
    global_namespaces: str = ""
    readiness_indicator_file: str = msgspec.field(name=_READINESS_FILE, default="")
    log_file: str = ""
    log_level: str = ""
    log_to_stderr: bool = True
    log_options: LogOptions = LogOptions()
    auxiliary_cni_chain_name: str = msgspec.field(name="auxiliaryCNIChainName", default="")
    retry_delete_on_error: bool = False
    kubeconfig: str = ""
    exec_types: list[str] = []
    unhonoured_requests: Literal["Error", "Ignore"] = "Error"
    replica_kinds: list[dict[str, Any]] = []


_KEYS: Mapping[str, str] = {
    field.encode_name.lower(): field.encode_name
    for struct in (_Wire, LogOptions)
    for field in msgspec.structs.fields(struct)
}


def parse(raw: Mapping[str, Any]) -> Settings:
    """The settings of a request, given as JSON types. Unknown keys are ignored, null ones count as absent.

    Raises `InvalidNetConf` naming the key, or `IncompatibleVersion`.
    """
    conf = netconfs.parse(raw)
    spelled = _spelled(raw)
    wire = netconfs.decode_keys(spelled, _Wire)
    if not wire.delegates and not wire.cluster_network:
        raise InvalidNetConf('keys "delegates" and "clusterNetwork": both missing, expected one of them')
    level, warnings = _level(wire.log_level)
    return Settings(
        cni_version=conf.cni_version,
        name=conf.name,
        conf_dir=wire.conf_dir or CONF_DIR,
        cni_dir=wire.cni_dir or CNI_DIR,
        bin_dir=wire.bin_dir or BIN_DIR,
        delegates=() if wire.cluster_network else tuple(spelled["delegates"]),  # as written, null keys and all
        cluster_network=wire.cluster_network,
        default_networks=tuple(wire.default_networks) if wire.cluster_network else (),
        multus_namespace=wire.multus_namespace or NAMESPACE,
        system_namespaces=(NAMESPACE,) if wire.system_namespaces is None else tuple(wire.system_namespaces),
        namespace_isolation=wire.namespace_isolation,
        global_namespaces=_namespaces(wire.global_namespaces) or GLOBAL_NAMESPACES,
        readiness_indicator_file=wire.readiness_indicator_file or None,
        log=Log(file=wire.log_file or None, level=level, to_stderr=wire.log_to_stderr, options=wire.log_options),
        runtime_config=conf.runtime_config,
        auxiliary_cni_chain_name=wire.auxiliary_cni_chain_name,
        retry_delete_on_error=wire.retry_delete_on_error,
        kubeconfig=wire.kubeconfig or None,
        exec_types=tuple(netconfs.require_type(t, key=f"execTypes[{n}]") for n, t in enumerate(wire.exec_types)),
        unhonoured=wire.unhonoured_requests,
        replica_kinds=tuple(wire.replica_kinds),
        warnings=warnings,
    )


def cni_dir(daemon: Mapping[str, Any]) -> str:
    """Where the daemon's configuration file, which may name no network, has the files of attachments."""
    return netconfs.decode_keys({"cniDir": _spelled(daemon).get("cniDir")}, _Wire).cni_dir or CNI_DIR


def bin_dir(daemon: Mapping[str, Any]) -> str:
    """As `cni_dir`: where executables of plugins are."""
    return netconfs.decode_keys({"binDir": _spelled(daemon).get("binDir")}, _Wire).bin_dir or BIN_DIR


def overlaid(request: Mapping[str, Any], daemon: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request with every key of the daemon's configuration file in place of its own.

    A daemon that writes the runtime's configuration itself (`multusConfigFile: auto`) has waited for the readiness
    file before; then each request's own word about it stands.
    """
    generating = daemon.get("multusConfigFile") == "auto"
    return {**request, **{k: v for k, v in daemon.items() if not (generating and k.lower() == _READINESS_FILE)}}


def _spelled(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`raw` with our keys in their own spelling, at the top level and in `logOptions`; an exact one goes first."""
    spelled = {_KEYS.get(key.lower(), key): value for key, value in raw.items() if key not in _KEYS.values()}
    spelled |= {key: value for key, value in raw.items() if key in _KEYS.values()}
    options = spelled.get("logOptions")
    return {**spelled, "logOptions": _spelled(options)} if isinstance(options, dict) else spelled


def _namespaces(listed: str) -> tuple[str, ...]:
    return tuple(name for part in listed.split(",") if (name := part.strip()))


def _level(given: str) -> tuple[LogLevel, tuple[str, ...]]:
    level = _LEVELS.get(given.lower())
    if level is not None or not given:
        return level or "panic", ()
    expected = ", ".join(_LEVELS)
    return "panic", (f'key "logLevel": found {documents.shown(given)}, expected one of {expected}; it stays "panic"',)
