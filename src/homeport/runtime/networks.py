"""Finding a network's configuration in a directory, as runtimes do. I/O: through `ports.Files`.

libcni's rules: `*.conflist` before `*.conf` and `*.json`, each in order of file names; a list takes the plugins of
the directory beside it that bears its name.
"""

from __future__ import annotations

import os

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.model.errors import CniError, InvalidNetConf, IOFailure
from homeport.ports import Files

DEFAULT_DIR = "/etc/cni/net.d"
_LIST = ".conflist"
_SUFFIXES = ((_LIST,), (".conf", ".json"))


def load(files: Files, network: str, conf_dir: str = DEFAULT_DIR) -> ConfList:
    """The network of this name in `conf_dir`, or the file itself where `network` has a slash.

    A file that cannot be read is passed over while another has the name. Raises `IOFailure` when none has.
    """
    if "/" in network:
        return load_file(files, network)
    paths = _paths(files, conf_dir)
    if paths is None:
        raise IOFailure(f'find network "{network}": no directory {conf_dir}')
    broken: list[CniError] = []
    for path in paths:
        try:
            found = _read(files, path)
            if found is not None and found.name == network:
                return _complete(files, path, found)
        except CniError as error:
            broken.append(error)
    raise IOFailure(
        f'find network "{network}": found no such name among the configurations in {conf_dir}',
        "; ".join(f"passed over: {error}" for error in broken),
    )


def load_file(files: Files, path: str) -> ConfList:
    """The network in this file. Raises `IOFailure` when there is none."""
    network = _read(files, path)
    if network is None:
        raise IOFailure(f"read network configuration {path}: no such file")
    return _complete(files, path, network)


def names(files: Files, conf_dir: str = DEFAULT_DIR) -> tuple[str, ...]:
    """The networks a person may name, in the order they are searched; unreadable files have none."""
    found: list[str] = []
    for path in _paths(files, conf_dir) or ():
        try:
            network = _read(files, path)
        except CniError:
            continue
        if network is not None:
            found.append(network.name)
    return tuple(dict.fromkeys(found))


def _paths(files: Files, conf_dir: str) -> list[str] | None:
    entries = files.list(conf_dir)
    if entries is None:
        return None
    return [os.path.join(conf_dir, e) for suffixes in _SUFFIXES for e in entries if os.path.splitext(e)[1] in suffixes]


def _read(files: Files, path: str) -> ConfList | None:
    contents = files.read(path)
    if contents is None:
        return None
    try:
        return conflists.parse(contents)
    except CniError as error:
        error.msg = f"{path}: {error.msg}"
        raise


def _complete(files: Files, path: str, network: ConfList) -> ConfList:
    """With the plugins of the list's own directory (CNI SPEC 1.1.0 §1, loadOnlyInlinedPlugins)."""
    directory = os.path.join(os.path.dirname(path), network.name)
    if os.path.splitext(path)[1] != _LIST or network.load_only_inlined_plugins:
        return conflists.complete(network, ())
    entries = [os.path.join(directory, e) for e in files.list(directory) or () if e.endswith(".conf")]
    contents = []
    for entry in entries:
        text = files.read(entry)
        if text is None:
            raise InvalidNetConf(f"read plugin configuration {entry}: it vanished meanwhile")
        contents.append((entry, text))
    return conflists.complete(network, contents)
