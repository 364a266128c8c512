"""An ADD that fails at any of its steps leaves nothing behind, and so does one that is interrupted there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.netns.bridge.observing import names, rules

from homeport.model.errors import KernelRefused

if TYPE_CHECKING:
    from tests.netns.bridge.conftest import Attach
    from tests.netns.conftest import IpJson, NftJson, Node

    from homeport.ports import Host

pytestmark = pytest.mark.root

KEYS = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True, "hairpinMode": True, "enabledad": True}


class Interrupted(BaseException):
    """What SIGTERM becomes in a plugin's process."""


class Failing:
    """The host of a test, whose `number`th call fails once; the calls an operation is made of do not count."""

    def __init__(self, host: Host, number: int, error: BaseException) -> None:
        self.host, self.number, self.error = host, number, error
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.host, name)
        if name in ("operation", "on_undo"):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.number:
                raise self.error
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("error", [KernelRefused("no", "EPERM"), Interrupted()], ids=["refused", "interrupted"])
def test_every_step(
    attach: Attach,
    node: Node,
    ip_json: IpJson,
    nft_json: NftJson,
    ipam_calls: Callable[[], list[str]],
    error: BaseException,
) -> None:
    before = names(ip_json, node.netns)
    it = attach(**KEYS, ipam={"type": "noting"})
    real = it.shells.host
    failed: list[str] = []
    for number in range(1, 200):
        failing = Failing(real, number, error)
        it.shells = msgspec.structs.replace(it.shells, host=failing)
        try:
            it.add()
        except (KernelRefused, Interrupted):
            failed.append(failing.calls[number - 1])
        else:
            if len(failing.calls) < number:
                break
            it.delete()  # a step whose failure does not matter, such as an announcement
            it.shells.host.delete_links(["cni0"])
        place = f"call {number}, {failing.calls[number - 1]}"
        assert names(ip_json, node.netns) == before, place
        assert names(ip_json, it.netns) == {"lo"}, place
        assert rules(nft_json, node.netns) == [], place
        assert ipam_calls().count("ADD") == ipam_calls().count("DEL"), place
    assert {"create_bridge", "create_veth", "set_link", "add_address", "add_route", "run_nft", "link"} <= set(failed)
