"""A lab opened for one command: its lock held, this process inside its namespaces, its state at hand. I/O: all of it.

A keeper that died has taken every namespace with it. The next command starts another, marks what stood in the old
one as lost, and converging brings it back: the allocations are on disk, so every replica returns to its addresses.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

import msgspec

from homeport import wiring
from homeport.host.kernel import Kernel
from homeport.lab import keeping
from homeport.lab.cluster import LabCluster
from homeport.lab.keeping import Keeper
from homeport.lab.kubelets import Kubelet
from homeport.lab.objects import Event, EventType, NodeObject, PodObject, Sandbox, WorkloadObject
from homeport.lab.places import Places
from homeport.lab.storing import State
from homeport.model.errors import IOFailure, NoSuchObject
from homeport.ports import AllocationStore, Files, Shells
from homeport.runtime.caching import ResultCache

Regarded = WorkloadObject | PodObject | Sandbox | NodeObject


class LabClock:
    """The machine's time, plus what `lab advance` added."""

    def __init__(self, ahead: timedelta) -> None:
        from homeport.host.clocks import SystemClock

        self._real = SystemClock()
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self._real.monotonic()

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)


class Lab:
    """What commands work on. Made by `opened`."""

    def __init__(self, places: Places, state: State, *, recovered: bool = False) -> None:
        self.places = places
        self.recovered = recovered  # its keeper had died: everything is to be made again
        self.state = state
        # A command does not live long enough to pay for a helper process. Each of its threads enters namespaces itself
        # and comes back; a thread's namespace is its own affair (setns(2)).
        self.host = Kernel(short_lived=True)
        self.cluster = LabCluster()
        self.clock = LabClock(timedelta(seconds=float(state.setting("ahead") or 0)))
        self.kubelet = cache(self._kubelet)
        self.refresh_cluster()

    @property
    def substitutes(self) -> Mapping[str, str]:
        return msgspec.json.decode(self.state.setting("substitutes") or "{}", type=dict[str, str])

    @property
    def allocations(self) -> AllocationStore:
        return self._own_shells.open_allocations(None)

    @property
    def files(self) -> Files:
        return self._own_shells.files

    @cached_property
    def _own_shells(self) -> Shells:
        return self._shells(None, "")

    def refresh_cluster(self) -> None:
        """Lets plugins see the state as it is now."""
        state = self.state
        self.cluster.refresh(state.all(WorkloadObject), state.all(PodObject), state.all(NodeObject))

    def record(self, regarding: Regarded | str, kind: EventType, reason: str, message: str) -> None:
        """An event on an object, or on what is named as `kind/name`."""
        name = regarding if isinstance(regarding, str) else _name_of(regarding)
        self.state.record(Event(at=self.clock.now(), type=kind, reason=reason, regarding=name, message=message))

    def advance(self, by: timedelta) -> None:
        """Puts the lab's clock forward, for good."""
        self.clock.ahead += by
        self.state.set_setting("ahead", str(self.clock.ahead.total_seconds()))

    def _kubelet(self, node: str) -> Kubelet:
        return Kubelet(
            node,
            self._shells(self.places.node_netns(node), node),
            ResultCache(self.places.disk(node) / "cni"),
            pod_netns=self.places.pod_netns,
            substitutes=self.substitutes,
        )

    def _shells(self, netns: str | None, node: str) -> Shells:
        return wiring.build_shells(
            netns=netns,
            node=node,
            cluster=self.cluster,
            store=str(self.places.allocations),
            clock=self.clock,
            disk=str(self.places.disk(node)) if node else "",
            short_lived=True,
        )


def exists(places: Places) -> bool:
    """Whether there is a lab in this directory, alive or not."""
    return places.state.exists()


@contextmanager
def opened(places: Places, *, create: bool = False, on_wait: Callable[[], object] = lambda: None) -> Iterator[Lab]:
    """The lab, with its keeper running and this process inside. `on_wait` is called when another command has it.

    Raises `NoSuchObject` when there is none and `create` is False.
    """
    if not create and not exists(places):
        raise NoSuchObject(f'find lab "{places.directory.name}": there is none', "start one: homeport lab up -f FILE")
    with locked(places, on_wait):
        keeper = keeping.find(places.directory) or keeping.start(places.directory)
        keeping.enter(keeper)
        state = State(places.state)
        try:
            lab = Lab(places, state, recovered=_recover(state, keeper))
            try:
                yield lab
            finally:
                lab.host.close()
        finally:
            state.close()


def remove(places: Places, on_wait: Callable[[], object] = lambda: None) -> bool:
    """Ends the keeper and removes every file of the lab; whether there was one. Idempotent."""
    if not places.directory.exists():
        return False
    with locked(places, on_wait):
        keeping.end(places.directory)
        try:
            shutil.rmtree(places.directory)
        except OSError as e:
            raise IOFailure(f'remove "{e.filename}": {(e.strerror or "").lower()}') from e
    return True


@contextmanager
def locked(places: Places, on_wait: Callable[[], object]) -> Iterator[None]:
    """One command at a time, in the lab's directory, which is made where it is missing."""
    descriptor = _open_lock(places.lock)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        hint = "set XDG_STATE_HOME to a directory of yours" if e.errno in (errno.EACCES, errno.EPERM) else ""
        raise IOFailure(f'make the lab\'s directory "{path.parent}": {(e.strerror or "").lower()}', hint) from e


def _recover(state: State, keeper: Keeper) -> bool:
    """Under a new keeper nothing of before stands: sandboxes are to be torn down, and their pods to start anew."""
    record = msgspec.json.encode(keeper).decode()
    before = state.setting("keeper")
    if before == record:
        return False
    with state.transaction():
        for sandbox in state.all(Sandbox):
            state.put(msgspec.structs.replace(sandbox, ready=False))
        for pod in state.all(PodObject):
            state.put(msgspec.structs.replace(pod, running=False))
        state.set_setting("keeper", record)
    return before is not None


def _name_of(regarding: Regarded) -> str:
    match regarding:
        case WorkloadObject(spec=spec):
            return f"{spec.workload.kind.lower()}/{spec.workload.name}"
        case PodObject() | Sandbox():
            return f"pod/{regarding.ref.name}"
        case NodeObject():
            return f"node/{regarding.name}"


def forget_disk(places: Places, node: str) -> None:
    """What stood on a node's disk is gone with it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(places.disk(node))
