"""Nothing outlives the process that made it, even one that is killed. I/O: a shell at the end of a pipe.

The shell waits for the end of its standard input, which comes when the owner dies, however it dies. Then it runs what
it was told, the last told first, and kills its process group, which the owner's servers are in.
"""

from __future__ import annotations

import shlex
import subprocess

_SCRIPT = """
todo=
while IFS= read -r line; do todo="$line
$todo"; done
eval "$todo" >/dev/null 2>&1
kill -KILL 0
"""


class Guard:
    """`group` is the process group that dies with the owner."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(["sh", "-c", _SCRIPT], stdin=subprocess.PIPE, process_group=0)

    @property
    def group(self) -> int:
        return self._shell.pid

    def on_death(self, *argv: str) -> None:
        """A command to run when the owner dies; it must do no harm when its work is done already."""
        assert self._shell.stdin
        self._shell.stdin.write(f"{shlex.join(argv)}\n".encode())
        self._shell.stdin.flush()

    def dismiss(self) -> None:
        """All is cleaned up: nothing is left to be done."""
        self._shell.kill()
        self._shell.wait()
        assert self._shell.stdin
        self._shell.stdin.close()
