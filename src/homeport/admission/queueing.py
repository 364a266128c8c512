"""Reviews one after the other, each in time or not at all. I/O: threads.

The API server waits for every review, and a client waits for the API server. So what cannot be reviewed in time is
allowed, with a warning that says so: a flood costs reviews, and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
from prometheus_client import CollectorRegistry, Counter

from homeport.admission import reviews
from homeport.admission.reviews import Answer

_THREADS = 2  # one may wait for the API server; more that compute would only take turns
# After each of its system calls the event loop waits for the interpreter until a review yields it, by default for 5 ms:
# then a burst of handshakes takes longer than the API server waits.
_SWITCH_SECONDS = 0.0002
_UNREVIEWED = Answer(warnings=("homeport: not looked at: too many requests at once",))


class _Request(msgspec.Struct):
    uid: str = ""


class _Review(msgspec.Struct):
    request: _Request


_REVIEW = msgspec.json.Decoder(_Review)


class NoReview(Exception):
    """The bytes are no AdmissionReview: there is nothing that could be allowed."""


class Queue:
    """Gives each review `seconds` from when it came. `answer` is for the event loop's thread."""

    def __init__(self, review: Callable[[bytes], bytes], seconds: float, registry: CollectorRegistry) -> None:
        self._review = review
        self._seconds = seconds
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="review")
        self._requests = Counter(
            "homeport_admission_requests",
            "Requests of the API server: reviewed, shed (allowed unseen, as there was no time), or refused.",
            ("outcome",),
            registry=registry,
        )

    async def answer(self, raw: bytes, waited: float) -> bytes:
        """`waited` are the seconds since it came. Raises `NoReview`."""
        try:
            uid = _REVIEW.decode(raw).request.uid
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise NoReview from e
        answered = await self._reviewed(raw, self._seconds - waited)
        self._requests.labels("shed" if answered is None else "reviewed").inc()
        return reviews.encode(uid, _UNREVIEWED) if answered is None else answered

    async def _reviewed(self, raw: bytes, seconds: float) -> bytes | None:
        """None when there is no time left. One that has not begun by then never does."""
        if seconds <= 0:
            return None
        reviewing = asyncio.get_running_loop().run_in_executor(self._threads, self._review, raw)
        try:
            return await asyncio.wait_for(reviewing, seconds)
        except TimeoutError:
            return None

    def count_refused(self) -> None:
        """A request that was no review."""
        self._requests.labels("refused").inc()

    def close(self) -> None:
        """What has begun goes on to its end in the background."""
        self._threads.shutdown(wait=False, cancel_futures=True)
