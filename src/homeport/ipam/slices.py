"""Whereabouts' `node_slice_size`: the part of a range where a node looks first. No I/O.

A preference and nothing more: an address is claimed by its name, wherever it lies, and no node owns a part of a range.
"""

from __future__ import annotations

from hashlib import blake2b

from homeport.ipam.ranges import Range
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf


def parse_slice_size(text: str, key: str) -> int | None:
    """The prefix length of `/26` or `26`; None for "". Raises `InvalidNetConf` naming the key."""
    if not text:
        return None
    digits = text.removeprefix("/")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) <= 128):
        raise InvalidNetConf(f'key "{key}": found "{text}", expected a prefix length such as /26')
    return int(digits)


def slice_start(range_: Range, prefix_length: int | None, node: str) -> IPAddress | None:
    """Where the node begins in the range; None where slices of that size do not divide it.

    The same for a node each time. Two nodes may begin at the same place: there are as many slices as there are.
    """
    subnet = range_.subnet
    if prefix_length is None or not node or not subnet.prefixlen < prefix_length <= subnet.max_prefixlen:
        return None
    size = 1 << (subnet.max_prefixlen - prefix_length)
    origin = int(subnet.network_address)
    first = (int(range_.first) - origin) // size
    count = (int(range_.last) - origin) // size - first + 1
    number = first + int.from_bytes(blake2b(node.encode(), digest_size=8).digest()) % count
    start = max(origin + number * size, int(range_.first))
    return type(range_.first)(start)
