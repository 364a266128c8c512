"""What doctor has to know of the daemon before it looks: where its configuration puts everything. I/O: reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import homeport
from homeport.cli import executables
from homeport.daemon import framing, generating, logs, settings
from homeport.daemon.calls import META_PLUGIN
from homeport.daemon.framing import BadFrame
from homeport.daemon.generating import Generation
from homeport.daemon.placing import SOCKET_NAME
from homeport.doctor.facts import Site
from homeport.doctor.findings import Diagnosis, Report, Severity, Sure, Unlooked, report
from homeport.doctor.gathering_files import Tools
from homeport.model.errors import CniError
from homeport.multinet import settings as requests
from homeport.plugins import registry
from homeport.wiring import IN_CLUSTER


def read(config: Path | None, environ: Mapping[str, str]) -> Site:
    """By the file at `config`, or the daemon's usual one. Raises `CniError` where the daemon would not start."""
    found = settings.load(config, environ)
    logs.parse({"logLevel": "verbose", **found.raw})
    generation = generating.parse(found.raw)
    usual = generation or Generation()
    store = "" if found.store == IN_CLUSTER else found.store or environ.get("HOMEPORT_STORE", "")
    return Site(
        node=found.node,
        version=homeport.__version__,
        config_file=str(config or settings.CONFIG_FILE),
        warnings=found.warnings,
        socket=str(found.socket_dir / SOCKET_NAME),
        state_dir=str(found.state_dir),
        cni_dir=requests.cni_dir(found.raw),
        bin_dir=requests.bin_dir(found.raw),
        runtime_dir=usual.config_dir,
        generated=generation.target if generation is not None else "",
        shim=usual.shim_type,
        shim_types=META_PLUGIN | {usual.shim_type},
        readiness_file=usual.readiness_file,
        kubeconfig=found.kubeconfig or "",
        store=store,
        whereabouts_namespace=found.whereabouts_namespace,
        exec_types=frozenset(found.exec_types),
        built_in=frozenset(registry.MODULES),
    )


def broken(config: Path | None, error: CniError) -> Report:
    """Of a node whose daemon cannot start: nothing else can be looked for, as nobody knows where it is."""
    file = str(config or settings.CONFIG_FILE)
    found = Diagnosis(
        id="config-broken",
        severity=Severity.ERROR,
        sure=Sure.CERTAIN,
        place=file,
        found=str(error),
        expected="a configuration as docs/configuration.md has it",
        why="the daemon does not start with it; one that runs goes on with what it had",
        run=(f"cat {file}", "journalctl -u homeportd --since -10min"),
    )
    return report("this node", [found], [Unlooked(place="everything else", why="it is where this file says")])


def _require_del(frame: bytes) -> None:
    call = framing.decode_request(frame)
    if call.command != "DEL":
        raise BadFrame(f"decode request: found {call.command or 'no command'}, expected DEL")


TOOLS = Tools(is_ours=executables.is_ours, require_del=_require_del)
