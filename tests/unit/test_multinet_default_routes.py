"""Which interface keeps its default routes, and what becomes of the others'."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf
from homeport.model.results import Result, Route
from homeport.multinet import default_routes
from homeport.multinet.default_routes import Asked, Change

V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")
NONE, BOTH = frozenset[int](), frozenset({4, 6})


@pytest.mark.parametrize(
    ("asked", "drops"),
    [
        ([], []),
        ([None, None], [NONE, NONE]),
        ([None, (V4,)], [BOTH, {6}]),
        ([None, (V6,)], [BOTH, {4}]),
        ([None, (V4, V6)], [BOTH, NONE]),
        ([None, (V4,), (V6,)], [BOTH, {6}, {4}]),
        ([(V4,), None], [{6}, BOTH]),
        ([None, ()], [BOTH, NONE]),  # "as its plugins made it": the network keeps its own
        ([None, (), (V4,)], [BOTH, NONE, {6}]),
    ],
)
def test_who_loses_its_default_routes(asked: list[Asked], drops: list[frozenset[int]]) -> None:
    found = default_routes.plan([(f"n{i}", a) for i, a in enumerate(asked)])
    assert list(found) == [frozenset(d) for d in drops]


@pytest.mark.parametrize("other", [(ip_address("10.0.0.2"),), (V6, ip_address("10.0.0.1"))])
def test_two_gateways_of_a_family_are_refused(other: tuple[IPAddress, ...]) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        default_routes.plan([("main", None), ("ns/a", (V4,)), ("ns/b", other)])
    assert 'found 10.0.0.1 of "ns/a" and 10.0.0.' in caught.value.msg
    assert "expected one IPv4 gateway at most" in caught.value.msg


def test_two_gateways_in_one_entry_are_refused_as_well() -> None:
    with pytest.raises(InvalidNetConf, match="one IPv6 gateway at most"):
        default_routes.plan([("ns/a", (V6, ip_address("fd00::2")))])


def test_a_gateway_replaces_what_the_plugins_made_of_its_family() -> None:
    assert default_routes.change({6}, (V4,)) == Change(drops=BOTH, gateways=(V4,))
    assert default_routes.change(NONE, ()) == default_routes.change(NONE, None) == Change()
    assert not Change()
    assert Change(drops=frozenset({4}))


def test_the_result_after_the_change() -> None:
    own4 = Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.9.0.1"))
    own6 = Route(dst=ip_network("::/0"), gw=ip_address("fd09::1"))
    half = Route(dst=ip_network("0.0.0.0/1"), gw=ip_address("10.9.0.2"))
    result = Result(routes=(own4, half, own6))
    assert default_routes.changed(result, Change()).routes == (own4, half, own6)
    assert default_routes.changed(result, Change(drops=BOTH)).routes == (half,)
    assert default_routes.changed(result, Change(drops=frozenset({4}), gateways=(V4,))).routes == (
        half,
        own6,
        Route(dst=ip_network("0.0.0.0/0"), gw=V4),
    )
    assert default_routes.changed(Result(), Change(gateways=(V6,))).routes == (Route(dst=ip_network("::/0"), gw=V6),)
