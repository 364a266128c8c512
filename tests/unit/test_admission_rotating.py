"""When certificates change: one look at a time, by a clock that is only a number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from homeport.admission import rotating
from homeport.admission.rotating import BACKDATED, Authority, Held, Life, Pair, Periods, Step, decide

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PERIODS = Periods(life=90 * DAY, settle=timedelta(minutes=5))
NAME = "homeport-admission.kube-system.svc"


def made(number: int, at: datetime = NOW, life: timedelta = PERIODS.life, name: str = NAME) -> tuple[Authority, Pair]:
    span = Life(at - BACKDATED, at + life)
    authority = Authority(pem=f"ca {number}".encode(), fingerprint=str(number), life=span)
    pair = Pair(
        pem=f"certificate {number}".encode(), key=b"key", names=frozenset({name}), authority=str(number), life=span
    )
    return authority, pair


def held(number: int = 1, at: datetime = NOW, *, coming: int = 0, coming_at: datetime = NOW, name: str = NAME) -> Held:
    authority, serving = made(number, at, name=name)
    found = Held(authorities=(authority,), serving=serving)
    return rotating.announced(found, *made(coming, coming_at)) if coming else found


def step(found: Held | None, now: datetime = NOW, known_for: timedelta | None = None) -> Step:
    return decide(found, now, name=NAME, periods=PERIODS, known_for=known_for)


@pytest.mark.parametrize(
    ("found", "now", "known_for", "expected"),
    [
        (None, NOW, None, Step.MAKE),
        (held(name="another.svc"), NOW, None, Step.MAKE),
        (held(), NOW, None, Step.KEEP),
        (held(), NOW + 60 * DAY - timedelta(seconds=1), None, Step.KEEP),
        (held(), NOW + 60 * DAY, None, Step.ANNOUNCE),
        (held(), NOW + 1000 * DAY, None, Step.ANNOUNCE),
        (held(coming=2), NOW, None, Step.KEEP),
        (held(coming=2), NOW, timedelta(minutes=4), Step.KEEP),
        (held(coming=2), NOW, timedelta(minutes=5), Step.PROMOTE),
        (held(coming=2), NOW + 100 * DAY, timedelta(hours=1), Step.ANNOUNCE),  # it has waited for too long itself
        (held(), NOW - 29 * DAY, None, Step.ANNOUNCE),  # more life left than is ever given
        (held(), NOW - 31 * DAY, None, Step.ANNOUNCE),  # not valid yet
        (held(), NOW - timedelta(hours=20), None, Step.KEEP),  # clocks differ a little
    ],
)
def test_each_step(found: Held | None, now: datetime, known_for: timedelta | None, expected: Step) -> None:
    assert step(found, now, known_for) is expected


def test_an_authority_leaves_when_it_has_expired_and_not_before() -> None:
    found = rotating.promoted(held(coming=2, coming_at=NOW + 60 * DAY))
    assert [a.fingerprint for a in found.authorities] == ["1", "2"]
    assert step(found, NOW + 90 * DAY) is Step.KEEP
    later = NOW + 90 * DAY + timedelta(seconds=1)
    assert step(found, later) is Step.FORGET
    assert [a.fingerprint for a in rotating.kept(found, later)] == ["2"]


def test_what_is_in_use_stays_although_it_has_expired() -> None:
    found = held(coming=2)
    assert rotating.kept(found, NOW + 1000 * DAY) == found.authorities


def test_a_pair_that_came_too_late_leaves_with_its_authority() -> None:
    found = rotating.announced(held(coming=2), *made(3))
    assert [a.fingerprint for a in found.authorities] == ["1", "3"]
    assert found.coming is not None
    assert found.coming.authority == "3"


def test_whatever_the_clock_does_nothing_is_served_that_was_not_registered_long_enough() -> None:
    """A year of looks, with a clock that jumps: back by a month, and ahead by two."""
    found, number, known = held(), 1, {"1": 365 * DAY}  # for how long each authority has been registered
    served = {"1"}
    for day in range(365):
        skew = -30 * DAY if day % 50 == 20 else 60 * DAY if day % 70 == 30 else timedelta()
        now = NOW + day * DAY + skew
        coming = known.get(found.coming.authority) if found.coming else None
        match decide(found, now, name=NAME, periods=PERIODS, known_for=coming):
            case Step.ANNOUNCE:
                number += 1
                found = rotating.announced(found, *made(number, now))
            case Step.PROMOTE:
                found = rotating.promoted(found)
                assert known[found.serving.authority] >= PERIODS.settle
                served.add(found.serving.authority)
            case Step.FORGET:
                found = Held(authorities=rotating.kept(found, now), serving=found.serving, coming=found.coming)
            case other:
                assert other is Step.KEEP
        known = {a.fingerprint: known.get(a.fingerprint, timedelta()) + DAY for a in found.authorities}
        assert found.serving.authority in known
        assert len(found.authorities) < 8
    assert len(served) > 4
