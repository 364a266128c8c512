"""Rules about the annotations of networks: where they are read, and where they mean something."""

from __future__ import annotations

import pytest
from tests.lint_manifests import listed, places, require_firing, require_silent, workload

from homeport.lint.checking import check
from homeport.lint.fixing import fix

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT = "v1.multus-cni.io/default-network"
NET = listed('{"type":"macvlan","ipam":{"type":"whereabouts","range":"10.1.0.0/24"}}')
SRIOV = NET.replace("name: net,", "name: net, annotations: {k8s.v1.cni.cncf.io/resourceName: example.com/vf},")


def owned(annotations: str, *, kind: str = "Deployment", template: str = "", spec: str = "{}") -> str:
    """A workload with annotations of its own and of its pods, each a flow mapping."""
    return (
        f"---\nkind: {kind}\nmetadata:\n  name: web\n  namespace: ns\n  annotations: {{{annotations}}}\nspec:\n"
        f"  template:\n    metadata:\n      annotations: {{{template}}}\n    spec: {spec}\n"
    )


def pod(annotations: str, spec: str = "{}") -> str:
    return f"---\nkind: Pod\nmetadata:\n  name: p\n  namespace: ns\n  annotations: {{{annotations}}}\nspec: {spec}\n"


CRON = (
    "---\nkind: CronJob\nmetadata: {name: c, namespace: ns}\nspec:\n  jobTemplate:\n    metadata:\n"
    "      annotations: {«k8s.v1.cni.cncf.io/networks: net}\n    spec:\n      template:\n        spec: {}\n"
)

FIRING = [
    *(
        ("annotation-misplaced", owned(f"«{NETWORKS}: net", kind=kind))
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "ReplicationController")
    ),
    ("annotation-misplaced", owned(f"«{DEFAULT}: kube-system/net")),
    ("annotation-misplaced", CRON),
    ("annotation-misplaced", pod("").replace("annotations:", f"labels: {{«{NETWORKS}: net}}\n  annotations:")),
    ("annotation-misplaced", NET.replace("name: net,", f"name: net, annotations: {{«{NETWORKS}: net}},")),
    ("annotation-misplaced", pod("«k8s.v1.cni.cncf.io/resourceName: example.com/vf")),
    (
        "annotation-misplaced",
        owned("").replace("    spec: {}", f"    annotations: {{«{NETWORKS}: net}}\n    spec: {{}}"),
    ),
    ("annotation-key", pod("«k8s.v1.cni.cncf.io/network: net")),
    ("annotation-key", pod("«k8s.v1.cni.cncf.io/netwroks: net")),
    ("annotation-key", pod("«k8s.cni.cncf.io/networks: net")),
    ("annotation-key", pod("«kubernetes.v1.cni.cncf.io/networks: net")),
    ("annotation-key", pod('«networks: \'[{"name": "net"}]\'')),
    ("annotation-key", pod("«k8s.v1.cni.cncf.io/networks-default: net")),
    ("annotation-key", owned("", template="«v1.multus-cni.io/default-networks: kube-system/net")),
    ("annotation-key", owned("«homeport.dev/address: x", kind="StatefulSet")),
    ("annotation-not-string", pod(f"{NETWORKS}: «[{{name: net}}]")),
    ("annotation-not-string", pod(f"{NETWORKS}: «5")),
    ("annotation-not-string", owned("homeport.dev/addresses: «{net: [10.1.0.5]}", kind="StatefulSet")),
    ("status-by-hand", owned("", template="«k8s.v1.cni.cncf.io/network-status: '[]'")),
    ("status-by-hand", owned("", template="«k8s.v1.cni.cncf.io/networks-status: '[]'")),
    ("host-network", pod(f"«{NETWORKS}: net", "{hostNetwork: true}")),
    ("host-network", owned("", template=f"«{DEFAULT}: kube-system/net", spec="{hostNetwork: true}")),
    ("no-replicas", owned("«homeport.dev/addresses: '{}'")),
    ("no-replicas", owned("", kind="DaemonSet", template="«homeport.dev/retention: '{}'")),
    ("resource-not-requested", SRIOV + pod(f"{NETWORKS}: «net", "{containers: [{resources: {limits: {cpu: 1}}}]}")),
]


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


VF = '{containers: [{resources: {limits: {"example.com/vf": 1}}}]}'

SILENT = {
    "in the template": NET + owned("", template=f"{NETWORKS}: net"),
    "in the template, and on the workload for people to see": NET
    + owned(f"{NETWORKS}: net", template=f"{NETWORKS}: net"),
    "of other programs": pod(
        "networks: a.b, k8s.ovn.org/pod-networks: x, cni.projectcalico.org/ipAddrs: x, example.com/networks: x,"
        " k8s.v1.cni.cncf.io/policy-for: x"
    ),
    "Homeport's own on what it writes": pod("homeport.dev/owner: x, homeport.dev/node: y"),
    "a running pod": NET + pod(f"{NETWORKS}: net, k8s.v1.cni.cncf.io/network-status: '[]'"),
    "hostNetwork without a wish": pod("a: b", "{hostNetwork: true}"),
    "hostNetwork denied": NET + pod(f"{NETWORKS}: net", "{hostNetwork: false}"),
    "a map on replicas": NET + owned("homeport.dev/addresses: '{}'", kind="StatefulSet", template=f"{NETWORKS}: net"),
    "a device requested": SRIOV + pod(f"{NETWORKS}: net", VF),
    "a device requested by an init container": SRIOV
    + pod(f"{NETWORKS}: net", VF.replace("containers", "initContainers")),
    "a null": pod(f"{NETWORKS}: null"),
    "another kind with annotations": "kind: Service\nmetadata: {annotations: {k8s.v1.cni.cncf.io/networks: net}}\n",
    "no metadata at all": "kind: Deployment\nspec: {template: {}}\n---\nkind: Pod\n",
    "metadata of another shape": "kind: Pod\nmetadata: [a]\n---\nkind: Pod\nmetadata: {annotations: [a], labels: b}\n",
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text)


def fixed(text: str) -> str:
    return fix({"a.yaml": text}).texts["a.yaml"]


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_misspelt_key_is_mended_in_its_own_quotes(quote: str) -> None:
    written = pod(f"{quote}k8s.v1.cni.cncf.io/network{quote}: net")

    assert fixed(NET + written) == NET + pod(f"{quote}{NETWORKS}{quote}: net")


def test_a_key_is_not_written_twice() -> None:
    both = NET + pod(f"k8s.v1.cni.cncf.io/network: a, {NETWORKS}: net")
    two = NET + pod("k8s.v1.cni.cncf.io/network: net, kubernetes.v1.cni.cncf.io/networks: net")

    assert fixed(both) == both
    assert fixed(two) == two.replace("cncf.io/network:", "cncf.io/networks:")


def test_the_default_network_is_not_guessed() -> None:
    text = pod("k8s.v1.cni.cncf.io/networks-default: net")

    assert fixed(text) == text
    assert check({"a.yaml": text}).findings[0].right == f"did you mean {DEFAULT}?"


def test_a_template_and_its_workload_are_told_apart() -> None:
    text = NET + owned("homeport.dev/retention: '{}'", template=f"{NETWORKS}: net, homeport.dev/retention: '{{}}'")

    assert [rule for rule, _, _ in places(text)] == ["no-replicas", "no-replicas"]


def test_one_device_missing_is_told_once() -> None:
    assert [rule for rule, _, _ in places(SRIOV + workload("net,net@b"))] == ["resource-not-requested"]
