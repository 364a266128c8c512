"""Checks of what a cluster must have for Homeport to work: definitions, roles, a controller, the ledger, the webhook.

No I/O. Nodes give addresses out without a controller and without a webhook; what is lost then each finding says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from homeport.admission.rotating import BACKDATED, Life
from homeport.doctor.cluster_facts import Chunk, Definition, Grant, Lease, SeenPod, Webhook
from homeport.doctor.cluster_wording import controller_logs, first_of, long
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.stores.kubernetes.resources import GROUP, VERSION
from homeport.stores.kubernetes.wire import Record

_NETWORKS = "network-attachment-definitions.k8s.cni.cncf.io"
_WEBHOOKS = "validatingwebhookconfiguration homeport"
_SOON = timedelta(days=2)
_LAG = timedelta(minutes=1)  # that the ledger, or a lease, may be behind
_APPLY_DEFINITIONS = "kubectl apply -f deploy/crds/"
_APPLY_ROLES = "kubectl apply -f deploy/rbac.yaml"
_CONTROLLER = "homeport-controller"

_WITHOUT = {
    "ipranges": "nodes look for free addresses in lists, which costs the API server much",
    "ipledgers": "nobody can tell who had an address at some time",
}
_NO_INTERFACE = "no pod gets an interface of a secondary network: the API server does not know the objects"

KEYS: Mapping[str, tuple[str, ...]] = {
    "ipallocations": (
        *(f"spec.{key}" for key in ("scope", "address", "network", "interface", "owner", "retention", "workloadUID")),
        *(f"status.{key}" for key in ("phase", "since", "mac", "holder", "node", "cause", "changed", "write")),
    ),
    "ipslots": tuple(f"spec.{key}" for key in ("owner", "network", "interface", "addresses", "writes")),
    "ipranges": (
        *(f"spec.{key}" for key in ("scope", "first", "last", "subnet", "networks")),
        *(f"status.{key}" for key in ("usable", "free", "taken", "upTo", "updated")),
    ),
    "ipledgers": tuple(f"spec.{key}" for key in ("from", "to", "through", "count", "data")),
}
"""What this version writes. The API server drops in silence what a definition does not know."""

_READ = ("get", "list", "watch")
_CHANGE = (*_READ, "create", "patch", "delete")


def _grants(group: str, resources: Sequence[str], verbs: Sequence[str]) -> frozenset[Grant]:
    return frozenset(Grant(group, resource, verb) for resource in resources for verb in verbs)


NEEDED: Mapping[str, frozenset[Grant]] = {
    "homeport-node": _grants("", ("pods",), _READ)
    | _grants("k8s.cni.cncf.io", ("network-attachment-definitions",), _READ)
    | _grants("k8s.cni.cncf.io", ("ipamclaims",), ("get",))
    | _grants("apps", ("statefulsets",), ("get",))
    | _grants("", ("nodes",), ("get",))
    | _grants("", ("pods/status",), ("patch",))
    | _grants("", ("events",), ("create", "patch"))
    | _grants("events.k8s.io", ("events",), ("create", "patch"))
    | _grants(GROUP, ("ipallocations",), _CHANGE)
    | _grants(GROUP, ("ipslots",), ("get", "create", "patch"))
    | _grants(GROUP, ("ipranges",), _READ),
    "homeport-controller": _grants("", ("pods", "nodes"), _READ)
    | _grants("apps", ("statefulsets",), _READ)
    | _grants("apps", ("deployments",), ("get",))
    | _grants("admissionregistration.k8s.io", ("validatingwebhookconfigurations",), ("create",))
    | _grants("k8s.cni.cncf.io", ("network-attachment-definitions",), _READ)
    | _grants(GROUP, ("ipallocations", "ipslots", "ipranges", "ipledgers"), _CHANGE)
    | _grants("", ("events",), ("create", "patch"))
    | _grants("events.k8s.io", ("events",), ("create", "patch")),
}
"""What deploy/rbac.yaml gives; a test holds the two together."""


def definitions(found: Mapping[str, Definition | None]) -> Iterator[Diagnosis]:
    """Each is there, established, served in our version, and knows every key that we write."""
    for name, known in found.items():
        place = f"customresourcedefinition {name}"
        version = "v1" if name == _NETWORKS else VERSION
        if known is None:
            yield Diagnosis(
                id="definition-missing",
                severity=Severity.ERROR,
                sure=Sure.CERTAIN,
                place=place,
                found="not there",
                expected="installed",
                why=_WITHOUT.get(name.partition(".")[0], _NO_INTERFACE),
                run=(_APPLY_DEFINITIONS,),
            )
        elif not known.is_established or version not in known.served:
            served = ", ".join(known.served) or "no version"
            yield Diagnosis(
                id="definition-not-served",
                severity=Severity.ERROR,
                sure=Sure.CERTAIN,
                place=place,
                found=f"serves {served}" + ("" if known.is_established else ", not established"),
                expected=f"established, and serves {version}",
                why="its objects cannot be read or written",
                run=(f"kubectl describe crd {name}", _APPLY_DEFINITIONS),
            )
        else:
            yield from _old_definition(name, place, known)


def _old_definition(name: str, place: str, known: Definition) -> Iterator[Diagnosis]:
    lacking = [key for key in KEYS.get(name.partition(".")[0], ()) if key not in known.keys]
    if lacking:
        yield Diagnosis(
            id="definition-old",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=place,
            found=f"a schema without {', '.join(lacking)}",
            expected="the schema of this version of Homeport",
            why="the API server drops what the schema does not know, in silence",
            run=(_APPLY_DEFINITIONS,),
        )


def roles(found: Mapping[str, frozenset[Grant] | None]) -> Iterator[Diagnosis]:
    """What daemons and controller may do; bindings and roles of other names are not judged."""
    for name, given in found.items():
        lacking = sorted(f"{g.verb} {g.resource}" for g in NEEDED[name] if given is not None and not _is_in(g, given))
        if given is None or lacking:
            yield Diagnosis(
                id="role-lacks",
                severity=Severity.ERROR,
                sure=Sure.LIKELY,
                place=f"clusterrole {name}",
                found="not there" if given is None else f"does not allow {', '.join(lacking)}",
                expected="what deploy/rbac.yaml of this version gives",
                why="whoever works by this role is refused, unless another role allows it",
                run=(_APPLY_ROLES,),
            )


def _is_in(wanted: Grant, given: frozenset[Grant]) -> bool:
    return any(
        Grant(group, resource, verb) in given
        for group in (wanted.group, "*")
        for resource in (wanted.resource, "*")
        for verb in (wanted.verb, "*")
    )


def controller(lease: Lease | None, namespace: str, now: datetime) -> Iterator[Diagnosis]:
    """Somebody leads. Judged by this machine's clock against that of the leader, hence never for certain."""
    why = "addresses of dead nodes are not freed, retention and maps are not applied, the ledger is not written"
    place = f"lease {namespace}/{_CONTROLLER}"
    run = (_pods(namespace), f"kubectl -n {namespace} describe lease {_CONTROLLER}")
    if lease is None:
        yield Diagnosis(
            id="controller-missing",
            severity=Severity.ERROR,
            sure=Sure.LIKELY,
            place=place,
            found="not there: no controller has ever led in this namespace",
            expected="a lease that is renewed",
            why=why,
            run=("kubectl apply -f deploy/controller.yaml", _pods(namespace)),
        )
        return
    age = now - lease.renewed if lease.renewed is not None else None
    patience = max(4 * timedelta(seconds=lease.duration_seconds), _LAG)
    if age is None or age > patience or not lease.holder:
        renewed = "never renewed" if age is None else f"renewed {long(age)} ago"
        yield Diagnosis(
            id="controller-silent",
            severity=Severity.ERROR,
            sure=Sure.LIKELY,
            place=place,
            found=f"held by {lease.holder or 'nobody'}, {renewed}",
            expected=f"renewed within {lease.duration_seconds} s",
            why=why,
            run=run,
        )
    elif age < -_LAG:
        yield Diagnosis(
            id="clocks-differ",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place=place,
            found=f"renewed {long(-age)} in the future, by this machine's clock",
            expected="clocks that agree",
            why="retention is counted by the controller's clock, and so is every time in the ledger",
            run=("timedatectl status",),
        )


def controllers(pods: Sequence[SeenPod], namespace: str) -> Iterator[Diagnosis]:
    """Those that run are of one image."""
    images = sorted({image for seen in pods if seen.app == _CONTROLLER and seen.is_running for image in seen.images})
    if len(images) > 1:
        yield Diagnosis(
            id="controllers-differ",
            severity=Severity.WARNING,
            sure=Sure.POSSIBLE,
            place=f"deployment {namespace}/{_CONTROLLER}",
            found=f"running from {' and '.join(images)}",
            expected="one image, but while it is being rolled out",
            why="which one leads is by chance, and with it what is done",
            run=(f"kubectl -n {namespace} rollout status deployment/{_CONTROLLER}",),
        )


def ledger(last: Chunk | None, allocations: Sequence[Record], namespace: str, now: datetime) -> Iterator[Diagnosis]:
    """The youngest change that an allocation carries is written down, once it is a minute old."""
    changes = [r.changed for r in allocations if r.changed is not None and now - r.changed > _LAG]
    newest = max(changes, default=None)
    if newest is None or (last is not None and newest - last.end <= _LAG):
        return
    behind = "nothing is written down" if last is None else f"{last.name} ends {long(newest - last.end)} earlier"
    yield Diagnosis(
        id="ledger-behind",
        severity=Severity.WARNING,
        sure=Sure.LIKELY,
        place="ipledgers",
        found=f"an allocation changed {long(now - newest)} ago; {behind}",
        expected="every change within seconds",
        why="`homeport who --at` does not know it, and what the API server forgets meanwhile is lost",
        run=(_pods(namespace), controller_logs(namespace)),
    )


def webhooks(found: Sequence[Webhook], namespace: str, now: datetime) -> Iterator[Diagnosis]:
    """What is registered can be verified, and blocks nobody. That nothing is registered is a choice."""
    blocking = [webhook.name for webhook in found if webhook.failure_policy != "Ignore"]
    if blocking:
        yield Diagnosis(
            id="webhook-blocks",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place=_WEBHOOKS,
            found=f"failurePolicy Fail of {first_of(blocking)}",
            expected="failurePolicy Ignore, unless that is meant",
            why="while no controller answers, nothing that they are to look at can be created or changed",
            run=(f"kubectl get {_WEBHOOKS} -o yaml",),
        )
    for authorities in dict.fromkeys(webhook.authorities for webhook in found):
        yield from _authorities(authorities, namespace, now)


def _authorities(found: tuple[Life, ...] | None, namespace: str, now: datetime) -> Iterator[Diagnosis]:
    last = max(found or (), key=lambda life: life.end, default=None)
    if last is None:
        told = "a caBundle without a certificate" if found == () else "a caBundle that is no certificate"
    elif last.end <= now:
        told = f"a caBundle that ended {long(now - last.end)} ago"
    elif last.end - now < _late(last):
        told = f"a caBundle that ends in {long(last.end - now)}, and was to be replaced long ago"
    else:
        return
    is_over = last is None or last.end <= now
    yield Diagnosis(
        id="webhook-unverifiable" if is_over else "webhook-certificate-ends",
        severity=Severity.ERROR if is_over else Severity.WARNING,
        sure=Sure.CERTAIN,
        place=_WEBHOOKS,
        found=told,
        expected="a certificate that the controllers' own is signed by",
        why="the API server trusts no answer then, so that mistakes are let through unseen",
        run=(_pods(namespace), controller_logs(namespace)),
    )


def _late(life: Life) -> timedelta:
    """It is replaced in the last third of its life; half of that is late, and two days are for any other's."""
    given = life.end - life.begin - BACKDATED
    return min(given / 6, _SOON) if given > timedelta() else _SOON


def _pods(namespace: str) -> str:
    return f"kubectl -n {namespace} get pods -l app.kubernetes.io/name={_CONTROLLER}"
