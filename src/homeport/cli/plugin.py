"""What a standalone plugin executable runs: one CNI call, from the environment and stdin to stdout.

CNI SPEC 1.1.0 §2 and §5. Checks come in the order of the Go library: variables, stdin, name, versions; but the
plugin's own namespace is refused before anything is done in it. Imports are few: a runtime starts a process a call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from homeport.cli import signals
from homeport.cni import documents, invocations, netconfs, versions
from homeport.cni.invocations import Invocation
from homeport.cni.netconfs import NetConf
from homeport.model.errors import CniError, InternalError, IOFailure, PluginNotFound, TryAgainLater
from homeport.plugins import registry
from homeport.runtime import calling


def main(plugin_type: str) -> NoReturn:
    """The executable of this type: exits 0 on success, 1 with a CNI error object on stdout otherwise."""
    if sys.stderr is None:  # closed from the start
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # stays open as long as the process
    code = _run(plugin_type, os.environ, signals.defer())
    sys.stderr.flush()
    os._exit(code)  # taking the interpreter down in good order costs a runtime a sixth of the call


def _run(plugin_type: str, environ: Mapping[str, str], interrupt_fd: int) -> int:
    if not environ.get("CNI_COMMAND"):
        print(_about(plugin_type), file=sys.stderr)
        return 0
    version = ""
    try:
        invocation = invocations.parse_environment(environ)
        if invocation.command == "VERSION":
            return _print(msgspec.json.encode(versions.version_info()) + b"\n")
        conf = netconfs.parse(_read_stdin(), command=invocation.command)
        version = conf.cni_version
        return _print(_answer(plugin_type, conf, invocation, environ, interrupt_fd))
    except CniError as e:
        error = e
    except (KeyboardInterrupt, SystemExit):
        error = TryAgainLater(f'plugin "{plugin_type}": stopped by a signal')
    except Exception as e:  # noqa: BLE001  # the outermost edge: even a bug answers in CNI's form
        error = _internal(plugin_type, e, environ)
    _print(documents.write(versions.encode_error(error, version)))
    return 1


def _answer(
    plugin_type: str, conf: NetConf, invocation: Invocation, environ: Mapping[str, str], interrupt_fd: int
) -> bytes:
    """Runs the verb; what goes to stdout."""
    plugin = registry.find(plugin_type)
    if plugin is None:
        raise PluginNotFound(f'plugin "{plugin_type}": not built in, expected one of {", ".join(registry.MODULES)}')
    calling.refuse_own_namespace(invocation)

    from homeport.wiring import build_shells

    shells = build_shells(environ=environ, short_lived=True, interrupt_fd=interrupt_fd)
    result = calling.call(plugin, conf, invocation, shells)
    return b"" if result is None else documents.write(versions.encode_result(result, conf.cni_version))


def _read_stdin() -> bytes:
    if sys.stdin is None:  # closed from the start: descriptor 0 may be a socket of ours by now
        raise IOFailure("read network configuration from stdin: it is closed")
    try:
        with open(0, "rb", closefd=False) as stdin:
            return stdin.read(documents.MAX_BYTES + 1)
    except OSError as e:
        raise IOFailure(f"read network configuration from stdin: {os.strerror(e.errno or 0)}") from e


def _print(answer: bytes) -> int:
    """Writes to stdout; the exit code. A runtime that no longer listens will send a DEL."""
    if sys.stdout is None:
        print("write to stdout: it is closed", file=sys.stderr)
        return 1
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(answer)
    except OSError as e:
        print(f"write to stdout: {os.strerror(e.errno or 0)}", file=sys.stderr)
        return 1
    return 0


def _internal(plugin_type: str, error: Exception, environ: Mapping[str, str]) -> InternalError:
    msg = f'plugin "{plugin_type}": unexpected {type(error).__name__}: {error}'
    if not environ.get("HOMEPORT_DEBUG"):
        return InternalError(msg, "set HOMEPORT_DEBUG=1 for the traceback")
    import traceback

    return InternalError(msg, "".join(traceback.format_exception(error)))


def _about(plugin_type: str) -> str:
    import homeport

    return (
        f"CNI plugin {plugin_type} of Homeport {homeport.__version__}\n"
        f"CNI protocol versions supported: {', '.join(versions.SUPPORTED_VERSIONS)}"
    )
