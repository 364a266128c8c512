"""Questions to the API server, each with a deadline, and lists of it page by page. I/O: through the sender."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from homeport.kube import decoding, errors
from homeport.kube.connecting import Answer
from homeport.kube.decoding import Page
from homeport.kube.requests import Request
from homeport.kube.sending import Sender
from homeport.model.errors import DecodeFailure, TryAgainLater

DEADLINE_SECONDS = 2.5  # of one question, whatever it takes
HURRIED_SECONDS = 0.5  # of one that follows a question which took its whole time in vain
_HURRY_LASTS_SECONDS = 10.0


class Asker:
    """Asks through `sender`. Safe to share by threads.

    A pod's ADD asks several questions, and a frozen API server is not to cost it that many deadlines: after one that
    passed in vain the next ones are short, until one is answered or some seconds are over.
    """

    def __init__(self, sender: Sender, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.sender = sender
        self._usual_seconds = deadline_seconds
        self._short_until = 0.0

    def ask(self, request: Request) -> Answer:
        """The answer, whatever its status; see `Sender.ask`."""
        is_short = time.monotonic() < self._short_until
        began = time.monotonic()
        try:
            answer = self.sender.ask(
                request, seconds=min(self._usual_seconds, HURRIED_SECONDS) if is_short else self._usual_seconds
            )
        except TryAgainLater:
            # A short question proves nothing of a server that is slow, so that it prolongs nothing either.
            if time.monotonic() - began >= self._usual_seconds:
                self._short_until = time.monotonic() + _HURRY_LASTS_SECONDS
            raise
        self._short_until = 0.0
        return answer

    def find(self, request: Request) -> bytes | None:
        """One object's JSON, or None when the API server says that it is not there."""
        answer = self.ask(request)
        if answer.code == 200:
            identity = decoding.decode_identity(answer.body)
            if (identity.namespace, identity.name) != (request.namespace, request.name):
                raise DecodeFailure(
                    f"{request}: found {identity.namespace}/{identity.name}, expected what was asked for"
                )
            return answer.body
        if errors.is_absence(request, answer.code, answer.body):
            return None
        raise errors.refused(request, answer.code, answer.body, place=self.sender.place)


def pages(sender: Sender, list_page: Callable[[str], Request], *, seconds: float) -> Iterator[Page]:
    """A whole list, each page asked for when it is wanted; `list_page` builds the request from a continue token.

    They are of one version of the collection, the first one's, or `Expired` is raised: then what came before the
    error is no list. A page may take `seconds`.
    """
    token = ""
    while True:
        request = list_page(token)
        answer = sender.ask(request, seconds=seconds)
        if answer.code != 200:
            raise errors.refused(request, answer.code, answer.body, place=sender.place)
        page = decoding.decode_page(answer.body)
        yield page
        token = page.continue_token
        if not token:
            return
