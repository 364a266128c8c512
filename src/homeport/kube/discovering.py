"""Which resource a kind of workload is, as the API server tells, and such a workload's state. I/O: through the asker.

Kubernetes API concepts, "Discovery". Kinds come from configuration without version and plural, and these do not change
while a definition is installed: they are asked for once, and again when the API server does not know them any more.
"""

from __future__ import annotations

from homeport.ipam.identities import Workload
from homeport.ipam.objects import WorkloadState
from homeport.kube import decoding, errors, object_requests, requests
from homeport.kube.asking import Asker
from homeport.kube.requests import Request
from homeport.model.errors import CniError, TryAgainLater
from homeport.ports import Resource


class Discovery:
    """Looks up workloads of any kind. Safe to share by threads."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._known: dict[tuple[str, str], Resource] = {}

    def workload(self, workload: Workload) -> WorkloadState | None:
        """As it is now; None when the API server says that there is none of that name.

        A kind that the API server does not know is `TryAgainLater`: its definition may be on its way, and that it is
        missing says nothing about the workload (R12).
        """
        kind, _, group = workload.kind.partition(".")
        if not group:
            body = self._asker.find(requests.get_stateful_set(workload))
            return None if body is None else decoding.decode_stateful_set(body)
        resource = self._known.get((group, kind))
        if resource is None:
            resource = self._known[group, kind] = self._discover(group, kind)
        try:
            body = self._asker.find(object_requests.get(resource, workload.name, workload.namespace))
        except CniError:
            self._known.pop((group, kind), None)  # its version may not be served any more
            raise
        return None if body is None else decoding.decode_workload(body, workload)

    def _discover(self, group: str, kind: str) -> Resource:
        wanted = f'look up kind "{kind}" of "{group}"'
        served = decoding.decode_group(self._answer(requests.get_group(group), wanted))
        for version in served:
            for found in decoding.decode_resources(self._answer(requests.get_resources(group, version), wanted)):
                if found.kind == kind and found.namespaced:
                    return found
        raise TryAgainLater(
            f"{wanted}: {self._asker.sender.place} knows no such kind with a namespace",
            f"versions looked at: {', '.join(served)}",
        )

    def _answer(self, request: Request, wanted: str) -> bytes:
        answer = self._asker.ask(request)
        if answer.code == 404:
            raise TryAgainLater(f"{wanted}: {self._asker.sender.place} knows no {request.path} (404)")
        if answer.code != 200:
            raise errors.refused(request, answer.code, answer.body, place=self._asker.sender.place)
        return answer.body
