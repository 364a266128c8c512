"""`homeport-controller` on a machine whose clock is wrong by HOMEPORT_TEST_SKEW seconds. A program."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from homeport.controller.process import main
from homeport.host.clocks import SystemClock

SKEW = timedelta(seconds=float(os.environ["HOMEPORT_TEST_SKEW"]))


def skewed_now(self: SystemClock) -> datetime:
    return datetime.now(UTC) + SKEW


if __name__ == "__main__":
    setattr(SystemClock, "now", skewed_now)  # noqa: B010 -- a program of a test, for itself alone
    main()
