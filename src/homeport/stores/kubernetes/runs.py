"""Sets of numbers as runs: as long as the runs, not as the numbers. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Runs:
    """Numbers, kept as the fewest ascending runs `first`..`last`, both inclusive."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for number in sorted(numbers):
            self._append(number, number)

    @classmethod
    def parse(cls, text: str) -> Runs:
        """Of `0-3,7,9-100`; `ValueError` where the runs are not apart and ascending."""
        runs = cls()
        for part in text.split(",") if text else ():
            first, dash, last = part.partition("-")
            start, end = _number(first), _number(last) if dash else _number(first)
            if end < start or (runs._lasts and start <= runs._lasts[-1]):
                raise ValueError(f'found run "{part}", expected one above those before it')
            runs._append(start, end)
        return runs

    def __str__(self) -> str:
        return ",".join(
            str(first) if first == last else f"{first}-{last}"
            for first, last in zip(self._firsts, self._lasts, strict=True)
        )

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def __len__(self) -> int:
        """How many runs."""
        return len(self._firsts)

    @property
    def count(self) -> int:
        """How many numbers."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def cut(self, most: int) -> tuple[Runs, int | None]:
        """The first `most` runs, and the number from which on they say nothing; None when that is all."""
        if len(self) <= most:
            return self, None
        kept = Runs()
        kept._firsts, kept._lasts = self._firsts[:most], self._lasts[:most]
        return kept, self._lasts[most - 1] + 1

    def shifted(self, by: int) -> Runs:
        """A copy whose every number is `by` more."""
        moved = Runs()
        moved._firsts, moved._lasts = [n + by for n in self._firsts], [n + by for n in self._lasts]
        return moved

    def add(self, number: int) -> None:
        place = bisect_right(self._firsts, number)
        if place and number <= self._lasts[place - 1]:
            return
        joins_before = place > 0 and self._lasts[place - 1] == number - 1
        joins_after = place < len(self._firsts) and self._firsts[place] == number + 1
        if joins_before and joins_after:
            self._lasts[place - 1] = self._lasts.pop(place)
            del self._firsts[place]
        elif joins_before:
            self._lasts[place - 1] = number
        elif joins_after:
            self._firsts[place] = number
        else:
            self._firsts.insert(place, number)
            self._lasts.insert(place, number)

    def discard(self, number: int) -> None:
        place = bisect_right(self._firsts, number) - 1
        if place < 0 or number > self._lasts[place]:
            return
        first, last = self._firsts[place], self._lasts[place]
        if first == last:
            del self._firsts[place], self._lasts[place]
        elif number == first:
            self._firsts[place] += 1
        elif number == last:
            self._lasts[place] -= 1
        else:
            self._lasts[place] = number - 1
            self._firsts.insert(place + 1, number + 1)
            self._lasts.insert(place + 1, last)

    def gaps(self, first: int, last: int) -> Iterator[int]:
        """The numbers of `first`..`last` that are not here, ascending."""
        place = max(bisect_right(self._firsts, first) - 1, 0)
        number = first
        while number <= last:
            while place < len(self._firsts) and self._lasts[place] < number:
                place += 1
            if place < len(self._firsts) and self._firsts[place] <= number:
                number = self._lasts[place] + 1
                continue
            yield number
            number += 1

    def _append(self, first: int, last: int) -> None:
        if self._lasts and first <= self._lasts[-1] + 1:
            self._lasts[-1] = max(self._lasts[-1], last)
        else:
            self._firsts.append(first)
            self._lasts.append(last)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'found "{text[:40]}", expected a number')
    return int(text)
