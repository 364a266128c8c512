"""Runs `homeport` commands in children of one warm process, for a command a test costs milliseconds so.

A program: one JSON object a line in (argv, env, stdin, kill_at), and one out (code, stdout, stderr). Each child
is what a shell would have started, but for the interpreter's start and the imports. With a `kill_at` other than 0
the child kills itself before its step of that number, and names the step on stderr.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import typer.main

import homeport.lab.converging  # the imports a command would do
import homeport.lab.pings
import homeport.plugins.macvlan
import homeport.plugins.sbr
import homeport.plugins.whereabouts  # noqa: F401 -- imported for their time alone
from homeport.cli.main import main
from homeport.host.kernel import Kernel
from homeport.lab.storing import State
from homeport.runtime.caching import ResultCache
from homeport.stores.sqlite import SqliteStore

STEPS: Mapping[type, str] = {
    Kernel: "create_namespace delete_namespace create_macvlan create_ipvlan create_veth create_bridge delete_links "
    "set_link add_address delete_address add_route delete_route add_rule delete_rule write_sysctl announce",
    SqliteStore: "create replace delete",
    ResultCache: "save forget",
    State: "put remove",
}
"""Everything a command does to the kernel, to allocations and to files."""


def kill_at(number: int) -> None:
    """Before this process's step of that number, counted from 1, it dies."""
    steps, lock = itertools.count(1), threading.Lock()

    def dying(cls: type, name: str) -> Callable[..., object]:
        original = getattr(cls, name)

        def step(*args: object, **kwargs: object) -> object:
            with lock:
                if next(steps) == number:
                    os.write(2, f"{cls.__name__}.{name}".encode())
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return step

    for cls, names in STEPS.items():
        for name in names.split():
            setattr(cls, name, dying(cls, name))


def child(request: dict[str, Any], stdin: int, stdout: int, stderr: int) -> None:
    os.environ.update(request["env"])
    for ours, its in enumerate((stdin, stdout, stderr)):
        os.dup2(its, ours)
    sys.stdin = os.fdopen(0)
    faulthandler.enable(2)
    if request["kill_at"]:
        kill_at(request["kill_at"])
    sys.argv = ["homeport", *request["argv"]]
    code = 70
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 -- the edge of the child: a bug is what the test is to see
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def warm_up() -> None:
    """Runs a command that finds nothing to do: what it imports, and the tree of commands, the children have."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        sys.argv = ["homeport", "lab", "events", "--lab", "nowhere"]
        main()


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        with (
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            stdin.write(request["stdin"].encode())
            stdin.seek(0)
            pid = os.fork()
            if pid == 0:
                child(request, stdin.fileno(), stdout.fileno(), stderr.fileno())
            _, status = os.waitpid(pid, 0)
            stdout.seek(0)
            stderr.seek(0)
            answer = {
                "code": os.waitstatus_to_exitcode(status),
                "stdout": stdout.read().decode(),
                "stderr": stderr.read().decode(),
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
