"""Finding strangers who use an address that a replica keeps (docs/identity.md E25). I/O: through what it is given.

Addresses that were last held on this node and that nobody holds now are asked for on the link that they were used on,
one after the other. What answers is nobody's we know: the address is quarantined until it is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from homeport.daemon.holding import Repair
from homeport.daemon.seeing import Seen
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Workload
from homeport.model.addresses import MacAddress
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.ports import AllocationStore, Conflict, Event, Place, Probe

log = structlog.get_logger("homeport.daemon")

PROBE_SECONDS = 30.0  # between two probes of one address, as far as their number lets
SETTLED_SECONDS = 5.0  # before the first: foreign plugins let the address go before they remove the interface
STEP_SECONDS = 0.5
_WATCHED = (Phase.RETAINED, Phase.QUARANTINED)


class Squatters:
    """Looks for them on behalf of the node whose allocations are `seen`. `step` is to be called about every
    STEP_SECONDS, by one thread; it probes one address at most. `count` hears of what was changed.

    `link_of` gives the link of this node that a network was used on, None when none is known.
    """

    def __init__(
        self,
        remote: AllocationStore,
        seen: Seen,
        probe: Probe,
        *,
        node: str,
        link_of: Callable[[str], str | None],
        emit: Callable[[Event], None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        count: Callable[[Repair], None] = lambda _repair: None,
    ) -> None:
        self._remote, self._seen, self._probe = remote, seen, probe
        self._node, self._link_of, self._emit = node, link_of, emit
        self._now, self._monotonic, self._count = now, monotonic, count
        self._due: dict[Place, float] = {}
        self._troubles: dict[str, str] = {}  # the last of each link, which is told once

    def step(self) -> None:
        """Probes the address that waits longest, if one is due."""
        watched = {(a.scope, a.address): a for a in self._seen.all() if a.phase in _WATCHED}
        now = self._monotonic()
        self._due = {place: self._due.get(place, now + SETTLED_SECONDS) for place in watched}
        place = min(self._due, key=self._due.__getitem__, default=None)
        if place is None or self._due[place] > now:
            return
        self._due[place] = now + PROBE_SECONDS
        link = self._link_of(watched[place].slot.network)
        if link is None:
            return
        try:
            mac = self._probe.answers(place[1], link=link)
            if (mac is None) is (watched[place].phase is Phase.RETAINED):
                return
            self._change(place, mac, link)
        except Conflict:
            return  # its slot has taken it meanwhile
        except CniError as e:
            if self._troubles.get(link) != str(e):
                self._troubles[link] = str(e)
                log.warning("cannot look for strangers", address=str(place[1]), link=link, error=str(e))

    def _change(self, place: Place, mac: MacAddress | None, link: str) -> None:
        """As it is stored now: whoever answered may be its own next holder."""
        present = self._remote.get(*place)
        if present is None or present.phase not in _WATCHED or (mac is None) is (present.phase is Phase.RETAINED):
            return
        if mac is None:
            cause = f"nobody answers for it any more on {link} of node {self._node}"
            phase = Phase.RETAINED
        else:
            cause = f"{mac} answers for it on {link} of node {self._node}"
            phase = Phase.QUARANTINED
        self._remote.replace(msgspec.structs.replace(present, phase=phase, since=self._now()), cause=cause)
        self._count("returned" if mac is None else "quarantined")
        log.warning("an address changed", address=str(present.address), phase=phase.value, reason=cause)
        if present.slot.workload is not None:
            self._emit(_event(present, present.slot.workload, cause, warning=mac is not None))


def _event(allocation: Allocation, workload: Workload, cause: str, *, warning: bool) -> Event:
    """About the workload, as its pod may not be there."""
    kind, _, group = workload.kind.partition(".")
    what = "is quarantined, its replica waits" if warning else "is its replica's again"
    return Event(
        pod=PodRef(workload.namespace, workload.name),
        pod_uid=allocation.workload_uid,
        kind=kind,
        api_version=group or "apps/v1",
        reason="AddressQuarantined" if warning else "AddressReturned",
        message=f"{allocation.address} of {allocation.slot.owner} on {allocation.slot.network} {what}: {cause}",
        warning=warning,
    )
