"""A network's range taken from under the addresses in use. No I/O.

Nothing happens to them at once: a pod keeps what it has until it ends, and a replica that comes back gets another
address. Nobody expects that of a changed number, so it is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from homeport.admission.subjects import Subject
from homeport.cni import conflists
from homeport.ipam.pools import PoolRange
from homeport.ipam.ranges import Span, free_spans, merge_spans
from homeport.lint.nodes import plain
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError
from homeport.runtime import pooling
from homeport.stores.kubernetes.hints import RangeReport

RULE = "range-in-use"
_SHOWN = 3
_MOST_LOST = 4096  # addresses looked at one by one


def ranges_of(subject: Subject) -> tuple[PoolRange, ...]:
    """The ranges of a network's pool; none where it has no pool or cannot be read."""
    for network in subject.manifests.networks:
        try:
            parsed = conflists.parse(plain(network.config) if network.config else {}, default_name=network.name)
            pool = pooling.pool_of(parsed)
        except CniError:
            continue
        if pool is not None:
            return pool.ranges
    return ()


def lost(before: Iterable[PoolRange], after: Iterable[PoolRange]) -> Iterator[tuple[PoolRange, tuple[Span, ...]]]:
    """What of each range could be handed out, and is now in no range of the same scope."""
    kept = tuple(after)
    for pooled in before:
        same = [r.range for r in kept if r.scope == pooled.scope and r.range.family == pooled.range.family]
        left = merge_spans(span for range_ in same for span in free_spans(range_.span, range_.withheld))
        usable = free_spans(pooled.range.span, pooled.range.withheld)
        gone = tuple(span for part in usable for span in free_spans(part, left))
        if gone:
            yield pooled, gone


def warning(report: RangeReport, gone: Iterable[Span]) -> str:
    """What to say of allocated addresses in `gone`; "" when there are none."""
    taken: list[IPAddress] = []
    for span in gone:
        first = int(span.first) - int(report.first)
        numbers = range(first, first + min(span.size, _MOST_LOST))
        taken += [type(report.first)(int(report.first) + n) for n in numbers if n in report.taken]
    if not taken:
        return ""
    shown = ", ".join(str(address) for address in taken[:_SHOWN])
    more = f" and {len(taken) - _SHOWN} more" if len(taken) > _SHOWN else ""
    what = "is allocated and is" if len(taken) == 1 else "are allocated and are"
    return f"{RULE}: {shown}{more} {what} not in the range any more; whoever has it keeps it until its pod ends"
