"""The passthru plugin: does nothing, so that a chain may begin with the plugins behind it. No I/O.

Multus puts it first into the chain that `auxiliaryCNIChainName` names.
"""

from __future__ import annotations

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.results import Result
from homeport.ports import Shells

TYPE = "passthru"


def add(conf: NetConf, _attachment: Attachment, _shells: Shells) -> Result:
    """The result before it, or an empty one."""
    return conf.prev_result or Result()


def delete(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing was made."""


def check(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing can have changed."""


def gc(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing is kept."""


def status(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Always ready."""
