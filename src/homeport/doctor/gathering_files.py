"""A node's files, programs and processes, read and nothing changed. I/O: files, /proc, our own shim's `--version`."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.doctor.cluster_facts import Unseen
from homeport.doctor.facts import Database, FileFact, FileFacts, JournalEntry, Program, Room, RuntimeConfig, Site
from homeport.doctor.looking import looked
from homeport.host import errors
from homeport.host.files import LocalFiles
from homeport.model.errors import CniError
from homeport.stores.claims import CLAIMS
from homeport.stores.opening import check_whole
from homeport.stores.schema import ALLOCATIONS, Schema

_CONFIG_SUFFIXES = (".conf", ".conflist", ".json")  # libcni's ConfFiles
_RUNTIMES = frozenset({"containerd", "crio", "dockerd"})
_META_PLUGINS = frozenset({"multus-daemon", "multus"})
_PROGRAM_MAX = 64 * 1024 * 1024
_VERSION_SECONDS = 5.0
_SHIM_VARIABLES = ("HOMEPORT_SOCKET", "HOMEPORT_JOURNAL")
_NETNS = "/proc/self/ns/net"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What other rooms know of our files: whether an executable is ours by its bytes, and whether a file of the
    journal is a DEL (raises `CniError` when not).
    """

    is_ours: Callable[[bytes], bool]
    require_del: Callable[[bytes], object]


def gather(site: Site, tools: Tools, types: Collection[str]) -> FileFacts:
    """`types` are the plugins that networks name. Raises no `CniError`."""
    configs = looked(lambda: _runtime_configs(site.runtime_dir))
    named = () if isinstance(configs, Unseen) or configs is None else configs
    primary = next((c.cluster_network for c in named if c.cluster_network), "")
    primary_types = _primary_types(primary)
    wanted = {site.shim, *types, *primary_types}
    return FileFacts(
        modes={path: _fact(path) for path in _guarded(site)},
        runtime_configs=configs,
        programs=looked(lambda: _programs(site, tools, wanted)),
        journal=looked(lambda: _journal(site.journal, tools)),
        rooms=looked(lambda: _rooms((site.state_dir, site.cni_dir, site.runtime_dir))),
        databases=tuple(_databases(site)),
        primary_path=primary,
        primary_types=primary_types,
        primary=os.path.exists(primary) if primary else None,
        readiness=os.path.exists(site.readiness_file) if site.readiness_file else None,
        shim_environs=_shim_environs(),
        strangers=tuple(f"{name} (process {pid})" for pid, name in _neighbours(_META_PLUGINS)),
    )


def _guarded(site: Site) -> tuple[str, ...]:
    """Paths that only root may write to, or read."""
    found = [site.config_file, site.kubeconfig, site.socket, os.path.dirname(site.socket), site.state_dir, site.journal]
    return tuple(path for path in [*found, site.claims, site.generated, site.bin_dir, site.store] if path)


def _fact(path: str) -> FileFact | None:
    """None for one that is not there; a link is followed. What may not be looked at is as "other" without a mode."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return FileFact(kind="other", mode=0, uid=0)
    return _file_fact(found)


def _file_fact(found: os.stat_result) -> FileFact:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return FileFact(kind="file", mode=stat.S_IMODE(mode), uid=found.st_uid)
    if stat.S_ISDIR(mode):
        return FileFact(kind="directory", mode=stat.S_IMODE(mode), uid=found.st_uid)
    return FileFact(kind="socket" if stat.S_ISSOCK(mode) else "other", mode=stat.S_IMODE(mode), uid=found.st_uid)


# --- the runtime's directory -----------------------------------------------------------------------------------------


def _runtime_configs(directory: str) -> tuple[RuntimeConfig, ...] | None:
    """In the order in which a runtime takes them; None without the directory."""
    files = LocalFiles()
    names = files.list(directory)
    if names is None:
        return None
    wanted = [name for name in names if os.path.splitext(name)[1] in _CONFIG_SUFFIXES]
    return tuple(_runtime_config(name, files.read(os.path.join(directory, name))) for name in wanted)


def _runtime_config(name: str, contents: bytes | None) -> RuntimeConfig:
    if contents is None:
        return RuntimeConfig(name=name, problem="it leads nowhere")
    try:
        network = conflists.parse(contents)
    except CniError as e:
        return RuntimeConfig(name=name, problem=str(e))
    types = tuple(str(plugin.get("type", "")) for plugin in network.plugins)
    leads_to = next((found for p in network.plugins if isinstance(found := p.get("clusterNetwork"), str)), "")
    return RuntimeConfig(name=name, types=types, cluster_network=leads_to if leads_to.startswith("/") else "")


def _primary_types(path: str) -> tuple[str, ...]:
    """The primary's plugins; none where it cannot be read, which is a finding of its own."""
    contents = looked(lambda: LocalFiles().read(path)) if path else None
    if contents is None or isinstance(contents, Unseen):
        return ()
    network = looked(lambda: conflists.parse(contents))
    return () if isinstance(network, Unseen) else types_of(network)


def types_of(network: ConfList) -> tuple[str, ...]:
    """The plugins of a network, and what gives them their addresses."""
    named = [named for plugin in network.plugins for named in (plugin, plugin.get("ipam"))]
    return tuple(found for n in named if isinstance(n, Mapping) and isinstance(found := n.get("type"), str) and found)


def _programs(site: Site, tools: Tools, types: Collection[str]) -> Mapping[str, Program] | None:
    if LocalFiles().list(site.bin_dir) is None:
        return None
    found: dict[str, Program] = {}
    for name in sorted(types):
        path = os.path.join(site.bin_dir, name)
        try:
            known = _file_fact(os.stat(path))
            with open(path, "rb") as file:
                is_ours = known.kind == "file" and tools.is_ours(file.read(_PROGRAM_MAX))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            raise errors.file_refused(f"read {path}", e) from e
        version = _version(path) if is_ours and name in site.shim_types else ""
        found[name] = Program(file=known, is_ours=is_ours, version=version)
    return found


def _version(path: str) -> str:
    """What our shim says of itself; "" when it cannot be started, or is a launcher, which says nothing."""
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_VERSION_SECONDS, env={}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name, _, version = done.stdout.decode(errors="replace").strip().partition(" ")
    return version if name == "homeport-shim" else ""


# --- state -----------------------------------------------------------------------------------------------------------


def _journal(directory: str, tools: Tools) -> tuple[JournalEntry, ...] | None:
    """None without the directory. A file that goes meanwhile is done, and left out."""
    names = LocalFiles().list(directory)
    if names is None:
        return None
    entries = [_journal_entry(os.path.join(directory, name), name, tools) for name in names]
    return tuple(entry for entry in entries if entry is not None)


def _journal_entry(path: str, name: str, tools: Tools) -> JournalEntry | None:
    try:
        age = max(0.0, time.time() - os.stat(path).st_mtime)
        contents = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        return JournalEntry(name=name, age_seconds=0.0, problem=str(errors.file_refused(f"read {path}", e)))
    problem = ""
    try:
        tools.require_del(contents)
    except CniError as e:
        problem = str(e)
    return JournalEntry(name=name, age_seconds=age, problem=problem)


def _rooms(paths: Iterable[str]) -> tuple[Room, ...]:
    """One of each file system; a directory that is not there stands for the nearest that is."""
    found: dict[int, Room] = {}
    for path in paths:
        there = next(p for p in (path, *map(str, Path(path).parents)) if os.path.exists(p))
        try:
            found.setdefault(os.stat(there).st_dev, _room(there))
        except OSError as e:
            raise errors.file_refused(f"look for room at {there}", e) from e
    return tuple(found.values())


def _room(path: str) -> Room:
    room = os.statvfs(path)
    return Room(
        path=path,
        free_bytes=room.f_bavail * room.f_frsize,
        free=room.f_bavail / room.f_blocks if room.f_blocks else 1.0,
        free_inodes=room.f_favail / room.f_files if room.f_files else 1.0,
    )


def _databases(site: Site) -> Iterable[Database]:
    ours: tuple[tuple[str, Schema], ...] = ((site.claims, CLAIMS), (site.store, ALLOCATIONS))
    for path, schema in ours:
        if path and os.path.exists(path):
            try:
                check_whole(Path(path), schema)
            except CniError as e:
                yield Database(path=path, problem=str(e))
            else:
                yield Database(path=path)


# --- processes -------------------------------------------------------------------------------------------------------


def _shim_environs() -> Mapping[str, Mapping[str, str]]:
    """What the runtimes of this node tell the shim; what theirs cannot be read are left out."""
    found: dict[str, Mapping[str, str]] = {}
    for pid, name in _neighbours(_RUNTIMES):
        try:
            block = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        pairs = (entry.decode(errors="replace").partition("=") for entry in block.split(b"\0"))
        environ = {key: value for key, _, value in pairs if key in _SHIM_VARIABLES and value}
        defaults = {"HOMEPORT_SOCKET": "/run/homeport/homeport.sock", "HOMEPORT_JOURNAL": "/var/lib/homeport/journal"}
        found[f"{name} (process {pid})"] = {**defaults, **environ}
    return found


def _neighbours(names: Collection[str]) -> Iterable[tuple[int, str]]:
    """Processes of these names in our network namespace: the node's own, or host-network pods."""
    here = os.stat(_NETNS).st_ino
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name in names and os.stat(f"/proc/{pid}/ns/net").st_ino == here:
                yield int(pid), name
        except OSError:
            continue  # it ended meanwhile
