"""Manifests become values, or an error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.ipam.identities import Workload
from homeport.lab import manifests
from homeport.model.errors import CniError

EXAMPLES = Path(__file__).parents[2] / "examples"
STATEFUL_SET = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata:
      annotations: {k8s.v1.cni.cncf.io/networks: lan}
"""
NETWORK = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: n}
spec: {config: {}}
"""


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_read(file: Path) -> None:
    found = manifests.parse(file.read_text(), file.name)
    assert found.networks or found.workloads
    assert not found.skipped


def test_everything_a_workload_says_is_kept() -> None:
    text = """\
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  annotations: {homeport.dev/retention: '{"whenDeleted": "Retain"}'}
spec:
  replicas: 4
  ordinals: {start: 5}
  podManagementPolicy: Parallel
  updateStrategy: {type: OnDelete, rollingUpdate: {partition: 6}}
  template:
    metadata:
      labels: {app: web}
      annotations: {k8s.v1.cni.cncf.io/networks: lan}
"""
    (spec,) = manifests.parse(text, "web.yaml").workloads
    assert spec.workload == Workload("default", "StatefulSet", "web")
    assert (spec.replicas, spec.ordinals_start, spec.partition) == (4, 5, 6)
    assert (spec.pod_management, spec.update_strategy) == ("Parallel", "OnDelete")
    assert spec.annotations == {"homeport.dev/retention": '{"whenDeleted": "Retain"}'}
    assert (spec.template.labels, spec.template.annotations) == ({"app": "web"}, {"k8s.v1.cni.cncf.io/networks": "lan"})


def test_what_kubernetes_leaves_out_has_kubernetes_defaults() -> None:
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {}}\n"
    (spec,) = manifests.parse(text, "d.yaml").workloads
    assert (spec.replicas, spec.ordinals_start, spec.pod_management) == (1, 0, "OrderedReady")


def test_documents_and_lists_are_opened_and_other_kinds_named() -> None:
    inner = "\n".join(f"    {line}" for line in STATEFUL_SET.splitlines())
    service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
    text = f"---\n---\napiVersion: v1\nkind: List\nitems:\n  -\n{inner}\n{service}"
    found = manifests.parse(text, "all.yaml")
    assert [w.workload.name for w in found.workloads] == ["web"]
    assert found.skipped == (manifests.Skipped("Service", "s", "all.yaml:16"),)


def test_files_add_up_in_order() -> None:
    one = manifests.parse(STATEFUL_SET, "a.yaml")
    two = manifests.parse(STATEFUL_SET.replace("web", "db"), "b.yaml")
    assert [w.workload.name for w in (one + two).workloads] == ["web", "db"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "m.yaml:1:5: not YAML"),
        ("a: 1\na: 2\n", "not YAML"),
        ("- 1\n", "read m.yaml: found a list, expected a Kubernetes object"),
        ("kind: Pod\n", "m.yaml:1: apiVersion: missing"),
        ("apiVersion: v1\n", "m.yaml:1: kind: missing"),
        ("apiVersion: v1\nkind: List\nitems: 3\n", "m.yaml:3: items: found 3, expected a list"),
        ("apiVersion: v1\nkind: List\nitems:\n- 3\n", "m.yaml:4: items[0]: found 3, expected a mapping"),
        ("apiVersion: apps/v1beta1\nkind: StatefulSet\n", 'apiVersion: found "apps/v1beta1", expected "apps/v1"'),
        (STATEFUL_SET.replace("name: web,", ""), "m.yaml:3: metadata.name: missing"),
        (STATEFUL_SET.replace("name: web", "name: Web_1"), 'm.yaml:3: metadata.name: found "Web_1"'),
        (STATEFUL_SET.replace("shop", "'sh/op'"), 'm.yaml:3: metadata.namespace: found "sh/op"'),
        (STATEFUL_SET.replace("replicas: 2", "replicas: -1"), "m.yaml:5: spec.replicas: found -1"),
        (STATEFUL_SET.replace("replicas: 2", "replicas: yes"), "m.yaml:5: spec.replicas: found"),
        (STATEFUL_SET.replace("replicas: 2", "replicas: '2'"), 'm.yaml:5: spec.replicas: found "2"'),
        (STATEFUL_SET.replace("replicas: 2", "podManagementPolicy: Any"), 'expected "OrderedReady" or "Parallel"'),
        (STATEFUL_SET.replace(": lan}", ": 7}"), "m.yaml:8: spec.template.metadata.annotations.k8s.v1"),
        (STATEFUL_SET.replace("  template:", "  other:"), "m.yaml:5: spec.template: missing"),
        (NETWORK, "m.yaml:4: spec.config: found a mapping, expected a string"),
        (NETWORK.replace("{}", "' '"), 'm.yaml:4: spec.config of "default/n": empty'),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(CniError) as raised:
        manifests.parse(text, "m.yaml")
    assert said in str(raised.value)
