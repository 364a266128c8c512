"""From the primary plugin's configuration and the daemon's to the file that the runtime reads."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from homeport.cni import conflists
from homeport.daemon import generating
from homeport.daemon.generating import Generation
from homeport.model.errors import CniError, IncompatibleVersion, InvalidNetConf

PATH = "/etc/cni/net.d/10-calico.conflist"
CALICO = {
    "cniVersion": "0.3.1",
    "name": "k8s-pod-network",
    "plugins": [
        {"type": "calico", "kubernetes": {"kubeconfig": "/x"}, "capabilities": {"ips": True, "io.x/y": False}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "tuning"},
    ],
}


def primary(**changes: Any) -> conflists.ConfList:
    return conflists.parse({**CALICO, **changes})


def wanted(**raw: Any) -> Generation:
    found = generating.parse({"multusConfigFile": "auto", **raw})
    assert found is not None
    return found


def generated(network: conflists.ConfList, **raw: Any) -> dict[str, Any]:
    text = generating.generate(network, PATH, wanted(**raw))
    assert b"\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_whole_file() -> None:
    text = generating.generate(primary(), PATH, wanted())
    assert text.decode() == (
        '{"cniVersion":"0.3.1","name":"multus-cni-network","type":"homeport",'
        '"capabilities":{"bandwidth":true,"ips":true,"portMappings":true},'
        '"clusterNetwork":"/etc/cni/net.d/10-calico.conflist"}'
    )


def test_a_runtime_can_read_it() -> None:
    network = conflists.parse(generating.generate(primary(cniVersion="1.0.0"), PATH, wanted(cniVersion="1.1.0")))
    assert (network.name, network.cni_version, len(network.plugins)) == ("multus-cni-network", "1.1.0", 1)


ROWS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # primary, daemon, expected keys
    ({}, {"cniVersion": "0.2.0"}, {"cniVersion": "0.2.0"}),
    ({"cniVersion": "1.0.0"}, {"cniVersion": "0.3.1"}, {"cniVersion": "0.3.1"}),
    ({"cniVersion": "1.0.0"}, {}, {"cniVersion": "1.0.0"}),
    ({"cniVersion": "0.4.0"}, {"cniVersion": "1.1.0"}, {"cniVersion": "1.1.0"}),
    ({}, {"cniVersion": "1.1.0", "forceCNIVersion": True}, {"cniVersion": "1.1.0"}),
    ({"cniVersions": ["0.3.1", "1.0.0"]}, {"cniVersion": "1.0.0"}, {"cniVersion": "1.0.0"}),
    ({}, {"overrideNetworkName": True}, {"name": "k8s-pod-network"}),
    ({}, {"shimType": "multus-shim"}, {"type": "multus-shim"}),
    ({}, {"shimType": "multus-shim", "socketDir": "/run/homeport"}, {"daemonSocketDir": "/run/homeport"}),
    ({}, {"shimType": "multus-shim", "socketDir": "/a", "daemonSocketDir": "/b"}, {"daemonSocketDir": "/b"}),
    ({}, {"DAEMONSOCKETDIR": "/b"}, {"daemonSocketDir": "/b"}),
    ({"plugins": [{"type": "x"}]}, {}, {}),
    ({"plugins": [{"type": "x", "capabilities": ["ips"]}]}, {}, {}),
    (
        {},
        {
            "binDir": "/b", "cniDir": "/c", "logFile": "/l", "logLevel": "debug", "logToStderr": False,
            "logOptions": {"maxAge": 1}, "namespaceIsolation": True, "globalNamespaces": "default,a",
            "auxiliaryCNIChainName": "vendor",
        },
        {
            "binDir": "/b", "cniDir": "/c", "logFile": "/l", "logLevel": "debug", "logToStderr": False,
            "logOptions": {"maxAge": 1}, "namespaceIsolation": True, "globalNamespaces": "default,a",
            "auxiliaryCNIChainName": "vendor",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("network", "raw", "expected"), ROWS)
def test_keys(network: dict[str, Any], raw: dict[str, Any], expected: dict[str, Any]) -> None:
    found = generated(primary(**network), **raw)
    assert {key: found[key] for key in expected} == expected
    assert set(found) - set(expected) <= {"cniVersion", "name", "type", "capabilities", "clusterNetwork"}


def test_what_is_not_for_the_runtime_stays_out() -> None:
    found = generated(primary(), kubeconfig="/secret", readinessindicatorfile="/r", socketDir="/s", delegates=[{}])
    assert set(found) == {"cniVersion", "name", "type", "capabilities", "clusterNetwork"}
    assert "capabilities" not in generated(primary(plugins=[{"type": "x"}]))


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("theirs", ["0.3.1", "0.2.0", ""])
def test_a_primary_without_check_is_refused(version: str, theirs: str) -> None:
    with pytest.raises(IncompatibleVersion, match=f"found .*, expected 0.4.0 or later to offer {version}") as caught:
        generated(primary(cniVersion=theirs), cniVersion=version)
    assert "forceCNIVersion" in caught.value.details


PARSED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"multusConfigFile": "auto"}, {"target": "/etc/cni/net.d/00-multus.conf", "primary_dir": "/etc/cni/net.d"}),
    (
        {"multusConfigFile": "auto", "cniConfigDir": "/host/net.d/"},
        {"target": "/host/net.d/00-multus.conf", "primary_dir": "/host/net.d"},
    ),
    (
        {"MultusConfigFile": "auto", "cniconfigdir": "/a", "multusAutoconfigDir": "/b", "multusMasterCNI": "10-x.conf"},
        {"target": "/a/00-multus.conf", "primary_dir": "/b", "primary": "10-x.conf"},
    ),
    ({"multusConfigFile": "/opt/our.conflist"}, {"target": "/etc/cni/net.d/our.conflist"}),
    ({"multusConfigFile": "auto", "readinessIndicatorFile": "/r"}, {"readiness_file": "/r"}),
    ({"multusConfigFile": "auto", "keepConfigOnExit": False}, {"keep_on_exit": False}),
]


@pytest.mark.parametrize(("raw", "expected"), PARSED)
def test_settings(raw: dict[str, Any], expected: dict[str, Any]) -> None:
    found = generating.parse(raw)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("raw", [{}, {"multusConfigFile": ""}, {"multusConfigFile": None, "cniVersion": "9"}])
def test_nothing_is_to_be_written(raw: dict[str, Any]) -> None:
    assert generating.parse(raw) is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"multusConfigFile": "auot"}, 'key "multusConfigFile": found "auot", expected an absolute path'),
        ({"cniConfigDir": "net.d"}, 'key "cniConfigDir": found "net.d", expected an absolute path'),
        ({"multusAutoconfigDir": "net.d"}, 'key "multusAutoconfigDir"'),
        ({"multusMasterCNI": "../x.conf"}, 'key "multusMasterCNI": found "../x.conf", expected'),
        ({"forceCNIVersion": "yes"}, 'key "forceCNIVersion": found "yes"'),
        ({"shimType": "a/b"}, 'key "shimType"'),
        ({"cniVersion": "2.0.0"}, 'cniVersion: found "2.0.0"'),
    ],
)
def test_wrong_settings(raw: dict[str, Any], text: str) -> None:
    with pytest.raises(CniError, match=re.escape(text)):
        wanted(**raw)


def test_candidates_in_order_of_names() -> None:
    names = ["99-z.conf", "10-a.conflist", "00-multus.conf", "00-multus.conflist", "05-x.json", "10-a.conf", "README"]
    assert generating.candidates([*names, ".10-a.conf.swp", "multus.d"]) == ["10-a.conf", "10-a.conflist", "99-z.conf"]


@pytest.mark.parametrize(
    ("plugin_type", "ours"),
    [("homeport", True), ("multus", True), ("multus-shim", True), ("custom-shim", True), ("calico", False)],
)
def test_a_configuration_that_leads_to_us(plugin_type: str, ours: bool) -> None:
    network = primary(plugins=[{"type": "tuning"}, {"type": plugin_type}])
    assert generating.is_ours(network, wanted(shimType="custom-shim")) is ours


def test_settings_are_values() -> None:
    assert wanted() == wanted()
    with pytest.raises(AttributeError):
        wanted().primary = "x"  # type: ignore[misc]  # that it is refused is the point
    assert msgspec.structs.replace(wanted(), primary="x") != wanted()


def test_an_unknown_version_of_the_primary() -> None:
    with pytest.raises(IncompatibleVersion):
        primary(cniVersion="3.0.0")
    with pytest.raises(InvalidNetConf):
        primary(plugins=[])
