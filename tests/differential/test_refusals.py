"""Calls that cannot be right: the same code from both, where the reference plugins give the specification's."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.differential.cases import DUAL, bridge

if TYPE_CHECKING:
    from tests.differential.sides import Side
    from tests.differential.twins import Twins

pytestmark = pytest.mark.root

CONF = json.dumps({"cniVersion": "1.0.0", "name": "net", **bridge(DUAL)})
WITHOUT_NAME = json.dumps({"cniVersion": "1.0.0", **bridge(DUAL)})


@pytest.mark.parametrize(
    ("environ", "stdin", "code"),
    [
        ({"CNI_NETNS": ""}, CONF, 4),
        ({"CNI_CONTAINERID": ""}, CONF, 4),
        ({"CNI_IFNAME": ""}, CONF, 4),
        ({"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}, CONF, 4),
        ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": ""}, CONF, 4),
        ({"CNI_COMMAND": "CHECK", "CNI_NETNS": ""}, CONF, 4),
        ({"CNI_COMMAND": "GROW"}, CONF, 4),
        ({"CNI_CONTAINERID": "../c"}, CONF, 4),
        ({"CNI_IFNAME": "an/interface"}, CONF, 4),
        ({"CNI_IFNAME": "sixteen-letters-"}, CONF, 4),
        ({}, "", 6),
        ({}, "{", 6),
        ({}, WITHOUT_NAME, 7),
        ({}, CONF.replace('"net"', '"a/b"'), 7),
        ({}, CONF.replace('"1.0.0"', '"7.0.0"'), 1),
        ({"CNI_COMMAND": "CHECK"}, CONF.replace('"1.0.0"', '"0.3.1"'), 1),
    ],
)
def test_same_code(executables: Twins, environ: dict[str, str], stdin: str, code: int) -> None:
    theirs, ours = (refusal(side, environ, stdin) for side in (executables.theirs, executables.ours))
    assert (theirs["code"], ours["code"]) == (code, code), (theirs, ours)
    for side in (executables.theirs, executables.ours):
        assert "br0" not in side.inside(side.node, "ip", "-br", "link")


def refusal(side: Side, changed: dict[str, str], stdin: str) -> dict[str, Any]:
    """The error object, which must come on stdout with exit status 1."""
    environ = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": side.pod,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(side.bin_dir),
        **changed,
    }
    argv = ["nsenter", f"--net={side.node}", "--", str(side.bin_dir / "bridge")]
    done = subprocess.run(argv, input=stdin.encode(), env=environ, capture_output=True, check=False)
    assert done.returncode == 1, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found
