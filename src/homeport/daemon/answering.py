"""What a call comes to: the meta-plugin, or one plugin of ours by itself. Acts through both, and the journal.

A bug ends here too: it is logged with its traceback and answered as code 999.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import structlog

from homeport.cni import documents, invocations, netconfs, versions
from homeport.cni.invocations import Invocation
from homeport.daemon.calls import META_PLUGIN, Call, Outcome
from homeport.daemon.journal import Entry, Journal
from homeport.metaplugin.deleting import Deferred
from homeport.model.errors import CniError, InternalError, PluginNotFound, TryAgainLater, UnsupportedField
from homeport.model.results import Result
from homeport.plugins import registry
from homeport.ports import Shells
from homeport.runtime import calling

Conf = Mapping[str, Any]

log = structlog.get_logger("homeport.daemon")


class Meta(Protocol):
    """The meta-plugin. `delete` raises `Deferred` when it must be done later.

    The `delegate_` verbs are about one network by itself, as hotplug controllers ask with `interfaceAttributes`.
    """

    def add(self, conf: Conf, invocation: Invocation) -> Result: ...
    def delete(self, conf: Conf, invocation: Invocation) -> None: ...
    def check(self, conf: Conf, invocation: Invocation) -> None: ...
    def gc(self, conf: Conf, invocation: Invocation) -> None: ...
    def status(self, conf: Conf, invocation: Invocation) -> None: ...
    def delegate_add(self, conf: Conf, invocation: Invocation, attributes: Conf) -> Result: ...
    def delegate_delete(self, conf: Conf, invocation: Invocation, attributes: Conf) -> None: ...
    def delegate_check(self, conf: Conf, invocation: Invocation, attributes: Conf) -> None: ...
    def delegate_status(self, conf: Conf, invocation: Invocation) -> None: ...


class _Version(msgspec.Struct, rename="camel"):
    cni_version: str = ""


class Answerer:
    """Carries out calls, for any number of threads; those of one container must come one after the other.

    `observe` hears of each call with its outcome and how many seconds it took.
    """

    def __init__(
        self,
        *,
        shells: Shells,
        meta: Meta,
        journal: Journal,
        observe: Callable[[Call, Outcome, float], object] = lambda *_: None,
    ) -> None:
        self._shells = shells
        self._meta = meta
        self._journal = journal
        self._observe = observe

    def carry_out(self, call: Call, is_abandoned: Callable[[], bool] = lambda: False) -> Outcome:
        """The whole of a call: what waits in the journal before it, itself, and what must follow it."""
        began = time.monotonic()
        outcome = self._carry_out(call)
        if call.command == "ADD" and outcome.error is None and is_abandoned():
            outcome = self._undo(call, outcome)
        self._observe(call, outcome, time.monotonic() - began)
        return outcome

    def finish(self, entry: Entry) -> None:
        """Carries out a DEL of the journal and removes it; raises what keeps it there. One that is gone is done."""
        if self._journal.holds(entry):
            outcome = self._perform(_long_after(entry.call))
            if outcome.error is not None:
                raise outcome.error
            self._journal.remove(entry)

    def _carry_out(self, call: Call) -> Outcome:
        if call.command == "ADD":
            try:
                self._finish_before(call.container_id)
            except CniError as e:
                return Outcome(error=e)
        outcome = self._perform(call)
        if isinstance(outcome.error, Deferred) and call.command == "DEL" and call.attributes is None:
            try:
                self._journal.write(call)
            except CniError as e:
                return Outcome(cni_version=outcome.cni_version, error=e)
            return Outcome(cni_version=outcome.cni_version)
        return outcome

    def _finish_before(self, container_id: str) -> None:
        """A DEL that were carried out after the ADD would take away what the ADD made."""
        for entry in self._journal.of(container_id):
            try:
                self.finish(entry)
            except CniError as e:
                raise TryAgainLater(
                    f"ADD of container {container_id}: an earlier DEL of it must be done first, and failed: {e.msg}",
                    e.details,
                ) from e

    def _undo(self, call: Call, outcome: Outcome) -> Outcome:
        """An ADD whose caller went away must not be in the way of the next one for this container."""
        delete = msgspec.structs.replace(call, environ={**call.environ, "CNI_COMMAND": "DEL"})
        undone = self._perform(delete)
        log.warning("undid an ADD that nobody waited for", container=call.container_id, error=str(undone.error or ""))
        if undone.error is not None and call.attributes is None:
            try:
                self._journal.write(delete)
            except CniError as e:  # the runtime's own DEL is left
                log.error("cannot journal the undoing of an ADD", container=call.container_id, error=str(e))
        error = TryAgainLater(f"ADD of container {call.container_id}: undone, as nobody waited for its answer")
        return Outcome(cni_version=outcome.cni_version, error=error)

    def _perform(self, call: Call) -> Outcome:
        """The call by itself."""
        version = ""
        try:
            invocation = invocations.parse_environment(call.environ)
            if invocation.command == "VERSION":
                return Outcome(text=msgspec.json.encode(versions.version_info()) + b"\n")
            conf = documents.decode_object(call.stdin, "network configuration")
            version = documents.convert(conf, _Version).cni_version
            return Outcome(cni_version=version, result=self._run(call, conf, invocation))
        except CniError as e:
            return Outcome(cni_version=version, error=e)
        except Exception as e:  # the outermost edge: even a bug answers in CNI's form
            log.exception("a bug, please report it", command=call.command, container=call.container_id)
            msg = f'plugin "{call.plugin}": unexpected {type(e).__name__}: {e}'
            return Outcome(cni_version=version, error=InternalError(msg, "the daemon's log has the traceback"))

    def _run(self, call: Call, conf: Conf, invocation: Invocation) -> Result | None:
        if call.plugin not in META_PLUGIN:
            return self._run_alone(call.plugin, conf, invocation)
        if call.attributes is not None:
            return self._run_hotplug(conf, invocation, call.attributes)
        match invocation.command:
            case "ADD":
                return self._meta.add(conf, invocation)
            case "DEL":
                self._meta.delete(conf, invocation)
            case "CHECK":
                self._meta.check(conf, invocation)
            case "GC":
                self._meta.gc(conf, invocation)
            case _:
                self._meta.status(conf, invocation)
        return None

    def _run_hotplug(self, conf: Conf, invocation: Invocation, attributes: Conf) -> Result | None:
        match invocation.command:
            case "ADD":
                return self._meta.delegate_add(conf, invocation, attributes)
            case "DEL":
                self._meta.delegate_delete(conf, invocation, attributes)
            case "CHECK":
                self._meta.delegate_check(conf, invocation, attributes)
            case "STATUS":
                self._meta.delegate_status(conf, invocation)
            case command:
                raise UnsupportedField(f"/delegate: found {command}, expected ADD, DEL, CHECK or STATUS")
        return None

    def _run_alone(self, plugin_type: str, raw: Conf, invocation: Invocation) -> Result | None:
        plugin = registry.find(plugin_type)
        if plugin is None:
            expected = f"{', '.join(sorted(META_PLUGIN))}, {', '.join(registry.MODULES)}"
            raise PluginNotFound(f'plugin "{plugin_type}": not built in, expected one of {expected}')
        conf = netconfs.parse(raw, command=invocation.command)
        calling.refuse_own_namespace(invocation)
        return calling.call(plugin, conf, invocation, self._shells)


def _long_after(call: Call) -> Call:
    """A DEL that is carried out late. A namespace named by a process ID may by now be another process's: it is left
    out, for the one that was meant went away with its container.
    """
    if not call.environ.get("CNI_NETNS", "").startswith("/proc/"):
        return call
    return msgspec.structs.replace(call, environ={**call.environ, "CNI_NETNS": ""})
