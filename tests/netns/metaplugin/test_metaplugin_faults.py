"""A fault at every step of ADD and of DEL: refused, interrupted, or the daemon killed there. Nothing stays behind."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from homeport.host.kernel import Kernel
from homeport.model.errors import CniError, KernelRefused, LinkExists
from homeport.wiring import build_delegates, build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import Node
    from tests.netns.metaplugin.conftest import Machine, Sandbox

    from homeport.ports import Shells

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]

_QUIET = ("operation", "on_undo", "lock_namespace", "emit")  # what other calls are made of, and what never fails


class Interrupted(BaseException):
    """What SIGTERM becomes in a program that is ending."""


class Fuse:
    """Counts the calls to every port of a request, and does something at the `number`th."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.number, self.act = number, act
        self.calls: list[str] = []

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.number:
            self.act()


class Wired:
    """A port whose calls go through the fuse first."""

    def __init__(self, port: Any, fuse: Fuse) -> None:
        self._port, self._fuse = port, fuse

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)
        if name in _QUIET or not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse(name)
            return real(*args, **kwargs)

        return call


def wire(machine: Machine, node: Node, fuse: Fuse, given: Shells | None = None) -> None:
    """Puts the fuse before the kernel, the store, the API server and the plugins of a daemon that starts now."""
    base = given or machine.shells
    kubernetes: Any = Wired(machine.kubernetes, fuse)
    plugins = build_delegates(lambda: shells, netns=node.netns, environ={})

    def open_allocations(path: str | None) -> Any:
        return Wired(base.open_allocations(path), fuse)

    host: Any = Wired(base.host, fuse)
    shells = msgspec.structs.replace(
        base, host=host, delegates=plugins, open_allocations=open_allocations, cluster=kubernetes
    )
    original, machine.kubernetes = machine.kubernetes, kubernetes
    machine.restart(shells)
    machine.kubernetes = original


@pytest.fixture
def wishful(machine: Machine) -> Machine:
    """A node with a network of each kind, the last of which takes the default route."""
    sticky = machine.sticky("lan")
    sticky["plugins"].append({"type": "sbr"})
    machine.define("apps/lan", sticky)
    machine.define("apps/fixed", machine.macvlan("fixed", "10.93.97.200/20"))
    return machine


NETWORKS: list[Any] = [{"name": "lan"}, {"name": "fixed", "default-route": ["10.93.96.1"]}]


def refuse() -> None:
    raise KernelRefused("no", "EPERM")


def interrupt() -> None:
    raise Interrupted


def steps(limit: int = 400) -> Iterator[int]:
    return iter(range(1, limit))


def assert_clean(machine: Machine, sandbox: Sandbox, names: Names, place: str) -> None:
    assert names(sandbox.netns) == {"lo"}, place
    assert machine.is_clean(), place


@pytest.mark.parametrize("act", [refuse, interrupt])
def test_add(wishful: Machine, node: Node, names: Names, act: Callable[[], None]) -> None:
    failed = set()
    sandbox = None
    for number in steps():
        fuse = Fuse(number, act)
        wire(wishful, node, fuse)
        pod = wishful.pod(networks=NETWORKS)
        sandbox = sandbox or wishful.sandbox(pod)
        sandbox.args = {**sandbox.args, "K8S_POD_UID": pod.uid}
        try:
            wishful.add(sandbox)
        except (CniError, Interrupted):
            failed.add(fuse.calls[number - 1])
        else:
            done = len(fuse.calls) < number
            wishful.restart()
            wishful.delete(sandbox)
            if done:
                break
        assert_clean(wishful, sandbox, names, f"call {number}, {fuse.calls[number - 1]}")
    else:
        pytest.fail("ADD never succeeded")
    expected = {
        "create_veth",
        "create_macvlan",
        "add_address",
        "add_rule",
        "delete_route",
        "create",
        "link",
        "definition",
    }
    assert expected | {"pod_with_uid", "add_route"} <= failed


@pytest.mark.parametrize("act", [refuse, interrupt])
def test_delete(wishful: Machine, node: Node, names: Names, act: Callable[[], None]) -> None:
    failed = set()
    for number in steps():
        wishful.restart()
        sandbox = wishful.sandbox(wishful.pod(networks=NETWORKS))
        wishful.add(sandbox)
        fuse = Fuse(number, act)
        wire(wishful, node, fuse)
        try:
            wishful.delete(sandbox)
        except (CniError, Interrupted):
            failed.add(fuse.calls[number - 1])
            assert wishful.scratch(sandbox).exists()
            wishful.delete(sandbox)
        place = f"call {number}, {fuse.calls[number - 1] if number <= len(fuse.calls) else 'none'}"
        assert_clean(wishful, sandbox, names, place)
        if len(fuse.calls) < number:
            break
    else:
        pytest.fail("DEL never came to its end")
    assert {"delete_links", "delete_rule", "delete", "of_holder"} <= failed


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("then", ["DEL", "ADD"])
def test_killed(wishful: Machine, node: Node, names: Names, verb: str, then: str) -> None:
    """SIGKILL: nothing is undone. A new daemon's DEL takes down what there is, and so does its ADD before it begins."""
    killed = []
    for number in steps():
        sandbox = wishful.sandbox(wishful.pod(networks=NETWORKS))
        wishful.restart()
        if verb == "DEL":
            wishful.add(sandbox)
        name = run_and_kill(wishful, node, sandbox, verb, number)
        wishful.restart()
        if name and then == "ADD" and not wishful.is_clean():
            with suppress(LinkExists):  # it had come to its end
                wishful.add(sandbox)
        wishful.delete(sandbox)
        assert_clean(wishful, sandbox, names, f"call {number}, {name}")
        if name is None:
            break
        killed.append(name)
    else:
        pytest.fail(f"{verb} never came to its end")
    assert "write_annotations" in killed if verb == "ADD" else "delete_links" in killed


def run_and_kill(machine: Machine, node: Node, sandbox: Sandbox, verb: str, number: int) -> str | None:
    """Runs the verb in a process that kills itself at its `number`th call, named; None when it came to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_to_death(machine, node, sandbox, verb, number, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        name = pipe.read().decode()
    _, ended = os.waitpid(child, 0)
    assert ended == (signal.SIGKILL if name else 0), f"{verb} failed at call {number}, {name}"
    return name or None


def _run_to_death(machine: Machine, node: Node, sandbox: Sandbox, verb: str, number: int, writing: int) -> None:
    store = str(machine.home / "allocations.db")
    try:
        shells = build_shells(netns=node.netns, node="node-a", store=store, environ={})

        def kill() -> None:
            os.write(writing, fuse.calls[-1].encode())
            assert isinstance(shells.host, Kernel)
            shells.host.close()
            os.kill(os.getpid(), signal.SIGKILL)

        fuse = Fuse(number, kill)
        wire(machine, node, fuse, shells)
        (machine.add if verb == "ADD" else machine.delete)(sandbox)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  # a child must not go on as a second pytest
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)
