"""When the webhook's certificates change, and in which order. Pure.

The API server must trust whatever is served, at every moment and from every controller. So a new authority is
registered beside the old one first; what it signed is served only once the API server can know it; and the old
authority leaves when it has expired, for then nobody can serve what it signed. An authority signs one certificate, and
its key is forgotten with that.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

import msgspec

BACKDATED = timedelta(days=30)
"""A certificate is valid from so long before it was made: the clock of whoever made it may be early by less."""
_SLACK = timedelta(days=1)


class Life(msgspec.Struct, frozen=True):
    """From and until when, both inclusive."""

    begin: datetime
    end: datetime


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that others are judged by; `fingerprint` is of all of it."""

    pem: bytes
    fingerprint: str
    life: Life


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its key, which fits, and the `fingerprint` of the authority that signed it."""

    pem: bytes
    key: bytes
    names: frozenset[str]
    authority: str
    life: Life


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What there is. `authorities` are all that are to be trusted; `coming` waits for its own to be known."""

    authorities: tuple[Authority, ...]
    serving: Pair
    coming: Pair | None = None


class Step(Enum):
    """What is to be done next; each leaves something that may be served."""

    KEEP = "keep"
    MAKE = "make"  # everything anew: there is nothing that could be served meanwhile
    ANNOUNCE = "announce"  # a new pair is made, and its authority joins
    PROMOTE = "promote"  # the coming pair is served from now on
    FORGET = "forget"  # authorities that have expired leave


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """How long a certificate is good for, and how long it takes until the API server knows an authority."""

    life: timedelta
    settle: timedelta


def decide(held: Held | None, now: datetime, *, name: str, periods: Periods, known_for: timedelta | None) -> Step:
    """`held` None is nothing, or nothing of use; `name` is what the API server expects.

    `known_for` is how long the coming pair's authority has been registered without interruption; None is not at all.
    """
    if held is None or name not in held.serving.names:
        return Step.MAKE
    if held.coming is not None:
        if name not in held.coming.names or _is_due(held.coming.life, now, periods):
            return Step.ANNOUNCE
        return Step.PROMOTE if known_for is not None and known_for >= periods.settle else Step.KEEP
    if _is_due(held.serving.life, now, periods):
        return Step.ANNOUNCE
    return Step.FORGET if kept(held, now) != held.authorities else Step.KEEP


def announced(held: Held, authority: Authority, coming: Pair) -> Held:
    """With a new pair, in place of one that was coming already."""
    given_up = held.coming.authority if held.coming is not None else ""
    stay = tuple(a for a in held.authorities if a.fingerprint != given_up)
    return Held(authorities=(*stay, authority), serving=held.serving, coming=coming)


def promoted(held: Held) -> Held:
    """With the coming pair served; the authority of the one before stays."""
    assert held.coming is not None
    return Held(authorities=held.authorities, serving=held.coming)


def kept(held: Held, now: datetime) -> tuple[Authority, ...]:
    """The authorities that have not expired, or have signed what is in use."""
    used = {pair.authority for pair in (held.serving, held.coming) if pair is not None}
    return tuple(a for a in held.authorities if a.fingerprint in used or now <= a.life.end)


def _is_due(life: Life, now: datetime, periods: Periods) -> bool:
    """In the last third of its life, expired, not valid yet, or with more life left than is ever given now."""
    left = life.end - now
    return now < life.begin or left <= periods.life / 3 or left > periods.life + _SLACK
