"""Conversations with a kernel that interrupts, mixes up, cuts off and goes silent."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Any, cast

import pytest

from homeport.host import netlink, uapi
from homeport.host.sockets import NetlinkSocket, Refused
from homeport.model.errors import DecodeFailure, TryAgainLater


class ScriptedKernel:
    """Stands for an AF_NETLINK socket: answers each request with the next of `scripts`, a list of datagrams.

    A datagram is a list of (kind, flags, body), sent under the request's sequence number; bytes are sent as they are.
    """

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self.scripts = list(scripts)
        self.pending: list[bytes] = []
        self.requests = 0

    def setsockopt(self, *_: object) -> None: ...
    def bind(self, _: object) -> None: ...
    def close(self) -> None: ...

    def send(self, data: bytes) -> int:
        self.requests += 1
        sequence = struct.unpack_from("=I", data, 8)[0]
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        for datagram in script:
            if isinstance(datagram, OSError):
                raise datagram
            self.pending.append(_datagram(datagram, sequence))
        return len(data)

    def recv_into(self, buffer: bytearray, _: int, flags: int) -> int:
        assert flags == socket.MSG_TRUNC
        if not self.pending:
            raise BlockingIOError(errno.EAGAIN, "timed out")
        data = self.pending.pop(0)
        buffer[: len(data)] = data
        return len(data)


def _datagram(datagram: Any, sequence: int) -> bytes:
    if isinstance(datagram, bytes):
        return datagram
    return b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body for kind, flags, body in datagram
    )


def asking(*scripts: Sequence[Any]) -> tuple[NetlinkSocket, ScriptedKernel]:
    kernel = ScriptedKernel(*scripts)
    return NetlinkSocket(cast(socket.socket, kernel), None), kernel


ITEM = (uapi.RTM_NEWLINK, 2, b"item")
INTERRUPTED = (uapi.RTM_NEWLINK, 2 | uapi.NLM_F_DUMP_INTR, b"half")
DONE = (uapi.NLMSG_DONE, 2, bytes(4))
DONE_INTERRUPTED = (uapi.NLMSG_DONE, 2 | uapi.NLM_F_DUMP_INTR, bytes(4))


def refusing(code: int) -> tuple[int, int, bytes]:
    return (uapi.NLMSG_ERROR, 0, struct.pack("=i", -code) + bytes(16))


def test_dump_spans_datagrams() -> None:
    sock, _ = asking([[ITEM, ITEM], [ITEM], [DONE]])
    assert sock.dump(18, b"") == [b"item"] * 3


@pytest.mark.parametrize("half", [[[INTERRUPTED], [ITEM, DONE]], [[ITEM], [DONE_INTERRUPTED]]])
def test_interrupted_dump_is_asked_again(half: list[Any]) -> None:
    sock, kernel = asking(half, half, [[ITEM, DONE]])
    assert sock.dump(18, b"") == [b"item"]
    assert kernel.requests == 3


def test_dump_interrupted_for_ever_is_never_returned() -> None:
    sock, kernel = asking([[INTERRUPTED], [DONE]])
    with pytest.raises(TryAgainLater, match="changed while it was read"):
        sock.dump(18, b"")
    assert kernel.requests == 16


def test_dump_that_ends_in_an_error_is_not_a_short_list() -> None:
    sock, _ = asking([[ITEM], [(uapi.NLMSG_DONE, 2, struct.pack("=i", -errno.ENOBUFS))]])
    with pytest.raises(Refused) as refused:
        sock.dump(18, b"")
    assert refused.value.errno == errno.ENOBUFS


def test_dump_that_never_ends_is_not_a_short_list() -> None:
    sock, _ = asking([[ITEM]])
    with pytest.raises(Refused) as refused:
        sock.dump(18, b"")
    assert (refused.value.errno, refused.value.text) == (errno.EAGAIN, "waiting for the answer")


def test_answer_to_another_request_is_passed_over() -> None:
    late = struct.pack("=IHHII", 20, uapi.RTM_NEWLINK, 0, 77, 0) + b"late"
    sock, _ = asking([late, [ITEM]])
    assert sock.get(18, b"") == b"item"


def test_answer_cut_off_is_an_error() -> None:
    sock, _ = asking([bytes(70_000)])
    with pytest.raises(Refused) as refused:
        sock.get(18, b"")
    assert refused.value.errno == errno.EMSGSIZE


def test_datagram_that_ends_in_the_middle_is_an_error() -> None:
    sock, _ = asking([netlink.request(16, 0, 1, b"body")[:-1]])
    with pytest.raises(DecodeFailure, match="netlink message: length 20, expected 16 to 19"):
        sock.get(18, b"")


def test_change_is_done_when_acknowledged_and_only_then() -> None:
    sock, _ = asking([[refusing(0)]])
    sock.change(16, b"")
    sock, _ = asking([[refusing(errno.EPERM)]])
    with pytest.raises(Refused) as refused:
        sock.change(16, b"")
    assert refused.value.errno == errno.EPERM
    sock, _ = asking([[ITEM]])
    with pytest.raises(Refused) as refused:
        sock.change(16, b"")
    assert refused.value.errno == errno.EAGAIN


def test_change_returns_what_the_kernel_echoes() -> None:
    sock, _ = asking([[ITEM], [ITEM, refusing(0)]])
    assert sock.change(16, b"", uapi.NLM_F_ECHO) == [b"item", b"item"]


def test_request_that_cannot_be_sent_is_refused() -> None:
    sock, _ = asking([OSError(errno.ENOBUFS, "full")])
    with pytest.raises(Refused) as refused:
        sock.get(18, b"")
    assert refused.value.errno == errno.ENOBUFS
