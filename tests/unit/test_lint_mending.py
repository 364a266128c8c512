"""Right configurations, spoilt in one way each, and put right by `--fix`: what comes out is what there was before.

The configurations are those of tests/fixtures/lint/correct, so that whatever a rule takes for a mistake in one of them,
or a fix makes of another, shows here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from homeport.lint import manifests, yamltext
from homeport.lint.catalogue import KINDS, Role
from homeport.lint.checking import check
from homeport.lint.findings import Severity
from homeport.lint.fixing import fix
from homeport.lint.nodes import Node, plain

CORRECT = sorted((Path(__file__).parents[1] / "fixtures/lint/correct").glob("*.yaml"))
HEAD = """\
# kept
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: net  # kept too
spec:
"""

Config = dict[str, Any]
Spoil = Callable[[Config], str | None]
"""The text of a manifest with that configuration spoilt; None where it cannot be."""


@cache
def configs() -> list[Config]:
    """Every configuration that a correct manifest has."""
    read = manifests.read({path.name: path.read_text() for path in CORRECT})
    found = [plain(n.config) for n in read.networks if n.config is not None]
    assert len(found) > 80
    return found


def manifest(config: str) -> str:
    """The text in a block of YAML."""
    return HEAD + "  config: |\n" + "".join(f"    {line}\n" for line in config.splitlines())


def written(config: Config) -> str:
    return manifest(json.dumps(config, indent=2))


def plugins(config: Config) -> list[Config]:
    """Those whose keys lint judges."""
    listed = config.get("plugins", [config])
    return [p for p in listed if p["type"] in KINDS and KINDS[p["type"]].keys is not None]


# --- ways to spoil one ---------------------------------------------------------------------------------------------


def version_in_a_plugin(config: Config) -> str | None:
    if "plugins" not in config or "cniVersions" in config:
        return None
    config["plugins"][0]["cniVersion"] = config.pop("cniVersion")
    return written(config)


def version_twice(config: Config) -> str | None:
    for plugin in config.get("plugins", []):
        plugin["cniVersion"] = config["cniVersion"]
    return written(config) if "plugins" in config else None


def version_of_two_numbers(config: Config) -> str | None:
    if not config["cniVersion"].endswith(".0"):
        return None
    config["cniVersion"] = config["cniVersion"].removesuffix(".0")
    return written(config)


def version_with_a_v(config: Config) -> str | None:
    config["cniVersion"] = "v" + config["cniVersion"]
    return written(config)


def chained_first(config: Config) -> str | None:
    listed = config.get("plugins", [])
    if len(listed) != 2 or KINDS[listed[1]["type"]].role is not Role.CHAINED or listed[0]["type"] not in KINDS:
        return None
    listed.reverse()
    return written(config)


def capital_keys(config: Config) -> str | None:
    found = False
    for plugin in plugins(config):
        for key in [k for k in plugin if k in (KINDS[plugin["type"]].keys or {})]:
            plugin[key.capitalize()] = plugin.pop(key)
            found = True
    return written(config) if found else None


def capital_types(config: Config) -> str | None:
    for plugin in config.get("plugins", [config]):
        if plugin["type"] not in KINDS:
            return None
        plugin["type"] = plugin["type"].capitalize()
    return written(config)


def numbers_in_quotes(config: Config) -> str | None:
    found = False
    for plugin in plugins(config):
        for key, value in plugin.items():
            known = (KINDS[plugin["type"]].keys or {}).get(key)
            if known is not None and known.type in ("number", "boolean") and not isinstance(value, str):
                plugin[key] = json.dumps(value)
                found = True
    return written(config) if found else None


def one_comma_too_many(config: Config) -> str | None:
    return manifest(json.dumps(config, indent=2).removesuffix("\n}") + ",\n}")


def no_comma(config: Config) -> str | None:
    text = json.dumps(config, indent=2)
    return manifest(text.replace('",\n', '"\n', 1)) if '",\n' in text else None


def single_quotes(config: Config) -> str | None:
    text = json.dumps(config, indent=2)
    return manifest(text.replace('"', "'")) if "'" not in text and "\\" not in text else None


def words_of_python(config: Config) -> str | None:
    text = json.dumps(config, indent=2)
    spoilt = text.replace(": true", ": True").replace(": false", ": False")
    return manifest(spoilt) if spoilt != text else None


def no_string(config: Config) -> str | None:
    text = json.dumps(config)
    return HEAD + f"  config: {text}\n" if "'" not in text and "//" not in text else None


def host_bits(config: Config) -> str | None:
    for plugin in config.get("plugins", [config]):
        ipam = plugin.get("ipam") or {}
        if ipam.get("type") == "whereabouts" and str(ipam.get("range", "")).endswith(".0/24"):
            ipam["range"] = ipam["range"].removesuffix(".0/24") + ".77/24"
            return written(config)
    return None


def misspelt_kind(config: Config) -> str | None:
    return written(config).replace("NetworkAttachmentDefinition", "NetworkAttachmentDefinitions")


def old_api(config: Config) -> str | None:
    return written(config).replace("k8s.cni.cncf.io/v1", "k8s.cni.cncf.io/v1beta1")


WAYS: dict[Spoil, int] = {
    version_in_a_plugin: 10,
    version_twice: 10,
    version_of_two_numbers: 30,
    version_with_a_v: 80,
    chained_first: 10,
    capital_keys: 50,
    capital_types: 70,
    numbers_in_quotes: 10,
    one_comma_too_many: 80,
    no_comma: 80,
    single_quotes: 80,
    words_of_python: 8,
    no_string: 80,
    host_bits: 10,
    misspelt_kind: 80,
    old_api: 80,
}
"""Each way, and how many configurations it can at least be tried on."""


def config_in(text: str) -> Config:
    (root,) = yamltext.documents(text)
    assert isinstance(root, Node)
    found: Config = json.loads(root.text("spec", "config") or "")
    return found


def spoilt(spoil: Spoil) -> Iterator[tuple[Config, str]]:
    for config in configs():
        text = spoil(copy.deepcopy(config))
        if text is not None:
            yield config, text


@pytest.mark.parametrize("spoil", WAYS, ids=lambda spoil: spoil.__name__)
def test_what_was_spoilt_is_as_it_was(spoil: Spoil) -> None:
    tried = 0
    for config, text in spoilt(spoil):
        result = fix({"net.yaml": text})
        mended = result.texts["net.yaml"]
        assert result.count, text
        assert config_in(mended) == config, mended
        assert [f for f in check({"net.yaml": mended}).findings if f.severity is not Severity.INFO] == [], mended
        assert fix({"net.yaml": mended}).texts["net.yaml"] == mended
        assert mended.startswith("# kept\n")
        assert "# kept too" in mended
        tried += 1
    assert tried >= WAYS[spoil]


@pytest.mark.parametrize("path", CORRECT, ids=lambda path: path.stem)
def test_what_is_right_is_not_touched(path: Path) -> None:
    text = path.read_text()

    assert fix({path.name: text}).texts[path.name] == text
