"""`ports.Objects` by a real API server: objects of any resource, one request each, and watches with a thread each.

docs/kubernetes.md has what the answers mean. A request may be sent twice, when the first reply was lost: so a write
that was refused as the object exists, or has another version, may be what its own first copy has done. Whoever needs
to know compares what is there with what it wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from homeport.kube import asking, decoding, errors, object_requests
from homeport.kube.asking import DEADLINE_SECONDS, Asker
from homeport.kube.configs import ApiConfig
from homeport.kube.connecting import Answer
from homeport.kube.errors import Expired
from homeport.kube.following import Follower
from homeport.kube.requests import Request
from homeport.kube.sending import Observe, Sender
from homeport.kube.watching import USUAL, Timing, Watcher
from homeport.model.errors import CniError
from homeport.ports import USUAL_DELETION, ApiObject, Deletion, ObjectChanged, ObjectExists, PatchRefused, Resource

_PAGE_SECONDS = 10.0
_LIST_ATTEMPTS = 3  # at a list that goes on for longer than its version is kept


class KubernetesObjects:
    """Objects of the API server that `asker` asks. Safe to share by threads."""

    def __init__(
        self,
        asker: Asker,
        *,
        on_trouble: Callable[[CniError], None] | None = None,
        timing: Timing = USUAL,
    ) -> None:
        self._asker = asker
        self._sender = asker.sender
        self._on_trouble = on_trouble or (lambda _error: None)
        self._timing = timing
        self._lock = threading.Lock()
        self._watches: set[ObjectWatch] = set()

    @classmethod
    def connect(
        cls,
        config: ApiConfig,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        observe: Observe | None = None,
        on_trouble: Callable[[CniError], None] | None = None,
        timing: Timing = USUAL,
    ) -> KubernetesObjects:
        """For a program that is no node's daemon; for the arguments see `KubernetesClient`."""
        asker = Asker(Sender(config, observe=observe), deadline_seconds=deadline_seconds)
        return cls(asker, on_trouble=on_trouble, timing=timing)

    def close(self) -> None:
        """Ends the watches, and breaks off what is under way."""
        self.stop_watches()
        self._sender.close()

    def stop_watches(self) -> None:
        """Ends the watches alone."""
        with self._lock:
            watches = tuple(self._watches)
        for watch in watches:
            watch.stop()

    # --- ports.Objects ---

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> ApiObject | None:
        body = self._asker.find(object_requests.get(resource, name, namespace))
        return None if body is None else decoding.decode_object(body)

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        request = object_requests.create(resource, body, namespace)
        answer = self._asker.ask(request)
        if errors.is_taken(answer.code, answer.body):
            raise ObjectExists(str(request))
        return self._written(request, answer)

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        request = object_requests.patch(resource, name, body, namespace, version)
        answer = self._asker.ask(request)
        if _is_gone(request, answer) or (version and answer.code == 409):
            raise ObjectChanged(str(request))
        return self._written(request, answer)

    def patch_json(
        self, resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], *, namespace: str = ""
    ) -> ApiObject:
        request = object_requests.patch_json(resource, name, operations, namespace)
        answer = self._asker.ask(request)
        # 409: others changed it again and again while the API server tried, or the patch gives another version.
        if _is_gone(request, answer) or answer.code == 409 or errors.is_failed_test(answer.code, answer.body):
            raise PatchRefused(str(request))
        return self._written(request, answer)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        version: str = "",
        uid: str = "",
        manner: Deletion = USUAL_DELETION,
    ) -> None:
        request = object_requests.delete(resource, name, namespace, version, uid, manner)
        answer = self._asker.ask(request)
        if _is_gone(request, answer) or ((version or uid) and answer.code == 409):
            raise ObjectChanged(str(request))
        if answer.code not in (200, 202):
            raise self._refused(request, answer)

    def list(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ApiObject]:
        list_page = partial(object_requests.list_page, resource, namespace=namespace, labels=labels)
        for _ in range(_LIST_ATTEMPTS - 1):
            with suppress(Expired):
                return self._whole_list(list_page)
        return self._whole_list(list_page)

    def names(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[str]:
        request = object_requests.list_names(resource, namespace=namespace, labels=labels)
        answer = self._sender.ask(request, seconds=_PAGE_SECONDS)
        if answer.code != 200:
            raise self._refused(request, answer)
        return decoding.decode_names(answer.body)

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None] = lambda _version: None,
        since: str = "",
    ) -> ObjectWatch:
        """The listeners are called from the watch's thread: while they work, the next change waits."""
        follower = Follower(on_change=on_change, on_gone=on_gone, on_listed=on_listed, on_trouble=self._on_trouble)
        watcher = Watcher(
            resource.plural,
            self._sender,
            follower,
            list_page=partial(object_requests.list_page, resource, namespace=namespace, labels=labels),
            watch=partial(object_requests.watch, resource, namespace=namespace, labels=labels),
            on_trouble=self._on_trouble,
            timing=self._timing,
            since=since,
        )
        watch = ObjectWatch(watcher, self._forget)
        with self._lock:
            self._watches.add(watch)
        watcher.start()
        return watch

    # --- the rest ---

    def _whole_list(self, list_page: Callable[[str], Request]) -> Sequence[ApiObject]:
        found = asking.pages(self._sender, list_page, seconds=_PAGE_SECONDS)
        return [decoding.decode_object(item) for page in found for item in page.items]

    def _written(self, request: Request, answer: Answer) -> ApiObject:
        if answer.code not in (200, 201):
            raise self._refused(request, answer)
        return decoding.decode_object(answer.body)

    def _refused(self, request: Request, answer: Answer) -> CniError:
        return errors.refused(request, answer.code, answer.body, place=self._sender.place)

    def _forget(self, watch: ObjectWatch) -> None:
        with self._lock:
            self._watches.discard(watch)


class ObjectWatch:
    """`ports.Watching`."""

    def __init__(self, watcher: Watcher, forget: Callable[[ObjectWatch], None]) -> None:
        self._watcher = watcher
        self._forget = forget

    def is_current(self) -> bool:
        return self._watcher.current()

    def was_away(self) -> bool:
        return self._watcher.was_away

    def version(self) -> str:
        return self._watcher.version

    def wait_listed(self, seconds: float) -> bool:
        return self._watcher.listed.wait(seconds)

    def stop(self) -> None:
        """Its thread ends soon; a change that is being told is told to its end."""
        self._watcher.stop()
        self._forget(self)


def _is_gone(request: Request, answer: Answer) -> bool:
    return errors.is_absence(request, answer.code, answer.body)
