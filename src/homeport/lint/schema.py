"""JSON schemas of what lint knows, for editors: draft-07, which they all take. No I/O.

A schema judges no addresses and no order, nor one object against another: it completes keys, says what they are for,
and marks what is misspelt, missing or of the wrong type. What lint finds nothing wrong with, it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from homeport.cni.versions import SUPPORTED_VERSIONS
from homeport.lint.catalogue import KINDS, NETWORK, SHARED, Kind, Role
from homeport.lint.keywords import Key
from homeport.lint.manifests import NAD_API, NAD_KIND

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_PLACE = "https://homeport.dev/schema/"
# Notes, which lint passes over as well.
_NO_OTHERS: Schema = {
    "patternProperties": {r"^(_|//|#)|[/.]|^comment$": {}},
    "additionalProperties": False,
}  # but notes
_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"  # RFC 1123 subdomain


def of_config() -> Schema:
    """A CNI configuration: a list, or one plugin alone. What `spec.config` holds as text, and a .conflist file."""
    listed = {**_properties(NETWORK), "plugins": _plugins()}
    return {
        "$schema": _DRAFT,
        "$id": f"{_PLACE}config.json",
        "title": "CNI network configuration",
        "if": {"required": ["plugins"]},
        "then": {"type": "object", "properties": listed, **_NO_OTHERS},
        "else": {
            "allOf": [{"$ref": "#/definitions/plugin"}],
            "properties": {"plugins": _plugins(), **_properties({"cniVersion": NETWORK["cniVersion"]})},
        },
        "definitions": _definitions(),
    }


def of_nad() -> Schema:
    """A NetworkAttachmentDefinition. Its configuration is text: config.json is the schema of what that says."""
    return {
        "$schema": _DRAFT,
        "$id": f"{_PLACE}nad.json",
        "title": NAD_KIND,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": {"const": f"{NAD_API}v1"},
            "kind": {"const": NAD_KIND},
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": _NAME, "description": "What pods select it by."},
                    "namespace": {"type": "string", "description": "Where it is; pods elsewhere say NAMESPACE/NAME."},
                },
            },
            "spec": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "config": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "description": "The CNI configuration, as JSON text; without it, the nodes' own of this name.",
                    }
                },
            },
        },
    }


SCHEMAS: Mapping[str, Callable[[], Schema]] = {"config": of_config, "nad": of_nad}
"""By the name under which they are asked for, and stored as schema/NAME.json."""


def _plugins() -> Schema:
    return {
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/definitions/plugin"},
        "description": NETWORK["plugins"].about,
    }


def _definitions() -> Schema:
    plugins = {name: kind for name, kind in KINDS.items() if kind.role is not Role.IPAM}
    sources = {name: kind for name, kind in KINDS.items() if kind.role is Role.IPAM}
    plugin = _chosen("plugin", plugins)
    plugin["required"] = ["type"]
    found = {"plugin": plugin, "ipam": _chosen("ipam", sources)}
    for prefix, kinds, shared in (("plugin", plugins, SHARED), ("ipam", sources, {})):
        for name, kind in kinds.items():
            if kind.keys is not None:
                found[f"{prefix}-{name}"] = _object({**shared, **kind.keys})
    return found


def _chosen(prefix: str, kinds: Mapping[str, Kind]) -> Schema:
    """By its `type`; one that is not known may have any keys."""
    cases = [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": name}}},
            "then": {"$ref": f"#/definitions/{prefix}-{name}"},
        }
        for name, kind in kinds.items()
        if kind.keys is not None
    ]
    types = {"anyOf": [{"enum": sorted(kinds)}, {"type": "string"}], "description": SHARED["type"].about}
    return {"type": "object", "properties": {"type": types}, "allOf": cases}


def _object(keys: Mapping[str, Key]) -> Schema:
    required = [name for name, key in keys.items() if key.required]
    schema: Schema = {"type": "object", "properties": _properties(keys), **_NO_OTHERS}
    return {**schema, "required": required} if required else schema


def _properties(keys: Mapping[str, Key]) -> Schema:
    return {name: _value(name, key) for name, key in keys.items()}


def _value(name: str, key: Key) -> Schema:
    described = {"description": key.about} if key.about else {}
    if name == "cniVersion":
        return {"enum": sorted(SUPPORTED_VERSIONS), **described}
    if name == "ipam":
        return {"allOf": [{"$ref": "#/definitions/ipam"}], **described}  # beside $ref, draft-07 reads nothing
    return {**_typed(key), **described}


def _typed(key: Key) -> Schema:
    inner = _object(key.inside) if key.inside is not None else {}
    match key.type:
        case "any":
            return {"anyOf": [{"type": "boolean"}, inner]} if inner else {}
        case "number":
            bounds = {"minimum": key.least, "maximum": key.most}
            return {"type": "integer", **{word: bound for word, bound in bounds.items() if bound is not None}}
        case "array" if key.of == "array":
            return {"type": "array", "items": {"type": "array", "items": inner}}
        case "array":
            return {"type": "array", "items": inner or ({"type": key.of} if key.of != "any" else {})}
        case "string" if key.choices:
            return {"enum": list(key.choices)}
        case "object" if inner:
            return inner
        case _:
            return {"type": key.type}
