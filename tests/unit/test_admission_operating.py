"""Looks at Secret and registration, by a clock that stands still: what is made, put right, rotated, and left alone."""

from __future__ import annotations

import socket
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.stand_ins_objects import MemoryObjects

from homeport.admission import certificates, registering, settings
from homeport.admission.keeping import SECRETS, CertificateSecret
from homeport.admission.operating import Admission
from homeport.admission.registering import NAME
from homeport.admission.rotating import Held
from homeport.admission.settings import AdmissionSettings
from homeport.controller.electing import LeadersObjects
from homeport.kube.resources import WEBHOOKS
from homeport.model.errors import IOFailure
from homeport.ports import ApiObject, Resource

DAY = 86400.0
DUE = 60 * DAY + 60  # certificates tell whole seconds
SECRET = "homeport-admission"
NAMESPACE = "kube-system"


class StillClock:
    """Both of its times go on only when told."""

    def __init__(self) -> None:
        self.at, self.ran = datetime(2026, 5, 1, tzinfo=UTC), 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ran

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")

    def run(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.ran += seconds


class OldObjects(MemoryObjects):
    """Of an API server before Kubernetes 1.28: it drops what it does not know."""

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        return super().create(resource, _without_conditions(body), namespace=namespace)

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        return super().patch(resource, name, _without_conditions(body), namespace=namespace, version=version)


class StrictObjects(MemoryObjects):
    """Of one that refuses our conditions."""

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        if body != _without_conditions(body):
            raise IOFailure("create: 422, the expression does not compile")
        return super().create(resource, body, namespace=namespace)


def _without_conditions(body: Mapping[str, Any]) -> dict[str, Any]:
    if "webhooks" not in body:
        return dict(body)
    return {**body, "webhooks": [{k: v for k, v in w.items() if k != "matchConditions"} for w in body["webhooks"]]}


class Bench:
    """One controller's webhook on an API server in memory."""

    def __init__(self, objects: MemoryObjects, found: AdmissionSettings, clock: StillClock) -> None:
        self.objects, self.settings, self.clock = objects, found, clock
        self.leads = True
        self.admission = Admission(
            found,
            LeadersObjects(objects, lambda: self.leads),
            review=bytes,
            clock=clock,
            is_leader=lambda: self.leads,
            registry=CollectorRegistry(),
        )
        self.admission.start()

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.admission.look()

    @property
    def served(self) -> bytes:
        """The certificate that a new connection gets; b"" where nobody answers."""
        try:
            return ssl.get_server_certificate((self.settings.address, self.settings.port), timeout=10).encode()
        except ConnectionRefusedError:
            return b""

    @property
    def held(self) -> Held:
        held = CertificateSecret(self.objects, NAMESPACE, SECRET).read().held
        assert held is not None
        return held

    @property
    def data(self) -> dict[str, str]:
        stored = self.objects.get(SECRETS, SECRET, namespace=NAMESPACE)
        assert stored is not None
        data: dict[str, str] = msgspec.json.decode(stored.body)["data"]
        return data

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        stored = self.objects.get(WEBHOOKS, NAME)
        assert stored is not None
        webhooks: list[dict[str, Any]] = msgspec.json.decode(stored.body)["webhooks"]
        return webhooks

    @property
    def trusted(self) -> bytes:
        """The authorities that the API server has."""
        (bundle,) = {w["clientConfig"]["caBundle"] for w in self.webhooks}
        return b64decode(bundle)

    def names(self) -> list[str]:
        return [w["name"].partition(".")[0] for w in self.webhooks]

    def spoil(self, **data: str | None) -> None:
        body = {"data": {key.replace("_", "."): value for key, value in data.items()}}
        self.objects.patch(SECRETS, SECRET, body, namespace=NAMESPACE)


class MakeBench(Protocol):
    def __call__(self, objects: MemoryObjects | None = None, **keys: Any) -> Bench: ...


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def make_bench(clock: StillClock) -> Iterator[MakeBench]:
    benches = []

    def make(objects: MemoryObjects | None = None, **keys: Any) -> Bench:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        raw = {"port": port, "address": "127.0.0.1", **keys}
        found = settings.parse(raw, namespace=NAMESPACE)
        benches.append(Bench(objects or MemoryObjects(threaded=False), found, clock))
        return benches[-1]

    yield make
    for bench in benches:
        bench.admission.stop(0)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """After its first look."""
    made = make_bench()
    made.look()
    return made


# --- the first look -----------------------------------------------------------------------------------------------


def test_the_first_look_makes_everything(bench: Bench) -> None:
    assert sorted(bench.data) == ["ca.crt", "tls.crt", "tls.key"]
    assert bench.served == bench.held.serving.pem
    assert bench.trusted == certificates.joined(bench.held.authorities)
    assert bench.admission.unready() == ""
    service = {"namespace": NAMESPACE, "name": "homeport-admission", "port": 443, "path": "/review"}
    assert bench.webhooks[0]["clientConfig"]["service"] == service


def test_a_look_at_what_is_right_writes_nothing(bench: Bench) -> None:
    bench.look()
    before = len(bench.objects.calls)
    bench.look(3)
    assert {call.verb for call in bench.objects.calls[before:]} == {"get"}


def test_one_that_stands_by_serves_what_there_is_and_writes_nothing(bench: Bench, make_bench: MakeBench) -> None:
    other = make_bench(MemoryObjects(bench.objects.server, threaded=False))
    other.leads = False
    assert other.admission.unready() == "admission: no certificate yet"
    other.look()
    assert other.served == bench.served
    assert {call.verb for call in other.objects.calls} == {"get"}


def test_two_leaders_at_once_end_with_one_secret(make_bench: MakeBench, clock: StillClock) -> None:
    first = make_bench()
    second = make_bench(MemoryObjects(first.objects.server, threaded=False))
    first.objects.on_call = lambda call: second.look() if call.verb == "create" and call.resource == SECRETS else None
    first.look()
    first.objects.on_call = lambda _call: None
    first.look()
    assert first.served == second.served == first.held.serving.pem
    assert first.trusted == certificates.joined(first.held.authorities)


# --- what it registers --------------------------------------------------------------------------------------------


def test_pods_and_allocations_are_reviewed_only_where_conditions_keep_the_rest_out(make_bench: MakeBench) -> None:
    new, old, all_ = (
        make_bench(),
        make_bench(OldObjects(threaded=False)),
        make_bench(OldObjects(threaded=False), reviews="all"),
    )
    for bench in (new, old, all_):
        bench.look(2)
    assert new.names() == all_.names() == ["networks", "workloads", "pods", "allocations"]
    assert old.names() == ["networks", "workloads"]
    assert [w["name"] for w in new.webhooks if "matchConditions" not in w] == ["networks.homeport.dev"]


def test_what_refuses_our_conditions_gets_none(make_bench: MakeBench, capsys: pytest.CaptureFixture[str]) -> None:
    bench = make_bench(StrictObjects(threaded=False))
    bench.look(2)
    assert "registered without conditions, which were refused" in capsys.readouterr().out
    assert bench.names() == ["networks", "workloads"]
    assert bench.admission.unready() == ""


def test_only_networks_and_workloads_can_ever_be_refused_for_want_of_an_answer(make_bench: MakeBench) -> None:
    bench = make_bench(failurePolicy="Fail")
    bench.look()
    policies = {w["name"].partition(".")[0]: w["failurePolicy"] for w in bench.webhooks}
    assert policies == {"networks": "Fail", "workloads": "Fail", "pods": "Ignore", "allocations": "Ignore"}


def test_every_webhook_is_bounded_and_has_no_side_effects(bench: Bench) -> None:
    for webhook in bench.webhooks:
        assert (webhook["timeoutSeconds"], webhook["sideEffects"]) == (3, "None")
        for rule in webhook["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["apiVersions"], *rule["resources"], *rule["operations"]}


@pytest.mark.parametrize(
    "change",
    [
        {"failurePolicy": "Fail"},
        {"timeoutSeconds": 30},
        {"namespaceSelector": {}},
        {"rules": []},
        {"clientConfig": {"url": "https://evil.example/"}},
        {"objectSelector": {"matchLabels": {"a": "b"}}},
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_somebody_changed_in_the_registration_is_put_right(
    bench: Bench, number: int, change: dict[str, Any]
) -> None:
    right = bench.webhooks
    spoilt = [dict(w) for w in right]
    spoilt[number].update(change)
    bench.objects.patch(WEBHOOKS, NAME, {"webhooks": spoilt})
    bench.look()
    assert bench.webhooks == right


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_condition_that_somebody_took_away_is_put_back(bench: Bench, number: int) -> None:
    right = bench.webhooks
    spoilt = [dict(w) for w in right]
    del spoilt[number]["matchConditions"]
    bench.objects.patch(WEBHOOKS, NAME, {"webhooks": spoilt})
    bench.look()
    assert bench.webhooks == right


def test_what_an_api_server_adds_of_its_own_is_left_alone(bench: Bench) -> None:
    more = [{**w, "somethingNew": "x"} for w in bench.webhooks]
    bench.objects.patch(WEBHOOKS, NAME, {"webhooks": more})
    bench.look(2)
    assert bench.webhooks == more


def test_a_registration_that_was_deleted_or_emptied_is_back_at_the_next_look(bench: Bench) -> None:
    right = bench.webhooks
    bench.objects.delete(WEBHOOKS, NAME)
    bench.look()
    assert bench.webhooks == right
    bench.objects.patch(WEBHOOKS, NAME, {"webhooks": None})
    bench.look()
    assert bench.webhooks == right


def test_without_a_webhook_the_registration_goes(bench: Bench) -> None:
    assert registering.withdraw(bench.objects)
    assert bench.objects.get(WEBHOOKS, NAME) is None
    assert not registering.withdraw(bench.objects)


# --- the secret ---------------------------------------------------------------------------------------------------


def _another_pair() -> tuple[bytes, bytes, bytes]:
    authority, pair = certificates.make("homeport-admission.kube-system.svc", datetime.now(UTC), timedelta(days=9))
    return authority.pem, pair.pem, pair.key


def _spoil_text(bench: Bench) -> None:
    bench.spoil(tls_crt="####")


def _spoil_key(bench: Bench) -> None:
    bench.spoil(tls_key=b64encode(_another_pair()[2]).decode())


def _spoil_authority(bench: Bench) -> None:
    bench.spoil(ca_crt=b64encode(_another_pair()[0]).decode())


def _spoil_coming(bench: Bench) -> None:
    _, certificate, key = _another_pair()
    bench.spoil(coming_crt=b64encode(certificate).decode(), coming_key=b64encode(key).decode())


def _spoil_everything(bench: Bench) -> None:
    bench.objects.patch(SECRETS, SECRET, {"data": None}, namespace=NAMESPACE)


def _delete(bench: Bench) -> None:
    bench.objects.delete(SECRETS, SECRET, namespace=NAMESPACE)


@pytest.mark.parametrize(
    "spoil", [_spoil_text, _spoil_key, _spoil_authority, _spoil_coming, _spoil_everything, _delete]
)
def test_a_secret_of_ours_that_is_of_no_use_is_made_anew(
    bench: Bench, make_bench: MakeBench, spoil: Callable[[Bench], None]
) -> None:
    other = make_bench(MemoryObjects(bench.objects.server, threaded=False))
    other.leads = False
    other.look()
    before = bench.served
    spoil(bench)
    other.look()
    assert other.served == before, "what nobody can read must not stop what works"
    bench.look()
    other.look()
    assert bench.served == other.served == bench.held.serving.pem != before
    assert bench.trusted == certificates.joined(bench.held.authorities)
    assert bench.admission.problem == ""


@pytest.mark.parametrize("secret", [{"type": "kubernetes.io/tls"}, {"type": "Opaque", "metadata": {"labels": {}}}])
def test_somebody_elses_secret_is_left_alone_and_told(make_bench: MakeBench, secret: dict[str, Any]) -> None:
    bench = make_bench()
    metadata = {"name": SECRET, **secret.pop("metadata", {})}
    theirs = bench.objects.create(
        SECRETS, {"metadata": metadata, "data": {"tls.crt": "AAAA"}, **secret}, namespace=NAMESPACE
    )
    bench.look(2)
    assert bench.objects.get(SECRETS, SECRET, namespace=NAMESPACE) == theirs
    assert bench.objects.get(WEBHOOKS, NAME) is None, "registered although nothing answers"
    assert "secret kube-system/homeport-admission: found somebody else's" in bench.admission.unready()


def test_a_secret_of_nobody_knows_whom_is_left_alone(make_bench: MakeBench) -> None:
    bench = make_bench()
    body = {"metadata": {"name": SECRET}, "type": 5}
    theirs = bench.objects.create(SECRETS, body, namespace=NAMESPACE)
    bench.look(2)
    assert bench.objects.get(SECRETS, SECRET, namespace=NAMESPACE) == theirs
    assert "decode secret kube-system/homeport-admission" in bench.admission.unready()


def test_an_api_server_that_is_away_changes_nothing(bench: Bench) -> None:
    before = bench.served
    bench.objects.reachable = False
    bench.look(2)
    assert bench.served == before
    assert "connection refused" in bench.admission.problem
    bench.objects.reachable = True
    bench.look()
    assert (bench.admission.problem, bench.served) == ("", before)


# --- rotation -----------------------------------------------------------------------------------------------------


def test_a_rotation_in_its_order(bench: Bench, clock: StillClock) -> None:
    first = bench.held
    clock.run(DUE)
    bench.look()
    announced = bench.held
    assert bench.served == first.serving.pem
    assert [a.fingerprint for a in announced.authorities][:1] == [first.authorities[0].fingerprint]
    assert certificates.fingerprints(bench.trusted) == {a.fingerprint for a in announced.authorities}
    clock.run(299)
    bench.look()
    assert bench.served == first.serving.pem
    clock.run(1)
    bench.look()
    assert announced.coming is not None
    assert bench.served == announced.coming.pem
    assert "coming.crt" not in bench.data
    assert "coming.key" not in bench.data
    assert len(certificates.fingerprints(bench.trusted)) == 2
    clock.run(31 * DAY)
    bench.look(2)
    assert certificates.fingerprints(bench.trusted) == {announced.coming.authority}
    assert bench.served == announced.coming.pem


def test_an_authority_that_was_taken_out_meanwhile_is_waited_for_anew(bench: Bench, clock: StillClock) -> None:
    first, before = bench.held, bench.webhooks
    clock.run(DUE)
    bench.look()
    clock.run(200)
    bench.objects.patch(WEBHOOKS, NAME, {"webhooks": before})  # without the new one
    bench.look()
    clock.run(200)
    bench.look()
    assert bench.served == first.serving.pem, "400 s after it was made, but 200 since the API server has it"
    clock.run(100)
    bench.look()
    assert bench.served != first.serving.pem


def test_another_leader_waits_anew_and_nothing_is_lost(bench: Bench, make_bench: MakeBench, clock: StillClock) -> None:
    clock.run(DUE)
    bench.look()
    coming = bench.held.coming
    assert coming is not None
    bench.leads = False
    clock.run(250)
    other = make_bench(MemoryObjects(bench.objects.server, threaded=False))
    other.look()
    clock.run(299)
    other.look()
    assert other.served != coming.pem
    clock.run(1)
    other.look()
    bench.look()
    assert other.served == bench.served == coming.pem


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("verb", ["create", "patch"])
def test_lost_answers_are_made_up_for(make_bench: MakeBench, clock: StillClock, verb: str, fate: Any) -> None:
    bench = make_bench()
    for _ in range(3):
        bench.objects.fail(verb, fate, times=2)
        bench.look(6)
        clock.run(DUE)
        bench.look(3)
        clock.run(301)
        bench.look(3)
        assert bench.served == bench.held.serving.pem
        assert bench.held.serving.authority in certificates.fingerprints(bench.trusted)
        assert bench.admission.problem == ""


def test_another_name_is_served_at_once(bench: Bench, make_bench: MakeBench) -> None:
    other = make_bench(MemoryObjects(bench.objects.server, threaded=False), url="https://198.18.4.1:9443")
    other.look()
    assert other.held.serving.names == {"198.18.4.1"}
    assert other.webhooks[0]["clientConfig"]["url"] == "https://198.18.4.1:9443/review"
    assert "service" not in other.webhooks[0]["clientConfig"]
