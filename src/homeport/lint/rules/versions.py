"""Rules about cniVersion. No I/O.

CNI SPEC 1.1.0 §1: the version of a list stands at its top and is given to every plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni import versions
from homeport.cni.documents import shown
from homeport.lint.catalogue import KINDS
from homeport.lint.findings import Edit, Found, Severity
from homeport.lint.manifests import Embedded, Network
from homeport.lint.nodes import Member, Node, plain
from homeport.lint.rules.checks import network_rule
from homeport.lint.rules.editing import insert_first, remove_member

DEFAULT = "0.4.0"
"""What a configuration without any version gets: the lowest that has prevResult and CHECK, so every runtime and every
plugin of today takes it."""

_KEY = "cniVersion"
_MISNAMED = "version"
_OLD = ("0.1.0", "0.2.0")


@network_rule("cni-version-misplaced", Severity.ERROR, fix="moves it to the top level, when all plugins agree")
def cni_version_misplaced(network: Network) -> Iterator[Found]:
    """The only cniVersion stands inside a plugin; the list itself has none.

    Runtimes read the version of a list at its top level and overwrite the plugins' own. A list without one counts as
    0.1.0, which has no chaining: the second plugin never sees the first one's result, and most plugins refuse.
    """
    config, text = network.config, network.text
    if config is None or text is None or not network.is_list or _has_version(config):
        return
    inner = list(_inner(network))
    agreed = len({shown(plain(member.value)) for _, member in inner}) == 1
    insert = _given(text, config, str(inner[0][1].value.value)) if inner else None
    for n, (holder, member) in enumerate(inner):
        edits: tuple[Edit, ...] = ()
        if agreed and insert is not None and member.value.kind == "string" and len(config.members) > 0:
            edits = (*((insert,) if n == 0 else ()), remove_member(holder, _KEY))
        yield network.found(
            member.key.span,
            f"cniVersion {shown(plain(member.value))} stands inside {_named(holder)}",
            'expected at the top level, beside "plugins"',
            edits,
        )


@network_rule("cni-version-repeated", Severity.WARNING, fix="removes it from the plugin")
def cni_version_repeated(network: Network) -> Iterator[Found]:
    """A cniVersion stands inside a plugin although the list has its own.

    The list's version is used for every plugin; this one has no effect.
    """
    config = network.config
    if config is None or not network.is_list or not _has_version(config):
        return
    top = config.text(_KEY)
    for holder, member in _inner(network):
        yield network.found(
            member.key.span,
            f"cniVersion {shown(plain(member.value))} inside {_named(holder)} has no effect",
            f'the list\'s "{top}" is used' if top else "the list's cniVersions is used",
            (remove_member(holder, _KEY),),
        )


@network_rule("cni-version-missing", Severity.ERROR, fix=f'adds "cniVersion": "{DEFAULT}", or names "version" so')
def cni_version_missing(network: Network) -> Iterator[Found]:
    """There is no cniVersion anywhere.

    The configuration then counts as version 0.1.0, which has no chaining and no CHECK, and which most plugins refuse.
    0.4.0 is the lowest version that has both and is understood everywhere; 1.1.0 adds GC and STATUS.
    """
    config, text = network.config, network.text
    if config is None or text is None or _has_version(config) or not network.plugins or any(_inner(network)):
        return
    misnamed = config.member(_MISNAMED)
    if misnamed is not None and misnamed.value.value in versions.SUPPORTED_VERSIONS and config.get(_KEY) is None:
        edit = text.edit(misnamed.key.span, f'"{_KEY}"')
        yield network.found(misnamed.key.span, f'the version stands under "{_MISNAMED}"', f'expected "{_KEY}"', (edit,))
        return
    yield network.found(
        config.members[0].key.span if config.members else config.span,
        "the configuration has no cniVersion",
        f'expected one at the top level, such as "{DEFAULT}"',
        (_given(text, config, DEFAULT),) if config.members else (),
    )


@network_rule("cni-version-unknown", Severity.ERROR, fix="completes a version such as 1.0 or v1.0.0")
def cni_version_unknown(network: Network) -> Iterator[Found]:
    """The cniVersion is not a version of the CNI specification that Homeport speaks.

    Known are 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0, always written with three numbers.
    """
    config, text = network.config, network.text
    if config is None or text is None:
        return
    places = [*config.members, *(m for _, m in _inner(network))] if network.is_list else list(config.members)
    for member in places:
        value = member.value
        if member.name != _KEY or value.kind == "null" or value.value in ("", *versions.SUPPORTED_VERSIONS):
            continue
        written = str(value.value).removeprefix("v")
        meant = next((v for v in (written, f"{written}.0") if v in versions.SUPPORTED_VERSIONS), None)
        edits = (text.edit(value.span, f'"{meant}"'),) if meant and value.kind in ("string", "number") else ()
        known = f'"{meant}"' if meant else f"one of {', '.join(versions.SUPPORTED_VERSIONS)}"
        yield network.found(value.span, f"cniVersion {shown(plain(value))}", f"expected {known}", edits)


@network_rule("cni-version-too-old", Severity.ERROR)
def cni_version_too_old(network: Network) -> Iterator[Found]:
    """A plugin does not take a cniVersion as old as the configuration's.

    Chained plugins need prevResult, which begins with 0.3.0; vrf asks for 0.3.1 and firewall for 0.4.0.
    """
    config = network.config
    member = config.member(_KEY) if config is not None else None
    if config is None or member is None or config.get("cniVersions") is not None:
        return
    version = str(member.value.value)
    for plugin in network.plugins if version in versions.SUPPORTED_VERSIONS else ():
        kind = KINDS.get(plugin.text("type") or "")
        if kind is not None and not versions.at_least(version, kind.since):
            yield network.found(
                member.value.span,
                f'cniVersion "{version}" is too old for plugin "{plugin.text("type")}"',
                f"expected {kind.since} or later",
            )


@network_rule("cni-version-old", Severity.INFO)
def cni_version_old(network: Network) -> Iterator[Found]:
    """The cniVersion is 0.1.0 or 0.2.0.

    Their results have no interfaces, so a pod's network status tells neither the interface's name nor its MAC, no
    plugin can be chained, and nothing can be checked. Take 0.4.0 or later.
    """
    config = network.config
    member = config.member(_KEY) if config is not None else None
    if config is None or member is None or member.value.value not in _OLD or config.get("cniVersions") is not None:
        return
    kinds = [KINDS.get(plugin.text("type") or "") for plugin in network.plugins]
    if all(kind is None or versions.at_least(str(member.value.value), kind.since) for kind in kinds):
        yield network.found(member.value.span, f'cniVersion "{member.value.value}"', 'expected "0.4.0" or later')


def _has_version(config: Node) -> bool:
    """Whether the top level gives a version, in either spelling; null and an empty string count as absent."""
    version, several = config.get(_KEY), config.get("cniVersions")
    given = version is not None and version.kind != "null" and version.value != ""
    return given or (several is not None and bool(several.items))


def _given(text: Embedded, config: Node, version: str) -> Edit:
    """Writes the version at the top of a non-empty object: into a key that says nothing, else before the first."""
    member = config.member(_KEY)
    if member is not None:
        return text.edit(member.value.span, f'"{version}"')
    return insert_first(text, config, _KEY, version)


def _inner(network: Network) -> Iterator[tuple[Node, Member]]:
    """Every cniVersion below the top level, with the object that holds it."""
    for plugin in network.plugins if network.is_list else ():
        ipam = plugin.get("ipam")
        for holder in (plugin, ipam):
            member = holder.member(_KEY) if holder is not None else None
            if holder is not None and member is not None:
                yield holder, member


def _named(holder: Node) -> str:
    return f"plugin {shown(holder.text('type'))}" if holder.text("type") else "a plugin"
