"""The host-local plugin: addresses from ranges of the node's own, kept in files. Acts through the shells.

Configuration, files and the order of addresses are those of the reference plugin; both can share one directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_interface

import msgspec

from homeport.cni import documents, versions
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.addresses import IPAddress
from homeport.model.errors import (
    AddressTaken,
    CniError,
    Drift,
    InvalidNetConf,
    IOFailure,
    PluginNotAvailable,
    PoolExhausted,
    SeveralErrors,
)
from homeport.model.results import DNS, IPConfig, Result, Route
from homeport.plugins import host_ranges
from homeport.plugins.host_ranges import Range, RangeSet, WireRange
from homeport.ports import FileAllocations, Files, Shells

TYPE = "host-local"


class _Keys(WireRange, frozen=True, kw_only=True, rename="camel"):
    """The old form has one range among the keys themselves."""

    ranges: tuple[tuple[WireRange, ...], ...] = ()
    data_dir: str = ""
    resolv_conf: str = ""


class _Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    ips: tuple[str, ...] = ()
    ip_ranges: tuple[tuple[WireRange, ...], ...] = ()


class HostLocalConf(msgspec.Struct, frozen=True, kw_only=True):
    """Each range set gives one address. `wanted` holds the address asked for, by the set's position."""

    range_sets: tuple[RangeSet, ...]
    wanted: Mapping[int, IPAddress]
    data_dir: str
    resolv_conf: str
    routes: tuple[Route, ...]


def parse(conf: NetConf, attachment: Attachment) -> HostLocalConf:
    """Raises `InvalidNetConf`, naming the key.

    Range sets of the runtime come first, then the range of the old form, then `ranges`. Addresses may be asked for
    in CNI_ARGS (IP, one), `args.cni.ips` and the runtime's `ips`, all together.
    """
    if conf.ipam is None:
        raise InvalidNetConf('key "ipam": missing, expected an object with "ranges"')
    keys = documents.convert(conf.ipam, _Keys, at="ipam")
    by_runtime = documents.convert(conf.runtime_config, _Asked, at="runtimeConfig")
    range_sets = (
        *_range_sets(by_runtime.ip_ranges, "runtimeConfig.ipRanges"),
        *([(host_ranges.parse(keys, "ipam"),)] if keys.subnet else []),
        *_range_sets(keys.ranges, "ipam.ranges"),
    )
    _check_sets(range_sets, conf.cni_version)
    routes = {"routes": conf.ipam["routes"]} if "routes" in conf.ipam else {}
    return HostLocalConf(
        range_sets=range_sets,
        wanted=_wanted(range_sets, _asked(conf, attachment, by_runtime)),
        data_dir=keys.data_dir,
        resolv_conf=keys.resolv_conf,
        routes=versions.decode_result(routes, versions.CURRENT, at="ipam", error=InvalidNetConf).routes,
    )


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """One address of each range set, or none at all."""
    wanted = parse(conf, attachment)
    dns = _read_resolv_conf(shells.files, wanted.resolv_conf) if wanted.resolv_conf else DNS()
    store = shells.open_file_allocations(wanted.data_dir, conf.name)
    with store.lock():
        if present := store.of(attachment.container_id, attachment.ifname):
            raise AddressTaken(
                f'allocate for "{attachment.ifname}" of container {attachment.container_id} on network "{conf.name}": '
                f"found {_join(present)} allocated to it, expected none; DEL it first"
            )
        try:
            ips = tuple(
                _reserve(store, number, ranges, wanted.wanted.get(number), conf.name, attachment)
                for number, ranges in enumerate(wanted.range_sets)
            )
        except BaseException:
            store.release(attachment.container_id, attachment.ifname)
            raise
    return Result(ips=ips, routes=wanted.routes, dns=dns)


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Gives back all the interface has; the ranges may have changed since, so they are not looked at."""
    store = _open(conf, shells)
    with store.lock():
        store.release(attachment.container_id, attachment.ifname)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The interface has an address of each range set, and prevResult, where given, names the very same ones."""
    wanted = parse(conf, attachment)
    store = _open(conf, shells)
    with store.lock():
        held = store.of(attachment.container_id, attachment.ifname)
    where = f'check "{attachment.ifname}" of container {attachment.container_id} on network "{conf.name}"'
    told = {ip.address.ip for ip in conf.prev_result.ips} if conf.prev_result else None
    for ranges in wanted.range_sets:
        own = [address for address in held if host_ranges.find(ranges, address)]
        if not own:
            raise Drift(f"{where}: found {_join(held)} allocated, expected an address of {_join(ranges)}")
        if told is not None and told.isdisjoint(own):
            raise Drift(f"{where}: found {_join(own)} allocated, expected one of {_join(told)}, from prevResult")


def gc(conf: NetConf, _attachment: Attachment, shells: Shells) -> None:
    """Gives back what belongs to no valid attachment; without a list of those, nothing.

    A file that names no container proves nothing about its address, so it stays and is reported at the end.
    """
    if conf.valid_attachments is None:
        return
    valid = {(key.container_id, key.ifname) for key in conf.valid_attachments}
    containers = {container_id for container_id, _ in valid}
    store = _open(conf, shells)
    failures: list[CniError] = []
    with store.lock():
        for address, container_id, ifname in store.entries():
            if not container_id:
                failures.append(
                    IOFailure(
                        f'collect {address} on network "{conf.name}": found a file without a container ID; '
                        "remove it when no container has the address"
                    )
                )
            elif (container_id, ifname) not in valid and not (not ifname and container_id in containers):
                store.release(container_id, ifname)
    if failures:
        raise SeveralErrors(failures) if len(failures) > 1 else failures[0]


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `PluginNotAvailable` when the directory cannot be written or read, `InvalidNetConf` as ADD would."""
    wanted = parse(conf, attachment)
    store = shells.open_file_allocations(wanted.data_dir, conf.name)
    try:
        with store.lock():
            store.entries()
    except CniError as e:
        raise PluginNotAvailable(f'{TYPE} on network "{conf.name}": {e.msg}', e.details) from e


def _open(conf: NetConf, shells: Shells) -> FileAllocations:
    return shells.open_file_allocations(documents.convert(conf.ipam or {}, _Keys, at="ipam").data_dir, conf.name)


def _range_sets(wire: Iterable[Iterable[WireRange]], key: str) -> Iterator[RangeSet]:
    for n, items in enumerate(wire):
        ranges = [host_ranges.parse(item, f"{key}[{n}][{m}]") for m, item in enumerate(items)]
        yield host_ranges.as_set(ranges, f"{key}[{n}]")


def _check_sets(range_sets: Sequence[RangeSet], version: str) -> None:
    if not range_sets:
        raise InvalidNetConf('key "ipam.ranges": missing, expected a list of range sets')
    for position, later in enumerate(range_sets):
        for earlier in range_sets[:position]:
            host_ranges.require_apart(earlier, later, "ipam.ranges")
    families = [ranges[0].subnet.version for ranges in range_sets]
    if not versions.at_least(version, "0.3.0") and len(set(families)) < len(families):
        raise InvalidNetConf(
            f'key "cniVersion": found "{version}" with {len(families)} range sets, '
            "expected 0.3.0 or later for more than one address of a family"
        )


def _asked(conf: NetConf, attachment: Attachment, by_runtime: _Asked) -> Iterator[tuple[str, str]]:
    """(key, text) of every address asked for, with or without a prefix."""
    asked = documents.convert(conf.args, _Asked, at="args.cni")
    if given := attachment.args.get("IP"):
        yield from (("CNI_ARGS IP", item.strip()) for item in given.split(","))
    yield from ((f"args.cni.ips[{n}]", text) for n, text in enumerate(asked.ips))
    yield from ((f"runtimeConfig.ips[{n}]", text) for n, text in enumerate(by_runtime.ips))


def _wanted(range_sets: Iterable[RangeSet], asked: Iterable[tuple[str, str]]) -> Mapping[int, IPAddress]:
    """The address asked of each range set; the same one may be asked for in several places."""
    sets = list(enumerate(range_sets))
    wanted: dict[int, IPAddress] = {}
    for key, text in asked:
        try:
            address = ip_interface(text).ip
        except ValueError as e:
            raise InvalidNetConf(f'key "{key}": found "{text}", expected an IP address') from e
        number, found = next(((n, r) for n, ranges in sets if (r := host_ranges.find(ranges, address))), (-1, None))
        if found is None:
            raise InvalidNetConf(f'key "{key}": found {address}, expected an address of a configured range')
        if address == found.gateway:
            raise InvalidNetConf(f'key "{key}": found {address}, expected another address than the gateway of {found}')
        if wanted.setdefault(number, address) != address:
            raise InvalidNetConf(
                f'key "{key}": found {address} beside {wanted[number]}, expected one address of a range set'
            )
    return wanted


def _reserve(
    store: FileAllocations,
    number: int,
    ranges: RangeSet,
    wanted: IPAddress | None,
    network: str,
    attachment: Attachment,
) -> IPConfig:
    """The address that is wanted, or the next free one in turn."""
    candidates: Iterable[tuple[IPAddress, Range]]
    if wanted is None:
        candidates = host_ranges.in_turn(ranges, store.last_reserved(number))
    else:
        candidates = ((wanted, r) for r in ranges if wanted in r)
    for address, r in candidates:
        if store.reserve(address, attachment.container_id, attachment.ifname, number):
            return IPConfig(address=ip_interface((address, r.subnet.prefixlen)), gateway=r.gateway)
    if wanted is not None:
        raise AddressTaken(f'allocate {wanted} on network "{network}": it is taken{_holder(store, wanted)}')
    raise PoolExhausted(f'allocate from {_join(ranges)} on network "{network}": found no free address')


def _holder(store: FileAllocations, address: IPAddress) -> str:
    for found, container_id, ifname in store.entries():
        if found == address and container_id:
            return f' by "{ifname}" of container {container_id}'
    return ""


def _read_resolv_conf(files: Files, path: str) -> DNS:
    content = files.read(path)
    if content is None:
        raise InvalidNetConf(f'key "ipam.resolvConf": found no file at {path}')
    return parse_resolv_conf(content.decode(errors="replace"))


def parse_resolv_conf(text: str) -> DNS:
    """resolv.conf(5): the last `domain` counts; nameservers, search lists and options add up, as in Go."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in text.splitlines():
        match line.split():
            case [keyword, *_] if keyword[0] in "#;":
                continue
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["domain", name, *_]:
                domain = name
            case ["search", *names]:
                search += names
            case ["options", *words]:
                options += words
    return DNS(nameservers=tuple(nameservers), domain=domain, search=tuple(search), options=tuple(options))


def _join(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items) or "none"
