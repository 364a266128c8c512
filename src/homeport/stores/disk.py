"""host-local's directory of one network: `ports.FileAllocations` on files.

The format is the reference plugin's, so that both can use one directory at once: `DATADIR/NETWORK/` holds a file an
address, named as the address, with `CONTAINERID CRLF IFNAME` in it (older ones: the container ID alone);
`last_reserved_ip.N` with the address last taken from range set N; and `lock`, which is flock(2)ed.

A reservation is complete or absent, whenever its writer dies: the content is written under another name first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, IOFailure, StoreFull, TryAgainLater

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
_SEPARATOR = "\r\n"
_LAST = "last_reserved_ip."
_UNFINISHED = ".unfinished"
_LOCK_SECONDS = 30.0
_LOCK_POLL_SECONDS = 0.005
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskAllocations:
    """Every method but `lock` is to be called inside `lock`. The directory is made when something is first written."""

    def __init__(self, data_dir: str, network: str) -> None:
        self._directory = os.path.join(data_dir or DEFAULT_DATA_DIR, network)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Shuts out every other process and thread; raises `TryAgainLater` when one keeps it for half a minute."""
        path = self._path("lock")
        with _translated("make directory", self._directory):
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
        with _translated("open", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o750)
        try:
            _wait_for_lock(descriptor, path)
            self._remove_unfinished()
            yield
        finally:
            os.close(descriptor)

    def reserve(self, address: IPAddress, container_id: str, ifname: str, range_set: int) -> bool:
        """Creates the file and notes the address as last reserved of that range set; False when it exists."""
        path, unfinished = self._path(str(address)), self._path(_UNFINISHED)
        with _translated("write", path):
            try:
                _write(unfinished, f"{container_id}{_SEPARATOR}{ifname}")
                os.link(unfinished, path)
            except FileExistsError:
                return False
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(unfinished)
        try:
            self._note_last(address, range_set)
        except CniError:
            with suppress(OSError):
                os.unlink(path)
            raise
        return True

    def last_reserved(self, range_set: int) -> IPAddress | None:
        """None when nothing was reserved yet, or what was noted is no address: then any place is as good to start."""
        content = self._read(_LAST + str(range_set))
        return _address(content.strip()) if content is not None else None

    def of(self, container_id: str, ifname: str) -> tuple[IPAddress, ...]:
        """The interface's addresses; those of a file without interface name count for every one of the container."""
        return tuple(address for address, owner in self._owners() if _is_of(owner, container_id, ifname))

    def release(self, container_id: str, ifname: str) -> None:
        """Removes the interface's files, and only when it has none those that name the container alone.

        Goes on past a file that cannot be read, and raises that at the end.
        """
        failures: list[CniError] = []
        owned: list[tuple[IPAddress, bool]] = []
        for name in self._names():
            try:
                owner = _split(self._read(name) or "")
            except CniError as error:
                failures.append(error)
                continue
            if _is_of(owner, container_id, ifname):
                owned.append((ip_address(name), owner[1] == ifname))
        exact = [address for address, is_exact in owned if is_exact]
        for address in exact or [address for address, _ in owned]:
            self._remove(address)
        if failures:
            raise failures[0]

    def entries(self) -> tuple[tuple[IPAddress, str, str], ...]:
        """(address, container ID, ifname) of all, by address; an empty file has "" for both."""
        return tuple((address, owner[0], owner[1]) for address, owner in self._owners())

    def _owners(self) -> list[tuple[IPAddress, tuple[str, str]]]:
        found = []
        for name in self._names():
            content = self._read(name)
            if content is not None:
                found.append((ip_address(name), _split(content)))
        return sorted(found, key=lambda entry: (entry[0].version, int(entry[0])))

    def _names(self) -> list[str]:
        """The files that are named as addresses; others are not ours."""
        try:
            return [name for name in os.listdir(self._directory) if _address(name) is not None]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failure("list", self._directory, error) from error

    def _read(self, name: str) -> str | None:
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                return file.read().decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure("read", path, error) from error
        except UnicodeDecodeError as error:
            raise IOFailure(f"read {path}: found bytes that are no text, expected a container ID") from error

    def _note_last(self, address: IPAddress, range_set: int) -> None:
        """Written over in place: a rename or a truncation would make the file system flush, for what is only a hint."""
        path = self._path(_LAST + str(range_set))
        content = str(address).encode()
        with _translated("write", path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, content)
                os.ftruncate(descriptor, len(content))
            finally:
                os.close(descriptor)

    def _remove(self, address: IPAddress) -> None:
        path = self._path(str(address))
        with _translated("remove", path), suppress(FileNotFoundError):
            os.unlink(path)

    def _remove_unfinished(self) -> None:
        """What a writer that died left; nobody writes now but the holder of the lock."""
        path = self._path(_UNFINISHED)
        if os.path.lexists(path):  # a disk that is read-only would refuse to remove even what is not there
            with _translated("remove", path):
                os.unlink(path)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _wait_for_lock(descriptor: int, path: str) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise TryAgainLater(f"lock {path}: still held by another process after {_LOCK_SECONDS:g} s") from error
            time.sleep(_LOCK_POLL_SECONDS)
        except OSError as error:
            raise _failure("lock", path, error) from error
        else:
            return


def _write(path: str, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.write(content.encode())


def _split(content: str) -> tuple[str, str]:
    """(container ID, ifname), the latter "" in files of before there was one."""
    container_id, _, ifname = content.strip().partition(_SEPARATOR)
    return container_id.strip(), ifname


def _is_of(owner: tuple[str, str], container_id: str, ifname: str) -> bool:
    return owner[0] == container_id and owner[1] in (ifname, "")


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


@contextmanager
def _translated(action: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(action, path, error) from error


def _failure(action: str, path: str, error: OSError) -> CniError:
    code = error.errno or 0
    kind = StoreFull if code in _NO_ROOM else IOFailure
    return kind(f"{action} {path}: {os.strerror(code).lower()}", errno.errorcode.get(code, str(code)))
