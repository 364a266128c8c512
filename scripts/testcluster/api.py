"""A small client of the API server, apart from Homeport's own so that tests have a second opinion. I/O: HTTPS."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from ruamel.yaml import YAML

from testcluster.access import Access

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CONNECT_SECONDS = 3.0
_READ_SECONDS = 30.0


class ApiError(Exception):
    """The API server answered with an error; `status` is HTTP's."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        try:
            message = json.loads(body).get("message", "")
        except (ValueError, AttributeError):
            message = body.decode(errors="replace")
        super().__init__(f"{method} {path}: {status} {message}")
        self.status = status


class NotReached(Exception):
    """There was no answer."""


class Api:
    """For any number of threads. Every answer is decoded JSON; every failure is `ApiError` or `NotReached`."""

    def __init__(self, access: Access) -> None:
        self._server = access.server
        self._headers = {"Accept": "application/json", "User-Agent": "testcluster"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._pool = urllib3.PoolManager(
            maxsize=32,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            ca_certs=str(access.ca),
            cert_file=str(access.certificate) if access.certificate else None,
            key_file=str(access.key) if access.key else None,
        )

    def close(self) -> None:
        self._pool.clear()

    def get(self, path: str, **parameters: str) -> Json:
        return self.request("GET", path, parameters=parameters)

    def find(self, path: str) -> Json | None:
        """None when the API server says that there is no such object."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Json) -> Json:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Json, kind: str = MERGE) -> Json:
        return self.request("PATCH", path, body, content_type=kind)

    def delete(self, path: str, *, grace_seconds: int | None = None, uid: str = "") -> bool:
        """False when it is gone already, or is another object than the one with `uid`."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, options)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid):
                return False
            raise
        return True

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        headers = {**self._headers, "Content-Type": content_type} if body is not None else self._headers
        answer = self._answer(
            method, self._url(path, parameters), body=None if body is None else json.dumps(body), headers=headers
        )
        if answer.status >= 400:
            raise ApiError(method, path, answer.status, answer.data)
        decoded: Json = json.loads(answer.data)
        return decoded

    def watch(self, path: str, **parameters: str) -> Watch:
        """Events of a list from its `resourceVersion` on, until the server or `Watch.close` ends it."""
        url = self._url(path, {**parameters, "watch": "true"})
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=None)
        answer = self._answer("GET", url, headers=self._headers, preload_content=False, timeout=timeout)
        if answer.status >= 400:
            body = answer.read()
            answer.release_conn()
            raise ApiError("WATCH", path, answer.status, body)
        return Watch(answer)

    def _answer(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """Raises `NotReached` without the cause: its traceback would keep the broken connection open."""
        try:
            return self._pool.request(method, url, **options)
        except urllib3.exceptions.HTTPError as e:
            reason = str(e)
        raise NotReached(f"{method} {url}: {reason}")

    def _url(self, path: str, parameters: Mapping[str, str] | None) -> str:
        return f"{self._server}{path}" + (f"?{urlencode(parameters)}" if parameters else "")

    # --- manifests -------------------------------------------------------------------------------------------------

    def apply(self, manifest: Json) -> Json:
        """Creates the object or changes it to what the manifest says (server-side apply)."""
        return self.request(
            "PATCH",
            self.path_of(manifest),
            manifest,
            parameters={"fieldManager": "testcluster", "force": "true"},
            content_type=APPLY,
        )

    def path_of(self, manifest: Json) -> str:
        """The object's, by the API server's own word on its kind."""
        group_version, kind = manifest["apiVersion"], manifest["kind"]
        root = f"/api/{group_version}" if group_version == "v1" else f"/apis/{group_version}"
        resource = next(r for r in self.get(root)["resources"] if r["kind"] == kind and "/" not in r["name"])
        metadata = manifest["metadata"]
        place = f"/namespaces/{metadata.get('namespace', 'default')}" if resource["namespaced"] else ""
        return f"{root}{place}/{resource['name']}/{metadata['name']}"

    def apply_file(self, path: Path) -> list[Json]:
        """Every document of a YAML file, in order."""
        documents = YAML(typ="safe", pure=True).load_all(path.read_text())
        return [self.apply(document) for document in documents if document]

    def wait_established(self, crd: str, seconds: float = 20.0) -> None:
        """Until objects of a custom resource can be made."""
        deadline = time.monotonic() + seconds
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}"
        while True:
            conditions = self.get(path).get("status", {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            assert time.monotonic() < deadline, f"{crd} is not established after {seconds} s: {conditions}"
            time.sleep(0.05)


class Watch:
    """Iterates over events, `{"type": ..., "object": ...}`. `close` may be called from another thread."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[Json]:
        unread = b""
        try:
            for chunk in self._answer.stream(1 << 16):
                *lines, unread = (unread + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return  # broken off: whoever watches lists again
        finally:
            with self._lock:
                self._closed = True
                self._answer.close()

    def close(self) -> None:
        """Ends the iteration, which may be waiting for the server."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._answer.shutdown()
