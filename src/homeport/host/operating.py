"""The ground every verb stands on: which namespace is ours, the way into others, and the running operation."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from homeport.host import entering, errors, namespaces, uapi
from homeport.host.namespaces import DirectEntrance, Entrance
from homeport.host.sockets import NetlinkSocket, Refused
from homeport.host.undoing import Operations
from homeport.model.errors import DecodeFailure


class Operating:
    """`netns` is the namespace that None stands for, or None for the process's own.

    In `short_lived` programs the thread that asks enters a namespace and comes back (setns(2) moves a thread, not the
    process); others let a helper process do it, as a thread that failed to come back would be used again.
    """

    def __init__(self, netns: str | None = None, *, short_lived: bool = False) -> None:
        self._own = netns
        self._short_lived = short_lived
        self._entrance = _direct() if short_lived else _helper()
        self._operations = Operations()

    def close(self) -> None:
        """Ends the helper. The next use starts it again."""
        self._entrance.close()

    def operation(self, *, undo_on_error: bool = True) -> AbstractContextManager[None]:
        return self._operations.operation(undo_on_error=undo_on_error)

    def on_undo(self, action: Callable[[], None]) -> None:
        self._operations.record(action)

    @contextmanager
    def netlink(self, netns: str | None) -> Iterator[NetlinkSocket]:
        """A socket in `netns`: the operation's own, or one for this verb alone."""
        path = netns or self._own
        if not self._operations.running:
            opened = self.open_netlink(netns)
            try:
                yield opened
            finally:
                opened.close()
            return
        try:
            yield self._operations.socket(path, lambda: self.open_netlink(netns))
        except (Refused, DecodeFailure) as error:
            if isinstance(error, DecodeFailure) or error.errno in (errno.EAGAIN, errno.EMSGSIZE):
                self._operations.forget_socket(path)
            raise

    def open_netlink(self, netns: str | None, *, groups: int = 0) -> NetlinkSocket:
        """A netlink socket of the caller's own, which also hears the multicast `groups`."""
        opened = self.open_socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_ROUTE)
        return NetlinkSocket(opened, netns or self._own, groups=groups)

    def open_socket(self, netns: str | None, family: int, kind: int, protocol: int) -> socket.socket:
        """A socket in `netns`; the caller closes it."""
        path = netns or self._own
        try:
            if path is None:
                return socket.socket(family, kind, protocol)
            return self._entrance.open_socket(path, family, kind, protocol)
        except entering.CannotEnter as error:
            raise errors.namespace_refused(path or "", error) from error
        except OSError as error:
            raise errors.refused(f"open socket{errors.place(path)}", error.errno or 0) from error

    def close_packet_socket(self, opened: socket.socket) -> None:
        """Closes a packet(7) socket. The kernel lets the closer wait for a grace period, some 15 ms, and nobody
        else has to: in a program that lives on, a thread of its own does it.
        """
        if self._short_lived:
            opened.close()
        else:
            threading.Thread(target=opened.close, name="close-packet-socket", daemon=True).start()

    @contextmanager
    def _namespace_descriptor(self, netns: str | None) -> Iterator[int]:
        """A descriptor of `netns` for IFLA_NET_NS_FD, closed again at once: it would keep the namespace alive."""
        descriptor = namespaces.open_namespace(netns or self._own or entering.OWN)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _direct() -> Entrance:
    return DirectEntrance()


def _helper() -> Entrance:
    from homeport.host.helping import HelperEntrance  # a plugin's short process never needs it

    return HelperEntrance()
