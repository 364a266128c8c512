"""Names of objects: one for each address of each scope, whatever the scope is called (R1)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import example, given
from hypothesis import strategies as st

from homeport.ipam.identities import Replica, Slot, Workload
from homeport.model.addresses import IPAddress
from homeport.model.names import is_subdomain
from homeport.stores.kubernetes import names

ADDRESSES: st.SearchStrategy[IPAddress] = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SCOPES = st.one_of(st.just(""), PLAIN, st.from_regex(r"[a-z0-9.-]{0,45}", fullmatch=True), ADDRESSES.map(str))
PLACES = st.tuples(SCOPES, ADDRESSES)


@given(PLACES)
@example(("", IPv6Address("::ffff:10.0.0.1")))
@example(("scope-0123456789abcdef0123456789abcdef", IPv4Address("10.0.0.1")))
@example(("10", IPv4Address("0.0.0.1")))
@example(("x" * 41, IPv4Address("0.0.0.1")))
def test_a_place_has_a_name_that_the_api_server_takes_and_gives_it_back(place: tuple[str, IPAddress]) -> None:
    name = names.allocation_name(*place)
    assert is_subdomain(name)
    assert names.address_in(name, place[0]) == place[1]


@given(PLACES, PLACES)
@example(("", IPv4Address("10.0.0.1")), ("10", IPv4Address("10.0.0.1")))
@example(("", IPv4Address("1.2.3.4")), ("", IPv6Address("::ffff:1.2.3.4")))
@example(("a.b", IPv4Address("1.2.3.4")), ("a", IPv4Address("1.2.3.4")))
def test_no_two_places_share_a_name(one: tuple[str, IPAddress], other: tuple[str, IPAddress]) -> None:
    assert (names.allocation_name(*one) == names.allocation_name(*other)) == (one == other)
    if one[0] != other[0]:
        assert names.address_in(names.allocation_name(*one), other[0]) is None


@given(ADDRESSES, ADDRESSES, SCOPES)
def test_ranges_have_names_too(first: IPAddress, last: IPAddress, scope: str) -> None:
    assert is_subdomain(names.range_name(scope, first, last))


@given(
    st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True).filter(is_subdomain),
    st.integers(0, 10**9),
    PLAIN,
    PLAIN,
)
def test_slots_have_names_that_tell_their_pod(workload: str, ordinal: int, network: str, ifname: str) -> None:
    slot = Slot(Replica(Workload("ns", "StatefulSet", workload), ordinal), network, ifname)
    name = names.slot_name(slot)
    assert is_subdomain(name)
    assert name.startswith(f"{workload}-{ordinal}"[:40].rstrip("-."))


def test_what_names_no_address_is_none() -> None:
    for name in ("", "10.0.0", "10.0.0.01", "fd00-0-0-0-0-0-0", "fd00-0-0-0-0-0-0-01", "FD00-0-0-0-0-0-0-1", "fd00--1"):
        assert names.address_in(name, "") is None
    assert names.address_in("blue.10.0.0.1", "") is None
    assert names.address_in("10.0.0.1", "blue") is None
    assert names.address_in("blue.10.0.0.1", "blue") == IPv4Address("10.0.0.1")


def test_the_names_that_others_rely_on() -> None:
    """Objects of this form exist: another one would claim the same addresses a second time."""
    four, six = IPv4Address("10.93.97.12"), IPv6Address("fd00:10::1")
    assert names.allocation_name("", four) == "10.93.97.12"
    assert names.allocation_name("", six) == "fd00-10-0-0-0-0-0-1"
    assert names.allocation_name("blue", four) == "blue.10.93.97.12"
    assert names.allocation_name("a.b", four) == "scope-2e7336dc8eba87ef472df568c35482ab.10.93.97.12"
    slot = Slot(Replica(Workload("shop", "StatefulSet", "web"), 0), "lan", "net1")
    assert names.slot_name(slot) == "web-0-e6fad5513437e1a7017e"
    assert names.ledger_name(7) == "ledger-00000000000000000007"
