"""A netlink socket that asks and waits for the whole answer: requests, dumps, acknowledgements.

netlink(7). The socket belongs to the namespace it was opened in, whatever thread uses it. One request is under way
at a time, so an instance must not be shared by threads. An answer is whole or it is an error: a dump the kernel
marked as interrupted (NLM_F_DUMP_INTR) is asked again, and never returned.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading

from homeport.host import netlink, uapi
from homeport.host.netlink import Message, Refusal
from homeport.model.errors import KernelRefused, TryAgainLater

_BUFFER_BYTES = 1 << 16  # the kernel builds a dump in pieces of at most 32 KiB
_ANSWER_SECONDS = 30  # rtnetlink answers while it handles the request; this only ends a wait that has gone wrong
_ANSWER_TIME = struct.pack("@ll", _ANSWER_SECONDS, 0)  # struct timeval
_DUMP_TRIES = 16


class _Received(threading.local):
    """Where answers arrive: one a thread, since a conversation would wait for its memory longer than for the kernel."""

    def __init__(self) -> None:
        self.buffer = bytearray(_BUFFER_BYTES)


_received = _Received()


class Refused(Exception):
    """The kernel's errno to one request; the caller knows what was asked and says so (`errors`)."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.errno, refusal.text)
        self.errno, self.text = refusal


class NetlinkSocket:
    """Speaks rtnetlink over an open AF_NETLINK socket, and owns it."""

    def __init__(self, opened: socket.socket, netns: str | None, *, groups: int = 0) -> None:
        self.netns = netns  # where it is, for errors; None is the process's own namespace
        self.indexes: dict[str, int] = {}  # of links by name, as far as asked: the conversation lasts milliseconds
        self._socket = opened
        self._sequence = 0
        try:
            opened.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_EXT_ACK, 1)
            opened.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_GET_STRICT_CHK, 1)  # the kernel filters dumps
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_TIME)
            if groups:
                opened.bind((0, groups))  # otherwise the first request binds
        except OSError as error:
            opened.close()
            raise KernelRefused("open netlink socket", errno.errorcode.get(error.errno or 0, "")) from error

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def get(self, kind: int, body: bytes) -> bytes:
        """The one object asked for; `Refused` otherwise."""
        self._send(kind, 0, body)
        answer = self._receive()[0]
        if answer.kind == uapi.NLMSG_ERROR:
            raise Refused(netlink.refusal(answer))
        return answer.body

    def change(self, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
        """Asks for a change; returns when the kernel has acknowledged it.

        With NLM_F_ECHO the kernel tells exactly what it changed, as it tells everybody who listens: those are the
        objects returned.
        """
        self._send(kind, flags | uapi.NLM_F_ACK, body)
        echoed: list[bytes] = []
        while True:
            for answer in self._receive():
                if answer.kind != uapi.NLMSG_ERROR:
                    echoed.append(answer.body)
                    continue
                refusal = netlink.refusal(answer)
                if refusal.errno:
                    raise Refused(refusal)
                return echoed

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object, all from one undisturbed pass over the kernel's table."""
        for _ in range(_DUMP_TRIES):
            found = self._dump_once(kind, body)
            if found is not None:
                return found
        raise TryAgainLater(f"netlink dump {kind}: changed while it was read, {_DUMP_TRIES} times in a row")

    def discard(self) -> None:
        """Reads away what a multicast group has told so far, without waiting for more."""
        try:
            while True:
                self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # ENOBUFS: more was told than fits, which is news enough
                raise KernelRefused("listen to netlink", errno.errorcode.get(error.errno or 0, "")) from error

    def _dump_once(self, kind: int, body: bytes) -> list[bytes] | None:
        self._send(kind, uapi.NLM_F_DUMP, body)
        found: list[bytes] = []
        whole = True
        while True:
            for message in self._receive():
                whole = whole and not message.flags & uapi.NLM_F_DUMP_INTR
                if message.kind in (uapi.NLMSG_DONE, uapi.NLMSG_ERROR):
                    refusal = netlink.refusal(message)
                    if refusal.errno:
                        raise Refused(refusal)
                    return found if whole else None
                found.append(message.body)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        try:
            self._socket.send(netlink.request(kind, flags, self._sequence, body))
        except OSError as error:
            raise Refused(Refusal(error.errno or 0, "sending the request")) from error

    def _receive(self) -> list[Message]:
        """The next datagram that answers the present request; never empty."""
        while True:
            data = self._receive_datagram()
            answers = [message for message in netlink.messages(data) if message.sequence == self._sequence]
            if answers:
                return answers

    def _receive_datagram(self) -> bytes:
        buffer = _received.buffer
        try:
            length = self._socket.recv_into(buffer, 0, socket.MSG_TRUNC)  # MSG_TRUNC: the length it had
        except OSError as error:
            raise Refused(Refusal(error.errno or 0, "waiting for the answer")) from error
        if length > _BUFFER_BYTES:
            raise Refused(Refusal(errno.EMSGSIZE, f"answer of {length} bytes, longer than {_BUFFER_BYTES}"))
        return bytes(memoryview(buffer)[:length])
