"""Results of ADD, kept for CHECK, DEL and GC in libcni's own place and format. I/O: files.

So a runtime's attachment can be deleted by us and ours by it. One file an attachment,
`CACHE_DIR/results/NETWORK-CONTAINERID-IFNAME`; replaced as a whole, never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from homeport.cni import documents, versions
from homeport.model.errors import CniError, DecodeFailure, InvalidEnvironment
from homeport.model.names import AttachmentKey
from homeport.model.results import Result
from homeport.runtime import node_files

DEFAULT_DIR = "/var/lib/cni"
_KIND = "cniCacheV1"


class CachedAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """What ADD was called with and what came of it. `config` is the network's own text.

    `result` is JSON types in the version it was written in. Entries of runtimes before libcni 0.8 hold nothing else:
    their `config` is empty.
    """

    key: AttachmentKey
    result: Mapping[str, Any]
    netns_path: str | None = None
    args: Mapping[str, str] = {}
    capability_args: Mapping[str, Any] = {}
    config: bytes = b""

    def decoded_result(self, version: str) -> Result:
        """The result; `version` counts where it names none. Raises `DecodeFailure`."""
        return versions.decode_result(self.result, version, at="result")


class _Entry(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """The file, keys in libcni's order."""

    kind: str
    container_id: str
    config: bytes = b""
    if_name: str
    network_name: str
    netns: str = ""
    cni_args: list[tuple[str, str]] = []
    capability_args: dict[str, Any] = {}
    result: dict[str, Any] = {}


class _OfAnother(DecodeFailure):
    """Names joined by hyphens can meet: network "a" with container "b-c", network "a-b" with container "c"."""


class ResultCache:
    """The cache below one directory. Its files hold network secrets at times, so they are for root alone."""

    def __init__(self, cache_dir: str | Path = DEFAULT_DIR) -> None:
        self.directory = Path(cache_dir) / "results"

    def path(self, key: AttachmentKey) -> Path:
        """Where the attachment's entry is, whether it exists or not."""
        if any("/" in part or not part for part in (key.network, key.container_id, key.ifname)):
            raise InvalidEnvironment(f"name cache entry of {_named(key)}: expected names without slash, none empty")
        return self.directory / f"{key.network}-{key.container_id}-{key.ifname}"

    def save(self, attachment: CachedAttachment) -> None:
        """Replaces the entry; the old one stays whole when this raises `IOFailure` or `StoreFull`."""
        key = attachment.key
        path = self.path(key)
        entry = _Entry(
            kind=_KIND,
            container_id=key.container_id,
            config=attachment.config,
            if_name=key.ifname,
            network_name=key.network,
            netns=attachment.netns_path or "",
            cni_args=list(attachment.args.items()),
            capability_args=dict(attachment.capability_args),
            result=dict(attachment.result),
        )
        try:
            node_files.replace(path, msgspec.json.encode(entry))
        except CniError as error:
            error.msg = f"save result of {_named(key)}: {error.msg}"
            raise

    def load(self, key: AttachmentKey) -> CachedAttachment | None:
        """The entry, None when there is none; raises `IOFailure` or `DecodeFailure` when it cannot be read."""
        path = self.path(key)
        contents = node_files.read(path)
        return None if contents is None else _decode(contents, path, key)

    def forget(self, key: AttachmentKey) -> None:
        """Removes the entry, readable or not; idempotent. One that says it is another attachment's stays."""
        path = self.path(key)
        try:
            self.load(key)
        except _OfAnother:
            return
        except CniError:
            pass
        node_files.remove(path)

    def attachments(self, network: str) -> tuple[tuple[CachedAttachment, ...], tuple[CniError, ...]]:
        """(those of the network, why others could not be read), in order of their file names.

        Entries of old runtimes do not say whose they are and are passed over: no one may be deleted by guessing.
        """
        # The name tells of the network but not where it ends: "a-b-c" may be of "a" or of "a-b".
        found, unreadable = self._entries(lambda name: name.startswith(f"{network}-"))
        return tuple(entry for entry in found if entry.key.network == network), unreadable

    def of_container(self, container_id: str) -> tuple[tuple[CachedAttachment, ...], tuple[CniError, ...]]:
        """As `attachments`, for one container on any network."""
        found, unreadable = self._entries(lambda name: f"-{container_id}-" in name)
        return tuple(entry for entry in found if entry.key.container_id == container_id), unreadable

    def all(self) -> tuple[tuple[CachedAttachment, ...], tuple[CniError, ...]]:
        """As `attachments`, for every container and network."""
        return self._entries(lambda _: True)

    def _entries(self, is_wanted: Callable[[str], bool]) -> tuple[tuple[CachedAttachment, ...], tuple[CniError, ...]]:
        found: list[CachedAttachment] = []
        unreadable: list[CniError] = []
        for name in filter(is_wanted, node_files.names(self.directory)):
            try:
                contents = node_files.read(self.directory / name)
                entry = None if contents is None else _decode(contents, self.directory / name, None)
            except CniError as error:
                unreadable.append(error)
                continue
            if entry is not None:
                found.append(entry)
        return tuple(found), tuple(unreadable)


def _decode(contents: bytes, path: Path, asked: AttachmentKey | None) -> CachedAttachment | None:
    """The entry. A bare result (no kind) is that of `asked`, or None when nobody asked by name."""
    whole = documents.decode_object(contents, f"cached result {path}")
    if whole.get("kind") != _KIND:
        return CachedAttachment(key=asked, result=whole) if asked else None
    try:
        entry = documents.convert(whole, _Entry, error=DecodeFailure)
    except DecodeFailure as e:
        raise DecodeFailure(f"decode cached result {path}: {e.msg}") from e
    key = AttachmentKey(entry.network_name, entry.container_id, entry.if_name)
    if asked and key != asked:
        raise _OfAnother(f"decode cached result {path}: found {_named(key)}, expected {_named(asked)}")
    return CachedAttachment(
        key=key,
        result=entry.result,
        netns_path=entry.netns or None,
        args=dict(entry.cni_args),
        capability_args=entry.capability_args,
        config=entry.config,
    )


def _named(key: AttachmentKey) -> str:
    return f'container "{key.container_id}" interface "{key.ifname}" on network "{key.network}"'
