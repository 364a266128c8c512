"""The shim in Python, for a machine without a C compiler: hands a CNI call to homeportd and prints the answer.

I/O: environment, stdin, stdout, a unix socket; a file in the journal directory when a DEL finds no daemon. It does what
`shim/homeport-shim.c` does, to the byte, and one test suite holds both to it; `docs/shim.md` has the protocol.

A runtime starts a process a call, so nothing is imported that can be done without.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

import homeport
from homeport.cli.shim_calling import MAGIC, call_daemon
from homeport.cli.shim_settings import (
    DECODE_FAILURE,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    TRY_AGAIN_LATER,
    Failure,
    Settings,
    strerror,
    variable,
    wait_for,
)

_ENV_MAX = 256 * 1024
_STDIN_MAX = 4 * 1024 * 1024
_NAME_SHOWN_MAX = 256  # bytes
_PIECE = 65536  # bytes of one read
_PIPE_BUF = 4096
_PRINTING_SECONDS = 5.0  # how long a runtime that does not read its pipe is waited for

_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_ESCAPES = {byte: f"\\u{byte:04x}" for byte in range(0x20)} | {
    ord(char): "\\" + escape for char, escape in zip('"\\\b\f\n\r\t', '"\\bfnrt', strict=True)
}
_USAGE = """\
usage: homeport-shim [--help | --version]

homeport-shim: hands a CNI call (CNI_* variables and stdin) to homeportd and prints the answer.
The name it is started by is the plugin that homeportd runs; homeport and multus are the meta-plugin.

  HOMEPORT_SOCKET           socket of homeportd (/run/homeport/homeport.sock)
  HOMEPORT_JOURNAL          where a DEL is kept while homeportd is away (/var/lib/homeport/journal)
  HOMEPORT_CONNECT_SECONDS  how long to wait for a missing homeportd (5)
  HOMEPORT_TIMEOUT_SECONDS  how long the whole call may take (90)
"""


def main() -> None:
    """Ends the process: with the daemon's exit code, or 1 and a CNI error object on stdout."""
    _occupy_closed_descriptors()
    try:
        code = _run(sys.argv, os.environb)
    except KeyboardInterrupt:
        code = 130
    os._exit(code)  # nothing is buffered, and taking the interpreter down in good order takes time


def _run(argv: list[str], environ: os._Environ[bytes]) -> int:
    """The exit code."""
    path, command = os.fsencode(argv[0]), variable(b"CNI_COMMAND", b"")
    if argv[1:2] == ["--version"]:
        return _print_own(f"homeport-shim {homeport.__version__}\n")
    if argv[1:2] == ["--help"]:
        return _print_own(_USAGE)
    if not command:
        _introduce(_plugin_name(path))
        return 0
    if command == b"VERSION":
        supported = ",".join(f'"{version}"' for version in _VERSIONS)
        return _print_own(f'{{"cniVersion":"{_VERSIONS[-1]}","supportedVersions":[{supported}]}}\n')
    stdin = b""
    try:
        settings = Settings()
        env = _packed(environ, _plugin_name(path))
        stdin = _read_stdin(settings)
        frame = MAGIC + len(env).to_bytes(4, "big") + len(stdin).to_bytes(4, "big") + env + stdin
        code, answer = _answer(settings, frame, command)
    except Failure as failure:
        code, answer = 1, _error_object(failure, _find_version(stdin))
    return code if _print(answer) else 1


def _answer(settings: Settings, frame: bytes, command: bytes) -> tuple[int, bytes]:
    try:
        return call_daemon(settings, frame)
    except Failure as failure:
        if failure.code != TRY_AGAIN_LATER or command != b"DEL":
            raise
        from homeport.cli.shim_keeping import keep_for_later

        _complain(keep_for_later(settings, frame, failure))
        return 0, b""


def _packed(environ: os._Environ[bytes], plugin: bytes) -> bytes:
    r"""`KEY=VALUE\0` of each CNI_ variable, then of HOMEPORT_PLUGIN."""
    pairs = [(key, value) for key, value in environ.items() if key.startswith(b"CNI_")]
    env = b"".join(b"%b=%b\0" % pair for pair in [*pairs, (b"HOMEPORT_PLUGIN", plugin)])
    if len(env) > _ENV_MAX:
        raise Failure(INVALID_ENVIRONMENT, f"CNI variables: found more than {_ENV_MAX} bytes, expected at most that")
    return env


def _plugin_name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2] or b"homeport"


def _occupy_closed_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to our socket; one open on nothing but a path refuses reads and writes too."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open("/", os.O_PATH)


def _read_stdin(settings: Settings) -> bytes:
    what = "read network configuration from stdin"
    pieces: list[bytes] = []
    size = 0
    while True:
        if not wait_for(0, select.POLLIN, settings.deadline):
            raise Failure(IO_FAILURE, f"{what}: found no end within {settings.timeout_text} s")
        try:
            piece = os.read(0, _PIECE)
        except BlockingIOError:
            continue
        except OSError as e:
            raise Failure(IO_FAILURE, f"{what}: {strerror(e.errno)}") from e
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > _STDIN_MAX:
            raise Failure(DECODE_FAILURE, f"{what}: found more than {_STDIN_MAX} bytes, expected at most that")


def _print_own(text: str) -> int:
    return 0 if _print(text.encode()) else 1


def _print(answer: bytes) -> bool:
    """A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)), so no more are written at once."""
    deadline = time.monotonic() + _PRINTING_SECONDS
    left = memoryview(answer)
    while left:
        try:
            if not wait_for(1, select.POLLOUT, deadline):
                raise TimeoutError(errno.ETIMEDOUT, "")
            left = left[os.write(1, left[:_PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except OSError as e:
            _complain(f"write to stdout: {strerror(e.errno)}\n")
            return False
    return True


def _complain(text: str) -> None:
    """What no longer fits into stderr's pipe is lost: nobody reads it."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if poll.poll(0):
        try:
            os.write(2, text.encode())
        except OSError:
            return


def _introduce(plugin: bytes) -> None:
    name = plugin[:_NAME_SHOWN_MAX].decode(errors="replace")
    _complain(
        f"CNI plugin {name} of Homeport {homeport.__version__}, carried out by homeportd\n"
        f"CNI protocol versions supported: {', '.join(_VERSIONS)}\n"
    )


def _error_object(failure: Failure, version: str) -> bytes:
    """CNI SPEC 1.1.0 §5 "Error", in the form all executables of ours print."""
    lines = [f'"cniVersion": {_quoted(version)}'] if version else []
    lines += [f'"code": {failure.code}', f'"msg": {_quoted(failure.msg)}']
    lines += [f'"details": {_quoted(failure.details)}'] if failure.details else []
    return ("{\n    " + ",\n    ".join(lines) + "\n}").encode()


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'


def _find_version(json: bytes) -> str:
    """The value of the outermost object's "cniVersion", or nothing when there is none that looks like a version.

    Knows strings and brackets only: the text may be anything, and the daemon is the one that parses it.
    """
    import re

    depth = 0
    value = re.compile(rb'[ \t\n\r]*:[ \t\n\r]*(?:"((?:[^"\\]++|\\.)*+)")?', re.DOTALL)
    for token in re.finditer(rb'[{}\[\]]|"(?:[^"\\]++|\\.)*+"?', json, re.DOTALL):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth = max(depth - 1, 0)
        elif token[0] == b'"cniVersion"' and depth == 1 and (found := value.match(json, token.end())):
            text = found[1] or b""
            return text.decode() if re.fullmatch(rb"[0-9.]{1,16}", text) else ""
    return ""
