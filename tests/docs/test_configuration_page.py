"""docs/configuration.md against the code: every key and its default, and every example."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.cni import conflists
from homeport.daemon import generating, logs, settings
from homeport.multinet import settings as requests
from homeport.multinet.settings import GLOBAL_NAMESPACES

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
ROW = re.compile(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", re.MULTILINE)
FENCE = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [json.loads(text) for text in FENCE.findall(PAGE.read_text())]
DAEMON_FILES = [example for example in EXAMPLES if "type" not in example]
PLUGIN_FILES = [example for example in EXAMPLES if "type" in example]

# Not what leaving the key out stands for in the wire form, but what it comes to.
MEANT: Mapping[str, Any] = {
    "logLevel": "verbose",  # the daemon's own default
    "globalNamespaces": ",".join(GLOBAL_NAMESPACES),
    "systemNamespaces": [requests.NAMESPACE],
    "multusNamespace": requests.NAMESPACE,
    "confDir": requests.CONF_DIR,
    "cniDir": requests.CNI_DIR,
    "binDir": requests.BIN_DIR,
    "daemonSocketDir": "",
}


def defaults(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """Each key of the struct as it is written, with what it is when it is left out."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if field.default is not msgspec.NODEFAULT:
            found[prefix + field.encode_name] = field.default
        else:
            assert field.default_factory is not msgspec.NODEFAULT
            found[prefix + field.encode_name] = msgspec.to_builtins(field.default_factory())
    return found


def known() -> dict[str, Any]:
    log = defaults(logs._WireLog)
    rotation = {f"logOptions.{key}": value for key, value in log.pop("logOptions").items()}
    request = defaults(requests._Wire)
    request.pop("logOptions")
    own = request | defaults(generating._Wire) | defaults(settings._Wire)
    return {**own, **log, **rotation, **MEANT}


KNOWN = known()


def test_every_key_is_on_the_page_once_and_no_other() -> None:
    shown = [key for key, _, _ in ROW.findall(PAGE.read_text())]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(KNOWN)


@pytest.mark.parametrize(("key", "default"), [(key, default) for key, default, _ in ROW.findall(PAGE.read_text())])
def test_a_default_is_the_codes(key: str, default: str) -> None:
    assert json.loads(default) == KNOWN[key]


@pytest.mark.parametrize("example", DAEMON_FILES)
def test_an_example_of_the_daemons_file(example: dict[str, Any]) -> None:
    assert settings.parse(example, node="n").warnings == ()
    logs.parse(example)
    assert generating.parse(example) is not None


@pytest.mark.parametrize("example", PLUGIN_FILES)
def test_an_example_of_the_runtimes_file(example: dict[str, Any]) -> None:
    assert requests.parse(example).warnings == ()
    conflists.parse(example)


@pytest.mark.parametrize("daemon", DAEMON_FILES)
@pytest.mark.parametrize("request_", PLUGIN_FILES)
def test_the_daemons_file_over_the_runtimes(daemon: dict[str, Any], request_: dict[str, Any]) -> None:
    assert requests.parse(requests.overlaid(request_, daemon)).warnings == ()


def test_the_generated_file_is_the_one_shown() -> None:
    calico = {
        "cniVersion": "0.3.1",
        "name": "k8s-pod-network",
        "plugins": [
            {"type": "calico"},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    wanted = generating.parse(DAEMON_FILES[0])
    assert wanted is not None
    written = generating.generate(conflists.parse(calico), "/etc/cni/net.d/10-calico.conflist", wanted)
    assert json.loads(written) == PLUGIN_FILES[0]
    assert list(json.loads(written)) == list(PLUGIN_FILES[0])


def test_all_kinds_of_examples_are_there() -> None:
    assert len(DAEMON_FILES) == 3
    assert len(PLUGIN_FILES) == 2
