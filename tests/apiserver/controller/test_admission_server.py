"""The webhook of real controllers, asked by a real API server, with exactly the roles of deploy/rbac.yaml.

Where a review must not be lost the policy is Fail: a request then fails whose review was not answered.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from testcluster import places
from testcluster.api import MERGE, Api, ApiError
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import HomeportController
from tests.admission_reviews import Json, definition, scale, workload
from tests.apiserver.controller.balancing import Balancer, Place
from tests.apiserver.controller.conftest import MakeController
from tests.apiserver.controller.hands import LEASE

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/homeport"
SECRET = "/api/v1/namespaces/kube-system/secrets/homeport-admission"
DENIED = 'admission webhook "networks.homeport.dev" denied the request: homeport: '
UNANSWERED = "failed calling webhook"
BAD = {"range_start": "10.77.0.1"}  # outside of its range


class Site:
    """A namespace, and whoever writes in it."""

    def __init__(self, admin: Api, plane: ControlPlane, namespace: str) -> None:
        self.admin, self.plane, self.namespace = admin, plane, namespace
        self._made = 0

    def place(self) -> Place:
        """Where a controller may listen."""
        host = self.plane.place.loopback
        return host, places.free_port(host)

    def definition(self, name: str = "storage", **ipam: Any) -> Json:
        return definition(name, self.namespace, **ipam)

    def create(self, body: Json, *, dry: bool = False) -> None:
        collection = self.admin.path_of(body).rpartition("/")[0]
        self.admin.request("POST", collection, body, parameters={"dryRun": "All"} if dry else None)

    def denial(self, body: Json, method: str = "POST", path: str = "") -> str:
        """Why it may not be; "" when it may (it is only tried)."""
        path = path or self.admin.path_of(body).rpartition("/")[0]
        content = MERGE if method == "PATCH" else "application/json"
        try:
            self.admin.request(method, path, body, parameters={"dryRun": "All"}, content_type=content)
        except ApiError as e:
            if e.status != 403 and UNANSWERED not in str(e):
                raise
            return str(e)
        return ""

    def reviews(self) -> bool:
        """Whether something is refused now."""
        return DENIED in self.denial(self.definition(**BAD))

    def bundle(self) -> str:
        """The authorities that the API server trusts."""
        (found,) = {w["clientConfig"]["caBundle"] for w in self.admin.get(CONFIGURATION)["webhooks"]}
        return b64decode(found).decode()


@pytest.fixture
def site(
    admin: Api, control_plane: ControlPlane, namespace: str, controllers: list[HomeportController]
) -> Iterator[Site]:
    yield Site(admin, control_plane, namespace)
    for controller in controllers:
        controller.kill()
    for path in (CONFIGURATION, SECRET, LEASE):
        admin.delete(path)


def told(place: Place, url: str = "", **keys: Any) -> Json:
    """The key `admission` for a controller that listens there."""
    host, port = place
    return {"port": port, "address": host, "url": url or f"https://{host}:{port}", "lookSeconds": 0.2, **keys}


def certificate_at(place: Place) -> str:
    return ssl.get_server_certificate(place, timeout=10)


# --- reviews ------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused_and_what_can_is_not(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller(admission=told(site.place()))
    wait_until(site.reviews, 20.0)
    refused = site.denial(site.definition(**BAD))
    assert "range-bounds: 10.77.0.1 is outside the range 10.9.0.0/29" in refused
    assert "(spec.config ipam.range_start)" in refused
    site.create(site.definition())
    site.create(workload("web", 3, namespace=site.namespace))
    too_many = site.denial(workload("shop", 40, namespace=site.namespace))
    assert 'admission webhook "workloads.homeport.dev" denied the request: homeport: ' in too_many
    stateful = f"/apis/apps/v1/namespaces/{site.namespace}/statefulsets/web"
    assert "homeport: " in site.denial({"spec": {"replicas": 40}}, "PATCH", stateful)
    assert "homeport: " in site.denial(scale("web", 40, site.namespace), "PUT", f"{stateful}/scale")
    assert site.denial(scale("web", 4, site.namespace), "PUT", f"{stateful}/scale") == ""


def test_a_namespace_may_stay_out(site: Site, make_controller: MakeController, wait_until: WaitUntil) -> None:
    make_controller(admission=told(site.place()))
    wait_until(site.reviews, 20.0)
    labels = {"metadata": {"labels": {"homeport.dev/admission": "ignore"}}}
    site.admin.patch(f"/api/v1/namespaces/{site.namespace}", labels)
    wait_until(lambda: site.denial(site.definition(**BAD)) == "")


def test_the_api_server_may_ask_a_service(site: Site, make_controller: MakeController, wait_until: WaitUntil) -> None:
    """Here one that is another name for an address, as no kube-proxy is at work."""
    host, port = site.place()
    services = f"/api/v1/namespaces/{site.namespace}/services"
    spec = {"type": "ExternalName", "externalName": host, "ports": [{"port": port}]}
    site.admin.create(services, {"metadata": {"name": "reviews"}, "spec": spec})
    service = {"namespace": site.namespace, "name": "reviews", "port": port}
    make_controller(admission={"port": port, "address": host, "service": service, "lookSeconds": 0.2})
    wait_until(site.reviews, 20.0)


# --- certificates -------------------------------------------------------------------------------------------------


class Watchers:
    """Ask without a pause, each in a thread of its own; `failures` are what must not have happened."""

    def __init__(self, site: Site, ports: tuple[Place, ...]) -> None:
        self.failures: list[str] = []
        self.answered = self.shaken = 0
        self.seen: dict[Place, list[str]] = {place: [] for place in ports}
        self._site = site
        self._stopping = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._review, args=(n,), daemon=True) for n in range(3)),
            *(threading.Thread(target=self._shake, args=(place,), daemon=True) for place in ports),
        ]

    def __enter__(self) -> Watchers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _review(self, number: int) -> None:
        """Through the API server: one that must be refused and one that must not, by turns."""
        api = Api(self._site.plane.access())
        good, bad = (self._site.definition(f"net-{number}", **ipam) for ipam in ({}, BAD))
        path = api.path_of(good).rpartition("/")[0]
        try:
            while not self._stopping.is_set():
                for body, expected in ((good, ""), (bad, DENIED)):
                    try:
                        api.request("POST", path, body, parameters={"dryRun": "All"})
                        answer = ""
                    except ApiError as e:
                        answer = str(e)
                    if (expected not in answer) if expected else answer:
                        self.failures.append(f"review: {answer or 'allowed'}")
                    self.answered += 1
        finally:
            api.close()

    def _shake(self, place: Place) -> None:
        """With each controller itself, trusting exactly what the API server was told to trust."""
        api = Api(self._site.plane.access())
        try:
            while not self._stopping.is_set():
                bundle = api.get(CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"]
                context = ssl.create_default_context(cadata=b64decode(bundle).decode())
                try:
                    with (
                        socket.create_connection(place, timeout=10) as plain,
                        context.wrap_socket(plain, server_hostname=place[0]) as secured,
                    ):
                        found = ssl.DER_cert_to_PEM_cert(secured.getpeercert(True) or b"")
                except OSError as e:
                    self.failures.append(f"handshake with {place}: {e}")
                    continue
                if found not in self.seen[place]:
                    self.seen[place].append(found)
                self.shaken += 1
        finally:
            api.close()


@pytest.mark.timeout(120)
def test_certificates_rotate_several_times_and_no_review_is_lost(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    """Two controllers, certificates of nine seconds, and a policy that lets no failure pass."""
    first, second = site.place(), site.place()
    with balanced(site, first, second) as url:
        keys: Json = {"url": url, "failurePolicy": "Fail", "certificateSeconds": 9, "settleSeconds": 1}
        make_controller("controller-a", admission=told(first, **keys))
        make_controller("controller-b", admission=told(second, **keys))
        wait_until(site.reviews, 20.0)
        wait_until(lambda: _listens(first) and _listens(second), 20.0)
        original = site.bundle()
        with Watchers(site, (first, second)) as watchers:
            wait_until(lambda: watchers.failures or all(len(seen) > 3 for seen in watchers.seen.values()), 60.0)
        assert watchers.failures == []
        assert watchers.answered > 100
        assert watchers.shaken > 100
        left = site.bundle()
        assert not {*_certificates(original)} & {*_certificates(left)}, "the first authority has expired and is there"
        assert len(_certificates(left)) <= 3
        assert set(watchers.seen[first]) & set(watchers.seen[second])


@contextmanager
def balanced(site: Site, *backends: Place) -> Iterator[str]:
    """The URL of a balancer of these."""
    host = site.plane.place.loopback
    balancer = Balancer(host, backends)
    try:
        yield f"https://{host}:{balancer.port}"
    finally:
        balancer.close()


def _listens(place: Place) -> bool:
    try:
        certificate_at(place)
    except OSError:
        return False
    return True


def _certificates(bundle: str) -> list[str]:
    end = "-----END CERTIFICATE-----\n"
    return [part + end for part in bundle.split(end) if part.strip()]


def test_what_somebody_spoils_by_hand_is_put_right(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    place = site.place()
    make_controller(admission=told(place))
    wait_until(site.reviews, 20.0)
    certificate, version = certificate_at(place), site.admin.get(SECRET)["metadata"]["resourceVersion"]

    site.admin.delete(CONFIGURATION)
    wait_until(site.reviews, 20.0)
    site.admin.patch(CONFIGURATION, {"webhooks": []})
    wait_until(site.reviews, 20.0)
    assert certificate_at(place) == certificate
    assert site.admin.get(SECRET)["metadata"]["resourceVersion"] == version

    for spoil in (
        lambda: site.admin.patch(SECRET, {"data": {"tls.crt": "AAAA"}}),
        lambda: site.admin.patch(SECRET, {"data": None}),
        lambda: site.admin.delete(SECRET),
    ):
        before = certificate_at(place)
        spoil()
        wait_until(lambda before=before: certificate_at(place) != before and site.reviews(), 20.0)


# --- when it is away ----------------------------------------------------------------------------------------------


def test_a_webhook_that_does_not_answer_holds_nobody_up(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    controller = make_controller(admission=told(site.place(), timeoutSeconds=1))
    wait_until(site.reviews, 20.0)
    controller.pause()
    began = time.monotonic()
    assert site.denial(site.definition(**BAD)) == ""
    assert 0.9 < time.monotonic() - began < 3
    controller.resume()
    wait_until(site.reviews, 20.0)
    controller.kill()
    began = time.monotonic()
    site.create(site.definition(**BAD))
    assert time.monotonic() - began < 1.5


def test_another_controller_reviews_on_when_the_leader_is_killed(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    first, second = site.place(), site.place()
    with balanced(site, first, second) as url:
        leader = make_controller("controller-a", admission=told(first, url=url))
        wait_until(site.reviews, 20.0)
        make_controller("controller-b", admission=told(second, url=url))
        wait_until(lambda: _listens(second), 20.0)
        assert certificate_at(first) == certificate_at(second)
        leader.kill()
        wait_until(site.reviews, 5.0)
        site.admin.delete(CONFIGURATION)
        wait_until(site.reviews, 20.0)  # it leads by now


def test_a_controller_that_ends_loses_no_review(
    site: Site, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    """Its Service sends nothing new from when it is told to end; what is on its way is answered."""
    first, second = site.place(), site.place()
    host = site.plane.place.loopback
    balancer = Balancer(host, (first, second))
    try:
        keys: Json = {"url": f"https://{host}:{balancer.port}", "failurePolicy": "Fail"}
        ending = make_controller("controller-a", admission=told(first, **keys))
        wait_until(site.reviews, 20.0)
        make_controller("controller-b", admission=told(second, **keys))
        wait_until(lambda: _listens(second), 20.0)
        with Watchers(site, ()) as watchers:
            wait_until(lambda: watchers.answered > 20, 20.0)
            balancer.backends = (second,)
            ending.stop()
            before = watchers.answered
            wait_until(lambda: watchers.answered > before + 20, 20.0)
        assert watchers.failures == []
    finally:
        balancer.close()


def test_switched_off_it_is_asked_no_more(site: Site, make_controller: MakeController, wait_until: WaitUntil) -> None:
    controller = make_controller(admission=told(site.place()))
    wait_until(site.reviews, 20.0)
    controller.stop()
    make_controller("controller-b")
    wait_until(lambda: site.admin.find(CONFIGURATION) is None, 20.0)
    site.create(site.definition(**BAD))
