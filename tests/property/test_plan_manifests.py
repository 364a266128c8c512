"""Whatever stands in a manifest, a plan of it is a plan, or one of our errors."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from homeport.cli import plan_files
from homeport.ipam.planning import make_plan
from homeport.model.errors import CniError

CONFIG = {
    "cniVersion": "1.0.0",
    "plugins": [
        {
            "type": "macvlan",
            "master": "eth1",
            "vlan": 7,
            "ipam": {
                "type": "whereabouts",
                "range": "10.0.0.0/28",
                "exclude": ["10.0.0.3"],
                "gateway": "10.0.0.1",
                "ipRanges": [{"range": "fd00::/120"}],
                "addresses": [{"address": "10.0.0.2/28"}],
                "sticky": {"order": "ordinal", "replicas": {"default/web": ["10.0.0.5"]}},
            },
        }
    ],
}
OBJECTS: list[Any] = [
    {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "net"},
        "spec": {"config": CONFIG},
    },
    *(
        {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": "web", "annotations": {"homeport.dev/retention": "{}"}},
            "spec": {
                "replicas": 2,
                "parallelism": 2,
                "ordinals": {"start": 1},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
                "template": {
                    "metadata": {
                        "annotations": {
                            "k8s.v1.cni.cncf.io/networks": '[{"name": "net", "interface": "net7"}]',
                            "homeport.dev/addresses": '{"net": ["10.0.0.6", "10.0.0.7"]}',
                        }
                    }
                },
            },
        }
        for kind in ("StatefulSet", "Deployment", "CronJob", "Pod")
    ),
]
scalars = st.sampled_from(
    [None, True, -1, 0, 3, 10**7, 1.5, "", "x", "net", "{ordinal}", "10.0.0.0/33", "-5%", [], {}, [1], ["a"], {"a": 1}]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, below in items for place in places(below, (*path, key))]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(OBJECTS)), scalars, st.booleans()), max_size=4))
def test_any_manifest(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    objects = copy.deepcopy(OBJECTS)
    for path, value, removed in changes:
        target: Any = objects
        try:
            for key in path[:-1]:
                target = target[key]
            if removed:
                del target[path[-1]]
            else:
                target[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):  # another change has taken its place away
            continue
    for obj in objects:
        spec = obj.get("spec") if isinstance(obj, dict) else None
        if isinstance(spec, dict) and isinstance(spec.get("config"), dict):
            spec["config"] = json.dumps(spec["config"])
    try:
        found = plan_files.read({"a.yaml": "\n---\n".join(map(json.dumps, objects))}, "default")
        asked = plan_files.ask(found, None, ())
        plan = make_plan(
            asked.demands,
            asked.crowds,
            (),
            at=datetime.now(UTC),
            reservations=asked.reservations,
            clashes=asked.problems,
        )
        event("clashes" if plan.clashes else "a plan")
    except CniError as error:
        event(type(error).__name__)
