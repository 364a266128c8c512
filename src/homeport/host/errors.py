"""The kernel's answers as our errors. No I/O.

Nothing foreign leaves `homeport.host`: an errno becomes the `CniError` that says what happened to the caller's
request. `details` always begins with the errno's name and goes on with the kernel's own words, where it gave any.
"""

from __future__ import annotations

import errno
import os

from homeport.model.errors import CniError, InvalidNetns, IOFailure, KernelRefused, LinkExists, MissingLink, Unsupported

_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP"}  # of two names of one number, the one that netlink means


def place(netns: str | None) -> str:
    """Where, as an error says it; "" for the host's own side."""
    return f" in {netns}" if netns else ""


def errno_name(code: int) -> str:
    """`ENOENT` for 2."""
    return _NAMES.get(code) or errno.errorcode.get(code, f"errno {code}")


def explain(code: int, told: str = "") -> str:
    """`EEXIST: ipv4: Address already assigned`, or `EEXIST` alone."""
    return f"{errno_name(code)}: {told}" if told else errno_name(code)


def refused(action: str, code: int, told: str = "") -> KernelRefused:
    """`action` says what was asked, of what, where; the answer follows."""
    return KernelRefused(f"{action}: {os.strerror(code).lower()}", explain(code, told))


def missing_link(name: str, netns: str | None) -> MissingLink:
    """The kernel answered ENODEV for this very name."""
    return MissingLink(f'link "{name}"{place(netns)}: no such interface')


def name_taken(action: str, told: str = "") -> LinkExists:
    """The kernel answered EEXIST for a link's name."""
    return LinkExists(f"{action}: an interface of this name is already there", explain(errno.EEXIST, told))


def creation_refused(action: str, kind: str, code: int, told: str) -> CniError:
    """Why a link was not created."""
    if code == errno.EEXIST:
        return name_taken(action, told)
    if code == errno.EOPNOTSUPP:
        lacks = f"kernel has no {kind}" if told == "Unknown device type" else f"kernel has no such kind of {kind}"
        return Unsupported(f"{action}: {lacks}", explain(code, told))
    return refused(action, code, told)


def namespace_refused(path: str, failure: OSError) -> CniError:
    """Why a namespace could not be entered."""
    code = failure.errno or 0
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
        return InvalidNetns(f"network namespace {path}: not there", explain(code))
    if code in (errno.EINVAL, errno.ENOTTY, errno.EISDIR):
        return InvalidNetns(f"network namespace {path}: found something else at this path", explain(code))
    return refused(f"enter network namespace {path}", code)


def file_refused(action: str, failure: OSError) -> IOFailure:
    """Why a file could not be read or written."""
    code = failure.errno or 0
    return IOFailure(f"{action}: {os.strerror(code).lower()}", explain(code))
