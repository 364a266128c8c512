"""The configuration that makes a container runtime call us: `00-multus.conf`, from the primary plugin's own. No I/O.

The name and the form are Multus's, on purpose. A runtime takes the first file of its directory in order of names: the
same name replaces what Multus left there, and Multus replaces ours on the way back, where `00-multus.conflist` would
come after a forgotten `00-multus.conf` and never be read. It is a single configuration for version 1.0.0 and later
too, which prefer lists: runtimes read one as a list of one (libcni's ConfListFromConf), so the calls are the same.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeport.cni import documents, netconfs, versions
from homeport.cni.conflists import ConfList
from homeport.daemon.calls import META_PLUGIN
from homeport.model.errors import IncompatibleVersion, InvalidNetConf

FILE_NAME = "00-multus.conf"
NETWORK_NAME = "multus-cni-network"
AUTO = "auto"
UPSTREAM_SHIM = "multus-shim"

_OURS = "00-multus"  # every file of this beginning is one that was generated
_SUFFIXES = (".conf", ".conflist")
_CHECK_SINCE = "0.4.0"
_PASSED_ON = (
    "binDir",
    "cniDir",
    "logFile",
    "logLevel",
    "logToStderr",
    "logOptions",
    "namespaceIsolation",
    "globalNamespaces",
    "auxiliaryCNIChainName",
    "daemonSocketDir",
)


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What is to stand in the runtime's directory `config_dir`.

    With `source` "" it is generated from the primary plugin's configuration in `primary_dir`: the file `primary`, or
    the first one there; else it is a copy of `source`. `cni_version` "" is the primary's. `passed_on` are keys that go
    into it as they are. `readiness_file` is the primary plugin's sign that it is ready, or "". `keep_on_exit` tells
    whether it stays when the daemon ends.
    """

    config_dir: str = "/etc/cni/net.d"
    source: str = ""
    primary_dir: str = "/etc/cni/net.d"
    primary: str = ""
    cni_version: str = ""
    force_cni_version: bool = False
    override_network_name: bool = False
    shim_type: str = "homeport"
    readiness_file: str = ""
    keep_on_exit: bool = True
    passed_on: Mapping[str, Any] = {}

    @property
    def target(self) -> str:
        """The path of the file."""
        return posixpath.join(self.config_dir, posixpath.basename(self.source) or FILE_NAME)


class _Wire(msgspec.Struct, rename="camel"):
    cni_config_dir: str = "/etc/cni/net.d"
    multus_config_file: str = ""
    multus_autoconfig_dir: str = ""
    multus_master_cni: str = msgspec.field(name="multusMasterCNI", default="")
    cni_version: str = ""
    force_cni_version: bool = msgspec.field(name="forceCNIVersion", default=False)
    override_network_name: bool = False
    shim_type: str = "homeport"
    keep_config_on_exit: bool = True
    readiness_indicator_file: str = msgspec.field(name="readinessindicatorfile", default="")
    socket_dir: str = ""


_SPELLING = {key.lower(): key for key in (*_PASSED_ON, *(field.encode_name for field in msgspec.structs.fields(_Wire)))}


def parse(raw: Mapping[str, Any]) -> Generation | None:
    """From the daemon's configuration file, keys in any case; None when it is to write nothing.

    Raises `InvalidNetConf` naming the key, `IncompatibleVersion` for a `cniVersion` we do not speak.
    """
    spelled = {_SPELLING.get(key.lower(), key): value for key, value in raw.items()}
    wire = documents.convert(spelled, _Wire)
    if not wire.multus_config_file:
        return None
    if wire.cni_version:
        versions.require_supported(wire.cni_version)
    if "/" in wire.multus_master_cni:
        found = documents.shown(wire.multus_master_cni)
        raise InvalidNetConf(
            f'key "multusMasterCNI": found {found}, expected the name of a file in multusAutoconfigDir'
        )
    passed_on = {key: spelled[key] for key in _PASSED_ON if spelled.get(key) is not None}
    if wire.shim_type == UPSTREAM_SHIM and wire.socket_dir:
        passed_on.setdefault("daemonSocketDir", wire.socket_dir)  # it looks in /run/multus otherwise
    auto = wire.multus_config_file == AUTO
    config_dir = _absolute("cniConfigDir", wire.cni_config_dir)
    return Generation(
        config_dir=config_dir,
        source="" if auto else _absolute("multusConfigFile", wire.multus_config_file),
        primary_dir=_absolute("multusAutoconfigDir", wire.multus_autoconfig_dir or config_dir),
        primary=wire.multus_master_cni,
        cni_version=wire.cni_version,
        force_cni_version=wire.force_cni_version,
        override_network_name=wire.override_network_name,
        shim_type=netconfs.require_type(wire.shim_type, key="shimType"),
        readiness_file=wire.readiness_indicator_file,
        keep_on_exit=wire.keep_config_on_exit,
        passed_on=passed_on,
    )


def candidates(names: Iterable[str]) -> list[str]:
    """The files of a directory that may be the primary plugin's, in the order runtimes read them."""
    return sorted(n for n in names if posixpath.splitext(n)[1] in _SUFFIXES and not n.startswith(_OURS))


def is_ours(network: ConfList, wanted: Generation) -> bool:
    """Whether it leads to ourselves, under whatever file name: as the primary it would call us for ever."""
    types = {plugin.get("type") for plugin in network.plugins}
    return not types.isdisjoint(META_PLUGIN | {wanted.shim_type})


def generate(primary: ConfList, path: str, wanted: Generation) -> bytes:
    """The file's contents, one line of JSON. `path` is where the daemon finds the primary's configuration.

    Raises `IncompatibleVersion` for a primary plugin without CHECK below a version that has it: the runtime would be
    promised a verb that fails. `forceCNIVersion` says that it does well all the same.
    """
    version = wanted.cni_version or primary.cni_version
    if not wanted.force_cni_version:
        _require_compatible(version, primary.cni_version, path)
    return msgspec.json.encode(
        {
            "cniVersion": version,
            "name": primary.name if wanted.override_network_name else NETWORK_NAME,
            "type": wanted.shim_type,
            **_capabilities(primary),
            "clusterNetwork": path,
            **wanted.passed_on,
        }
    )


def _require_compatible(offered: str, primary: str, path: str) -> None:
    if versions.at_least(offered, _CHECK_SINCE) and not versions.at_least(primary, _CHECK_SINCE):
        raise IncompatibleVersion(
            f'key "cniVersion" of {path}: found {primary}, expected {_CHECK_SINCE} or later to offer {offered}',
            'the daemon\'s own "cniVersion" may be lowered, or "forceCNIVersion" set',
        )


def _capabilities(primary: ConfList) -> dict[str, dict[str, bool]]:
    """What any of the plugins can do, so that the runtime sends what it needs for that."""
    found: set[str] = set()
    for plugin in primary.plugins:
        declared = plugin.get("capabilities")
        if isinstance(declared, Mapping):
            found |= {name for name, able in declared.items() if able is True}
    return {"capabilities": dict.fromkeys(sorted(found), True)} if found else {}


def _absolute(key: str, path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise InvalidNetConf(f'key "{key}": found {documents.shown(path)}, expected an absolute path')
    return posixpath.normpath(path)
