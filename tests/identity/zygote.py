"""Runs `homeport` commands in children of one warm process, for a command a test costs milliseconds so.

A program: one JSON object a line in, `{"argv", "env", "stdin"}`, and one out, `{"code", "stdout", "stderr"}`.
Each child is what a shell would have started, but for the interpreter's start and the imports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from typing import Any

import homeport.lab.converging  # the imports a command would do
import homeport.lab.pings
import homeport.plugins.macvlan
import homeport.plugins.sbr
import homeport.plugins.whereabouts
import homeport.stores.sqlite  # noqa: F401 -- imported for its time alone
from homeport.cli.main import main


def child(request: dict[str, Any], stdin: int, stdout: int, stderr: int) -> None:
    os.environ.update(request["env"])
    for ours, its in enumerate((stdin, stdout, stderr)):
        os.dup2(its, ours)
    sys.stdin = os.fdopen(0)
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


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
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
