"""One call of a container runtime and its answer, whichever protocol carried them. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from homeport.cni import documents, versions
from homeport.model.errors import CniError
from homeport.model.results import Result

META_PLUGIN = frozenset({"homeport", "homeport-shim", "multus", "multus-shim"})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """`plugin` is the name the executable was called by: one of META_PLUGIN, or the type of a single plugin.

    `environ` holds the CNI_* variables, `stdin` the network configuration as it came. `attributes` is None but for a
    hotplug request: the `interfaceAttributes` of one network to attach by itself.
    """

    plugin: str
    environ: Mapping[str, str]
    stdin: bytes
    attributes: Mapping[str, Any] | None = None

    @property
    def command(self) -> str:
        return self.environ.get("CNI_COMMAND", "")

    @property
    def container_id(self) -> str:
        return self.environ.get("CNI_CONTAINERID", "")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the executable is to print and to exit with."""

    exit_code: int
    stdout: bytes = b""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended: with `error`, else with ADD's `result`, else with nothing but `text` (VERSION's answer).

    `cni_version` is the configuration's, in which the caller is answered; "" when it never became known.
    """

    cni_version: str = ""
    result: Result | None = None
    error: CniError | None = None
    text: bytes = b""

    def reply(self) -> Reply:
        """As a plugin prints it (CNI SPEC 1.1.0 §5)."""
        error = self.error
        try:
            if error is None and self.result is not None:
                encoded = versions.encode_result(self.result, self.cni_version)
                return Reply(exit_code=0, stdout=documents.write(encoded))
        except CniError as e:  # an old version cannot say everything; the caller will ask for a DEL
            error = e
        if error is None:
            return Reply(exit_code=0, stdout=self.text)
        return Reply(exit_code=1, stdout=documents.write(versions.encode_error(error, self.cni_version)))
