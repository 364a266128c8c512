"""The plugins of a chain under test: executables that write down every call, and one in this process."""

from __future__ import annotations

import json
import textwrap
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.names import AttachmentKey
from homeport.model.results import Interface, IPConfig, Result
from homeport.ports import Shells

OWN = "/proc/self/ns/net"
KEY = AttachmentKey("net", "c1", "eth9")

# Writes down every call. Answers ADD with an address of its own appended to prevResult, unless its configuration has
# `say` for the verb: [exit code, text for stdout, text for stderr].
RECORDER = textwrap.dedent("""\
    import json, os, sys
    conf, me = json.load(sys.stdin), os.path.basename(sys.argv[0])
    verb = os.environ["CNI_COMMAND"]
    with open(os.environ["RECORD"], "a") as record:
        env = {k: v for k, v in os.environ.items() if k.startswith("CNI_")}
        record.write(json.dumps({"plugin": me, "verb": verb, "conf": conf, "env": env}) + "\\n")
    code, out, err = conf.get("say", {}).get(verb, [0, None, ""])
    sys.stderr.write(err)
    sys.stderr.flush()
    if verb == "ADD" and out is None:
        result = conf.get("prevResult") or {"cniVersion": conf["cniVersion"]}
        result.setdefault("ips", []).append({"address": conf["own"]})
        out = json.dumps(result)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.stdout.write(out or "")
    sys.exit(code)
""")


class Calls:
    """What the executables wrote down."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._record.read_text().splitlines()] if self._record.exists() else []

    def order(self) -> list[str]:
        return [f"{call['verb']} {call['plugin']}" for call in self()]

    def clear(self) -> None:
        self._record.unlink(missing_ok=True)


class OurPlugin:
    """A plugin in this process, of type `ours`, that writes down what it was given."""

    TYPE = "ours"

    def __init__(self) -> None:
        self.calls: list[tuple[str, NetConf]] = []
        self.result = Result(
            interfaces=(Interface(name="eth9", sandbox=OWN),), ips=(IPConfig(address=ip_interface("10.7.0.1/24")),)
        )
        self.error: BaseException | None = None

    def add(self, conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
        self.calls.append(("ADD", conf))
        if self.error:
            raise self.error
        return self.result

    def delete(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("DEL", conf))

    def check(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("CHECK", conf))

    def gc(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("GC", conf))

    def status(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("STATUS", conf))


def plugin(kind: str, own: int = 1, **keys: Any) -> dict[str, Any]:
    return {"type": kind, "own": f"10.0.0.{own}/24", "key": {"of": kind}, **keys}


def network(*plugins: dict[str, Any], version: str = "1.1.0", **keys: Any) -> ConfList:
    return conflists.parse(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins, **keys}).encode())


THREE = network(plugin("one", 1), plugin("two", 2), plugin("three", 3))


def said(code: int, text: str, details: str = "") -> str:
    return json.dumps({"code": code, "msg": text, "details": details})


def addresses(result: Result) -> list[str]:
    return [str(ip.address) for ip in result.ips]
