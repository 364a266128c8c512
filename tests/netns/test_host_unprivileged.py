"""Everything the lab needs of the kernel, as an ordinary user in namespaces of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

PROGRAM = """
import json, subprocess, sys
from ipaddress import ip_address, ip_interface, ip_network
from homeport.host.kernel import Kernel
from homeport.host.probing import ArpProbe
from homeport.ports import KernelRoute, Rule

subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
kernel = Kernel(short_lived=sys.argv[1] == "direct")
node, pod = "/run/netns/node", "/run/netns/pod"
kernel.create_namespace(node)
kernel.create_namespace(pod)
kernel.create_veth("eth1", netns=node, peer="lan0", peer_netns=None)
kernel.set_link("eth1", node, up=True)
kernel.set_link("lan0", up=True)
kernel.add_address("lan0", ip_interface("10.0.0.1/24"))
with kernel.operation():
    kernel.create_macvlan("net1", netns=pod, parent="eth1", parent_netns=node)
    kernel.set_link("net1", pod, up=True)
    kernel.add_address("net1", ip_interface("10.0.0.2/24"), pod)
    kernel.add_route(KernelRoute(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.0.0.1"), link="net1"), pod)
    kernel.add_rule(Rule(family=4, src=ip_network("10.0.0.2/32"), table=100), pod)
    kernel.write_sysctl("net/ipv4/conf/net1/arp_notify", "1", pod)
    kernel.announce("net1", ip_address("10.0.0.2"), pod)
assert ArpProbe(kernel).answers(ip_address("10.0.0.1"), link="net1", netns=pod, timeout_seconds=5)
kernel.run_nft([{"add": {"table": {"family": "ip", "name": "t"}}}], pod)
show = ["nsenter", "--net=" + pod, "ip", "-json", "address", "show", "net1"]
print(json.loads(subprocess.run(show, capture_output=True, check=True).stdout)[0]["addr_info"][0]["local"])
kernel.delete_links(["net1"], pod)
kernel.delete_namespace(pod)
kernel.delete_namespace(node)
assert not kernel.namespace_exists(pod)
"""


@pytest.mark.parametrize("way", ["helper", "direct"])
def test_without_root(way: str) -> None:
    """Root of a user namespace alone: it may do nothing to the machine's own network."""
    enter = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("kernel lacks user namespaces for ordinary users")
    done = subprocess.run([*enter, sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10.0.0.2\n", "")
