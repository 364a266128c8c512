"""IPAMClaims: addresses that belong to a name, for whatever pod refers to it. No I/O.

NPWG multi-network specification v1.3, `k8s.cni.cncf.io/v1alpha1` IPAMClaim: a network selection names one in its pod's
namespace by `ipam-claim-reference`, and the pod has the claim's addresses on that network. They reach the network's
plugins in `args.cni`, below `ARGUMENT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.cni.conflists import ConfList
from homeport.model.addresses import IPAddress
from homeport.model.errors import DecodeFailure, InvalidNetConf, TryAgainLater

ARGUMENT = "homeport.dev/ipam-claim"


class IpamClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim as the API server has it. `network` is what `spec.network` names, "" for any; `ips` are as written."""

    namespace: str
    name: str
    network: str = ""
    ips: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What an IPAM plugin is told: the addresses it is to hand out, and by which claim."""

    claim: str
    addresses: tuple[IPAddress, ...]


class _Spec(msgspec.Struct):
    network: str = ""


class _Status(msgspec.Struct):
    ips: list[str] = []


class _Claim(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Argument(msgspec.Struct):
    claim: str
    ips: list[str]


def decode(namespace: str, name: str, body: bytes) -> IpamClaim:
    """Raises `DecodeFailure`."""
    what = f'IPAMClaim "{namespace}/{name}"'
    wire = documents.convert(documents.decode_object(body, what), _Claim, at=what, error=DecodeFailure)
    return IpamClaim(namespace=namespace, name=name, network=wire.spec.network, ips=tuple(wire.status.ips))


def cni_args(claim: IpamClaim, network: ConfList, definition: str) -> Mapping[str, Any]:
    """The claim's addresses as an argument to the plugins of a network, `definition` being NAMESPACE/NAME of that.

    Raises `InvalidNetConf` for a claim that is of another network, or has what is no address; `TryAgainLater` for one
    that has no addresses yet.
    """
    ours = {"", network.name, definition, definition.partition("/")[2]}
    if claim.network not in ours:
        raise InvalidNetConf(
            f'use IPAMClaim "{claim}": found it of network "{claim.network}", expected "{network.name}"'
        )
    if not claim.ips:
        raise TryAgainLater(f'use IPAMClaim "{claim}": found no addresses in status.ips yet')
    keys = (f'use IPAMClaim "{claim}": key "status.ips[{n}]"' for n in range(len(claim.ips)))
    addresses = [str(_address(text, key)) for text, key in zip(claim.ips, keys, strict=True)]
    return {ARGUMENT: {"claim": str(claim), "ips": addresses}}


def claimed_of(conf: Mapping[str, Any]) -> Claimed | None:
    """What `cni_args` told a plugin; None when there is no claim."""
    args = conf.get("args")
    given = args.get("cni") if isinstance(args, Mapping) else None
    told = given.get(ARGUMENT) if isinstance(given, Mapping) else None
    if told is None:
        return None
    at = f'args.cni["{ARGUMENT}"]'
    argument = documents.convert(told, _Argument, at=at)
    addresses = tuple(_address(text, f"key '{at}.ips[{n}]'") for n, text in enumerate(argument.ips))
    return Claimed(claim=argument.claim, addresses=addresses)


def _address(text: str, at: str) -> IPAddress:
    """With a prefix length or without."""
    try:
        if "%" in text:
            raise ValueError("a zone has no meaning here")
        return ip_interface(text).ip if "/" in text else ip_address(text)
    except ValueError as e:
        raise InvalidNetConf(f"{at}: found {documents.shown(text)}, expected an IP address") from e
