"""Where the API server is and how we show who we are: a kubeconfig, or what Kubernetes mounts into a pod.

Kubernetes "Organizing Cluster Access Using kubeconfig Files" and "Accessing the API from within a Pod". Files are read
through `ports.Files`. No message repeats a value from a kubeconfig's `users`, for it may be a secret.

| In the kubeconfig | Here |
|---|---|
| `*-data` beside a file of the same thing | the data is used |
| `token` beside `tokenFile` | the file is used, as client-go does |
| a relative path | relative to the kubeconfig's directory |
| `proxy-url`, and HTTPS_PROXY in the environment | ignored: a node reaches its API server directly |
| `exec`, `auth-provider`, `username`, `as` | `UnsupportedField` naming the key |
"""

from __future__ import annotations

import base64
import binascii
import os.path
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from homeport.cni import documents
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf, IOFailure, UnsupportedField
from homeport.ports import Files

T = TypeVar("T")

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MAX_KUBECONFIG_BYTES = 1024 * 1024
_UNSUPPORTED_USER_KEYS = ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")


class File(msgspec.Struct, frozen=True):
    """Contents that are to be read where they are used, and again when they have changed."""

    path: str


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One API server and one identity. PEM and token are the text itself, or the file that has it.

    `ca` None trusts the system's own authorities. `source` says where all this comes from, for messages.
    """

    host: str
    port: int
    tls: bool = True
    path_prefix: str = ""
    verify: bool = True
    server_name: str = ""  # that the certificate must be for, when it is not `host`
    ca: bytes | File | None = None
    client_certificate: bytes | File | None = None
    client_key: bytes | File | None = None
    token: str | File | None = None
    source: str = ""

    @property
    def place(self) -> str:
        """The API server as an error names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"ApiConfig({self.place}, from {self.source})"


def load(
    kubeconfig: str | None, environ: Mapping[str, str], files: Files, *, service_account: str = SERVICE_ACCOUNT
) -> ApiConfig | None:
    """The API server of the file `kubeconfig`; without one, that of the cluster this process is a pod of.

    None when there is neither: no kubeconfig is named and the environment is not a pod's.
    Raises `IOFailure` for a file that cannot be read, `DecodeFailure` for one that cannot be understood,
    `InvalidNetConf` naming the key that is wrong and `UnsupportedField` the one that cannot be honoured.
    """
    if kubeconfig:
        return _of_kubeconfig(kubeconfig, files)
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidNetConf(f"KUBERNETES_SERVICE_PORT: found {documents.shown(port)}, expected a port")
    token, ca = f"{service_account}/token", f"{service_account}/ca.crt"
    for path in (token, ca):
        _require_file(path, "service account", files)
    return ApiConfig(
        host=host, port=int(port), ca=File(ca), token=File(token), source=f"service account in {service_account}"
    )


# --- kubeconfig ------------------------------------------------------------------------------------------------


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class _User(msgspec.Struct, rename="kebab"):
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _NamedUser(msgspec.Struct):
    name: str
    user: dict[str, Any] | None = None


class _KubeConfig(msgspec.Struct, rename="kebab"):
    current_context: str = ""
    clusters: list[_NamedCluster] | None = None
    contexts: list[_NamedContext] | None = None
    users: list[_NamedUser] | None = None


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def _of_kubeconfig(path: str, files: Files) -> ApiConfig:
    wire = _convert(_parsed(_require_file(path, "kubeconfig", files), path), _KubeConfig, path)
    if not wire.current_context:
        raise InvalidNetConf(f'kubeconfig {path}: key "current-context": missing')
    context = _find(wire.contexts, wire.current_context, "contexts", path).context
    cluster = _find(wire.clusters, context.cluster, "clusters", path).cluster
    user = _user(_find(wire.users, context.user, "users", path), path) if context.user else _User()
    host, port, tls, prefix = _server(cluster.server, f'kubeconfig {path}: key "cluster.server"')
    reader = _Reader(path, files)
    config = ApiConfig(
        host=host,
        port=port,
        tls=tls,
        path_prefix=prefix,
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
        ca=reader.pem(cluster.certificate_authority_data, cluster.certificate_authority, "certificate-authority"),
        client_certificate=reader.pem(user.client_certificate_data, user.client_certificate, "client-certificate"),
        client_key=reader.pem(user.client_key_data, user.client_key, "client-key"),
        token=reader.file(user.token_file, "tokenFile") if user.token_file else user.token or None,
        source=f"kubeconfig {path}",
    )
    if (config.client_certificate is None) != (config.client_key is None):
        missing = "client-key" if config.client_key is None else "client-certificate"
        raise InvalidNetConf(f'kubeconfig {path}: user "{context.user}": key "{missing}": missing')
    return config


class _Reader:
    """Values that a kubeconfig holds itself, or has in a file beside it."""

    def __init__(self, kubeconfig: str, files: Files) -> None:
        self._kubeconfig = kubeconfig
        self._files = files

    def pem(self, data: str, path: str, key: str) -> bytes | File | None:
        if not data:
            return self.file(path, key) if path else None
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as e:
            raise InvalidNetConf(f'kubeconfig {self._kubeconfig}: key "{key}-data": not base64') from e

    def file(self, path: str, key: str) -> File:
        whole = os.path.join(os.path.dirname(os.path.abspath(self._kubeconfig)), path)
        _require_file(whole, f'kubeconfig {self._kubeconfig}: key "{key}"', self._files)
        return File(whole)


def _user(named: _NamedUser, path: str) -> _User:
    found = named.user or {}
    for key in _UNSUPPORTED_USER_KEYS:
        if found.get(key):
            raise UnsupportedField(
                f'kubeconfig {path}: user "{named.name}": key "{key}": not supported,'
                " expected a token, a token file or a client certificate"
            )
    return _convert({k: v for k, v in found.items() if v is not None}, _User, path)


def _server(url: str, key: str) -> tuple[str, int, bool, str]:
    """(host, port, whether TLS, path before every request's)."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}", scheme="http")  # without a scheme, as client-go reads it
        host, port = parts.hostname or "", parts.port
    except ValueError as e:
        raise InvalidNetConf(f"{key}: found {documents.shown(url)}, expected a URL") from e
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise InvalidNetConf(f"{key}: found {documents.shown(url)}, expected a URL such as https://10.0.0.1:6443")
    tls = parts.scheme == "https"
    return host, port or (443 if tls else 80), tls, parts.path.rstrip("/")


def _find(named: Sequence[N] | None, name: str, key: str, path: str) -> N:
    for entry in named or ():
        if entry.name == name:
            return entry
    raise InvalidNetConf(f'kubeconfig {path}: key "{key}": found no entry of name {documents.shown(name)}')


def _require_file(path: str, what: str, files: Files) -> bytes:
    contents = files.read(path)
    if contents is None:
        raise IOFailure(f"{what}: read {path}: no such file")
    return contents


def _parsed(raw: bytes, path: str) -> Any:
    """The JSON types in a kubeconfig, which is YAML, or JSON."""
    if len(raw) > MAX_KUBECONFIG_BYTES:
        raise DecodeFailure(f"kubeconfig {path}: found {len(raw)} bytes, expected {MAX_KUBECONFIG_BYTES} at most")
    if raw.lstrip()[:1] == b"{":
        return documents.decode(raw, f"kubeconfig {path}")
    from ruamel.yaml import YAML  # late, as a pod's own config needs none
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(raw)
    except (YAMLError, ValueError, RecursionError) as e:
        # The parser's own words quote the line it stumbled over.
        raise _unreadable(path, "not YAML") from e


def _convert(value: Any, into: type[T], path: str) -> T:
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, RecursionError) as e:
        # msgspec names the key and the types, never the value.
        raise _unreadable(path, str(e)) from e


def _unreadable(path: str, why: str) -> CniError:
    return DecodeFailure(f"kubeconfig {path}: {why}, expected a kubeconfig")
