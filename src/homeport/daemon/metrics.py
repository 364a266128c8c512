"""What the daemon counts, and the page where Prometheus reads it. I/O: an HTTP server, when asked for."""

from __future__ import annotations

import os

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from homeport.daemon.calls import META_PLUGIN, Call, Outcome
from homeport.daemon.delivering import Delivery
from homeport.daemon.holding import REPAIRS, Holding, Repair
from homeport.daemon.workers import Workers
from homeport.kube.requests import Request
from homeport.model.errors import CniError
from homeport.plugins import registry
from homeport.ports import Attach
from homeport.stores.nodes import NodeStore

log = structlog.get_logger("homeport.daemon")

_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_RESULTS = ("kept", "changed", "first")
_VERBS = frozenset({"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"})


class Metrics:
    """One daemon's; safe for any number of threads. `registry` holds them all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Histogram(
            "homeport_call_duration_seconds",
            "Calls of the container runtime, from when a worker began them; code 0 is success, others are CNI's.",
            ("plugin", "verb", "code"),
            registry=self.registry,
            buckets=_BUCKETS,
        )
        # Upstream's name and labels, for the dashboards there are.
        self._requests = Counter(
            "multus_server_request",
            "HTTP requests on the daemon's socket.",
            ("handler", "code", "method"),
            registry=self.registry,
        )
        self._in_flight = Gauge("homeport_calls_in_flight", "Calls being carried out.", registry=self.registry)
        self._waiting = Gauge("homeport_calls_waiting", "Calls that wait for their turn.", registry=self.registry)
        self._journal = Gauge(
            "homeport_journal_entries", "DELs that were answered but are not done yet.", registry=self.registry
        )
        self._unreadable = Counter(
            "homeport_journal_unreadable_entries",
            "Files of the journal that were set aside because they could not be read.",
            registry=self.registry,
        )
        # R16 of docs/identity.md.
        self._attaches = Counter(
            "homeport_replica_attach",
            "Interfaces of replicas that got addresses: those they had (kept), others (changed), or their first.",
            ("result",),
            registry=self.registry,
        )
        for result in _RESULTS:
            self._attaches.labels(result)  # so that an alert on "changed" has a series before it ever happens
        self._claims = Gauge("homeport_claims", "Addresses that interfaces of this node have.", registry=self.registry)
        self._untold = Gauge(
            "homeport_claims_untold",
            "Releases and changes of addresses that the API server has not been told yet.",
            registry=self.registry,
        )
        self._api_requests = Counter(
            "homeport_api_requests",
            "Requests to the API server; code 0 is no answer.",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._repairs = Counter(
            "homeport_allocation_repairs",
            "Allocations of this node that were put right where the API server said otherwise, by what was done.",
            ("what",),
            registry=self.registry,
        )
        for repair in REPAIRS:
            self._repairs.labels(repair)
        self._conflicts = Gauge(
            "homeport_address_conflicts",
            "Addresses of running interfaces that are somebody else's in the cluster: both may be using them.",
            registry=self.registry,
        )
        self._undecodable = Gauge(
            "homeport_allocations_unreadable",
            "Allocations of this node in the cluster that cannot be read, and stay as they are.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def watch(self, workers: Workers, delivery: Delivery) -> None:
        """Whose present state the gauges show."""
        self._in_flight.set_function(lambda: workers.running)
        self._waiting.set_function(lambda: workers.waiting)
        self._journal.set_function(lambda: delivery.backlog)

    def watch_claims(self, store: NodeStore) -> None:
        """Whose claims the gauges show."""
        self._claims.set_function(lambda: len(store.claims.having(lambda claim: claim.is_held)))
        self._untold.set_function(store.pending)

    def watch_holding(self, holding: Holding) -> None:
        """Whose findings the gauges show."""
        self._conflicts.set_function(lambda: holding.conflicts)
        self._undecodable.set_function(lambda: holding.seen.unreadable)

    def count_repair(self, repair: Repair) -> None:
        """What the API server said of an address was put right."""
        self._repairs.labels(repair).inc()

    def count_attach(self, attach: Attach) -> None:
        """An interface got its addresses."""
        if attach.slot.workload is not None:
            self._attaches.labels(attach.result).inc()

    def count_api_request(self, request: Request, code: int, _seconds: float) -> None:
        """An attempt at a request to the API server."""
        self._api_requests.labels(request.verb, request.resource, str(code)).inc()

    def observe(self, call: Call, outcome: Outcome, seconds: float) -> None:
        """A call that was carried out."""
        code = outcome.error.code if outcome.error is not None else 0
        self._calls.labels(_plugin(call), _verb(call), str(code)).observe(seconds)

    def count_request(self, path: str, status: int, method: str) -> None:
        """An HTTP response."""
        self._requests.labels(path, str(status), method.lower()).inc()

    def note_unreadable_entry(self, path: str, error: CniError) -> None:
        """A file of the journal that nobody can carry out."""
        log.error("cannot read a journal entry, set aside", path=path, error=str(error))
        self._unreadable.inc()

    def serve(self, address: str, port: int) -> None:
        """In a thread of its own. A port that is taken costs the metrics, not the node's network."""
        try:
            start_http_server(port, address, self.registry)
        except OSError as e:
            log.error("cannot serve metrics", address=address, port=port, error=os.strerror(e.errno or 0))


def _plugin(call: Call) -> str:
    """A label of few values, whatever a caller makes up."""
    if call.plugin in META_PLUGIN:
        return "homeport"
    return call.plugin if call.plugin in registry.MODULES else "other"


def _verb(call: Call) -> str:
    return call.command if call.command in _VERBS else "other"
