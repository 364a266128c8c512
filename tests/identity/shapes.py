"""What the pods of a row look like: how many secondary interfaces, and which addresses on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

Addresses = Mapping[str, tuple[str, ...]]  # of one pod: interface to addresses in order
Seen = dict[str, Addresses]  # by pod
NETWORKS = ("one", "two")


@dataclass(frozen=True)
class Shape:
    """How many secondary interfaces a pod has, and whether each has an IPv6 address beside the IPv4 one.

    `block` sets its subnets apart from those of other blocks.
    """

    interfaces: int
    dual: bool
    block: int = 0

    @property
    def networks(self) -> tuple[str, ...]:
        return NETWORKS[: self.interfaces]

    @property
    def families(self) -> tuple[int, ...]:
        return (4, 6) if self.dual else (4,)

    def range_of(self, network: str, family: int) -> tuple[str, str]:
        """(subnet, address number 0) of a network."""
        n = self.block * len(NETWORKS) + NETWORKS.index(network) + 1
        return (f"10.{n}.0.0/16", f"10.{n}.1.12") if family == 4 else (f"fd00:{n:x}::/64", f"fd00:{n:x}::1:c")

    def ranges(self, network: str, size: int) -> list[dict[str, Any]]:
        """A network's `ipRanges`, of `size` addresses each."""
        found = []
        for family in self.families:
            subnet, _ = self.range_of(network, family)
            first, last = (self.address(network, family, n) for n in (0, size - 1))
            found.append({"range": subnet, "range_start": first, "range_end": last})
        return found

    def address(self, network: str, family: int, n: int) -> str:
        """Address number `n` of a network's range."""
        return str(ip_address(self.range_of(network, family)[1]) + n)

    def numbered(self, n: int) -> Addresses:
        """What a pod has whose every address is number `n`."""
        return {
            f"net{i}": tuple(self.address(network, family, n) for family in self.families)
            for i, network in enumerate(self.networks, start=1)
        }

    def mapped(self, network: str, *numbers: int) -> list[list[str]]:
        """A map's entries: for each replica the addresses of these numbers."""
        return [[self.address(network, family, n) for family in self.families] for n in numbers]

    def map_of(self, *numbers: int) -> dict[str, list[list[str]]]:
        """A workload's own map, of every network."""
        return {network: self.mapped(network, *numbers) for network in self.networks}

    def __str__(self) -> str:
        return f"{self.interfaces}x{'dual' if self.dual else 'ipv4'}"


def flat(seen: Mapping[str, Addresses]) -> set[str]:
    """Every address in it."""
    return {address for pod in seen.values() for addresses in pod.values() for address in addresses}
