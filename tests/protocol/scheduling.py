"""Threads that run one at a time, and in an order that is chosen: an interleaving is a list of numbers.

A task runs until it comes to a point (`Scheduler.point`), and goes on from there when it is chosen again. All that is
left open is asked of one `Chooser`: seeded, so that a run is repeated from its seed; or counting through every list of
answers that costs no more than a bound. A task whose group was killed raises `Killed` at its point, and undoes nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

STUCK_SECONDS = 5.0


class Killed(BaseException):
    """The process is gone: nothing after this point runs."""


Kind = Literal["order", "fate"]
"""Of a question: which task goes on, or what becomes of a request and of who sends it."""


class Chooser(Protocol):
    """Answers every open question of a run. `costs` has one entry an option: 0 for what happens by itself."""

    def choose(self, kind: Kind, costs: Sequence[int]) -> int: ...


class Seeded:
    """At random. What becomes of a request is what should in `calm` of `calm` + 1 cases, for each other option."""

    def __init__(self, seed: int, *, calm: int = 80) -> None:
        self.random = random.Random(seed)
        self._calm = calm

    def choose(self, kind: Kind, costs: Sequence[int]) -> int:
        weights = [self._calm if kind == "fate" and not cost else 1 for cost in costs]
        return self.random.choices(range(len(costs)), weights)[0]


class Following:
    """Answers as `path` says, from there on always the first option that is left; those above a budget are not."""

    def __init__(self, path: Sequence[int], budgets: Mapping[Kind, int]) -> None:
        self._path = path
        self._budgets = dict(budgets)
        self.taken: list[tuple[int, int]] = []  # the answer, and how many there were

    def choose(self, kind: Kind, costs: Sequence[int]) -> int:
        options = [n for n, cost in enumerate(costs) if cost <= self._budgets[kind]]
        answer = self._path[len(self.taken)] if len(self.taken) < len(self._path) else 0
        self.taken.append((answer, len(options)))
        self._budgets[kind] -= costs[options[answer]]
        return options[answer]


def every_path(*, order: int, fate: int) -> Iterator[Following]:
    """A chooser for each run, until every list of answers was given that turns aside at most so often from what would
    happen by itself. Use each before the next.
    """
    path: list[int] = []
    while True:
        chooser = Following(path, {"order": order, "fate": fate})
        yield chooser
        taken = chooser.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return
        path = [answer for answer, _ in taken[:-1]] + [taken[-1][0] + 1]


@dataclass(eq=False)
class Task:
    """Something under way. `group` is what it dies with; `at` is the point it stands at."""

    name: str
    group: str
    action: Callable[[], None] = field(repr=False)
    at: str = "start"
    killed: bool = False
    ended: bool = False
    error: BaseException | None = None
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0), repr=False)
    thread: threading.Thread | None = field(default=None, repr=False)


class Scheduler:
    """Runs tasks one at a time. All methods but `point` and `choose` are for the thread that made it."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self._back = threading.Semaphore(0)
        self._current: Task | None = None
        self.tasks: list[Task] = []
        self.trace: list[str] = []

    def choose(self, kind: Kind, costs: Sequence[int]) -> int:
        """The number of an option; nothing is asked when there is only one."""
        return self._chooser.choose(kind, costs) if len(costs) > 1 else 0

    def note(self, text: str) -> None:
        """For whoever reads a history that went wrong."""
        who = self._current.name if self._current is not None else "-"
        self.trace.append(f"{who}: {text}")

    def spawn(self, name: str, action: Callable[[], None], *, group: str = "") -> Task:
        """A task that will run when it is chosen."""
        task = Task(name, group, action)
        task.thread = threading.Thread(target=self._run, args=(task,), name=name, daemon=True)
        self.tasks.append(task)
        task.thread.start()
        return task

    def step(self) -> bool:
        """Lets one task go on to its next point or its end; False when none is left.

        To go on with the one that ran last costs nothing, as it does to choose when that has ended.
        """
        if not self.tasks:
            return False
        last = self._current
        tasks = sorted(self.tasks, key=lambda t: t is not last)
        costs = [0 if t is last or last is None or last.ended else 1 for t in tasks]
        self.resume(tasks[self.choose("order", costs)])
        return True

    def resume(self, task: Task) -> None:
        """Lets that one go on to its next point or its end. What it raises is raised here, unless it was killed."""
        self._current = task
        task.go.release()
        if not self._back.acquire(timeout=STUCK_SECONDS):
            raise AssertionError(f"{task.name} waits for another task in the middle of a step, after {task.at}")
        if task.ended:
            self.tasks.remove(task)
            if task.error is not None and not isinstance(task.error, Killed):
                raise task.error

    def finish(self) -> None:
        """Runs all there is, each to its end, in turn."""
        while self.tasks:
            self.resume(self.tasks[0])

    def kill(self, group: str) -> None:
        """Ends the group's tasks where they stand."""
        for task in [t for t in self.tasks if t.group == group and t is not self._current]:
            task.killed = True
        if self._current is not None and self._current.group == group and not self._current.ended:
            self._current.killed = True

    def abandon(self) -> None:
        """Ends every task where it stands."""
        for task in list(self.tasks):
            task.killed = True
        while self.tasks:
            self.resume(self.tasks[0])

    def point(self, at: str) -> None:
        """To be called by a task: others may run now. Outside of tasks it does nothing."""
        task = self._current
        if task is None or task.thread is not threading.current_thread():
            return
        if task.killed:
            raise Killed
        task.at = at
        self._back.release()
        task.go.acquire()
        if task.killed:
            raise Killed

    def _run(self, task: Task) -> None:
        task.go.acquire()
        try:
            if not task.killed:
                task.action()
        except BaseException as e:  # noqa: BLE001 -- handed to the thread that chose this task
            task.error = e
        task.ended = True
        self._back.release()


class TaskLock:
    """A lock whose holder may stand at a point: whoever waits lets others run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._scheduler.point("wait for a lock")
        self._held = True

    def __exit__(self, *_error: object) -> None:
        self._held = False
