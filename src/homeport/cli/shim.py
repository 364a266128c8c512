"""The shim in Python, for a machine without a C compiler: hands a CNI call to homeportd and prints the answer.

I/O: environment, stdin, stdout, a unix socket; a file in the journal directory when a DEL finds no daemon. It does what
`shim/homeport-shim.c` does, to the byte, and one test suite holds both to it; `docs/shim.md` has the protocol.

A runtime starts a process a call, so nothing is imported that can be done without. `_socket` is
CPython's own C module; what the module `socket` puts around it takes half as long to load as the interpreter to start.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import sys
import time

import homeport

_MAGIC = b"HPR1"
_HEADER_SIZE = 12
_ENV_MAX = 256 * 1024
_STDIN_MAX = 4 * 1024 * 1024
_STDOUT_MAX = 4 * 1024 * 1024
_SHOWN_MAX = 256  # bytes of a value that a message quotes
_SOCKET_PATH_MAX = 107
_CONTAINER_ID_MAX = 218  # what a file name has room for, beside interface, random part and ends
_IFNAME_MAX = 15
_PIECE = 65536  # bytes of one read
_PIPE_BUF = 4096
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.1
_PRINTING_SECONDS = 5.0  # how long a runtime that does not read its pipe is waited for
_INVALID_ENVIRONMENT, _IO_FAILURE, _DECODE_FAILURE, _TRY_AGAIN_LATER = 4, 5, 6, 11

_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
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


class _Failure(Exception):
    """What becomes the CNI error object."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


class _Missing(Exception):
    """Nobody read the request to its end, so it was not carried out: another try is harmless. `number` is an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Settings:
    """Where a call goes and how long it may take; the texts are the variables' own, for messages."""

    def __init__(self) -> None:
        self.socket_path = _variable(b"HOMEPORT_SOCKET", b"/run/homeport/homeport.sock")
        self.journal = _variable(b"HOMEPORT_JOURNAL", b"/var/lib/homeport/journal")
        if len(self.socket_path) > _SOCKET_PATH_MAX:
            raise _Failure(
                _INVALID_ENVIRONMENT,
                f"HOMEPORT_SOCKET: found a path of {len(self.socket_path)} bytes, expected at most {_SOCKET_PATH_MAX}",
            )
        self.connect_text, self.connect_seconds = _seconds(b"HOMEPORT_CONNECT_SECONDS", b"5", least=0)
        self.timeout_text, self.timeout_seconds = _seconds(b"HOMEPORT_TIMEOUT_SECONDS", b"90", least=0.001)
        self.deadline = time.monotonic() + self.timeout_seconds

    def at_socket(self, words: str) -> str:
        return words + _shown(self.socket_path)

    def late(self) -> _Failure:
        at = self.at_socket("call homeportd at ")
        return _Failure(_TRY_AGAIN_LATER, f"{at}: found no answer within {self.timeout_text} s")


def main() -> None:
    """Ends the process: with the daemon's exit code, or 1 and a CNI error object on stdout."""
    _occupy_closed_descriptors()
    try:
        code = _run(sys.argv, os.environb)
    except KeyboardInterrupt:
        code = 130
    os._exit(code)  # nothing is buffered, and taking the interpreter down in good order takes time


def _run(argv: list[str], environ: os._Environ[bytes]) -> int:
    path, command = os.fsencode(argv[0]), _variable(b"CNI_COMMAND", b"")
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
        settings = _Settings()
        env = _packed(environ, _plugin_name(path))
        stdin = _read_stdin(settings)
        frame = _MAGIC + len(env).to_bytes(4, "big") + len(stdin).to_bytes(4, "big") + env + stdin
        try:
            code, answer = _call_daemon(settings, frame)
        except _Failure as failure:
            if failure.code != _TRY_AGAIN_LATER or command != b"DEL":
                raise
            _keep_for_later(settings, frame, failure)
            return 0
    except _Failure as failure:
        _print(_error_object(failure, _find_version(stdin)))
        return 1
    return code if _print(answer) else 1


# --- variables --------------------------------------------------------------------------------------------------------


def _variable(name: bytes, otherwise: bytes) -> bytes:
    """An empty variable counts as absent."""
    return os.environb.get(name) or otherwise


def _seconds(name: bytes, otherwise: bytes, *, least: float) -> tuple[str, float]:
    """Digits, and a fraction of up to three digits: the text and its value."""
    text = _variable(name, otherwise)
    whole, dot, fraction = text.partition(b".")
    is_number = whole.isdigit() and len(whole.lstrip(b"0")) <= 6
    if is_number and (not dot or (fraction.isdigit() and len(fraction) <= 3)) and float(text) >= least:
        return text.decode(), float(text)
    expected = "seconds such as 0.5 or 90, above 0" if least else "seconds such as 0, 0.5 or 90"
    raise _Failure(_INVALID_ENVIRONMENT, f"{name.decode()}: found {_shown(text)}, expected {expected}")


def _packed(environ: os._Environ[bytes], plugin: bytes) -> bytes:
    r"""`KEY=VALUE\0` of each CNI_ variable, then of HOMEPORT_PLUGIN."""
    pairs = [(key, value) for key, value in environ.items() if key.startswith(b"CNI_")]
    env = b"".join(b"%b=%b\0" % pair for pair in [*pairs, (b"HOMEPORT_PLUGIN", plugin)])
    if len(env) > _ENV_MAX:
        raise _Failure(_INVALID_ENVIRONMENT, f"CNI variables: found more than {_ENV_MAX} bytes, expected at most that")
    return env


def _plugin_name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2] or b"homeport"


# --- stdin and stdout -------------------------------------------------------------------------------------------------


def _occupy_closed_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to our socket; one open on nothing but a path refuses reads and writes too."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open("/", os.O_PATH)


def _wait_for(descriptor: int, events: int, deadline: float) -> bool:
    """Until the descriptor is ready or broken, which the read or write that follows tells; false at the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(left * 1000))


def _read_stdin(settings: _Settings) -> bytes:
    what = "read network configuration from stdin"
    pieces: list[bytes] = []
    size = 0
    while True:
        if not _wait_for(0, select.POLLIN, settings.deadline):
            raise _Failure(_IO_FAILURE, f"{what}: found no end within {settings.timeout_text} s")
        try:
            piece = os.read(0, _PIECE)
        except BlockingIOError:
            continue
        except OSError as e:
            raise _Failure(_IO_FAILURE, f"{what}: {_strerror(e.errno)}") from e
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > _STDIN_MAX:
            raise _Failure(_DECODE_FAILURE, f"{what}: found more than {_STDIN_MAX} bytes, expected at most that")


def _print_own(text: str) -> int:
    return 0 if _print(text.encode()) else 1


def _print(answer: bytes) -> bool:
    """A pipe that is ready takes PIPE_BUF bytes without blocking (pipe(7)), so no more are written at once."""
    deadline = time.monotonic() + _PRINTING_SECONDS
    left = memoryview(answer)
    while left:
        try:
            if not _wait_for(1, select.POLLOUT, deadline):
                raise TimeoutError(errno.ETIMEDOUT, "")
            left = left[os.write(1, left[:_PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except OSError as e:
            _complain(f"write to stdout: {_strerror(e.errno)}\n")
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
    name = plugin[:_SHOWN_MAX].decode(errors="replace")
    _complain(
        f"CNI plugin {name} of Homeport {homeport.__version__}, carried out by homeportd\n"
        f"CNI protocol versions supported: {', '.join(_VERSIONS)}\n"
    )


# --- the daemon -------------------------------------------------------------------------------------------------------


def _call_daemon(settings: _Settings, frame: bytes) -> tuple[int, bytes]:
    """Exit code and answer; a missing daemon is tried again until it has been missing for `connect_seconds`."""
    missing_until = None
    step = _FIRST_PAUSE_SECONDS
    while True:
        try:
            peer = _connect(settings)
            try:
                return _exchange(peer, settings, frame)
            finally:
                peer.close()
        except _Missing as missing:
            now = time.monotonic()
            missing_until = now + settings.connect_seconds if missing_until is None else missing_until
            until = min(missing_until, settings.deadline)
            if now >= until:
                at = settings.at_socket("connect to homeportd at ")
                reason = f"found nobody for {settings.connect_text} s: {_strerror(missing.number)}"
                raise _Failure(_TRY_AGAIN_LATER, f"{at}: {reason}") from missing
        time.sleep(min(step, until - now))
        step = min(step * 2, _LONGEST_PAUSE_SECONDS)


def _connect(settings: _Settings) -> _socket.socket:
    """One try, which waits only while the daemon's queue is full."""
    import struct

    left = settings.deadline - time.monotonic()
    if left <= 0:
        raise settings.late()
    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        patience = struct.pack("ll", int(left), int(left % 1 * 1_000_000) or 1)
        peer.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, patience)
        peer.connect(settings.socket_path)
    except OSError as e:
        peer.close()
        if e.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise _Missing(e.errno) from e
        if e.errno == errno.EAGAIN:
            raise settings.late() from e
        at = settings.at_socket("connect to homeportd at ")
        raise _Failure(_IO_FAILURE, f"{at}: {_strerror(e.errno)}") from e
    return peer


def _exchange(peer: _socket.socket, settings: _Settings, frame: bytes) -> tuple[int, bytes]:
    has_request = _send(peer, settings, frame)
    header = _receive(peer, settings, _HEADER_SIZE, may_be_missing=True, has_request=has_request)
    code, size = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:], "big")
    wrong = ""
    if header[:4] != _MAGIC:
        wrong = f"found {_shown(header[:4])}, expected {_shown(_MAGIC)}"
    elif code > 255:
        wrong = f"found exit code {code}, expected at most 255"
    elif size > _STDOUT_MAX:
        wrong = f"found a length of {size} bytes, expected at most {_STDOUT_MAX}"
    if wrong:
        raise _Failure(_TRY_AGAIN_LATER, f"{settings.at_socket('read the answer of homeportd at ')}: {wrong}")
    return code, _receive(peer, settings, size, may_be_missing=False, has_request=has_request)


def _send(peer: _socket.socket, settings: _Settings, frame: bytes) -> bool:
    """Whether all was sent. A peer that hung up early may still have said why: the answer is read in any case."""
    left = memoryview(frame)
    while left:
        try:
            left = left[peer.send(left, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            if not _wait_for(peer.fileno(), select.POLLOUT, settings.deadline):
                raise settings.late() from None
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as e:
            at = settings.at_socket("send the request to homeportd at ")
            raise _Failure(_TRY_AGAIN_LATER, f"{at}: {_strerror(e.errno)}") from e
    return True


def _receive(peer: _socket.socket, settings: _Settings, size: int, *, may_be_missing: bool, has_request: bool) -> bytes:
    """Exactly `size` bytes."""
    pieces: list[bytes] = []
    got = 0
    while got < size:
        if not _wait_for(peer.fileno(), select.POLLIN, settings.deadline):
            raise settings.late()
        left_unread = not has_request
        try:
            piece = peer.recv(min(size - got, _PIECE), _socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError as e:
            piece = b""
            # Linux says ECONNRESET exactly when the peer left bytes of ours unread (unix_release_sock).
            left_unread = left_unread or e.errno == errno.ECONNRESET
        if not piece and left_unread and may_be_missing and not got:
            raise _Missing(errno.ECONNRESET)
        if not piece:
            at = settings.at_socket("read the answer of homeportd at ")
            raise _Failure(_TRY_AGAIN_LATER, f"{at}: found its end after {got} bytes, expected {size}")
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


# --- the journal ------------------------------------------------------------------------------------------------------


def _keep_for_later(settings: _Settings, frame: bytes, failure: _Failure) -> None:
    """Keeps a DEL that the daemon did not answer; `failure` says why it did not."""
    container_id, ifname = _variable(b"CNI_CONTAINERID", b""), _variable(b"CNI_IFNAME", b"")
    if wrong := _unfit(container_id, ifname):
        raise _Failure(_INVALID_ENVIRONMENT, wrong, failure.msg)
    random = os.urandom(8).hex().encode()
    at = _shown(settings.journal)
    try:
        with _Step("open"):
            directory = os.open(settings.journal, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _store(directory, b".tmp-" + random, b"%b-%b-%b.del" % (container_id, ifname, random), frame)
        finally:
            os.close(directory)
    except _StepFailed as e:
        details = f"keep the DEL in {at}: {e.step}: {_strerror(e.number)}"
        raise _Failure(_TRY_AGAIN_LATER, failure.msg, details) from e
    _complain(f"{failure.msg}; kept the DEL in {at}\n")


def _unfit(container_id: bytes, ifname: bytes) -> str:
    """What keeps the two from being part of a file's name, or nothing."""
    # CNI SPEC 1.1.0 §2: "must start with an alphanumeric character, optionally followed by any combination of one or
    # more alphanumeric characters, underscore (), dot (.) or hyphen (-)"; and no longer than a file's name allows.
    fits = 0 < len(container_id) <= _CONTAINER_ID_MAX and container_id[0] in _WORD
    if not fits or not _WORD.issuperset(container_id.translate(None, b"_.-")):
        return (
            f"CNI_CONTAINERID: found {_shown(container_id)}, expected a letter or digit, then letters, digits, "
            f'"_", "." or "-", at most {_CONTAINER_ID_MAX}'
        )
    # What the kernel takes as a link's name, less what is not ASCII.
    fits = 0 < len(ifname) <= _IFNAME_MAX and ifname not in (b".", b"..")
    if not fits or any(not 0x20 < byte < 0x7F or byte in b"/:" for byte in ifname):
        return (
            f"CNI_IFNAME: found {_shown(ifname)}, "
            'expected 1 to 15 ASCII characters without "/", ":" or blanks, and not "." or ".."'
        )
    return ""


def _store(directory: int, temporary: bytes, name: bytes, frame: bytes) -> None:
    """Whole or not at all: a signal in between would leave the temporary file, so signals wait."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        with _Step("create a file"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            _write(descriptor, frame)
            with _Step("rename"):
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except _StepFailed:
            os.unlink(temporary, dir_fd=directory)
            raise
        with _Step("fsync the directory"):
            os.fsync(directory)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write(descriptor: int, frame: bytes) -> None:
    left = memoryview(frame)
    try:
        with _Step("write"):
            while left:
                left = left[os.write(descriptor, left) :]
        with _Step("fsync"):
            os.fsync(descriptor)
    finally:
        with _Step("close"):
            os.close(descriptor)


class _StepFailed(Exception):
    """An OSError, and what was being done; `number` is its errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


class _Step:
    """Turns the OSErrors of a block into `_StepFailed`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise _StepFailed(self._name, error.errno or 0) from error


# --- texts ------------------------------------------------------------------------------------------------------------


def _shown(value: bytes) -> str:
    """A value of somebody else's, in quotation marks, cut when long; what is not UTF-8 becomes U+FFFD."""
    return f'"{value[:_SHOWN_MAX].decode(errors="replace")}{"..." if len(value) > _SHOWN_MAX else ""}"'


def _strerror(number: int | None) -> str:
    return "it is closed" if number == errno.EBADF else os.strerror(number or 0)


def _error_object(failure: _Failure, version: str) -> bytes:
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
    value = re.compile(rb'[ \t\n\r]*:[ \t\n\r]*(?:"((?:[^"\\]|\\.)*)")?', re.DOTALL)
    for token in re.finditer(rb'[{}\[\]]|"(?:[^"\\]++|\\.)*+"?', json, re.DOTALL):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth = max(depth - 1, 0)
        elif token[0] == b'"cniVersion"' and depth == 1 and (found := value.match(json, token.end())):
            text = found[1] or b""
            return text.decode() if re.fullmatch(rb"[0-9.]{1,16}", text) else ""
    return ""
