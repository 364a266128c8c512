"""The sbr plugin: source based routing for an interface that plugins before it in the chain made.

Acts through the shells; what is done is decided in `source_routing`. Names and defaults are those of the reference
plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf, decode_keys
from homeport.model.addresses import Family, IPAddress
from homeport.model.errors import CniError, InvalidNetConf, InvalidNetns, MissingLink, SeveralErrors
from homeport.model.results import IPConfig, Result
from homeport.plugins import drift, interfaces, source_routing
from homeport.plugins.source_routing import FIRST_TABLE, Settings
from homeport.ports import Host, KernelRoute, Rule, Shells

TYPE = "sbr"


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    table: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] | None = None
    gateways: tuple[str, ...] = ()
    add_source_hints: bool = msgspec.field(name="addSourceHints", default=False)


def parse(conf: NetConf) -> Settings:
    """Raises `InvalidNetConf`, naming the key."""
    keys = decode_keys(conf.raw, _Keys)
    gateways: dict[Family, IPAddress] = {}
    for position, text in enumerate(keys.gateways):
        try:
            gateway = ip_address(text)
        except ValueError as e:
            raise InvalidNetConf(f'key "gateways[{position}]": found "{text}", expected an IP address') from e
        if gateway.version in gateways:
            raise InvalidNetConf(
                f'key "gateways[{position}]": found {gateway} beside {gateways[gateway.version]}, '
                "expected one gateway of a family"
            )
        gateways[gateway.version] = gateway
    return Settings(table=keys.table, gateways=gateways, add_source_hints=keys.add_source_hints)


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """Passes prevResult on unchanged. Whatever fails, rules and routes are as they were."""
    settings, netns, host = parse(conf), interfaces.namespace(attachment), shells.host
    prev_result = _require_chain(conf)
    ips = _require_ips(prev_result, attachment.ifname)
    # Held from the reading to the last rule, so that two interfaces of one container choose different tables.
    with host.operation(), host.lock_namespace(netns):
        if host.link(attachment.ifname, netns) is None:
            raise MissingLink(f'route by source from "{attachment.ifname}" in {netns}: no such interface')
        plan = source_routing.plan(
            settings,
            ips,
            ifname=attachment.ifname,
            main=host.routes(netns, link=attachment.ifname),
            in_use=host.tables_in_use(netns),
        )
        for rule in plan.rules:
            host.add_rule(rule, netns)
        for route in (*plan.routes, *plan.hints):
            host.add_route(route, netns, replace=True)
        for route in plan.moved:
            host.delete_route(route, netns)
    return prev_result


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Removes the rules of the interface's addresses, and the interface's routes in the tables they led to.

    The addresses are those on the interface and those in prevResult, so it makes no difference which is gone
    already. With the namespace everything is gone. Goes on past a failure and raises them all.
    """
    settings, netns, host = parse(conf), attachment.netns_path, shells.host
    failures: list[CniError] = []
    with host.operation(undo_on_error=False), suppress(InvalidNetns):
        if netns is None:
            return
        with host.lock_namespace(netns):
            sources = _addresses(conf, attachment.ifname, netns, host)
            rules = [r for r in host.rules(netns) if _is_from(r, sources) and settings.table in (None, r.table)]
            routes = _routes_of(rules, settings, attachment.ifname, netns, host)
            failures.extend(_attempt(host, rules, routes, netns))
    if failures:
        raise SeveralErrors(failures) if len(failures) > 1 else failures[0]


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `Drift` when an address has no rule, or its table lacks a route that ADD put there."""
    settings, netns, host = parse(conf), interfaces.namespace(attachment), shells.host
    prev_result = drift.require_prev_result(conf)
    with host.operation():
        drift.require_namespace(host, attachment.ifname, netns)
        rules = host.rules(netns)
        routes = host.routes(netns, table=None, link=attachment.ifname)
        for ip in _require_ips(prev_result, attachment.ifname):
            source_routing.check(settings, ip, prev_result, rules=rules, routes=routes, ifname=attachment.ifname)


def gc(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Rules and routes went with their namespace, so nothing can be stale."""


def status(conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Ready whenever the configuration can be right; raises `InvalidNetConf` otherwise."""
    parse(conf)


def _require_chain(conf: NetConf) -> Result:
    if conf.prev_result is None:
        raise InvalidNetConf(
            'key "prevResult": missing; sbr stands in a chain, behind the plugin that makes the interface'
        )
    return conf.prev_result


def _require_ips(prev_result: Result, ifname: str) -> Sequence[IPConfig]:
    ips = source_routing.own_ips(prev_result, ifname)
    if not ips:
        raise InvalidNetConf(f'key "prevResult.ips": found no address of "{ifname}", expected one to route by')
    return ips


def _addresses(conf: NetConf, ifname: str, netns: str, host: Host) -> frozenset[IPAddress]:
    told = source_routing.own_ips(conf.prev_result, ifname) if conf.prev_result else ()
    there = host.addresses(ifname, netns) if host.link(ifname, netns) is not None else ()
    return frozenset([ip.address.ip for ip in told] + [a.address.ip for a in there])


def _is_from(rule: Rule, sources: frozenset[IPAddress]) -> bool:
    return rule.src is not None and rule.src.num_addresses == 1 and rule.src.network_address in sources


def _routes_of(
    rules: Iterable[Rule], settings: Settings, ifname: str, netns: str, host: Host
) -> tuple[KernelRoute, ...]:
    """The interface's routes in the tables ADD chose; a table that was named belongs to whoever named it."""
    tables = {r.table for r in rules if r.table >= FIRST_TABLE} - source_routing.RESERVED_TABLES
    if settings.table is not None or not tables:
        return ()
    return tuple(r for r in host.routes(netns, table=None, link=ifname) if r.table in tables)


def _attempt(host: Host, rules: Iterable[Rule], routes: Iterable[KernelRoute], netns: str) -> Iterable[CniError]:
    """Deletes all that can be deleted; yields what went wrong."""
    for rule in rules:
        try:
            host.delete_rule(rule, netns)
        except CniError as error:
            yield error
    for route in routes:
        try:
            host.delete_route(route, netns)
        except CniError as error:
            yield error
