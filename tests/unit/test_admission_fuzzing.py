"""Whatever is written, a review of it is answered, and a bug of ours is never the answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.admission_reviews import NETWORKS, Desk, Json, definition, network_config, review, workload

from homeport.admission.reviewing import REVIEWED, SCALED
from homeport.stores.kubernetes.resources import IPALLOCATIONS

WORDS = st.sampled_from(
    [
        "",
        "storage",
        "10.9.0.1",
        "10.9.0.0/29",
        "fd00::/64",
        "whereabouts",
        "{ordinal}",
        "[{",
        '{"name": 5}',
        "\x00",
        "é" * 300,
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
KEYS = ("type", "master", "ipam", "plugins", "cniVersion", "name", "capabilities", "mtu", "vlan")
IPAM = ("type", "range", "range_start", "range_end", "exclude", "gateway", "ipRanges", "sticky", "routes", "addresses")
SLOW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def answered(desk: Desk, raw: bytes) -> Json:
    response: Json = json.loads(desk.reviewer.review(raw))["response"]
    assert response["uid"] == json.loads(raw)["request"]["uid"]
    assert not any("an error of its own" in line for line in response.get("warnings", [])), response
    return response


@SLOW
@given(what=st.sampled_from([*REVIEWED, *SCALED]), new=VALUES, old=VALUES)
def test_any_json_for_an_object(what: str, new: Any, old: Any) -> None:
    body = json.loads(review(workload(), workload(replicas=1), resource=what.partition("/")[0]))
    body["request"]["subResource"] = what.partition("/")[2]
    body["request"]["object"], body["request"]["oldObject"] = new, old
    answered(Desk(), json.dumps(body).encode())


@SLOW
@given(keys=st.dictionaries(st.sampled_from(KEYS), VALUES), ipam=st.dictionaries(st.sampled_from(IPAM), VALUES))
def test_any_values_in_a_network(keys: Json, ipam: Json) -> None:
    config = network_config()
    config = {**config, "ipam": {**config["ipam"], **ipam}, **keys}
    desk = Desk()
    desk.has(definition(), definition("beside"), workload())
    answered(desk, review(definition(config=config), definition()))
    answered(desk, review(definition(), definition(config=config)))
    desk.has(definition(config=config))
    answered(desk, review(workload(replicas=9)))


@SLOW
@given(networks=WORDS, notes=VALUES, replicas=SCALARS)
def test_any_annotations_on_a_workload(networks: str, notes: Any, replicas: Any) -> None:
    body = workload(pod_annotations={NETWORKS: networks, "homeport.dev/addresses": json.dumps(notes)})
    body["spec"]["replicas"] = replicas
    desk = Desk()
    desk.has(definition())
    answered(desk, review(body))
    answered(desk, review(body, workload()))


@SLOW
@given(text=st.text(max_size=60))
def test_any_text_for_a_configuration_or_a_selection(text: str) -> None:
    desk = Desk()
    desk.has(definition())
    answered(desk, review(definition(config=text), definition()))
    answered(desk, review(workload(networks=text)))


@SLOW
@given(spec=VALUES, status=VALUES, operation=st.sampled_from(["CREATE", "UPDATE", "DELETE"]))
def test_any_allocation(spec: Any, status: Any, operation: str) -> None:
    body = {"kind": IPALLOCATIONS.kind, "metadata": {"name": "10.9.0.1"}, "spec": spec, "status": status}
    new, old = {"CREATE": (body, None), "UPDATE": (body, body), "DELETE": (None, body)}[operation]
    answered(Desk(), review(new, old))
