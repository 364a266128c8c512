"""Making and joining Linux namespaces from a process with one thread. I/O: unshare(2), setns(2), mount(2).

A process without CAP_SYS_ADMIN gets it in a user namespace of its own, where its user is root and nobody else exists
(user_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from homeport.model.errors import CniError, InvalidEnvironment, InvalidNetns, IOFailure, Unsupported

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000
_LIBC = ctypes.CDLL(None, use_errno=True)

# Every switch known to forbid user namespaces, with the value that does.
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
    ("/proc/sys/user/max_user_namespaces", "0", "10000"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)


def unshare() -> None:
    """Leaves for new network and mount namespaces, and a new user namespace when the caller's powers demand it.

    Mounts made outside still appear inside, none made inside appears outside.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    except PermissionError:
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/setgroups").write_text("deny")  # demanded before gid_map by user_namespaces(7)
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _call("mount", b"none", b"/", None, _MS_REC | _MS_SLAVE, None)


def mount_tmpfs(path: Path) -> None:
    """An empty file system in memory at an existing directory."""
    _call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", 0, b"mode=0755")


def refusal(error: OSError) -> CniError:
    """Why this machine did not let `unshare` or `mount_tmpfs` happen, naming the switch that forbids it."""
    for path, forbids, allows in _SWITCHES:
        try:
            found = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel has no such switch
        if found == forbids:
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return Unsupported(
                f"start the lab without root: user namespaces are forbidden, {name} is {found}",
                f"allow them with: sysctl -w {name}={allows}; or run the command as root",
            )
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return Unsupported(f"start the lab: the kernel refused new namespaces: {name}", "run the command as root")


def is_inside(pid: int) -> bool:
    """Whether this process is already in the mount and network namespaces of process `pid`."""
    return all(_inode("self", kind) == _inode(str(pid), kind) for kind in ("mnt", "net"))


def join(pid: int, pidfd: int) -> None:
    """Enters the user, mount and network namespaces of the process behind `pidfd`, which is `pid`.

    The working directory is kept where its path also exists inside.
    """
    kinds = _CLONE_NEWNS | _CLONE_NEWNET
    directory = os.getcwd()
    try:
        # Entering one's own user namespace again is refused (setns(2)), and needless.
        if _inode("self", "user") != _inode(str(pid), "user"):
            kinds |= _CLONE_NEWUSER
        _call("setns", pidfd, kinds)
    except OSError as e:
        name = errno.errorcode.get(e.errno or 0, str(e.errno))
        raise InvalidEnvironment(
            f"enter the namespaces of the lab's keeper, process {pid}: {name}", "it belongs to another user"
        ) from e
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def join_network(path: str) -> None:
    """Enters a pinned network namespace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as e:
        raise InvalidNetns(f'enter network namespace "{path}": {os.strerror(e.errno or 0).lower()}') from e


def _inode(process: str, kind: str) -> int:
    try:
        return os.stat(f"/proc/{process}/ns/{kind}").st_ino
    except OSError as e:
        raise IOFailure(f"read /proc/{process}/ns/{kind}: {os.strerror(e.errno or 0).lower()}") from e


def _call(function: str, *args: int | bytes | None) -> None:
    if getattr(_LIBC, function)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
