"""Rules about text that cannot be read, or is not shaped as a network definition. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint import jsontext, yamltext
from homeport.lint.catalogue import nearest
from homeport.lint.findings import Edit, Found, Severity, Span
from homeport.lint.manifests import NAD_API, NAD_KIND, Manifests, Network
from homeport.lint.nodes import Node, objects, plain
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.editing import replace_yaml

_CONFIG_NAMES = ("cni", "cniconfig", "conf", "config", "configuration", "netconf")
_FIRST_KIND = ("kubernetes.com/v1", "Network")
_NAD_VERSION = f"{NAD_API}v1"


@rule("yaml-syntax", Severity.ERROR)
def yaml_syntax(manifests: Manifests) -> Iterator[Found]:
    """A document is not YAML, or is too large or too deep to be a manifest.

    The other documents of the file are still looked at.
    """
    yield from manifests.troubles


@rule("manifest-kind", Severity.ERROR, fix="writes the right kind or apiVersion")
def manifest_kind(manifests: Manifests) -> Iterator[Found]:
    """A NetworkAttachmentDefinition has a misspelt kind or another apiVersion.

    The API server knows only `k8s.cni.cncf.io/v1`, `NetworkAttachmentDefinition`; `kubernetes.com/v1`, `Network` was
    that of the first versions of Multus. Nothing else in such a document is looked at until its kind is right.
    """
    for file, node in manifests.objects:
        kind, version = node.get("kind"), node.get("apiVersion")
        if kind is None or version is None or kind.kind != "string" or version.kind != "string":
            continue
        if kind.value == NAD_KIND and version.value != _NAD_VERSION:
            wrong, right = version, _NAD_VERSION
        elif str(version.value).startswith(NAD_API) and _is_nearly_nad(str(kind.value)):
            wrong, right = kind, NAD_KIND
        elif (str(version.value), str(kind.value)) == _FIRST_KIND:
            right = f"expected {_NAD_VERSION}, {NAD_KIND}, with the configuration at spec.config"
            yield Found(file=file, span=version.span, found=" ".join(map(shown, _FIRST_KIND)), right=right)
            continue
        else:
            continue
        yield Found(
            file=file,
            span=wrong.span,
            found=f"{shown(wrong.value)}",
            right=f'expected "{right}"',
            edits=replace_yaml(wrong, right),
        )


def _is_configuration(node: Node) -> bool:
    return node.kind == "object" or (node.kind == "string" and str(node.value).lstrip().startswith("{"))


def _is_nearly_nad(kind: str) -> bool:
    return kind != NAD_KIND and nearest(kind, (NAD_KIND,)) is not None


@network_rule("config-misplaced", Severity.ERROR, fix="writes `config` where only its capitals are wrong")
def config_misplaced(network: Network) -> Iterator[Found]:
    """A NetworkAttachmentDefinition has its configuration elsewhere than at `spec.config`.

    The API server drops every other field, in silence, and what is left is a definition without one: it then stands
    for a configuration file of its name on the nodes, which is not there.
    """
    manifest = network.manifest
    if manifest is None or network.given is not None:
        return
    spec = manifest.get("spec")
    for path, holder in (("", manifest), ("spec.", spec), ("data.", manifest.get("data"))):
        for member in holder.members if holder is not None else ():
            if member.name.lower() not in _CONFIG_NAMES or not _is_configuration(member.value):
                continue
            right = path == "spec." and member.name.lower() == "config"
            yield network.found(
                member.key.span,
                f"the configuration stands at {path}{member.name}",
                "expected it at spec.config",
                replace_yaml(member.key, "config") if right else (),
            )


@network_rule("config-not-string", Severity.ERROR, fix="puts quotes around a configuration in braces")
def config_not_string(network: Network) -> Iterator[Found]:
    """`spec.config` is YAML structure where a string of JSON is expected.

    The field's type is string: the API server refuses anything else. Write the JSON in single quotes, or as a
    block after `|`.
    """
    given = network.given
    if given is None or given.kind in ("string", "null"):
        return
    written = network.source[given.span.start : given.span.end]
    edits: tuple[Edit, ...] = ()
    if given.kind == "object" and written.startswith("{"):
        root, slips = jsontext.read(written)
        if root is not None and not slips:
            edits = _quoted(given.span, written, is_json=_is_key_quoted(network))
    what = {"object": "a mapping", "array": "a sequence"}.get(given.kind, f"a {given.kind}")
    yield network.found(given.span, f'"config" is {what}', "expected JSON as a string, in quotes or after |", edits)


def _is_key_quoted(network: Network) -> bool:
    """As in a file that is JSON, and is to stay so."""
    spec = network.manifest.get("spec") if network.manifest is not None else None
    member = spec.member("config") if spec is not None else None
    return member is not None and member.key.style == '"'


def _quoted(span: Span, written: str, *, is_json: bool) -> tuple[Edit, ...]:
    if is_json:
        return (Edit(span.start, span.end, json.dumps(written, ensure_ascii=False)),)
    if "'" in written:
        return ()
    return (Edit(span.start, span.start, "'"), Edit(span.end, span.end, "'"))


@network_rule("config-not-json", Severity.ERROR, fix="mends commas, single quotes, True, False and None; not comments")
def config_not_json(network: Network) -> Iterator[Found]:
    """The configuration is not JSON.

    CNI configuration is strict JSON: no trailing commas, no comments, double quotes only. Comments are
    reported and left to you, since removing one loses what it says. Nothing is fixed where the text cannot be read to
    its end: what looks like a missing comma may be a quote too many.
    """
    if network.text is None:
        return
    certain = network.text.root is not None
    for slip in network.text.slips:
        edits = (network.text.edit(slip.span, slip.mend),) if certain and slip.mend is not None else ()
        yield network.found(slip.span, f"found {slip.found}", f"expected {slip.right}", edits)


@network_rule("duplicate-key", Severity.WARNING)
def duplicate_key(network: Network) -> Iterator[Found]:
    """An object has the same key twice.

    The last one counts and the others have no effect, whatever they say. Which was meant is yours to know.
    """
    root = network.text.root if network.text else None
    manifest = network.manifest
    outer = [o for o in (manifest, *(manifest.get(k) for k in ("metadata", "spec"))) if o] if manifest else []
    for node in (*outer, *(objects(root) if root is not None else ())):
        for member in yamltext.duplicates(node):
            yield network.found(
                member.key.span, f"key {shown(member.name)} comes again later in this object", "expected it once"
            )


@network_rule("config-shape", Severity.ERROR)
def config_shape(network: Network) -> Iterator[Found]:
    """The configuration is JSON, but neither a plugin nor a list of plugins.

    A list has `plugins`, a non-empty array of objects; a single configuration has `type`. CNI SPEC 1.1.0 §1.
    """
    root = network.text.root if network.text else None
    if root is None:
        return
    if root.kind != "object":
        yield network.found(root.span, f"the configuration is {_what(root)}", "expected an object")
        return
    plugins = root.get("plugins")
    if plugins is None:
        if root.get("type") is None and network.manifest is not None:
            yield network.found(
                root.span, 'the configuration has neither "plugins" nor "type"', 'expected "plugins": [...]'
            )
        return
    if plugins.kind != "array":
        yield network.found(plugins.span, f'"plugins" is {_what(plugins)}', "expected an array of plugin objects")
    elif not plugins.items:
        yield network.found(plugins.span, '"plugins" is empty', "expected one plugin at least")
    for item in plugins.items:
        if item.kind != "object":
            yield network.found(item.span, f"a plugin is {_what(item)}", 'expected an object such as {"type": "sbr"}')


def _what(node: Node) -> str:
    if node.kind in ("object", "array"):
        return f"an {node.kind}"
    return shown(plain(node))
