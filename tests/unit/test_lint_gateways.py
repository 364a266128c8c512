"""The rule about a bridge that is a gateway, and who else gets its address."""

from __future__ import annotations

import pytest
from tests.lint_manifests import host_local, listed, plugin, require_firing, require_silent, whereabouts

POOL = '"range":"10.1.0.0/24"'


def bridge(ipam: str, flag: str = '"isGateway":«true') -> str:
    return listed(plugin("bridge", ipam, flag))


@pytest.mark.parametrize(
    "text",
    [
        bridge(whereabouts(POOL)),
        bridge(whereabouts(POOL), '"isDefaultGateway":«true'),
        bridge(whereabouts(POOL + ',"exclude":["10.1.0.2"]')),
        bridge(whereabouts('"range":"fd00::/64","ipRanges":[{"range":"10.1.0.0/24","range_start":"10.1.0.9"}]')),
        bridge(whereabouts('"ipRanges":[{"range":"fd00::/64"},{"range":"10.1.0.0/24"}],"gateway":"10.1.0.254"')),
    ],
)
def test_the_bridge_s_address_is_handed_out(text: str) -> None:
    require_firing("bridge-gateway", text)


@pytest.mark.parametrize(
    "text",
    [
        bridge(whereabouts(POOL + ',"gateway":"10.1.0.254"')),
        bridge(whereabouts(POOL + ',"exclude":["10.1.0.1"]')),
        bridge(whereabouts(POOL + ',"range_start":"10.1.0.2"')),
        bridge(whereabouts(POOL + ',"configuration_path":"/etc/x.conf"')),
        bridge(whereabouts('"range":"10.1.0.4/31"')),
        bridge(host_local('"subnet":"10.1.0.0/24"')),
        bridge(whereabouts(POOL), '"isGateway":«false'),
        bridge(""),
    ],
)
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text.replace("«", ""), "gateway-in-range", "missing-key")
