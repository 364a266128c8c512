"""The program `homeport-controller`: arguments, signals, logs, the lease, terms of leading. I/O: all of it.

Ends with 0 at SIGTERM or SIGINT, 1 when it cannot start, 2 for wrong arguments. SIGKILL needs nothing: whoever leads
next reads what is.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

import homeport
from homeport import wiring
from homeport.admission import registering
from homeport.admission.settings import AdmissionSettings
from homeport.controller import settings
from homeport.controller.electing import Elector, LeadersObjects
from homeport.controller.operating import Term, Tools
from homeport.controller.reporting import Reporter
from homeport.controller.serving import Pages
from homeport.controller.settings import ControllerSettings
from homeport.host.clocks import SystemClock
from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.client import KubernetesClient
from homeport.model.errors import CniError, IOFailure
from homeport.plugins import whereabouts_conf

if TYPE_CHECKING:
    from homeport.controller.reviewing import Webhook
    from homeport.kube.configs import ApiConfig

log = structlog.get_logger("homeport.controller")

EXIT_START = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 2.0  # between looks at whether we still lead
_STUCK_SECONDS = 600.0  # without a step of a term: nothing it does takes as long
_REVIEWING = ("homeport.controller.reviewing",)
_MODULES = ("homeport.kube.client", "homeport.kube.objects", "homeport.stores.kubernetes.store")


class Controller:
    """Stands for election, and works while it leads, from `start` to `stop`."""

    def __init__(self, found: ControllerSettings) -> None:
        self._settings = found
        self._clock = SystemClock()
        self._stopping = threading.Event()
        self._leading = threading.Event()
        self._term: Term | None = None
        self._stepped_at = self._clock.monotonic()
        self._threads: list[threading.Thread] = []
        self._pages: Pages | None = None
        self._webhook: Webhook | None = None
        api = configs.load(found.kubeconfig, os.environ, LocalFiles())
        if api is None:
            raise IOFailure('find the API server: found neither key "kubeconfig" nor a service account, expected one')
        self._client = KubernetesClient(api, node="", on_trouble=_tell_trouble, remembered_seconds=0.0)
        self._reporter = Reporter(self._client.emit)
        self._elector = Elector(self._client.objects, self._clock, found.lease)
        self._reporter.gauge(
            "homeport_controller_leader", "Whether this one leads.", lambda: float(self._elector.is_leader())
        )
        self._reporter.gauge(
            "homeport_controller_pending_lists",
            "Resources that the leader has not listed to their end yet.",
            lambda: self._of_term(Term.pending),
        )
        self._reporter.gauge(
            "homeport_controller_allocations",
            "Allocations that the leader knows of.",
            lambda: self._of_term(lambda term: len(term.cache)),
        )
        if found.admission is not None:
            self._webhook = self._make_webhook(found.admission, api)

    def start(self) -> None:
        """Raises `IOFailure` when one of its ports is taken."""
        self._pages = self._open_pages()
        self._client.start(watching=False)
        if self._webhook is not None:
            self._webhook.start()
        self._threads = [
            threading.Thread(target=self._elect, name="election", daemon=True),
            threading.Thread(target=self._work, name="work", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Gives the lease back once the work has ended, so that nobody waits for it."""
        self._stopping.set()
        self._wake()
        if self._webhook is not None:
            self._webhook.stop()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._client.close()
        if self._pages is not None:
            self._pages.close()

    def _wake(self) -> None:
        self._leading.set()
        term = self._term
        if term is not None:
            term.agenda.wake()
        if self._webhook is not None:
            self._webhook.wake()

    def _make_webhook(self, found: AdmissionSettings, api: ApiConfig) -> Webhook:
        from homeport.controller.reviewing import Webhook  # what it needs is of no use to a controller without one

        return Webhook(
            found,
            api,
            LeadersObjects(self._client.objects, self._elector.is_leader),
            clock=self._clock,
            is_leader=self._elector.is_leader,
            registry=self._reporter.registry,
            on_trouble=_tell_trouble,
            guarded=self._guarded,
        )

    def _open_pages(self) -> Pages | None:
        if self._settings.metrics_port is None:
            return None
        pages = Pages(
            self._settings.metrics_address,
            self._settings.metrics_port,
            registry=self._reporter.registry,
            unhealthy=self._unhealthy,
            unready=self._unready,
        )
        pages.start()
        return pages

    def _elect(self) -> None:
        """The election's thread: it must go on while a term is at work."""
        led, problem = False, ""
        while not self._stopping.is_set():
            self._guarded("election", self._elector.step)
            if self._elector.problem and not problem:
                log.warning("cannot ask for the lease", reason=self._elector.problem)
            problem = self._elector.problem
            leads = self._elector.is_leader()
            if leads != led:
                log.info("leads from now on" if leads else "leads no longer", identity=self._settings.lease.identity)
                self._wake()
            led = leads
            self._stopping.wait(self._settings.lease.retry_seconds)
        self._threads[1].join(_STOP_SECONDS)
        self._guarded("resigning", self._elector.resign)

    def _work(self) -> None:
        """The working thread: a term whenever this one leads."""
        while not self._stopping.is_set():
            self._leading.wait()
            self._leading.clear()
            while self._elector.is_leader() and not self._stopping.is_set():
                self._guarded("term", self._serve_term)
                self._stopping.wait(self._settings.lease.retry_seconds)  # one that broke off is followed by another

    def _guarded(self, work: str, act: Callable[[], object]) -> None:
        try:
            act()
        except CniError as e:
            log.error("work failed, and is tried again", work=work, error=str(e))
        except Exception:  # the edge of a thread: a bug must not end it without a word
            log.exception("a bug, please report it", work=work)

    def _withdraw_webhook(self) -> None:
        """One that an earlier configuration had registered would be asked in vain."""
        if self._webhook is None and registering.withdraw(self._client.objects):
            log.info("withdrew the admission webhook, as none is configured")

    def _serve_term(self) -> None:
        self._guarded("withdrawing the webhook", self._withdraw_webhook)
        tools = Tools(
            objects=LeadersObjects(self._client.objects, self._elector.is_leader),
            cluster=self._client,
            clock=self._clock,
            reporter=self._reporter,
            fill_ipam=partial(whereabouts_conf.filled_ipam, files=LocalFiles()),
            keeping=self._settings.keeping,
            full_pass_seconds=self._settings.full_pass_seconds,
            whereabouts_namespace=self._settings.whereabouts_namespace,
        )
        self._stepped_at = self._clock.monotonic()
        self._term = term = Term(tools)
        try:
            while self._elector.is_leader() and not self._stopping.is_set():
                seconds = term.step()
                self._stepped_at = self._clock.monotonic()
                term.agenda.wait(min(seconds, _LOOK_SECONDS))
        finally:
            self._term = None
            term.close()

    def _of_term(self, count: Callable[[Term], int]) -> float:
        """Of the term under way; 0 for one that stands by."""
        term = self._term
        return float(count(term)) if term is not None else 0.0

    def _unhealthy(self) -> str:
        waited = self._clock.monotonic() - self._stepped_at
        if self._term is not None and waited > _STUCK_SECONDS:
            return f"no step for {waited:.0f} s"
        return self._webhook.unhealthy() if self._webhook is not None else ""

    def _unready(self) -> str:
        """One that stands by is ready: another leads."""
        term = self._term
        trouble = term.unready() if term is not None else self._elector.problem
        return trouble or (self._webhook.unready() if self._webhook is not None else "")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    arguments = _arguments(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # in every thread: the main one fetches them
    try:
        found = settings.load(arguments.config, os.environ)
        _configure_logs(found.log_format)
        wiring.prepare_for_threads(*_MODULES, *(_REVIEWING if found.admission is not None else ()))
        controller = Controller(found)
        controller.start()
    except CniError as e:
        print(f"homeport-controller: {e}", file=sys.stderr)
        sys.exit(EXIT_START)
    signal.sigwait(_SIGNALS)
    controller.stop()
    sys.exit(0)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="homeport-controller",
        description="The cluster's controller: settles on proof, reserves what maps keep, counts, remembers.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"JSON, by default {settings.CONFIG_FILE} if it is there"
    )
    parser.add_argument("--version", action="version", version=f"homeport-controller {homeport.__version__}")
    return parser.parse_args(argv)


def _tell_trouble(error: CniError) -> None:
    log.warning("trouble with the API server", error=str(error))


def _configure_logs(log_format: str) -> None:
    renderer: Any = structlog.processors.JSONRenderer()
    if log_format == "text":
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
