"""Running a network's plugins in order: ADD forward, DEL in reverse, and the cache between them. I/O: through `Shells`.

CNI SPEC 1.1.0 §3 "Attachment and detachment lifecycle". Plugins of ours receive values; nothing is turned into JSON and
back on their way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any

import msgspec

from homeport.cni import invocations, netconfs, versions
from homeport.cni.conflists import ConfList
from homeport.cni.invocations import Attachment, Command
from homeport.cni.netconfs import NetConf
from homeport.model.errors import (
    CniError,
    Drift,
    IncompatibleVersion,
    InvalidNetConf,
    InvalidNetns,
    PluginNotFound,
    SeveralErrors,
)
from homeport.model.names import AttachmentKey
from homeport.model.results import Result
from homeport.ports import Shells
from homeport.runtime.caching import CachedAttachment, ResultCache

_NONE: Mapping[str, Any] = {}


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment, and the network it is on with the capability arguments that its ADD was given."""

    network: ConfList
    attachment: Attachment
    capability_args: Mapping[str, Any] = {}


class Failed(msgspec.Struct, frozen=True):
    """What one plugin's DEL could not do."""

    attached: Attached
    error: CniError


def add(
    network: ConfList,
    attachment: Attachment,
    shells: Shells,
    *,
    cache: ResultCache,
    capability_args: Mapping[str, Any] = _NONE,
) -> Result:
    """Attaches; the result is the last plugin's, and is in the cache.

    When any step fails, every plugin that had been started gets a DEL, the last started first, and the first error is
    raised; what failed while undoing is in its details. If an interface of the asked name was there before, it is
    another attachment's: the plugin that failed gets no DEL then, as that would take it down.
    """
    _require_attachable(attachment, "ADD")
    confs = [_conf(network, plugin, capability_args) for plugin in _plugins(network)]
    result: Result | None = None
    begun: list[NetConf] = []
    finished = 0
    with shells.host.operation(undo_on_error=False):
        occupied = shells.host.link(attachment.ifname, attachment.netns_path) is not None
        try:
            for conf in confs:
                begun.append(conf)
                result = shells.delegates.add(conf.type, _after(conf, result), attachment)
                finished = len(begun)
            assert result is not None
            cache.save(_cached(network, attachment, result, capability_args))
        except BaseException as error:
            spared = occupied or _began_nothing(error)
            _undo(error, begun[:finished] if spared else begun, attachment, shells, result)
            raise
    return result


def delete(
    network: ConfList,
    attachment: Attachment,
    shells: Shells,
    *,
    cache: ResultCache,
    capability_args: Mapping[str, Any] = _NONE,
) -> None:
    """Detaches; idempotent. Goes on past errors and raises them together; the cache entry outlives any of them."""
    one = Attached(network=network, attachment=attachment, capability_args=capability_args)
    _raise(failed.error for failed in delete_all([one], shells, cache=cache))


def delete_all(attached: Sequence[Attached], shells: Shells, *, cache: ResultCache) -> tuple[Failed, ...]:
    """Detaches all, the last one first; idempotent. Goes on past errors and returns them in the order they came.

    The kernel lets whoever removes a link wait 15 to 20 ms, however many one request removes. So the links of plugins
    of ours that are neighbours here go together: after the DEL of all plugins behind them in their chains, and before
    their own, which finds the link gone and gives its addresses back, free only then (docs/identity.md R1). A foreign
    plugin that made a link is run at its own place, and the link left to it.
    """
    failed: list[Failed] = []
    with shells.host.operation(undo_on_error=False):
        for batch in _batches(reversed(attached), shells):
            parts = [_Detaching(one, shells, cache) for one in batch]
            for part in parts:
                part.delete_chained()
            if len(batch) > 1:
                _delete_links(batch, shells)
            for part in parts:
                part.delete_first()
                failed += part.failed
    return tuple(failed)


def check(
    network: ConfList,
    attachment: Attachment,
    shells: Shells,
    *,
    cache: ResultCache,
    capability_args: Mapping[str, Any] = _NONE,
) -> None:
    """Compares with what ADD made; raises `Drift` or the first plugin's error. A list may turn it off."""
    _require_attachable(attachment, "CHECK")
    if not versions.at_least(network.cni_version, "0.4.0"):
        raise IncompatibleVersion(
            f'CHECK of network "{network.name}": found cniVersion "{network.cni_version}", expected 0.4.0 or later'
        )
    if network.disable_check:
        return
    cached = cache.load(_key(network, attachment))
    if cached is None:
        raise Drift(
            f'check container "{attachment.container_id}" interface "{attachment.ifname}": '
            f'found no result of an ADD to network "{network.name}", expected one in {cache.directory}'
        )
    prev_result = cached.decoded_result(network.cni_version)
    with shells.host.operation(undo_on_error=False):
        for plugin in _plugins(network):
            conf = _after(_conf(network, plugin, capability_args), prev_result)
            shells.delegates.check(conf.type, conf, attachment)


def gc(
    network: ConfList,
    valid: Collection[AttachmentKey],
    shells: Shells,
    *,
    cache: ResultCache,
    path: tuple[str, ...] = (),
) -> None:
    """Deletes the network's attachments that are not `valid`: those in the cache, then what plugins know of.

    Goes on past errors and raises them together. A cache entry that cannot be read is one of them and is kept.
    `path` is CNI_PATH. A list may turn GC off.
    """
    if network.disable_gc:
        return
    plugins = _plugins(network)
    alive = frozenset(key for key in valid if key.network == network.name)
    cached, unreadable = cache.attachments(network.name)
    errors: list[CniError] = list(unreadable)
    for stale in (entry for entry in cached if entry.key not in alive):
        attachment = Attachment(
            container_id=stale.key.container_id,
            ifname=stale.key.ifname,
            netns_path=stale.netns_path,
            args=stale.args,
            path=path,
        )
        try:
            delete(network, attachment, shells, cache=cache, capability_args=stale.capability_args)
        except CniError as error:
            errors.append(error)
    if versions.at_least(network.cni_version, "1.1.0"):
        everywhere = Attachment(container_id="", ifname="", path=path)
        for plugin in plugins:
            try:
                conf = _with_valid(_conf(network, plugin, _NONE), alive)
                shells.delegates.gc(conf.type, conf, everywhere)
            except CniError as error:
                errors.append(error)
    _raise(errors)


def status(network: ConfList, shells: Shells, *, path: tuple[str, ...] = ()) -> None:
    """Whether an ADD could be served now; raises the first plugin's error. Before 1.1.0 the answer is always yes."""
    plugins = _plugins(network)
    if not versions.at_least(network.cni_version, "1.1.0"):
        return
    for plugin in plugins:
        conf = _conf(network, plugin, _NONE)
        shells.delegates.status(conf.type, conf, Attachment(container_id="", ifname="", path=path))


class _Detaching:
    """DEL of one attachment, in two parts: the chain's first plugin, which made the link, and those behind it."""

    def __init__(self, attached: Attached, shells: Shells, cache: ResultCache) -> None:
        self._attached = attached
        self._shells = shells
        self._cache = cache
        self._prev_result: Result | None = None
        self._plugins: tuple[Mapping[str, Any], ...] = ()
        self.failed: list[Failed] = []
        network = attached.network
        with self._noting():
            invocations.require_valid(attached.attachment)
            key = _key(network, attached.attachment)
            if versions.at_least(network.cni_version, "0.4.0"):
                self._prev_result = _last_result(network, key, cache)
            self._plugins = _plugins(network)

    def delete_chained(self) -> None:
        """The plugins behind the first, the last one first."""
        for plugin in reversed(self._plugins[1:]):
            self._delete(plugin)

    def delete_first(self) -> None:
        """The first plugin; then, when nothing failed, the cache entry goes too."""
        for plugin in self._plugins[:1]:
            self._delete(plugin)
        if not self.failed:
            with self._noting():
                self._cache.forget(_key(self._attached.network, self._attached.attachment))

    def _delete(self, plugin: Mapping[str, Any]) -> None:
        one = self._attached
        with self._noting():
            conf = _after(_conf(one.network, plugin, one.capability_args), self._prev_result)
            self._shells.delegates.delete(conf.type, conf, one.attachment)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except CniError as error:
            self.failed.append(Failed(self._attached, error))


def _batches(attached: Iterable[Attached], shells: Shells) -> Iterator[list[Attached]]:
    """Neighbours whose links can go together; each of the others alone."""
    for ours, group in groupby(attached, key=lambda one: bool(_link_kind(one, shells))):
        if ours:
            yield list(group)
        else:
            yield from ([one] for one in group)


def _link_kind(attached: Attached, shells: Shells) -> str:
    """The kind of the link that the attachment's first plugin made, "" when only that plugin may remove it."""
    first = next(iter(attached.network.plugins), {}).get("type", "")
    return shells.delegates.link_kind(first) if isinstance(first, str) else ""


def _delete_links(batch: Sequence[Attached], shells: Shells) -> None:
    """The links of these attachments, as far as they are what their plugins made. What fails, their DEL meets again."""
    by_netns: dict[str, list[str]] = {}
    for one in batch:
        netns, ifname = one.attachment.netns_path, one.attachment.ifname
        with suppress(CniError):
            link = shells.host.link(ifname, netns) if netns else None
            if netns and link is not None and link.kind == _link_kind(one, shells):
                by_netns.setdefault(netns, []).append(ifname)
    for netns, names in by_netns.items():
        with suppress(CniError):
            shells.host.delete_links(names, netns)


def _plugins(network: ConfList) -> tuple[Mapping[str, Any], ...]:
    if not network.plugins:
        raise InvalidNetConf(f'network "{network.name}": found no plugin, expected one at least')
    return network.plugins


def _conf(network: ConfList, plugin: Mapping[str, Any], capability_args: Mapping[str, Any]) -> NetConf:
    """The object the plugin is run with: the list's name and version, and the capability arguments it asks for."""
    conf = netconfs.parse({**plugin, "name": network.name, "cniVersion": network.cni_version})
    wanted = {k: capability_args[k] for k, enabled in conf.capabilities.items() if enabled and k in capability_args}
    if not wanted:
        return conf
    return msgspec.structs.replace(conf, raw={**conf.raw, "runtimeConfig": wanted}, runtime_config=wanted)


def _after(conf: NetConf, prev_result: Result | None) -> NetConf:
    """The configuration with the chain's result so far; the first plugin keeps what stood in its own object."""
    return conf if prev_result is None else netconfs.with_prev_result(conf, prev_result)


def _with_valid(conf: NetConf, alive: frozenset[AttachmentKey]) -> NetConf:
    items = [{"containerID": key.container_id, "ifname": key.ifname} for key in sorted(alive)]
    raw = {**conf.raw, netconfs.VALID_ATTACHMENTS: items, netconfs.MISSPELT_ATTACHMENTS: items}
    return msgspec.structs.replace(conf, raw=raw, valid_attachments=alive)


def _began_nothing(error: BaseException) -> bool:
    """Whether the plugin was not found, or refused its configuration's version, which is checked before all else."""
    return isinstance(error, PluginNotFound) or (isinstance(error, CniError) and error.code == IncompatibleVersion.code)


def _undo(
    error: BaseException, begun: list[NetConf], attachment: Attachment, shells: Shells, result: Result | None
) -> None:
    """DEL of what ADD began, `result` being the last good one; what goes wrong here is added to `error`."""
    for conf in reversed(begun):
        prev_result = result if versions.at_least(conf.cni_version, "0.4.0") else None
        try:
            shells.delegates.delete(conf.type, _after(conf, prev_result), attachment)
        except CniError as failed:
            note = f'undo "{conf.type}": {failed}'
            error.add_note(note)
            if isinstance(error, CniError):
                error.details = "; ".join(part for part in (error.details, note) if part)


def _last_result(network: ConfList, key: AttachmentKey, cache: ResultCache) -> Result | None:
    """For DEL: an entry that cannot be read is no reason to leave the attachment standing."""
    try:
        cached = cache.load(key)
        return cached.decoded_result(network.cni_version) if cached else None
    except CniError:
        return None


def _cached(
    network: ConfList, attachment: Attachment, result: Result, capability_args: Mapping[str, Any]
) -> CachedAttachment:
    return CachedAttachment(
        key=_key(network, attachment),
        result=versions.encode_result(result, network.cni_version),
        netns_path=attachment.netns_path,
        args=attachment.args,
        capability_args=capability_args,
        config=network.raw,
    )


def _key(network: ConfList, attachment: Attachment) -> AttachmentKey:
    return AttachmentKey(network.name, attachment.container_id, attachment.ifname)


def _require_attachable(attachment: Attachment, command: Command) -> None:
    invocations.require_valid(attachment)
    if not attachment.netns_path:
        raise InvalidNetns(f"{command}: network namespace missing, expected its path")


def _raise(errors: Iterable[CniError]) -> None:
    """One error as itself, several as one."""
    match list(errors):
        case []:
            return
        case [error]:
            raise error
        case several:
            raise SeveralErrors(several)
