"""A host that nobody asked: on the nodes' segment, with an address and a MAC of its own. I/O: `ip`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from types import TracebackType

from testcluster.homeport_node import links
from testcluster.machines import Segment, delete_namespace, ip


class ForeignHost:
    """A context. While it lasts, the kernel of this host answers for its addresses, as any host's does."""

    def __init__(self, segment: Segment, addresses: Iterable[str]) -> None:
        self.netns = f"hp-foreign-{os.getpid()}-{secrets.token_hex(3)}"
        self.mac = ""
        self._segment = segment
        self._addresses = tuple(addresses)

    def __enter__(self) -> ForeignHost:
        port = f"f{secrets.token_hex(6)}"
        ip(
            f"netns add {self.netns}",
            f"link add {port} netns {self._segment.netns} type veth peer name eth0 netns {self.netns}",
        )
        ip(f"link set {port} master lan0 up", netns=self._segment.netns)
        ip(
            *(f"address add {address}/{128 if ':' in address else 32} dev eth0 nodad" for address in self._addresses),
            "link set eth0 up",
            netns=self.netns,
        )
        self.mac = links(self.netns)["eth0"]["address"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        delete_namespace(self.netns)
