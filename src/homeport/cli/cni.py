"""`homeport cni`: a network's verbs for a person, as a runtime would run them.

Container IDs are made as cnitool makes them, and results are cached where libcni does, so that either tool can take
down what the other has put up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from homeport.cli import output, signals

if TYPE_CHECKING:
    from homeport.cni.conflists import ConfList
    from homeport.cni.invocations import Attachment
    from homeport.model.names import AttachmentKey
    from homeport.model.results import Result
    from homeport.ports import Shells
    from homeport.runtime.caching import ResultCache

NETNS_DIR = "/run/netns"  # where ip-netns(8) keeps them
DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_CACHE_DIR = "/var/lib/cni"
DEFAULT_PATH = "/opt/cni/bin:/usr/lib/cni"

app = typer.Typer(
    no_args_is_help=True, help="Attach a network namespace to a CNI network, and the other verbs of the protocol."
)


def _complete_network(ctx: typer.Context, incomplete: str) -> list[str]:
    from homeport.host.files import LocalFiles
    from homeport.model.errors import CniError
    from homeport.runtime import networks

    conf_dir = ctx.params.get("conf_dir") or os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR
    try:
        return [name for name in networks.names(LocalFiles(), conf_dir) if name.startswith(incomplete)]
    except CniError:
        return []


def _complete_netns(incomplete: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(NETNS_DIR) if name.startswith(incomplete))
    except OSError:
        return []


Network = Annotated[
    str,
    typer.Argument(
        help="A network's name, looked up in --conf-dir, or the path of its file.", autocompletion=_complete_network
    ),
]
Netns = Annotated[
    str,
    typer.Argument(help="A network namespace: a path, or a name `ip netns` knows.", autocompletion=_complete_netns),
]
Ifname = Annotated[str, typer.Option(help="The interface's name in the container.", envvar="CNI_IFNAME")]
ContainerID = Annotated[
    str | None, typer.Option(help="The container's ID; made from the namespace's path when not given.")
]
Args = Annotated[
    list[str] | None, typer.Option("--arg", help="An argument KEY=VALUE for the plugins; may be given several times.")
]
CapabilityArgs = Annotated[
    str, typer.Option(help='Capability arguments, a JSON object: {"ips": ["10.0.0.9/24"]}.', envvar="CAP_ARGS")
]
ConfDir = Annotated[str, typer.Option(help="Directory of network configurations.", envvar="NETCONFPATH")]
CacheDir = Annotated[str, typer.Option(help="Directory whose `results` are the cache.")]
BinDir = Annotated[str, typer.Option(help="Directories of plugins, joined by colons.", envvar="CNI_PATH")]
Exec = Annotated[
    list[str] | None,
    typer.Option("--exec", help="Run this plugin from --bin-dir although it is built in; may be given several times."),
]
Timeout = Annotated[float, typer.Option(help="Seconds an executable may take.", min=0.1)]
Form = Annotated[output.Format, typer.Option("-o", "--output", help="How to print.")]

_Table = output.Format.TABLE


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a verb without a result of its own has to say."""

    network: str
    container_id: str = ""
    ifname: str = ""
    status: str


class _Session(msgspec.Struct, frozen=True):
    """What every command works with."""

    network: ConfList
    shells: Shells
    cache: ResultCache
    path: tuple[str, ...]


@app.command()
def add(
    network: Network,
    netns: Netns,
    ifname: Ifname = "eth0",
    container_id: ContainerID = None,
    arg: Args = None,
    capability_args: CapabilityArgs = "",
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Attach the namespace to the network and show what it got."""
    from homeport.runtime import chaining

    session = _open(network, conf_dir, cache_dir, bin_dir, exec_, timeout)
    attachment = _attachment(netns, ifname, container_id, arg, session.path)
    capabilities = _capabilities(capability_args)
    result = chaining.add(
        session.network, attachment, session.shells, cache=session.cache, capability_args=capabilities
    )
    _show_result(form, result, session.network.cni_version)


@app.command("del")
def delete(
    network: Network,
    netns: Netns,
    ifname: Ifname = "eth0",
    container_id: ContainerID = None,
    arg: Args = None,
    capability_args: CapabilityArgs = "",
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Detach the namespace. Arguments not given are those the attachment was made with. Doing it again is no error."""
    from homeport.runtime import chaining

    session = _open(network, conf_dir, cache_dir, bin_dir, exec_, timeout)
    attachment = _attachment(netns, ifname, container_id, arg, session.path)
    attachment, capabilities = _remembered(session, attachment, _capabilities(capability_args))
    chaining.delete(session.network, attachment, session.shells, cache=session.cache, capability_args=capabilities)
    _show_outcome(form, session, attachment, "detached")


@app.command()
def check(
    network: Network,
    netns: Netns,
    ifname: Ifname = "eth0",
    container_id: ContainerID = None,
    arg: Args = None,
    capability_args: CapabilityArgs = "",
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Compare the attachment with what `add` made, and fail where they differ."""
    from homeport.runtime import chaining

    session = _open(network, conf_dir, cache_dir, bin_dir, exec_, timeout)
    attachment = _attachment(netns, ifname, container_id, arg, session.path)
    attachment, capabilities = _remembered(session, attachment, _capabilities(capability_args))
    chaining.check(session.network, attachment, session.shells, cache=session.cache, capability_args=capabilities)
    _show_outcome(form, session, attachment, "not checked" if session.network.disable_check else "as added")


@app.command()
def gc(
    network: Network,
    valid: Annotated[
        list[str] | None,
        typer.Option(help="An attachment that stays, CONTAINER_ID/IFNAME; may be given several times."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Every cached attachment whose namespace still exists stays.")
    ] = False,
    none: Annotated[bool, typer.Option("--none", help="No attachment stays.")] = False,
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Remove the network's attachments but those named, and what their plugins still hold for any other."""
    from homeport.runtime import chaining

    if none == bool(valid or live):
        raise typer.BadParameter("say which attachments stay: --valid CONTAINER_ID/IFNAME, --live, or --none")
    session = _open(network, conf_dir, cache_dir, bin_dir, exec_, timeout)
    keys = _keys(session.network.name, valid or [])
    if live:
        cached, unreadable = session.cache.attachments(session.network.name)
        if unreadable:
            raise unreadable[0]
        exists = session.shells.host.namespace_exists
        keys += [entry.key for entry in cached if entry.netns_path and exists(entry.netns_path)]
    chaining.gc(session.network, keys, session.shells, cache=session.cache, path=session.path)
    _show_outcome(form, session, None, "not collected" if session.network.disable_gc else "collected")


@app.command()
def status(
    network: Network,
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Ask whether the network could serve an `add` now."""
    from homeport.runtime import chaining

    session = _open(network, conf_dir, DEFAULT_CACHE_DIR, bin_dir, exec_, timeout)
    chaining.status(session.network, session.shells, path=session.path)
    _show_outcome(form, session, None, "ready")


@app.command()
def version(
    network: Network,
    conf_dir: ConfDir = DEFAULT_CONF_DIR,
    bin_dir: BinDir = DEFAULT_PATH,
    exec_: Exec = None,
    timeout: Timeout = 60.0,
    form: Form = _Table,
) -> None:
    """Show where each of the network's plugins comes from and the protocol versions it speaks."""
    from homeport.cni.invocations import Attachment
    from homeport.wiring import build_delegates

    session = _open(network, conf_dir, DEFAULT_CACHE_DIR, bin_dir, exec_, timeout)
    delegates = build_delegates(lambda: session.shells, exec_types=exec_ or (), timeout_seconds=timeout)
    nowhere = Attachment(container_id="", ifname="", path=session.path)
    plugins = [
        {
            "type": plugin["type"],
            "source": delegates.source(plugin["type"], session.path),
            "supportedVersions": delegates.supported_versions(plugin["type"], nowhere),
        }
        for plugin in session.network.plugins
    ]
    value = {"network": session.network.name, "cniVersion": session.network.cni_version, "plugins": plugins}
    rows = [(p["type"], p["source"], " ".join(p["supportedVersions"])) for p in plugins]
    output.show(form, value, headers=("plugin", "source", "versions"), rows=rows)


def _open(
    network: str, conf_dir: str, cache_dir: str, bin_dir: str, exec_types: Sequence[str] | None, timeout: float
) -> _Session:
    from homeport.runtime import networks
    from homeport.runtime.caching import ResultCache
    from homeport.wiring import build_shells

    shells = build_shells(
        exec_types=exec_types or (), timeout_seconds=timeout, short_lived=True, interrupt_fd=signals.defer()
    )
    return _Session(
        networks.load(shells.files, network, conf_dir),
        shells,
        ResultCache(cache_dir),
        tuple(part for part in bin_dir.split(":") if part),
    )


def _attachment(
    netns: str, ifname: str, container_id: str | None, arg: Sequence[str] | None, path: tuple[str, ...]
) -> Attachment:
    from homeport.cni import invocations

    netns_path = os.path.abspath(netns) if "/" in netns else f"{NETNS_DIR}/{netns}"
    for pair in arg or ():
        if not pair.partition("=")[0] or "=" not in pair or ";" in pair:
            raise typer.BadParameter(f'--arg "{pair}": expected KEY=VALUE without ";"')
    attachment = invocations.Attachment(
        container_id=container_id or f"cnitool-{hashlib.sha512(os.fsencode(netns_path)).hexdigest()[:20]}",
        ifname=ifname,
        netns_path=netns_path,
        args=invocations.parse_args(";".join(arg or ()) or os.environ.get("CNI_ARGS", "")),
        path=path,
    )
    invocations.require_valid(attachment)
    return attachment


def _capabilities(text: str) -> dict[str, Any]:
    from homeport.cni import documents
    from homeport.model.errors import CniError

    if not text:
        return {}
    try:
        return dict(documents.decode_object(text.encode(errors="replace"), "--capability-args"))
    except CniError as error:
        raise typer.BadParameter(str(error)) from error


def _remembered(
    session: _Session, attachment: Attachment, capabilities: dict[str, Any]
) -> tuple[Attachment, dict[str, Any]]:
    """With the arguments of the cached ADD where none were given; an entry that cannot be read has none to give."""
    from homeport.model.errors import CniError
    from homeport.model.names import AttachmentKey

    key = AttachmentKey(session.network.name, attachment.container_id, attachment.ifname)
    try:
        cached = session.cache.load(key)
    except CniError:
        cached = None
    if cached is None:
        return attachment, capabilities
    args = attachment.args or cached.args
    return msgspec.structs.replace(attachment, args=args), capabilities or dict(cached.capability_args)


def _keys(network: str, texts: Sequence[str]) -> list[AttachmentKey]:
    from homeport.model.names import AttachmentKey

    keys = []
    for text in texts:
        container_id, slash, ifname = text.partition("/")
        if not (container_id and slash and ifname):
            raise typer.BadParameter(f'--valid "{text}": expected CONTAINER_ID/IFNAME')
        keys.append(AttachmentKey(network, container_id, ifname))
    return keys


def _show_outcome(form: output.Format, session: _Session, attachment: Attachment | None, status: str) -> None:
    outcome = Outcome(
        network=session.network.name,
        container_id=attachment.container_id if attachment else "",
        ifname=attachment.ifname if attachment else "",
        status=status,
    )
    columns = ("network", "container_id", "ifname", "status") if attachment else ("network", "status")
    row = [getattr(outcome, column) for column in columns]
    headers = [{"container_id": "container", "ifname": "interface"}.get(column, column) for column in columns]
    output.show(form, outcome, headers=headers, rows=[row])


def _show_result(form: output.Format, result: Result, version: str) -> None:
    from homeport.cni import versions

    match form:
        case output.Format.JSON:
            typer.echo(output.json(versions.encode_result(result, version)))
        case output.Format.YAML:
            typer.echo(output.yaml(versions.encode_result(result, version)))
        case output.Format.NAME:
            for ip in result.ips:
                typer.echo(str(ip.address.ip))
        case _:
            typer.echo("\n\n".join(_tables(result)))


def _tables(result: Result) -> list[str]:
    """Interfaces with their addresses, one row an address; then routes and resolver settings where there are any."""
    loose = [ip for ip in result.ips if ip.interface is None or ip.interface >= len(result.interfaces)]
    rows = []
    for n, interface in enumerate(result.interfaces):
        where = (interface.name, interface.sandbox or "host", interface.mac or "")
        ips = [ip for ip in result.ips if ip.interface == n]
        rows += [(*where, str(ip.address), str(ip.gateway or "")) for ip in ips] or [(*where, "", "")]
    rows += [("", "", "", str(ip.address), str(ip.gateway or "")) for ip in loose]
    tables = [output.table(("interface", "netns", "mac", "address", "gateway"), rows)]
    if result.routes:
        routes = [(str(r.dst), str(r.gw or ""), str(r.table if r.table is not None else "main")) for r in result.routes]
        tables.append(output.table(("route", "gateway", "table"), routes))
    if result.dns:
        dns = result.dns
        settings = [(" ".join(dns.nameservers), dns.domain, " ".join(dns.search), " ".join(dns.options))]
        tables.append(output.table(("nameservers", "domain", "search", "options"), settings))
    return tables
