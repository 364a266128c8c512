"""A bounded number of threads, and a bounded number of jobs that wait for one. I/O: threads.

Jobs of one key (a container ID) never run at once, and run in the order they came. A job whose key is busy waits
without holding a thread, so that calls which pile up behind one stuck container keep nobody else from being served.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress

Job = Callable[[], None]


class Workers:
    """`count` threads, started when first needed; `backlog` is how many jobs may wait. A job must not raise."""

    def __init__(self, count: int, *, backlog: int) -> None:
        self._count = count
        self._backlog = backlog
        lock = threading.Lock()
        self._job_ready = threading.Condition(lock)
        self._job_ended = threading.Condition(lock)
        self._ready: deque[tuple[str, Job]] = deque()
        self._behind: defaultdict[str, deque[Job]] = defaultdict(deque)  # by key, which is in `_busy`
        self._busy: set[str] = set()  # keys with a job that is ready or runs
        self._threads = 0
        self._idle = 0
        self._running = 0
        self._waiting = 0

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many jobs wait now, for a thread or for one of their key to end."""
        return self._waiting

    def submit(self, job: Job, *, key: str = "") -> bool:
        """Takes the job, or says False as too many wait. Jobs without a key wait for a thread only."""
        with self._job_ready:
            if self._running + self._waiting >= self._count + self._backlog and not self._is_free(key):
                return False
            self._waiting += 1
            if key in self._busy:
                self._behind[key].append(job)
                return True
            self._enqueue(key, job)
            return True

    def drain(self, seconds: float) -> bool:
        """Waits until nothing runs and nothing waits; False when that is not so after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._job_ended:
            while self._running or self._waiting:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._job_ended.wait(left)
            return True

    def _is_free(self, key: str) -> bool:
        """Whether a job of this key would begin at once, so that it takes no place among those that wait."""
        return key not in self._busy and not self._ready and (self._idle > 0 or self._threads < self._count)

    def _enqueue(self, key: str, job: Job) -> None:
        if key:
            self._busy.add(key)
        self._ready.append((key, job))
        if self._idle < len(self._ready) and self._threads < self._count:
            # A daemon thread: a plugin that hangs must not keep a process alive that was told to end.
            thread = threading.Thread(target=self._work, name=f"worker-{self._threads + 1}", daemon=True)
            with suppress(RuntimeError):  # no more threads for us now: those there are, or the next job's, take it
                thread.start()
                self._threads += 1
        self._job_ready.notify()

    def _work(self) -> None:
        while True:
            key, job = self._next()
            try:
                job()
            finally:
                self._end(key)

    def _next(self) -> tuple[str, Job]:
        with self._job_ready:
            self._idle += 1
            while not self._ready:
                self._job_ready.wait()
            self._idle -= 1
            self._waiting -= 1
            self._running += 1
            return self._ready.popleft()

    def _end(self, key: str) -> None:
        with self._job_ended:
            self._running -= 1
            if key:
                self._busy.discard(key)
                if behind := self._behind.get(key):
                    self._enqueue(key, behind.popleft())
                else:
                    self._behind.pop(key, None)
            self._job_ended.notify_all()
