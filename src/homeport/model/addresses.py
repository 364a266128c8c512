"""Address types. No I/O.

Past a parser an address is an `ipaddress` object and a MAC is a canonical `MacAddress`, never a bare string.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal, NewType

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network
Family = Literal[4, 6]

MacAddress = NewType("MacAddress", str)
"""Six lower-case hex pairs joined by colons: `0a:58:0a:5d:61:0c`."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def parse_mac(text: str) -> MacAddress:
    """The canonical form of an Ethernet address written with `:` or `-`; `ValueError` otherwise."""
    canonical = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(canonical):
        raise ValueError(f'MAC address "{text}": expected six hex pairs such as 0a:58:0a:00:00:01')
    return MacAddress(canonical)
