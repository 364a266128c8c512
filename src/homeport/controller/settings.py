"""What the controller is told: arguments, with the environment behind them. No I/O but reading the namespace's file."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import homeport
from homeport.controller.electing import LeaseSettings
from homeport.controller.ledgering import Keeping
from homeport.controller.operating import FULL_PASS_SECONDS

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_NAMESPACE = "kube-system"
DEFAULT_ADDRESS = "0.0.0.0"  # noqa: S104 -- a pod's own network; the pages tell figures and take nothing
DEFAULT_PORT = 9754


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`kubeconfig` None is the service account of this pod. `port` 0 serves nothing."""

    lease: LeaseSettings
    kubeconfig: str | None = None
    address: str = DEFAULT_ADDRESS
    port: int = DEFAULT_PORT
    full_pass_seconds: float = FULL_PASS_SECONDS
    keeping: Keeping = Keeping()
    log_format: str = "text"


def parse(argv: Sequence[str] | None, environ: Mapping[str, str]) -> ControllerSettings:
    """Ends the process with status 2 for arguments that cannot be right, as argparse does."""
    given = _parser().parse_args(argv)
    return ControllerSettings(
        lease=LeaseSettings(
            namespace=given.namespace or environ.get("POD_NAMESPACE") or _own_namespace(),
            identity=_identity(given.identity or environ.get("POD_NAME") or os.uname().nodename),
            name=given.lease_name,
            duration_seconds=given.lease_seconds,
            renew_seconds=given.lease_seconds * 2 / 3,
            retry_seconds=given.lease_seconds * 2 / 15,
        ),
        kubeconfig=given.kubeconfig or None,
        address=given.address,
        port=given.port,
        full_pass_seconds=given.full_pass_seconds,
        keeping=Keeping(days=given.ledger_days, entries=given.ledger_entries),
        log_format=given.log_format,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeport-controller",
        description="The cluster's controller: reconciles allocations on proof, reserves what maps keep, counts.",
    )
    add = parser.add_argument
    add("--kubeconfig", default="", metavar="FILE", help="by default the service account of this pod")
    add("--namespace", default="", help="of the lease; by default POD_NAMESPACE, this pod's own, or kube-system")
    add("--lease-name", default="homeport-controller", metavar="NAME")
    add("--lease-seconds", type=_seconds, default=15.0, metavar="N", help="until another takes over (default 15)")
    add("--identity", default="", metavar="NAME", help="in the lease; by default POD_NAME or the host's name")
    add("--address", default=DEFAULT_ADDRESS, help=f"to serve on (default {DEFAULT_ADDRESS})")
    add("--port", type=_port, default=DEFAULT_PORT, metavar="N", help=f"default {DEFAULT_PORT}; 0 serves nothing")
    add(
        "--full-pass-seconds", type=_seconds, default=FULL_PASS_SECONDS, metavar="N", help="between looks at everything"
    )
    add("--ledger-days", type=_count, default=30, metavar="N", help="that the ledger is kept (default 30)")
    add("--ledger-entries", type=_count, default=1_000_000, metavar="N", help="that are kept at most (default 1000000)")
    add("--log-format", choices=("text", "json"), default="text")
    add("--version", action="version", version=f"homeport-controller {homeport.__version__}")
    return parser


def _identity(name: str) -> str:
    """Of this process alone: a container that starts anew in its pod is another."""
    return f"{name}_{secrets.token_hex(4)}"


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="ascii").strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds from 1 to 86400")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 at least")
    return count


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 to 65535")
    return port
