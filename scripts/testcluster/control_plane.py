"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: a control plane of one's own. I/O: processes.

RBAC is on, as are the real controllers and the real scheduler. It has addresses of its own, so any number may run side
by side, and it dies with the process that made it. Everything is in one folder, the logs in `logs`.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from testcluster import binaries, places
from testcluster.access import Access, Authority
from testcluster.audits import Audit, Request
from testcluster.binaries import Binaries
from testcluster.guarding import Guard
from testcluster.places import Place
from testcluster.servers import Server, answers_ok

ADMIN = "admin"
NODES = tuple(f"node-{letter}" for letter in "abcdefgh")
NODE_GROUP = "homeport:nodes"
READY_SECONDS = 60.0
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
_TXN_PUTS = 100  # etcd takes 128
_SHM = "/dev/shm"  # noqa: S108 -- a tmpfs, in a folder with an unguessable name


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How soon the controllers give a silent node up. Kubernetes' own values are 40 s and 300 s."""

    node_grace_seconds: int = 40
    evict_after_seconds: int = 300


USUAL = Timing()
_ETCD_BYTES = 1 << 30


def node_user(node: str) -> str:
    """The user that Homeport's daemon of this node is."""
    return f"homeport-node-{node}"


def kubelet_user(node: str) -> str:
    """The user that a node's kubelet is (the name that Kubernetes' own node authorizer expects)."""
    return f"system:node:{node}"


def _memory_is_roomy() -> bool:
    """Whether a database fits there; in containers it is often 64 MiB."""
    return os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > _ETCD_BYTES


def _usual_groups(user: str) -> tuple[str, ...]:
    if user.startswith(node_user("")):
        return (NODE_GROUP,)
    return ("system:nodes",) if user.startswith(kubelet_user("")) else ()


class ControlPlane:
    """`users` maps further users who get a token to their groups; see `access` for those who do not.

    `nodes` are the nodes whose kubelet and whose daemon of Homeport get a token. With `audit` every request is written
    down, for `requests`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: Sequence[str] = NODES,
        users: Mapping[str, Sequence[str]] | None = None,
        timing: Timing = USUAL,
        audit: bool = False,
        programs: Binaries | None = None,
    ) -> None:
        self.folder = folder
        self._programs = programs
        self._timing = timing
        self._audit = Audit(folder) if audit else None
        self._authority = Authority(folder / "pki")
        self._tokens: dict[str, Sequence[str]] = {ADMIN: ("system:masters",), **(users or {})}
        for user in (u for node in nodes for u in (node_user(node), kubelet_user(node))):
            self._tokens[user] = _usual_groups(user)
        self._guard: Guard | None = None
        self._place: Place | None = None
        self._data: Path | None = None
        self._port = self._etcd_port = 0
        self._servers: dict[str, Server] = {}
        self._is_healthy: dict[str, Callable[[], bool]] = {}

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- the whole -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when all four are ready. Raises `servers.NotReady` or `Unavailable`, with nothing left running."""
        programs = self._programs or binaries.fetch()
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self._guard = Guard()
        try:
            self._place = places.claim(self._guard)
            self._data = Path(
                tempfile.mkdtemp(prefix="homeport-etcd-", dir=_SHM if _memory_is_roomy() else self.folder)
            )
            self._guard.on_death("rm", "-rf", str(self._data))
            self._authority.found([self._place.loopback, self._place.api_address])
            self._authority.give_tokens(self._tokens)
            self._start_servers(programs)
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Between `start` and `stop`, whatever its API server is made to do meanwhile."""
        return self._place is not None

    def stop(self) -> None:
        """Ends everything and removes its data; logs stay. Idempotent."""
        for server in reversed(self._servers.values()):
            server.stop(kill=True)  # what they could still write is not kept
        self._servers = {}
        if self._data:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None
        if self._place:
            self._place.leave()
            self._place = None
        if self._guard:
            self._guard.dismiss()
            self._guard = None

    def _start_servers(self, programs: Binaries) -> None:
        assert self._place
        host, ca = self._place.loopback, self._authority.ca
        self._etcd_port, self._port = places.free_port(host), places.free_port(self._place.api_address)
        self._server("etcd", programs, self._etcd_flags(host, self._etcd_port))
        self._server("kube-apiserver", programs, self._apiserver_flags(f"http://{host}:{self._etcd_port}"))
        self._is_healthy["etcd"] = partial(answers_ok, host, self._etcd_port, "/health")
        self._start("etcd")
        self.start_apiserver()
        old = tuple(int(n) for n in programs.version.removeprefix("v").split(".")[:2]) < (1, 24)
        common = [
            f"--kubeconfig={self.kubeconfig(ADMIN)}",
            "--leader-elect=false",
            f"--bind-address={host}",
            f"--tls-cert-file={self._authority.serving}",
            f"--tls-private-key-file={self._authority.serving_key}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            *(["--port=0"] if old else []),  # they would listen without TLS on every address
        ]
        for name, flags in (("kube-controller-manager", self._controller_flags()), ("kube-scheduler", [])):
            port = places.free_port(host)
            self._server(name, programs, [*common, *flags, f"--secure-port={port}"])
            self._is_healthy[name] = partial(answers_ok, host, port, "/healthz", ca=ca)
        self._start(*_CONTROLLERS)

    def _start(self, *names: str) -> None:
        """All at once; returns when each is healthy."""
        for name in names:
            self._servers[name].start()
        for name in names:
            self._servers[name].wait(self._is_healthy[name], READY_SECONDS)

    # --- outages -------------------------------------------------------------------------------------------------

    def start_apiserver(self) -> None:
        """At the address it had before, with the data it had before. Returns when it is ready."""
        assert self._place
        host = self._place.api_address
        admin = self.access(ADMIN)
        assert admin.token
        token = admin.token
        apiserver = self._servers["kube-apiserver"]
        apiserver.start()
        apiserver.wait(
            lambda: answers_ok(host, self._port, "/readyz", ca=self._authority.ca, token=token), READY_SECONDS
        )

    def stop_apiserver(self) -> None:
        """At once, as a crash does: connections break, then are refused."""
        self._servers["kube-apiserver"].stop(kill=True)

    def forget_versions(self, before: str) -> None:
        """Lists and watches of versions before that one are answered 410 from now on, as after some minutes."""
        assert self._place
        self._ask_etcd("/v3/kv/compaction", [{"revision": before, "physical": True}])

    def fill(self, objects: Mapping[str, bytes]) -> None:
        """Puts objects into etcd by their keys (`/registry/pods/ns/name`), past the API server, which reads JSON there.

        For many thousands of them, which nothing may look after: the controllers are ended.
        """
        for name in _CONTROLLERS:
            self._servers[name].stop(kill=True)
        puts = [
            {"requestPut": {"key": b64encode(key.encode()).decode(), "value": b64encode(body).decode()}}
            for key, body in objects.items()
        ]
        self._ask_etcd("/v3/kv/txn", ({"success": puts[n : n + _TXN_PUTS]} for n in range(0, len(puts), _TXN_PUTS)))

    def _ask_etcd(self, path: str, bodies: Iterable[Mapping[str, object]]) -> None:
        assert self._place
        etcd = http.client.HTTPConnection(self._place.loopback, self._etcd_port, timeout=READY_SECONDS)
        for body in bodies:
            etcd.request("POST", path, json.dumps(body))
            answer = etcd.getresponse()
            found = answer.read()
            assert answer.status == 200, found
        etcd.close()

    def restart_controllers(self) -> None:
        """After an outage, for they wait longer and longer before they ask again."""
        for name in _CONTROLLERS:
            self._servers[name].stop(kill=True)
        self._start(*_CONTROLLERS)

    def pause_apiserver(self) -> None:
        """Connections stay and are accepted by the kernel, but nothing is answered."""
        self._servers["kube-apiserver"].pause()

    def resume_apiserver(self) -> None:
        self._servers["kube-apiserver"].resume()

    def save(self, backup: Path) -> None:
        """A copy of etcd's data as a power cut at this moment would leave it; etcd reads its log when it is started."""
        assert self._data
        etcd = self._servers["etcd"]
        etcd.pause()
        try:
            shutil.copytree(self._data / "etcd", backup)
        finally:
            etcd.resume()

    def restore(self, backup: Path) -> None:
        """Everything is as it was when `backup` was saved; versions that were given since then are given again.

        The servers are all started anew, as is done with a real cluster.
        """
        assert self._data
        for server in reversed(self._servers.values()):
            server.stop(kill=True)
        shutil.rmtree(self._data / "etcd")
        shutil.copytree(backup, self._data / "etcd")
        self._start("etcd")
        self.start_apiserver()
        self._start(*_CONTROLLERS)

    # --- those who use it ----------------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """The API server's URL, reachable from this machine and from every `Machine` of this control plane."""
        assert self._place, "the control plane is not running"
        return f"https://{self._place.api_address}:{self._port}"

    @property
    def place(self) -> Place:
        """Where it is on this machine."""
        assert self._place, "the control plane is not running"
        return self._place

    @property
    def guard(self) -> Guard:
        """What cleans up should this process be killed."""
        assert self._guard, "the control plane is not running"
        return self._guard

    def access(self, user: str = ADMIN, groups: Sequence[str] | None = None) -> Access:
        """With a token for the users known from the start, with a certificate made on demand for anybody else.

        Without `groups` a node's user and a kubelet's are in theirs.
        """
        if groups is None and not self._authority.has_token(user):
            groups = _usual_groups(user)
        return self._authority.access(user, self.server, groups or ())

    def kubeconfig(self, user: str = ADMIN, groups: Sequence[str] | None = None) -> Path:
        """A file for kubectl and for Homeport's daemon."""
        folder = self.folder / "kubeconfigs"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "+".join([user, *(groups or ())]).replace(":", "_").replace("/", "_")
        path.touch(mode=0o600)
        path.write_text(self.access(user, groups).kubeconfig())
        return path

    def requests(self, user: str) -> list[Request]:
        """What this user has asked of the API server since the start, in order of the answers. Needs `audit`."""
        assert self._audit, "made without audit=True"
        return self._audit.requests(user)

    def log_tails(self) -> str:
        """The last lines of every log."""
        return "\n".join(server.tail() for server in self._servers.values())

    # --- flags ---------------------------------------------------------------------------------------------------

    def _server(self, name: str, programs: Binaries, flags: Sequence[str]) -> Server:
        assert self._guard
        log = self.folder / "logs" / f"{name}.log"
        server = Server(name, [programs.path(name), *flags], log, self._guard.group)
        self._servers[name] = server
        return server

    def _etcd_flags(self, host: str, port: int) -> list[str]:
        peer = f"http://{host}:{places.free_port(host)}"
        return [
            f"--data-dir={self._data}/etcd",
            f"--listen-client-urls=http://{host}:{port}",
            f"--advertise-client-urls=http://{host}:{port}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ]

    def _apiserver_flags(self, etcd: str) -> list[str]:
        assert self._place
        pki = self._authority
        return [
            f"--etcd-servers={etcd}",
            f"--bind-address={self._place.api_address}",
            f"--advertise-address={self._place.api_address}",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}/pki",
            f"--tls-cert-file={pki.serving}",
            f"--tls-private-key-file={pki.serving_key}",
            f"--client-ca-file={pki.ca}",
            f"--token-auth-file={pki.token_file}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # no kubelet would mount its tokens
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki.serving}",
            f"--service-account-signing-key-file={pki.serving_key}",
            "--service-cluster-ip-range=10.255.0.0/24",
            f"--default-not-ready-toleration-seconds={self._timing.evict_after_seconds}",
            f"--default-unreachable-toleration-seconds={self._timing.evict_after_seconds}",
            "--profiling=false",
            *(self._audit.flags() if self._audit else ()),
        ]

    def _controller_flags(self) -> list[str]:
        return [
            f"--root-ca-file={self._authority.ca}",
            f"--service-account-private-key-file={self._authority.serving_key}",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={self._timing.node_grace_seconds}s",
        ]
