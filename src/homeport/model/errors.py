"""Every failure Homeport expects, each with its CNI code. No I/O.

CNI SPEC 1.1.0 §5 "Error". Anything raised that is not a `CniError` is a bug and leaves the process as code 999.
Text is "action, object, place: found, expected": lower case, no full stop, the value printed.
`docs/errors.md` lists the codes; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class CniError(Exception):
    """An expected failure. `details` adds what helps the operator and never carries a secret."""

    code: int
    retryable: ClassVar[bool] = False

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg} ({self.details})" if self.details else self.msg


class IncompatibleVersion(CniError):
    """The configuration's cniVersion is not one we, or this verb, support."""

    code = 1


class UnsupportedField(CniError):
    """A key that is known but cannot be honoured here."""

    code = 2


class InvalidEnvironment(CniError):
    """A CNI variable is missing or malformed; all bad ones are named in one error."""

    code = 4


class IOFailure(CniError):
    """A file, socket or pipe could not be read or written."""

    code = 5


class DecodeFailure(CniError):
    """Bytes that should be JSON are not, or have the wrong shape."""

    code = 6


class InvalidNetConf(CniError):
    """The network configuration decodes but cannot be right; names the key."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS is missing, is not a network namespace, or is the plugin's own."""

    code = 8


class TryAgainLater(CniError):
    """Nothing is wrong with the request; the same call may succeed later."""

    code = 11
    retryable = True


class Unreachable(TryAgainLater):
    """Somebody could not be reached at all: nothing was asked, so nothing can have been done."""

    code = 11


class WaitingForRelease(TryAgainLater):
    """The slot's own address is still in somebody's use, or may be (R8, E25); says whose."""

    code = 11


class PluginNotAvailable(CniError):
    """STATUS: this plugin cannot serve an ADD now."""

    code = 50


class PoolExhausted(CniError):
    """Every usable address of a range is taken."""

    code = 100


class AddressTaken(CniError):
    """The one address this slot must have belongs to another; names the present holder."""

    code = 101


class Drift(CniError):
    """CHECK found the kernel or the store different from what ADD made; gives expected and found."""

    code = 102


class LinkExists(CniError):
    """An interface of the asked name is already there."""

    code = 103


class MissingLink(CniError):
    """An interface the configuration names (a master, a bridge, a device) is not there."""

    code = 104


class PluginNotFound(CniError):
    """No executable of the plugin's type in CNI_PATH, and none of our own."""

    code = 105


class PluginFailed(CniError):
    """A foreign plugin died or printed something that is not a CNI error; carries its stderr."""

    code = 106


class KernelRefused(CniError):
    """The kernel said no to a netlink, sysctl or nftables request; carries the errno's name."""

    code = 107


class Unsupported(CniError):
    """This kernel or machine lacks what the request needs (a link type, a module, a program)."""

    code = 108


class StoreFull(CniError):
    """The disk or store has no room; nothing was changed."""

    code = 109


class PluginError(CniError):
    """An error a foreign plugin reported itself; keeps that plugin's own code."""

    code = 110

    def __init__(self, msg: str, details: str = "", *, code: int) -> None:
        super().__init__(msg, details)
        self.code = code


class NoSuchObject(CniError):
    """A name given by a person (a lab, a pod, a node, a workload) is of nothing that exists."""

    code = 111


class SeveralErrors(CniError):
    """Failures collected by a DEL or GC that went on past each. Its code is the first one's."""

    code = 999

    def __init__(self, errors: Sequence[CniError]) -> None:
        super().__init__("; ".join(e.msg for e in errors), "; ".join(e.details for e in errors if e.details))
        self.errors = tuple(errors)
        self.code = errors[0].code


class InternalError(CniError):
    """A bug: an exception nobody expected, wrapped at the edge."""

    code = 999
