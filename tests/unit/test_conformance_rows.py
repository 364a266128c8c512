"""What `homeport conformance` makes of networks and of what it sees; its reports; its rows against the matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from conformance import MATRIX, rows_of
from typer.testing import CliRunner

from homeport.admission.registering import wanted
from homeport.admission.settings import AdmissionSettings
from homeport.cli.conformance import complete_rows
from homeport.cli.main import app
from homeport.cni import conflists
from homeport.conformance import manifests, matrix, observing, reports, templates
from homeport.conformance.observing import View
from homeport.conformance.reports import Outcome, Report, Verdict
from homeport.conformance.templates import Template
from homeport.ipam.pools import parse_pool
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf
from homeport.ports import ApiObject

WHEREABOUTS: Mapping[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "lan",
    "plugins": [
        {
            "type": "macvlan",
            "master": "eth1",
            "mtu": 1400,
            "ipam": {
                "type": "whereabouts",
                "range": "10.1.0.0/24",
                "range_start": "10.1.0.10",
                "range_end": "10.1.0.29",
                "exclude": ["10.1.0.24/30"],
                "gateway": "10.1.0.20",
                "network_name": "blue",
                "sticky": {"whenScaled": "Release"},
                "addresses": [{"address": "10.1.0.200/24"}],
            },
        },
        {"type": "sbr"},
    ],
}


def template(config: Mapping[str, Any] = WHEREABOUTS, *ranges: str) -> Template:
    return templates.of_config(json.dumps(config), "ns/lan", ranges)


def single(ipam: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"cniVersion": "0.3.1", "type": "macvlan", "master": "eth1", "ipam": ipam}


def addresses(*texts: str) -> tuple[IPAddress, ...]:
    return tuple(map(ip_address, texts))


# --- networks --------------------------------------------------------------------------------------------------------


def test_a_copy_is_the_network_with_another_range_and_policy() -> None:
    found = template()
    assert found.scope == "blue"
    room = templates.room_of(found, taken=(), most=64)
    window = templates.window_of(room, 1, 2)
    text = templates.config_of(found, "copy", window, {"retainFor": "5s"}, [{"type": "tuning"}])
    made = conflists.parse(text.encode())
    assert (made.name, made.cni_version) == ("copy", "1.0.0")
    assert made.plugins == (
        {
            "type": "macvlan",
            "master": "eth1",
            "mtu": 1400,
            "ipam": {
                "type": "whereabouts",
                "gateway": "10.1.0.20",
                "network_name": "blue",
                "range": "10.1.0.0/24",
                "range_start": str(window[0][0]),
                "range_end": str(window[0][1]),
                "sticky": {"retainFor": "5s"},
            },
        },
        {"type": "sbr"},
        {"type": "tuning"},
    )
    pool = parse_pool(json.loads(text)["plugins"][0]["ipam"], network="copy")
    assert [pool.ranges[0].range.nth(n) for n in range(3)] == [*window[0], None]


def test_the_room_leaves_out_what_is_excluded_taken_or_the_gateway() -> None:
    """10.1.0.24 to .27 are excluded and .20 is the gateway: .10 to .19 are the longest row, unless some are taken."""
    assert templates.room_of(template(), (), 64) == (addresses(*(f"10.1.0.{n}" for n in range(10, 20))),)
    assert templates.room_of(template(), (), 3) == (addresses("10.1.0.17", "10.1.0.18", "10.1.0.19"),)
    taken = addresses("10.1.0.12", "10.1.0.15", "10.1.0.18", "10.2.0.1")
    assert templates.room_of(template(), taken, 64) == (addresses("10.1.0.21", "10.1.0.22", "10.1.0.23"),)


def test_both_families_get_equally_many() -> None:
    ranges = [{"range": "10.1.0.0/30"}, {"range": "fd00::/64", "range_end": "fd00::9"}]
    found = template(single({"type": "whereabouts", "ipRanges": ranges}))
    room = templates.room_of(found, (), 64)
    assert room == (addresses("10.1.0.1", "10.1.0.2"), addresses("fd00::8", "fd00::9"))
    ipam = json.loads(templates.config_of(found, "copy", room, None, ()))["plugins"][0]["ipam"]
    assert ipam["ipRanges"] == [
        {"range": "10.1.0.0/30", "range_start": "10.1.0.1", "range_end": "10.1.0.2"},
        {"range": "fd00::/64", "range_start": "fd00::8", "range_end": "fd00::9"},
    ]


def test_given_ranges_stand_in_for_the_networks_own() -> None:
    found = template(WHEREABOUTS, "10.9.0.0/29")
    assert templates.room_of(found, (), 64) == (addresses(*(f"10.9.0.{n}" for n in range(1, 7))),)


def test_a_range_without_a_free_address_leaves_no_room() -> None:
    found = template(single({"type": "whereabouts", "range": "10.1.0.0/30"}))
    assert templates.room_of(found, addresses("10.1.0.1", "10.1.0.2"), 64) == ((),)


@pytest.mark.parametrize(
    ("ipam", "first", "gateway"),
    [
        ({"subnet": "10.1.0.0/29"}, "10.1.0.2", {}),
        ({"ranges": [[{"subnet": "10.1.0.0/29", "gateway": "10.1.0.6"}]]}, "10.1.0.1", {"gateway": "10.1.0.6"}),
        ({"ranges": [[{"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.4"}]]}, "10.1.0.4", {}),
    ],
)
def test_host_local_is_copied_too(ipam: Mapping[str, Any], first: str, gateway: Mapping[str, str]) -> None:
    found = template(single({"type": "host-local", "dataDir": "/var/x", **ipam}))
    room = templates.room_of(found, (), 64)
    assert room[0][0] == ip_address(first)
    made = json.loads(templates.config_of(found, "copy", templates.window_of(room, 0, 2), {"adopt": "Never"}, ()))
    one = {"subnet": "10.1.0.0/29", "rangeStart": first, "rangeEnd": str(ip_address(first) + 1), **gateway}
    assert made["plugins"][0]["ipam"] == {"type": "host-local", "dataDir": "/var/x", "ranges": [[one]]}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (single({"type": "dhcp"}), 'key "ipam.type": found "dhcp", expected "whereabouts" or "host-local"'),
        ({"cniVersion": "0.3.1", "type": "macvlan"}, 'key "ipam.type": found null'),
        (single({"type": "whereabouts"}), "found no range"),
        (single({"type": "whereabouts", "range": "10.1.0.0"}), "10.1.0.0"),
        ({"cniVersion": "1.0.0", "name": "lan"}, 'found no key "plugins"'),
        ({"cniVersion": "1.0.0", "plugins": []}, 'key "plugins"'),
    ],
)
def test_what_no_copy_can_be_made_of_is_named(config: Mapping[str, Any], said: str) -> None:
    with pytest.raises(CniError) as refused:
        template(config)
    assert said in str(refused.value)


def test_pods_ask_for_the_devices_that_a_network_is_made_of() -> None:
    """One for each time the network is selected (`k8s.v1.cni.cncf.io/resourceName`)."""
    made = manifests.workload("web", "StatefulSet", 3, ["a", "b"], image="none", resource="vendor.com/vf")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"vendor.com/vf": "2"}
    assert container["resources"]["requests"]["vendor.com/vf"] == "2"
    annotations = manifests.definition("a", "{}", "vendor.com/vf")["metadata"]["annotations"]
    assert annotations == {"k8s.v1.cni.cncf.io/resourceName": "vendor.com/vf"}
    plain = manifests.workload("web", "StatefulSet", 3, ["a"], image="none")
    assert plain["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {}


def test_a_bridge_is_called_by_its_own_key() -> None:
    assert templates.of_master("br7", "bridge", ["10.9.0.0/24"]).main == {"type": "bridge", "bridge": "br7"}
    assert templates.of_master("eth1", "ipvlan", ["10.9.0.0/24"]).main == {"type": "ipvlan", "master": "eth1"}


def test_whose_interfaces_have_macs_of_their_own() -> None:
    kinds = {kind: templates.of_master("eth1", kind, ["10.9.0.0/24"]).has_own_mac for kind in ("macvlan", "ipvlan")}
    assert kinds == {"macvlan": True, "ipvlan": False}


# --- what is seen ----------------------------------------------------------------------------------------------------


def pod(status: object, **metadata: Any) -> ApiObject:
    annotations = {"k8s.v1.cni.cncf.io/network-status": status if isinstance(status, str) else json.dumps(status)}
    body = {
        "metadata": {"name": "web-0", "uid": "u", "annotations": annotations, "labels": {"w": "web"}, **metadata},
        "spec": {"nodeName": "a"},
        "status": {"phase": "Running"},
    }
    return ApiObject(namespace="ns", name="web-0", uid="u", version="1", body=msgspec.json.encode(body))


def view(name: str, *texts: str, phase: str = "Running", going: bool = False) -> View:
    return View(
        name=name,
        uid=name,
        node="a",
        workload="web",
        phase=phase,
        going=going,
        owned=True,
        addresses={"net1": addresses(*texts)},
        macs={},
    )


def test_a_pod_as_its_network_status_tells() -> None:
    status = [
        {"name": "cluster", "interface": "eth0", "ips": ["10.77.0.2"], "default": True, "dns": {}},
        {"name": "ns/lan", "interface": "net1", "ips": ["fd00::2", "10.1.0.2"], "mac": "0A:00:00:00:00:01"},
    ]
    seen = observing.view_of(pod(status), "w")
    assert seen.addresses == {"net1": addresses("10.1.0.2", "fd00::2")}
    assert seen.macs == {"net1": "0a:00:00:00:00:01"}
    assert (seen.workload, seen.node, seen.is_up) == ("web", "a", True)
    assert not observing.view_of(pod(status, deletionTimestamp="2026-01-01T00:00:00Z"), "w").is_up
    assert not observing.view_of(pod(status[:1]), "w").is_up


@pytest.mark.parametrize("status", ["{", "[1]", '[{"interface": "net1", "ips": ["10.1"]}]', '[{"ips": 7}]'])
def test_a_network_status_that_cannot_be_read_is_not_an_empty_one(status: str) -> None:
    with pytest.raises(DecodeFailure, match="decode pod web-0"):
        observing.view_of(pod(status), "w")


def test_an_address_that_two_have() -> None:
    assert observing.twice([view("a", "10.1.0.1"), view("b", "10.1.0.2")]) == ""
    assert observing.twice([view("a", "10.1.0.1"), view("b", "10.1.0.1")]) == "a and b both have 10.1.0.1"
    assert observing.twice([view("a", "10.1.0.1", going=True), view("b", "10.1.0.1")]) == ""
    assert observing.twice([view("a", "10.1.0.1", phase="Failed"), view("b", "10.1.0.1")]) == ""


def test_a_difference_names_each_pod() -> None:
    one, other = {"net1": addresses("10.1.0.1")}, {"net1": addresses("10.1.0.2", "fd00::2"), "net2": ()}
    assert observing.difference({"a": one}, {"a": one}) == ""
    assert observing.difference({"a": one, "b": one}, {"a": other, "b": one, "c": one}) == (
        "a: found 10.1.0.1, expected net1 10.1.0.2 and fd00::2, net2 no address; "
        "c: found no running pod, expected 10.1.0.1"
    )


# --- reports ---------------------------------------------------------------------------------------------------------


def outcome(verdict: Verdict, reason: str = "", seen: Sequence[str] = ()) -> Outcome:
    return Outcome(
        row="E2",
        event="all pods deleted at once",
        expected="same",
        verdict=verdict,
        reason=reason,
        seen=tuple(seen),
        seconds=1.26,
    )


def report(*outcomes: Outcome, **facts: Any) -> Report:
    return Report(network="ns/lan", namespace="homeport-conformance-1", records=True, outcomes=outcomes, **facts)


PASSED, NOT_RUN = outcome(Verdict.PASSED), outcome(Verdict.NOT_RUN, "a node would have to lose its power")
FAILED = outcome(Verdict.FAILED, 'web-0: found "<none>"\x1b', ["pod web-0 on a: Running", "event: <&>"])


@pytest.mark.parametrize(
    ("given", "green"),
    [
        (report(PASSED), True),
        (report(PASSED, NOT_RUN), True),
        (report(PASSED, FAILED), False),
        (report(NOT_RUN), False),
        (report(), False),
        (report(PASSED, left=("namespace x",)), False),
        (report(PASSED, interrupted=True), False),
    ],
)
def test_green_is_what_passed_and_left_nothing(given: Report, green: bool) -> None:
    assert given.is_green == green
    assert reports.as_value(given)["green"] == green


def test_a_row_for_people() -> None:
    assert reports.line_of(PASSED) == "E2   passed   all pods deleted at once (1.3 s)"
    assert reports.line_of(FAILED).splitlines()[1:] == [
        '     web-0: found "<none>"\x1b',
        "     expected: same",
        "     seen: pod web-0 on a: Running",
        "     seen: event: <&>",
    ]


def test_junit_can_be_read_whatever_is_in_it() -> None:
    given = report(PASSED, FAILED, NOT_RUN, left=("namespace x",), seconds=3.0)
    suite = ElementTree.fromstring(reports.as_junit(given)).find("testsuite")
    assert suite is not None
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "4",
        "failures": "2",
        "skipped": "1",
        "errors": "0",
    }
    passed, failed, skipped, clean = suite.findall("testcase")
    assert list(passed) == []
    (failure,) = failed.findall("failure")
    assert failure.get("message") == 'web-0: found "<none>"?'
    assert "event: <&>" in (failure.text or "")
    assert [problem.get("message") for problem in skipped.findall("skipped")] == ["a node would have to lose its power"]
    assert clean.get("name") == "clean-up"
    assert [problem.get("message") for problem in clean.findall("failure")] == ["namespace x"]


# --- the matrix ------------------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_the_page() -> None:
    assert [(row.name, row.event, row.outcome) for row in matrix.ROWS] == [
        (row.name, row.event, row.outcome) for row in rows_of(MATRIX.read_text())
    ]
    assert all(bool(row.run) != bool(row.why_not) for row in matrix.ROWS)


def test_admission_leaves_a_run_alone() -> None:
    """Rows make mistakes, to see what ADD says to them."""
    settings = AdmissionSettings(port=1, address="::", namespace="n", where="https://h", server_name="h")
    key, value = next(iter(manifests.IGNORED.items()))
    for webhook in wanted(settings, b"", every=False):
        expressions = webhook["namespaceSelector"]["matchExpressions"]
        assert {"key": key, "operator": "NotIn", "values": [value]} in expressions, webhook["name"]


def test_rows_are_listed_and_completed() -> None:
    listed = CliRunner().invoke(app, ["conformance", "--list"])
    assert listed.exit_code == 0
    lines = {line.split()[0]: line for line in listed.output.splitlines()[1:]}
    assert list(lines) == [row.name for row in matrix.ROWS]
    assert lines["E5"].endswith("no: a node would have to lose its power")
    assert lines["E22"].endswith("with --disruptive")
    assert complete_rows("E2,e1") == [f"E2,E1{n}" for n in ("", *range(10))]


def test_rows_are_chosen_by_name() -> None:
    assert [row.name for row in matrix.chosen(["e7", " E2", ""])] == ["E2", "E7"]
    assert len(matrix.chosen([""])) == len(matrix.ROWS)
    with pytest.raises(InvalidNetConf, match='row "E99": found no such row, expected some of E1 to E26'):
        matrix.chosen(["E1", "E99"])
