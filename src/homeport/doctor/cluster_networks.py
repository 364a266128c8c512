"""Checks of what a cluster's networks say, and of what nobody can read. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from homeport.doctor.cluster_facts import Unreadable
from homeport.doctor.cluster_wording import first_of
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.lint import checking
from homeport.lint.findings import Severity as LintSeverity
from homeport.ports import ApiObject


def mistakes(manifests: Sequence[ApiObject]) -> Iterator[Diagnosis]:
    """What lint says of networks and StatefulSets, counted: `homeport lint --cluster` tells each."""
    texts = {f"{n}.json": stored.body.decode(errors="replace") for n, stored in enumerate(manifests)}
    named = {f"{n}.json": f"{stored.namespace}/{stored.name}" for n, stored in enumerate(manifests)}
    found = [f for f in checking.check(texts).findings if f.severity is not LintSeverity.INFO]
    errors = sum(f.severity is LintSeverity.ERROR for f in found)
    if not found:
        return
    counted = Counter(f.rule for f in found)
    places = sorted({named[f.file] for f in found})
    yield Diagnosis(
        id="networks-broken" if errors else "networks-doubtful",
        severity=Severity.ERROR if errors else Severity.WARNING,
        sure=Sure.CERTAIN,
        place=first_of(places),
        found=f"{errors} errors, {len(found) - errors} warnings: "
        + ", ".join(f"{rule} {count} times" if count > 1 else rule for rule, count in counted.most_common(5)),
        expected="nothing for lint to say",
        why="pods of a network with an error do not start, and one with a warning works otherwise than it reads",
        run=("homeport lint --cluster",),
    )


def unreadable(found: Sequence[Unreadable]) -> Iterator[Diagnosis]:
    """An object that cannot be decoded: nothing is concluded from it, and nothing of it is freed."""
    for one in found:
        yield Diagnosis(
            id="object-unreadable",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=f"{one.kind} {one.name}",
            found=one.why,
            expected="an object as Homeport writes it",
            why="whoever needs it is refused until it is put right; nobody takes it for absent",
            run=(f"kubectl get {one.kind} {_arguments(one.name)} -o yaml",),
        )


def _arguments(name: str) -> str:
    namespace, slash, own = name.rpartition("/")
    return f"-n {namespace} {own}" if slash else own
