"""Checks of a node's files: what the runtime reads, the programs it starts, what the daemon keeps. No I/O."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from homeport.doctor.cluster_facts import Unseen
from homeport.doctor.facts import Database, FileFacts, JournalEntry, Program, Room, RuntimeConfig, Site, Use
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.doctor.repairs import ChangeMode, MakeDirectory, RemoveUnfinished

_OLD_SECONDS = 120.0  # a DEL that can be done is done within a minute
_UNFINISHED_SECONDS = 60.0
_BAD, _UNFINISHED = ".bad", ".tmp-"
_MIB = 1024 * 1024
_FULL, _FULL_BYTES = 0.01, 16 * _MIB
_LOW, _LOW_BYTES = 0.05, 256 * _MIB
_LOOK_AT_DAEMON = "journalctl -u homeportd --since -10min"
_OTHERS_WRITE = 0o022
_OTHERS_READ = 0o044
_UPSTREAM_SHIM = "multus-shim"


def runtime(site: Site, files: FileFacts) -> Iterator[Diagnosis]:
    """The file that a runtime takes leads to us, and there is what it leads to."""
    configs = files.runtime_configs
    if isinstance(configs, Unseen):
        return
    if configs is None:
        yield Diagnosis(
            id="runtime-dir-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=site.runtime_dir,
            found="no such directory",
            expected="the directory in which the runtime looks for networks",
            why="the runtime has no network, and the node is not Ready",
            run=(f"ls {os.path.dirname(site.runtime_dir)}", "crictl info | grep -i confdir"),
        )
        return
    yield from _broken(site, configs)
    yield from _winner(site, configs)
    yield from _leads_to(files)


def _leads_to_us(site: Site, config: RuntimeConfig) -> bool:
    return bool(site.shim_types & set(config.types))


def _broken(site: Site, configs: tuple[RuntimeConfig, ...]) -> Iterator[Diagnosis]:
    """A file before the one that is to win: containerd then has no network at all, CRI-O passes over it."""
    for config in configs:
        if not config.problem:
            return  # what comes after the first good one is not read
        yield Diagnosis(
            id="runtime-config-broken",
            severity=Severity.ERROR,
            sure=Sure.LIKELY,
            place=os.path.join(site.runtime_dir, config.name),
            found=config.problem,
            expected="a network, or no file",
            why="it comes first in the order of names: containerd stops at it and has no network",
            run=(f"cat {os.path.join(site.runtime_dir, config.name)}",),
        )


def _winner(site: Site, configs: tuple[RuntimeConfig, ...]) -> Iterator[Diagnosis]:
    first = next((c for c in configs if not c.problem), None)
    ours = next((c for c in configs if _leads_to_us(site, c)), None)
    if ours is None and site.generated:
        there = f"first is {first.name}" if first is not None else "there is none"
        yield Diagnosis(
            id="runtime-config-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=site.generated,
            found=f"no network that leads to the daemon; {there}",
            expected="the file that the daemon writes",
            why="pods get no secondary networks, and no error says so",
            run=(_LOOK_AT_DAEMON, f"ls -l {site.runtime_dir}"),
        )
    elif first is not None and not _leads_to_us(site, first):
        is_certain = ours is not None
        yield Diagnosis(
            id="runtime-config-overruled",
            severity=Severity.ERROR if is_certain else Severity.WARNING,
            sure=Sure.CERTAIN if is_certain else Sure.POSSIBLE,
            place=os.path.join(site.runtime_dir, first.name),
            found=f"first in the order of names, of type {', '.join(first.types)}",
            expected=f"{ours.name} first" if ours is not None else "a network that leads to the daemon",
            why="the runtime takes this one: pods get no secondary networks, and no error says so",
            run=(f"ls {site.runtime_dir}",),
        )


def _leads_to(files: FileFacts) -> Iterator[Diagnosis]:
    if files.primary is False:
        yield Diagnosis(
            id="primary-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=files.primary_path,
            found="no such file",
            expected="the primary plugin's network",
            why="no pod of this node gets a network: the ADD fails before anything is made",
            run=(f"ls -l {os.path.dirname(files.primary_path)}", _LOOK_AT_DAEMON),
        )
    if files.readiness is False:
        yield Diagnosis(
            id="readiness-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place='key "readinessindicatorfile"',
            found="the file that it names is not there",
            expected="the primary plugin's sign that it is ready",
            why="every ADD waits for it, and then fails",
            run=("kubectl -n kube-system get pods -o wide",),
        )


def beside(site: Site, files: FileFacts) -> Iterator[Diagnosis]:
    """No other meta-plugin, and runtimes that lead the shim to this daemon."""
    for stranger in files.strangers:
        yield Diagnosis(
            id="meta-plugin-beside",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place=stranger,
            found="another meta-plugin's daemon runs on this node",
            expected="one of the two",
            why="both write 00-multus.conf; as the other ends, it deletes it",
            run=("kubectl -n kube-system get daemonset",),
        )
    for runtime_name, environ in files.shim_environs.items():
        for variable, ours in (("HOMEPORT_SOCKET", site.socket), ("HOMEPORT_JOURNAL", site.journal)):
            if environ[variable] != ours:
                yield Diagnosis(
                    id="shim-misled",
                    severity=Severity.ERROR,
                    sure=Sure.LIKELY,
                    place=f"environment of {runtime_name}",
                    found=f"the shim goes by {variable}={environ[variable]}",
                    expected=ours,
                    why="its calls find no daemon, or its DELs are kept where nobody looks",
                    run=(f"systemctl edit containerd  # Environment={variable}={ours}",),
                )


def programs(site: Site, files: FileFacts, uses: tuple[Use, ...]) -> Iterator[Diagnosis]:
    """The shim and what is executed are there, and are what they should be."""
    found = files.programs
    if isinstance(found, Unseen):
        return
    shim = (found or {}).get(site.shim)
    place = os.path.join(site.bin_dir, site.shim)
    install = f"homeport install --shim --bin-dir {site.bin_dir}"
    if shim is None:
        yield Diagnosis(
            id="shim-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=place,
            found="no such file",
            expected="the shim",
            why="no pod starts, and none is taken down: the runtime has nothing to call",
            run=(install,),
        )
    else:
        yield from _shim(site, shim, place, install)
    yield from _executed(site, tuple(found or ()), files.primary_types, uses)


def _shim(site: Site, shim: Program, place: str, install: str) -> Iterator[Diagnosis]:
    if shim.file.kind != "file" or not shim.file.mode & 0o100:
        yield Diagnosis(
            id="shim-not-executable",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=place,
            found=f"a {shim.file.kind} of mode {shim.file.mode:04o}",
            expected="an executable file",
            why="no pod starts, and none is taken down",
            run=(install,),
        )
    elif not shim.is_ours and site.shim != _UPSTREAM_SHIM:
        yield Diagnosis(
            id="shim-foreign",
            severity=Severity.ERROR,
            sure=Sure.LIKELY,
            place=place,
            found="a program that is not Homeport's",
            expected="the shim",
            why="the runtime calls something else than the daemon",
            run=(f"{install} --force",),
        )
    elif shim.version and shim.version != site.version:
        yield Diagnosis(
            id="shim-version",
            severity=Severity.INFO,
            sure=Sure.CERTAIN,
            place=place,
            found=f"version {shim.version}",
            expected=f"version {site.version}, as installed",
            why="it serves: the protocol changes seldom",
            run=(install,),
        )


def _executed(
    site: Site, known: Collection[str], primary_types: tuple[str, ...], uses: tuple[Use, ...]
) -> Iterator[Diagnosis]:
    inside = site.built_in - site.exec_types
    for name in dict.fromkeys((*primary_types, *(use.plugin for use in uses))):
        if name in known or name in inside:
            continue
        is_primary = name in primary_types
        networks = ", ".join(sorted({use.network for use in uses if use.plugin == name}))
        yield Diagnosis(
            id="plugin-missing",
            severity=Severity.ERROR if is_primary else Severity.WARNING,
            sure=Sure.LIKELY,
            place=os.path.join(site.bin_dir, name),
            found="no such file",
            expected=f"the plugin of {'the pod network' if is_primary else networks}",
            why="no pod of this node starts" if is_primary else "pods with that network do not start on this node",
            run=(f"ls {site.bin_dir}",),
        )


# --- state -----------------------------------------------------------------------------------------------------------


def journal(site: Site, files: FileFacts) -> Iterator[Diagnosis]:
    """It is there, every entry can be read, and none waits for long."""
    entries = files.journal
    if isinstance(entries, Unseen):
        return
    if entries is None:
        yield Diagnosis(
            id="journal-missing",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=site.journal,
            found="no such directory",
            expected="a directory for its owner alone",
            why="a DEL that finds no daemon is refused instead of kept, and the pod hangs in Terminating",
            run=(f"mkdir -m 0700 -p {site.journal}",),
            repair=MakeDirectory(
                says=f"make {site.journal}", proof="nothing is there, and the daemon makes it so", path=site.journal
            ),
        )
        return
    for entry in entries:
        yield from _entry(site, entry)


def _entry(site: Site, entry: JournalEntry) -> Iterator[Diagnosis]:
    path = os.path.join(site.journal, entry.name)
    if entry.name.startswith(_UNFINISHED):
        if entry.age_seconds > _UNFINISHED_SECONDS:
            yield Diagnosis(
                id="journal-unfinished",
                severity=Severity.INFO,
                sure=Sure.CERTAIN,
                place=path,
                found=f"a file whose writer was killed {_minutes(entry.age_seconds)} ago",
                expected="none",
                why="it counts for nothing: its DEL was never answered, so the runtime comes again",
                repair=RemoveUnfinished(
                    says=f"remove {path}", proof="its writer ended before it was accepted", path=path
                ),
            )
    elif entry.name.endswith(_BAD) or entry.problem:
        yield Diagnosis(
            id="journal-unreadable",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=path,
            found=entry.problem or "a DEL that was set aside",
            expected="a DEL",
            why="what its container had may still be held; nobody else takes it down",
            run=(f"xxd {path} | head", _LOOK_AT_DAEMON),
        )
    elif entry.age_seconds > _OLD_SECONDS:
        yield Diagnosis(
            id="journal-old",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=path,
            found=f"a DEL that has waited for {_minutes(entry.age_seconds)}",
            expected="done within a minute",
            why="its addresses are not given back, and its pod's next sandbox on this node waits",
            run=(_LOOK_AT_DAEMON,),
        )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def rooms(found: tuple[Room, ...]) -> Iterator[Diagnosis]:
    """There is room for what must be written before it is answered."""
    for room in found:
        is_full = (room.free < _FULL and room.free_bytes < _LOW_BYTES) or room.free_bytes < _FULL_BYTES
        is_low = room.free < _LOW and room.free_bytes < _LOW_BYTES
        if is_full or is_low or room.free_inodes < _LOW:
            is_over = is_full or room.free_inodes < _FULL
            yield Diagnosis(
                id="disk-full" if is_over else "disk-low",
                severity=Severity.ERROR if is_over else Severity.WARNING,
                sure=Sure.CERTAIN,
                place=room.path,
                found=f"{room.free_bytes // _MIB} MiB ({room.free:.1%}) and {room.free_inodes:.1%} of the inodes free",
                expected=f"{_LOW:.0%} of both",
                why="ADD and DEL fail with code 109 when nothing can be written",
                run=(f"df -h {room.path}", f"df -i {room.path}"),
            )


def databases(found: tuple[Database, ...]) -> Iterator[Diagnosis]:
    """SQLite finds them whole."""
    for one in found:
        if one.problem:
            is_claims = one.path.endswith("claims.db")
            yield Diagnosis(
                id="database-damaged",
                severity=Severity.ERROR,
                sure=Sure.CERTAIN,
                place=one.path,
                found=one.problem,
                expected="a whole database of this version",
                why="the daemon cannot start with it" if is_claims else "no address of it can be given or returned",
                run=(
                    (
                        f"systemctl stop homeportd && mv {one.path} {one.path}.damaged && systemctl start homeportd"
                        "  # its rows are made again from the cluster",
                    )
                    if is_claims
                    else (f"sqlite3 {one.path} 'PRAGMA integrity_check'",)
                ),
            )


def modes(site: Site, files: FileFacts) -> Iterator[Diagnosis]:
    """Nobody but their owner writes to them, or reads the secret ones."""
    for path, found in files.modes.items():
        if found is None:
            continue
        if found.mode & _OTHERS_WRITE:
            yield _open(path, found.mode, _OTHERS_WRITE, "file-writable", Severity.ERROR)
        elif path == site.kubeconfig and found.mode & _OTHERS_READ:
            yield _open(path, found.mode, _OTHERS_READ, "secret-readable", Severity.WARNING)
        if found.uid != 0 and not path.startswith(site.bin_dir):
            yield Diagnosis(
                id="file-owner",
                severity=Severity.WARNING,
                sure=Sure.POSSIBLE,
                place=path,
                found=f"owned by user {found.uid}",
                expected="owned by root",
                why="that user can change what the daemon goes by",
                run=(f"ls -ld {path}",),
            )


def _open(path: str, mode: int, take: int, id_: str, severity: Severity) -> Diagnosis:
    verb = "write to" if take == _OTHERS_WRITE else "read"
    why = "the daemon refuses such a directory, or whoever writes there is root" if take == _OTHERS_WRITE else ""
    return Diagnosis(
        id=id_,
        severity=severity,
        sure=Sure.CERTAIN,
        place=path,
        found=f"mode {mode:04o}: others than its owner can {verb} it",
        expected=f"mode {mode & ~take:04o}",
        why=why or "whoever reads it can act as this node",
        run=(f"chmod {mode & ~take:04o} {path}",),
        repair=ChangeMode(
            says=f"change the mode of {path} from {mode:04o} to {mode & ~take:04o}",
            proof="the daemon's configuration names it, and it needs no more",
            path=path,
            take=take,
        ),
    )
