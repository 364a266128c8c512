"""What docs/networks.md shows is what the code reads and writes."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import msgspec
import pytest

from homeport.cni import conflists
from homeport.model.errors import CniError
from homeport.model.results import Interface, IPConfig, Result, Route
from homeport.multinet import capabilities, isolation, requests, selections, settings, statuses
from homeport.multinet.requests import ResolvedNetwork

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WHERE = 2  # the replica that the page's examples speak of


def blocks(language: str) -> list[str]:
    return [match[2] for match in FENCE.finditer(PAGE) if match[1] == language]


SELECTIONS = [block for block in blocks("json") if "interface" not in block or '"namespace"' in block]


@pytest.mark.parametrize("line", [line for block in blocks("text") for line in block.splitlines()])
def test_a_short_form_is_read(line: str) -> None:
    assert selections.parse(line, "shop")


@pytest.mark.parametrize("text", SELECTIONS)
def test_a_json_form_is_read(text: str) -> None:
    assert selections.parse(text, "shop", ordinal=WHERE)


def test_every_field_is_shown_and_explained() -> None:
    every = SELECTIONS[0]
    fields = {"name", "namespace", "interface", "ips", "mac", "infiniband-guid", "portMappings", "bandwidth"}
    fields |= {"deviceID", "cni-args", "default-route", "ipam-claim-reference"}
    shown = {key for entry in json.loads(every) for key in entry}
    explained = {key for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for key in re.findall(r"`(.*?)`", row)}
    wire = {field.encode_name for field in msgspec.structs.fields(selections._WireSelection)}
    assert shown == fields == wire - {"interfaceRequest"}
    assert fields <= explained


def test_the_example_s_replica_has_what_the_page_says() -> None:
    (text,) = [block for block in SELECTIONS if "{ordinal+10}" in block]
    (selection,) = selections.parse(text, "shop", ordinal=WHERE)
    assert [str(ip).partition("/")[0] for ip in selection.ips] == ["10.13.19.12", "fd00:13::12"]
    assert all(f"`{said}`" in PAGE for said in ("10.13.19.12", "fd00:13::12", "02:00:00:13:19:0c"))
    assert selection.mac == "02:00:00:13:19:0c"
    with pytest.raises(CniError):
        selections.parse(text, "shop")


@pytest.mark.parametrize(("request_", "known"), [("ips", capabilities.READING_IP), ("mac", capabilities.READING_MAC)])
def test_plugins_that_need_not_declare_are_named(request_: str, known: frozenset[str]) -> None:
    table = PAGE.partition("| request | plugins that need not declare it |")[2].partition("\n\n")[0]
    (row,) = re.findall(rf"^\| `{request_}` \| (.*) \|$", table, re.MULTILINE)
    assert sorted(re.split(r"[,;] ", row)) == sorted(known)


def test_the_status_is_written_as_shown() -> None:
    (shown,) = [block for block in blocks("json") if '"dns"' in block]
    cluster = Result(
        interfaces=(Interface(name="eth0", mac="0a:58:0a:f4:01:07", sandbox="/x"),),
        ips=(IPConfig(address=ip_interface("10.244.1.7/24"), interface=0),),
        routes=(Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.244.1.1")),),
    )
    storage = Result(
        interfaces=(Interface(name="net1", mac="02:00:00:13:19:01", sandbox="/x"),),
        ips=(IPConfig(address=ip_interface("10.13.19.1/24"), interface=0),),
    )
    entries = [
        *statuses.of_result("cluster", cluster, default=True),
        *statuses.of_result("shop/storage", storage),
    ]
    assert statuses.text(entries) == shown.rstrip("\n")


def refusals() -> list[str]:
    """What pods are told that make the mistakes of the page's last table."""
    plain = conflists.parse({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ipvlan"}]})
    node = {"cniVersion": "1.0.0", "name": "n", "type": "multus", "clusterNetwork": "n", "namespaceIsolation": True}
    configured = settings.parse(node)

    def start(annotation: str) -> None:
        wanted = selections.parse(annotation, "shop")
        isolation.require_permitted(wanted, "shop", configured)
        resolved = [ResolvedNetwork(name=f"{s.namespace}/{s.name}", network=plain, selection=s) for s in wanted]
        main = ResolvedNetwork(name="n", network=plain, main=True)
        requests.delegates_of(
            [main, *resolved],
            container_args={},
            runtime_config={},
            main_ifname="eth0",
            settings=configured,
            devices={},
        )

    said = []
    for annotation in (
        "vlan{ordinal}",
        '[{"name": "a", "ips": ["10.0.0.9"]}]',
        "a@net2,a",
        '[{"name": "a", "default-route": ["10.0.0.1"]}, {"name": "a", "default-route": ["10.0.0.2"]}]',
        "x/a",
        '[{"name": "a", "ips": ["x"]}]',
    ):
        with pytest.raises(CniError) as caught:
            start(annotation)
        said.append(caught.value.msg)
    return said


def test_refusals_read_as_the_page_has_them() -> None:
    table = PAGE.partition("## When a pod does not start")[2].partition("\n## ")[0]
    quoted = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    written = [re.escape(q).replace(r"\.\.\.", ".*").replace("a/b", "shop/a").replace("c/d", "shop/a") for q in quoted]
    assert len(written) == 6
    for pattern, message in zip(written, refusals(), strict=True):
        assert re.search(pattern, message), message
