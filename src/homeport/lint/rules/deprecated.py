"""Rules about keys of earlier days. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint.findings import Edit, Found, Severity
from homeport.lint.manifests import DEFAULT_NETWORK, NETWORKS, Manifests, Network
from homeport.lint.nodes import Node
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.editing import remove_member
from homeport.lint.rules.selections import OLD_IFNAME

_ETCD = "etcd"


@network_rule("removed-key", Severity.WARNING, fix="removes it")
def removed_key(network: Network) -> Iterator[Found]:
    """A key of Whereabouts is about its etcd backend, which is gone.

    Whereabouts 0.6 removed it. The keys are ignored, and addresses are counted in Kubernetes objects, whatever
    `etcd_host` names.
    """
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if ipam is None or ipam.text("type") != "whereabouts":
            continue
        for member in ipam.members:
            if member.name.startswith(f"{_ETCD}_") or (member.name == "datastore" and member.value.value == _ETCD):
                yield network.found(
                    member.key.span,
                    f"key {shown(member.name)} is for the etcd backend, which Whereabouts no longer has",
                    "it has no effect; remove it",
                    (remove_member(ipam, member.name),),
                )


@rule("deprecated-key", Severity.INFO, fix="writes the present key, unless it is there too")
def deprecated_key(manifests: Manifests) -> Iterator[Found]:
    """A network selection uses `interfaceRequest`, the earlier name of `interface`.

    It is still read, but some versions of Multus ignored it (3.2, 3.3), and where `interface` is given too it has no
    effect.
    """
    for workload in manifests.workloads:
        for key in (NETWORKS, DEFAULT_NETWORK):
            text = workload.annotations.get(key)
            for element in _elements(text.root if text is not None else None):
                member = element.member(OLD_IFNAME)
                if text is None or member is None:
                    continue
                both = element.get("interface") is not None
                edits: tuple[Edit, ...] = () if both else (text.edit(member.key.span, '"interface"'),)
                yield Found(
                    file=workload.file,
                    span=member.key.span,
                    found=f'key "{OLD_IFNAME}" is deprecated',
                    right='"interface" is there already; remove it' if both else 'its present name is "interface"',
                    edits=edits,
                )


def _elements(root: Node | None) -> tuple[Node, ...]:
    """The entries of a selection that is a JSON list."""
    return tuple(item for item in root.items if item.kind == "object") if root is not None else ()
