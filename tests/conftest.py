"""Fixtures for all tests; see tests/support/app.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import App
from tests.support.ports import port_block

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what random tests began with, also where they ran in another process (pytest-xdist)."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
            terminalreporter.write_line(f"{name}: {value}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all tests of one real server, [@NAME...] in their names, to one worker, so that it is started once.

    xdist's own way, the mark `xdist_group`, does nothing with pytest 9.2.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            found = re.search(r"\[(?:[^\]]*-)?(@\w+)", nodeid)
            return found[1] if found else nodeid

    return Scheduling(config, log)


@pytest.fixture
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[App]:
    """An app in a directory and a port range of its own; after the test nobody of it may be left."""
    with port_block() as base_port:
        built = App(tmp_path, base_port)
        try:
            yield built
        finally:
            left = built.close()
        if not request.node.stash.get(_FAILED, False):
            assert left == {}, "left behind"
