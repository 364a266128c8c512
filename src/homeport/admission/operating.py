"""The webhook at work: certificates, server and registration joined. I/O: what its parts do.

Every controller serves with what the Secret has; the leader sees to the Secret and to the registration. Each look does
one step, and can be repeated, broken off, or done by two at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Gauge

from homeport.admission import certificates, rotating
from homeport.admission.keeping import CertificateSecret, Kept
from homeport.admission.registering import Registrar, Registration, registered
from homeport.admission.rotating import Held, Periods, Step
from homeport.admission.serving import DRAIN_SECONDS, ReviewServer
from homeport.admission.settings import AdmissionSettings
from homeport.model.errors import CniError
from homeport.ports import Clock, Objects

log = structlog.get_logger("homeport.admission")

_SHARE = 2 / 3  # of the API server's patience; the rest is the way there and back


class Admission:
    """From `start` to `stop`. `look` is for one thread; `objects` write only while `is_leader`."""

    def __init__(
        self,
        settings: AdmissionSettings,
        objects: Objects,
        *,
        review: Callable[[bytes], bytes],
        clock: Clock,
        is_leader: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        self.problem = "no certificate yet"
        self._settings = settings
        self._clock = clock
        self._is_leader = is_leader
        self._secret = CertificateSecret(objects, settings.namespace, settings.secret)
        self._registrar = Registrar(objects, settings)
        self._server = ReviewServer(
            settings.address,
            settings.port,
            review,
            seconds=settings.timeout_seconds * _SHARE,
            registry=registry,
        )
        self._periods = Periods(
            life=timedelta(seconds=settings.certificate_seconds), settle=timedelta(seconds=settings.settle_seconds)
        )
        self._known_since: dict[str, float] = {}  # authorities that are registered, and since when without a break
        Gauge(
            "homeport_admission_certificate_seconds",
            "Until the certificate in use expires; negative when it has, NaN when there is none.",
            registry=registry,
        ).set_function(self._seconds_left)

    def start(self) -> None:
        """Raises `IOFailure` when the port is taken."""
        self._server.open()

    def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Goes on answering for so long."""
        self._server.close(drain_seconds)

    def unready(self) -> str:
        """Why it answers no reviews; "" when it does."""
        return "" if self._server.served is not None else f"admission: {self.problem}"

    def unhealthy(self) -> str:
        """Why only a new process would help; "" when none is needed."""
        return "admission: the server has ended by itself" if self._server.has_died() else ""

    def look(self) -> None:
        """One look at what is, and what follows from it. What fails is tried again at the next one."""
        try:
            problem = self._look()
        except CniError as e:
            problem = str(e)
        if problem and problem != self.problem:
            log.warning("the admission webhook needs to be put right", reason=problem)
        self.problem = problem

    def _look(self) -> str:
        # The registration first: whoever changes it after this makes our write fail, and has read a later Secret.
        found = self._registrar.read() if self._is_leader() else None
        if found is None:
            self._known_since = {}
        else:
            self._note_known(found)
        kept = self._secret.read()
        if found is not None:
            kept = self._rotated(kept)
        if kept.held is None:
            # Where there is none, its leader is about to make one.
            return kept.problem if kept.version else self.problem
        self._server.serve(kept.held.serving)
        if found is not None:
            self._register(found, kept.held)
        return ""

    def _rotated(self, kept: Kept) -> Kept:
        """What there is after the step that is due. The same as before when somebody else was faster."""
        held, now = kept.held, self._clock.now()
        name = self._settings.server_name
        step = rotating.decide(held, now, name=name, periods=self._periods, known_for=self._known_for(held))
        if step is Step.KEEP:
            return kept
        after = self._after(step, held)
        if not self._secret.write(after, kept.version):
            return kept
        if kept.problem and kept.version:
            log.warning("the webhook's certificates could not be used, and were made anew", reason=kept.problem)
        log.info("changed the webhook's certificates", step=step.value, expires=after.serving.life.end.isoformat())
        return Kept(kept.version, after)

    def _after(self, step: Step, held: Held | None) -> Held:
        now = self._clock.now()
        if held is None or step in (Step.MAKE, Step.ANNOUNCE):
            authority, pair = certificates.make(self._settings.server_name, now, self._periods.life)
            if held is None or step is Step.MAKE:
                return Held(authorities=(authority,), serving=pair)
            return rotating.announced(held, authority, pair)
        if step is Step.PROMOTE:
            return rotating.promoted(held)
        return Held(authorities=rotating.kept(held, now), serving=held.serving, coming=held.coming)

    def _register(self, found: Registration, held: Held) -> None:
        written = self._registrar.write(found, certificates.joined(held.authorities))
        if written is None:
            return
        if written is not found:
            log.info("registered the webhook", webhooks=[str(w.get("name")) for w in written.webhooks])
            if self._registrar.refusal:
                log.warning("registered without conditions, which were refused", reason=self._registrar.refusal)
        self._note_known(written)

    def _note_known(self, found: Registration) -> None:
        now = self._clock.monotonic()
        known = certificates.fingerprints(registered(found))
        self._known_since = {authority: self._known_since.get(authority, now) for authority in known}

    def _known_for(self, held: Held | None) -> timedelta | None:
        if held is None or held.coming is None:
            return None
        since = self._known_since.get(held.coming.authority)
        return None if since is None else timedelta(seconds=self._clock.monotonic() - since)

    def _seconds_left(self) -> float:
        served = self._server.served
        return math.nan if served is None else (served.life.end - self._clock.now()).total_seconds()
