"""Shared by every suite: where tests that need root run, and a way to wait that is not a sleep.

Tests marked `root` need CAP_NET_ADMIN. An ordinary user gets it in a user namespace of their own: the whole run
starts again inside one, with network and mount namespaces and an empty /run that `ip netns` can write to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

pytest_plugins = ["tests.skips"]

_INSIDE = "HOMEPORT_TESTS_IN_USER_NAMESPACE"
_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]


def _user_namespaces_work() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def pytest_configure(config: pytest.Config) -> None:
    """An ordinary user's run continues in a user namespace, as root of that namespace."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # Debian leaves them out for ordinary users
    if os.environ.get(_INSIDE) == "new":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        os.environ[_INSIDE] = "ready"
    if os.geteuid() == 0 or _INSIDE in os.environ or not _user_namespaces_work():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # else the new process would print into the capture's file
    temporary = f"/tmp/homeport-tests-{os.getuid()}"  # pytest would take us for the root whose directory is there
    os.makedirs(temporary, mode=0o700, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", temporary)
    os.environ[_INSIDE] = "new"
    os.execvp("unshare", [*_UNSHARE, sys.executable, "-m", "pytest", *config.invocation_params.args])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    lacking = pytest.mark.skip(reason="user lacks CAP_NET_ADMIN, and this machine forbids user namespaces")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(lacking)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, deadline=5.0)`: until `condition()` is true, or fails after `deadline` seconds."""

    def wait(condition: Callable[[], object], deadline: float = 5.0) -> None:
        end = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < end, f"still not so after {deadline} s: {condition}"
            time.sleep(0.005)

    return wait
