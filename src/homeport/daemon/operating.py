"""The daemon at work: its parts joined, from the first call to the last. I/O: signals, and what the parts do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from homeport import wiring
from homeport.daemon import delivering, generating
from homeport.daemon.answering import Answerer
from homeport.daemon.delivering import Delivery
from homeport.daemon.exchanges import OpeningExchange
from homeport.daemon.journal import Journal
from homeport.daemon.keeping import address_work
from homeport.daemon.metrics import Metrics
from homeport.daemon.placing import Socket
from homeport.daemon.repeating import Repeating
from homeport.daemon.serving import Limits, Server, Stop
from homeport.daemon.settings import DaemonSettings
from homeport.daemon.watching import ConfigManager
from homeport.daemon.workers import Workers
from homeport.model.errors import CniError
from homeport.wiring import Node

log = structlog.get_logger("homeport.daemon")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALS_BYTES = 65536  # what a pipe holds; one for each signal
_LOCK_PAUSE_SECONDS = 0.02
_SPARE_CONNECTIONS = 256
_STATUS_SECONDS = 5.0
_RECORDS_SECONDS = 60.0
_JOIN_SECONDS = 3.0  # for a question to the API server that is under way when the daemon ends


class Signals:
    """Signals as wishes that the program looks at where it can. `on_wish` is called at each, in the main thread.

    What came is kept in a pipe besides, by the interpreter's own handler and so whichever thread the kernel chose for
    a signal. The Python handler needs the main thread's next step, and a hot restart may leave it none: its successor
    reads the pipe.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.on_wish: Callable[[], None] = lambda: None
        self.received, self._receiving = os.pipe()
        os.set_blocking(self._receiving, False)

    def listen(self) -> None:
        signal.set_wakeup_fd(self._receiving, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked across the exec of a hot restart

    def inherit(self, received: int) -> None:
        """What the program before this one was told, of which only the wish to end is still to be done."""
        os.set_blocking(received, False)
        with suppress(BlockingIOError):
            if set(os.read(received, _SIGNALS_BYTES)) & {signal.SIGTERM, signal.SIGINT}:
                self.stop = Stop.FOR_GOOD
        os.close(received)

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.stop = self.stop or Stop.FOR_SUCCESSOR
        elif self.stop is Stop.FOR_GOOD:
            os._exit(128 + number)
        else:
            self.stop = Stop.FOR_GOOD
        self.on_wish()


class Daemon:
    """Serves calls on `socket` until a signal or another daemon ends that. `reload` reads the configuration anew."""

    def __init__(
        self, found: DaemonSettings, socket: Socket, signals: Signals, *, reload: Callable[[], DaemonSettings]
    ) -> None:
        self._settings = found
        self._socket = socket
        self._signals = signals
        self._reload = reload
        self._has_waited = False
        self._stopping: Stop | None = None
        self._ends_at = 0.0
        self._generation = generating.parse(found.raw)
        self._config_manager: ConfigManager | None = None
        self.fatal = ""  # why the configuration manager ended the daemon, if it did
        wiring.prepare_for_threads(*wiring.NODE_MODULES)

    def wait_for_lock(self, holder: int) -> bool:
        """A moment, while the daemon of process ID `holder` still serves; False when this one shall end."""
        if not self._has_waited:
            log.warning("waiting for another daemon to finish its calls", pid=holder or None)
            self._has_waited = True
        time.sleep(_LOCK_PAUSE_SECONDS)
        if self._signals.stop is Stop.FOR_SUCCESSOR:  # there is nothing to hand on yet
            self._signals.stop = None
        return self._signals.stop is None and self._socket.is_in_place()

    def serve(self) -> Stop:
        """To the end, which is returned. Raises `IOFailure` at the end if it was that the socket was taken away."""
        found = self._settings
        metrics = Metrics()
        journal = Journal(found.state_dir / "journal", report=metrics.note_unreadable_entry)
        journal.open()
        node = wiring.build_node(
            found.raw,
            node=found.node,
            state_dir=found.state_dir,
            kubeconfig=found.kubeconfig,
            store=found.store,
            whereabouts_namespace=found.whereabouts_namespace,
            exec_types=found.exec_types,
            root=str(found.chroot_dir or ""),
            on_attach=metrics.count_attach,
            observe=metrics.count_api_request,
        )
        workers = Workers(found.connection_limit, backlog=found.backlog)
        answerer = Answerer(shells=node.shells, meta=node.meta, journal=journal, observe=metrics.observe)
        delivery = Delivery(journal, workers, answerer.finish)
        server = Server(
            self._socket.listener,
            carry_out=answerer.carry_out,
            open_exchange=lambda: OpeningExchange(self._unready, metrics.count_request),
            workers=workers,
            allowed_uids=frozenset({os.geteuid()}),
            limits=_limits(found),
            on_tick=lambda: self._look_around(server, delivery, node),
        )
        metrics.watch(workers, delivery)
        if found.metrics_port is not None:
            metrics.serve(found.metrics_address, found.metrics_port)
        self._signals.on_wish = server.wake
        background = (
            Repeating("journal", delivery.go_through, seconds=delivering.POLL_SECONDS),
            Repeating("network statuses", node.meta.deliver_pending, seconds=_STATUS_SECONDS),
            Repeating("records of pods", node.meta.forget_gone_pods, seconds=_RECORDS_SECONDS),
            *address_work(node, metrics),
        )
        for work in background:
            work.start()
        if self._generation is not None:
            self._config_manager = ConfigManager(self._generation, self._end_fatally)
            self._config_manager.start()
        log.info("serving", socket=str(self._socket.path), node=found.node, journal=str(journal.path))
        is_complete = server.serve()
        is_complete = workers.drain(max(0.0, self._ends_at - time.monotonic())) and is_complete
        _end_all(background)
        if self._stopping is Stop.FOR_GOOD and node.allocations is not None:
            node.allocations.deliver()  # nobody may come after this daemon
        if not is_complete:
            log.error("gave up on calls under way", running=workers.running, waiting=workers.waiting)
        else:
            node.close()
        assert self._stopping is not None, "serving ends when it is told to"
        log.info("stopped", how=self._stopping.value)
        return self._stopping

    def _look_around(self, server: Server, delivery: Delivery, node: Node) -> None:
        """In the serving thread, again and again."""
        wish = Stop.FOR_GOOD if self.fatal else self._signals.stop
        if wish is None and not self._socket.is_in_place():
            wish = Stop.FOR_GOOD
            if self._stopping is None:
                log.warning("the socket is another daemon's now, or gone", socket=str(self._socket.path))
        if wish is None or wish is self._stopping:
            return
        if wish is Stop.FOR_SUCCESSOR and not self._can_restart():
            self._signals.stop = None
            return
        self._stopping = wish
        self._ends_at = time.monotonic() + self._settings.drain_seconds
        delivery.stop()
        node.meta.close()
        if self._config_manager is not None and self._generation is not None:
            is_last = self._signals.stop is Stop.FOR_GOOD  # no successor, and no other daemon either
            self._config_manager.stop(remove=is_last and not self._generation.keep_on_exit)
        server.stop(wish, self._settings.drain_seconds)

    def _end_fatally(self, reason: str) -> None:
        """In the configuration manager's thread."""
        log.error("ending", reason=reason)
        self.fatal = reason
        self._signals.on_wish()

    def _can_restart(self) -> bool:
        """Whether the successor would start: a hot restart with a broken file would end the daemon."""
        try:
            found = self._reload()
        except CniError as e:
            log.error("no restart, as the configuration is broken", error=str(e))
            return False
        for key, old, new in (
            ("socketDir", self._settings.socket_dir, found.socket_dir),
            ("stateDir", self._settings.state_dir, found.state_dir),
        ):
            if old != new:
                log.error(
                    "no restart, as this key needs a stop and a start", key=key, found=str(new), expected=str(old)
                )
                return False
        return True

    def _unready(self) -> str:
        return "the daemon is stopping" if self._stopping is Stop.FOR_GOOD else ""


def _end_all(background: Sequence[Repeating]) -> None:
    """Rounds under way have some seconds, together."""
    for work in background:
        work.stop()
    ends_at = time.monotonic() + _JOIN_SECONDS
    for work in background:
        work.join(max(0.0, ends_at - time.monotonic()))


def _limits(found: DaemonSettings) -> Limits:
    # More connections than calls that may run or wait: the others are told so, and health checks are answered.
    return Limits(
        connections=found.connection_limit + found.backlog + _SPARE_CONNECTIONS,
        read_seconds=found.read_seconds,
        write_seconds=found.write_seconds,
    )
