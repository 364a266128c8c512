"""Who asked what of the API server, from its audit log. I/O: files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class Request:
    """One answered request. `resource` is such as "pods" or "pods/status"; a watch appears when it ends."""

    verb: str
    resource: str
    namespace: str
    name: str
    status: int


class Audit:
    """The audit log of a control plane, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._policy = folder / "audit-policy.json"
        self._log = folder / "logs" / "audit.log"

    def flags(self) -> list[str]:
        """Of the API server."""
        self._policy.write_text(json.dumps(_POLICY))
        return [f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}"]

    def requests(self, user: str) -> list[Request]:
        """All of this user's until now."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [_request(event) for event in map(json.loads, lines) if event["user"].get("username") == user]


def _request(event: dict[str, dict[str, str]]) -> Request:
    reference = event.get("objectRef", {})
    resource = "/".join(part for part in (reference.get("resource", ""), reference.get("subresource", "")) if part)
    return Request(
        verb=str(event["verb"]),
        resource=resource,
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        status=int(event.get("responseStatus", {}).get("code", 0)),
    )
