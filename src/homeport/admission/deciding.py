"""What a change makes wrong that was not wrong before. No I/O.

Lint's rules look twice: at the cluster with the object as it was, and as it is to be. What they find only the second
time is the change's own doing; what was there before is nobody's reason to refuse a change that does not make it worse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from homeport.admission.paths import path_of
from homeport.admission.subjects import Subject, file_name
from homeport.kube.resources import DEFINITIONS
from homeport.lint import checking, manifests, wishes
from homeport.lint.findings import Found, Severity, Span
from homeport.lint.manifests import NETWORKS, Workload

UNKNOWN_NETWORK = "unknown-network"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says of one place. `where` names another object than the one under review, else it is "".

    `written` is what stands there. `before`: the object had this mistake already.
    """

    rule: str
    severity: Severity
    file: str
    where: str
    path: str
    found: str
    right: str
    written: str
    before: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.rule, self.file, self.path


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What of the cluster concerns an object: other objects, and networks that are proven not to be there."""

    subjects: tuple[Subject, ...] = ()
    missing: frozenset[tuple[str, str]] = frozenset()


NOTHING = Context()


def judge(new: Subject, old: Subject | None, context: Context) -> tuple[Said, ...]:
    """The errors and warnings that making `old` into `new` brings, and the errors that `new` keeps, marked `before`."""
    present = tuple(_said(new, new, context))
    if not present or (old is None and all(said.file == new.file for said in present)):
        return present  # what is new has brought all there is to say of it
    baseline: dict[tuple[str, str, str], list[Said]] = {}
    for said in _said(old, new, context):
        baseline.setdefault(said.key, []).append(said)
    told = []
    for said in present:
        worse = _is_worse(said, new, old)
        if not any(_is_same(said, former, new, worse) for former in baseline.get(said.key, ())):
            told.append(said)
        elif said.severity is Severity.ERROR and said.file == new.file:
            told.append(msgspec.structs.replace(said, before=True))
    return tuple(told)


def _is_same(said: Said, former: Said, new: Subject, worse: bool) -> bool:
    """Whether a mistake at one place is the one that was there: in the same words, or not touched and not made worse.

    A map that is too short for five replicas is no worse for four.
    """
    if said.found == former.found:
        return True
    touched = said.file == new.file and said.written != former.written
    return not touched and not worse


def _is_worse(said: Said, new: Subject, old: Subject | None) -> bool:
    """Whether more pods come to the place where something is wrong."""
    if old is None:
        return True
    before, after = ({file_name(DEFINITIONS, *key) for key in selected([s])} for s in (old, new))
    if said.file in before - after:
        return False
    return new.replicas > old.replicas or (said.file not in before and not after <= before)


def _said(subject: Subject | None, under_review: Subject, context: Context) -> Iterator[Said]:
    subjects = [s for s in context.subjects if s.file != under_review.file]
    if subject is not None:
        subjects.append(subject)
    by_file = {s.file: s for s in subjects}
    for rule, found in checking.found_in(manifests.join(s.manifests for s in subjects)):
        # A network that was not looked up is not missing.
        if rule.severity is not Severity.INFO and rule.id != UNKNOWN_NETWORK:
            yield _of(rule.id, rule.severity, found, by_file[found.file], under_review)
    for workload in subject.manifests.workloads if subject is not None else ():
        for found in _missing(workload, context.missing):
            yield _of(UNKNOWN_NETWORK, Severity.WARNING, found, by_file[found.file], under_review)


def _of(rule: str, severity: Severity, found: Found, subject: Subject, under_review: Subject) -> Said:
    return Said(
        rule=rule,
        severity=severity,
        file=found.file,
        where="" if subject.file == under_review.file else str(subject),
        path=path_of(subject.manifests, found.span),
        found=found.found,
        right=found.right,
        written=subject.text[found.span.start : found.span.end],
    )


def _missing(workload: Workload, missing: Collection[tuple[str, str]]) -> Iterator[Found]:
    """Once for each place in the annotation, whatever its replicas make of it."""
    text = workload.annotations.get(NETWORKS)
    lost: dict[Span, dict[str, None]] = {}
    for wish in wishes.of(workload) if text is not None and missing else ():
        name = (wish.selection.namespace, wish.selection.name)
        if text is not None and name in missing:
            lost.setdefault(wishes.place(text, wish), {})["/".join(name)] = None
    for span, names in lost.items():
        first, *others = names
        is_ = f", and {len(others)} more of this template, are" if others else " is"
        yield workload.found(span, f'network "{first}"{is_} not in the cluster', "pods wait until it is there")


def selected(subjects: Sequence[Subject]) -> dict[tuple[str, str], None]:
    """The networks that workloads select, by namespace and name, in order."""
    found: dict[tuple[str, str], None] = {}
    for subject in subjects:
        for workload in subject.manifests.workloads:
            for wish in wishes.of(workload):
                found[wish.selection.namespace, wish.selection.name] = None
    return found
