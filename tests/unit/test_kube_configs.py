"""Kubeconfigs and the environment of a pod: what is taken, what is refused, and that no secret is repeated."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.configs import ApiConfig, File
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf, IOFailure, UnsupportedField

SECRET = "s3cr3t-and-never-shown"
PEM = b"-----BEGIN CERTIFICATE-----\n"


def kubeconfig(cluster: Any = None, user: Any = None, **change: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "other", "context": {"cluster": "nowhere", "user": "nobody"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ignored"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
        **change,
    }


def load(tmp_path: Path, content: Any) -> ApiConfig:
    path = tmp_path / "kubeconfig"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    config = configs.load(str(path), {}, LocalFiles())
    assert config is not None
    return config


def data(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    config = load(tmp_path, kubeconfig({"certificate-authority-data": data(PEM)}))
    assert config == ApiConfig(
        host="10.0.0.1", port=6443, ca=PEM, token=SECRET, source=f"kubeconfig {tmp_path / 'kubeconfig'}"
    )
    assert config.place == "https://10.0.0.1:6443"
    assert SECRET not in repr(config)


def test_yaml_and_json_are_one(tmp_path: Path) -> None:
    content = kubeconfig({"certificate-authority-data": data(PEM), "insecure-skip-tls-verify": True})
    as_json = load(tmp_path, content)
    with (tmp_path / "yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)
    assert load(tmp_path, (tmp_path / "yaml").read_bytes()) == as_json
    assert as_json.verify is False


def test_paths_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    for name in ("ca.crt", "me.crt", "me.key", "token"):
        (tmp_path / name).write_bytes(PEM)
    config = load(
        tmp_path,
        kubeconfig(
            {"certificate-authority": "ca.crt", "tls-server-name": "kubernetes"},
            {"client-certificate": "me.crt", "client-key": str(tmp_path / "me.key"), "tokenFile": "./token"},
        ),
    )
    assert (config.ca, config.server_name) == (File(f"{tmp_path}/ca.crt"), "kubernetes")
    assert (config.client_certificate, config.client_key) == (File(f"{tmp_path}/me.crt"), File(f"{tmp_path}/me.key"))
    assert config.token == File(f"{tmp_path}/./token")


def test_data_goes_before_its_file_and_a_token_file_before_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    config = load(
        tmp_path,
        kubeconfig(
            {"certificate-authority": "absent", "certificate-authority-data": data(PEM)},
            {
                "token": SECRET,
                "tokenFile": "token",
                "client-certificate": "absent",
                "client-certificate-data": data(b"c"),
                "client-key-data": data(b"k"),
            },
        ),
    )
    assert (config.ca, config.client_certificate, config.client_key) == (PEM, b"c", b"k")
    assert config.token == File(f"{tmp_path}/token")


def test_no_user_at_all(tmp_path: Path) -> None:
    context = {"name": "here", "context": {"cluster": "c"}}
    config = load(tmp_path, kubeconfig(contexts=[context], users=None))
    assert (config.token, config.client_certificate) == (None, None)


@pytest.mark.parametrize(
    ("server", "host", "port", "tls", "prefix"),
    [
        ("https://10.0.0.1:6443", "10.0.0.1", 6443, True, ""),
        ("https://k8s.example.org", "k8s.example.org", 443, True, ""),
        ("http://127.0.0.1:8001/", "127.0.0.1", 8001, False, ""),
        ("https://rancher/k8s/clusters/c-1/", "rancher", 443, True, "/k8s/clusters/c-1"),
        ("https://[fd00::1]:6443", "fd00::1", 6443, True, ""),
        ("10.0.0.1:8080", "10.0.0.1", 8080, False, ""),
    ],
)
def test_servers(tmp_path: Path, server: str, host: str, port: int, prefix: str, *, tls: bool) -> None:
    config = load(tmp_path, kubeconfig({"server": server}))
    assert (config.host, config.port, config.tls, config.path_prefix) == (host, port, tls, prefix)


def test_an_ipv6_server_is_named_as_in_a_url(tmp_path: Path) -> None:
    assert load(tmp_path, kubeconfig({"server": "https://[fd00::1]:6443"})).place == "https://[fd00::1]:6443"


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", DecodeFailure, "expected a kubeconfig"),
        (b"{", DecodeFailure, "not JSON"),
        (b"a: [", DecodeFailure, "not YAML"),
        (b"a: b: c", DecodeFailure, "not YAML"),
        (b"\xff\xfe\x00", DecodeFailure, "not YAML"),
        (b"- 1", DecodeFailure, "expected a kubeconfig"),
        (b"[" * 5000, DecodeFailure, "expected a kubeconfig"),
        (b"#" * 2_000_000, DecodeFailure, "found 2000000 bytes, expected 1048576 at most"),
        (kubeconfig(clusters="x"), DecodeFailure, r"\$.clusters"),
        (kubeconfig(**{"current-context": ""}), InvalidNetConf, 'key "current-context": missing'),
        (kubeconfig(**{"current-context": "x"}), InvalidNetConf, 'key "contexts": found no entry of name "x"'),
        (kubeconfig(clusters=[]), InvalidNetConf, 'key "clusters": found no entry of name "c"'),
        (kubeconfig(users=[]), InvalidNetConf, 'key "users": found no entry of name "u"'),
        (kubeconfig({"server": ""}), InvalidNetConf, 'key "cluster.server": found "", expected a URL'),
        (kubeconfig({"server": "ftp://x"}), InvalidNetConf, 'key "cluster.server"'),
        (kubeconfig({"server": "https://x:99999"}), InvalidNetConf, 'key "cluster.server"'),
        (kubeconfig({"server": "https://a:b@x"}), InvalidNetConf, 'key "cluster.server"'),
        (kubeconfig({"certificate-authority-data": "%"}), InvalidNetConf, '"certificate-authority-data": not base64'),
        (kubeconfig({"certificate-authority": "gone.crt"}), IOFailure, '"certificate-authority": read .*/gone.crt'),
        (kubeconfig(user={"tokenFile": "gone"}), IOFailure, '"tokenFile": read .*/gone: no such file'),
        (kubeconfig(user={"client-certificate-data": "Yw=="}), InvalidNetConf, 'user "u": key "client-key": missing'),
        (kubeconfig(user={"client-key-data": "Yw=="}), InvalidNetConf, 'user "u": key "client-certificate": missing'),
        (kubeconfig(user={"exec": {"command": "aws"}}), UnsupportedField, 'user "u": key "exec": not supported'),
        (kubeconfig(user={"auth-provider": {"name": "gcp"}}), UnsupportedField, 'key "auth-provider"'),
        (kubeconfig(user={"username": "a", "password": SECRET}), UnsupportedField, 'key "username"'),
        (kubeconfig(user={"token": SECRET, "as": "admin"}), UnsupportedField, 'key "as"'),
        (kubeconfig(user={"token": [SECRET]}), DecodeFailure, "token"),
        (kubeconfig(user=SECRET), DecodeFailure, r"\$\.users\[\d*\.*\]\.user"),
        (f"users: [{{name: {SECRET}".encode(), DecodeFailure, "not YAML"),
    ],
)
def test_what_cannot_be_taken(tmp_path: Path, content: Any, kind: type[CniError], said: str) -> None:
    with pytest.raises(kind, match=said) as refusal:
        load(tmp_path, content)
    assert str(tmp_path / "kubeconfig") in refusal.value.msg
    assert SECRET not in str(refusal.value)


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IOFailure, match=r"kubeconfig: read .*/absent: no such file"):
        configs.load(str(tmp_path / "absent"), {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, LocalFiles())


# --- in a pod --------------------------------------------------------------------------------------------------

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_pod_has_its_own(tmp_path: Path) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    config = configs.load(None, POD, LocalFiles(), service_account=str(tmp_path))
    assert config == ApiConfig(
        host="10.96.0.1",
        port=443,
        ca=File(f"{tmp_path}/ca.crt"),
        token=File(f"{tmp_path}/token"),
        source=f"service account in {tmp_path}",
    )


@pytest.mark.parametrize("environ", [{}, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, {"KUBERNETES_SERVICE_PORT": "443"}])
def test_outside_of_a_pod_there_is_none(environ: dict[str, str]) -> None:
    assert configs.load(None, environ, LocalFiles()) is None
    assert configs.load("", environ, LocalFiles()) is None


def test_a_pod_without_its_token(tmp_path: Path) -> None:
    with pytest.raises(IOFailure, match=r"service account: read .*/token: no such file"):
        configs.load(None, POD, LocalFiles(), service_account=str(tmp_path))


@pytest.mark.parametrize("port", ["0", "65536", "https", "-1", "４４３"])
def test_a_pod_with_a_strange_port(tmp_path: Path, port: str) -> None:
    with pytest.raises(InvalidNetConf, match="KUBERNETES_SERVICE_PORT: found"):
        configs.load(None, {**POD, "KUBERNETES_SERVICE_PORT": port}, LocalFiles(), service_account=str(tmp_path))
