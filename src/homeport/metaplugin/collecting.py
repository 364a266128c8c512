"""GC: what containers left behind that the runtime does not know any more. I/O: through the context's shells.

CNI SPEC 1.1.0 §2 "GC". The runtime lists the attachments of the main network that are alive; so are all others of the
same containers. No ADD or DEL runs meanwhile, by the specification.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

import msgspec
import structlog

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.cni.invocations import Attachment
from homeport.metaplugin import adding, attaching, deleting
from homeport.metaplugin.contexts import Context
from homeport.model.errors import CniError
from homeport.model.names import AttachmentKey
from homeport.multinet.delegates import Delegate
from homeport.runtime import chaining
from homeport.runtime.caching import CachedAttachment

_USUAL_IFNAME = "eth0"

log = structlog.get_logger()


def collect(context: Context, valid: Collection[AttachmentKey]) -> None:
    """Takes down every attachment of containers that are in none of `valid`, then lets every plugin collect.

    Goes on past errors and raises them together. While it cannot be told what a living container is attached to, no
    plugin is asked to collect: it would take down what it is not told of.
    """
    run = _Collection(context, valid)
    run.take_down_scratches()
    run.take_down_results()
    if run.is_complete:
        run.ask_plugins()
    attaching.raise_together(run.errors)


class _Collection:
    """One GC: what is known of every container here, and what went wrong."""

    def __init__(self, context: Context, valid: Collection[AttachmentKey]) -> None:
        self._context = context
        self._valid = valid
        self._living = {key.container_id for key in valid}
        self.errors: list[CniError] = []
        self.is_complete = True
        cached, unreadable = context.cache.all()
        self.errors += unreadable
        self._cached: dict[str, list[CachedAttachment]] = {}
        for entry in cached:
            self._cached.setdefault(entry.key.container_id, []).append(entry)
        self._scratches = dict(self._read_scratches())
        if unreadable and not self._living <= self._scratches.keys():
            self.is_complete = False  # one of them may tell of such a container
        self._main = self._find_main()

    def take_down_scratches(self) -> None:
        """Every container of a scratch file that is not among the living."""
        for container_id, delegates in self._scratches.items():
            if container_id not in self._living:
                context = self._of_container(container_id)
                self._take_down(context, delegates)

    def take_down_results(self) -> None:
        """Results that no scratch file speaks of, of containers that are not among the living."""
        for container_id in self._cached:
            if container_id not in self._living and container_id not in self._scratches:
                self._take_down(self._of_container(container_id), ())

    def ask_plugins(self) -> None:
        """GC of every network that some container here is or was on, and of the main one."""
        alive = self._alive()
        for network in self._networks():
            valid = {key for key in alive if key.network == network.name}
            try:
                chaining.gc(
                    network, valid, self._context.shells, cache=self._context.cache, path=self._context.runtime.path
                )
            except CniError as error:
                error.msg = f'network "{network.name}": {error.msg}'
                self.errors.append(error)

    def _take_down(self, context: Context, delegates: Sequence[Delegate]) -> None:
        try:
            others = deleting.remembered(context, delegates)
            attaching.detach(context, context.shells, delegates, others, keep_scratch=not delegates)
            log.info("collected", container=context.runtime.container_id)
        except CniError as error:
            self.errors.append(error)

    def _read_scratches(self) -> Sequence[tuple[str, tuple[Delegate, ...]]]:
        found = []
        for container_id in self._context.scratch.containers():
            context = self._of_container(container_id)
            try:
                delegates = context.scratch.read(context.runtime, context.settings.runtime_config)
            except CniError as error:
                self.errors.append(error)
                self.is_complete &= container_id not in self._living
                continue
            found.append((container_id, delegates or ()))
        return found

    def _of_container(self, container_id: str) -> Context:
        """The context of a container that the runtime's call did not name: its results tell what it was called with."""
        entries = self._cached.get(container_id, [])
        main = next((key.ifname for key in self._valid if key.container_id == container_id), "")
        usual = next((e for e in entries if e.key.ifname in (main, _USUAL_IFNAME)), None)
        first = usual or next(iter(entries), None)
        runtime = Attachment(
            container_id=container_id,
            ifname=main or (usual.key.ifname if usual is not None else _USUAL_IFNAME),
            netns_path=first.netns_path if first is not None else None,
            args=first.args if first is not None else {},
            path=self._context.runtime.path,
        )
        return msgspec.structs.replace(self._context, runtime=runtime)

    def _alive(self) -> frozenset[AttachmentKey]:
        """Every attachment of the living, on whatever network."""
        keys = {
            AttachmentKey(delegate.network.name, container_id, delegate.ifname)
            for container_id, delegates in self._scratches.items()
            if container_id in self._living
            for delegate in delegates
        }
        keys |= {e.key for container_id in self._living for e in self._cached.get(container_id, [])}
        if self._main is not None:
            # Also containers that this network was given to before there was a meta-plugin on this node.
            keys |= {AttachmentKey(self._main.name, key.container_id, key.ifname) for key in self._valid}
        return frozenset(keys)

    def _find_main(self) -> ConfList | None:
        try:
            return adding.resolver(self._context, None).main().network
        except CniError as error:
            self.errors.append(error)
            self.is_complete = False
            return None

    def _networks(self) -> Iterable[ConfList]:
        """Each configuration once. Plugins may keep something of a network that no container is on any more."""
        known: dict[tuple[str, bytes], ConfList] = {}
        delegates = [d for found in self._scratches.values() for d in found]
        for record in self._context.records.all():
            with suppress(CniError):
                delegates += record.decoded_delegates()
        networks = [d.network for d in delegates]
        for entry in (entry for entries in self._cached.values() for entry in entries):
            with suppress(CniError):
                networks.append(conflists.parse(entry.config))
        if self._main is not None:
            networks.append(self._main)
        for network in networks:
            known.setdefault((network.name, network.raw), network)
        return known.values()
