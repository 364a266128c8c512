"""What the API server says of one node: its own time, networks, the node's pods and addresses. I/O: live questions.

Asked with what the daemon itself has: what is refused here, is refused there.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.doctor.facts import ApiFacts, SeenPod, Use
from homeport.ipam.allocations import Allocation
from homeport.ipam.objects import Pod
from homeport.kube import asking, decoding, errors, requests
from homeport.kube.asking import Asker
from homeport.kube.configs import ApiConfig
from homeport.kube.objects import KubernetesObjects
from homeport.kube.requests import Request
from homeport.kube.resources import DEFINITIONS
from homeport.kube.sending import Sender
from homeport.model.errors import CniError, DecodeFailure
from homeport.multinet import selections
from homeport.ports import NetworkDefinition, Place
from homeport.stores.claims import HeldClaim
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS

_SECONDS = 5.0
_VERSION = Request(verb="get", resource="version", path="/version")


class _Plugin(msgspec.Struct, rename="camel"):
    """What of a plugin's configuration is about the node; the plugin itself judges the rest."""

    type: str
    master: str = ""
    bridge: str = "cni0"
    mtu: int = 0
    link_in_container: bool = False
    is_gateway: bool = False
    is_default_gateway: bool = False


class ClusterGatherer:
    """Of the API server at `config`; `unreadable` gathers what was there and could not be decoded."""

    def __init__(self, config: ApiConfig) -> None:
        self._sender = Sender(config)
        self._objects = KubernetesObjects(Asker(self._sender))
        self._config = config
        self.unreadable: list[tuple[str, str]] = []

    def close(self) -> None:
        self._objects.close()
        self._sender.close()

    def api(self) -> ApiFacts:
        """Two questions, so that making the connection is not taken for the answering of one."""
        self._asked()
        began, moment = time.monotonic(), datetime.now(UTC)
        date = self._asked()
        seconds = time.monotonic() - began
        try:
            told = email.utils.parsedate_to_datetime(date)
        except ValueError:
            return ApiFacts(place=self._config.place, seconds=seconds, skew_seconds=None)
        # Its time is cut to the second, so on the average it is half a second more.
        skew = (told - moment).total_seconds() + 0.5 - seconds / 2
        return ApiFacts(place=self._config.place, seconds=seconds, skew_seconds=skew)

    def _asked(self) -> str:
        answer = self._sender.ask(_VERSION, seconds=_SECONDS)
        if answer.code != 200:
            raise errors.refused(_VERSION, answer.code, answer.body, place=self._sender.place)
        return answer.date

    def networks(self) -> tuple[NetworkDefinition, ...]:
        return tuple(decoding.decode_definition(found.body) for found in self._objects.list(DEFINITIONS))

    def pods(self, node: str) -> tuple[SeenPod, ...]:
        listed = asking.pages(
            self._sender, lambda token: requests.list_pods(node, continue_token=token), seconds=_SECONDS
        )
        return tuple(_seen(decoding.decode_pod(item)) for page in listed for item in page.items)

    def allocations(self, node: str, claims: Iterable[HeldClaim]) -> Mapping[Place, Allocation]:
        """Those that say `node` holds them, or held them last, and those of the claims' addresses."""
        found: dict[Place, Allocation] = {}
        unreadable: set[str] = set()
        for stored in self._objects.list(IPALLOCATIONS, labels={names.NODE: names.node_label(node)}):
            try:
                one = wire.decode(stored)
            except DecodeFailure as e:
                self.unreadable.append((f"ipallocation {stored.name}", str(e)))
                unreadable.add(stored.name)
            else:
                found[(one.scope, one.address)] = one
        for place in {claim.place for claim in claims} - found.keys():
            name = names.allocation_name(*place)
            stored_now = None if name in unreadable else self._objects.get(IPALLOCATIONS, name)
            if stored_now is not None:
                found[place] = wire.decode(stored_now)
        return found


def _seen(pod: Pod) -> SeenPod:
    try:
        selected = selections.parse(pod.annotations.get(selections.ANNOTATION, ""), pod.ref.namespace)
    except CniError:
        return SeenPod(pod=pod, networks=None)
    return SeenPod(pod=pod, networks=frozenset(f"{s.namespace}/{s.name}" for s in selected))


def uses(networks: Iterable[NetworkDefinition]) -> tuple[Use, ...]:
    """What the networks need of a node, as far as their configurations can be right: lint tells of the others."""
    return tuple(use for definition in networks for use in _uses(definition))


def _uses(definition: NetworkDefinition) -> Iterator[Use]:
    network = f"{definition.namespace}/{definition.name}"
    for plugin in _parsed(definition).plugins:
        try:
            found = documents.convert(plugin, _Plugin)
        except CniError:
            continue
        yield Use(
            network=network,
            plugin=found.type,
            master=_master(found),
            mtu_bytes=found.mtu,
            is_in_pod=found.link_in_container,
            is_gateway=found.is_gateway or found.is_default_gateway,
        )
        ipam = plugin.get("ipam")
        if isinstance(ipam, Mapping) and isinstance(named := ipam.get("type"), str) and named:
            yield Use(network=network, plugin=named)


def _parsed(definition: NetworkDefinition) -> ConfList:
    try:
        return conflists.parse(definition.config.encode(), default_name=definition.name)
    except CniError:
        return ConfList(cni_version="", name=definition.name, plugins=())


def _master(plugin: _Plugin) -> str | None:
    if plugin.type in ("macvlan", "ipvlan", "vlan"):
        return plugin.master
    return None
