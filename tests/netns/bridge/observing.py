"""What the tests see of bridges and containers: iproute2, nft and ping, never our own reader."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, NftJson

STATIC = {"type": "static", "addresses": [{"address": "10.1.2.3/24"}]}


def run(netns: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nsenter", f"--net={netns}", "--", *argv], capture_output=True, text=True, check=False)


def must(netns: str, *argv: str) -> str:
    done = run(netns, *argv)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def reaches(netns: str, address: str) -> bool:
    return run(netns, "ping", "-n", "-c1", "-W1", address).returncode == 0


def names(ip_json: IpJson, netns: str) -> set[str]:
    return {link["ifname"] for link in ip_json(netns, "link", "show")}


def rules(nft_json: NftJson, netns: str) -> list[str]:
    return [item["rule"]["comment"] for item in nft_json(netns, "list", "ruleset") if "rule" in item]


def static(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"type": "static", "addresses": [{"address": a} for a in addresses], **more}
