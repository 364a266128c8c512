"""`homeportd` under a supervisor that starts it again at once, and with a wish to die at a step of a call.

A program; its arguments are homeportd's. When the file that HOMEPORT_TEST_DEATH names holds "VERB N", the next call of
that verb kills the daemon before its Nth step: a change of the kernel, of allocations, of files, of the API server's
objects, or its answer. The file is removed then, and the step's name added to the file of that name with `.steps`.

Each life is a fork of this warm process, so that a restart costs milliseconds.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from homeport import wiring
from homeport.daemon.answering import Answerer
from homeport.daemon.journal import Journal
from homeport.daemon.process import main
from homeport.host.kernel import Kernel
from homeport.kube.client import KubernetesClient
from homeport.kube.objects import KubernetesObjects
from homeport.runtime import node_files
from homeport.runtime.caching import ResultCache
from homeport.stores.claims import Claims
from homeport.stores.disk import DiskAllocations

WISH = Path(os.environ["HOMEPORT_TEST_DEATH"])
STEPS: Mapping[type | ModuleType, str] = {
    Kernel: "create_bridge set_bridge_port create_veth create_macvlan set_link delete_links add_address delete_address "
    "add_route delete_route add_rule delete_rule write_sysctl announce",
    Claims: "swap",
    KubernetesObjects: "create patch delete",
    DiskAllocations: "reserve release",
    ResultCache: "save forget",
    node_files: "replace remove",
    os: "replace",  # between the writing of a file and its appearing under its name
    Journal: "write remove",
    KubernetesClient: "write_annotations",
}
counting = threading.local()


def step(name: str) -> None:
    """Counts, in a thread that carries out the call the wish is about, and dies at the wished number."""
    left = getattr(counting, "left", None)
    if left is None:
        return
    counting.left = left - 1
    if counting.left == 0:
        with WISH.with_suffix(".steps").open("a") as steps:
            steps.write(f"{name}\n")
        WISH.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def counted(owner: type | ModuleType, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        step(f"{owner.__name__.rpartition('.')[2]}.{name}")
        return original(*args, **kwargs)

    setattr(owner, name, method)


def watched(name: str) -> None:
    """A method of `Answerer` whose first argument is a call, or a journal's entry with its call."""
    original: Callable[..., Any] = getattr(Answerer, name)

    @functools.wraps(original)
    def method(self: Answerer, subject: Any, *args: Any) -> Any:
        verb, _, number = (WISH.read_text() if WISH.exists() else "").partition(" ")
        outermost = getattr(counting, "left", None) is None
        if outermost and verb == getattr(subject, "call", subject).command:
            counting.left = int(number)
        try:
            outcome = original(self, subject, *args)
            if outermost:
                step("answer")
            return outcome
        finally:
            if outermost:
                counting.left = None

    setattr(Answerer, name, method)


def supervise() -> int:
    """Lives one after the other, until one does not die by SIGKILL."""
    wanted: list[int] = []
    child = 0

    def forward(number: int, _frame: object) -> None:
        wanted.append(number)
        if child:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    while not wanted:
        child = os.fork()
        if child == 0:
            main()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
    return 0


if __name__ == "__main__":
    wiring.prepare_for_threads(*wiring.NODE_MODULES)
    for owner, names in STEPS.items():
        for name in names.split():
            counted(owner, name)
    watched("carry_out")
    watched("finish")
    raise SystemExit(supervise())
