"""One side of a comparison: a node, a pod on it, and somebody's plugins to run there as a runtime would."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeport.cni import documents, netconfs, versions
from homeport.cni.invocations import Attachment
from homeport.host.kernel import Kernel
from homeport.model.errors import CniError
from homeport.plugins import registry
from homeport.wiring import build_shells

THEIR_PLUGINS = Path("/usr/lib/cni")
UPLINK_MAC = "02:00:00:00:00:f1"
LAN_MAC = "02:00:00:00:00:f0"

Json = dict[str, Any]


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Call:
    """What a runtime asks for. `{data}` in the plugins' JSON is the side's own directory, `{pod}` its namespace."""

    plugins: Sequence[Mapping[str, Any]]
    version: str = "1.0.0"
    args: str = ""
    network: str = "net"
    container: str = "c1"
    ifname: str = "eth0"
    netns: str = "{pod}"


@dataclass(frozen=True)
class Answer:
    """What came back: the last plugin's JSON, or its error object with `code` set."""

    value: Json = field(default_factory=dict)
    code: int = 0


class Side(ABC):
    """`node` has an uplink eth1 (10.20.0.2/24, default route) whose other end is lan0 in `lan` (10.20.0.1/24)."""

    def __init__(self, name: str, bin_dir: Path, data: Path) -> None:
        self.bin_dir, self.data = bin_dir, data
        (data / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch example.org example.net\noptions ndots:3\n")
        self.node, self.pod, self.lan = (f"/run/netns/{name}-{part}" for part in ("node", "pod", "lan"))
        run("sh", "-ec", self._script())

    def _script(self) -> str:
        """One process instead of twenty. Fresh links take accept_dad over, so that no test waits for the kernel."""
        node, pod, lan = (os.path.basename(path) for path in (self.node, self.pod, self.lan))
        made = "\n".join(
            f"ip netns add {name}; ip -n {name} link set lo up\n"
            f"nsenter --net=/run/netns/{name} sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'"
            for name in (node, pod, lan)
        )
        return f"""{made}
            ip -n {node} link add eth1 address {UPLINK_MAC} type veth peer name lan0 address {LAN_MAC} netns {lan}
            ip -n {node} address add 10.20.0.2/24 dev eth1
            ip -n {lan} address add 10.20.0.1/24 dev lan0
            ip -n {node} link set eth1 up
            ip -n {lan} link set lan0 up
            ip -n {node} route add default via 10.20.0.1
        """

    def inside(self, netns: str, *argv: str) -> str:
        return run("nsenter", f"--net={netns}", "--", *argv)

    def remove(self) -> None:
        for path in (self.pod, self.node, self.lan):
            if os.path.exists(path):
                run("ip", "netns", "delete", os.path.basename(path))

    def fill(self, text: str) -> str:
        return text.replace("{data}", str(self.data)).replace("{pod}", self.pod)

    def add(self, call: Call) -> Answer:
        """Forward, each plugin's result the next one's prevResult; stops at the first error, undoes nothing."""
        result: Json | None = None
        for plugin in call.plugins:
            answer = self.invoke("ADD", self._conf(call, plugin, result), call)
            if answer.code:
                return answer
            result = answer.value
        return Answer(result or {})

    def delete(self, call: Call, result: Json | None = None) -> Answer:
        """In reverse, with the final result, as libcni does."""
        for plugin in reversed(call.plugins):
            answer = self.invoke("DEL", self._conf(call, plugin, result), call)
            if answer.code:
                return answer
        return Answer()

    def check(self, call: Call, result: Json) -> Answer:
        for plugin in call.plugins:
            answer = self.invoke("CHECK", self._conf(call, plugin, result), call)
            if answer.code:
                return answer
        return Answer()

    @abstractmethod
    def invoke(self, command: str, conf: bytes, call: Call) -> Answer:
        """One call of one plugin."""

    def _conf(self, call: Call, plugin: Mapping[str, Any], result: Json | None) -> bytes:
        conf = {"cniVersion": call.version, "name": call.network, **plugin}
        text = self.fill(json.dumps(conf))
        return json.dumps({**json.loads(text), **({"prevResult": result} if result else {})}).encode()


class Executables(Side):
    """Plugins started as a runtime starts them."""

    def invoke(self, command: str, conf: bytes, call: Call) -> Answer:
        environ = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": call.container,
            "CNI_NETNS": self.fill(call.netns),
            "CNI_IFNAME": call.ifname,
            "CNI_ARGS": call.args,
            "CNI_PATH": str(self.bin_dir),
            "HOMEPORT_STORE": str(self.data / "allocations.db"),
        }
        plugin = self.bin_dir / json.loads(conf)["type"]
        argv = ["nsenter", f"--net={self.node}", "--", str(plugin)]
        done = subprocess.run(argv, input=conf, env=environ, capture_output=True, check=False)
        value: Json = json.loads(done.stdout or b"{}")
        assert (done.returncode != 0) == ("code" in value), done.stderr.decode() + done.stdout.decode()
        return Answer(value, value.get("code", 0))


class InProcess(Side):
    """Our plugins called as functions, by a process outside the node."""

    def __init__(self, name: str, bin_dir: Path, data: Path) -> None:
        super().__init__(name, bin_dir, data)
        self.shells = build_shells(netns=self.node, store=str(data / "allocations.db"))

    def remove(self) -> None:
        assert isinstance(self.shells.host, Kernel)
        self.shells.host.close()
        super().remove()

    def invoke(self, command: str, conf: bytes, call: Call) -> Answer:
        plugin = registry.find(json.loads(conf)["type"])
        assert plugin is not None
        version = call.version
        try:
            attachment = Attachment(
                container_id=call.container,
                ifname=call.ifname,
                netns_path=self.fill(call.netns) or None,
                args=dict(pair.split("=", 1) for pair in call.args.split(";") if pair),
                path=(str(self.bin_dir),),
            )
            parsed = netconfs.parse(conf)
            if command == "ADD":
                result = plugin.add(parsed, attachment, self.shells)
                return Answer(json.loads(documents.write(versions.encode_result(result, version))))
            verb = plugin.delete if command == "DEL" else plugin.check
            verb(parsed, attachment, self.shells)
        except CniError as error:
            value: Json = json.loads(documents.write(versions.encode_error(error, version)))
            return Answer(value, error.code)
        return Answer()
