"""Rules about names. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint.findings import Found, Severity, Span
from homeport.lint.manifests import Network
from homeport.lint.rules.checks import network_rule
from homeport.model.names import is_identifier, is_label


@network_rule("network-name", Severity.ERROR)
def network_name(network: Network) -> Iterator[Found]:
    """A NetworkAttachmentDefinition is missing its name, or has one that a pod cannot select.

    The annotation's short form takes DNS-1123 labels only: lower-case letters, digits and hyphens, at most 63, no dots.
    """
    if network.manifest is None or network.manifest.get("metadata", "generateName") is not None:
        return
    node = network.manifest.get("metadata", "name")
    right = 'expected at most 63 lower-case letters, digits and "-", a letter or digit at both ends'
    if node is None or node.kind == "null":
        kind = network.manifest.get("kind")
        yield network.found(kind.span if kind else Span(0, 0), "the definition has no metadata.name", right)
    elif not is_label(str(node.value)):
        yield network.found(node.span, f"name {shown(node.value)}", right)


@network_rule("config-name", Severity.ERROR)
def config_name(network: Network) -> Iterator[Found]:
    """The configuration's own `name` is not one CNI takes.

    It becomes part of file names: a letter or digit, then letters, digits, `_`, `.` and `-`. CNI SPEC 1.1.0 §1.
    """
    node = network.config.get("name") if network.config is not None else None
    if node is not None and node.kind == "string" and node.value and not is_identifier(str(node.value)):
        yield network.found(
            node.span,
            f"network name {shown(node.value)}",
            'expected a letter or digit, then letters, digits, "_", "." and "-"',
        )
