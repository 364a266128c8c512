"""Running one plugin, wherever it is: in this process when it is ours, else as an executable from CNI_PATH.

CNI SPEC 1.1.0 §3 and §4. I/O: through `ports.Exec`, and stderr of foreign plugins to a writer given.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec

from homeport.cni import documents, invocations, netconfs, versions
from homeport.cni.invocations import Attachment, Command
from homeport.cni.netconfs import NetConf
from homeport.model.errors import (
    CniError,
    DecodeFailure,
    PluginError,
    PluginFailed,
    PluginNotAvailable,
    PluginNotFound,
    TryAgainLater,
)
from homeport.model.results import Result
from homeport.ports import Cluster, Completed, Delegates, Exec, Plugin, Shells

DEFAULT_TIMEOUT_SECONDS = 60.0
_NO_KINDS: Mapping[str, str] = {}


class _WireError(msgspec.Struct):
    code: int = 999
    msg: str = ""
    details: str = ""


class PluginDelegates:
    """`ports.Delegates`.

    `find` gives a plugin of ours or None; types in `exec_types` are executed even then. `environ` is what a foreign
    plugin inherits besides its CNI variables, `netns` the network namespace it starts in (None: our own). `shells`
    is called when a plugin of ours runs, so that it may hold these very delegates; `open_executor` before the first
    foreign one. `link_kinds` are the kinds of link that plugins of ours make, by type (see `link_kind`).
    """

    def __init__(
        self,
        *,
        find: Callable[[str], Plugin | None],
        shells: Callable[[], Shells],
        open_executor: Callable[[], Exec],
        environ: Mapping[str, str],
        netns: str | None = None,
        exec_types: Collection[str] = (),
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        on_stderr: Callable[[bytes], object] = lambda _: None,
        link_kinds: Mapping[str, str] = _NO_KINDS,
    ) -> None:
        self._find = find
        self._shells = shells
        self._open_executor = open_executor
        self._executor: Exec | None = None
        self._environ = {k: v for k, v in environ.items() if not k.startswith("CNI_")}
        self._netns = netns
        self._exec_types = frozenset(exec_types)
        self._timeout_seconds = timeout_seconds
        self._on_stderr = on_stderr
        self._link_kinds = link_kinds

    def add(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> Result:
        """The plugin's result, of whatever version it answered in."""
        plugin = self._ours(plugin_type)
        if plugin is not None:
            return plugin.add(conf, attachment, self._shells())
        stdout = self._execute("ADD", plugin_type, conf, attachment)
        try:
            return versions.decode_result(documents.decode(stdout, "result"), conf.cni_version)
        except CniError as e:
            raise PluginFailed(f'plugin "{plugin_type}": ADD succeeded with a bad result: {e.msg}', e.details) from e

    def delete(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None:
        plugin = self._ours(plugin_type)
        if plugin is not None:
            plugin.delete(conf, attachment, self._shells())
        else:
            self._execute("DEL", plugin_type, conf, attachment)

    def check(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None:
        plugin = self._ours(plugin_type)
        if plugin is not None:
            plugin.check(conf, attachment, self._shells())
        else:
            self._execute("CHECK", plugin_type, conf, attachment)

    def gc(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None:
        plugin = self._ours(plugin_type)
        if plugin is not None:
            plugin.gc(conf, attachment, self._shells())
        else:
            self._execute("GC", plugin_type, conf, attachment)

    def status(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None:
        plugin = self._ours(plugin_type)
        if plugin is not None:
            plugin.status(conf, attachment, self._shells())
        else:
            self._execute("STATUS", plugin_type, conf, attachment)

    def link_kind(self, plugin_type: str) -> str:
        return "" if self._ours(plugin_type) is None else self._link_kinds.get(plugin_type, "")

    def adapted(self, *, exec_types: Collection[str] = (), cluster: Cluster | None = None) -> PluginDelegates:
        """A plugin of ours that runs others, its IPAM for one, has them from the adapted ones too."""
        given = self._shells
        adapted = copy(self)
        adapted._exec_types = self._exec_types | frozenset(exec_types)
        adapted._shells = lambda: _with(given(), adapted, cluster)
        return adapted

    def supported_versions(self, plugin_type: str, attachment: Attachment) -> tuple[str, ...]:
        """The versions the plugin speaks, as its VERSION says."""
        if self._ours(plugin_type) is not None:
            return versions.SUPPORTED_VERSIONS
        request = documents.write({"cniVersion": versions.CURRENT})
        stdout = self._run("VERSION", plugin_type, request, attachment)
        try:
            return versions.decode_version_info(documents.decode(stdout, "version"))
        except CniError as e:
            raise PluginFailed(f'plugin "{plugin_type}": VERSION: {e.msg}', e.details) from e

    def source(self, plugin_type: str, path: Sequence[str]) -> str:
        """Where the plugin comes from: "built in", or its executable; raises `PluginNotFound`."""
        return "built in" if self._ours(plugin_type) is not None else self._executable(plugin_type, path)

    def _ours(self, plugin_type: str) -> Plugin | None:
        return None if plugin_type in self._exec_types else self._find(plugin_type)

    def _exec(self) -> Exec:
        if self._executor is None:
            self._executor = self._open_executor()
        return self._executor

    def _execute(self, command: Command, plugin_type: str, conf: NetConf, attachment: Attachment) -> bytes:
        return self._run(command, plugin_type, msgspec.json.encode(netconfs.wire(conf)), attachment)

    def _run(self, command: Command, plugin_type: str, stdin: bytes, attachment: Attachment) -> bytes:
        executable = self._executable(plugin_type, attachment.path)
        completed = self._exec().run(
            executable,
            env={**self._environ, **invocations.environment(command, attachment)},
            stdin=stdin,
            timeout_seconds=self._timeout_seconds,
            netns=self._netns,
        )
        if completed.stderr:
            self._on_stderr(completed.stderr)
        if completed.returncode != 0:
            raise _failure(command, plugin_type, completed)
        return completed.stdout

    def _executable(self, plugin_type: str, path: Sequence[str]) -> str:
        executable = self._exec().find(plugin_type, path)
        if executable is None:
            searched = f"no executable of this name in {':'.join(path)}" if path else "CNI_PATH is empty"
            built_in = "" if plugin_type in self._exec_types else "not built in, and "
            raise PluginNotFound(f'plugin "{plugin_type}": {built_in}{searched}')
        return executable


def _with(shells: Shells, delegates: Delegates, cluster: Cluster | None) -> Shells:
    return msgspec.structs.replace(shells, delegates=delegates, cluster=shells.cluster if cluster is None else cluster)


def _failure(command: Command, plugin_type: str, completed: Completed) -> CniError:
    """What the plugin says went wrong, or, where it says nothing readable, how it ended."""
    stderr = completed.stderr.decode(errors="replace").strip()
    if not completed.stdout.strip():
        return PluginFailed(
            f'plugin "{plugin_type}": {command} {_ending(completed.returncode)} without an error on stdout', stderr
        )
    try:
        wire = _decode_error(documents.decode(completed.stdout, "error"))
    except DecodeFailure:
        printed = completed.stdout.decode(errors="replace").strip()
        return PluginFailed(
            f'plugin "{plugin_type}": {command} {_ending(completed.returncode)}: '
            f"found {documents.shown(printed)}, expected a CNI error object",
            stderr,
        )
    msg = f'plugin "{plugin_type}": {wire.msg}'
    if wire.code == TryAgainLater.code:
        return TryAgainLater(msg, wire.details)
    if wire.code == PluginNotAvailable.code:
        return PluginNotAvailable(msg, wire.details)
    return PluginError(msg, wire.details, code=wire.code)


def _decode_error(value: Any) -> _WireError:
    wire = documents.convert(value, _WireError, error=DecodeFailure)
    if not wire.msg and "code" not in value:
        raise DecodeFailure("neither code nor msg")
    return wire


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"
