"""Two sides given the same call, and the comparison of what they made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.sides import Answer, Call, Json, Side
from tests.differential.states import comparable, observe

_SETTLING_SECONDS = 3.0


@dataclass
class Twins:
    """`theirs` runs the reference plugins, `ours` Homeport's."""

    theirs: Side
    ours: Side

    def both(self, act: Callable[[Side], Answer]) -> tuple[Answer, Answer]:
        return act(self.theirs), act(self.ours)

    def add(self, call: Call) -> tuple[Answer, Answer]:
        return self.both(lambda side: side.add(call))

    def inside(self, place: str, *argv: str) -> None:
        """The same preparation on both sides; `place` is node or pod."""
        for side in (self.theirs, self.ours):
            side.inside(side.node if place == "node" else side.pod, *argv)

    def views(self, call: Call, answers: tuple[Answer, Answer]) -> tuple[Any, Any]:
        given = json.dumps([call.plugins, call.args]).lower()
        pairs = ((self.theirs, answers[0]), (self.ours, answers[1]))
        theirs, ours = (comparable(s, observe(s), _answer(a), given=given) for s, a in pairs)
        return theirs, ours

    def settle(
        self, call: Call, answers: tuple[Answer, Answer], allow: Callable[[Any], Any] = lambda view: view
    ) -> tuple[Any, Any]:
        """Both views, once they are the same or after a while: the kernel brings links up in its own time."""
        deadline = time.monotonic() + _SETTLING_SECONDS
        while True:
            theirs, ours = (allow(view) for view in self.views(call, answers))
            if theirs == ours or time.monotonic() >= deadline:
                return theirs, ours
            time.sleep(0.02)


def _answer(answer: Answer) -> Json:
    """A result as it is, an error by its code alone: the words are each side's own."""
    return {"code": answer.code} if answer.code else answer.value


def differences(theirs: Any, ours: Any, at: str = "") -> list[str]:
    """What is not the same, one line each: for the message of a failing assertion."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(theirs.keys() | ours.keys())
        return [line for k in keys for line in differences(theirs.get(k), ours.get(k), f"{at}.{k}")]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [
            line for n, (t, o) in enumerate(zip(theirs, ours, strict=True)) for line in differences(t, o, f"{at}[{n}]")
        ]
    return [] if theirs == ours else [f"{at}: theirs {theirs!r}, ours {ours!r}"]
