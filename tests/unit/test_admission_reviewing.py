"""Reviews: what a change makes wrong is refused, in lint's words and at its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.admission_reviews import NETWORKS, Desk, Json, definition, network_config, review, scale, workload

from homeport.admission.reviews import Request
from homeport.kube.resources import DEFINITIONS, DEPLOYMENTS, STATEFUL_SETS
from homeport.stores.kubernetes.resources import IPRANGES

OTHER = {"homeport.dev/addresses": '{"storage": ["10.9.0.1", "10.9.0.2"]}'}


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.has(definition())
    return made


def changed(body: Json, *path: str | int, to: Any) -> Json:
    """A copy with another value at a path."""
    copy: Json = json.loads(json.dumps(body))
    node: Any = copy
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return copy


# --- what is said, and where ---


def test_what_is_right_is_allowed_without_a_word(desk: Desk) -> None:
    assert desk.ask(workload()) == {"uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c", "allowed": True}
    assert desk.ask(definition()) == {"uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c", "allowed": True}


def test_an_error_is_denied_with_rule_and_place(desk: Desk) -> None:
    response = desk.ask(definition(range="10.9.0.0/33"))
    status = response["status"]
    assert (response["allowed"], status["code"], status["reason"]) == (False, 403, "Forbidden")
    assert status["message"] == (
        'homeport: address-syntax: "10.9.0.0/33"; expected a network with its prefix, such as 10.1.2.0/24'
        " (spec.config ipam.range)"
    )
    (cause,) = status["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("address-syntax", "spec.config ipam.range")


def test_a_warning_is_a_warning(desk: Desk) -> None:
    (line,) = desk.warned(definition(gateway="10.10.0.1"))
    assert line.startswith("homeport: gateway-outside: gateway 10.10.0.1 is not in 10.9.0.0/29; ")
    assert line.endswith("(spec.config ipam.gateway)")


def test_an_object_may_say_what_is_not_to_be_said_of_it(desk: Desk) -> None:
    wrong = definition(range="10.9.0.0/33")
    wrong["metadata"]["annotations"] = {"homeport.dev/lint-ignore": "address-syntax"}
    assert desk.warned(wrong) == []


def test_what_is_worth_knowing_is_not_said(desk: Desk) -> None:
    assert desk.warned(definition(gateway="10.9.0.1")) == []


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("{", "spec.config"),
        (
            changed(network_config(), "ipam", "ipRanges", to=[{"range": "nonsense"}]),
            "spec.config ipam.ipRanges[0].range",
        ),
        (
            {"cniVersion": "1.0.0", "name": "n", "plugins": [network_config(range="10.9.0.0/33")]},
            "spec.config plugins[0].ipam.range",
        ),
    ],
)
def test_places_are_paths_of_the_api(desk: Desk, config: Any, place: str) -> None:
    denied = desk.denied(definition(config=config))
    assert denied
    assert all(f"({place})" in line for line in denied)


def test_at_most_ten_errors_are_told_and_the_rest_counted(desk: Desk) -> None:
    lines = desk.denied(definition(exclude=[f"no-address-{n}" for n in range(14)]))
    assert len(lines) == 11
    assert lines[-1] == "homeport: and 4 errors more"


def test_warnings_are_short_few_and_printable(desk: Desk) -> None:
    name = "x" * 300 + "\r\nX-Header: 1\x00"
    asked = desk.ask(definition(exclude=[f"10.{n}.0.0/16" for n in range(20, 40)]))
    assert len(asked["warnings"]) == 13
    assert asked["warnings"][-1] == "homeport: and 8 more; homeport lint --cluster lists them"
    said = desk.ask(definition(config={**network_config(), name: 1}))
    lines = [*said.get("warnings", []), *said.get("status", {}).get("message", "").split("\n")]
    assert all(len(line) <= 256 for line in said.get("warnings", []))
    assert all(line.isprintable() for line in lines)
    assert sum(map(len, asked["warnings"])) <= 4096


# --- workloads against the cluster ---


def test_a_pool_too_small_names_the_network_and_who_asks(desk: Desk) -> None:
    desk.has(workload("other", 4))
    (line,) = desk.denied(workload(replicas=3))
    assert 'StatefulSet "other" asks for 4' in line
    assert 'StatefulSet "web" asks for 3' in line
    assert line.endswith("(NetworkAttachmentDefinition shop/storage, spec.config ipam.range)")
    assert desk.warned(workload(replicas=2)) == []


def test_a_pool_that_is_too_small_already_is_not_made_smaller_still(desk: Desk) -> None:
    """Others' trouble is no reason to refuse what does not add to it."""
    desk.has(workload("other", 9))
    assert desk.rules(workload(replicas=1)) == ["pool-too-small"]
    assert desk.ask(workload("else", networks=""))["allowed"]
    labelled = workload("other", 9, annotations={"team": "a"})
    assert desk.denied(labelled, workload("other", 9)) == []


@pytest.mark.parametrize("fewer", [8, 7, 0])
def test_whoever_scales_down_is_not_locked_out(desk: Desk, fewer: int) -> None:
    desk.has(workload(replicas=9))
    assert desk.denied(workload(replicas=fewer), workload(replicas=9)) == []


def test_whoever_makes_it_worse_is_refused(desk: Desk) -> None:
    desk.has(workload(replicas=9))
    assert desk.rules(workload(replicas=10), workload(replicas=9)) == ["pool-too-small"]


def test_whoever_comes_to_a_full_network_from_another_is_refused(desk: Desk) -> None:
    desk.has(definition("wide", range="10.1.0.0/24"), workload("other", 9))
    assert desk.rules(workload(replicas=2), workload(replicas=2, networks="wide")) == ["pool-too-small"]
    assert desk.denied(workload(replicas=2, networks="wide"), workload(replicas=2)) == []


def test_other_namespaces_are_others(desk: Desk) -> None:
    desk.has(definition(namespace="lab"), workload("other", 6, namespace="lab"))
    desk.objects.deliver()
    assert desk.warned(workload(namespace="none")) == [
        'homeport: unknown-network: network "none/storage" is not in the cluster; pods wait until it is there'
        f' (spec.template.metadata.annotations["{NETWORKS}"])'
    ]


def test_a_network_that_the_watch_has_not_told_of_is_asked_for(desk: Desk) -> None:
    desk.has(definition("new"), watched=False)
    assert desk.warned(workload(networks="new")) == []
    assert desk.rules(workload(networks="new", replicas=9)) == ["pool-too-small"]


def test_a_network_is_missing_only_when_the_api_server_says_so(desk: Desk) -> None:
    desk.objects.reachable = False
    assert desk.warned(workload(networks="nowhere")) == []
    desk.objects.reachable = True
    assert "nowhere" in desk.warned(workload(networks="nowhere"))[0]


def test_nobody_is_refused_for_what_was_true_before(desk: Desk) -> None:
    """The network is larger by now, and the other workload gone: the watches just have not told."""
    assert desk.rules(workload(replicas=9)) == ["pool-too-small"]
    desk.has(definition(range="10.9.0.0/24"), watched=False)
    assert desk.denied(workload(replicas=9)) == []
    desk.has(definition(), workload("other", 6))
    assert desk.rules(workload(replicas=1)) == ["pool-too-small"]
    desk.objects.delete(STATEFUL_SETS, "other", namespace="shop")
    assert desk.denied(workload(replicas=1)) == []


def test_nobody_is_refused_for_what_cannot_be_confirmed(desk: Desk) -> None:
    desk.has(workload("other", 6))
    desk.objects.reachable = False
    assert desk.denied(workload(replicas=1)) == []
    wrong = workload(replicas=1, pod_annotations={"homeport.dev/retention": '{"retainFor": "soon"}'})
    assert desk.rules(wrong) == ["bad-duration"], "what needs nothing else is refused all the same"


def test_a_workload_that_is_being_deleted_asks_for_nothing(desk: Desk) -> None:
    ending = changed(workload("other", 6), "metadata", "deletionTimestamp", to="2026-11-23T10:00:00Z")
    desk.has(ending)
    assert desk.denied(workload(replicas=6)) == []


def test_another_workload_of_its_name_is_itself(desk: Desk) -> None:
    """Made again before the watch told of its end."""
    desk.has(workload(replicas=6))
    assert desk.denied(workload(replicas=6)) == []


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "ReplicaSet", "Job", "Pod"])
def test_every_kind_that_makes_pods_is_looked_at(desk: Desk, kind: str) -> None:
    body = workload(kind=kind, networks="[{")
    if kind == "Pod":
        body = {"kind": "Pod", "metadata": {**body["metadata"], "annotations": {NETWORKS: "[{"}}, "spec": {}}
    assert "annotation-syntax" in desk.rules(body)


def test_cron_jobs_are_looked_at(desk: Desk) -> None:
    body = {
        "kind": "CronJob",
        "metadata": {"name": "night", "namespace": "shop"},
        "spec": {"jobTemplate": {"spec": {"template": {"metadata": {"annotations": {NETWORKS: "[{"}}}}}},
    }
    assert "annotation-syntax" in desk.rules(body)


def test_what_a_controller_made_was_reviewed_before(desk: Desk) -> None:
    owner: list[Json] = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u", "controller": True}]
    made = changed(workload(kind="ReplicaSet", networks="[{"), "metadata", "ownerReferences", to=owner)
    assert desk.denied(made) == []
    metadata: Json = {"name": "db-0", "namespace": "shop", "annotations": {NETWORKS: "n{ordinal}"}}
    owned = {**metadata, "ownerReferences": [{**owner[0], "kind": "Cluster"}]}
    assert desk.denied({"kind": "Pod", "metadata": owned}) == [], "a template that its maker alone understands"
    assert desk.rules({"kind": "Pod", "metadata": metadata}) == ["annotation-syntax"]


def test_an_object_without_a_name_yet(desk: Desk) -> None:
    body = changed(workload(replicas=9), "metadata", to={"generateName": "web-", "annotations": {}})
    raw = json.loads(review(body))
    raw["request"]["namespace"] = "shop"
    answered = json.loads(desk.reviewer.review(json.dumps(raw).encode()))["response"]
    assert not answered["allowed"], "its namespace is the request's"


# --- changes ---


def test_an_update_that_changes_nothing_of_networks_is_allowed(desk: Desk) -> None:
    old = definition(range="10.9.0.0/33")
    new = changed(old, "metadata", "labels", to={"a": "b"})
    assert desk.ask(new, old) == {"uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c", "allowed": True}


def test_a_rollout_that_changes_nothing_of_networks_is_not_even_looked_at(desk: Desk) -> None:
    wrong = workload(networks="[{")
    container = {"name": "main", "env": [{"name": "VERSION", "value": "2"}], "volumeMounts": [], "args": ["--fast"]}
    template = ("spec", "template", "spec", "containers")
    old = changed(wrong, *template, to=[{"name": "main", "env": []}])
    assert desk.ask(changed(wrong, *template, to=[container]), old).keys() == {"uid", "allowed"}


def test_an_error_that_was_there_is_a_warning(desk: Desk) -> None:
    old = definition(range="10.9.0.0/33")
    config = json.loads(old["spec"]["config"])
    (line,) = desk.warned(definition(config={**config, "mtu": 1400}), old)
    assert line.startswith("homeport: address-syntax: ")
    assert "it was so before" in line


def test_an_error_that_is_mended_wrongly_is_refused(desk: Desk) -> None:
    assert desk.rules(definition(range="10.9.0.0/34"), definition(range="10.9.0.0/33")) == ["address-syntax"]


def test_an_error_elsewhere_is_new(desk: Desk) -> None:
    old = definition(range="10.9.0.0/33")
    lines = desk.ask(definition(range="10.9.0.0/33", gateway="nowhere"), old)
    (told,) = lines["status"]["message"].split("\n")
    assert "(spec.config ipam.gateway)" in told
    assert "it was so before" in lines["warnings"][0]


def test_a_pool_that_shrinks_below_what_runs_is_refused(desk: Desk) -> None:
    desk.has(workload(replicas=5))
    assert desk.rules(definition(range="10.9.0.0/30"), definition()) == ["pool-too-small"]


def test_what_is_being_deleted_may_change(desk: Desk) -> None:
    """Finalizers are removed by updates."""
    ending = changed(definition(range="10.9.0.0/33"), "metadata", "deletionTimestamp", to="2026-11-23T10:00:00Z")
    assert desk.denied(ending, definition()) == []


def test_the_copy_that_kubectl_keeps_is_not_read(desk: Desk) -> None:
    copy = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(workload(networks="[{"))}
    assert desk.warned(workload(annotations=copy)) == []


def test_deleting_a_network_is_not_reviewed(desk: Desk) -> None:
    assert desk.warned(None, definition()) == []


# --- E16: maps ---


@pytest.mark.parametrize(
    ("addresses", "entry", "said"),
    [
        (["10.9.0.1", "10.9.0.2", "10.9.0.2"], "[2]", "10.9.0.2 is mapped twice"),
        (["10.9.0.1", "10.9.0.2", "10.9.0.77"], "[2]", "10.9.0.77; expected an address of 10.9.0.1-10.9.0.6"),
        (["10.9.0.1", "10.9.0.2"], "", "the map has 2 entries"),
    ],
)
@pytest.mark.parametrize("where", ["template", "workload", "network"])
def test_e16_a_wrong_map_is_denied_with_the_entry_named(
    desk: Desk, addresses: list[str], entry: str, said: str, where: str
) -> None:
    if where == "network":
        desk.has(workload())
        sticky = {"replicas": {"shop/web": addresses}}
        (line,) = desk.denied(definition(sticky=sticky), definition())
        place = f'spec.config ipam.sticky.replicas["shop/web"]{entry}'
    else:
        note = {"homeport.dev/addresses": json.dumps({"storage": addresses})}
        body = workload(pod_annotations=note) if where == "template" else workload(annotations=note)
        (line,) = desk.denied(body)
        holder = "spec.template.metadata" if where == "template" else "metadata"
        place = f'{holder}.annotations["homeport.dev/addresses"] storage{entry}'
    assert said in line
    assert line.endswith(f"({place})")


def test_a_network_whose_map_is_too_short_is_named_when_the_workload_grows(desk: Desk) -> None:
    desk.has(definition(sticky={"replicas": {"shop/web": ["10.9.0.1", "10.9.0.2"]}}), workload(replicas=2))
    (line,) = desk.denied(workload(replicas=3), workload(replicas=2))
    assert "the map has 2 entries" in line
    assert 'NetworkAttachmentDefinition shop/storage, spec.config ipam.sticky.replicas["shop/web"]' in line


# --- scale ---


@pytest.mark.parametrize(("kind", "resource"), [("StatefulSet", STATEFUL_SETS), ("Deployment", DEPLOYMENTS)])
def test_scaling_beyond_the_pool_is_refused(desk: Desk, kind: str, resource: Any) -> None:
    desk.has(workload(kind=kind))
    asked: dict[str, Any] = {"resource": resource.plural, "subresource": "scale"}
    assert desk.rules(scale("web", 7), scale("web", 3), **asked) == ["pool-too-small"]
    assert desk.denied(scale("web", 6), scale("web", 3), **asked) == []
    assert desk.denied(scale("web", 7), scale("web", 9), **asked) == []
    assert desk.denied(scale("gone", 7), scale("gone", 3), **asked) == []


def test_scaling_beyond_the_map_is_refused(desk: Desk) -> None:
    desk.has(workload(replicas=2, pod_annotations=OTHER))
    asked: dict[str, Any] = {"resource": "statefulsets", "subresource": "scale"}
    (line,) = desk.denied(scale("web", 3), scale("web", 2), **asked)
    assert "map-too-short" in line


def test_scaling_what_cannot_be_asked_for_is_allowed(desk: Desk) -> None:
    desk.has(workload())
    desk.objects.reachable = False
    (line,) = desk.warned(scale("web", 7), scale("web", 3), resource="statefulsets", subresource="scale")
    assert line.startswith("homeport: not looked at: ")
    assert desk.counted("statefulsets/scale", "failed") == 1


# --- a range taken from under its addresses ---


def taken(taken: str, last: str = "10.9.0.6") -> Json:
    name = f"10.9.0.1.{last}"
    return {
        "kind": "IPRange",
        "metadata": {"name": name},
        "spec": {"first": "10.9.0.1", "last": last, "subnet": "10.9.0.0/29"},
        "status": {"usable": 6, "taken": taken, "updated": "2026-11-23T10:00:00Z"},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"range": "10.9.0.0/30"}, "10.9.0.3, 10.9.0.4, 10.9.0.5 are allocated and are not in the range any more"),
        ({"exclude": ["10.9.0.4/32"]}, "10.9.0.4 is allocated and is not in the range any more"),
        ({"range": "10.77.0.0/24"}, "10.9.0.1, 10.9.0.2, 10.9.0.3 and 2 more are allocated"),
        ({"network_name": "blue"}, "10.9.0.1, 10.9.0.2, 10.9.0.3 and 2 more are allocated"),
        ({"range": "10.9.0.0/24"}, ""),
        ({"exclude": ["10.9.0.6/32"]}, ""),
    ],
)
def test_a_range_taken_from_under_its_addresses_is_warned_of(desk: Desk, changes: Json, said: str) -> None:
    desk.objects.create(IPRANGES, taken("0-4"))
    lines = desk.warned(definition(**changes), definition())
    if said:
        assert lines[0].startswith(f"homeport: range-in-use: {said}")
    else:
        assert lines == []


def test_without_a_count_of_the_range_nothing_is_said(desk: Desk) -> None:
    assert desk.warned(definition(range="10.77.0.0/24"), definition()) == []
    desk.objects.create(IPRANGES, taken("0-4"))
    desk.objects.reachable = False
    assert desk.warned(definition(range="10.77.0.0/24"), definition()) == []


# --- what never happens ---


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "u"}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": null}',
    ],
)
def test_what_is_no_review_is_answered(desk: Desk, raw: bytes) -> None:
    response = json.loads(desk.reviewer.review(raw))["response"]
    assert (response["uid"], response["allowed"]) == ("", True)
    assert response["warnings"][0].startswith("homeport: not looked at: ")


@pytest.mark.parametrize(
    "odd", [[], "text", 5, {"metadata": 5}, {"metadata": {"annotations": {"cni": 1}}}, {"spec": []}]
)
def test_odd_objects_are_answered(desk: Desk, odd: Any) -> None:
    raw = json.loads(review(workload()))
    raw["request"]["object"] = odd
    response = json.loads(desk.reviewer.review(json.dumps(raw).encode()))["response"]
    assert response["uid"] == raw["request"]["uid"]
    assert response["allowed"]


def test_a_bug_refuses_nobody_anything(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object, _request: Request) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(desk.reviewer), "_answer", broken)
    (line,) = desk.warned(workload())
    assert "an error of its own" in line
    assert desk.counted("statefulsets", "failed") == 1


def test_unknown_resources_are_allowed(desk: Desk) -> None:
    raw = json.loads(review(workload(networks="[{")))
    raw["request"]["resource"]["resource"] = "frobnicators"
    assert json.loads(desk.reviewer.review(json.dumps(raw).encode()))["response"]["allowed"]
    assert desk.counted("unknown", "allowed") == 1, "and no label is made of what a stranger sends"


def test_outcomes_are_counted(desk: Desk) -> None:
    desk.ask(definition())
    desk.ask(definition(gateway="10.10.0.1"))
    desk.ask(definition(range="nonsense"))
    plural = DEFINITIONS.plural
    assert [desk.counted(plural, o) for o in ("allowed", "warned", "denied", "failed")] == [1, 1, 1, 0]
    seconds = desk.registry.get_sample_value("homeport_admission_review_seconds_count", {"resource": plural})
    assert seconds == 3


def test_facts_say_when_they_are_complete() -> None:
    desk = Desk()
    assert desk.registry.get_sample_value("homeport_admission_facts_complete") == 0
    desk.objects.deliver()
    assert desk.registry.get_sample_value("homeport_admission_facts_complete") == 1


def test_facts_forget_what_is_gone(desk: Desk) -> None:
    desk.has(workload("other", 6))
    desk.objects.delete(STATEFUL_SETS, "other", namespace="shop")
    desk.objects.deliver()
    desk.objects.on_call = lambda call: pytest.fail(f"asked for {call.name}: the watches told everything")
    assert desk.denied(workload(replicas=6)) == []
    desk.objects.on_call = lambda _call: None
    desk.objects.delete(DEFINITIONS, "storage", namespace="shop")
    desk.objects.deliver()
    assert "is not in the cluster" in desk.warned(workload())[0]


def test_unreadable_objects_of_the_cluster_concern_nobody(desk: Desk) -> None:
    desk.objects.create(DEFINITIONS, {"metadata": {"name": "odd", "annotations": {"a": 1}}}, namespace="shop")
    desk.objects.deliver()
    assert desk.denied(workload(networks="odd")) == []
