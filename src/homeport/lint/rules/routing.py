"""Rules about routes: default routes, gateways, and source based routing. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from homeport.cni.documents import shown
from homeport.lint import wishes
from homeport.lint.findings import Edit, Found, Severity, Span
from homeport.lint.manifests import Manifests, Network
from homeport.lint.nodes import Node
from homeport.lint.pools import pools, statics, subnets
from homeport.lint.routes import default_routes, routes
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.editing import reorder
from homeport.lint.rules.wording import said
from homeport.lint.wishes import Choice
from homeport.model.addresses import IPNetwork
from homeport.model.errors import CniError
from homeport.multinet.default_routes import plan

_MAY_LACK_IPAM = ("bridge", "host-device", "macvlan")  # make an interface without addresses
_OWN_TABLES = ("sbr", "vrf")
_ADDS_ROUTES = "route-override"


@network_rule("sbr-without-addresses", Severity.ERROR)
def sbr_without_addresses(network: Network) -> Iterator[Found]:
    """Sbr stands behind a plugin that has no `ipam`, so there is no address to route by.

    sbr refuses an interface without addresses, and pods do not start.
    """
    made = network.plugins[0] if network.plugins else None
    if made is None or made.text("type") not in _MAY_LACK_IPAM:
        return
    ipam, after = made.get("ipam"), network.plugins[1:2]
    if ipam is not None and (ipam.kind != "null" and (ipam.kind != "object" or ipam.members)):
        return
    for sbr in after:
        if sbr.text("type") == "sbr":
            yield network.found(
                _type_span(sbr),
                f"sbr routes by source address, and {shown(made.text('type'))} has no ipam to give one",
                'expected an "ipam" in the plugin before',
            )


@network_rule("sbr-without-gateway", Severity.INFO)
def sbr_without_gateway(network: Network) -> Iterator[Found]:
    """Sbr has no gateway to send by: what has the interface's address reaches its own subnet only.

    Right where all peers are in the subnet. Otherwise give `gateway` in the ipam section, a default route in its
    `routes`, or `gateways` of sbr.
    """
    sbr = _plugin(network, "sbr")
    if sbr is None or sbr.get("table") is not None or sbr.get("gateways") is not None:
        return
    ipams = [ipam for plugin in network.plugins if (ipam := plugin.get("ipam")) is not None and ipam.members]
    if not ipams or any(ipam.text("type") not in ("whereabouts", "static") for ipam in ipams):
        return  # host-local always has one; others are not ours to know
    given = any(pool.gateway is not None for pool in pools(network)) or any(s.gateway for s in statics(network))
    # A node's own file may give Whereabouts a range and a gateway; static gets at most addresses from elsewhere.
    elsewhere = any(ipam.text("type") == "whereabouts" for ipam in ipams) and not list(pools(network))
    if not given and not elsewhere and not any(route.is_default for route in routes(network)):
        yield network.found(
            _type_span(sbr),
            "sbr has no gateway: by this interface only its own subnet is reached",
            'give "gateway" in the ipam section, if it is to go further',
        )


@network_rule("sbr-twice", Severity.WARNING)
def sbr_twice(network: Network) -> Iterator[Found]:
    """Sbr stands twice in a network.

    The first moves the interface's routes to a table of its own, so the second finds none and its rules lead nowhere.
    """
    found = [plugin for plugin in network.plugins if plugin.text("type") == "sbr"]
    for sbr in found[1:]:
        yield network.found(_type_span(sbr), "sbr has run before in this network", "expected it once")


@network_rule("sbr-not-last", Severity.WARNING, fix="moves sbr to the end")
def sbr_not_last(network: Network) -> Iterator[Found]:
    """route-override stands behind sbr.

    sbr has moved the interface's routes by then, so none is there to override, and the routes that are added do not
    hold for what has the interface's address.
    """
    plugins = list(network.plugins)
    types = [plugin.text("type") for plugin in plugins]
    if types.count("sbr") != 1 or _ADDS_ROUTES not in types[types.index("sbr") :]:
        return
    sbr = plugins[types.index("sbr")]
    yield network.found(
        _type_span(sbr),
        f'sbr stands before "{_ADDS_ROUTES}", whose routes it does not see',
        f'expected after "{_ADDS_ROUTES}"',
        _at_the_end(network, plugins, sbr),
    )


@network_rule("route-family", Severity.ERROR)
def route_family(network: Network) -> Iterator[Found]:
    """A route's gateway is of another family than its destination."""
    for route in routes(network):
        dst, gw, place = route.dst, route.gw, route.gw_place
        if dst is not None and gw is not None and place is not None and dst.version != gw.version:
            yield network.found(place.span, f"gateway {gw} for {dst}", f"expected an IPv{dst.version} address")


@network_rule("route-gateway-outside", Severity.WARNING)
def route_gateway_outside(network: Network) -> Iterator[Found]:
    """A route's gateway is in no subnet of the network, and behind none of its other routes.

    The kernel refuses such a route, and pods do not start, unless the pod itself asks for an address of that subnet.
    """
    connected = subnets(network)
    listed = list(routes(network))
    via = [route.dst for route in listed if route.gw_place is None and route.dst is not None and not route.is_default]
    for route in listed if connected is not None else ():
        gw = route.gw
        if gw is None or route.gw_place is None or connected is None or gw.is_link_local:
            continue
        if not any(gw in subnet for subnet in (*connected, *via)):
            yield network.found(
                route.gw_place.span,
                f"gateway {gw} is not in {' or '.join(dict.fromkeys(map(str, connected)))}",
                "expected a neighbour",
            )


@network_rule("takes-default-route", Severity.INFO)
def takes_default_route(network: Network) -> Iterator[Found]:
    """A network gives its pods a default route, beside that of the cluster's network.

    Of IPv4 the one set last goes before, so the pod leaves the cluster's network for all but its own nodes; of IPv6
    the kernel spreads over both. Right for a network that pods have as their default one; otherwise leave it to the
    pod's selection (`default-route`), or put sbr behind.
    """
    if network.manifest is None:
        return  # a node's own file may be the default network
    for place in {id(place): place for _, place in default_routes(network)}.values():
        yield network.found(place.span, "a default route", "it takes the place of the cluster network's in every pod")


@rule("default-routes", Severity.WARNING)
def default_routes_twice(manifests: Manifests) -> Iterator[Found]:
    """Two networks of a pod both give it a default route.

    Which one holds depends on the order of the selection. Leave it to one of them, or say which in the selection, by
    `default-route`.
    """
    for workload, text, chosen in wishes.together(manifests):
        if any(choice.wish.selection.default_route is not None for choice in chosen):
            continue
        first: dict[int, Choice] = {}
        for choice in chosen:
            families = {family for family, _ in default_routes(choice.network)}
            before = next((first[family] for family in sorted(families) if family in first), None)
            if before is not None:
                yield workload.found(
                    wishes.place(text, choice.wish),
                    f'network "{choice.network.name}" gives a default route, as "{before.network.name}" does',
                    'expected one at most; "default-route" of a selection says whose it is',
                )
            first = {**{family: choice for family in families}, **first}


@rule("default-route-twice", Severity.ERROR)
def default_route_twice(manifests: Manifests) -> Iterator[Found]:
    """A pod's network selections name two default gateways of one family.

    There is one default route of a family in the whole pod, so `default-route` names one IPv4 and one IPv6 gateway at
    most, in whichever selections. A pod with more does not start.
    """
    for workload, text, chosen in wishes.selected(manifests):
        try:
            plan([(str(wish.selection), wish.selection.default_route) for wish in chosen])
        except CniError as e:
            last = next(wish for wish in reversed(chosen) if wish.selection.default_route)
            yield workload.found(wishes.place(text, last, "default-route"), *said(e))


@rule("default-route-outside", Severity.ERROR)
def default_route_outside(manifests: Manifests) -> Iterator[Found]:
    """A `default-route` of a network selection is in no subnet of that network.

    The gateway must be a neighbour on the interface. The kernel refuses any other (`network is unreachable`), and pods
    do not start.
    """
    for workload, text, chosen in wishes.together(manifests):
        for choice in chosen:
            selection = choice.wish.selection
            connected = _connected(choice)
            for gateway in selection.default_route or () if connected else ():
                if not gateway.is_link_local and not any(gateway in subnet for subnet in connected):
                    yield workload.found(
                        wishes.place(text, choice.wish, "default-route"),
                        f"gateway {gateway} is not in {' or '.join(dict.fromkeys(map(str, connected)))}",
                        f'expected a neighbour on network "{choice.network.name}"',
                    )


@rule("subnet-twice", Severity.WARNING)
def subnet_twice(manifests: Manifests) -> Iterator[Found]:
    """Two networks of a pod are in one subnet.

    The pod reaches all of the subnet by the interface that was made first, whichever address it speaks from. With sbr
    in one of them, each address leaves by its own interface.
    """
    for workload, text, chosen in wishes.together(manifests):
        first: list[tuple[IPNetwork, Choice]] = []
        for choice in chosen:
            if any(plugin.text("type") in _OWN_TABLES for plugin in choice.network.plugins):
                continue
            ours = subnets(choice.network) or ()
            clash = ((s, c) for s, c in first if c.network is not choice.network and any(_meet(s, o) for o in ours))
            subnet, before = next(clash, (None, None))
            if before is not None:
                yield workload.found(
                    wishes.place(text, choice.wish),
                    f'network "{choice.network.name}" is in {subnet}, as "{before.network.name}" is',
                    "expected networks of different subnets, or sbr in one of them",
                )
            first += [(subnet, choice) for subnet in ours]


def _connected(choice: Choice) -> tuple[IPNetwork, ...]:
    """What the interface of a selection reaches without a gateway; nothing when it cannot be told."""
    selection = choice.wish.selection
    configured = subnets(choice.network)
    is_static = any(plugin.text("ipam", "type") == "static" for plugin in choice.network.plugins)
    if selection.cni_args or selection.ipam_claim or (configured is None and not (is_static and selection.ips)):
        return ()
    via = [r.dst for r in routes(choice.network) if r.gw_place is None and r.dst is not None and not r.is_default]
    asked = [ip.network for ip in selection.ips if isinstance(ip, IPv4Interface | IPv6Interface)]
    return (*(configured or ()), *asked, *via)


def _meet(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _plugin(network: Network, kind: str) -> Node | None:
    return next((plugin for plugin in network.plugins if plugin.text("type") == kind), None)


def _type_span(plugin: Node) -> Span:
    node = plugin.get("type")
    return node.span if node is not None else plugin.span


def _at_the_end(network: Network, plugins: Sequence[Node], moved: Node) -> tuple[Edit, ...]:
    listed = network.config.get("plugins") if network.config is not None else None
    if network.text is None or listed is None or len(listed.items) != len(plugins):
        return ()
    return reorder(network.text, plugins, [*(p for p in plugins if p is not moved), moved])
