"""The meta-plugin's configuration: every key of Multus's and of ours, and what stands where one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from homeport.model.errors import CniError, IncompatibleVersion, InvalidNetConf
from homeport.multinet import isolation, selections, settings
from homeport.multinet.settings import Log, LogOptions, Settings

REQUEST: Mapping[str, Any] = {"cniVersion": "1.0.0", "name": "node", "type": "multus", "clusterNetwork": "cluster"}
DEFAULTS = Settings(cni_version="1.0.0", name="node", cluster_network="cluster")


def parse(**keys: Any) -> Settings:
    return settings.parse({**REQUEST, **keys})


def test_defaults_are_multus_s() -> None:
    assert parse() == DEFAULTS
    assert (DEFAULTS.conf_dir, DEFAULTS.cni_dir, DEFAULTS.bin_dir) == (
        "/etc/cni/multus/net.d",
        "/var/lib/cni/multus",
        "/opt/cni/bin",
    )
    assert (DEFAULTS.multus_namespace, DEFAULTS.system_namespaces) == ("kube-system", ("kube-system",))
    assert (DEFAULTS.namespace_isolation, DEFAULTS.global_namespaces) == (False, ("default",))
    assert DEFAULTS.log == Log(file=None, level="panic", to_stderr=True, options=LogOptions())
    assert DEFAULTS.log.options == LogOptions(max_age=5, max_size=100, max_backups=5, compress=True)
    assert (DEFAULTS.kubeconfig, DEFAULTS.readiness_indicator_file, DEFAULTS.unhonoured) == (None, None, "Error")
    assert not DEFAULTS.retry_delete_on_error


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ({"confDir": "/c"}, "conf_dir", "/c"),
        ({"confDir": ""}, "conf_dir", "/etc/cni/multus/net.d"),
        ({"cniDir": "/d"}, "cni_dir", "/d"),
        ({"binDir": "/b"}, "bin_dir", "/b"),
        ({"kubeconfig": "/k"}, "kubeconfig", "/k"),
        ({"kubeconfig": ""}, "kubeconfig", None),
        ({"defaultNetworks": ["a", "b"]}, "default_networks", ("a", "b")),
        ({"multusNamespace": "net"}, "multus_namespace", "net"),
        ({"systemNamespaces": ["a"]}, "system_namespaces", ("a",)),
        ({"systemNamespaces": []}, "system_namespaces", ()),
        ({"namespaceIsolation": True}, "namespace_isolation", True),
        ({"globalNamespaces": " a, b ,"}, "global_namespaces", ("a", "b")),
        ({"globalNamespaces": ""}, "global_namespaces", ("default",)),
        ({"readinessindicatorfile": "/r"}, "readiness_indicator_file", "/r"),
        ({"readinessIndicatorFile": "/r"}, "readiness_indicator_file", "/r"),
        ({"readinessIndicatorFile": "/x", "readinessindicatorfile": "/r"}, "readiness_indicator_file", "/r"),
        ({"readinessindicatorfile": "/r", "readinessIndicatorFile": "/x"}, "readiness_indicator_file", "/r"),
        ({"NamespaceIsolation": True}, "namespace_isolation", True),
        ({"logFile": "/l"}, "log", Log(file="/l")),
        ({"logLevel": "DEBUG"}, "log", Log(level="debug")),
        ({"logLevel": ""}, "log", Log()),
        ({"logToStderr": False}, "log", Log(to_stderr=False)),
        ({"logToStderr": None}, "log", Log()),
        (
            {"logOptions": {"maxAge": 1, "maxSize": 2, "maxBackups": 3, "compress": False}},
            "log",
            Log(options=LogOptions(max_age=1, max_size=2, max_backups=3, compress=False)),
        ),
        ({"logOptions": {"MaxAge": 1}}, "log", Log(options=LogOptions(max_age=1))),
        ({"runtimeConfig": {"dns": {}, "ips": ["x"]}}, "runtime_config", {"dns": {}, "ips": ["x"]}),
        ({"auxiliaryCNIChainName": "more"}, "auxiliary_cni_chain_name", "more"),
        ({"retryDeleteOnError": True}, "retry_delete_on_error", True),
        ({"execTypes": ["bridge"]}, "exec_types", ("bridge",)),
        ({"unhonouredRequests": "Ignore"}, "unhonoured", "Ignore"),
        ({"replicaKinds": [{"apiGroup": "a", "kind": "K"}]}, "replica_kinds", ({"apiGroup": "a", "kind": "K"},)),
        ({"cniVersion": ""}, "cni_version", "0.1.0"),
        ({"prevResult": {"ips": []}}, "name", "node"),
    ],
)  # fmt: skip
def test_each_key(keys: Mapping[str, Any], field: str, value: object) -> None:
    assert getattr(parse(**keys), field) == value


def test_delegates_are_kept_as_they_are_written() -> None:
    delegates = [{"type": "bridge", "mtu": None}, {"plugins": [{"type": "ipvlan"}]}]
    parsed = parse(clusterNetwork="", delegates=delegates, defaultNetworks=["a"])
    assert parsed.delegates == tuple(delegates)
    assert parsed.default_networks == ()  # only beside a cluster network


def test_a_cluster_network_goes_before_delegates() -> None:
    parsed = parse(delegates=[{"type": "bridge"}])
    assert (parsed.cluster_network, parsed.delegates) == ("cluster", ())


def test_an_unknown_log_level_is_passed_over_and_told() -> None:
    parsed = parse(logLevel="info")
    assert parsed.log.level == "panic"
    (warning,) = parsed.warnings
    assert 'key "logLevel": found "info", expected one of debug, verbose, error, panic' in warning


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"clusterNetwork": None}, '"delegates" and "clusterNetwork": both missing'),
        ({"clusterNetwork": "", "delegates": []}, "both missing"),
        ({"name": ""}, 'key "name": missing'),
        ({"name": "a/b"}, 'key "name"'),
        ({"delegates": [None]}, "delegates[0]"),
        ({"delegates": {"type": "x"}}, 'key "delegates": found {"type":"x"}, expected array'),
        ({"namespaceIsolation": "true"}, 'key "namespaceIsolation": found "true", expected bool'),
        ({"globalNamespaces": ["a"]}, 'key "globalNamespaces"'),
        ({"systemNamespaces": "a"}, 'key "systemNamespaces"'),
        ({"logOptions": {"maxAge": "5"}}, 'key "logOptions.maxAge"'),
        ({"logLevel": 3}, 'key "logLevel"'),
        ({"unhonouredRequests": "ignore"}, 'found "ignore", expected one of "Error", "Ignore"'),
        ({"execTypes": ["../x"]}, 'key "execTypes[0]"'),
        ({"replicaKinds": ["x"]}, 'key "replicaKinds[0]"'),
        ({"runtimeConfig": []}, 'key "runtimeConfig"'),
        ({"prevResult": {"ips": [{"address": "x"}]}}, 'key "prevResult.ips[0].address"'),
    ],
)  # fmt: skip
def test_each_mistake_names_its_key(keys: Mapping[str, Any], text: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        parse(**keys)
    assert text in caught.value.msg


def test_a_version_we_do_not_speak() -> None:
    with pytest.raises(IncompatibleVersion):
        parse(cniVersion="9.0.0")


def test_the_daemon_s_keys_stand_in_place_of_the_request_s() -> None:
    daemon = {"cniVersion": "1.1.0", "confDir": "/daemon", "readinessindicatorfile": "/d", "socketDir": "/run/x"}
    whole = settings.overlaid(
        {**REQUEST, "confDir": "/request", "readinessindicatorfile": "/r", "binDir": "/b"}, daemon
    )
    parsed = settings.parse(whole)
    assert (parsed.cni_version, parsed.conf_dir, parsed.bin_dir) == ("1.1.0", "/daemon", "/b")
    assert parsed.readiness_indicator_file == "/d"


@pytest.mark.parametrize("key", ["readinessindicatorfile", "readinessIndicatorFile"])
def test_a_daemon_that_writes_the_configuration_keeps_its_readiness_file_to_itself(key: str) -> None:
    daemon = {"multusConfigFile": "auto", key: "/d", "binDir": "/b"}
    parsed = settings.parse(settings.overlaid(REQUEST, daemon))
    assert (parsed.readiness_indicator_file, parsed.bin_dir) == (None, "/b")


@pytest.mark.parametrize(
    ("annotation", "keys", "permitted"),
    [
        ("x/a", {}, True),
        ("a", {"namespaceIsolation": True}, True),
        ("pods/a", {"namespaceIsolation": True}, True),
        ("default/a", {"namespaceIsolation": True}, True),
        ("x/a", {"namespaceIsolation": True}, False),
        ("a,x/a", {"namespaceIsolation": True}, False),
        ("x/a", {"namespaceIsolation": True, "globalNamespaces": "y, x"}, True),
        ("default/a", {"namespaceIsolation": True, "globalNamespaces": "y, x"}, False),
        ("default/a", {"namespaceIsolation": True, "globalNamespaces": "x,default"}, True),
    ],
)
def test_isolation(annotation: str, keys: Mapping[str, Any], permitted: bool) -> None:
    wanted = selections.parse(annotation, "pods")
    if permitted:
        isolation.require_permitted(wanted, "pods", parse(**keys))
        return
    with pytest.raises(CniError) as caught:
        isolation.require_permitted(wanted, "pods", parse(**keys))
    assert "with namespaceIsolation, expected one of pods" in caught.value.msg
