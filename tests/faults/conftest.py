"""Fixtures of the fault tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.helpers import cgroup, has_cgroup
from tests.support.app import App, Run


@pytest.fixture
def freezer(app: App) -> Iterator[object]:
    """A frozen process takes no signal, not even SIGKILL, until it is thawed: state D, as behind a dead disk."""
    if not has_cgroup("freezer"):
        pytest.skip("no freezer of cgroup v1 to write to")
    with cgroup("freezer", app.token) as path:
        try:
            yield path
        finally:
            (path / "freezer.state").write_text("THAWED")  # what was killed meanwhile ends now


class Deaf:
    """A reader of our stdout that does not read before it is told to."""

    def __init__(self) -> None:
        self.fd, self.stdout = os.pipe()

    def started(self) -> None:
        os.close(self.stdout)

    def listen(self, run: Run) -> None:
        """Read from now on."""
        run.follow(self.fd, run.take_out)
        self.fd = -1

    def leave(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    reader = Deaf()
    yield reader
    reader.leave()
