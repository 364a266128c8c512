"""Events of pods and other objects, sent in the background. Nothing waits for them.

core/v1 Event. What happens to one object again within a few minutes is one Event with a count, and between two sendings
repeats are only counted. When more happens than can be sent, the oldest is dropped, news before warnings, and counted.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from homeport.kube import errors, requests
from homeport.kube.requests import Request
from homeport.kube.sending import Sender
from homeport.kube.watching import Backoff
from homeport.model.errors import CniError, InternalError, IOFailure, TryAgainLater
from homeport.ports import Event

COMPONENT = "homeport"
MAX_WAITING = 1000
_OF_NO_NAMESPACE = "default"  # where the API server has the events of what is in no namespace
_MAX_SENT = 2000  # that a repeat can be counted on
_REPEAT_SECONDS = 600.0  # after which the same thing is news again, as client-go has it
_MESSAGE_MAX = 1024  # bytes; the API server refuses longer ones
_REASON_MAX = 128
_GENERATED = 17  # of a name: a dot and 16 hex digits
_SEND_SECONDS = 5.0
_REFUSALS_MAX = 5
_BURST, _PER_SECOND = 50.0, 25.0
_LINGER_SECONDS = 0.02  # in which ADDs have the processor, and repeats are counted together


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """An event with how often and when it happened, and the name of the Event object that says so."""

    event: Event
    name: str
    count: int
    first: datetime
    last: datetime
    stored: bool = False  # whether the object is there already
    refusals: int = 0


def request_of(occurrence: Occurrence, node: str) -> Request:
    """What makes the API server say so."""
    event = occurrence.event
    namespace = event.pod.namespace or _OF_NO_NAMESPACE
    last = _wire_time(occurrence.last)
    if occurrence.stored:
        return requests.patch_event(namespace, occurrence.name, {"count": occurrence.count, "lastTimestamp": last})
    involved = {"apiVersion": event.api_version, "kind": event.kind, "name": event.pod.name}
    if event.pod.namespace:
        involved["namespace"] = event.pod.namespace
    whole: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": occurrence.name, "namespace": namespace},
        "involvedObject": {**involved, **({"uid": event.pod_uid} if event.pod_uid else {})},
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason[:_REASON_MAX],
        "message": _cut(event.message),
        "count": occurrence.count,
        "firstTimestamp": _wire_time(occurrence.first),
        "lastTimestamp": last,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
    }
    return requests.create_event(namespace, whole)


class Gathering:
    """What is to be sent, and what was. No I/O, and no threads: the caller holds a lock."""

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self.dropped = 0
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[Event, Occurrence] = OrderedDict()
        self._sent: OrderedDict[Event, Occurrence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: Event, now: datetime) -> None:
        """One more time that it happened."""
        before = self._waiting.get(event)
        if before is None:
            sent = self._sent.pop(event, None)
            if sent is not None and (now - sent.last).total_seconds() < _REPEAT_SECONDS:
                before = sent
        if before is not None:
            self._waiting[event] = msgspec.structs.replace(before, count=before.count + 1, last=now)
        else:
            self._waiting[event] = Occurrence(event=event, name=_new_name(event), count=1, first=now, last=now)
        if len(self._waiting) > self._max_waiting:
            self._drop_one()

    def take(self) -> Occurrence | None:
        """The next to send: warnings first, then the oldest."""
        if not self._waiting:
            return None
        event = next((e for e in self._waiting if e.warning), None) or next(iter(self._waiting))
        return self._waiting.pop(event)

    def sent(self, occurrence: Occurrence) -> None:
        """The API server has it; repeats are counted on the same object."""
        stored = msgspec.structs.replace(occurrence, stored=True, refusals=0)
        again = self._waiting.get(occurrence.event)
        if again is not None:  # it happened while it was being sent
            count = stored.count + again.count
            self._waiting[occurrence.event] = msgspec.structs.replace(stored, count=count, last=again.last)
            return
        self._sent[occurrence.event] = stored
        while len(self._sent) > _MAX_SENT:
            self._sent.popitem(last=False)

    def put_back(self, occurrence: Occurrence) -> None:
        """It could not be sent now."""
        again = self._waiting.pop(occurrence.event, None)
        if again is not None:
            count = occurrence.count + again.count
            occurrence = msgspec.structs.replace(occurrence, count=count, last=again.last)
        self._waiting[occurrence.event] = occurrence
        self._waiting.move_to_end(occurrence.event, last=False)
        if len(self._waiting) > self._max_waiting:
            self._drop_one()

    def _drop_one(self) -> None:
        event = next((e for e in self._waiting if not e.warning), None) or next(iter(self._waiting))
        del self._waiting[event]
        self.dropped += 1


class EventSender:
    """The thread that sends. `emit` may be called from anywhere, and returns at once."""

    def __init__(self, sender: Sender, node: str, *, on_trouble: Callable[[CniError], None] | None = None) -> None:
        self._sender = sender
        self._node = node
        self._on_trouble = on_trouble
        self._gathering = Gathering()
        self._changed = threading.Condition()
        self._closing_at: float | None = None
        self._failed = 0
        self._told = ""
        self._allowance, self._allowed_at = _BURST, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def dropped(self) -> int:
        """Events that never reached the API server: too many at once, or refused."""
        return self._gathering.dropped + self._failed

    def start(self) -> None:
        self._thread.start()

    def emit(self, event: Event) -> None:
        with self._changed:
            self._gathering.add(event, datetime.now(UTC))
            self._changed.notify()

    def close(self, *, seconds: float) -> None:
        """Sends what is waiting, for `seconds` at most."""
        with self._changed:
            self._closing_at = time.monotonic() + seconds
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        backoff = Backoff()
        while (occurrence := self._next()) is not None:
            try:
                self._send(occurrence)
                backoff.reset()
                self._told = ""
            except TryAgainLater as e:
                self._trouble(e)
                self._put_back(occurrence, backoff.next())
            except IOFailure as e:
                # An API server that has just started forbids everything until it has read its roles.
                self._trouble(e)
                again = msgspec.structs.replace(occurrence, refusals=occurrence.refusals + 1)
                if again.refusals < _REFUSALS_MAX:
                    self._put_back(again, backoff.next())
                else:
                    self._failed += 1
            except CniError as e:
                self._failed += 1
                self._trouble(e)
            except Exception as e:  # noqa: BLE001 -- the thread's outermost edge: a bug must not end all events
                self._failed += 1
                self._trouble(InternalError(f"send event: {type(e).__name__}: {e}"))

    def _next(self) -> Occurrence | None:
        """The next to send, when it may be sent; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._gathering) > 0 or self._closing_at is not None)
            self._changed.wait_for(lambda: self._closing_at is not None, max(_LINGER_SECONDS, self._until_allowed()))
            if self._closing_at is not None and time.monotonic() >= self._closing_at:
                return None
            self._allowance -= 1
            return self._gathering.take()

    def _until_allowed(self) -> float:
        now = time.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._allowed_at) * _PER_SECOND)
        self._allowed_at = now
        return max(0.0, (1 - self._allowance) / _PER_SECOND)

    def _send(self, occurrence: Occurrence) -> None:
        request = request_of(occurrence, self._node)
        answer = self._sender.ask(request, seconds=self._seconds())
        if occurrence.stored and errors.is_absence(request, answer.code, answer.body):
            occurrence = anew(occurrence)  # the API server forgets Events after an hour
            request = request_of(occurrence, self._node)
            answer = self._sender.ask(request, seconds=self._seconds())
        exists = request.verb == "create" and answer.code == 409
        if errors.is_ending_namespace(answer.code, answer.body):
            return  # with everything in it
        if answer.code not in (200, 201) and not exists:
            raise errors.refused(request, answer.code, answer.body, place=self._sender.place)
        with self._changed:
            self._gathering.sent(occurrence)

    def _seconds(self) -> float:
        if self._closing_at is None:
            return _SEND_SECONDS
        return max(0.01, min(_SEND_SECONDS, self._closing_at - time.monotonic()))

    def _put_back(self, occurrence: Occurrence, pause: float) -> None:
        with self._changed:
            if self._closing_at is not None:
                self._failed += 1
                return
            self._gathering.put_back(occurrence)
            self._changed.wait_for(lambda: self._closing_at is not None, pause)

    def _trouble(self, error: CniError) -> None:
        """Told once, until an event is sent again."""
        if self._on_trouble is not None and error.msg != self._told:
            self._on_trouble(error)
        self._told = error.msg


def anew(occurrence: Occurrence) -> Occurrence:
    """To be told by an object of its own."""
    return msgspec.structs.replace(occurrence, name=_new_name(occurrence.event), stored=False)


def _new_name(event: Event) -> str:
    return f"{event.pod.name[: 253 - _GENERATED].rstrip('.-')}.{secrets.token_hex(8)}"


def _wire_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(message: str) -> str:
    if len(message.encode()) <= _MESSAGE_MAX:
        return message
    return message.encode()[: _MESSAGE_MAX - 3].decode(errors="ignore") + "..."
