"""Names of attachments, pods and nodes, and the characters they may have. No I/O."""

from __future__ import annotations

import re

import msgspec

# CNI SPEC 1.1.0 §2: "must start with an alphanumeric character, optionally followed by any combination
# of one or more alphanumeric characters, underscore (), dot (.) or hyphen (-)".
_IDENTIFIER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
# RFC 1123, as the API server takes names of objects.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_SUBDOMAIN_MAX = 253
IFNAME_MAX = 15  # IFNAMSIZ less the terminating NUL


class AttachmentKey(msgspec.Struct, frozen=True, order=True):
    """One interface of one container on one network: the key of every cache entry and of GC."""

    network: str
    container_id: str
    ifname: str


class PodRef(msgspec.Struct, frozen=True, order=True):
    """A pod by name. The UID is never part of it: names are reused, UIDs are not."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def is_identifier(text: str) -> bool:
    """Whether `text` may be a container ID or a network name."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether `text` may be a namespace, or any other name without dots: lower-case letters, digits and `-`."""
    return _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether `text` may be the name of an object: labels joined by dots, 253 characters at most."""
    return len(text) <= _SUBDOMAIN_MAX and _SUBDOMAIN.fullmatch(text) is not None


def is_ifname(text: str) -> bool:
    """Whether the kernel takes `text` as a link's name: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`."""
    if not 1 <= len(text.encode(errors="surrogatepass")) <= IFNAME_MAX or text in (".", ".."):
        return False
    return not any(c in "/:" or c.isspace() or not c.isprintable() for c in text)
