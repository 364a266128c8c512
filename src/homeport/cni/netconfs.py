"""One plugin's configuration, as it is executed. No I/O.

CNI SPEC 1.1.0 §1 and §2; `parse` has checked the keys every plugin shares, `raw` keeps all others untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from homeport.cni import documents, versions
from homeport.cni.invocations import Command
from homeport.model.errors import IncompatibleVersion, InvalidNetConf
from homeport.model.names import AttachmentKey, is_identifier
from homeport.model.results import DNS, Result

T = TypeVar("T", bound=msgspec.Struct)

VALID_ATTACHMENTS = "cni.dev/valid-attachments"
MISSPELT_ATTACHMENTS = "cni.dev/attachments"  # libcni sends both, for plugins built when the spec said this

_SINCE: Mapping[Command, str] = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


class NetConf(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the whole object as it came (JSON types); the other fields are read out of it.

    Where `raw` has no `prevResult` key but `prev_result` is set, the latter is what a foreign plugin is to be sent.
    `ipam` is None when the key is absent, null or an empty object: all three mean "no addresses".
    """

    cni_version: str
    name: str
    type: str
    raw: Mapping[str, Any]
    prev_result: Result | None = None
    ipam: Mapping[str, Any] | None = None
    dns: DNS = DNS()
    runtime_config: Mapping[str, Any] = {}
    args: Mapping[str, Any] = {}  # the object under "args": {"cni": ...}
    capabilities: Mapping[str, bool] = {}
    valid_attachments: frozenset[AttachmentKey] | None = None  # GC only


class _Args(msgspec.Struct):
    cni: dict[str, Any] = {}


class _Shared(msgspec.Struct, rename="camel"):
    """The keys of CNI SPEC 1.1.0 §1 that every plugin understands, in wire types."""

    cni_version: str = ""
    name: str = ""
    type: str = ""
    prev_result: dict[str, Any] | None = None
    ipam: dict[str, Any] = {}
    dns: versions.WireDNS = msgspec.field(default_factory=versions.WireDNS)
    runtime_config: dict[str, Any] = {}
    args: _Args = msgspec.field(default_factory=_Args)
    capabilities: dict[str, bool] = {}


class _GCAttachment(msgspec.Struct):
    container_id: str = msgspec.field(name="containerID")
    ifname: str


def parse(raw: bytes | Mapping[str, Any], *, command: Command | None = None) -> NetConf:
    """A configuration from a plugin's stdin, or from JSON types already decoded.

    Raises `DecodeFailure` for what is not a JSON object, `InvalidNetConf` naming the key for what cannot be right,
    `IncompatibleVersion` for a cniVersion we do not speak. With `command`, also for one the verb does not exist in,
    and GC must come with its list of valid attachments: without it, everything would look stale.
    """
    whole = documents.decode_object(raw, "network configuration") if isinstance(raw, bytes) else raw
    shared = decode_keys(whole, _Shared)
    name = require_name(shared.name)
    version = versions.require_supported(shared.cni_version)
    plugin_type = require_type(shared.type, key="type")
    if "type" in shared.ipam:
        require_type(shared.ipam["type"], key="ipam.type")
    conf = NetConf(
        cni_version=version,
        name=name,
        type=plugin_type,
        raw=whole,
        prev_result=None if shared.prev_result is None else _prev_result(whole["prevResult"], version),
        ipam=shared.ipam or None,
        dns=shared.dns.value(),
        runtime_config=shared.runtime_config,
        args=shared.args.cni,
        capabilities=shared.capabilities,
        valid_attachments=_valid_attachments(whole, name),
    )
    if command is not None:
        require_verb_support(conf, command)
        if command == "GC" and conf.valid_attachments is None:
            raise InvalidNetConf(f'key "{VALID_ATTACHMENTS}": missing, expected a list of {{containerID, ifname}}')
    return conf


def decode_keys(raw: Mapping[str, Any], into: type[T]) -> T:
    """A plugin's own keys as its Struct: unknown keys are ignored, null ones count as absent.

    Raises `InvalidNetConf` naming the key, the value found and what was expected.
    """
    return documents.convert(raw, into)


def require_verb_support(conf: NetConf, command: Command) -> None:
    """Raises `IncompatibleVersion` when the verb does not exist in the configuration's version."""
    since = _SINCE.get(command)
    if since and not versions.at_least(conf.cni_version, since):
        raise IncompatibleVersion(
            f'{command}: found cniVersion "{conf.cni_version}", expected {since} or later',
            versions.supported_details(conf.cni_version),
        )


def require_type(found: object, *, key: str) -> str:
    """A plugin type is the name of an executable, so it must be a plain file name."""
    if not isinstance(found, str):
        raise InvalidNetConf(f'key "{key}": found {documents.shown(found)}, expected a string')
    if not found:
        raise InvalidNetConf(f'key "{key}": missing')
    if "/" in found or found in (".", "..") or not found.isprintable():
        raise InvalidNetConf(f'key "{key}": found {documents.shown(found)}, expected the name of a plugin, not a path')
    return found


def require_name(name: str) -> str:
    """`name` as the name of a network; it becomes part of file names."""
    if not name:
        raise InvalidNetConf('key "name": missing, expected the name of the network')
    if not is_identifier(name):
        raise InvalidNetConf(
            f'key "name": found {documents.shown(name)}, '
            'expected a letter or digit, then letters, digits, "_", "." or "-"'
        )
    return name


def with_prev_result(conf: NetConf, prev_result: Result | None) -> NetConf:
    """The same configuration with another prevResult, in `raw` as well."""
    raw = {k: v for k, v in conf.raw.items() if k != "prevResult"}
    return msgspec.structs.replace(conf, raw=raw, prev_result=prev_result)


def wire(conf: NetConf) -> Mapping[str, Any]:
    """The object a foreign plugin reads from its stdin: `raw` unmodified, plus prevResult where only we know it."""
    if conf.prev_result is None or "prevResult" in conf.raw:
        return conf.raw
    return {**conf.raw, "prevResult": versions.encode_result(conf.prev_result, conf.cni_version)}


def _prev_result(value: Mapping[str, Any], version: str) -> Result:
    """CNI SPEC 1.1.0 §3: prevResult is in the configuration's own version; one of another family is refused."""
    own = value.get("cniVersion") or version
    if not isinstance(own, str) or not versions.same_family(own, version):
        raise InvalidNetConf(
            f'key "prevResult.cniVersion": found {documents.shown(own)}, expected the configuration\'s "{version}"'
        )
    return versions.decode_result(value, version, at="prevResult", error=InvalidNetConf)


def _valid_attachments(whole: Mapping[str, Any], network: str) -> frozenset[AttachmentKey] | None:
    """Both spellings together, since an attachment named by either is alive. Null is libcni's empty list."""
    given = [key for key in (VALID_ATTACHMENTS, MISSPELT_ATTACHMENTS) if key in whole]
    if not given:
        return None
    found: set[AttachmentKey] = set()
    for key in given:
        items: Sequence[_GCAttachment] = documents.convert(
            [] if whole[key] is None else whole[key], list[_GCAttachment], at=key
        )
        found.update(AttachmentKey(network, item.container_id, item.ifname) for item in items)
    return frozenset(found)
