"""Which tests run in the guest, and which skips are allowed (a pytest plugin).

The guest is the kernel under qemu that has what this machine's may lack; tests/qemu runs every test marked `guest`
there and fails when one is skipped. The mark is put on each `root` test with "ipvlan" in the name of its module or its
own; a test that needs another such capability is marked by hand. With HOMEPORT_NO_SKIPS set, as in CI, a skip or an
expected failure is a failure, unless its reason begins with "kernel lacks" and the guest runs the test.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

ALLOWED = "kernel lacks"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guest: also run on the kernel under qemu (tests/qemu)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ipvlan" in item.nodeid.partition("[")[0] and item.get_closest_marker("root"):
            item.add_marker("guest")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not (item.get_closest_marker("guest") and reason(report).startswith(ALLOWED)):
        refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:  # a whole module: none of its tests would be seen to be skipped
        refuse(report)
    return report


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What the skip or the expected failure gave as its reason."""
    if hasattr(report, "wasxfail"):
        return f"expected failure: {report.wasxfail}"
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns the skip into a failure, where skips are not wanted."""
    if os.environ.get("HOMEPORT_NO_SKIPS"):
        text = f'skipped: "{reason(report)}": expected none but "{ALLOWED} ..." of a test that the guest runs'
        if hasattr(report, "wasxfail"):
            del report.wasxfail
        report.outcome = "failed"
        report.longrepr = text
