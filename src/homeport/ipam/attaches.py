"""What an interface got of its addresses, for whoever counts and remembers it (docs/identity.md R16). No I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Slot


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """`before` is what the slot had when it asked, `after` what it has, one allocation a range of the pool.

    `link` is the link of the node that meets the network, None when the configuration does not tell.
    """

    slot: Slot
    before: tuple[Allocation, ...]
    after: tuple[Allocation, ...]
    link: str | None = None

    @property
    def result(self) -> Literal["kept", "changed", "first"]:
        """`changed` when it had used addresses, and has another one now."""
        used = {(a.scope, a.address) for a in self.before if a.phase is not Phase.RESERVED}
        if not used:
            return "first"
        return "kept" if all((a.scope, a.address) in used for a in self.after) else "changed"
