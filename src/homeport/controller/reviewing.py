"""The admission webhook of this controller: its parts built, and looked after by a thread. I/O: what they do.

Only a controller that is told to review imports this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from homeport.admission.facts import Facts
from homeport.admission.operating import Admission
from homeport.admission.reviewing import Reviewer
from homeport.admission.settings import AdmissionSettings
from homeport.kube.configs import ApiConfig
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import CniError
from homeport.ports import Clock, Objects

_QUESTION_SECONDS = 0.5  # of one that a review asks: the API server waits for the review
_STOP_SECONDS = 10.0


class Webhook:
    """From `start` to `stop`. `objects` write only while `is_leader`."""

    def __init__(
        self,
        settings: AdmissionSettings,
        api: ApiConfig,
        objects: Objects,
        *,
        clock: Clock,
        is_leader: Callable[[], bool],
        registry: CollectorRegistry,
        on_trouble: Callable[[CniError], None],
        guarded: Callable[[str, Callable[[], object]], None],
    ) -> None:
        self._look_seconds = settings.look_seconds
        self._guarded = guarded
        self._asking = KubernetesObjects.connect(api, deadline_seconds=_QUESTION_SECONDS, on_trouble=on_trouble)
        self._facts = Facts(self._asking)
        reviewer = Reviewer(self._facts, namespace=settings.namespace, registry=registry)
        self._admission = Admission(
            settings, objects, review=reviewer.review, clock=clock, is_leader=is_leader, registry=registry
        )
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="admission", daemon=True)
        self.unready, self.unhealthy = self._admission.unready, self._admission.unhealthy

    def start(self) -> None:
        """Raises `IOFailure` when its port is taken."""
        self._admission.start()
        self._facts.start()
        self._thread.start()

    def wake(self) -> None:
        """Looks now: whether we lead has changed."""
        self._wake.set()

    def stop(self) -> None:
        """Takes some seconds, in which it goes on answering."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)
        self._admission.stop()
        self._facts.stop()
        self._asking.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self._guarded("admission", self._admission.look)
            self._wake.wait(self._look_seconds)
