"""Every form of the shim, one after the other, for each test that asks for `shim`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.shim.builds import FORMS, Shim, build
from tests.shim.peers import Peer, hang_up


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shim(form: str) -> Iterator[Shim]:
    """Its folder has a short name, since a socket's path is bounded."""
    with tempfile.TemporaryDirectory(prefix="shim-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        shim = Shim(form, build(form), Path(folder))
        yield shim
        shim.require_no_fault()


@pytest.fixture
def peer(shim: Shim) -> Iterator[Callable[..., Peer]]:
    """`peer(*pieces)`: listens at the shim's socket and gives every call this answer."""
    peers: list[Peer] = []

    def start(*pieces: bytes) -> Peer:
        peers.append(Peer(shim.socket, hang_up))
        peers[-1].then(peers[-1].replies(*pieces))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
        assert peer.failure is None, repr(peer.failure)
