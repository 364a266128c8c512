"""The daemon's configuration file, and what of upstream's is taken, warned of or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from homeport.daemon import settings
from homeport.model.errors import CniError

UPSTREAM = {  # all keys that upstream's thick daemon documents
    "chrootDir": "/hostroot",
    "cniVersion": "0.3.1",
    "logLevel": "verbose",
    "logToStderr": True,
    "logFile": "/var/log/multus.log",
    "cniConfigDir": "/host/etc/cni/net.d",
    "multusAutoconfigDir": "/host/etc/cni/net.d",
    "multusConfigFile": "auto",
    "readinessindicatorfile": "/host/run/ready",
    "socketDir": "/host/run/multus/",
    "metricsPort": 9091,
    "connectionLimit": 10,
    "perNodeCertificate": {"enabled": False, "certDir": "/etc/cni/net.d/multus.d/certs"},
    "namespaceIsolation": True,
    "globalNamespaces": "a,b",
    "binDir": "/opt/cni/bin",
    "kubeconfig": "/etc/kubeconfig",
}


def test_nothing_needs_to_be_said() -> None:
    found = settings.parse({}, node="n")
    assert found.socket_dir == Path("/run/homeport")
    assert found.state_dir == Path("/var/lib/homeport")
    assert (found.connection_limit, found.backlog, found.metrics_port) == (16, 256, None)
    assert found.warnings == ()


def test_upstreams_file() -> None:
    found = settings.parse(UPSTREAM, node="n")
    assert found.socket_dir == Path("/host/run/multus")
    assert found.chroot_dir == Path("/hostroot")
    assert (found.connection_limit, found.metrics_port, found.metrics_address) == (10, 9091, "127.0.0.1")
    assert found.kubeconfig == "/etc/kubeconfig"
    assert found.raw == UPSTREAM
    assert found.warnings == ()


def test_case_does_not_matter_and_null_is_absent() -> None:
    found = settings.parse({"SOCKETDIR": "/a", "metricsport": 5, "LogLevel": "debug", "stateDir": None}, node="n")
    assert (found.socket_dir, found.metrics_port) == (Path("/a"), 5)
    assert found.state_dir == Path("/var/lib/homeport")
    assert found.warnings == ()


def test_what_is_passed_over_is_named() -> None:
    found = settings.parse({"socketDri": "/x", "enablePprof": True}, node="n")
    assert found.warnings == (
        'key "socketDri": unknown, passed over',
        'key "enablePprof": has no effect, as there is no Go runtime to profile',
    )


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        ({"perNodeCertificate": {"enabled": True}}, 2, 'key "perNodeCertificate.enabled"'),
        ({"socketDir": "run"}, 7, 'key "socketDir": found "run", expected an absolute path'),
        ({"stateDir": "/a\0b"}, 7, 'key "stateDir"'),
        ({"metricsPort": 0}, 7, 'key "metricsPort": found 0'),
        ({"metricsPort": 65536}, 7, 'key "metricsPort": found 65536'),
        ({"connectionLimit": 0}, 7, 'key "connectionLimit": found 0'),
        ({"connectionLimit": "many"}, 7, 'key "connectionLimit": found "many"'),
        ({"drainSeconds": -1}, 7, 'key "drainSeconds": found -1'),
        ({"execTypes": "bridge"}, 7, 'key "execTypes"'),
        ({"store": "file.db"}, 7, 'key "store": found "file.db", expected "kubernetes" or an absolute path'),
        ({"whereaboutsNamespace": "Kube_System"}, 7, 'key "whereaboutsNamespace": found "Kube_System"'),
    ],
)
def test_what_cannot_be_right(raw: dict[str, Any], code: int, words: str) -> None:
    with pytest.raises(CniError) as caught:
        settings.parse(raw, node="n")
    assert caught.value.code == code
    assert words in str(caught.value)


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "homeportd.json"
    path.write_text(json.dumps({"backlog": 7}))
    assert settings.load(path, {}).backlog == 7
    with pytest.raises(CniError, match=r"read configuration .*none.json: No such file"):
        settings.load(tmp_path / "none.json", {})
    path.write_text("{")
    with pytest.raises(CniError, match=f"decode configuration {path}: not JSON"):
        settings.load(path, {})
    monkeypatch.setattr(settings, "CONFIG_FILE", tmp_path / "absent.json")
    assert settings.load(None, {}).backlog == 256


def test_the_nodes_name() -> None:
    named = {"HOMEPORT_NODE": "c", "NODENAME": "b", "MULTUS_NODE_NAME": "a"}
    assert settings.load(None, named).node == "a"
    assert settings.load(None, {"NODENAME": "b", "HOMEPORT_NODE": "c", "MULTUS_NODE_NAME": ""}).node == "b"
    assert settings.load(None, {"HOMEPORT_NODE": "c"}).node == "c"
    assert settings.load(None, {}).node == os.uname().nodename
