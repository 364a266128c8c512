"""Operations: what was done in one is undone when it fails; sockets opened in one are closed with it.

Each thread has operations of its own, so that two requests never share a socket or undo each other's work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from homeport.host.sockets import NetlinkSocket
from homeport.model.errors import CniError, InvalidNetns, MissingLink

Inverse = Callable[[], object]


class _Span(threading.local):
    """What the operations of one thread share: the inverses so far, and the open sockets."""

    def __init__(self) -> None:
        self.depth = 0
        self.recording = False
        self.inverses: list[Inverse] = []
        self.sockets: dict[str | None, NetlinkSocket] = {}


class Operations:
    """The running operations of every thread."""

    def __init__(self) -> None:
        self._span = _Span()

    @property
    def running(self) -> bool:
        return self._span.depth > 0

    @property
    def recording(self) -> bool:
        """Whether an inverse would be kept: facts needed for it alone need not be read otherwise."""
        return self._span.recording

    def record(self, inverse: Inverse) -> None:
        if self.recording:
            self._span.inverses.append(inverse)

    def socket(self, netns: str | None, opened: Callable[[], NetlinkSocket]) -> NetlinkSocket:
        """The running operation's socket for `netns`."""
        found = self._span.sockets.get(netns)
        if found is None:
            found = self._span.sockets[netns] = opened()
        return found

    def forget_socket(self, netns: str | None) -> None:
        """Closes a socket whose conversation went wrong, so that no late answer is taken for another's."""
        found = self._span.sockets.pop(netns, None)
        if found is not None:
            found.close()

    @contextmanager
    def operation(self, *, undo_on_error: bool) -> Iterator[None]:
        span = self._span
        start, outer = len(span.inverses), span.recording
        span.depth += 1
        span.recording = undo_on_error
        try:
            yield
        except BaseException as error:
            if undo_on_error:
                try:
                    self._undo(start, error)
                except BaseException as bug:
                    raise bug from error  # an `ExitStack` lost the connection
            raise
        finally:
            if not undo_on_error:
                del span.inverses[start:]  # what inner operations left to be undone by an outer one
            span.recording = outer
            span.depth -= 1
            if span.depth == 0:
                span.inverses.clear()
                for opened in span.sockets.values():
                    opened.close()
                span.sockets.clear()

    def _undo(self, start: int, error: BaseException) -> None:
        """Newest first, every one of them; what is already gone needs no undoing."""
        span = self._span
        inverses = span.inverses[start:]
        del span.inverses[start:]
        span.recording = False
        with ExitStack() as every_one:  # goes on past an inverse that raises
            for inverse in inverses:
                every_one.callback(_undo_one, inverse, error)


def _undo_one(inverse: Inverse, error: BaseException) -> None:
    try:
        inverse()
    except (InvalidNetns, MissingLink):
        return
    except CniError as trouble:
        error.add_note(f"while undoing: {trouble}")
