"""`homeport-controller` under a supervisor that starts it again at once, and with a wish to die at a write.

A program; its arguments are homeport-controller's. When the file that HOMEPORT_TEST_DEATH names holds "before N" or
"after N", the controller kills itself before or after its Nth write from then on, of any kind but for renewals of its
lease; "before N RESOURCE" counts the writes of that one. The file is removed then, and what it was about to write added
to the file of that name with `.writes`.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from homeport import wiring
from homeport.controller.process import main
from homeport.kube.objects import KubernetesObjects
from homeport.kube.resources import LEASES
from homeport.ports import Resource

WISH = Path(os.environ["HOMEPORT_TEST_DEATH"])
WRITES = ("create", "patch", "patch_json", "delete")
lock = threading.Lock()
left: dict[str, int] = {}  # of each wish


def counted(verb: str) -> None:
    original: Callable[..., Any] = getattr(KubernetesObjects, verb)

    @functools.wraps(original)
    def method(self: KubernetesObjects, resource: Resource, *args: Any, **kwargs: Any) -> Any:
        wish = WISH.read_text() if resource != LEASES and WISH.exists() else ""
        when = due(wish, resource.plural) if wish else ""
        what = f"{verb} {resource.plural} {args[0] if isinstance(args[0], str) else name_of(args[0])}"
        if when == "before":
            die(what)
        try:
            return original(self, resource, *args, **kwargs)
        finally:  # also after one that was refused
            if when == "after":
                die(what)

    setattr(KubernetesObjects, verb, method)


def due(wish: str, resource: str) -> str:
    """When this write is to be the last one, if it is."""
    when, number, *only = wish.split()
    if only and resource not in only:
        return ""
    with lock:
        left[wish] = left.get(wish, int(number)) - 1
        return when if left[wish] == 0 else ""


def name_of(body: Mapping[str, Any]) -> str:
    return str(body["metadata"].get("name", ""))


def die(what: str) -> None:
    with WISH.with_suffix(".writes").open("a") as writes:
        writes.write(f"{what}\n")
    WISH.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def supervise() -> None:
    """Lives one after the other, each a fork of this warm process, until it is told to end."""
    child = 0

    def end(_number: int, _frame: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            main()
        os.waitpid(child, 0)


if __name__ == "__main__":
    wiring.prepare_for_threads("homeport.kube.client", "homeport.kube.objects", "homeport.stores.kubernetes.store")
    for verb in WRITES:
        counted(verb)
    supervise()
