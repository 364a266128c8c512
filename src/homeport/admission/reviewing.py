"""One review: an AdmissionReview's bytes in, the answer's out. I/O: the facts given; logs.

Whatever goes wrong here is nobody's reason to be refused: what cannot be judged is allowed, and a warning says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from homeport.admission import allocations, deciding, ranges, reviews, subjects, wording
from homeport.admission.deciding import NOTHING, Context, Said
from homeport.admission.facts import Facts
from homeport.admission.reviews import ALLOWED, Answer, Request
from homeport.admission.subjects import Subject
from homeport.admission.writers import MAKERS
from homeport.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEFINITIONS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
)
from homeport.lint.findings import Severity
from homeport.model.errors import CniError, DecodeFailure
from homeport.ports import Resource
from homeport.stores.kubernetes.resources import IPALLOCATIONS

log = structlog.get_logger("homeport.admission")

REVIEWED: Mapping[str, Resource] = {
    r.plural: r
    for r in (DEFINITIONS, STATEFUL_SETS, DEPLOYMENTS, DAEMON_SETS, REPLICA_SETS, JOBS, CRON_JOBS, PODS, IPALLOCATIONS)
}
"""What is looked at, by the plural of its resource, on CREATE and UPDATE; IPAllocations on DELETE as well."""

SCALED: Mapping[str, Resource] = {f"{r.plural}/scale": r for r in (STATEFUL_SETS, DEPLOYMENTS)}
"""Subresources by which replicas are asked for, on UPDATE."""

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_UNJUDGED = "homeport: not looked at: "


class _ScaleSpec(msgspec.Struct):
    replicas: int = 0


class _Scale(msgspec.Struct):
    spec: _ScaleSpec = msgspec.field(default_factory=_ScaleSpec)


_scales = msgspec.json.Decoder(_Scale)


class Reviewer:
    """Safe for any number of threads. `namespace` is where the service accounts of Homeport's programs are."""

    def __init__(
        self, facts: Facts, *, namespace: str = "kube-system", registry: CollectorRegistry | None = None
    ) -> None:
        self._facts = facts
        self._namespace = namespace
        counted = registry or CollectorRegistry()
        self._reviews = Counter(
            "homeport_admission_reviews",
            "Reviews by resource and outcome: allowed, warned, denied, or failed, which is allowed too.",
            ("resource", "outcome"),
            registry=counted,
        )
        self._seconds = Histogram(
            "homeport_admission_review_seconds",
            "How long a review took, without its wait.",
            ("resource",),
            registry=counted,
            buckets=_BUCKETS,
        )
        Gauge(
            "homeport_admission_facts_complete",
            "Whether everything that reviews look at has been listed once; until then less is found.",
            registry=counted,
        ).set_function(lambda: float(facts.is_complete()))

    def review(self, raw: bytes) -> bytes:
        """The AdmissionReview that answers the one in `raw`, without a uid where that is none. Never raises."""
        began = time.perf_counter()
        uid, what, failed = "", "unknown", True
        try:
            request = reviews.decode(raw)
            uid = request.uid
            what = request.what if request.what in (*REVIEWED, *SCALED) else what
            answer = self._answer(request)
            failed = False
        except CniError as e:
            log.warning("cannot judge a request", resource=what, reason=str(e))
            answer = Answer(warnings=wording.warnings([f"{_UNJUDGED}{e}"]))
        except Exception:  # the edge: a bug of ours refuses nobody anything
            log.exception("a bug, please report it", resource=what)
            answer = Answer(warnings=(f"{_UNJUDGED}an error of its own, see the controller's log",))
        self._seconds.labels(what).observe(time.perf_counter() - began)
        self._reviews.labels(what, "failed" if failed else _outcome(answer)).inc()
        return reviews.encode(uid, answer)

    def _answer(self, request: Request) -> Answer:
        if request.what == IPALLOCATIONS.plural:
            return self._of_allocation(request)
        if request.what in SCALED:
            return self._of_scale(request, SCALED[request.what])
        if request.what in REVIEWED and request.new is not None:
            return self._of_object(request, REVIEWED[request.what])
        return ALLOWED

    def _of_allocation(self, request: Request) -> Answer:
        if allocations.is_own_writer(request.user_info, self._namespace):
            return ALLOWED
        return wording.answer_of([_said(remark, request.name) for remark in allocations.remarks_on(request)])

    def _of_scale(self, request: Request, resource: Resource) -> Answer:
        """The workload as it is, with the replicas that it has and is to have."""
        if request.new is None or request.old is None:
            return ALLOWED
        try:
            wanted, had = (_scales.decode(raw).spec.replicas for raw in (request.new, request.old))
        except msgspec.DecodeError as e:
            raise DecodeFailure(f"decode scale of {resource.plural} {request.namespace}/{request.name}: {e}") from e
        if wanted <= had:
            return ALLOWED
        stored = self._facts.find(resource, request.namespace, request.name)
        if stored is None:
            return ALLOWED
        new, old = (subjects.read(resource, stored.body, replicas=count) for count in (wanted, had))
        return ALLOWED if new.deleting else self._judged(new, old)

    def _of_object(self, request: Request, resource: Resource) -> Answer:
        assert request.new is not None
        new = subjects.read(resource, request.new, namespace=request.namespace)
        if new.deleting or _is_anothers(new):
            return ALLOWED
        old = None
        if request.old is not None:
            old = subjects.read(resource, request.old, namespace=request.namespace, known=new)
            if old.text == new.text:
                return ALLOWED
        return self._judged(new, old)

    def _judged(self, new: Subject, old: Subject | None) -> Answer:
        told: tuple[Said, ...] = ()
        if new.manifests.networks or new.manifests.workloads or new.manifests.objects:
            context = self._facts.context_of(new, old)
            told = deciding.judge(new, old, context)
            if any(_denies(said) for said in told):
                told = self._confirmed(new, old, context, told)
        answer = wording.answer_of(told)
        if new.resource == DEFINITIONS and old is not None and not answer.denial:
            answer = msgspec.structs.replace(answer, warnings=(*answer.warnings, *self._taken_away(new, old)))
        return answer

    def _confirmed(
        self, new: Subject, old: Subject | None, context: Context, told: tuple[Said, ...]
    ) -> tuple[Said, ...]:
        """What is still said when everything that it rests on is asked for anew; on doubt only what needs nothing."""
        alone = deciding.judge(new, old, NOTHING)
        certain = {(said.key, said.found) for said in alone}
        if all((said.key, said.found) in certain for said in told if _denies(said)):
            return told
        try:
            return deciding.judge(new, old, self._facts.confirmed(context))
        except CniError as e:
            log.warning("cannot confirm what a denial rests on", object=str(new), reason=str(e))
            return alone

    def _taken_away(self, new: Subject, old: Subject) -> tuple[str, ...]:
        """What to say of addresses in use that are in no range any more."""
        lines = []
        for pooled, gone in ranges.lost(ranges.ranges_of(old), ranges.ranges_of(new)):
            try:
                report = self._facts.taken_in(pooled.scope, pooled.range.span)
            except CniError as e:
                log.warning("cannot ask what of a range is in use", object=str(new), reason=str(e))
                continue
            said = ranges.warning(report, gone) if report is not None else ""
            if said:
                lines.append(f"homeport: {said}")
        return wording.warnings(lines)


def _is_anothers(subject: Subject) -> bool:
    """Whether somebody made it from an object that was reviewed itself, or from a template that only he understands."""
    return subject.controller in MAKERS or (subject.resource == PODS and bool(subject.controller))


def _denies(said: Said) -> bool:
    return said.severity is Severity.ERROR and not said.before


def _said(remark: allocations.Remark, name: str) -> Said:
    return Said(
        rule=remark.rule,
        severity=Severity.ERROR if remark.denies else Severity.WARNING,
        file=name,
        where="",
        path=remark.path,
        found=remark.found,
        right=remark.right,
        written="",
    )


def _outcome(answer: Answer) -> str:
    if answer.denial:
        return "denied"
    return "warned" if answer.warnings else "allowed"
