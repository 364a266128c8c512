"""`python -m benchmarks.admission`: what reviews cost whoever writes, on a real API server. Figures, no pass or fail.

A thousand StatefulSets with three networks are created at once, as dry runs on as many open connections, in a namespace
that is reviewed and in one that is not, in turning order. `--write` puts the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from benchmarks.controller import Watched, free_port
from benchmarks.measuring import Spread

from benchmarks import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from testcluster.access import Access
from testcluster.api import Api, ApiError
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import HomeportController
from testcluster.installing import install

REVIEWED, IGNORED = "reviewed", "ignored"
NETWORKS = ("blue", "green", "red")
WORKLOADS = 50  # that are there, on the same networks
_PATIENCE_SECONDS = 60.0
_OPENED_AT_ONCE = 50
_MISTAKE, _SHED = "homeport: annotation-key:", "too many requests at once"
Json = dict[str, Any]


class Burst(msgspec.Struct, kw_only=True):
    """One burst of writes. Milliseconds from before a request is sent until its answer has been read.

    Every write has a mistake that a review warns of. One that is `shed` was allowed by the webhook without a look, and
    one that is `missed` by the API server, which waits for three seconds.
    """

    p50: float
    p95: float
    slowest: float
    a_second: float
    warned: int
    shed: int
    missed: int


class Figures(msgspec.Struct, kw_only=True):
    """`ratio` is a burst under review against the one without in the same round, by its median latency.

    `cpu_ms` is what the controller's process spends on one write under review: TLS, HTTP and the review.
    """

    writes: int
    rounds: int
    cores: int
    reviewed: list[Burst] = []
    ignored: list[Burst] = []
    ratio_p50: Spread | None = None
    ratio_a_second: Spread | None = None
    cpu_ms: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--writes", type=int, default=1000, metavar="N", help="at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        found = measure(Path(folder), writes=args.writes, rounds=args.rounds)
    if args.write:
        report.write_tables("measured admission", report.machine(), tables(found))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())


def measure(folder: Path, *, writes: int, rounds: int) -> Figures:
    """On a control plane and by a controller of its own, all of which is in `folder`."""
    figures = Figures(writes=writes, rounds=rounds, cores=os.cpu_count() or 0)
    with ControlPlane(folder / "plane") as plane:
        admin = Api(plane.access())
        install(admin)
        _populate(admin)
        port, metrics = free_port(), free_port()
        settings = {
            "metricsPort": metrics,
            "metricsAddress": "127.0.0.1",
            "admission": {"port": port, "address": "127.0.0.1", "url": f"https://127.0.0.1:{port}"},
        }
        controller = HomeportController(plane, folder / "controller", settings=settings)
        controller.start()
        watched = Watched(controller, metrics)
        controller.wait(lambda: _is_reviewed(admin), _PATIENCE_SECONDS, "the webhook reviews")
        try:
            asyncio.run(_rounds(plane.access(), watched, figures))
        finally:
            controller.kill()
            admin.close()
    return figures


async def _rounds(access: Access, watched: Watched, figures: Figures) -> None:
    context = ssl.create_default_context(cafile=str(access.ca))
    if access.certificate is not None:
        context.load_cert_chain(access.certificate, access.key)
    spent: list[float] = []
    clients = [Client(access, context) for _ in range(figures.writes)]
    for start in range(0, len(clients), _OPENED_AT_ONCE):
        await asyncio.gather(*(client.open() for client in clients[start : start + _OPENED_AT_ONCE]))
    try:
        for number in range(figures.rounds + 1):  # one more to warm up
            order = (REVIEWED, IGNORED) if number % 2 else (IGNORED, REVIEWED)
            before = watched.cpu_seconds()
            found = {namespace: await _burst(clients, namespace) for namespace in order}
            if number:
                figures.reviewed.append(found[REVIEWED])
                figures.ignored.append(found[IGNORED])
                spent.append((watched.cpu_seconds() - before) / figures.writes * 1e3)
    finally:
        for client in clients:
            await client.close()
    pairs = list(zip(figures.reviewed, figures.ignored, strict=True))
    figures.ratio_p50 = Spread.of([on.p50 / off.p50 for on, off in pairs])
    figures.ratio_a_second = Spread.of([on.a_second / off.a_second for on, off in pairs])
    figures.cpu_ms = Spread.of(spent).median


async def _burst(clients: Sequence[Client], namespace: str) -> Burst:
    bodies = [_workload(f"new-{n}", namespace, note="k8s.v1.cni.cncf.io/network") for n in range(len(clients))]
    began = time.perf_counter()
    took = await asyncio.gather(*(client.create(namespace, body) for client, body in zip(clients, bodies, strict=True)))
    seconds = time.perf_counter() - began
    latencies = sorted(ms for ms, _ in took)
    assert all(" 201 " in head.partition("\r\n")[0] for _, head in took), "every write is allowed"
    warned = sum(_MISTAKE in head for _, head in took)
    shed = sum(_SHED in head for _, head in took)
    return Burst(
        p50=latencies[len(latencies) // 2],
        p95=latencies[len(latencies) * 95 // 100],
        slowest=latencies[-1],
        a_second=len(clients) / seconds,
        warned=warned,
        shed=shed,
        missed=len(clients) - warned - shed,
    )


class Client:
    """One connection to the API server, HTTP/1.1."""

    def __init__(self, access: Access, context: ssl.SSLContext) -> None:
        host, _, port = access.server.removeprefix("https://").rpartition(":")
        self._host, self._port, self._context = host, int(port), context
        self._authorization = f"Authorization: Bearer {access.token}\r\n" if access.token else ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._context)

    async def create(self, namespace: str, body: bytes) -> tuple[float, str]:
        """Milliseconds, and the head of the answer."""
        assert self._reader is not None
        assert self._writer is not None
        head = (
            f"POST /apis/apps/v1/namespaces/{namespace}/statefulsets?dryRun=All HTTP/1.1\r\nHost: {self._host}\r\n"
            f"{self._authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        if "transfer-encoding: chunked" in answer.lower():
            while size := int((await self._reader.readuntil(b"\r\n")).strip(), 16):
                await self._reader.readexactly(size + 2)
            await self._reader.readexactly(2)
        else:
            await self._reader.readexactly(int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0]))
        return (time.perf_counter() - began) * 1e3, answer

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()


def _populate(admin: Api) -> None:
    for namespace in (REVIEWED, IGNORED):
        labels = {"homeport.dev/admission": "ignore"} if namespace == IGNORED else {}
        admin.create("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
        definitions = f"/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions"
        for number, name in enumerate(NETWORKS):
            admin.create(definitions, _network(name, number))
        for number in range(WORKLOADS):
            body = json.loads(_workload(f"there-{number}", namespace, replicas=0))
            admin.create(f"/apis/apps/v1/namespaces/{namespace}/statefulsets", body)


def _network(name: str, number: int) -> Json:
    ipam = {"type": "whereabouts", "range": f"10.{10 + number}.0.0/16"}
    config = {"cniVersion": "1.0.0", "name": name, "type": "macvlan", "master": f"eth{number + 1}", "ipam": ipam}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": {"config": json.dumps(config)},
    }


def _workload(
    name: str, namespace: str, replicas: int = 3, networks: str = ",".join(NETWORKS), note: str = ""
) -> bytes:
    labels = {"app": name}
    annotations = {"k8s.v1.cni.cncf.io/networks": networks} | ({note: "blue"} if note else {})
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
    }
    spec = {"replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}).encode()


def _is_reviewed(admin: Api) -> bool:
    """Whether the API server has noticed the registration: then a mistake is refused."""
    wrong = json.loads(_workload("probe", REVIEWED, networks="[{"))
    try:
        admin.request("POST", f"/apis/apps/v1/namespaces/{REVIEWED}/statefulsets", wrong, parameters={"dryRun": "All"})
    except ApiError as error:
        return error.status == 403
    return False


def tables(found: Figures) -> list[report.Table]:
    """Of each figure the median of its rounds, and what became of all reviews."""
    rows = []
    for name, bursts in (("without reviews", found.ignored), ("under review", found.reviewed)):
        keys = ("p50", "p95", "slowest", "a_second")
        medians = (Spread.of([getattr(burst, key) for burst in bursts]).median for key in keys)
        rows.append([name, *(f"{median:.0f}" for median in medians)])
    assert found.ratio_p50 is not None
    assert found.ratio_a_second is not None
    ratios = (found.ratio_p50, found.ratio_a_second)
    p50, rate = (f"{spread.median:.2f} ({spread.min:.2f}..{spread.max:.2f})" for spread in ratios)
    rows.append(["ratio within a round", p50, "", "", rate])
    became = [str(sum(getattr(burst, key) for burst in found.reviewed)) for key in ("warned", "shed", "missed")]
    return [
        (
            f"{found.writes} writes at once, {found.rounds} rounds",
            ["writes", "p50 ms", "p95 ms", "slowest ms", "a second"],
            rows,
        ),
        (
            "What became of the reviews",
            ["judged", "allowed unseen by the webhook", "allowed unseen by the API server", "CPU ms each"],
            [[*became, f"{found.cpu_ms:.1f}"]],
        ),
    ]


if __name__ == "__main__":
    main()
